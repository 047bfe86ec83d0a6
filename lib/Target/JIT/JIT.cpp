//===- JIT.cpp - Compile a model and run it in this process ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/JIT.h"

#include "SimulatedDevice.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Conversion/ScalarBuilder.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/FloatFormats.h"
#include "nibble/Pipelines/Cpu.h"
#include "nibble/Pipelines/Gpu.h"
#include "nibble/Pipelines/Reference.h"
#include "nibble/Runtime/Run.h"
#include "nibble/Target/OptimizeModule.h"

#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/ExecutionEngine/ExecutionEngine.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ExecutionEngine/Orc/JITTargetMachineBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

#include <cstring>
#include <utility>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static void destroyPool(nibble_pool *pool) {
  nibble_pool_free(pool);
  delete pool;
}

CompiledModel::CompiledModel() : pool(new nibble_pool(), destroyPool) {}
CompiledModel::~CompiledModel() = default;
CodeCache::CodeCache() = default;
CodeCache::~CodeCache() = default;
RunObserver::~RunObserver() = default;

//===----------------------------------------------------------------------===//
// Compiling
//===----------------------------------------------------------------------===//

static size_t getStoredSize(Type elementType) {
  return (getStoredType(elementType).getIntOrFloatBitWidth() + 7) / 8;
}

/// The types of the model's inputs or results; fails on others than tensors.
static LogicalResult collectTypes(func::FuncOp main, TypeRange types,
                                  StringRef what,
                                  std::vector<RankedTensorType> &result) {
  for (auto [index, type] : llvm::enumerate(types)) {
    auto tensor = dyn_cast<RankedTensorType>(type);
    if (!tensor || !getStoredType(tensor))
      return main.emitError() << what << " " << index << " of the model is no "
                              << "tensor of numbers with a known rank";
    result.push_back(tensor);
  }
  return success();
}

/// The keys of the resources that `module` refers to.
static llvm::StringSet<> collectResources(ModuleOp module) {
  llvm::StringSet<> keys;
  module.walk([&](Operation *op) {
    op->getAttrDictionary().walk([&](DenseResourceElementsAttr value) {
      keys.insert(value.getRawHandle().getKey());
    });
  });
  return keys;
}

/// Moves the values of weights from the attributes of arguments into `weights`.
/// Those in `given` stay with the context as well.
LogicalResult CompiledModel::takeWeights(ModuleOp module,
                                         const llvm::StringSet<> &given,
                                         bool onDevice) {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  for (unsigned i = 0; i < main.getNumArguments(); ++i) {
    main.setArgAttr(i, "bufferization.writable",
                    BoolAttr::get(module.getContext(), false));
    auto value =
        main.getArgAttrOfType<DenseResourceElementsAttr>(i, kWeightAttrName);
    if (!value)
      continue;
    main.removeArgAttr(i, kWeightAttrName);
    if (onDevice)
      main.setArgAttr(i, kResidentAttrName, UnitAttr::get(module.getContext()));
    AsmResourceBlob *blob = value.getRawHandle().getBlob();
    if (!blob)
      return main.emitError("a weight has no data: ")
             << value.getRawHandle().getKey();
    Weight weight;
    weight.type = cast<RankedTensorType>(value.getType());
    weight.bytes = blob->getData();
    if (!given.contains(value.getRawHandle().getKey()))
      weight.owned = std::move(*blob);
    size_t size = getStoredSize(weight.type.getElementType());
    if (reinterpret_cast<uintptr_t>(weight.bytes.data()) % size != 0) {
      weight.aligned.assign(weight.bytes.begin(), weight.bytes.end());
      weight.bytes = weight.aligned;
    }
    weights.push_back(std::move(weight));
  }
  return success();
}

void CompiledModel::takeProbes(ModuleOp module) {
  auto ids = module->getAttrOfType<ArrayAttr>(kObserversAttrName);
  if (!ids)
    return;
  for (Attribute id : ids)
    probes.push_back(cast<StringAttr>(id).str());
  module->removeAttr(kObserversAttrName);
}

/// The text of a module whose weights are arguments: equal for models with
/// equal code. `messages` becomes what its checks say, which is no part of it:
/// they name nodes.
static std::string printCode(ModuleOp module,
                             std::vector<std::string> &messages) {
  SmallVector<cf::AssertOp> checks;
  module.walk([&](cf::AssertOp check) {
    checks.push_back(check);
    messages.push_back(check.getMsg().str());
    check.setMsg("");
  });
  std::string text;
  llvm::raw_string_ostream os(text);
  module.print(os, OpPrintingFlags().useLocalScope());
  for (auto [check, message] : llvm::zip(checks, messages))
    check.setMsg(message);
  return text;
}

static Expected<std::unique_ptr<ExecutionEngine>>
createEngine(ModuleOp module) {
  static const bool initialized = [] {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    return true;
  }();
  (void)initialized;
  auto builder = llvm::orc::JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  // No multiply and add becomes one operation.
  builder->getOptions().AllowFPOpFusion = llvm::FPOpFusion::Strict;
  auto created = builder->createTargetMachine();
  if (!created)
    return created.takeError();
  std::unique_ptr<llvm::TargetMachine> target = std::move(*created);
  auto optimize = [machine = target.get()](llvm::Module *code) {
    optimizeModule(*code, *machine, llvm::OptimizationLevel::O2);
    hurryStraightCode(*code);
    return Error::success();
  };
  ExecutionEngineOptions options;
  options.transformer = optimize;
  options.jitCodeGenOptLevel = llvm::CodeGenOptLevel::Default;
  options.enableObjectDump = false;
  options.enableGDBNotificationListener = false;
  options.enablePerfNotificationListener = false;
  return ExecutionEngine::create(module, options, std::move(target));
}

//===----------------------------------------------------------------------===//
// Probes
//===----------------------------------------------------------------------===//

/// Who observes the run of this thread.
static thread_local RunObserver *currentObserver = nullptr;

namespace {
/// MLIR's tensor of unknown rank: the rank and a pointer to the descriptor.
struct UnrankedDescriptor {
  int64_t rank;
  const intptr_t *words;
};
} // namespace

static char *getPointer(const intptr_t *words, unsigned position);

/// Copies a tensor with strides into `values`, row-major.
template <typename Element, typename Convert>
static void gather(const Element *data, ArrayRef<int64_t> sizes,
                   ArrayRef<int64_t> strides, Convert convert,
                   std::vector<float> &values) {
  if (sizes.empty()) {
    values.push_back(convert(*data));
    return;
  }
  for (int64_t i = 0; i < sizes[0]; ++i)
    gather(data + i * strides[0], sizes.drop_front(), strides.drop_front(),
           convert, values);
}

static bool isRowMajor(ArrayRef<int64_t> sizes, ArrayRef<int64_t> strides) {
  int64_t stride = 1;
  for (size_t axis = sizes.size(); axis-- > 0;) {
    if (sizes[axis] != 1 && strides[axis] != stride)
      return false;
    stride *= sizes[axis];
  }
  return true;
}

template <typename Element, typename Convert>
static void observe(int64_t probe, const UnrankedDescriptor *tensor,
                    Convert convert) {
  if (!currentObserver)
    return;
  const intptr_t *words = tensor->words;
  ArrayRef<int64_t> layout(words + 3, 2 * tensor->rank);
  ArrayRef<int64_t> sizes = layout.take_front(tensor->rank);
  ArrayRef<int64_t> strides = layout.drop_front(tensor->rank);
  auto *data =
      reinterpret_cast<const Element *>(getPointer(words, 1)) + words[2];
  if constexpr (std::is_same_v<Element, float>)
    if (isRowMajor(sizes, strides)) {
      size_t count = ShapedType::getNumElements(sizes);
      return currentObserver->observe(probe, {sizes, ArrayRef(data, count)});
    }
  std::vector<float> values;
  gather(data, sizes, strides, convert, values);
  currentObserver->observe(probe, {sizes, values});
}

static void observeF32(int64_t probe, const UnrankedDescriptor *tensor) {
  observe<float>(probe, tensor, [](float value) { return value; });
}

static void observeF64(int64_t probe, const UnrankedDescriptor *tensor) {
  observe<double>(probe, tensor,
                  [](double value) { return static_cast<float>(value); });
}

static void observeF16(int64_t probe, const UnrankedDescriptor *tensor) {
  observe<uint16_t>(probe, tensor, [](uint16_t bits) {
    return decodeFloat(FloatFormat::F16, bits);
  });
}

static void observeBF16(int64_t probe, const UnrankedDescriptor *tensor) {
  observe<uint16_t>(probe, tensor, [](uint16_t bits) {
    return decodeFloat(FloatFormat::BF16, bits);
  });
}

namespace {
/// Makes `observer` that of this thread for a while.
class ObserverScope {
public:
  explicit ObserverScope(RunObserver *observer)
      : outer(std::exchange(currentObserver, observer)) {}
  ~ObserverScope() { currentObserver = outer; }

private:
  RunObserver *outer;
};
} // namespace

/// What compiled code finds in this program.
static llvm::orc::SymbolMap
getRuntimeSymbols(llvm::orc::MangleAndInterner interner) {
  llvm::orc::SymbolMap symbols;
  auto add = [&](StringRef name, auto *function) {
    symbols[interner(name)] = {llvm::orc::ExecutorAddr::fromPtr(function),
                               llvm::JITSymbolFlags::Exported};
  };
  add("nibble_runtime_fail", &nibble_runtime_fail);
  add("nibble_runtime_multiply", &nibble_runtime_multiply);
  add("nibble_runtime_check_interrupt", &nibble_runtime_check_interrupt);
  add("nibble_runtime_reads_ahead", &nibble_runtime_reads_ahead);
  add("_mlir_ciface_nibble_runtime_observe_f16", &observeF16);
  add("_mlir_ciface_nibble_runtime_observe_bf16", &observeBF16);
  add("_mlir_ciface_nibble_runtime_observe_f32", &observeF32);
  add("_mlir_ciface_nibble_runtime_observe_f64", &observeF64);
  add("_mlir_memref_to_llvm_alloc", &_mlir_memref_to_llvm_alloc);
  add("_mlir_memref_to_llvm_aligned_alloc",
      &_mlir_memref_to_llvm_aligned_alloc);
  add("_mlir_memref_to_llvm_free", &_mlir_memref_to_llvm_free);
  return symbols;
}

/// Lowers the model for a GPU, and loads its kernels into the simulator.
LogicalResult CompiledModel::lowerForDevice(ModuleOp module,
                                            const GpuOptions &options) {
  FailureOr<DeviceProgram> program = lowerToLLVM(module, options);
  if (failed(program))
    return failure();
  auto created = SimulatedDevice::create(std::move(*program),
                                         *findNvidiaRow(options.target));
  if (!created)
    return module.emitError("cannot be simulated: ")
           << llvm::toString(created.takeError());
  device = std::move(*created);
  for (const Weight &weight : weights)
    device->addWeight(weight.bytes);
  return success();
}

FailureOr<std::unique_ptr<CompiledModel>>
CompiledModel::compile(ModuleOp module, const CompileOptions &options) {
  PassManager shapes(module.getContext());
  buildShapesPipeline(shapes);
  if (failed(shapes.run(module)))
    return failure();
  auto main = module.lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return module.emitError("has no function 'main' to run");
  std::unique_ptr<CompiledModel> model(new CompiledModel());
  if (failed(collectTypes(main, main.getArgumentTypes(), "input",
                          model->inputTypes)) ||
      failed(collectTypes(main, main.getResultTypes(), "output",
                          model->resultTypes)))
    return failure();

  CpuOptions cpu;
  cpu.target = options.target;
  cpu.compute = options.compute;
  cpu.threads = false;
  cpu.observe = options.observe;
  GpuOptions gpu;
  gpu.target = options.device;
  gpu.host = options.target;
  llvm::StringSet<> given = collectResources(module);
  if (failed(options.device.empty()
                 ? lowerToTensors(module, cpu, options.reference)
                 : lowerToTensors(module, gpu)) ||
      failed(model->takeWeights(module, given, !options.device.empty())))
    return failure();
  model->takeProbes(module);
  std::string key;
  std::vector<std::string> messages;
  if (options.cache) {
    key = printCode(module, messages);
    auto known = options.cache->entries.find(key);
    if (known != options.cache->entries.end()) {
      model->engine = known->second.engine;
      for (auto [theirs, ours] : llvm::zip(known->second.messages, messages))
        model->messages[theirs] = ours;
      return model;
    }
  }
  if (failed(options.device.empty()
                 ? lowerToLLVM(module, cpu, options.reference)
                 : model->lowerForDevice(module, gpu)))
    return failure();
  auto engine = createEngine(module);
  if (!engine)
    return module.emitError("cannot be compiled for this machine: ")
           << llvm::toString(engine.takeError());
  model->engine = std::move(*engine);
  model->engine->registerSymbols([&](llvm::orc::MangleAndInterner interner) {
    llvm::orc::SymbolMap symbols = getRuntimeSymbols(interner);
    if (model->device)
      for (auto &[name, symbol] : SimulatedDevice::getSymbols(interner))
        symbols[name] = symbol;
    return symbols;
  });
  if (options.cache)
    options.cache->entries[key] = {model->engine, std::move(messages)};
  return model;
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

namespace {
/// MLIR's descriptor of a buffer: two pointers, an offset, sizes and strides.
class Descriptor {
public:
  explicit Descriptor(int64_t rank) : words(3 + 2 * rank) {}
  Descriptor(void *data, ArrayRef<int64_t> shape) : Descriptor(shape.size()) {
    words[0] = words[1] = reinterpret_cast<intptr_t>(data);
    int64_t stride = 1;
    for (size_t axis = shape.size(); axis-- > 0;) {
      words[3 + axis] = shape[axis];
      words[3 + shape.size() + axis] = stride;
      stride *= shape[axis];
    }
  }
  std::vector<intptr_t> words;
};
} // namespace

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

static std::string toString(Type type) {
  std::string text;
  llvm::raw_string_ostream(text) << type;
  return text;
}

/// Compares an input with what the model declares.
static Error checkInput(size_t index, const HostTensor &input,
                        RankedTensorType type,
                        llvm::StringMap<int64_t> &symbols) {
  auto fail = [&](const Twine &reason) {
    return makeError("input " + Twine(index) + " " + reason);
  };
  if (input.elementType != type.getElementType())
    return fail("has elements of type " + toString(input.elementType) +
                ", not " + toString(type.getElementType()));
  if (input.shape.size() != static_cast<size_t>(type.getRank()))
    return fail("has " + Twine(input.shape.size()) + " dimensions, not " +
                Twine(type.getRank()));
  uint64_t count = 1;
  for (auto [axis, dimension] : llvm::enumerate(onnx::getDimensions(type))) {
    int64_t size = input.shape[axis], expected = dimension.size;
    count *= size;
    // Some exporters write "?" for whatever they do not know.
    if (dimension.symbol && dimension.symbol != "?")
      expected =
          symbols.try_emplace(dimension.symbol.getValue(), size).first->second;
    if (!ShapedType::isDynamic(expected) && size != expected)
      return fail("has size " + Twine(size) + " in dimension " + Twine(axis) +
                  ", not " + Twine(expected));
  }
  if (input.bytes.size() != count * getStoredSize(input.elementType))
    return fail("has " + Twine(input.bytes.size()) +
                " bytes, which its shape does not take");
  return Error::success();
}

/// One of the two pointers at the start of a descriptor.
static char *getPointer(const intptr_t *words, unsigned position) {
  char *pointer;
  std::memcpy(static_cast<void *>(&pointer), words + position, sizeof(pointer));
  return pointer;
}

/// Copies a result out of its buffer.
static HostTensor takeResult(const intptr_t *words, RankedTensorType type) {
  HostTensor result;
  result.elementType = type.getElementType();
  size_t size = getStoredSize(type.getElementType()), count = 1;
  for (int64_t axis = 0; axis < type.getRank(); ++axis) {
    result.shape.push_back(words[3 + axis]);
    count *= words[3 + axis];
  }
  const char *data = getPointer(words, 1) + words[2] * size;
  result.bytes.assign(data, data + count * size);
  return result;
}

/// What a check of this model says where its code says `message`, which may
/// have been cut short.
std::string CompiledModel::translate(StringRef message) const {
  for (const auto &entry : messages)
    if (entry.first().starts_with(message))
      return entry.second;
  return message.str();
}

Expected<std::vector<HostTensor>>
CompiledModel::run(ArrayRef<HostTensor> inputs, RunObserver *observer) const {
  if (inputs.size() != inputTypes.size())
    return makeError("the model has " + Twine(inputTypes.size()) +
                     " inputs, not " + Twine(inputs.size()));
  llvm::StringMap<int64_t> symbols;
  std::vector<Descriptor> descriptors;
  for (auto [index, input] : llvm::enumerate(inputs)) {
    if (Error error = checkInput(index, input, inputTypes[index], symbols))
      return error;
    descriptors.emplace_back(const_cast<char *>(input.bytes.data()),
                             input.shape);
  }
  for (const Weight &weight : weights)
    descriptors.emplace_back(const_cast<char *>(weight.bytes.data()),
                             weight.type.getShape());

  // The C interface returns all results in one struct, given by its address.
  std::vector<intptr_t> results;
  for (RankedTensorType type : resultTypes)
    results.resize(results.size() + 3 + 2 * type.getRank());
  std::vector<void *> pointers;
  if (!results.empty())
    pointers.push_back(results.data());
  for (Descriptor &descriptor : descriptors)
    pointers.push_back(descriptor.words.data());
  SmallVector<void *> packed;
  for (void *&pointer : pointers)
    packed.push_back(static_cast<void *>(&pointer));
  auto entry = engine->lookupPacked("_mlir_ciface_main");
  if (!entry)
    return entry.takeError();
  ObserverScope scope(observer);
  SimulatedDevice::Scope deviceScope(device.get());
  nibble_run run;
  if (nibble_run_call(&run, *entry, packed.data(), /*stop=*/nullptr,
                      pool.get()) != NIBBLE_RUN_OK)
    return makeError(translate(run.message));

  std::vector<HostTensor> outputs;
  const intptr_t *words = results.data();
  for (RankedTensorType type : resultTypes) {
    outputs.push_back(takeResult(words, type));
    words += 3 + 2 * type.getRank();
  }
  nibble_run_free(&run);
  return outputs;
}
