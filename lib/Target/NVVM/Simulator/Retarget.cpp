//===- Retarget.cpp - Kernels as code of this machine ---------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Retarget.h"

#include "llvm/Analysis/CFG.h"
#include "llvm/Analysis/ValueTracking.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/ModuleSlotTracker.h"
#include "llvm/IR/Verifier.h"

using namespace llvm;
using namespace nibble;
using namespace nibble::simulator;

/// The address space of shared memory (LLVM, "User Guide for NVPTX Back-end").
static constexpr unsigned kSharedSpace = 3;

//===----------------------------------------------------------------------===//
// What compiled code calls
//===----------------------------------------------------------------------===//

static void operate(Machine *machine, const Operation *operation, Site site,
                    uint64_t *arguments, uint64_t *results) {
  machine->operate(*operation, site, arguments, results);
}

static void access(Machine *machine, uint64_t address, uint32_t bytes,
                   uint32_t alignment, uint32_t kind, Site site) {
  machine->access(address, bytes, alignment, AccessKind(kind), site);
}

static void step(Machine *machine, Site site) { machine->step(site); }

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

std::string simulator::getEntryName(StringRef kernel) {
  return ("nibble.entry." + kernel).str();
}

/// The place of a special register in DeviceThread::registers, or nothing.
static std::optional<unsigned> findRegister(StringRef name) {
  if (!name.consume_front("llvm.nvvm.read.ptx.sreg."))
    return std::nullopt;
  if (name == "laneid")
    return LaneIndex;
  auto [base, dimension] = name.split('.');
  auto first = StringSwitch<std::optional<unsigned>>(base)
                   .Case("tid", ThreadIndex)
                   .Case("ntid", BlockSize)
                   .Case("ctaid", BlockIndex)
                   .Case("nctaid", GridSize)
                   .Default(std::nullopt);
  if (!first || dimension.size() != 1 || dimension[0] < 'x' ||
      dimension[0] > 'z')
    return std::nullopt;
  return *first + (dimension[0] - 'x');
}

/// The name that an operation has in the table; empty for what any code
/// generator knows.
static std::string getOperationName(const CallInst &call) {
  if (auto *assembly = dyn_cast<InlineAsm>(call.getCalledOperand()))
    return assembly->getAsmString().str();
  const Function *function = call.getCalledFunction();
  if (!function)
    return "a call through a pointer";
  StringRef name = function->getName();
  if (name.starts_with("llvm.nvvm.") || findOperation(name))
    return name.str();
  if (function->isDeclaration() && !function->isIntrinsic())
    return name.str();
  return "";
}

//===----------------------------------------------------------------------===//
// Functions
//===----------------------------------------------------------------------===//

namespace {

class Retargeter {
public:
  Retargeter(Module &module, Machine &machine, Program &program)
      : module(module), layout(module.getDataLayout()), machine(machine),
        program(program), context(module.getContext()),
        word(Type::getInt64Ty(context)), number(Type::getInt32Ty(context)),
        pointer(PointerType::get(context, 0)) {}

  void placeShared();
  void convert(Function &function);
  void addEntry(Function &kernel);
  Error finish();

private:
  using Texts = DenseMap<const Instruction *, std::string>;

  Constant *getAddress(const void *place);
  template <typename Callee>
  void addCall(IRBuilder<> &builder, Callee callee, ArrayRef<Value *> values);
  Value *getNumber(uint32_t value) { return ConstantInt::get(number, value); }
  uint32_t place(GlobalVariable &variable, uint32_t offset);
  Site addSite(Texts &texts, const Instruction &instruction);
  void convertCall(CallInst &call, Texts &texts, Value *arguments,
                   Value *results);
  void readRegister(CallInst &call, unsigned index);
  void checkAccess(Instruction &instruction, Texts &texts);
  void addStep(Instruction &terminator, Texts &texts);

  Module &module;
  const DataLayout &layout;
  Machine &machine;
  Program &program;
  LLVMContext &context;
  Type *word, *number, *pointer;
  std::set<std::string> unknown;
};

} // namespace

Constant *Retargeter::getAddress(const void *place) {
  return ConstantExpr::getIntToPtr(
      ConstantInt::get(word, reinterpret_cast<uint64_t>(place)), pointer);
}

/// Calls a function of this process with the machine and `values`.
template <typename Callee>
void Retargeter::addCall(IRBuilder<> &builder, Callee callee,
                         ArrayRef<Value *> values) {
  SmallVector<Value *> arguments{getAddress(&machine)};
  arguments.append(values.begin(), values.end());
  SmallVector<Type *> types;
  for (Value *argument : arguments)
    types.push_back(argument->getType());
  auto *type = FunctionType::get(builder.getVoidTy(), types, false);
  builder.CreateCall(type, getAddress(reinterpret_cast<const void *>(callee)),
                     arguments);
}

//===----------------------------------------------------------------------===//
// Shared memory
//===----------------------------------------------------------------------===//

/// Gives a variable an address; returns where the next one may start.
uint32_t Retargeter::place(GlobalVariable &variable, uint32_t offset) {
  Type *type = variable.getValueType();
  Align alignment =
      layout.getValueOrABITypeAlignment(variable.getAlign(), type);
  offset = alignTo(offset, alignment);
  uint32_t bytes = layout.getTypeAllocSize(type);
  program.shared.push_back({variable.getName().str(), offset, bytes});
  variable.replaceAllUsesWith(ConstantExpr::getIntToPtr(
      ConstantInt::get(word, machine.sharedAddress() + offset),
      variable.getType()));
  return offset + bytes;
}

/// Dynamic variables have no size and lie behind the others, all at one place.
void Retargeter::placeShared() {
  SmallVector<GlobalVariable *> fixed, dynamic;
  for (GlobalVariable &variable : module.globals())
    if (variable.getAddressSpace() == kSharedSpace)
      (layout.getTypeAllocSize(variable.getValueType()) == 0 ? dynamic : fixed)
          .push_back(&variable);
  uint32_t offset = 0;
  for (GlobalVariable *variable : fixed)
    offset = place(*variable, offset);
  uint32_t end = offset;
  for (GlobalVariable *variable : dynamic)
    end = std::max(end, place(*variable, offset));
  program.staticSharedBytes = end;
  for (GlobalVariable *variable :
       llvm::concat<GlobalVariable *>(fixed, dynamic))
    variable->eraseFromParent();
}

//===----------------------------------------------------------------------===//
// Instructions
//===----------------------------------------------------------------------===//

Site Retargeter::addSite(Texts &texts, const Instruction &instruction) {
  program.sites.push_back(texts.lookup(&instruction));
  return program.sites.size() - 1;
}

void Retargeter::readRegister(CallInst &call, unsigned index) {
  IRBuilder<> builder(&call);
  Value *thread = builder.CreateLoad(
      pointer, getAddress(static_cast<const void *>(&machine.current)));
  Value *place = builder.CreateConstGEP1_32(number, thread, index);
  call.replaceAllUsesWith(builder.CreateLoad(number, place));
  call.eraseFromParent();
}

/// Arguments go to words, results come from words.
void Retargeter::convertCall(CallInst &call, Texts &texts, Value *arguments,
                             Value *results) {
  std::string name = getOperationName(call);
  if (auto index = findRegister(name))
    return readRegister(call, *index);
  const Operation *operation = findOperation(name);
  if (!operation) {
    unknown.insert(name);
    return;
  }
  program.operations.insert(name);
  IRBuilder<> builder(&call);
  for (auto [i, value] : enumerate(call.args()))
    builder.CreateStore(value, builder.CreateConstGEP1_32(word, arguments, i));
  addCall(builder, operate,
          {getAddress(operation), getNumber(addSite(texts, call)), arguments,
           results});
  auto read = [&](Type *type, unsigned i) {
    return builder.CreateLoad(type,
                              builder.CreateConstGEP1_32(word, results, i));
  };
  Type *type = call.getType();
  if (auto *parts = dyn_cast<StructType>(type)) {
    Value *result = PoisonValue::get(type);
    for (auto [i, part] : enumerate(parts->elements()))
      result = builder.CreateInsertValue(result, read(part, i), i);
    call.replaceAllUsesWith(result);
  } else if (!type->isVoidTy()) {
    call.replaceAllUsesWith(read(type, 0));
  }
  call.eraseFromParent();
}

/// Calls `access` before memory is touched, unless it is the thread's own
/// variables or constants.
void Retargeter::checkAccess(Instruction &instruction, Texts &texts) {
  auto check = [&](Value *address, Value *bytes, Align alignment,
                   AccessKind kind) {
    if (isa<AllocaInst, GlobalVariable>(getUnderlyingObject(address)))
      return;
    IRBuilder<> builder(&instruction);
    addCall(builder, access,
            {builder.CreatePtrToInt(address, word),
             builder.CreateZExtOrTrunc(bytes, number),
             getNumber(alignment.value()), getNumber(uint32_t(kind)),
             getNumber(addSite(texts, instruction))});
  };
  auto size = [&](Value *value) {
    return getNumber(layout.getTypeStoreSize(value->getType()));
  };
  auto isSpecial = [](auto *access) {
    return access->isVolatile() || access->isAtomic();
  };
  if (auto *load = dyn_cast<LoadInst>(&instruction)) {
    check(load->getPointerOperand(), size(load), load->getAlign(),
          isSpecial(load) ? AccessKind::AtomicRead : AccessKind::Read);
  } else if (auto *store = dyn_cast<StoreInst>(&instruction)) {
    check(store->getPointerOperand(), size(store->getValueOperand()),
          store->getAlign(),
          isSpecial(store) ? AccessKind::AtomicWrite : AccessKind::Write);
  } else if (auto *atomic = dyn_cast<AtomicRMWInst>(&instruction)) {
    check(atomic->getPointerOperand(), size(atomic->getValOperand()),
          atomic->getAlign(), AccessKind::AtomicWrite);
  } else if (auto *exchange = dyn_cast<AtomicCmpXchgInst>(&instruction)) {
    check(exchange->getPointerOperand(), size(exchange->getNewValOperand()),
          exchange->getAlign(), AccessKind::AtomicWrite);
  } else if (auto *block = dyn_cast<MemIntrinsic>(&instruction)) {
    if (auto *copy = dyn_cast<MemTransferInst>(block))
      check(copy->getRawSource(), copy->getLength(), Align(), AccessKind::Read);
    check(block->getRawDest(), block->getLength(), Align(), AccessKind::Write);
  }
}

void Retargeter::addStep(Instruction &terminator, Texts &texts) {
  IRBuilder<> builder(&terminator);
  addCall(builder, step, {getNumber(addSite(texts, terminator))});
}

/// One line, with structs of many members cut short.
static std::string shorten(StringRef text) {
  constexpr size_t mostOfStruct = 40, most = 200;
  text = text.trim().take_until([](char c) { return c == '\n'; });
  std::string result;
  while (!text.empty()) {
    size_t begin = text.find('{'), end = text.find('}', begin);
    if (end == StringRef::npos)
      break;
    bool isLong = end - begin > mostOfStruct;
    StringRef parts = text.slice(begin, end);
    result += text.take_front(begin);
    result +=
        isLong ? parts.take_until([](char c) { return c == ','; }) : parts;
    result += isLong ? ", ...}" : "}";
    text = text.drop_front(end + 1);
  }
  result += text;
  if (result.size() > most)
    result = result.substr(0, most) + "...";
  return result;
}

/// The text of each instruction, as it was before anything changed.
static void
printInstructions(const Function &function,
                  DenseMap<const Instruction *, std::string> &texts) {
  ModuleSlotTracker slots(function.getParent());
  slots.incorporateFunction(function);
  for (const Instruction &instruction : instructions(function)) {
    std::string text;
    raw_string_ostream stream(text);
    instruction.print(stream, slots);
    texts[&instruction] =
        ("@" + function.getName() + ": " + shorten(text)).str();
  }
}

/// Calls and loads change the stack, other threads and memory, so nothing that
/// was known about functions and calls holds.
void Retargeter::convert(Function &function) {
  function.setCallingConv(CallingConv::C);
  function.setAttributes({});
  function.setComdat(nullptr);
  if (function.isDeclaration())
    return;
  Texts texts;
  printInstructions(function, texts);

  SmallVector<CallInst *> calls;
  SmallVector<Instruction *> accesses;
  size_t numArguments = 1, numResults = 1;
  for (Instruction &instruction : instructions(function)) {
    if (instruction.mayReadOrWriteMemory())
      accesses.push_back(&instruction);
    auto *call = dyn_cast<CallInst>(&instruction);
    if (!call)
      continue;
    call->setCallingConv(CallingConv::C);
    call->setTailCall(false);
    if (getOperationName(*call).empty())
      continue;
    call->setAttributes({});
    calls.push_back(call);
    numArguments = std::max<size_t>(numArguments, call->arg_size());
    if (auto *parts = dyn_cast<StructType>(call->getType()))
      numResults = std::max<size_t>(numResults, parts->getNumElements());
  }
  SmallVector<std::pair<const BasicBlock *, const BasicBlock *>> backEdges;
  FindFunctionBackedges(function, backEdges);

  IRBuilder<> builder(&*function.getEntryBlock().getFirstInsertionPt());
  Value *arguments = builder.CreateAlloca(word, getNumber(numArguments));
  Value *results = builder.CreateAlloca(word, getNumber(numResults));
  if (program.checks)
    for (Instruction *instruction : accesses)
      checkAccess(*instruction, texts);
  SmallPtrSet<const BasicBlock *, 8> sources;
  for (const auto &[source, target] : backEdges)
    if (sources.insert(source).second)
      addStep(*const_cast<BasicBlock *>(source)->getTerminator(), texts);
  for (CallInst *call : calls)
    convertCall(*call, texts, arguments, results);
}

void Retargeter::addEntry(Function &kernel) {
  auto *type = FunctionType::get(Type::getVoidTy(context), {pointer}, false);
  auto *entry = Function::Create(type, GlobalValue::ExternalLinkage,
                                 getEntryName(kernel.getName()), module);
  IRBuilder<> builder(BasicBlock::Create(context, "", entry));
  SmallVector<Value *> values;
  for (auto [i, argument] : enumerate(kernel.args()))
    values.push_back(builder.CreateLoad(
        argument.getType(),
        builder.CreateConstGEP1_32(word, entry->getArg(0), i)));
  builder.CreateCall(&kernel, values);
  builder.CreateRetVoid();
  program.kernels[kernel.getName().str()].arguments = kernel.arg_size();
}

static Error makeError(const Twine &message) {
  return createStringError(inconvertibleErrorCode(), message);
}

Error Retargeter::finish() {
  if (!unknown.empty()) {
    std::string message = "the simulator does not know";
    for (const std::string &name : unknown)
      message += "\n  " + name;
    return makeError(message);
  }
  for (Function &function : make_early_inc_range(module))
    if (function.isDeclaration() && function.use_empty())
      function.eraseFromParent();
  std::string message;
  raw_string_ostream stream(message);
  if (verifyModule(module, &stream))
    return makeError("the simulator made invalid code: " + message);
  return Error::success();
}

static bool isKernel(const Function &function) {
  return function.getCallingConv() == CallingConv::PTX_Kernel ||
         function.hasFnAttribute("nvvm.kernel");
}

Error simulator::retarget(Module &module, const Triple &triple,
                          const DataLayout &layout, Machine &machine,
                          Program &program) {
  module.setTargetTriple(triple);
  module.setDataLayout(layout);
  Retargeter retargeter(module, machine, program);
  retargeter.placeShared();
  SmallVector<Function *> functions, kernels;
  for (Function &function : module) {
    functions.push_back(&function);
    if (isKernel(function) && !function.isDeclaration())
      kernels.push_back(&function);
  }
  for (Function *function : functions)
    if (!function->isIntrinsic() ||
        function->getName().starts_with("llvm.nvvm"))
      retargeter.convert(*function);
  for (Function *kernel : kernels)
    retargeter.addEntry(*kernel);
  return retargeter.finish();
}
