//===- PlaceBuffers.cpp - Which buffers are in the GPU's memory -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A launch runs while the host goes on, and its buffers are in memory that both
// see. So the host waits for the GPU before it touches such a buffer itself,
// and nothing else depends on who computes what.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/CodeBuilder.h"
#include "nibble/Conversion/DeviceProgram.h"
#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Bufferization/Transforms/BufferViewFlowAnalysis.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Interfaces/ViewLikeInterface.h"

namespace nibble {
#define GEN_PASS_DEF_PLACEBUFFERS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

namespace {
struct PlaceBuffers : nibble::impl::PlaceBuffersBase<PlaceBuffers> {
  void runOnOperation() override;

private:
  void findBuffers(func::FuncOp function);
  void copyIn(func::FuncOp function);
  void copyOut(func::FuncOp function);
  void allocate(memref::AllocOp op);
  void synchronize(Block &block);

  bool isLaunch(Operation &op);
  bool touchesDevice(Operation &op);
  func::FuncOp declare(StringRef name, TypeRange arguments, TypeRange results);

  /// Values that may be a buffer that a launch touches.
  DenseSet<Value> onDevice;
  SymbolTable *symbols = nullptr;
};
} // namespace

static bool isBuffer(Value value) { return isa<MemRefType>(value.getType()); }

bool PlaceBuffers::isLaunch(Operation &op) {
  auto call = dyn_cast<func::CallOp>(op);
  if (!call)
    return false;
  Operation *function = symbols->lookup(call.getCallee());
  return function && function->hasAttr(kLaunchAttrName);
}

void PlaceBuffers::findBuffers(func::FuncOp function) {
  BufferViewFlowAnalysis flow(function);
  function.walk([&](Operation *op) {
    if (!isLaunch(*op))
      return;
    for (Value operand : op->getOperands())
      if (isBuffer(operand) && !onDevice.contains(operand))
        for (Value source : flow.resolveReverse(operand))
          for (Value alias : flow.resolve(source))
            onDevice.insert(alias);
  });
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

static int64_t getElementBytes(MemRefType type) {
  return llvm::divideCeil(type.getElementType().getIntOrFloatBitWidth(), 8);
}

func::FuncOp PlaceBuffers::declare(StringRef name, TypeRange arguments,
                                   TypeRange results) {
  if (auto known = symbols->lookup<func::FuncOp>(name))
    return known;
  OpBuilder builder(&getContext());
  auto function =
      func::FuncOp::create(getOperation().getLoc(), name,
                           builder.getFunctionType(arguments, results));
  function.setPrivate();
  if (!results.empty())
    function->setAttr(LLVM::LLVMDialect::getEmitCWrapperAttrName(),
                      builder.getUnitAttr());
  symbols->insert(function);
  return function;
}

/// Bytes from the runtime, seen as the buffer.
void PlaceBuffers::allocate(memref::AllocOp op) {
  OpBuilder builder(op);
  Location loc = op.getLoc();
  CodeBuilder code(builder, loc);
  MemRefType type = op.getType();
  int64_t known = getElementBytes(type);
  for (int64_t size : type.getShape())
    known *= ShapedType::isDynamic(size) ? 1 : size;
  Value bytes = arith::ConstantIndexOp::create(builder, loc, known);
  for (Value size : op.getDynamicSizes())
    bytes = code.mul(bytes, size);
  auto memory = MemRefType::get({ShapedType::kDynamic}, builder.getI8Type());
  auto function = declare("nibble_device_allocate",
                          TypeRange{builder.getIndexType()}, TypeRange{memory});
  Value start =
      func::CallOp::create(builder, loc, function, bytes).getResult(0);
  Value zero = arith::ConstantIndexOp::create(builder, loc, 0);
  op.replaceAllUsesWith(memref::ViewOp::create(builder, loc, type, start, zero,
                                               op.getDynamicSizes())
                            .getResult());
  op.erase();
  ++numBuffers;
}

/// Copies `source` to a new buffer.
static memref::CopyOp buildCopy(OpBuilder &builder, Location loc,
                                Value source) {
  auto type = cast<MemRefType>(source.getType());
  Values sizes;
  for (int64_t axis = 0; axis < type.getRank(); ++axis)
    if (type.isDynamicDim(axis))
      sizes.push_back(memref::DimOp::create(builder, loc, source, axis));
  auto plain = MemRefType::get(type.getShape(), type.getElementType());
  Value target = memref::AllocOp::create(builder, loc, plain, sizes);
  return memref::CopyOp::create(builder, loc, source, target);
}

/// Inputs and constants of the code that launches read.
void PlaceBuffers::copyIn(func::FuncOp function) {
  Block &entry = function.front();
  SetVector<Value> sources;
  for (BlockArgument argument : function.getArguments())
    if (isBuffer(argument) && onDevice.contains(argument) &&
        !function.getArgAttr(argument.getArgNumber(), kResidentAttrName))
      sources.insert(argument);
  function.walk([&](memref::GetGlobalOp global) {
    if (onDevice.contains(global.getResult()))
      sources.insert(global.getResult());
  });
  OpBuilder builder(&getContext());
  for (Value source : sources) {
    if (Operation *global = source.getDefiningOp())
      global->moveBefore(&entry, entry.begin());
    builder.setInsertionPointAfterValue(source);
    memref::CopyOp copy = buildCopy(builder, function.getLoc(), source);
    source.replaceUsesWithIf(copy.getTarget(), [&](OpOperand &use) {
      return copy->isBeforeInBlock(
          entry.findAncestorOpInBlock(*use.getOwner()));
    });
    onDevice.erase(source);
    onDevice.insert(copy.getTarget());
    builder.setInsertionPoint(entry.getTerminator());
    memref::DeallocOp::create(builder, function.getLoc(), copy.getTarget());
  }
}

/// Results go to memory of the host.
void PlaceBuffers::copyOut(func::FuncOp function) {
  auto end = cast<func::ReturnOp>(function.front().getTerminator());
  OpBuilder builder(end);
  for (OpOperand &result : end->getOpOperands()) {
    Value buffer = result.get();
    if (!isBuffer(buffer) || !onDevice.contains(buffer))
      continue;
    result.set(buildCopy(builder, end.getLoc(), buffer).getTarget());
    memref::DeallocOp::create(builder, end.getLoc(), buffer);
  }
}

//===----------------------------------------------------------------------===//
// Waiting
//===----------------------------------------------------------------------===//

/// True for an op, with all that is in it, that the host runs on memory of the
/// GPU.
bool PlaceBuffers::touchesDevice(Operation &op) {
  if (auto reshape = dyn_cast<memref::ReshapeOp>(op))
    return onDevice.contains(reshape.getShape());
  if (isa<ViewLikeOpInterface, memref::AllocOp, memref::DeallocOp>(op) ||
      op.hasTrait<OpTrait::IsTerminator>() || isMemoryEffectFree(&op))
    return false;
  return op
      .walk([&](Operation *inside) {
        bool touches = llvm::any_of(inside->getOperands(), [&](Value operand) {
          return isBuffer(operand) && onDevice.contains(operand);
        });
        return touches ? WalkResult::interrupt() : WalkResult::advance();
      })
      .wasInterrupted();
}

/// Waits for launches before the host touches one of their buffers.
void PlaceBuffers::synchronize(Block &block) {
  bool waited = false;
  for (Operation &op : llvm::make_early_inc_range(block)) {
    bool isControl =
        op.getNumRegions() > 0 && !isa<DestinationStyleOpInterface>(op);
    if (isLaunch(op) || isControl) {
      for (Region &region : op.getRegions())
        for (Block &inside : region)
          synchronize(inside);
      waited = false;
      continue;
    }
    if (waited || !touchesDevice(op))
      continue;
    OpBuilder builder(&op);
    func::CallOp::create(
        builder, op.getLoc(),
        declare("nibble_device_synchronize", TypeRange(), TypeRange()),
        ValueRange());
    waited = true;
    ++numWaits;
  }
}

//===----------------------------------------------------------------------===//
// The plan
//===----------------------------------------------------------------------===//

/// The most bytes of buffers of the GPU that live at a time in code that runs
/// straight through; none where a size is dynamic or a buffer is in a region.
static std::optional<uint64_t> countBytes(func::FuncOp function,
                                          const DenseSet<Value> &onDevice) {
  DenseMap<Value, uint64_t> live;
  uint64_t now = 0, most = 0;
  auto walked = function.walk([&](Operation *op) {
    if (auto allocation = dyn_cast<memref::AllocOp>(op)) {
      if (!onDevice.contains(allocation.getResult()))
        return WalkResult::advance();
      MemRefType type = allocation.getType();
      if (!type.hasStaticShape() || op->getParentOp() != function)
        return WalkResult::interrupt();
      uint64_t bytes = type.getNumElements() * getElementBytes(type);
      live[allocation.getResult()] = bytes;
      now += bytes;
      most = std::max(most, now);
    } else if (auto end = dyn_cast<memref::DeallocOp>(op)) {
      now -= live.lookup(end.getMemref());
    }
    return WalkResult::advance();
  });
  return walked.wasInterrupted() ? std::nullopt : std::optional(most);
}

void PlaceBuffers::runOnOperation() {
  SymbolTable table(getOperation());
  symbols = &table;
  auto main = table.lookup<func::FuncOp>("main");
  auto device = table.lookup<ModuleOp>(kDeviceName);
  if (!main || main.isExternal() || !device)
    return;
  findBuffers(main);
  copyIn(main);
  copyOut(main);
  if (std::optional<uint64_t> bytes = countBytes(main, onDevice))
    device->setAttr(
        kBufferBytesAttrName,
        IntegerAttr::get(IntegerType::get(&getContext(), 64), *bytes));
  synchronize(main.front());
  SmallVector<memref::AllocOp> allocations;
  main.walk([&](memref::AllocOp op) {
    if (onDevice.contains(op.getResult()))
      allocations.push_back(op);
  });
  for (memref::AllocOp op : allocations)
    allocate(op);
  for (unsigned i = 0; i < main.getNumArguments(); ++i)
    main.removeArgAttr(i, kResidentAttrName);
  onDevice.clear();
}
