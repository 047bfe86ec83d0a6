//===- LowerKernels.cpp - Matrix products as calls of kernels -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Convolution.h"
#include "Kernels.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Target/TargetDescription.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/MemRef/Utils/MemRefUtils.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace nibble {
#define GEN_PASS_DEF_LOWERKERNELS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

/// Multiplications below which more threads cost more than they save.
static constexpr int64_t kParallelWork = 1 << 17;

/// A loop over [0, count) whose rounds are independent; on several threads if
/// there is enough work in all of it.
static void buildParallel(KernelBuilder &kernel, ValueRange counts, Value work,
                          llvm::function_ref<void(ValueRange)> body) {
  OpBuilder &builder = kernel.builder;
  Values lower(counts.size(), kernel.index(0));
  Values step(counts.size(), kernel.index(1));
  kernel.ifThen(
      kernel.less(kernel.index(kParallelWork), work),
      [&] {
        scf::ParallelOp::create(
            builder, kernel.loc, lower, counts, step,
            [&](OpBuilder &, Location, ValueRange indices) { body(indices); });
      },
      [&] {
        scf::buildLoopNest(
            builder, kernel.loc, lower, counts, step,
            [&](OpBuilder &, Location, ValueRange indices) { body(indices); });
      });
}

static Value product(KernelBuilder &kernel, ValueRange factors) {
  Value result = kernel.index(1);
  for (Value factor : factors)
    result = kernel.mul(result, factor);
  return result;
}

namespace {
struct LowerKernels : nibble::impl::LowerKernelsBase<LowerKernels> {
  using LowerKernelsBase::LowerKernelsBase;

  void runOnOperation() override;

private:
  void lower(PackedMatmulOp op);
  void lowerInteger(PackedMatmulOp op, KernelBuilder &kernel, Value x, Value y);
  void lowerFloat(PackedMatmulOp op, KernelBuilder &kernel, Value x, Value y);
  LogicalResult lowerContraction(linalg::GenericOp op);
  LogicalResult lowerConvolution(linalg::GenericOp op);

  /// `matrix` with rows without gaps between their elements: itself or a copy.
  Value getContiguous(KernelBuilder &kernel, Value matrix);
  Value call(KernelBuilder &kernel, func::FuncOp function, ValueRange args) {
    func::CallOp::create(kernel.builder, kernel.loc, function, args);
    return {};
  }

  KernelTarget machine;
};
} // namespace

/// True where elements that differ by 1 in `dimension` are neighbours.
static bool isContiguous(MemRefType type, int64_t dimension) {
  SmallVector<int64_t> strides;
  int64_t offset;
  return succeeded(type.getStridesAndOffset(strides, offset)) &&
         strides[dimension] == 1;
}

static Value castTo(KernelBuilder &kernel, Value buffer, MemRefType type) {
  return buffer.getType() == type
             ? buffer
             : memref::CastOp::create(kernel.builder, kernel.loc, type, buffer)
                   .getResult();
}

Value LowerKernels::getContiguous(KernelBuilder &kernel, Value matrix) {
  auto type = cast<MemRefType>(matrix.getType());
  MemRefType wanted =
      kernel.matrix(type.getElementType(), /*contiguousRows=*/true);
  if (isContiguous(type, 1))
    return castTo(kernel, matrix, wanted);
  Values sizes;
  for (int64_t i = 0; i < 2; ++i)
    if (type.isDynamicDim(i))
      sizes.push_back(
          memref::DimOp::create(kernel.builder, kernel.loc, matrix, i));
  Value copy = memref::AllocOp::create(
      kernel.builder, kernel.loc,
      MemRefType::get(type.getShape(), type.getElementType()), sizes);
  memref::CopyOp::create(kernel.builder, kernel.loc, matrix, copy);
  return castTo(kernel, copy, wanted);
}

//===----------------------------------------------------------------------===//
// Packed weights
//===----------------------------------------------------------------------===//

void LowerKernels::lowerInteger(PackedMatmulOp op, KernelBuilder &kernel,
                                Value x, Value y) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  auto module = op->getParentOfType<ModuleOp>();
  RankedTensorType type = op.getWeightTensorType();
  WeightKernelFormat format = getKernelFormat(type);
  const PanelFormat &panel = format.panel;
  int64_t extent = getQuantization(type).getBlock()[0];
  int64_t block = extent == QuantizedAttr::kWholeExtent
                      ? static_cast<int64_t>(panel.K)
                      : extent;

  Value rows = memref::DimOp::create(builder, loc, x, 0);
  Value grid = kernel.mul(buildPaddedRows(kernel, rows), panel.groups());
  auto allocate = [&](Value count, Type element) -> Value {
    return memref::AllocOp::create(builder, loc, kernel.buffer(element), count,
                                   builder.getI64IntegerAttr(64));
  };
  Value codes = allocate(kernel.mul(grid, panel.group / 4), kernel.i32());
  Value scales = allocate(grid, kernel.f32());
  Value sums = allocate(grid, kernel.i32());

  std::optional<APFloat> scale = op.getActivationScale();
  func::FuncOp quantize = scale ? getArrangeRowsFunction(module, machine)
                                : getQuantizeRowsFunction(module, machine);
  Value passes = kernel.divideUp(rows, kRowsPerPass);
  Value numbers = kernel.mul(rows, panel.K);
  buildParallel(kernel, passes, numbers, [&](ValueRange indices) {
    Values args{x,
                codes,
                scales,
                sums,
                kernel.index(panel.group),
                kernel.index(block),
                kernel.mul(indices[0], kRowsPerPass)};
    if (scale)
      args.push_back(
          arith::ConstantOp::create(builder, loc, op.getActivationScaleAttr()));
    call(kernel, quantize, args);
  });

  func::FuncOp tile =
      getIntegerTileFunction(module, machine, format, !!op.getBias());
  Value bias = op.getBias()
                   ? castTo(kernel, op.getBias(), kernel.buffer(kernel.f32()))
                   : scales;
  Value weight = castTo(kernel, op.getWeight(), kernel.buffer(kernel.i8()));
  buildParallel(kernel, kernel.index(panel.tiles()),
                kernel.mul(numbers, panel.N), [&](ValueRange indices) {
                  call(kernel, tile,
                       {weight, codes, scales, sums, bias, y,
                        kernel.index(panel.groups()), indices[0]});
                });
  for (Value buffer : {codes, scales, sums})
    memref::DeallocOp::create(builder, loc, buffer);
}

void LowerKernels::lowerFloat(PackedMatmulOp op, KernelBuilder &kernel, Value x,
                              Value y) {
  auto module = op->getParentOfType<ModuleOp>();
  RankedTensorType type = op.getWeightTensorType();
  bool hasBias = !!op.getBias();
  bool quantized = isQuantized(type);
  func::FuncOp tile =
      quantized ? getDequantizedTileFunction(module, machine,
                                             getKernelFormat(type), hasBias)
                : getFloatTileFunction(module, machine, type.getElementType(),
                                       hasBias);
  MemRefType floats = kernel.buffer(kernel.f32());
  Value weight =
      castTo(kernel, op.getWeight(),
             kernel.buffer(quantized ? kernel.i8() : type.getElementType()));
  Value bias = hasBias ? castTo(kernel, op.getBias(), floats) : Value();
  if (!bias)
    bias = castTo(kernel,
                  memref::AllocaOp::create(kernel.builder, kernel.loc,
                                           MemRefType::get({1}, kernel.f32())),
                  floats);
  int64_t K = type.getDimSize(0), N = type.getDimSize(1);
  Value rows = memref::DimOp::create(kernel.builder, kernel.loc, x, 0);
  Value tiles = kernel.index(llvm::divideCeil(N, PanelFormat::kColumns));
  buildParallel(kernel, tiles, kernel.mul(rows, K * N),
                [&](ValueRange indices) {
                  call(kernel, tile, {x, weight, bias, y, indices[0]});
                });
}

void LowerKernels::lower(PackedMatmulOp op) {
  OpBuilder builder(op);
  KernelBuilder kernel(builder, op.getLoc());
  Value x = getContiguous(kernel, op.getActivations());
  Value y = castTo(kernel, op.getInit(),
                   kernel.matrix(kernel.f32(), /*contiguousRows=*/true));
  if (op.getComputeType().isInteger() && isQuantized(op.getWeightTensorType()))
    lowerInteger(op, kernel, x, y);
  else
    lowerFloat(op, kernel, x, y);
  if (auto copy = x.getDefiningOp<memref::CastOp>())
    if (auto allocation = copy.getSource().getDefiningOp<memref::AllocOp>();
        allocation && copy.getSource() != op.getActivations())
      memref::DeallocOp::create(builder, op.getLoc(), allocation);
  op.erase();
  ++numKernels;
}

//===----------------------------------------------------------------------===//
// Contractions
//===----------------------------------------------------------------------===//

/// What is written to `buffer`, and nothing else, before `reader`: null where
/// it is not one op of the same block.
static linalg::LinalgOp findInitialization(Value buffer, Operation *reader) {
  if (!buffer.getDefiningOp<memref::AllocOp>())
    return {};
  linalg::LinalgOp found;
  for (Operation *user : buffer.getUsers()) {
    if (user == reader || isa<memref::DimOp, memref::DeallocOp>(user))
      continue;
    if (user->getBlock() != reader->getBlock())
      return {};
    if (!user->isBeforeInBlock(reader))
      continue;
    auto writer = dyn_cast<linalg::LinalgOp>(user);
    if (found || !writer || writer.getNumDpsInits() != 1 ||
        writer.getDpsInits()[0] != buffer)
      return {};
    found = writer;
  }
  return found;
}

static bool fillsWithZero(linalg::LinalgOp writer) {
  auto fill = dyn_cast_if_present<linalg::FillOp>(writer ? writer.getOperation()
                                                         : nullptr);
  return fill && (matchPattern(fill.getInputs()[0], m_AnyZeroFloat()) ||
                  matchPattern(fill.getInputs()[0], m_Zero()));
}

/// The matrix of `buffer` with dimensions `rows` and `columns` at the given
/// places of the others.
static Value getMatrix(KernelBuilder &kernel, Value buffer, AffineMap map,
                       unsigned rows, unsigned columns,
                       const DenseMap<unsigned, Value> &places) {
  OpBuilder &builder = kernel.builder;
  auto type = cast<MemRefType>(buffer.getType());
  int64_t rowDimension = getDimension(map, rows);
  int64_t columnDimension = getDimension(map, columns);
  SmallVector<OpFoldResult> offsets, sizes;
  SmallVector<OpFoldResult> strides(type.getRank(), builder.getIndexAttr(1));
  SmallVector<int64_t> kept;
  for (int64_t dimension = 0; dimension < type.getRank(); ++dimension) {
    if (dimension == rowDimension || dimension == columnDimension) {
      offsets.push_back(builder.getIndexAttr(0));
      sizes.push_back(
          memref::getMixedSize(builder, kernel.loc, buffer, dimension));
      kept.push_back(type.getDimSize(dimension));
      continue;
    }
    if (auto loop = dyn_cast<AffineDimExpr>(map.getResult(dimension)))
      offsets.push_back(places.lookup(loop.getPosition()));
    else
      offsets.push_back(builder.getIndexAttr(0));
    sizes.push_back(builder.getIndexAttr(1));
  }
  Value matrix = buffer;
  if (type.getRank() > 2)
    matrix =
        memref::SubViewOp::create(builder, kernel.loc,
                                  memref::SubViewOp::inferRankReducedResultType(
                                      kept, type, offsets, sizes, strides),
                                  buffer, offsets, sizes, strides);
  if (rowDimension < columnDimension)
    return matrix;
  AffineExpr d0 = builder.getAffineDimExpr(0), d1 = builder.getAffineDimExpr(1);
  return memref::TransposeOp::create(
      builder, kernel.loc, matrix,
      AffineMapAttr::get(AffineMap::get(2, 0, {d1, d0}, builder.getContext())));
}

LogicalResult LowerKernels::lowerContraction(linalg::GenericOp op) {
  std::optional<Contraction> loops = matchContraction(op);
  if (!loops || !op.hasPureBufferSemantics() || loops->m.empty() ||
      loops->n.size() != 1 || loops->k.size() != 1)
    return failure();
  OpBuilder builder(op);
  KernelBuilder kernel(builder, op.getLoc());
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  unsigned m = loops->m.back(), n = loops->n[0], k = loops->k[0];
  SmallVector<unsigned> outer(loops->batch);
  outer.append(loops->m.begin(), loops->m.end() - 1);

  Values buffers(op->getOperands());
  auto isMatrix = [&](unsigned operand, unsigned columns) {
    return isContiguous(cast<MemRefType>(buffers[operand].getType()),
                        getDimension(maps[operand], columns));
  };
  bool rowsOfWeight = isMatrix(1, n);
  if (!isMatrix(0, k) || !isMatrix(2, n) || (!rowsOfWeight && !isMatrix(1, k)))
    return failure();

  auto getLoopSize = [&](unsigned loop) -> Value {
    for (auto [buffer, map] : llvm::zip(buffers, maps))
      if (int64_t dimension = getDimension(map, loop); dimension >= 0)
        return memref::DimOp::create(builder, kernel.loc, buffer, dimension);
    return {};
  };
  Values counts;
  for (unsigned loop : outer)
    counts.push_back(getLoopSize(loop));
  Value columns = getLoopSize(n);
  Value work = product(kernel, counts);
  work = product(kernel, {work, getLoopSize(m), columns, getLoopSize(k)});
  counts.push_back(kernel.divideUp(columns, PanelFormat::kColumns));
  linalg::LinalgOp writer = findInitialization(buffers[2], op);
  bool startsAtZero = fillsWithZero(writer);
  if (startsAtZero)
    writer->erase();
  func::FuncOp tile =
      getMatrixTileFunction(op->getParentOfType<ModuleOp>(), machine,
                            rowsOfWeight, /*accumulates=*/!startsAtZero);
  buildParallel(kernel, counts, work, [&](ValueRange indices) {
    DenseMap<unsigned, Value> places;
    for (auto [loop, index] : llvm::zip(outer, indices))
      places[loop] = index;
    MemRefType rows = kernel.matrix(kernel.f32(), /*contiguousRows=*/true);
    Value x = getMatrix(kernel, buffers[0], maps[0], m, k, places);
    Value w = getMatrix(kernel, buffers[1], maps[1], k, n, places);
    Value y = getMatrix(kernel, buffers[2], maps[2], m, n, places);
    call(kernel, tile,
         {castTo(kernel, x, rows),
          castTo(kernel, w, kernel.matrix(kernel.f32(), rowsOfWeight)),
          castTo(kernel, y, rows), indices.back()});
  });
  op.erase();
  ++numKernels;
  return success();
}

//===----------------------------------------------------------------------===//
// Convolutions
//===----------------------------------------------------------------------===//

static bool isView(Operation *op) {
  return isa<memref::ExpandShapeOp, memref::CollapseShapeOp, memref::CastOp>(
      op);
}

/// True where `buffer` and views of it are read only.
static bool isOnlyRead(Value buffer) {
  return llvm::all_of(buffer.getUses(), [&](OpOperand &use) {
    Operation *user = use.getOwner();
    if (isView(user))
      return isOnlyRead(user->getResult(0));
    auto linalg = dyn_cast<linalg::LinalgOp>(user);
    return linalg ? linalg.isDpsInput(&use)
                  : isa<memref::DimOp, memref::LoadOp>(user);
  });
}

/// True where nothing writes to a buffer while the model runs.
static bool isConstantBuffer(Value buffer) {
  while (buffer.getDefiningOp() && isView(buffer.getDefiningOp()))
    buffer = buffer.getDefiningOp()->getOperand(0);
  if (auto global = buffer.getDefiningOp<memref::GetGlobalOp>()) {
    auto symbol = SymbolTable::lookupNearestSymbolFrom<memref::GlobalOp>(
        global, global.getNameAttr());
    return symbol && symbol.getConstant();
  }
  return isa<BlockArgument>(buffer) &&
         cast<BlockArgument>(buffer).getOwner()->isEntryBlock() &&
         isa<FunctionOpInterface>(buffer.getParentBlock()->getParentOp()) &&
         isOnlyRead(buffer);
}

/// The bias, [m] or [g, m], that `writer` spreads over a result with
/// dimension 0 and those from `leading` on besides; null if it does something
/// else.
static Value getSpreadBias(linalg::LinalgOp writer, int64_t leading) {
  auto generic = dyn_cast<linalg::GenericOp>(writer.getOperation());
  if (!generic || generic.getNumDpsInputs() != 1 ||
      generic.getNumReductionLoops() != 0)
    return {};
  Block &body = generic.getRegion().front();
  Value bias = generic.getDpsInputs()[0];
  SmallVector<AffineMap> maps = generic.getIndexingMapsArray();
  auto channels = AffineMap::getMultiDimIdentityMap(maps[1].getNumDims(),
                                                    generic.getContext())
                      .getSliceMap(1, leading - 1);
  bool isSpread = cast<linalg::YieldOp>(body.getTerminator()).getValues()[0] ==
                      body.getArgument(0) &&
                  maps[1].isIdentity() && maps[0] == channels &&
                  isConstantBuffer(bias);
  return isSpread ? bias : Value();
}

namespace {
/// The sizes of a convolution and its operands without their dimensions.
class ConvolutionCall {
public:
  ConvolutionCall(KernelBuilder &kernel, const Convolution &convolution,
                  ValueRange buffers)
      : kernel(kernel), convolution(convolution) {
    for (auto [result, buffer] : llvm::zip(sizes, buffers))
      for (int64_t i = 0; i < cast<MemRefType>(buffer.getType()).getRank(); ++i)
        result.push_back(
            memref::DimOp::create(kernel.builder, kernel.loc, buffer, i));
  }

  ArrayRef<Value> data() { return sizes[0]; }
  ArrayRef<Value> weight() { return sizes[1]; }
  ArrayRef<Value> result() { return sizes[2]; }

  /// Where the elements of a kernel's taps lie, and of the output's rows.
  Value buildTaps();
  Value buildRows();
  /// Columns of a row: one row is all of the output where windows do not leave
  /// gaps.
  Value buildWidth();
  /// All of a buffer without gaps, and part of it as a matrix.
  Value flatten(Value buffer);
  Value getMatrix(Value buffer, Value start, Value rows, Value columns);
  /// The rows of a weight of bytes, padded with zeros to whole quads: its own
  /// buffer or a new one.
  Value getQuads(Value weight, Value rows, Value columns);

private:
  using Positions = llvm::function_ref<Value(ValueRange indices)>;
  Value buildTable(ValueRange counts, Positions position);
  /// Elements between neighbours in spatial dimension `i` of the input.
  Value getPitch(int64_t i) {
    return product(kernel, data().drop_front(convolution.leading() + i + 1));
  }

  KernelBuilder &kernel;
  const Convolution &convolution;
  Values sizes[3];
};
} // namespace

Value ConvolutionCall::buildTable(ValueRange counts, Positions position) {
  OpBuilder &builder = kernel.builder;
  Value table = memref::AllocOp::create(builder, kernel.loc,
                                        kernel.buffer(kernel.indexType()),
                                        product(kernel, counts));
  Values lower(counts.size(), kernel.index(0));
  Values step(counts.size(), kernel.index(1));
  auto fill = [&](OpBuilder &, Location, ValueRange indices) {
    Value place = kernel.index(0);
    for (auto [index, count] : llvm::zip(indices, counts))
      place = kernel.add(kernel.mul(place, count), index);
    kernel.store(position(indices), table, place);
  };
  scf::buildLoopNest(builder, kernel.loc, lower, counts, step, fill);
  return table;
}

Value ConvolutionCall::buildTaps() {
  int64_t leading = convolution.leading();
  Values pitches{getPitch(-1)};
  for (int64_t i = 0; i < convolution.rank(); ++i)
    pitches.push_back(kernel.mul(getPitch(i), convolution.dilations[i]));
  return buildTable(weight().drop_front(leading - 1), [&](ValueRange indices) {
    Value place = kernel.index(0);
    for (auto [index, pitch] : llvm::zip(indices, pitches))
      place = kernel.add(place, kernel.mul(index, pitch));
    return place;
  });
}

Value ConvolutionCall::buildRows() {
  // A convolution over a line has one row.
  Values counts{kernel.index(1)}, pitches{kernel.index(0)};
  for (int64_t i = 0; i + 1 < convolution.rank(); ++i) {
    counts.push_back(result()[convolution.leading() + i]);
    pitches.push_back(kernel.mul(getPitch(i), convolution.strides[i]));
  }
  return buildTable(counts, [&](ValueRange indices) {
    Value place = kernel.index(0);
    for (auto [index, pitch] : llvm::zip(indices, pitches))
      place = kernel.add(place, kernel.mul(index, pitch));
    return place;
  });
}

Value ConvolutionCall::buildWidth() {
  ArrayRef<Value> places = result().drop_front(convolution.leading());
  Value width = places.back();
  if (llvm::any_of(convolution.strides, [](int64_t s) { return s != 1; }))
    return width;
  Value merged = arith::ConstantOp::create(kernel.builder, kernel.loc,
                                           kernel.builder.getBoolAttr(true));
  for (auto [own, input] :
       llvm::zip(places, data().drop_front(convolution.leading())))
    if (own != places.front())
      merged = arith::AndIOp::create(
          kernel.builder, kernel.loc, merged,
          arith::CmpIOp::create(kernel.builder, kernel.loc,
                                arith::CmpIPredicate::eq, own, input));
  return arith::SelectOp::create(kernel.builder, kernel.loc, merged,
                                 product(kernel, places), width);
}

Value ConvolutionCall::flatten(Value buffer) {
  OpBuilder &builder = kernel.builder;
  auto type = cast<MemRefType>(buffer.getType());
  SmallVector<OpFoldResult> extents =
      memref::getMixedSizes(builder, kernel.loc, buffer);
  Value count = product(
      kernel, getValueOrCreateConstantIndexOp(builder, kernel.loc, extents));
  return memref::ReinterpretCastOp::create(
      builder, kernel.loc, kernel.buffer(type.getElementType()), buffer,
      /*offset=*/builder.getIndexAttr(0), ArrayRef<OpFoldResult>{count},
      ArrayRef<OpFoldResult>{builder.getIndexAttr(1)});
}

Value ConvolutionCall::getMatrix(Value buffer, Value start, Value rows,
                                 Value columns) {
  OpBuilder &builder = kernel.builder;
  return memref::ReinterpretCastOp::create(
      builder, kernel.loc,
      kernel.matrix(cast<MemRefType>(buffer.getType()).getElementType(),
                    /*contiguousRows=*/true),
      buffer, OpFoldResult(start), ArrayRef<OpFoldResult>{rows, columns},
      ArrayRef<OpFoldResult>{columns, builder.getIndexAttr(1)});
}

Value ConvolutionCall::getQuads(Value weight, Value rows, Value columns) {
  ArrayRef<int64_t> taps = cast<MemRefType>(weight.getType())
                               .getShape()
                               .drop_front(convolution.leading() - 1);
  if (llvm::none_of(taps, ShapedType::isDynamic) &&
      ShapedType::getNumElements(taps) % 4 == 0)
    return weight;
  Value padded = kernel.mul(kernel.divideUp(columns, 4), 4);
  Value size = kernel.mul(rows, padded);
  Value quads = memref::AllocOp::create(kernel.builder, kernel.loc,
                                        kernel.buffer(kernel.i8()), size);
  Value bytes = flatten(weight), zero = kernel.zero(kernel.i8());
  kernel.loop(kernel.index(0), rows, 1, [&](Value row) {
    Value from = kernel.mul(row, columns), to = kernel.mul(row, padded);
    kernel.loop(kernel.index(0), columns, 1, [&](Value k) {
      kernel.store(kernel.load(bytes, kernel.add(from, k)), quads,
                   kernel.add(to, k));
    });
    kernel.loop(columns, padded, 1,
                [&](Value k) { kernel.store(zero, quads, kernel.add(to, k)); });
  });
  return quads;
}

LogicalResult LowerKernels::lowerConvolution(linalg::GenericOp op) {
  std::optional<Convolution> convolution = matchConvolution(op);
  if (!convolution || !op.hasPureBufferSemantics())
    return failure();
  Values buffers(op->getOperands());
  for (Value buffer : buffers)
    if (!cast<MemRefType>(buffer.getType()).getLayout().isIdentity())
      return failure();
  OpBuilder builder(op);
  KernelBuilder kernel(builder, op.getLoc());
  ConvolutionCall call(kernel, *convolution, buffers);
  int64_t leading = convolution->leading();

  ConvolutionStart start = ConvolutionStart::Result;
  Value bias;
  if (linalg::LinalgOp writer = findInitialization(buffers[2], op)) {
    bias = getSpreadBias(writer, leading);
    if (bias)
      start = ConvolutionStart::Bias;
    else if (fillsWithZero(writer))
      start = ConvolutionStart::Zero;
    if (start != ConvolutionStart::Result)
      writer->erase();
  }
  Factors factors = convolution->hasBytes ? Factors::Bytes : Factors::Floats;
  Type sum = cast<MemRefType>(buffers[2].getType()).getElementType();
  bias = bias ? call.flatten(bias)
              : castTo(kernel,
                       memref::AllocaOp::create(builder, kernel.loc,
                                                MemRefType::get({1}, sum)),
                       kernel.buffer(sum));

  Value x = call.flatten(buffers[0]);
  Value taps = call.buildTaps(), rows = call.buildRows();
  Value width = call.buildWidth();
  Value batch = call.result()[0], channels = call.result()[leading - 1];
  Value groups = leading == 3 ? call.result()[1] : kernel.index(1);
  Value positions = product(kernel, call.result().drop_front(leading));
  Value inputs = product(kernel, call.data().drop_front(leading - 1));
  Value depth = product(kernel, call.weight().drop_front(leading - 1));
  Value work = product(kernel, {batch, groups, channels, positions, depth});

  // Panels pay where several channels read them.
  constexpr int64_t fewChannels = 2;
  int64_t knownChannels =
      cast<MemRefType>(buffers[1].getType()).getDimSize(leading - 2);
  bool direct = !convolution->hasBytes &&
                !ShapedType::isDynamic(knownChannels) &&
                knownChannels <= fewChannels;
  auto module = op->getParentOfType<ModuleOp>();
  int64_t stride = convolution->strides.back();
  func::FuncOp function =
      direct
          ? getDirectConvolutionFunction(module, machine, stride, start)
          : getConvolutionTileFunction(module, machine, stride, start, factors);
  Value weight = buffers[1], columns = depth;
  if (convolution->hasBytes) {
    weight = call.getQuads(weight, kernel.mul(groups, channels), depth);
    columns = kernel.mul(kernel.divideUp(depth, 4), 4);
  }
  Values counts{batch, groups};
  if (direct)
    counts.push_back(channels);
  else
    counts.append({kernel.divideUp(channels, getConvolutionPassChannels()),
                   kernel.divideUp(positions, PanelFormat::kColumns)});
  buildParallel(kernel, counts, work, [&](ValueRange indices) {
    Value item = kernel.add(kernel.mul(indices[0], groups), indices[1]);
    Value firstChannel = kernel.mul(indices[1], channels);
    Values args{
        call.getMatrix(weight, kernel.mul(firstChannel, columns), channels,
                       columns),
        x,
        kernel.mul(item, inputs),
        taps,
        rows,
        width,
        bias,
        firstChannel,
        call.getMatrix(buffers[2],
                       kernel.mul(item, kernel.mul(channels, positions)),
                       channels, positions)};
    llvm::append_range(args, indices.drop_front(2));
    this->call(kernel, function, args);
  });
  for (Value table : {taps, rows})
    memref::DeallocOp::create(builder, kernel.loc, table);
  if (weight != buffers[1])
    memref::DeallocOp::create(builder, kernel.loc, weight);
  op.erase();
  ++numKernels;
  return success();
}

void LowerKernels::runOnOperation() {
  const TargetRow *row = findTarget(target);
  if (!row) {
    getOperation().emitError("no target '")
        << target << "'; there are " << listTargetNames();
    return signalPassFailure();
  }
  machine.vectorBytes = row->vectorBits / 8;
  machine.registers = row->numVectorRegisters;
  SmallVector<Operation *> products;
  getOperation().walk([&](Operation *op) {
    if (isa<PackedMatmulOp, linalg::GenericOp>(op))
      products.push_back(op);
  });
  for (Operation *op : products) {
    if (auto packed = dyn_cast<PackedMatmulOp>(op)) {
      lower(packed);
      continue;
    }
    auto generic = cast<linalg::GenericOp>(op);
    if (failed(lowerContraction(generic)))
      (void)lowerConvolution(generic);
  }
}
