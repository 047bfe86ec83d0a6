//===- LoopKernel.cpp - Elementwise ops and reductions for GPUs -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LoopKernel.h"

#include "DeviceBuilder.h"
#include "nibble/Conversion/OutlinedOps.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Affine/Utils.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// What can be a kernel
//===----------------------------------------------------------------------===//

/// Numbers that memory of the GPU holds as memory of the host does.
static bool isNumber(Type type) {
  if (auto integer = dyn_cast<IntegerType>(type))
    return llvm::is_contained({1u, 8u, 16u, 32u, 64u}, integer.getWidth());
  return isa<Float16Type, BFloat16Type, Float32Type, Float64Type>(type);
}

/// Functions that become polynomials (DeviceModule.cpp), or instructions.
static bool hasDeviceCode(Operation *op) {
  if (!isa<math::MathDialect>(op->getDialect()))
    return true;
  if (isa<math::AbsFOp, math::AbsIOp, math::CeilOp, math::FloorOp, math::FmaOp,
          math::RoundEvenOp, math::SqrtOp, math::TruncOp, math::CopySignOp>(op))
    return true;
  return op->getResult(0).getType().isF32() &&
         isa<math::CosOp, math::ErfOp, math::ExpOp, math::Exp2Op, math::ExpM1Op,
             math::LogOp, math::Log1pOp, math::Log2Op, math::PowFOp,
             math::RoundOp, math::RsqrtOp, math::SinOp, math::TanhOp>(op);
}

static bool onlyComputes(Region &body) {
  auto walked = body.walk([](Operation *op) {
    auto size = dyn_cast<memref::DimOp>(op);
    bool isKnown =
        (size && size.getConstantIndex()) ||
        isa<memref::LoadOp, linalg::IndexOp, linalg::YieldOp, scf::IfOp,
            scf::ForOp, scf::YieldOp>(op) ||
        (isa<arith::ArithDialect, math::MathDialect>(op->getDialect()) &&
         hasDeviceCode(op));
    bool hasScalars = llvm::none_of(op->getResultTypes(), [](Type type) {
      return !isNumber(type) && !type.isIndex();
    });
    return isKnown && hasScalars ? WalkResult::advance()
                                 : WalkResult::interrupt();
  });
  return !walked.wasInterrupted();
}

/// True where `map` gives each element that threads write to one thread.
static bool separatesThreads(AffineMap map,
                             ArrayRef<utils::IteratorType> kinds) {
  for (auto [loop, kind] : llvm::enumerate(kinds)) {
    bool isResult = llvm::is_contained(
        map.getResults(), getAffineDimExpr(loop, map.getContext()));
    bool isReduction = kind == utils::IteratorType::reduction;
    if (isReduction ? map.isFunctionOfDim(loop) : !isResult)
      return false;
  }
  return true;
}

static bool isArgument(Value value) {
  Type type = value.getType();
  if (auto buffer = dyn_cast<MemRefType>(type)) {
    SmallVector<int64_t> strides;
    int64_t offset;
    return isNumber(buffer.getElementType()) && !buffer.getMemorySpace() &&
           succeeded(buffer.getStridesAndOffset(strides, offset));
  }
  return type.isIndex() || (isNumber(type) && !type.isInteger(1));
}

bool nibble::canBeKernel(linalg::LinalgOp op) {
  if (!op.hasPureBufferSemantics() || op->getNumRegions() != 1 ||
      (op.getNumLoops() > 0 && !op.getShapesToLoopsMap()))
    return false;
  SmallVector<utils::IteratorType> kinds = op.getIteratorTypesArray();
  for (OpOperand &output : op.getDpsInitsMutable())
    if (!separatesThreads(op.getMatchingIndexingMap(&output), kinds))
      return false;
  SetVector<Value> captures(op->operand_begin(), op->operand_end());
  getUsedValuesDefinedAbove(op->getRegions(), captures);
  return llvm::all_of(captures, isArgument) && onlyComputes(op->getRegion(0));
}

//===----------------------------------------------------------------------===//
// What a warp shares
//===----------------------------------------------------------------------===//

constexpr int64_t kLanes = 32;

/// True where an input that loop `loop` runs through is read row by row.
static bool readsRows(MemRefType type, AffineMap map, unsigned loop) {
  if (!map.isFunctionOfDim(loop))
    return true;
  AffineMap others = map.dropResult(map.getNumResults() - 1);
  return map.getResults().back() == getAffineDimExpr(loop, map.getContext()) &&
         !others.isFunctionOfDim(loop) && type.isLastDimUnitStride();
}

/// For each result of `op` the op that joins two parts of it, where the lanes
/// of a warp may each have one; else nothing.
static SmallVector<Operation *> getCombiners(linalg::GenericOp op) {
  unsigned last = op.getNumLoops() - 1;
  if (op.getNumLoops() == 0 ||
      op.getIteratorTypesArray()[last] != utils::IteratorType::reduction)
    return {};
  int64_t size = op.getStaticLoopRanges()[last];
  if (!ShapedType::isDynamic(size) && size < kLanes)
    return {};
  for (OpOperand *input : op.getDpsInputOperands())
    if (auto type = dyn_cast<MemRefType>(input->get().getType()))
      if (!readsRows(type, op.getMatchingIndexingMap(input), last))
        return {};
  SmallVector<Operation *> combiners;
  ArrayRef<BlockArgument> outputs = op.getRegionOutputArgs();
  for (auto [number, output] : llvm::enumerate(outputs)) {
    SmallVector<Operation *> found;
    bool isWord = output.getType().isF32() || output.getType().isInteger(32);
    if (!isWord || !matchReduction(outputs, number, found) ||
        found.size() != 1 || !arith::getNeutralElement(found.front()))
      return {};
    combiners.push_back(found.front());
  }
  return combiners;
}

int64_t nibble::getThreadsPerElement(linalg::GenericOp op) {
  return getCombiners(op).empty() ? 1 : kLanes;
}

//===----------------------------------------------------------------------===//
// Arguments
//===----------------------------------------------------------------------===//

static SmallVector<int64_t> getStrides(MemRefType type) {
  SmallVector<int64_t> strides;
  int64_t offset;
  (void)type.getStridesAndOffset(strides, offset);
  return strides;
}

Value nibble::buildAddress(OpBuilder &builder, Location loc, Value buffer) {
  CodeBuilder code(builder, loc);
  auto type = cast<MemRefType>(buffer.getType());
  auto layout = memref::ExtractStridedMetadataOp::create(builder, loc, buffer);
  Value start =
      memref::ExtractAlignedPointerAsIndexOp::create(builder, loc, buffer);
  int64_t bytes =
      llvm::divideCeil(type.getElementType().getIntOrFloatBitWidth(), 8);
  Value first = code.add(start, code.mul(layout.getOffset(), bytes));
  return arith::IndexCastOp::create(builder, loc, builder.getI64Type(), first);
}

Values nibble::buildKernelArguments(OpBuilder &builder, Location loc,
                                    ValueRange values) {
  Values arguments;
  auto addIndex = [&](Value index) {
    arguments.push_back(
        arith::IndexCastOp::create(builder, loc, builder.getI64Type(), index));
  };
  for (Value value : values) {
    auto type = dyn_cast<MemRefType>(value.getType());
    if (!type) {
      if (value.getType().isIndex())
        addIndex(value);
      else
        arguments.push_back(value);
      continue;
    }
    arguments.push_back(buildAddress(builder, loc, value));
    auto layout = memref::ExtractStridedMetadataOp::create(builder, loc, value);
    for (auto [axis, size] : llvm::enumerate(type.getShape()))
      if (ShapedType::isDynamic(size))
        addIndex(layout.getSizes()[axis]);
    for (auto [axis, stride] : llvm::enumerate(getStrides(type)))
      if (ShapedType::isDynamic(stride))
        addIndex(layout.getStrides()[axis]);
  }
  return arguments;
}

/// The types of buildKernelArguments in a kernel.
static SmallVector<Type> getArgumentTypes(MLIRContext *context,
                                          TypeRange types) {
  Type i64 = IntegerType::get(context, 64);
  Type pointer = LLVM::LLVMPointerType::get(context, DeviceBuilder::kGlobal);
  SmallVector<Type> arguments;
  for (Type type : types) {
    if (auto buffer = dyn_cast<MemRefType>(type)) {
      arguments.push_back(pointer);
      int64_t words = buffer.getNumDynamicDims() +
                      llvm::count_if(getStrides(buffer), ShapedType::isDynamic);
      arguments.append(words, i64);
    } else {
      arguments.push_back(type.isIndex() ? i64 : type);
    }
  }
  return arguments;
}

//===----------------------------------------------------------------------===//
// The kernel
//===----------------------------------------------------------------------===//

namespace {
/// A buffer of the host in a kernel.
struct DeviceView {
  Value pointer;
  Values sizes, strides;
};

/// Writes the body of a kernel. A buffer is a cast of its pointer while loads
/// and stores are written; in the end they take addresses.
class LoopKernel {
public:
  LoopKernel(DeviceBuilder &device, linalg::GenericOp op)
      : device(device), op(op), builder(device.builder), loc(device.loc),
        combiners(getCombiners(op)), positions(op.getNumLoops()) {}

  void declare(ValueRange values, ValueRange arguments);
  void build();
  void lowerAccesses(Block &body);

private:
  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(builder, loc, value);
  }
  Value toIndex(Value integer) {
    return arith::IndexCastOp::create(builder, loc, builder.getIndexType(),
                                      integer);
  }
  DeviceView takeView(MemRefType type, ValueRange &arguments);
  Value getElement(const DeviceView &view, ValueRange indices, Type element);
  Values getSizes();
  Values getIndices(OpOperand &operand);
  Value loadOperand(OpOperand &operand);
  Value loadResult(OpOperand &output);
  void storeResults(ValueRange results);
  void buildThread();
  void buildLane(Value lane);
  Value combine(Operation *combiner, Value a, Value b);
  Values buildReductions(ArrayRef<unsigned> loops, ValueRange carried);
  Values buildBody(ValueRange carried);

  DeviceBuilder &device;
  linalg::GenericOp op;
  OpBuilder &builder;
  Location loc;
  /// Of each result, where lanes share the last loop.
  SmallVector<Operation *> combiners;
  /// The first round of a lane in it.
  Value firstRound;
  /// Of values of the host.
  IRMapping mapping;
  DenseMap<Value, DeviceView> views;
  /// Of the loops.
  Values sizes, positions;
};
} // namespace

DeviceView LoopKernel::takeView(MemRefType type, ValueRange &arguments) {
  auto take = [&] {
    Value first = arguments.front();
    arguments = arguments.drop_front();
    return first;
  };
  DeviceView view;
  view.pointer = take();
  for (int64_t size : type.getShape())
    view.sizes.push_back(ShapedType::isDynamic(size) ? toIndex(take())
                                                     : index(size));
  for (int64_t stride : getStrides(type))
    view.strides.push_back(ShapedType::isDynamic(stride) ? toIndex(take())
                                                         : index(stride));
  return view;
}

void LoopKernel::declare(ValueRange values, ValueRange arguments) {
  for (Value value : values) {
    if (auto type = dyn_cast<MemRefType>(value.getType())) {
      DeviceView view = takeView(type, arguments);
      Value buffer =
          UnrealizedConversionCastOp::create(builder, loc, type, view.pointer)
              .getResult(0);
      views[buffer] = view;
      mapping.map(value, buffer);
      continue;
    }
    Value argument = arguments.front();
    arguments = arguments.drop_front();
    mapping.map(value,
                value.getType().isIndex() ? toIndex(argument) : argument);
  }
  SetVector<Value> captures(op->operand_begin(), op->operand_end());
  getUsedValuesDefinedAbove(op->getRegions(), captures);
  for (Value value : captures)
    if (!mapping.contains(value))
      mapping.map(value, builder.clone(*value.getDefiningOp())->getResult(0));
}

/// Each loop has the size of a dimension of an operand.
Values LoopKernel::getSizes() {
  Values dimensions;
  for (Value operand : op->getOperands())
    if (isa<MemRefType>(operand.getType()))
      llvm::append_range(dimensions, views[mapping.lookup(operand)].sizes);
  auto linalg = cast<linalg::LinalgOp>(op.getOperation());
  Values result;
  if (op.getNumLoops() > 0)
    for (AffineExpr size : linalg.getShapesToLoopsMap().getResults())
      result.push_back(affine::expandAffineExpr(builder, loc, size,
                                                ValueRange(dimensions), {}));
  return result;
}

Values LoopKernel::getIndices(OpOperand &operand) {
  Values indices;
  for (AffineExpr index : op.getMatchingIndexingMap(&operand).getResults())
    indices.push_back(
        affine::expandAffineExpr(builder, loc, index, positions, {}));
  return indices;
}

Value LoopKernel::loadOperand(OpOperand &operand) {
  Value value = mapping.lookup(operand.get());
  if (!isa<MemRefType>(value.getType()))
    return value;
  return memref::LoadOp::create(builder, loc, value, getIndices(operand));
}

Values LoopKernel::buildBody(ValueRange carried) {
  IRMapping inside(mapping);
  for (OpOperand &operand : op->getOpOperands()) {
    BlockArgument argument = op.getMatchingBlockArgument(&operand);
    if (op.isDpsInit(&operand))
      inside.map(argument,
                 carried[operand.getOperandNumber() - op.getNumDpsInputs()]);
    else if (!argument.use_empty())
      inside.map(argument, loadOperand(operand));
  }
  return copyBody(builder, op, inside, positions);
}

Values LoopKernel::buildReductions(ArrayRef<unsigned> loops,
                                   ValueRange carried) {
  if (loops.empty())
    return buildBody(carried);
  bool isShared = firstRound && loops.size() == 1;
  return device.loop(isShared ? firstRound : index(0), sizes[loops.front()],
                     isShared ? kLanes : 1, carried,
                     [&](Value position, ValueRange values) {
                       positions[loops.front()] = position;
                       return buildReductions(loops.drop_front(), values);
                     });
}

/// What the result was before.
Value LoopKernel::loadResult(OpOperand &output) {
  if (!op.getMatchingBlockArgument(&output).use_empty())
    return loadOperand(output);
  Type element = getElementTypeOrSelf(output.get().getType());
  return LLVM::PoisonOp::create(builder, loc, element);
}

void LoopKernel::storeResults(ValueRange results) {
  for (auto [result, output] : llvm::zip(results, op.getDpsInitsMutable()))
    memref::StoreOp::create(builder, loc, result, mapping.lookup(output.get()),
                            getIndices(output));
}

void LoopKernel::buildThread() {
  Values carried;
  for (OpOperand &output : op.getDpsInitsMutable())
    carried.push_back(loadResult(output));
  SmallVector<unsigned> reductions;
  op.getReductionDims(reductions);
  storeResults(buildReductions(reductions, carried));
}

Value LoopKernel::combine(Operation *combiner, Value a, Value b) {
  IRMapping operands;
  operands.map(combiner->getOperand(0), a);
  operands.map(combiner->getOperand(1), b);
  return builder.clone(*combiner, operands)->getResult(0);
}

/// A lane's part of an element; the first lane stores what they have together.
void LoopKernel::buildLane(Value lane) {
  firstRound = lane;
  Values carried;
  for (Operation *combiner : combiners)
    carried.push_back(arith::ConstantOp::create(
        builder, loc, *arith::getNeutralElement(combiner)));
  SmallVector<unsigned> reductions;
  op.getReductionDims(reductions);
  Values results = buildReductions(reductions, carried);
  for (auto [result, combiner] : llvm::zip(results, combiners))
    for (int64_t mask = kLanes / 2; mask > 0; mask /= 2)
      result = combine(combiner, result, device.shuffle(result, mask));
  device.ifThen(device.equal(lane, 0), [&] {
    for (auto [result, combiner, output] :
         llvm::zip(results, combiners, op.getDpsInitsMutable()))
      result = combine(combiner, loadResult(output), result);
    storeResults(results);
  });
}

void LoopKernel::build() {
  sizes = getSizes();
  SmallVector<unsigned> loops;
  op.getParallelDims(loops);
  bool isShared = !combiners.empty();
  Value count = index(isShared ? kLanes : 1);
  for (unsigned loop : loops)
    count = device.mul(count, sizes[loop]);
  auto widen = [&](Value value) {
    return toIndex(
        arith::ExtUIOp::create(builder, loc, builder.getI64Type(), value));
  };
  Value thread =
      device.add(device.mul(widen(device.blockIndex(0)), kLoopThreads),
                 widen(device.threadIndex()));
  device.ifThen(device.less(thread, count), [&] {
    Value rest = isShared ? device.divide(thread, kLanes) : thread;
    for (unsigned loop : llvm::reverse(loops)) {
      bool isOuter = loop == loops.front();
      positions[loop] =
          isOuter ? rest
                  : arith::RemUIOp::create(builder, loc, rest, sizes[loop]);
      if (!isOuter)
        rest = device.divide(rest, sizes[loop]);
    }
    if (isShared)
      buildLane(arith::RemUIOp::create(builder, loc, thread, index(kLanes)));
    else
      buildThread();
  });
}

Value LoopKernel::getElement(const DeviceView &view, ValueRange indices,
                             Type element) {
  Value offset = index(0);
  for (auto [position, stride] : llvm::zip(indices, view.strides))
    offset = device.add(offset, device.mul(position, stride));
  Value elements =
      arith::IndexCastOp::create(builder, loc, builder.getI64Type(), offset);
  return device.at(view.pointer, element, elements);
}

void LoopKernel::lowerAccesses(Block &body) {
  SmallVector<Operation *> accesses;
  body.walk([&](Operation *access) {
    if (isa<memref::LoadOp, memref::StoreOp, memref::DimOp>(access))
      accesses.push_back(access);
  });
  for (Operation *access : accesses) {
    builder.setInsertionPoint(access);
    if (auto load = dyn_cast<memref::LoadOp>(access)) {
      Value address = getElement(views[load.getMemRef()], load.getIndices(),
                                 load.getType());
      load.replaceAllUsesWith(
          LLVM::LoadOp::create(builder, loc, load.getType(), address)
              .getResult());
    } else if (auto store = dyn_cast<memref::StoreOp>(access)) {
      Value value = store.getValueToStore();
      Value address = getElement(views[store.getMemRef()], store.getIndices(),
                                 value.getType());
      LLVM::StoreOp::create(builder, loc, value, address);
    } else {
      auto size = cast<memref::DimOp>(access);
      size.replaceAllUsesWith(
          views[size.getSource()].sizes[*size.getConstantIndex()]);
    }
    access->erase();
  }
  for (auto &[buffer, view] : views)
    buffer.getDefiningOp()->erase();
}

void nibble::buildLoopKernel(ModuleOp module, StringRef name,
                             linalg::GenericOp op, ValueRange values) {
  SmallVector<Type> types =
      getArgumentTypes(module.getContext(), values.getTypes());
  createKernel(module, name, types, kLoopThreads,
               [&](DeviceBuilder &device, ValueRange arguments, Value) {
                 LoopKernel kernel(device, op);
                 Block *body = device.builder.getInsertionBlock();
                 kernel.declare(values, arguments);
                 kernel.build();
                 kernel.lowerAccesses(*body);
                 device.builder.setInsertionPointToEnd(body);
               });
}
