//===- Sampling.cpp - Nodes that read between the elements ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Coordinates that a tensor holds say where to read. No coordinate, not a
// number either, reads outside of the input: indices are clamped and what lies
// outside is replaced afterwards.
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

static Value toIndex(ScalarBuilder &scalar, Value number) {
  Type i64 = scalar.builder.getI64Type();
  Value integer = scalar.convert(number, number.getType(), i64);
  return arith::IndexCastOp::create(scalar.builder, scalar.loc,
                                    scalar.builder.getIndexType(), integer);
}

template <typename Op> static Value apply(ScalarBuilder &scalar, Value x) {
  return Op::create(scalar.builder, scalar.loc, x);
}

static Value getLoop(ScalarBuilder &scalar, int64_t loop) {
  return linalg::IndexOp::create(scalar.builder, scalar.loc, loop);
}

static Value getValue(ScalarBuilder &scalar, OpFoldResult size) {
  return nibble::toValue(scalar.builder, scalar.loc, size);
}

static Value buildAnd(ScalarBuilder &scalar, Value a, Value b) {
  return arith::AndIOp::create(scalar.builder, scalar.loc, a, b);
}

static Value isInside(ScalarBuilder &scalar, Value index, Value size) {
  return arith::CmpIOp::create(scalar.builder, scalar.loc,
                               arith::CmpIPredicate::ult, index, size);
}

static Value clamp(ScalarBuilder &scalar, Value x, Value low, Value high) {
  return scalar.min(scalar.max(x, low), high);
}

/// Element `leading`, `places` of a tensor, or 0 where a place lies outside.
static Value readOrZero(ScalarBuilder &scalar, Value tensor, Type element,
                        ValueRange leading, ArrayRef<Value> places,
                        ArrayRef<Value> sizes) {
  Value inside = scalar.boolean(true), zero = scalar.index(0);
  SmallVector<Value> source(leading);
  for (auto [place, size] : llvm::zip(places, sizes)) {
    Value fits = isInside(scalar, place, size);
    inside = buildAnd(scalar, inside, fits);
    source.push_back(scalar.select(fits, place, zero));
  }
  Value number = extractNumber(scalar, tensor, element, source);
  return scalar.select(inside, number, scalar.constant(number.getType(), 0));
}

/// Sum over all corners of the weights' product times what `read` gives for
/// the corner. By dimension: the place of the first tap and the weights.
static Value sumCorners(ScalarBuilder &scalar, ArrayRef<Value> firsts,
                        ArrayRef<SmallVector<Value>> weights,
                        llvm::function_ref<Value(ArrayRef<Value>)> read,
                        ArrayRef<Value> places = {}) {
  size_t axis = places.size();
  if (axis == firsts.size())
    return read(places);
  Value sum;
  for (auto [tap, weight] : llvm::enumerate(weights[axis])) {
    SmallVector<Value> next(places);
    next.push_back(scalar.add(firsts[axis], scalar.index(tap)));
    Value inner = sumCorners(scalar, firsts, weights, read, next);
    Value term = scalar.mul(weight, inner);
    sum = sum ? scalar.add(sum, term) : term;
  }
  return sum;
}

/// Every spatial dimension of `tensor` has elements.
static LogicalResult requireElements(NodeContext &context, Value tensor) {
  SizeMath math(context);
  for (OpFoldResult size : ArrayRef(context.getSizes(tensor)).drop_front(2))
    if (failed(math.requireLessEqual(math.constant(1), size,
                                     "has no elements to sample")))
      return failure();
  return success();
}

//===----------------------------------------------------------------------===//
// GridSample
//===----------------------------------------------------------------------===//

namespace {
enum class Border { Zeros, Clamp, Reflect };

struct GridSampling {
  enum { Nearest, Linear, Cubic } mode;
  Border border;
  bool alignsCorners;
};
} // namespace

/// Reflects x at `low` and `high` until it lies between them.
static Value reflect(ScalarBuilder &scalar, Value x, Value low, Value high) {
  Type type = x.getType();
  Value zero = scalar.constant(type, 0), two = scalar.constant(type, 2);
  Value range = scalar.sub(high, low);
  Value isPoint = scalar.lessEqual(range, zero);
  Value step = scalar.select(isPoint, scalar.constant(type, 1), range);
  Value below = scalar.less(x, low);
  Value distance =
      scalar.select(below, scalar.sub(low, x), scalar.sub(x, high));
  Value times = apply<math::FloorOp>(scalar, scalar.div(distance, step));
  Value rest = scalar.sub(distance, scalar.mul(times, step));
  Value half = apply<math::FloorOp>(scalar, scalar.div(times, two));
  Value even = scalar.equal(scalar.mul(half, two), times);
  // Even: from the border that was crossed; odd: from the other one.
  Value fromLow = arith::CmpIOp::create(scalar.builder, scalar.loc,
                                        arith::CmpIPredicate::eq, below, even);
  Value reflected =
      scalar.select(fromLow, scalar.add(low, rest), scalar.sub(high, rest));
  Value outside = arith::OrIOp::create(scalar.builder, scalar.loc, below,
                                       scalar.less(high, x));
  Value result = scalar.select(outside, reflected, x);
  return scalar.select(isPoint, low, result);
}

namespace {
/// One spatial dimension while it is sampled.
struct SampledAxis {
  Value size, low, high;
};
} // namespace

/// The weights of the taps at floor(x) and after it (linear), or around it
/// (cubic), for x at `ratio` behind its floor.
static SmallVector<Value> getTapWeights(ScalarBuilder &scalar, Value ratio,
                                        bool cubic) {
  Type type = ratio.getType();
  auto constant = [&](double value) { return scalar.constant(type, value); };
  if (!cubic)
    return {scalar.sub(constant(1), ratio), ratio};
  // Keys' cubic convolution with -0.75.
  const double a = -0.75;
  SmallVector<Value> weights;
  for (int tap = 0; tap < 4; ++tap) {
    Value x = scalar.abs(scalar.sub(ratio, constant(tap - 1)));
    bool inner = tap == 1 || tap == 2;
    double c[4] = {-4 * a, 8 * a, -5 * a, a};
    if (inner) {
      c[0] = 1;
      c[1] = 0;
      c[2] = -(a + 3);
      c[3] = a + 2;
    }
    Value sum = constant(c[3]);
    for (int power = 2; power >= 0; --power)
      sum = scalar.add(scalar.mul(sum, x), constant(c[power]));
    weights.push_back(sum);
  }
  return weights;
}

static FailureOr<GridSampling> getGridSampling(NodeContext &context) {
  StringRef mode = context.node.getString("mode", "linear");
  StringRef border = context.node.getString("padding_mode", "zeros");
  GridSampling result{GridSampling::Linear, Border::Zeros,
                      context.node.getInt("align_corners", 0) != 0};
  if (mode == "nearest")
    result.mode = GridSampling::Nearest;
  else if (mode == "cubic" || mode == "bicubic")
    result.mode = GridSampling::Cubic;
  else if (mode != "linear" && mode != "bilinear")
    return context.fail("has the unknown mode '" + mode + "'");
  if (border == "border")
    result.border = Border::Clamp;
  else if (border == "reflection")
    result.border = Border::Reflect;
  else if (border != "zeros")
    return context.fail("has the unknown padding_mode '" + border + "'");
  return result;
}

static LogicalResult convertGridSample(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank(), spatial = rank - 2;
  auto sampling = getGridSampling(context);
  if (failed(sampling))
    return failure();
  Value data = context.getInput(0), grid = context.getInput(1);
  if (rank < 3 || context.getInputType(1).getRank() != rank)
    return context.fail("expects an input [N, C, spatial…] and a grid of the "
                        "same number of dimensions");
  SizeMath math(context);
  Sizes sizes = context.getSizes(data), gridSizes = context.getSizes(grid);
  if (failed(math.requireEqual(gridSizes.back(), math.constant(spatial),
                               "the grid has not a coordinate for each "
                               "spatial dimension")) ||
      failed(math.requireEqual(gridSizes[0], sizes[0],
                               "the grid has not the input's batch")) ||
      failed(requireElements(context, data)))
    return failure();
  Sizes result{sizes[0], sizes[1]};
  result.append(gridSizes.begin() + 1, gridSizes.end() - 1);
  Type element = type.getElementType(), computed = getComputedType(element);
  Type gridElement = context.getElementType(1);
  Type coordinate = getComputedType(gridElement);

  auto sample = [&](ScalarBuilder &scalar, ValueRange) -> Value {
    auto constant = [&](double value) {
      return scalar.constant(coordinate, value);
    };
    SmallVector<Value> loops, firsts;
    for (int64_t i = 0; i < rank; ++i)
      loops.push_back(getLoop(scalar, i));
    SmallVector<SampledAxis> axes;
    SmallVector<SmallVector<Value>> weights;
    for (int64_t axis = 0; axis < spatial; ++axis) {
      Value size = getValue(scalar, sizes[2 + axis]);
      Value length = indexToNumber(scalar, size, coordinate);
      // The last coordinate belongs to the first spatial dimension.
      SmallVector<Value> at{loops[0]};
      at.append(loops.begin() + 2, loops.end());
      at.push_back(scalar.index(spatial - 1 - axis));
      Value n = extractNumber(scalar, grid, gridElement, at);
      Value fromOne = scalar.add(n, constant(1)), x;
      SampledAxis sampled{size, constant(0), scalar.sub(length, constant(1))};
      if (sampling->alignsCorners) {
        x = scalar.mul(scalar.div(fromOne, constant(2)), sampled.high);
      } else {
        x = scalar.div(scalar.sub(scalar.mul(fromOne, length), constant(1)),
                       constant(2));
        sampled.low = constant(-0.5);
        sampled.high = scalar.sub(length, constant(0.5));
      }
      if (sampling->mode == GridSampling::Nearest)
        x = apply<math::RoundEvenOp>(scalar, x);
      // The taps of a cubic are clamped each, not its coordinate.
      if (sampling->border == Border::Clamp &&
          sampling->mode != GridSampling::Cubic) {
        Value outside = arith::OrIOp::create(scalar.builder, scalar.loc,
                                             scalar.less(x, sampled.low),
                                             scalar.less(sampled.high, x));
        x = scalar.select(
            outside,
            clamp(scalar, x, constant(0), scalar.sub(length, constant(1))), x);
      } else if (sampling->border == Border::Reflect) {
        x = reflect(scalar, x, sampled.low, sampled.high);
      }
      axes.push_back(sampled);
      if (sampling->mode == GridSampling::Nearest) {
        firsts.push_back(toIndex(scalar, x));
        weights.push_back({scalar.constant(computed, 1)});
        continue;
      }
      Value floor = apply<math::FloorOp>(scalar, x);
      bool cubic = sampling->mode == GridSampling::Cubic;
      Value first = toIndex(scalar, floor);
      if (cubic)
        first = scalar.sub(first, scalar.index(1));
      firsts.push_back(first);
      weights.push_back(getTapWeights(scalar, scalar.sub(x, floor), cubic));
      for (Value &weight : weights.back())
        weight = scalar.convert(weight, coordinate, computed);
    }
    auto read = [&](ArrayRef<Value> given) -> Value {
      SmallVector<Value> places(given), extents;
      for (auto [place, axis] : llvm::zip(places, axes)) {
        extents.push_back(axis.size);
        Value last = scalar.sub(axis.size, scalar.index(1));
        if (sampling->border == Border::Reflect)
          place = toIndex(
              scalar, reflect(scalar, indexToNumber(scalar, place, coordinate),
                              axis.low, axis.high));
        if (sampling->border != Border::Zeros)
          place = clamp(scalar, place, scalar.index(0), last);
      }
      Value number = readOrZero(scalar, data, element, {loops[0], loops[1]},
                                places, extents);
      return scalar.convert(number, element, computed);
    };
    if (sampling->mode == GridSampling::Nearest)
      return read(firsts);
    return sumCorners(scalar, firsts, weights, read);
  };
  if (isa<FloatType>(computed) || sampling->mode == GridSampling::Nearest)
    return context.replace(buildMapped(context, {}, result, element, sample));
  return context.fail("interpolates floats only");
}

/// The grid that GridSample takes for an affine map: theta · (x, y, 1).
static LogicalResult convertAffineGrid(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  RankedTensorType sizeType = context.getInputType(1);
  if (type.getRank() != 3 || sizeType.getRank() != 1 ||
      (sizeType.getDimSize(0) != 4 && sizeType.getDimSize(0) != 5))
    return context.fail("expects theta [N, rank, rank + 1] and four or five "
                        "sizes");
  int64_t spatial = sizeType.getDimSize(0) - 2;
  Value theta = context.getInput(0), given = context.getInput(1);
  auto known = context.getConstantInts(1);
  SizeMath math(context);
  Sizes own = context.getSizes(theta), sizes;
  for (int64_t i = 0; i < spatial + 2; ++i)
    sizes.push_back(known ? math.constant((*known)[i])
                          : OpFoldResult(context.extractIndex(given, i)));
  if (failed(math.requireEqual(own[0], sizes[0],
                               "theta has not as many maps as the batch")) ||
      failed(math.requireEqual(own[1], math.constant(spatial),
                               "theta has not a row for each dimension")) ||
      failed(math.requireEqual(own[2], math.constant(spatial + 1),
                               "theta has not the columns of an affine map")))
    return failure();
  for (OpFoldResult size : sizes)
    if (failed(math.requireLessEqual(math.constant(0), size,
                                     "expects sizes that are not negative")))
      return failure();
  sizes.erase(sizes.begin() + 1);
  sizes.push_back(math.constant(spatial));
  bool aligns = context.node.getInt("align_corners", 0) != 0;
  Type element = type.getElementType(), computed = getComputedType(element);
  return context.replace(buildMapped(
      context, {}, sizes, element, [&](ScalarBuilder &scalar, ValueRange) {
        auto constant = [&](double value) {
          return scalar.constant(computed, value);
        };
        Value n = getLoop(scalar, 0), row = getLoop(scalar, spatial + 1);
        Value sum = extractNumber(scalar, theta, element,
                                  {n, row, scalar.index(spatial)});
        for (int64_t axis = 0; axis < spatial; ++axis) {
          Value length = indexToNumber(
              scalar, getValue(scalar, sizes[1 + axis]), computed);
          Value i = indexToNumber(scalar, getLoop(scalar, 1 + axis), computed);
          Value steps =
              aligns ? scalar.max(scalar.sub(length, constant(1)), constant(1))
                     : length;
          if (!aligns)
            i = scalar.add(i, constant(0.5));
          Value place = scalar.sub(
              scalar.div(scalar.mul(i, constant(2)), steps), constant(1));
          // The first column belongs to the last dimension.
          Value factor =
              extractNumber(scalar, theta, element,
                            {n, row, scalar.index(spatial - 1 - axis)});
          sum = scalar.add(sum, scalar.mul(factor, place));
        }
        return sum;
      }));
}

//===----------------------------------------------------------------------===//
// RoiAlign
//===----------------------------------------------------------------------===//

/// floor(x) and the element after it with their weights, for an x in [-1,
/// size].
static std::pair<SmallVector<Value>, SmallVector<Value>>
getNeighbours(ScalarBuilder &scalar, Value x, Value size) {
  Type type = x.getType();
  Value zero = scalar.constant(type, 0), one = scalar.constant(type, 1);
  Value last = scalar.sub(size, scalar.index(1));
  x = clamp(scalar, x, zero, indexToNumber(scalar, last, type));
  Value floor = apply<math::FloorOp>(scalar, x);
  Value low = clamp(scalar, toIndex(scalar, floor), scalar.index(0), last);
  Value high = scalar.min(scalar.add(low, scalar.index(1)), last);
  Value ratio = scalar.sub(x, floor);
  return {{low, high}, {scalar.sub(one, ratio), ratio}};
}

static LogicalResult convertRoiAlign(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  NodeOp node = context.node;
  if (type.getRank() != 4 || context.getInputType(1).getRank() != 2 ||
      context.getInputType(2).getRank() != 1)
    return context.fail("expects an input [N, C, H, W], regions [R, 4] and "
                        "batch indices [R]");
  int64_t height = node.getInt("output_height", 1);
  int64_t width = node.getInt("output_width", 1);
  int64_t ratio = node.getInt("sampling_ratio", 0);
  if (height < 1 || width < 1 || ratio < 0)
    return context.fail("expects a positive output size and sampling_ratio");
  StringRef mode = node.getString("mode", "avg");
  if (mode != "avg" && mode != "max")
    return context.fail("has the unknown mode '" + mode + "'");
  bool isMax = mode == "max";
  // Until version 15 there was no half pixel.
  bool halfPixel =
      context.version >= 16 && node.getString("coordinate_transformation_mode",
                                              "half_pixel") == "half_pixel";
  Value data = context.getInput(0), regions = context.getInput(1);
  Value batches = context.getInput(2);
  SizeMath math(context);
  Sizes own = context.getSizes(data), regionSizes = context.getSizes(regions);
  OpFoldResult count = getSize(context.rewriter, context.loc, batches, 0);
  if (failed(math.requireEqual(regionSizes[0], count,
                               "there is not one batch index a region")) ||
      failed(math.requireEqual(regionSizes[1], math.constant(4),
                               "regions have four coordinates")) ||
      failed(requireElements(context, data)))
    return failure();
  checkPositions(context, batches, context.getElementType(2), own[0]);
  Type element = type.getElementType(), computed = getComputedType(element);
  Type regionElement = context.getElementType(1);
  Sizes sizes{count, own[1], math.constant(height), math.constant(width)};
  double scale = node.getFloat("spatial_scale", 1);

  return context.replace(buildMapped(
      context, {}, sizes, element, [&](ScalarBuilder &scalar, ValueRange) {
        auto constant = [&](double value) {
          return scalar.constant(computed, value);
        };
        Value region = getLoop(scalar, 0), channel = getLoop(scalar, 1);
        Value batch = arith::IndexCastOp::create(
            scalar.builder, scalar.loc, scalar.builder.getIndexType(),
            tensor::ExtractOp::create(scalar.builder, scalar.loc, batches,
                                      region));
        auto corner = [&](int64_t position) {
          Value x = extractNumber(scalar, regions, regionElement,
                                  {region, scalar.index(position)});
          x = scalar.convert(x, regionElement, computed);
          x = scalar.mul(x, constant(scale));
          return halfPixel ? scalar.sub(x, constant(0.5)) : x;
        };
        // By dimension: where samples start, how far apart, how many.
        Value starts[2], bins[2], extents[2], counts[2], wide[2];
        for (int axis = 0; axis < 2; ++axis) {
          Value start = corner(1 - axis);
          Value length = scalar.sub(corner(3 - axis), start);
          if (!halfPixel)
            length = scalar.max(length, constant(1));
          Value pooled = constant(axis == 0 ? height : width);
          bins[axis] = scalar.div(length, pooled);
          counts[axis] =
              ratio > 0
                  ? scalar.index(ratio)
                  : toIndex(scalar, apply<math::CeilOp>(scalar, bins[axis]));
          counts[axis] = scalar.max(counts[axis], scalar.index(0));
          wide[axis] = indexToNumber(scalar, counts[axis], computed);
          Value position =
              indexToNumber(scalar, getLoop(scalar, 2 + axis), computed);
          starts[axis] = scalar.add(start, scalar.mul(position, bins[axis]));
          extents[axis] = getValue(scalar, own[2 + axis]);
        }
        auto sample = [&](ScalarBuilder &body, ValueRange places, Value soFar) {
          Value inside = body.boolean(true);
          SmallVector<Value> weights[2], neighbours[2];
          for (int axis = 0; axis < 2; ++axis) {
            Value step = body.add(indexToNumber(body, places[axis], computed),
                                  body.constant(computed, 0.5));
            Value x = body.add(
                starts[axis], body.div(body.mul(step, bins[axis]), wide[axis]));
            Value limit = indexToNumber(body, extents[axis], computed);
            inside = buildAnd(
                body, inside,
                buildAnd(body, body.lessEqual(body.constant(computed, -1), x),
                         body.lessEqual(x, limit)));
            std::tie(neighbours[axis], weights[axis]) =
                getNeighbours(body, x, extents[axis]);
          }
          Value result;
          for (int corner = 0; corner < 4; ++corner) {
            int row = corner / 2, column = corner % 2;
            Value number = extractNumber(
                body, data, element,
                {batch, channel, neighbours[0][row], neighbours[1][column]});
            Value term =
                body.mul(body.mul(weights[0][row], weights[1][column]), number);
            if (!result)
              result = term;
            else
              result = isMax ? body.max(result, term) : body.add(result, term);
          }
          result = body.select(inside, result, body.constant(computed, 0));
          return isMax ? body.max(soFar, result) : body.add(soFar, result);
        };
        Value zero = scalar.index(0), one = scalar.index(1);
        Value initial =
            isMax ? scalar.infinity(computed, /*negative=*/true) : constant(0);
        auto rows = scf::ForOp::create(
            scalar.builder, scalar.loc, zero, counts[0], one, initial,
            [&](OpBuilder &builder, Location loc, Value y, ValueRange state) {
              auto columns = scf::ForOp::create(
                  builder, loc, zero, counts[1], one, state,
                  [&](OpBuilder &inner, Location at, Value x,
                      ValueRange innerState) {
                    ScalarBuilder body(inner, at);
                    scf::YieldOp::create(inner, at,
                                         sample(body, {y, x}, innerState[0]));
                  });
              scf::YieldOp::create(builder, loc, columns.getResults());
            });
        Value result = rows.getResult(0);
        Value samples = scalar.mul(counts[0], counts[1]);
        if (isMax)
          return scalar.select(scalar.isZero(samples), constant(0), result);
        return scalar.div(
            result, indexToNumber(scalar, scalar.max(samples, one), computed));
      }));
}

//===----------------------------------------------------------------------===//
// DeformConv
//===----------------------------------------------------------------------===//

/// A convolution whose taps read where the input `offset` moves them, and are
/// scaled by the input `mask`.
static LogicalResult convertDeformConv(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank(), spatial = rank - 2;
  if (rank < 3 || context.getInputType(1).getRank() != rank ||
      context.getInputType(2).getRank() != rank)
    return context.fail("expects an input [N, C, spatial…], a weight and "
                        "offsets of the same number of dimensions");
  NodeOp node = context.node;
  int64_t groups = node.getInt("group", 1);
  int64_t offsetGroups = node.getInt("offset_group", 1);
  if (groups < 1 || offsetGroups < 1)
    return context.fail("group and offset_group must be positive");
  Value data = context.getInput(0), weight = context.getInput(1);
  Value offset = context.getInput(2), mask;
  if (!context.isAbsent(4))
    mask = context.getInput(4);
  SizeMath math(context);
  Sizes own = context.getSizes(data), filter = context.getSizes(weight);
  Sizes offsetSizes = context.getSizes(offset);
  Sizes kernel(filter.begin() + 2, filter.end());
  auto windows = getWindows(context, ArrayRef(own).drop_front(2), kernel);
  if (failed(windows))
    return failure();
  OpFoldResult taps = math.product(kernel);
  OpFoldResult outputs = math.floorDiv(filter[0], math.constant(groups));
  OpFoldResult inputs = math.floorDiv(own[1], math.constant(offsetGroups));
  Sizes sizes{own[0], filter[0]};
  for (const Window &window : *windows)
    sizes.push_back(window.count);
  Sizes expected{own[0], math.mul(math.mul(taps, math.constant(spatial)),
                                  math.constant(offsetGroups))};
  expected.append(sizes.begin() + 2, sizes.end());
  for (auto [found, wanted] : llvm::zip(offsetSizes, expected))
    if (failed(math.requireEqual(found, wanted,
                                 "the offsets have not the expected shape")))
      return failure();
  if (mask) {
    expected[1] = math.mul(taps, math.constant(offsetGroups));
    for (auto [found, wanted] : llvm::zip(context.getSizes(mask), expected))
      if (failed(math.requireEqual(found, wanted,
                                   "the mask has not the expected shape")))
        return failure();
  }
  if (failed(math.requireEqual(
          own[1], math.mul(filter[1], math.constant(groups)),
          "the input's channels are not those of the weight")) ||
      failed(math.requireEqual(math.mul(outputs, math.constant(groups)),
                               filter[0],
                               "the weight's channels are no multiple of "
                               "group")) ||
      failed(math.requireEqual(math.mul(inputs, math.constant(offsetGroups)),
                               own[1],
                               "the channels are no multiple of "
                               "offset_group")) ||
      failed(requireElements(context, data)))
    return failure();

  // Loops: n, m, outputs…, c, kernel….
  Type element = type.getElementType(), computed = getComputedType(element);
  ScalarBuilder outer = context.scalar();
  Value initial;
  if (context.isAbsent(3)) {
    initial = buildFilled(context, sizes, outer.constant(computed, 0));
  } else {
    Value bias = context.getInput(3);
    if (context.getInputType(3).getRank() != 1 ||
        failed(math.requireEqual(
            getSize(context.rewriter, context.loc, bias, 0), filter[0],
            "the bias has not one number for each output channel")))
      return context.fail("expects a bias of one dimension");
    initial = buildMapped(
        context, makeOperand(context, bias, element, 1), sizes, computed,
        [](ScalarBuilder &, ValueRange args) { return args[0]; });
  }
  SmallVector<int64_t> kept = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  SmallVector<int64_t> weightLoops{1, rank};
  for (int64_t i = 0; i < spatial; ++i)
    weightLoops.push_back(rank + 1 + i);
  Type offsetElement = context.getElementType(2);
  Value sums = buildFolded(
      context,
      makeOperand(context, weight, context.getElementType(1), weightLoops),
      2 * rank - 1, kept, initial, [&](ScalarBuilder &scalar, ValueRange args) {
        auto divide = [&](Value a, OpFoldResult b) -> Value {
          return arith::DivUIOp::create(scalar.builder, scalar.loc, a,
                                        getValue(scalar, b));
        };
        Value n = getLoop(scalar, 0),
              group = divide(getLoop(scalar, 1), outputs);
        Value channel =
            scalar.add(scalar.mul(group, getValue(scalar, filter[1])),
                       getLoop(scalar, rank));
        Value tap = scalar.index(0);
        for (int64_t i = 0; i < spatial; ++i)
          tap = scalar.add(scalar.mul(tap, getValue(scalar, kernel[i])),
                           getLoop(scalar, rank + 1 + i));
        tap = scalar.add(
            scalar.mul(divide(channel, inputs), getValue(scalar, taps)), tap);
        auto read = [&](Value tensor, Value row) {
          SmallVector<Value> at{n, row};
          for (int64_t i = 0; i < spatial; ++i)
            at.push_back(getLoop(scalar, 2 + i));
          return extractNumber(scalar, tensor, offsetElement, at);
        };
        SmallVector<Value> firsts, extents;
        SmallVector<SmallVector<Value>> weights;
        for (int64_t i = 0; i < spatial; ++i) {
          const Window &window = (*windows)[i];
          Value place =
              scalar.sub(scalar.add(scalar.mul(getLoop(scalar, 2 + i),
                                               scalar.index(window.stride)),
                                    scalar.mul(getLoop(scalar, rank + 1 + i),
                                               scalar.index(window.dilation))),
                         getValue(scalar, window.before));
          Value row = scalar.add(scalar.mul(tap, scalar.index(spatial)),
                                 scalar.index(i));
          Value moved =
              scalar.convert(read(offset, row), offsetElement, computed);
          Value x = scalar.add(indexToNumber(scalar, place, computed), moved);
          Value floor = apply<math::FloorOp>(scalar, x);
          firsts.push_back(toIndex(scalar, floor));
          weights.push_back(
              getTapWeights(scalar, scalar.sub(x, floor), /*cubic=*/false));
          extents.push_back(getValue(scalar, own[2 + i]));
        }
        Value number =
            sumCorners(scalar, firsts, weights, [&](ArrayRef<Value> places) {
              return readOrZero(scalar, data, element, {n, channel}, places,
                                extents);
            });
        Value term = scalar.mul(number, args[0]);
        if (mask)
          term = scalar.mul(
              term, scalar.convert(read(mask, tap), offsetElement, computed));
        return scalar.add(args[1], term);
      });
  return context.replace(buildCast(context, sums, computed, element));
}

//===----------------------------------------------------------------------===//
// Col2Im
//===----------------------------------------------------------------------===//

/// Adds up the columns [N, C · block, places] of overlapping blocks: every
/// element of the image collects what the blocks have for it.
static LogicalResult convertCol2Im(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  RankedTensorType imageType = context.getInputType(1);
  RankedTensorType blockType = context.getInputType(2);
  if (type.getRank() != 3 || imageType.getRank() != 1 ||
      blockType.getRank() != 1 || !imageType.hasStaticShape() ||
      imageType.getShape() != blockType.getShape())
    return context.fail("expects columns of three dimensions, and as many "
                        "image as block sizes");
  int64_t spatial = imageType.getDimSize(0);
  SizeMath math(context);
  auto imageSizes = getIntegerInput(context, 1, spatial);
  auto blockSizes = getIntegerInput(context, 2, spatial);
  if (failed(imageSizes) || failed(blockSizes))
    return failure();
  Sizes image = *imageSizes, block = *blockSizes;
  for (OpFoldResult size : image)
    if (failed(math.requireLessEqual(math.constant(0), size,
                                     "expects sizes that are not negative")))
      return failure();
  for (OpFoldResult size : block)
    if (failed(math.requireLessEqual(math.constant(1), size,
                                     "expects positive block sizes")))
      return failure();
  auto windows = getWindows(context, image, block);
  if (failed(windows))
    return failure();
  Value data = context.getInput(0);
  Sizes own = context.getSizes(data), places;
  for (const Window &window : *windows)
    places.push_back(window.count);
  OpFoldResult taps = math.product(block);
  OpFoldResult channels = math.floorDiv(own[1], taps);
  if (failed(math.requireEqual(math.product(places), own[2],
                               "the columns are not those of the image")) ||
      failed(math.requireEqual(math.mul(channels, taps), own[1],
                               "the rows are no multiple of the block")))
    return failure();
  Sizes sizes{own[0], channels};
  llvm::append_range(sizes, image);
  Type element = type.getElementType(), computed = getComputedType(element);
  int64_t rank = spatial + 2;
  SmallVector<int64_t> kept = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  SmallVector<int64_t> tapLoops =
      llvm::to_vector(llvm::seq<int64_t>(rank, rank + spatial));
  Type i1 = context.rewriter.getI1Type();
  Value shape =
      tensor::EmptyOp::create(context.rewriter, context.loc, block, i1);
  Value sums = buildFolded(
      context, makeOperand(context, shape, i1, tapLoops), rank + spatial, kept,
      buildFilled(context, sizes, context.scalar().constant(computed, 0)),
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value row = getLoop(scalar, 1), column = scalar.index(0);
        Value inside = scalar.boolean(true);
        for (int64_t i = 0; i < spatial; ++i) {
          const Window &window = (*windows)[i];
          Value tap = getLoop(scalar, rank + i);
          row = scalar.add(scalar.mul(row, getValue(scalar, block[i])), tap);
          // place · stride + tap · dilation = position + padding
          Value distance =
              scalar.sub(scalar.add(getLoop(scalar, 2 + i),
                                    getValue(scalar, window.before)),
                         scalar.mul(tap, scalar.index(window.dilation)));
          Value stride = scalar.index(window.stride);
          Value place = arith::FloorDivSIOp::create(scalar.builder, scalar.loc,
                                                    distance, stride);
          Value count = getValue(scalar, window.count);
          Value fits = buildAnd(
              scalar, scalar.equal(scalar.mul(place, stride), distance),
              isInside(scalar, place, count));
          inside = buildAnd(scalar, inside, fits);
          place = scalar.select(fits, place, scalar.index(0));
          column = scalar.add(scalar.mul(column, count), place);
        }
        Value number = extractNumber(scalar, data, element,
                                     {getLoop(scalar, 0), row, column});
        Value term =
            scalar.select(inside, number, scalar.constant(computed, 0));
        return scalar.add(args.back(), term);
      });
  return context.replace(isa<FloatType>(element)
                             ? buildCast(context, sums, computed, element)
                             : sums);
}

void nibble::addSamplingConversions(NodeConversions &conversions) {
  conversions.add("GridSample", 16, convertGridSample);
  conversions.add("AffineGrid", 20, convertAffineGrid);
  conversions.add("RoiAlign", 10, convertRoiAlign);
  conversions.add("DeformConv", 19, convertDeformConv);
  conversions.add("Col2Im", 18, convertCol2Im);
  conversions.add("com.microsoft", "GridSample", 1, convertGridSample);
}
