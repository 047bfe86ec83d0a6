//===- EmittedModel.cpp - A model as object code --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/EmittedModel.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Conversion/ScalarBuilder.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Pipelines/Cpu.h"
#include "nibble/Pipelines/Gpu.h"
#include "nibble/Pipelines/Reference.h"
#include "nibble/Target/NVVM/DeviceModule.h"
#include "nibble/Target/OptimizeModule.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Linker/Linker.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Triple.h"

using namespace mlir;
using namespace nibble;
using llvm::Constant;
using llvm::ConstantInt;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

//===----------------------------------------------------------------------===//
// From the model to LLVM IR
//===----------------------------------------------------------------------===//

static size_t getStoredSize(RankedTensorType type) {
  Type stored = getStoredType(type.getElementType());
  size_t size = (stored.getIntOrFloatBitWidth() + 7) / 8;
  for (int64_t extent : type.getShape())
    size *= extent;
  return size;
}

/// Code of `module` for `row`: a function may use the row's instructions, and
/// none is visible outside.
static void setTarget(llvm::Module &module, const TargetRow &row) {
  for (llvm::Function &function : module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("target-cpu", row.cpu);
    if (!row.features.empty())
      function.addFnAttr("target-features", row.features);
    function.setLinkage(llvm::GlobalValue::InternalLinkage);
  }
  for (llvm::GlobalVariable &global : module.globals())
    if (!global.isDeclaration())
      global.setLinkage(llvm::GlobalValue::InternalLinkage);
  // The name has a meaning of its own in C.
  if (llvm::Function *main = module.getFunction("main"))
    main->setName("model_main");
}

/// `void (ptr arguments)`, which calls `callee` with what each element of
/// `arguments` points to.
static llvm::Function *makeEntry(llvm::Module &module, llvm::Function *callee,
                                 const Twine &name, const TargetRow &row) {
  llvm::LLVMContext &context = module.getContext();
  llvm::IRBuilder<> builder(context);
  llvm::Type *pointer = builder.getPtrTy();
  auto *function = llvm::Function::Create(
      llvm::FunctionType::get(builder.getVoidTy(), {pointer}, false),
      llvm::GlobalValue::ExternalLinkage, name, module);
  builder.SetInsertPoint(llvm::BasicBlock::Create(context, "", function));
  llvm::SmallVector<llvm::Value *> arguments;
  for (unsigned i = 0; i < callee->arg_size(); ++i) {
    llvm::Value *slot =
        builder.CreateConstGEP1_64(pointer, function->getArg(0), i);
    llvm::Value *address = builder.CreateLoad(pointer, slot);
    arguments.push_back(builder.CreateLoad(pointer, address));
  }
  builder.CreateCall(callee, arguments);
  builder.CreateRetVoid();
  return function;
}

static LogicalResult report(ModuleOp module, Error error) {
  if (!error)
    return success();
  return module.emitError(llvm::toString(std::move(error)));
}

LogicalResult EmittedModel::addRow(ModuleOp module, const TargetRow &target) {
  CpuOptions cpu;
  cpu.target = target.name.str();
  cpu.compute = options.compute;
  GpuOptions gpu;
  gpu.host = target.name.str();
  gpu.tensorCores = options.compute != "f32";
  if (options.device)
    gpu.target = options.device->name.str();
  if (failed(options.device ? lowerToTensors(module, gpu)
                            : lowerToTensors(module, cpu, options.reference)))
    return failure();

  Row row;
  row.target = &target;
  auto main = module.lookupSymbol<func::FuncOp>("main");
  for (unsigned i = 0; i < main.getNumArguments(); ++i) {
    bool updated = main.getArgAttr(i, onnx::kUpdatedAttrName) != nullptr;
    main.setArgAttr(i, "bufferization.writable",
                    BoolAttr::get(module.getContext(), updated));
    main.removeArgAttr(i, onnx::kUpdatedAttrName);
    auto value =
        main.getArgAttrOfType<DenseResourceElementsAttr>(i, kWeightAttrName);
    if (!value)
      continue;
    main.removeArgAttr(i, kWeightAttrName);
    if (options.device)
      main.setArgAttr(i, kResidentAttrName, UnitAttr::get(module.getContext()));
    auto type = cast<RankedTensorType>(value.getType());
    AsmResourceBlob *blob = value.getRawHandle().getBlob();
    if (!blob || blob->getData().size() != getStoredSize(type))
      return main.emitError("a weight has not the data of its type: ")
             << value.getRawHandle().getKey();
    row.weights.push_back(
        {weights.add(blob->getData()), type.getShape().vec()});
  }

  if (!options.device) {
    if (failed(lowerToLLVM(module, cpu, options.reference)))
      return failure();
  } else {
    FailureOr<DeviceProgram> program = lowerToLLVM(module, gpu);
    if (failed(program))
      return failure();
    device = std::move(*program);
    if (failed(report(module, addDevice())))
      return failure();
  }
  std::unique_ptr<llvm::Module> part = translateModuleToLLVMIR(module, context);
  if (!part)
    return failure();
  part->setTargetTriple(code->getTargetTriple());
  part->setDataLayout(code->getDataLayout());
  llvm::Function *callee = part->getFunction("_mlir_ciface_main");
  if (!callee)
    return module.emitError("the pipeline made no C interface for 'main'");
  if (llvm::Function *release = part->getFunction("_mlir_memref_to_llvm_free"))
    if (options.device)
      release->setName("nibble_device_free");
  std::string name = "nibble_entry_" + std::to_string(rows.size());
  makeEntry(*part, callee, name, target);
  setTarget(*part, target);
  // Internal functions of several rows may have one name; the entry may not.
  part->getFunction(name)->setLinkage(llvm::GlobalValue::ExternalLinkage);
  if (llvm::Linker::linkModules(*code, std::move(part)))
    return module.emitError("the code for ")
           << target.name << " cannot be linked to the runtime";
  row.entry = code->getFunction(name);
  row.entry->setLinkage(llvm::GlobalValue::InternalLinkage);
  rows.push_back(std::move(row));
  return success();
}

/// Makes PTX of the GPU's part.
Error EmittedModel::addDevice() {
  llvm::LLVMContext deviceContext;
  auto module =
      makeDeviceModule(*device.module, *options.device, deviceContext);
  if (!module)
    return module.takeError();
  llvm::raw_string_ostream os(kernels);
  (*module)->print(os, /*AAW=*/nullptr);
  auto text = emitPtx(std::move(*module), *options.device);
  if (!text)
    return text.takeError();
  ptx = std::move(*text);
  return Error::success();
}

//===----------------------------------------------------------------------===//
// What the runtime reads
//===----------------------------------------------------------------------===//

namespace {
/// Makes constants with the layout of the structs in Runtime/Model.h.
class InfoBuilder {
public:
  explicit InfoBuilder(llvm::Module &module)
      : module(module), context(module.getContext()) {}

  Constant *word(uint64_t value) {
    return ConstantInt::get(llvm::Type::getInt64Ty(context), value);
  }
  Constant *half(uint32_t value) {
    return ConstantInt::get(llvm::Type::getInt32Ty(context), value);
  }
  Constant *null() {
    return llvm::ConstantPointerNull::get(llvm::PointerType::get(context, 0));
  }
  Constant *text(StringRef value) {
    return place(llvm::ConstantDataArray::getString(context, value));
  }
  Constant *words(ArrayRef<int64_t> values) {
    if (values.empty())
      return null();
    std::vector<uint64_t> copy(values.begin(), values.end());
    return place(llvm::ConstantDataArray::get(context, ArrayRef(copy)));
  }
  Constant *record(ArrayRef<Constant *> fields) {
    return llvm::ConstantStruct::getAnon(context, fields);
  }
  /// An array of equal records.
  Constant *table(ArrayRef<Constant *> records) {
    if (records.empty())
      return null();
    auto *type =
        llvm::ArrayType::get(records.front()->getType(), records.size());
    return place(llvm::ConstantArray::get(type, records));
  }
  /// The address of a constant with that value.
  llvm::GlobalVariable *place(Constant *value) {
    auto *global = new llvm::GlobalVariable(
        module, value->getType(), /*isConstant=*/true,
        llvm::GlobalValue::PrivateLinkage, value, "nibble_info");
    return global;
  }
  Constant *values(ArrayRef<ModelInterface::Value> values);
  Constant *device(const DeviceProgram &program, const NvidiaRow &row,
                   StringRef ptx);

private:
  Constant *product(const ProductFormat &format, const NvidiaRow &row);

  Constant *byte(uint8_t value) {
    return ConstantInt::get(llvm::Type::getInt8Ty(context), value);
  }

  llvm::Module &module;
  llvm::LLVMContext &context;
};
} // namespace

Constant *InfoBuilder::values(ArrayRef<ModelInterface::Value> values) {
  llvm::SmallVector<Constant *> records;
  for (const ModelInterface::Value &value : values) {
    llvm::SmallVector<int64_t> shape;
    llvm::SmallVector<Constant *> names;
    for (const onnx::Dimension &dimension : onnx::getDimensions(value.type)) {
      shape.push_back(dimension.isStatic() ? dimension.size : -1);
      names.push_back(dimension.symbol && dimension.symbol != "?"
                          ? text(dimension.symbol.getValue())
                          : null());
    }
    DataType type = getDataType(value.type.getElementType());
    Constant *lanes = ConstantInt::get(llvm::Type::getInt16Ty(context), 1);
    records.push_back(record({text(value.name),
                              record({byte(type.code), byte(type.bits), lanes}),
                              half(value.type.getRank()), words(shape),
                              table(names), half(value.updated)}));
  }
  return table(records);
}

/// A nibble_gpu_kernels (nibble_gpu.h).
Constant *InfoBuilder::product(const ProductFormat &format,
                               const NvidiaRow &row) {
  llvm::SmallVector<Constant *> kernels;
  for (const ProductKernel &kernel : format.kernels)
    kernels.push_back(record({text(kernel.name), null(), half(kernel.maxRows),
                              half(kernel.outputs), half(kernel.rows),
                              half(kernel.warpsAlongK), half(kernel.threads),
                              half(kernel.sharedBytes)}));
  // "sm_90a" is 9.0 alone.
  StringRef version = row.chip;
  version.consume_front("sm_");
  bool isExact = version.consume_back("a");
  const int32_t hasBias = 0;
  int major = 0;
  (void)version.drop_back().getAsInteger(10, major);
  return record({text(row.chip), half(major), half(version.back() - '0'),
                 half(isExact), half(format.bits), half(format.group),
                 half(format.hasZeros), half(hasBias), half(format.overlaps),
                 half(kernels.size()), table(kernels)});
}

/// A nibble_device_code (Device.h).
Constant *InfoBuilder::device(const DeviceProgram &program,
                              const NvidiaRow &row, StringRef ptx) {
  llvm::SmallVector<Constant *> names, products;
  for (const std::string &name : program.kernels)
    names.push_back(text(name));
  for (const ProductFormat &format : program.products)
    products.push_back(product(format, row));
  products.push_back(product(ProductFormat{}, row));
  return place(record({text(ptx), table(names), word(names.size()),
                       table(products), word(program.products.size()),
                       word(program.bufferBytes.value_or(0))}));
}

/// Bits of CpuFeatures.inl for what the code of a row may use.
static Expected<uint64_t> getFeatureBits(const TargetRow &row) {
  uint64_t bits = 0;
  bool arm = llvm::Triple(row.triple).isAArch64();
  llvm::SmallVector<StringRef> features;
  row.features.split(features, ',', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  for (StringRef feature : features) {
    if (!feature.consume_front("+"))
      continue;
    int bit = -1;
#define NIBBLE_X86_FEATURE(name, position, leaf, subleaf, reg, at)             \
  if (!arm && feature == (name))                                               \
    bit = (position);
#define NIBBLE_ARM_FEATURE(name, position, entry, at)                          \
  if (arm && feature == (name))                                                \
    bit = (position);
#include "nibble/Runtime/CpuFeatures.inl"
    if (bit < 0)
      return makeError("the runtime cannot tell whether a processor has '" +
                       feature + "', which " + row.name + " needs");
    bits |= uint64_t(1) << bit;
  }
  return bits;
}

/// A visible function `name` that calls `callee`: with `info` first where it is
/// not null, and with a null pointer last where `defaultLast`.
static void exportFunction(llvm::Module &module, const Twine &name,
                           StringRef runtimeName, Constant *info,
                           bool defaultLast = false) {
  llvm::Function *callee = module.getFunction(runtimeName);
  llvm::LLVMContext &context = module.getContext();
  ArrayRef<llvm::Type *> types = callee->getFunctionType()->params();
  types = types.drop_front(info ? 1 : 0).drop_back(defaultLast ? 1 : 0);
  auto *function = llvm::Function::Create(
      llvm::FunctionType::get(callee->getReturnType(), types, false),
      llvm::GlobalValue::ExternalLinkage, name, module);
  function->setDSOLocal(true);
  llvm::IRBuilder<> builder(llvm::BasicBlock::Create(context, "", function));
  llvm::SmallVector<llvm::Value *> arguments;
  if (info)
    arguments.push_back(info);
  for (llvm::Argument &argument : function->args())
    arguments.push_back(&argument);
  if (defaultLast)
    arguments.push_back(llvm::ConstantPointerNull::get(builder.getPtrTy()));
  llvm::CallInst *call = builder.CreateCall(callee, arguments);
  call->setCallingConv(callee->getCallingConv());
  if (callee->getReturnType()->isVoidTy())
    builder.CreateRetVoid();
  else
    builder.CreateRet(call);
}

static void exportInterface(llvm::Module &module, StringRef name,
                            Constant *info) {
  auto add = [&](StringRef suffix, StringRef callee, Constant *first = nullptr,
                 bool defaultLast = false) {
    exportFunction(module, name + "_" + suffix, callee, first, defaultLast);
  };
  add("create", "nibble_model_create", info);
  add("destroy", "nibble_model_destroy");
  add("target", "nibble_model_target");
  add("inputs", "nibble_model_inputs", info);
  add("outputs", "nibble_model_outputs", info);
  add("output_shapes", "nibble_model_output_shapes", info);
  add("run", "nibble_model_run", nullptr, /*defaultLast=*/true);
  add("run_until", "nibble_model_run");
  add("release", "nibble_model_release");
  add("free", "_mlir_memref_to_llvm_free");
  add("last_error", "nibble_model_last_error");
}

Error EmittedModel::finish() {
  uint64_t size = weights.getSize();
  weightsInFile =
      options.weights == WeightsPlace::File ||
      (options.weights == WeightsPlace::Auto && size > kMaxEmbeddedWeights);
  weightsInFile &= size > 0;

  // The runtime stays visible until all that calls it is there.
  llvm::SmallVector<llvm::Function *> runtime;
  for (llvm::Function &function : *code)
    if (!function.isDeclaration())
      runtime.push_back(&function);

  InfoBuilder builder(*code);
  llvm::SmallVector<Constant *> records;
  for (const Row &row : rows) {
    llvm::SmallVector<Constant *> list;
    for (const Row::Weight &weight : row.weights)
      list.push_back(builder.record({builder.word(weight.offset),
                                     builder.word(weight.shape.size()),
                                     builder.words(weight.shape)}));
    auto features = getFeatureBits(*row.target);
    if (!features)
      return features.takeError();
    records.push_back(builder.record(
        {builder.text(row.target->name), builder.word(*features), row.entry,
         builder.table(list), builder.word(list.size())}));
  }
  Constant *embedded = builder.null();
  if (size > 0 && !weightsInFile) {
    std::string bytes;
    llvm::raw_string_ostream os(bytes);
    bytes.reserve(size);
    weights.write(os);
    llvm::GlobalVariable *data = builder.place(
        llvm::ConstantDataArray::getString(context, bytes, /*AddNull=*/false));
    data->setAlignment(llvm::Align(64));
    embedded = data;
  }
  Constant *deviceCode = builder.null(), *interfaceOfDevice = builder.null();
  if (options.device) {
    deviceCode = builder.device(device, *options.device, ptx);
    interfaceOfDevice = code->getNamedGlobal("nibble_cuda");
  }
  Constant *info = builder.place(builder.record(
      {builder.text(options.name), builder.values(interface.inputs),
       builder.values(interface.outputs), builder.table(records),
       builder.word(interface.inputs.size()),
       builder.word(interface.outputs.size()), builder.word(rows.size()),
       embedded, builder.text(options.weightsFile), builder.word(size),
       builder.word(weights.getHash()), deviceCode, interfaceOfDevice}));
  exportInterface(*code, options.name, info);
  for (llvm::Function *function : runtime)
    function->setLinkage(llvm::GlobalValue::InternalLinkage);
  code->getNamedGlobal("nibble_cuda")
      ->setLinkage(llvm::GlobalValue::InternalLinkage);
  std::string problems;
  llvm::raw_string_ostream os(problems);
  if (llvm::verifyModule(*code, &os))
    return makeError("the emitted code is malformed, a bug in Nibble: " +
                     problems);
  return Error::success();
}

/// An empty module that holds the runtime.
static Expected<std::unique_ptr<llvm::Module>>
loadRuntime(StringRef triple, llvm::LLVMContext &context) {
  auto machine = createTargetMachine(triple);
  if (!machine)
    return machine.takeError();
  StringRef bitcode = getRuntimeBitcode(triple);
  if (bitcode.empty())
    return makeError("this build of Nibble has no runtime for " + triple);
  auto module = llvm::parseBitcodeFile(
      llvm::MemoryBufferRef(bitcode, "runtime"), context);
  if (!module)
    return module.takeError();
  (*module)->setTargetTriple(llvm::Triple(triple));
  (*module)->setDataLayout((*machine)->createDataLayout());
  return module;
}

FailureOr<std::unique_ptr<EmittedModel>>
EmittedModel::emit(ModuleOp module, const EmitOptions &options) {
  if (options.device && options.updateCaches)
    return module.emitError("code for a GPU does not update caches in place: "
                            "compile without --update-caches");
  PassManager shapes(module.getContext());
  buildShapesPipeline(shapes, options.updateCaches);
  if (failed(shapes.run(module)))
    return failure();
  auto interface = readInterface(module);
  if (failed(interface))
    return failure();
  std::unique_ptr<EmittedModel> model(new EmittedModel(options));
  model->interface = std::move(*interface);
  StringRef triple = options.rows.front()->triple;
  auto runtime = loadRuntime(triple, model->context);
  if (!runtime)
    return report(module, runtime.takeError());
  model->code = std::move(*runtime);
  for (const TargetRow *row : options.rows) {
    bool last = row == options.rows.back();
    OwningOpRef<ModuleOp> copy = last ? nullptr : module.clone();
    if (failed(model->addRow(last ? module : *copy, *row)))
      return failure();
  }
  if (failed(report(module, model->finish())))
    return failure();
  return model;
}

//===----------------------------------------------------------------------===//
// From LLVM IR to object code
//===----------------------------------------------------------------------===//

static void initializeTargets() {
  static const bool initialized = [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    LLVMInitializeX86AsmParser();
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmPrinter();
    LLVMInitializeAArch64AsmParser();
    return true;
  }();
  (void)initialized;
}

Expected<std::unique_ptr<llvm::TargetMachine>>
nibble::createTargetMachine(StringRef tripleName) {
  initializeTargets();
  llvm::Triple triple(tripleName);
  std::string error;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target)
    return makeError("cannot emit code for " + tripleName + ": " + error);
  llvm::TargetOptions options;
  // No multiply and add becomes one operation unless the IR says so.
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict;
  options.FunctionSections = true;
  std::unique_ptr<llvm::TargetMachine> machine(target->createTargetMachine(
      triple, /*CPU=*/triple.isAArch64() ? "generic" : "x86-64",
      /*Features=*/"", options, llvm::Reloc::PIC_, std::nullopt,
      llvm::CodeGenOptLevel::Default));
  if (!machine)
    return makeError("cannot emit code for " + tripleName);
  return machine;
}

Error EmittedModel::writeCode(llvm::raw_pwrite_stream &os, bool assembly) {
  auto machine = createTargetMachine(code->getTargetTriple().str());
  if (!machine)
    return machine.takeError();
  optimizeModule(*code, **machine, llvm::OptimizationLevel::O2);
  hurryStraightCode(*code);
  llvm::legacy::PassManager passes;
  auto type = assembly ? llvm::CodeGenFileType::AssemblyFile
                       : llvm::CodeGenFileType::ObjectFile;
  if ((*machine)->addPassesToEmitFile(passes, os, nullptr, type))
    return makeError("LLVM cannot write this kind of file for " +
                     code->getTargetTriple().str());
  passes.run(*code);
  return Error::success();
}

void EmittedModel::writeLLVM(llvm::raw_ostream &os) const {
  code->print(os, nullptr);
}

void EmittedModel::writeHeader(llvm::raw_ostream &os) const {
  writeModelHeader(interface, options.name, os);
}

bool EmittedModel::usesOpenMP() const {
  return llvm::any_of(code->functions(), [](const llvm::Function &function) {
    return function.isDeclaration() &&
           (function.getName().starts_with("__kmpc_") ||
            function.getName().starts_with("omp_"));
  });
}
