//===- Pooling.cpp - Windows that are folded into one number --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A pool is a linalg.generic over an input that is padded beforehand, with the
// loops n, c, o…, k…, o. The window itself is an operand of which only the
// shape is used, as in linalg's own pooling ops.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// The loops
//===----------------------------------------------------------------------===//

namespace {
/// A pool over an input [N, C, spatial…].
struct Pool {
  /// Loops of a pool: n, c, outputs but the last, the kernel, the last output.
  int64_t getOutputLoop(int64_t axis) const {
    int64_t rank = windows.size();
    return axis + 1 == rank ? 1 + 2 * rank : 2 + axis;
  }
  int64_t getKernelLoop(int64_t axis) const {
    return 1 + windows.size() + axis;
  }
  int64_t getNumLoops() const { return 2 + 2 * windows.size(); }

  Value data;
  Type element;
  SmallVector<Window> windows;
  /// Of the result.
  Sizes sizes;
};
} // namespace

static FailureOr<Pool> getPool(NodeContext &context, Value data, Type element) {
  Sizes sizes = context.getSizes(data);
  if (sizes.size() < 3)
    return context.fail("expects an input [N, C, spatial…]");
  auto shape = context.node.getInts("kernel_shape");
  if (!shape || shape->size() != sizes.size() - 2)
    return context.fail("expects a kernel size for each spatial dimension");
  Sizes kernel;
  for (int64_t size : *shape) {
    if (size < 1 || size >= int64_t(1) << 30)
      return context.fail("kernel sizes must be positive");
    kernel.push_back(context.rewriter.getIndexAttr(size));
  }
  auto windows = getWindows(context, ArrayRef(sizes).drop_front(2), kernel);
  if (failed(windows))
    return failure();
  Pool pool{data, element, *windows, {sizes[0], sizes[1]}};
  for (const Window &window : pool.windows)
    pool.sizes.push_back(window.count);
  return pool;
}

/// The padded input and the window as operands of the loops.
static SmallVector<Operand> getOperands(NodeContext &context, const Pool &pool,
                                        Value padding) {
  ScalarBuilder scalar = context.scalar();
  Value padded = padForWindows(context, pool.data, pool.windows, 2,
                               scalar.encode(padding, pool.element));
  Operand data = makeOperand(context, padded, pool.element, {0, 1});
  Operand shape{{}, context.rewriter.getI1Type(), {}};
  Sizes sizes;
  for (auto [axis, window] : llvm::enumerate(pool.windows)) {
    AffineExpr output =
        context.rewriter.getAffineDimExpr(pool.getOutputLoop(axis));
    AffineExpr kernel =
        context.rewriter.getAffineDimExpr(pool.getKernelLoop(axis));
    data.indices.push_back(output * window.stride + kernel * window.dilation);
    shape.indices.push_back(kernel);
    sizes.push_back(window.kernel);
  }
  shape.tensor = tensor::EmptyOp::create(context.rewriter, context.loc, sizes,
                                         shape.element);
  return {data, shape};
}

static SmallVector<int64_t> getKept(const Pool &pool) {
  SmallVector<int64_t> kept{0, 1};
  for (size_t axis = 0; axis < pool.windows.size(); ++axis)
    kept.push_back(pool.getOutputLoop(axis));
  return kept;
}

/// Folds each window; `body` gets the number and the result so far.
static Value foldWindows(NodeContext &context, const Pool &pool, Value padding,
                         Value initial, ScalarFunction body) {
  return buildFolded(context, getOperands(context, pool, padding),
                     pool.getNumLoops(), getKept(pool),
                     buildFilled(context, pool.sizes, initial),
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       return body(scalar, {args[0], args[2]});
                     });
}

/// Rounds computed numbers to `element`.
static Value buildRounded(NodeContext &context, Value tensor, Type element) {
  Type computed = getComputedType(element);
  return isa<IntegerType>(element)
             ? tensor
             : buildCast(context, tensor, computed, element);
}

//===----------------------------------------------------------------------===//
// MaxPool
//===----------------------------------------------------------------------===//

static bool isUnsignedElement(Type element) {
  return element.isUnsignedInteger() || element.isInteger(1);
}

/// The largest number of each window, and where it is in the whole input: in
/// row-major order, or column-major within the spatial dimensions.
static std::pair<Value, Value> buildMaxima(NodeContext &context,
                                           const Pool &pool, bool columnMajor) {
  ScalarBuilder outer = context.scalar();
  Value lowest = outer.lowest(pool.element);
  SmallVector<Operand> operands = getOperands(context, pool, lowest);
  Type i64 = context.rewriter.getI64Type();
  SmallVector<Value> initial{
      buildFilled(context, pool.sizes, lowest),
      buildFilled(context, pool.sizes, outer.integer(i64, 0))};
  SmallVector<AffineMap> maps;
  int64_t numLoops = pool.getNumLoops();
  MLIRContext *mlirContext = context.rewriter.getContext();
  for (const Operand &operand : operands)
    maps.push_back(AffineMap::get(numLoops, 0, operand.indices, mlirContext));
  SmallVector<AffineExpr> result;
  SmallVector<utils::IteratorType> iterators(numLoops,
                                             utils::IteratorType::reduction);
  for (int64_t loop : getKept(pool)) {
    result.push_back(context.rewriter.getAffineDimExpr(loop));
    iterators[loop] = utils::IteratorType::parallel;
  }
  maps.append(2, AffineMap::get(numLoops, 0, result, mlirContext));
  Value channels =
      context.toValue(getSize(context.rewriter, context.loc, pool.data, 1));

  auto locate = [&](ScalarBuilder &scalar) {
    auto loop = [&](int64_t position) -> Value {
      return linalg::IndexOp::create(scalar.builder, scalar.loc, position);
    };
    Value place = scalar.add(scalar.mul(loop(0), channels), loop(1));
    int64_t rank = pool.windows.size();
    Value inner = scalar.index(0), count = scalar.index(1);
    for (int64_t i = 0; i < rank; ++i) {
      // From the slowest dimension to the fastest.
      int64_t axis = columnMajor ? rank - 1 - i : i;
      const Window &window = pool.windows[axis];
      Value step = scalar.mul(loop(pool.getOutputLoop(axis)),
                              scalar.index(window.stride));
      Value within = scalar.mul(loop(pool.getKernelLoop(axis)),
                                scalar.index(window.dilation));
      Value before = nibble::toValue(scalar.builder, scalar.loc, window.before);
      Value size = nibble::toValue(scalar.builder, scalar.loc, window.size);
      Value position = scalar.sub(scalar.add(step, within), before);
      inner = scalar.add(scalar.mul(inner, size), position);
      count = scalar.mul(count, size);
    }
    Value index = scalar.add(scalar.mul(place, count), inner);
    return arith::IndexCastOp::create(scalar.builder, scalar.loc, i64, index)
        .getResult();
  };
  auto fold = linalg::GenericOp::create(
      context.rewriter, context.loc, ValueRange(initial).getTypes(),
      ValueRange{operands[0].tensor, operands[1].tensor}, initial, maps,
      iterators, [&](OpBuilder &builder, Location loc, ValueRange args) {
        ScalarBuilder scalar(builder, loc, isUnsignedElement(pool.element));
        Value x = scalar.decode(args[0], pool.element);
        Value greater = scalar.less(args[2], x);
        linalg::YieldOp::create(
            builder, loc,
            ValueRange{scalar.select(greater, x, args[2]),
                       scalar.select(greater, locate(scalar), args[3])});
      });
  return {fold.getResult(0), fold.getResult(1)};
}

static LogicalResult convertMaxPool(NodeContext &context) {
  Type element = context.getElementType(0);
  auto pool = getPool(context, context.getInput(0), element);
  if (failed(pool))
    return failure();
  if (context.node.getNumResults() > 1 &&
      !context.node.getOutputName(1).empty()) {
    bool columnMajor = context.node.getInt("storage_order", 0) != 0;
    auto [maxima, places] = buildMaxima(context, *pool, columnMajor);
    return context.replace({buildRounded(context, maxima, element), places});
  }
  ScalarBuilder scalar = context.scalar();
  Value lowest = scalar.lowest(element);
  Value maxima = foldWindows(context, *pool, lowest, lowest,
                             [&](ScalarBuilder &body, ValueRange args) {
                               body.isUnsigned = isUnsignedElement(element);
                               return body.max(args[1], args[0]);
                             });
  SmallVector<Value> results{buildRounded(context, maxima, element)};
  if (context.node.getNumResults() > 1)
    results.push_back(
        buildFilled(context, pool->sizes,
                    scalar.integer(context.rewriter.getI64Type(), 0)));
  return context.replace(results);
}

/// Puts each number where the indices say, with zeros elsewhere.
static LogicalResult convertMaxUnpool(NodeContext &context) {
  Value x = context.getInput(0), indices = context.getInput(1);
  RankedTensorType type = context.getInputType(0);
  Sizes own = context.getSizes(x), sizes(own);
  int64_t rank = type.getRank() - 2;
  auto kernel = context.node.getInts("kernel_shape");
  if (rank < 1 || !kernel || static_cast<int64_t>(kernel->size()) != rank)
    return context.fail("expects a kernel size for each spatial dimension");
  auto strides = context.node.getInts("strides");
  auto pads = context.node.getInts("pads");
  if ((strides && static_cast<int64_t>(strides->size()) != rank) ||
      (pads && static_cast<int64_t>(pads->size()) != 2 * rank))
    return context.fail("expects a stride and two pads for each dimension");
  SizeMath math(context);
  // The indices count in the shape that follows from the window, whatever the
  // shape of the result.
  for (int64_t i = 0; i < rank; ++i) {
    OpFoldResult stride = math.constant(strides ? (*strides)[i] : 1);
    int64_t padding = pads ? (*pads)[i] + (*pads)[i + rank] : 0;
    sizes[2 + i] = math.max(
        math.add(math.mul(math.sub(own[2 + i], math.constant(1)), stride),
                 math.constant((*kernel)[i] - padding)),
        math.constant(0));
  }
  Sizes inner(sizes);
  if (!context.isAbsent(2)) {
    auto wanted = getIntegerInput(context, 2, type.getRank());
    if (failed(wanted))
      return failure();
    sizes = *wanted;
    for (int64_t i = 0; i < type.getRank(); ++i)
      if (failed(math.requireLessEqual(inner[i], sizes[i],
                                       "output_shape is too small")))
        return failure();
  }
  OpBuilder &builder = context.rewriter;
  Location loc = context.loc;
  OpFoldResult total = math.product(inner);
  ScalarBuilder scalar = context.scalar();
  int64_t all = type.getRank();
  checkPositions(context, indices, context.getElementType(1), total);
  Sizes indexSizes = context.getSizes(indices);
  for (int64_t i = 0; i < all; ++i)
    if (failed(math.requireEqual(indexSizes[i], own[i],
                                 "the indices have not the input's shape")))
      return failure();

  Value number =
      scalar.encode(scalar.constant(getComputedType(type.getElementType()), 0),
                    type.getElementType());
  Value flat = buildFilled(context, total, number);
  OpFoldResult count = math.product(own);
  Value flatX = buildReshape(context, x, count);
  Value flatIndices = buildReshape(context, indices, count);
  auto loop = scf::ForOp::create(
      builder, loc, scalar.index(0), context.toValue(count), scalar.index(1),
      flat, [&](OpBuilder &nested, Location at, Value i, ValueRange state) {
        Value value = tensor::ExtractOp::create(nested, at, flatX, i);
        Value index = tensor::ExtractOp::create(nested, at, flatIndices, i);
        Value place = arith::IndexCastOp::create(nested, at,
                                                 nested.getIndexType(), index);
        Value next =
            tensor::InsertOp::create(nested, at, value, state[0], place);
        scf::YieldOp::create(nested, at, next);
      });
  Value result = buildReshape(context, loop.getResult(0), inner);
  if (!context.isAbsent(2)) {
    Sizes before(all, math.constant(0)), after;
    for (int64_t i = 0; i < all; ++i)
      after.push_back(math.sub(sizes[i], inner[i]));
    result = buildPadded(context, result, before, after, number);
  }
  return context.replace(result);
}

//===----------------------------------------------------------------------===//
// AveragePool, LpPool
//===----------------------------------------------------------------------===//

/// How many positions of the window along `axis` count, at output `position`:
/// those that lie in the input or, with `includesPadding`, its padding.
static Value countPositions(ScalarBuilder &scalar, const Window &window,
                            Value position, bool includesPadding) {
  auto value = [&](OpFoldResult size) {
    return nibble::toValue(scalar.builder, scalar.loc, size);
  };
  Value before = value(window.before);
  Value end = scalar.add(before, value(window.size));
  Value start = scalar.mul(position, scalar.index(window.stride));
  Value kernel = value(window.kernel), zero = scalar.index(0);
  if (includesPadding)
    end = scalar.add(end, value(window.declaredAfter));
  // The first k with start + k · dilation >= limit.
  auto first = [&](Value limit) {
    Value distance =
        scalar.add(scalar.sub(limit, start), scalar.index(window.dilation - 1));
    Value steps = arith::FloorDivSIOp::create(
        scalar.builder, scalar.loc, distance, scalar.index(window.dilation));
    return scalar.min(scalar.max(steps, zero), kernel);
  };
  return scalar.sub(first(end), first(includesPadding ? zero : before));
}

/// Sums of windows, in computed numbers, over how many elements they are.
static Value divideByCounts(NodeContext &context, const Pool &pool, Value sums,
                            Type computed, bool includesPadding) {
  int64_t rank = pool.sizes.size();
  // Where no window reaches over the border, all counts are the kernel's size.
  bool isPlain = llvm::all_of(pool.windows, [&](const Window &window) {
    return getConstantIntValue(window.before) == 0 &&
           getConstantIntValue(window.after) == 0;
  });
  SizeMath math(context);
  Value full;
  if (isPlain) {
    Sizes kernel;
    for (const Window &window : pool.windows)
      kernel.push_back(window.kernel);
    ScalarBuilder outer = context.scalar();
    full =
        indexToNumber(outer, context.toValue(math.product(kernel)), computed);
  }
  return buildMapped(
      context, makeOperand(context, sums, computed), pool.sizes, computed,
      [&](ScalarBuilder &scalar, ValueRange args) {
        if (full)
          return scalar.div(args[0], full);
        Value count = scalar.index(1);
        for (int64_t axis = 2; axis < rank; ++axis) {
          Value position =
              linalg::IndexOp::create(scalar.builder, scalar.loc, axis);
          count =
              scalar.mul(count, countPositions(scalar, pool.windows[axis - 2],
                                               position, includesPadding));
        }
        return scalar.div(args[0], indexToNumber(scalar, count, computed));
      });
}

static Value sumWindows(NodeContext &context, const Pool &pool,
                        Value (*prepare)(ScalarBuilder &, Value, double),
                        double parameter) {
  Value zero = context.scalar().constant(getComputedType(pool.element), 0);
  return foldWindows(context, pool, zero, zero,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value x = args[0];
                       if (prepare)
                         x = prepare(scalar, x, parameter);
                       return scalar.add(args[1], x);
                     });
}

static LogicalResult convertAveragePool(NodeContext &context) {
  Type element = context.getElementType(0), computed = getComputedType(element);
  auto pool = getPool(context, context.getInput(0), element);
  if (failed(pool))
    return failure();
  Value sums = sumWindows(context, *pool, nullptr, 0);
  Value means =
      divideByCounts(context, *pool, sums, computed,
                     context.node.getInt("count_include_pad", 0) != 0);
  return context.replace(buildRounded(context, means, element));
}

/// The elements of `tensor` as the f32 numbers that they stand for.
static Value buildDequantized(NodeContext &context, Value tensor,
                              const LinearCode &code) {
  return buildMapped(context, makeOperand(context, tensor, code.element),
                     context.getSizes(tensor), context.rewriter.getF32Type(),
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       return code.dequantize(scalar, args[0]);
                     });
}

static Value buildQuantized(NodeContext &context, Value tensor,
                            const LinearCode &code) {
  return buildMapped(
      context, makeOperand(context, tensor, context.rewriter.getF32Type()),
      context.getSizes(tensor), code.element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        return code.quantize(scalar, args[0]);
      });
}

/// AveragePool on codes. Inputs: x, its scale and zero point, and those of the
/// result. With `channels_last` the channels are the last dimension.
static LogicalResult convertQLinearAveragePool(NodeContext &context) {
  Type element = context.getElementType(0), f32 = context.rewriter.getF32Type();
  auto from = getLinearCode(context, element, 1, 2);
  auto to = getLinearCode(context, element, 3, 4);
  if (failed(from) || failed(to))
    return failure();
  int64_t last = context.getInputType(0).getRank() - 1;
  bool channelsLast = context.node.getInt("channels_last", 0) != 0;
  Value x = buildDequantized(context, context.getInput(0), *from);
  if (channelsLast && last > 0)
    x = moveDimension(context, x, last, 1);
  auto pool = getPool(context, x, f32);
  if (failed(pool))
    return failure();
  Value sums = sumWindows(context, *pool, nullptr, 0);
  Value means =
      divideByCounts(context, *pool, sums, f32,
                     context.node.getInt("count_include_pad", 0) != 0);
  Value codes = buildQuantized(context, means, *to);
  if (channelsLast)
    codes = moveDimension(context, codes, 1, last);
  return context.replace(codes);
}

/// The same over all spatial dimensions, summed in i32.
static LogicalResult convertQLinearGlobalAveragePool(NodeContext &context) {
  Type element = context.getElementType(0), f32 = context.rewriter.getF32Type();
  Type i32 = context.rewriter.getI32Type();
  auto from = getLinearCode(context, element, 1, 2);
  auto to = getLinearCode(context, element, 3, 4);
  if (failed(from) || failed(to))
    return failure();
  Value x = context.getInput(0);
  int64_t rank = context.getInputType(0).getRank();
  if (rank < 3)
    return context.fail("expects an input [N, C, spatial…]");
  bool channelsLast = context.node.getInt("channels_last", 0) != 0;
  SmallVector<int64_t> axes =
      llvm::to_vector(channelsLast ? llvm::seq<int64_t>(1, rank - 1)
                                   : llvm::seq<int64_t>(2, rank));
  Sizes own = context.getSizes(x), folded;
  for (int64_t axis : axes)
    folded.push_back(own[axis]);
  Sizes outer = dropAxes(context, x, axes, /*keep=*/false);
  ScalarBuilder scalar = context.scalar();
  Value sums = buildFolded(
      context, makeOperand(context, x, element), rank, getOtherAxes(rank, axes),
      buildFilled(context, outer, scalar.integer(i32, 0)),
      [&](ScalarBuilder &body, ValueRange args) {
        return body.add(args[1], from->center(body, args[0]));
      });
  Value count = indexToNumber(
      scalar, context.toValue(SizeMath(context).product(folded)), f32);
  Value codes =
      buildMapped(context, makeOperand(context, sums, i32), outer, element,
                  [&](ScalarBuilder &body, ValueRange args) {
                    Value number =
                        body.mul(body.convert(args[0], i32, f32), from->scale);
                    return to->quantize(body, body.div(number, count));
                  });
  return context.replace(
      buildReshape(context, codes, dropAxes(context, x, axes, /*keep=*/true)));
}

/// |x|^p
static Value buildPower(ScalarBuilder &scalar, Value x, double p) {
  Value magnitude = scalar.abs(x);
  if (p == 1)
    return magnitude;
  if (p == 2)
    return scalar.mul(x, x);
  return math::PowFOp::create(scalar.builder, scalar.loc, magnitude,
                              scalar.constant(x.getType(), p));
}

/// The p-th root of a sum of p-th powers.
static Value buildRoot(ScalarBuilder &scalar, Value x, double p) {
  if (p == 1)
    return x;
  if (p == 2)
    return math::SqrtOp::create(scalar.builder, scalar.loc, x);
  return math::PowFOp::create(scalar.builder, scalar.loc, x,
                              scalar.constant(x.getType(), 1 / p));
}

/// p is an integer, and a float in version 1.
static double getExponent(NodeContext &context) {
  return context.version < 2 ? context.node.getFloat("p", 2)
                             : context.node.getInt("p", 2);
}

static LogicalResult convertLpPool(NodeContext &context) {
  Type element = context.getElementType(0), computed = getComputedType(element);
  auto pool = getPool(context, context.getInput(0), element);
  if (failed(pool))
    return failure();
  double p = getExponent(context);
  Value sums = sumWindows(context, *pool, buildPower, p);
  return context.replace(
      buildMapped(context, makeOperand(context, sums, computed), pool->sizes,
                  element, [&](ScalarBuilder &scalar, ValueRange args) {
                    return buildRoot(scalar, args[0], p);
                  }));
}

//===----------------------------------------------------------------------===//
// Global pools
//===----------------------------------------------------------------------===//

enum class GlobalPool { Average, Maximum, Power };

static LogicalResult convertGlobalPool(NodeContext &context, GlobalPool kind) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0), computed = getComputedType(element);
  int64_t rank = context.getInputType(0).getRank();
  if (rank < 2)
    return context.fail("expects an input [N, C, spatial…]");
  SmallVector<int64_t> axes = llvm::to_vector(llvm::seq<int64_t>(2, rank));
  Sizes outer = dropAxes(context, x, axes, /*keep=*/false);
  Operand operand = makeOperand(context, x, element);
  ScalarBuilder scalar = context.scalar();
  double p = getExponent(context);
  Value folded;
  if (kind == GlobalPool::Average) {
    folded =
        buildMeanOver(context, operand, context.getSizes(x), axes, computed,
                      [](ScalarBuilder &, ValueRange args) { return args[0]; });
  } else {
    Value initial = kind == GlobalPool::Maximum ? scalar.lowest(element)
                                                : scalar.constant(computed, 0);
    folded = buildFolded(
        context, operand, rank, {0, 1}, buildFilled(context, outer, initial),
        [&](ScalarBuilder &body, ValueRange args) {
          body.isUnsigned = isUnsignedElement(element);
          if (kind == GlobalPool::Maximum)
            return body.max(args[1], args[0]);
          return body.add(args[1], buildPower(body, args[0], p));
        });
  }
  Value result =
      buildMapped(context, makeOperand(context, folded, computed), outer,
                  element, [&](ScalarBuilder &body, ValueRange args) {
                    return kind == GlobalPool::Power
                               ? buildRoot(body, args[0], p)
                               : args[0];
                  });
  return context.replace(
      buildReshape(context, result, dropAxes(context, x, axes, /*keep=*/true)));
}

void nibble::addPoolingConversions(NodeConversions &conversions) {
  conversions.add("MaxPool", 1, convertMaxPool);
  conversions.add("AveragePool", 1, convertAveragePool);
  conversions.add("LpPool", 1, convertLpPool);
  conversions.add("MaxUnpool", 9, convertMaxUnpool);
  StringRef microsoft = "com.microsoft";
  conversions.add(microsoft, "QLinearAveragePool", 1,
                  convertQLinearAveragePool);
  conversions.add(microsoft, "QLinearGlobalAveragePool", 1,
                  convertQLinearGlobalAveragePool);
  auto addGlobal = [&](StringRef opType, GlobalPool kind) {
    conversions.add(opType, 1, [kind](NodeContext &context) {
      return convertGlobalPool(context, kind);
    });
  };
  addGlobal("GlobalAveragePool", GlobalPool::Average);
  addGlobal("GlobalMaxPool", GlobalPool::Maximum);
  addGlobal("GlobalLpPool", GlobalPool::Power);
}
