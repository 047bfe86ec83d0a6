//===- Resize.cpp - Tensors sampled at other sizes ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Interpolation works on one dimension after the other, which gives the same as
// all of them together. Each resized dimension has two small tables by output
// position and tap: where a tap reads, and its weight. The formulas are those
// of https://onnx.ai/onnx/operators/onnx__Resize.html, in f32 as runtimes
// compute them.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// What a node says
//===----------------------------------------------------------------------===//

namespace {
/// One resized dimension.
struct ResizedAxis {
  int64_t axis;
  OpFoldResult from, to;
  /// to / from, in f32; the number where it is constant.
  Value scale;
  std::optional<float> knownScale;
  /// The region that tf_crop_and_resize samples; null elsewhere.
  Value start, end;
};

enum class Mode { Nearest, Linear, Cubic };
enum class Rounding { PreferFloor, PreferCeil, Floor, Ceil, Simple };

/// How all dimensions are resized.
struct Resampling {
  Mode mode = Mode::Nearest;
  Rounding rounding = Rounding::PreferFloor;
  StringRef coordinates;
  bool antialias = false, excludesOutside = false;
  double cubic = -0.75, extrapolation = 0;
  SmallVector<ResizedAxis> axes;

  bool extrapolates() const { return coordinates == "tf_crop_and_resize"; }
};
} // namespace

static std::optional<std::vector<float>> getConstantFloats(NodeContext &context,
                                                           unsigned input) {
  if (Value value = context.node.getInput(input))
    if (Attribute constant = getConstantValue(value))
      return getFloats(constant);
  return std::nullopt;
}

/// False for an input that is left out or has no elements.
static bool isGiven(NodeContext &context, unsigned input) {
  if (context.isAbsent(input))
    return false;
  RankedTensorType type = context.getInputType(input);
  return type.getRank() != 1 || type.getDimSize(0) != 0;
}

/// The floats of a one-dimensional input as f32 values.
static FailureOr<SmallVector<Value>>
getFloatInput(NodeContext &context, unsigned input, int64_t count) {
  RankedTensorType type = context.getInputType(input);
  Type f32 = context.rewriter.getF32Type();
  SizeMath math(context);
  if (type.getRank() != 1)
    return context.fail("expects scales and regions of one dimension");
  if (failed(math.requireEqual(
          getSize(context.rewriter, context.loc, context.getInput(input), 0),
          math.constant(count),
          "input " + Twine(input) + " must have " + Twine(count) + " numbers")))
    return failure();
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> values;
  auto known = getConstantFloats(context, input);
  for (int64_t i = 0; i < count; ++i) {
    if (known) {
      values.push_back(scalar.constant(f32, (*known)[i]));
      continue;
    }
    Value number = extractNumber(scalar, context.getInput(input),
                                 type.getElementType(), scalar.index(i));
    values.push_back(scalar.convert(number, type.getElementType(), f32));
  }
  return values;
}

static Value toFloat(ScalarBuilder &scalar, Value index) {
  return indexToNumber(scalar, index, scalar.builder.getF32Type());
}

static Value toIndex(ScalarBuilder &scalar, Value number) {
  Type i64 = scalar.builder.getI64Type();
  Value integer = scalar.convert(number, number.getType(), i64);
  return arith::IndexCastOp::create(scalar.builder, scalar.loc,
                                    scalar.builder.getIndexType(), integer);
}

template <typename Op> static Value apply(ScalarBuilder &scalar, Value x) {
  return Op::create(scalar.builder, scalar.loc, x);
}

/// floor(size · scale), computed in f32 as ONNX does.
static OpFoldResult scaleSize(NodeContext &context, const ResizedAxis &axis,
                              bool rounds) {
  float half = rounds ? 0.5f : 0.0f;
  auto from = getConstantIntValue(axis.from);
  if (from && axis.knownScale) {
    float scaled = std::floor(float(*from) * *axis.knownScale + half);
    if (scaled >= 0 && scaled < 1e9f)
      return context.rewriter.getIndexAttr(static_cast<int64_t>(scaled));
  }
  ScalarBuilder scalar = context.scalar();
  Value size = toFloat(scalar, context.toValue(axis.from));
  Value scaled = scalar.add(scalar.mul(size, axis.scale),
                            scalar.constant(scalar.builder.getF32Type(), half));
  return toIndex(scalar, apply<math::FloorOp>(scalar, scaled));
}

static LogicalResult setScales(NodeContext &context, Resampling &resampling,
                               ArrayRef<float> scales) {
  ScalarBuilder scalar = context.scalar();
  Type f32 = context.rewriter.getF32Type();
  if (scales.size() != resampling.axes.size())
    return context.fail("expects a scale for each axis");
  for (auto [axis, scale] : llvm::zip(resampling.axes, scales)) {
    if (!(scale > 0))
      return context.fail("expects scales above 0");
    axis.knownScale = scale;
    axis.scale = scalar.constant(f32, scale);
    axis.to = scaleSize(context, axis, /*rounds=*/false);
  }
  return success();
}

static LogicalResult setScales(NodeContext &context, Resampling &resampling,
                               unsigned input) {
  if (auto known = getConstantFloats(context, input))
    return setScales(context, resampling, *known);
  auto values = getFloatInput(context, input, resampling.axes.size());
  if (failed(values))
    return failure();
  ScalarBuilder scalar = context.scalar();
  for (auto [axis, scale] : llvm::zip(resampling.axes, *values)) {
    Value zero = scalar.constant(scale.getType(), 0);
    context.check(scalar.less(zero, scale), "expects scales above 0");
    axis.scale = scale;
    axis.to = scaleSize(context, axis, /*rounds=*/false);
  }
  return success();
}

/// to / from, in f32.
static void setScale(NodeContext &context, ResizedAxis &axis) {
  auto from = getConstantIntValue(axis.from), to = getConstantIntValue(axis.to);
  ScalarBuilder scalar = context.scalar();
  Type f32 = context.rewriter.getF32Type();
  if (from && to && *from != 0) {
    axis.knownScale = float(*to) / float(*from);
    axis.scale = scalar.constant(f32, *axis.knownScale);
    return;
  }
  axis.scale = scalar.div(toFloat(scalar, context.toValue(axis.to)),
                          toFloat(scalar, context.toValue(axis.from)));
}

static LogicalResult setSizes(NodeContext &context, Resampling &resampling,
                              unsigned input) {
  auto sizes = getIntegerInput(context, input, resampling.axes.size());
  if (failed(sizes))
    return failure();
  SizeMath math(context);
  for (auto [axis, size] : llvm::zip(resampling.axes, *sizes)) {
    axis.to = size;
    if (failed(math.requireLessEqual(math.constant(0), axis.to,
                                     "expects sizes that are not negative")))
      return failure();
    setScale(context, axis);
  }
  StringRef policy =
      context.node.getString("keep_aspect_ratio_policy", "stretch");
  if (policy == "stretch")
    return success();
  bool larger = policy == "not_smaller";
  // All scales become the smallest or the largest of them.
  std::optional<float> knownScale = resampling.axes[0].knownScale;
  ScalarBuilder scalar = context.scalar();
  Value scale = resampling.axes[0].scale;
  for (const ResizedAxis &axis : ArrayRef(resampling.axes).drop_front()) {
    if (knownScale && axis.knownScale)
      knownScale = larger ? std::max(*knownScale, *axis.knownScale)
                          : std::min(*knownScale, *axis.knownScale);
    else
      knownScale.reset();
    scale =
        larger ? scalar.max(scale, axis.scale) : scalar.min(scale, axis.scale);
  }
  for (ResizedAxis &axis : resampling.axes) {
    axis.scale = scale;
    axis.knownScale = knownScale;
    axis.to = scaleSize(context, axis, /*rounds=*/true);
  }
  return success();
}

static FailureOr<Mode> getMode(NodeContext &context) {
  StringRef mode = context.node.getString("mode", "nearest");
  if (mode == "nearest")
    return Mode::Nearest;
  if (mode == "linear" || mode == "bilinear")
    return Mode::Linear;
  if (mode == "cubic")
    return Mode::Cubic;
  return context.fail("has the unknown mode '" + mode + "'");
}

static FailureOr<Rounding> getRounding(NodeContext &context) {
  StringRef name = context.node.getString("nearest_mode", "round_prefer_floor");
  if (name == "round_prefer_floor")
    return Rounding::PreferFloor;
  if (name == "round_prefer_ceil")
    return Rounding::PreferCeil;
  if (name == "floor")
    return Rounding::Floor;
  if (name == "ceil")
    return Rounding::Ceil;
  return context.fail("has the unknown nearest_mode '" + name + "'");
}

//===----------------------------------------------------------------------===//
// Coordinates and weights
//===----------------------------------------------------------------------===//

/// Where output position `position` of an axis lies in the input.
static Value getCoordinate(ScalarBuilder &scalar, const ResizedAxis &axis,
                           StringRef kind, Value position) {
  Type f32 = scalar.builder.getF32Type();
  auto constant = [&](double value) { return scalar.constant(f32, value); };
  auto size = [&](OpFoldResult given) {
    return toFloat(scalar, nibble::toValue(scalar.builder, scalar.loc, given));
  };
  Value x = toFloat(scalar, position), scale = axis.scale;
  Value one = constant(1), half = constant(0.5);
  if (kind == "asymmetric")
    return scalar.div(x, scale);
  Value halfPixel = scalar.sub(scalar.div(scalar.add(x, half), scale), half);
  if (kind == "half_pixel")
    return halfPixel;
  Value from = size(axis.from);
  // The size before it is rounded down.
  Value to = scalar.mul(from, scale);
  if (kind == "half_pixel_symmetric") {
    Value adjustment = scalar.div(size(axis.to), to);
    Value offset =
        scalar.mul(scalar.mul(from, half), scalar.sub(one, adjustment));
    return scalar.add(offset, halfPixel);
  }
  if (kind == "tf_half_pixel_for_nn")
    return scalar.div(scalar.add(x, half), scale);
  if (kind == "pytorch_half_pixel")
    return scalar.select(scalar.less(one, to), halfPixel, constant(-0.5));
  Value last = scalar.sub(from, one);
  Value isOne = scalar.equal(to, one);
  Value steps = scalar.select(isOne, one, scalar.sub(to, one));
  if (kind == "align_corners")
    return scalar.select(isOne, constant(0),
                         scalar.div(scalar.mul(x, last), steps));
  // tf_crop_and_resize
  Value region = scalar.sub(axis.end, axis.start);
  Value step = scalar.div(scalar.mul(region, last), steps);
  Value single =
      scalar.mul(half, scalar.mul(scalar.add(axis.start, axis.end), last));
  return scalar.select(
      isOne, single,
      scalar.add(scalar.mul(axis.start, last), scalar.mul(x, step)));
}

static Value roundCoordinate(ScalarBuilder &scalar, Value x, Rounding rounding,
                             Value scale) {
  Type f32 = x.getType();
  Value half = scalar.constant(f32, 0.5);
  switch (rounding) {
  case Rounding::PreferFloor:
    return apply<math::CeilOp>(scalar, scalar.sub(x, half));
  case Rounding::PreferCeil:
    return apply<math::FloorOp>(scalar, scalar.add(x, half));
  case Rounding::Floor:
    return apply<math::FloorOp>(scalar, x);
  case Rounding::Ceil:
    return apply<math::CeilOp>(scalar, x);
  case Rounding::Simple:
    // Version 10 left it open; runtimes round up where they downsample.
    return scalar.select(scalar.less(scale, scalar.constant(f32, 1)),
                         apply<math::CeilOp>(scalar, x),
                         apply<math::FloorOp>(scalar, x));
  }
  return x;
}

/// The weight of a tap at `distance` from the coordinate.
static Value getWeight(ScalarBuilder &scalar, Value distance,
                       const Resampling &resampling) {
  Type type = distance.getType();
  auto constant = [&](double value) { return scalar.constant(type, value); };
  Value x = scalar.abs(distance), one = constant(1);
  if (resampling.mode == Mode::Linear)
    return scalar.max(scalar.sub(one, x), constant(0));
  double a = resampling.cubic;
  // Horner's form of the two pieces of the cubic convolution kernel.
  auto polynomial = [&](double c3, double c2, double c1, double c0) {
    Value sum = scalar.add(scalar.mul(constant(c3), x), constant(c2));
    sum = scalar.add(scalar.mul(sum, x), constant(c1));
    return scalar.add(scalar.mul(sum, x), constant(c0));
  };
  Value inner = polynomial(a + 2, -(a + 3), 0, 1);
  Value outer = polynomial(a, -5 * a, 8 * a, -4 * a);
  outer = scalar.select(scalar.less(x, constant(2)), outer, constant(0));
  return scalar.select(scalar.lessEqual(x, one), inner, outer);
}

namespace {
/// By output position and tap: where a tap reads, and its weight.
struct Taps {
  Value indices, weights;
  OpFoldResult count;
};
} // namespace

/// How far the taps reach to the left of the coordinate's floor: 1 - this
/// many, and as many plus one to the right.
static OpFoldResult getReach(NodeContext &context, const ResizedAxis &axis,
                             const Resampling &resampling) {
  int support = resampling.mode == Mode::Linear ? 1 : 2;
  SizeMath math(context);
  if (!resampling.antialias)
    return math.constant(support);
  if (axis.knownScale) {
    float reach = std::ceil(support / std::min(*axis.knownScale, 1.0f));
    if (reach < 1e9f)
      return math.constant(static_cast<int64_t>(reach));
  }
  ScalarBuilder scalar = context.scalar();
  Type f32 = context.rewriter.getF32Type();
  Value scale = scalar.min(axis.scale, scalar.constant(f32, 1));
  Value reach = scalar.div(scalar.constant(f32, support), scale);
  return toIndex(scalar, apply<math::CeilOp>(scalar, reach));
}

static Taps buildTaps(NodeContext &context, const ResizedAxis &axis,
                      const Resampling &resampling) {
  SizeMath math(context);
  OpFoldResult reach = getReach(context, axis, resampling);
  OpFoldResult count = math.mul(reach, math.constant(2));
  OpFoldResult left = math.sub(reach, math.constant(1));
  Type f32 = context.rewriter.getF32Type();
  OpBuilder &builder = context.rewriter;
  // The place of a tap in the input, which may lie outside, and the
  // coordinate.
  auto locate = [&](ScalarBuilder &scalar, ValueRange loops) {
    Value x = getCoordinate(scalar, axis, resampling.coordinates, loops[0]);
    Value floor = toIndex(scalar, apply<math::FloorOp>(scalar, x));
    Value tap =
        scalar.sub(loops[1], nibble::toValue(scalar.builder, scalar.loc, left));
    return std::pair(scalar.add(floor, tap), x);
  };
  auto isInside = [&](ScalarBuilder &scalar, Value place) -> Value {
    return arith::CmpIOp::create(
        scalar.builder, scalar.loc, arith::CmpIPredicate::ult, place,
        nibble::toValue(scalar.builder, scalar.loc, axis.from));
  };
  Value indices = buildTensor(
      builder, context.loc, {axis.to, count}, builder.getIndexType(),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value place = locate(scalar, loops).first;
        Value last =
            scalar.sub(nibble::toValue(scalar.builder, scalar.loc, axis.from),
                       scalar.index(1));
        return scalar.max(scalar.min(place, last), scalar.index(0));
      });
  Value weights = buildTensor(
      builder, context.loc, {axis.to, count}, f32,
      [&](ScalarBuilder &scalar, ValueRange loops) {
        auto [place, x] = locate(scalar, loops);
        Value distance = scalar.sub(toFloat(scalar, place), x);
        if (resampling.antialias)
          distance = scalar.mul(
              distance, scalar.min(axis.scale, scalar.constant(f32, 1)));
        Value weight = getWeight(scalar, distance, resampling);
        if (resampling.excludesOutside)
          weight = scalar.select(isInside(scalar, place), weight,
                                 scalar.constant(f32, 0));
        return weight;
      });
  if (resampling.antialias || resampling.excludesOutside) {
    Value zero = context.scalar().constant(f32, 0);
    Value sums = buildFolded(context, makeOperand(context, weights, f32), 2, 0,
                             buildFilled(context, axis.to, zero),
                             [](ScalarBuilder &scalar, ValueRange args) {
                               return scalar.add(args[1], args[0]);
                             });
    weights = buildMapped(context,
                          {makeOperand(context, weights, f32),
                           makeOperand(context, sums, f32, 0)},
                          {axis.to, count}, f32,
                          [](ScalarBuilder &scalar, ValueRange args) {
                            return scalar.div(args[0], args[1]);
                          });
  }
  return {indices, weights, count};
}

//===----------------------------------------------------------------------===//
// Sampling
//===----------------------------------------------------------------------===//

/// `x`, whose elements are `element`, interpolated along one axis: computed
/// numbers.
static Value interpolate(NodeContext &context, Value x, Type element,
                         const ResizedAxis &axis,
                         const Resampling &resampling) {
  Taps taps = buildTaps(context, axis, resampling);
  Sizes sizes = context.getSizes(x);
  sizes[axis.axis] = axis.to;
  int64_t rank = sizes.size();
  Type f32 = context.rewriter.getF32Type();
  Type computed = isa<FloatType>(element) ? getComputedType(element) : f32;
  // The taps come before the last dimension, along which nothing depends on
  // another.
  int64_t tapLoop = rank - 1;
  SmallVector<int64_t> kept;
  for (int64_t i = 0; i < rank; ++i)
    kept.push_back(i < tapLoop ? i : i + 1);
  int64_t outputLoop = kept[axis.axis];
  Value zero = context.scalar().constant(computed, 0);
  return buildFolded(
      context,
      {makeOperand(context, taps.indices, context.rewriter.getIndexType(),
                   {outputLoop, tapLoop}),
       makeOperand(context, taps.weights, f32, {outputLoop, tapLoop})},
      rank + 1, kept, buildFilled(context, sizes, zero),
      [&](ScalarBuilder &scalar, ValueRange args) {
        SmallVector<Value> source;
        for (int64_t loop : kept)
          source.push_back(
              linalg::IndexOp::create(scalar.builder, scalar.loc, loop));
        source[axis.axis] = args[0];
        Value number = scalar.convert(extractNumber(scalar, x, element, source),
                                      element, computed);
        Value weight = scalar.convert(args[1], f32, computed);
        return scalar.add(args[2], scalar.mul(number, weight));
      });
}

/// By output position: true where the coordinate lies outside of the input.
static Value buildOutside(NodeContext &context, const ResizedAxis &axis,
                          const Resampling &resampling) {
  return buildTensor(
      context.rewriter, context.loc, axis.to, context.rewriter.getI1Type(),
      [&](ScalarBuilder &scalar, ValueRange loops) -> Value {
        Value x = getCoordinate(scalar, axis, resampling.coordinates, loops[0]);
        Value from = toFloat(
            scalar, nibble::toValue(scalar.builder, scalar.loc, axis.from));
        Value last = scalar.sub(from, scalar.constant(from.getType(), 1));
        Value zero = scalar.constant(x.getType(), 0);
        return arith::OrIOp::create(scalar.builder, scalar.loc,
                                    scalar.less(x, zero), scalar.less(last, x));
      });
}

/// The sampled numbers as elements, with the extrapolation value outside.
static Value finish(NodeContext &context, Value x, Type from, Type element,
                    const Resampling &resampling) {
  SmallVector<Operand> operands{makeOperand(context, x, from)};
  Type i1 = context.rewriter.getI1Type();
  if (resampling.extrapolates())
    for (const ResizedAxis &axis : resampling.axes)
      operands.push_back(makeOperand(
          context, buildOutside(context, axis, resampling), i1, axis.axis));
  Type computed = getComputedType(from);
  return buildMapped(
      context, operands, context.getSizes(x), element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value number = args[0];
        if (isa<FloatType>(computed) && isa<IntegerType>(element))
          number = apply<math::RoundEvenOp>(scalar, number);
        number = scalar.convert(number, from, element);
        Value outside =
            scalar.constant(number.getType(), resampling.extrapolation);
        for (Value isOutside : args.drop_front())
          number = scalar.select(isOutside, outside, number);
        return number;
      });
}

/// The nearest element for each output position.
static Value sampleNearest(NodeContext &context, Value x, Type element,
                           const Resampling &resampling) {
  Sizes sizes = context.getSizes(x);
  SmallVector<Operand> operands;
  Type indexType = context.rewriter.getIndexType();
  for (const ResizedAxis &axis : resampling.axes) {
    Value table = buildTensor(
        context.rewriter, context.loc, axis.to, indexType,
        [&](ScalarBuilder &scalar, ValueRange loops) {
          Value coordinate =
              getCoordinate(scalar, axis, resampling.coordinates, loops[0]);
          Value place =
              toIndex(scalar, roundCoordinate(scalar, coordinate,
                                              resampling.rounding, axis.scale));
          Value last =
              scalar.sub(nibble::toValue(scalar.builder, scalar.loc, axis.from),
                         scalar.index(1));
          return scalar.max(scalar.min(place, last), scalar.index(0));
        });
    operands.push_back(makeOperand(context, table, indexType, axis.axis));
    sizes[axis.axis] = axis.to;
  }
  return buildMapped(
      context, operands, sizes, element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        SmallVector<Value> source;
        for (size_t axis = 0; axis < sizes.size(); ++axis)
          source.push_back(
              linalg::IndexOp::create(scalar.builder, scalar.loc, axis));
        for (auto [axis, place] : llvm::zip(resampling.axes, args))
          source[axis.axis] = place;
        return extractNumber(scalar, x, element, source);
      });
}

/// Axes along which the result is the input itself are left out.
static void dropIdentities(Resampling &resampling) {
  if (resampling.extrapolates())
    return;
  llvm::erase_if(resampling.axes, [](const ResizedAxis &axis) {
    auto from = getConstantIntValue(axis.from),
         to = getConstantIntValue(axis.to);
    bool sameSize = axis.from == axis.to || (from && from == to);
    return axis.knownScale == 1.0f && (sameSize || !from);
  });
}

static LogicalResult resample(NodeContext &context, Resampling &resampling) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0), from = element;
  dropIdentities(resampling);
  SizeMath math(context);
  for (const ResizedAxis &axis : resampling.axes)
    if (failed(math.requireLessEqual(math.min(axis.to, math.constant(1)),
                                     axis.from, "has no elements to sample")))
      return failure();
  if (resampling.axes.empty())
    return context.replace(x);
  if (resampling.mode == Mode::Nearest) {
    x = sampleNearest(context, x, element, resampling);
    if (resampling.extrapolates())
      x = finish(context, x, element, element, resampling);
    return context.replace(x);
  }
  for (const ResizedAxis &axis : llvm::reverse(resampling.axes)) {
    x = interpolate(context, x, from, axis, resampling);
    from = cast<RankedTensorType>(x.getType()).getElementType();
  }
  if (from == element && !resampling.extrapolates())
    return context.replace(x);
  return context.replace(finish(context, x, from, element, resampling));
}

//===----------------------------------------------------------------------===//
// Nodes
//===----------------------------------------------------------------------===//

/// The axes that a node resizes: all where it names none.
static LogicalResult setAxes(NodeContext &context, Resampling &resampling) {
  Sizes sizes = context.getSizes(context.getInput(0));
  SmallVector<int64_t> axes =
      llvm::to_vector(llvm::seq<int64_t>(0, sizes.size()));
  if (auto given = context.node.getInts("axes"))
    axes.assign(given->begin(), given->end());
  for (int64_t axis : axes) {
    auto normal = normalizeAxis(axis, sizes.size());
    if (!normal)
      return context.fail("axis " + Twine(axis) + " is out of range");
    resampling.axes.push_back(
        {*normal, sizes[*normal], sizes[*normal], {}, {}, {}, {}});
  }
  return success();
}

/// Inputs: x, region of interest, scales, sizes.
static LogicalResult convertResize(NodeContext &context) {
  NodeOp node = context.node;
  auto mode = getMode(context);
  auto rounding = getRounding(context);
  Resampling resampling;
  if (failed(mode) || failed(rounding) || failed(setAxes(context, resampling)))
    return failure();
  resampling.mode = *mode;
  resampling.rounding = *rounding;
  resampling.coordinates =
      node.getString("coordinate_transformation_mode", "half_pixel");
  if (!llvm::is_contained({"half_pixel", "half_pixel_symmetric",
                           "pytorch_half_pixel", "align_corners", "asymmetric",
                           "tf_half_pixel_for_nn", "tf_crop_and_resize"},
                          resampling.coordinates))
    return context.fail("has the unknown coordinate_transformation_mode '" +
                        resampling.coordinates + "'");
  resampling.antialias = node.getInt("antialias", 0) != 0;
  resampling.excludesOutside = node.getInt("exclude_outside", 0) != 0;
  resampling.cubic = node.getFloat("cubic_coeff_a", -0.75f);
  resampling.extrapolation = node.getFloat("extrapolation_value", 0);
  if (isGiven(context, 3)) {
    if (failed(setSizes(context, resampling, 3)))
      return failure();
  } else if (isGiven(context, 2)) {
    if (failed(setScales(context, resampling, 2)))
      return failure();
  } else {
    return context.fail("has neither scales nor sizes");
  }
  if (resampling.extrapolates()) {
    int64_t count = resampling.axes.size();
    if (!isGiven(context, 1))
      return context.fail("has no roi, which tf_crop_and_resize needs");
    auto region = getFloatInput(context, 1, 2 * count);
    if (failed(region))
      return failure();
    for (auto [i, axis] : llvm::enumerate(resampling.axes)) {
      axis.start = (*region)[i];
      axis.end = (*region)[i + count];
    }
  }
  return resample(context, resampling);
}

/// Resize of version 10 and Upsample, with one scale for each dimension.
static LogicalResult convertScale(NodeContext &context, Rounding rounding) {
  auto mode = getMode(context);
  Resampling resampling;
  if (failed(mode) || failed(setAxes(context, resampling)))
    return failure();
  resampling.mode = *mode;
  resampling.rounding = rounding;
  resampling.coordinates = "asymmetric";
  auto attribute = dyn_cast_if_present<DenseF32ArrayAttr>(
      context.node.getAttributeValue("scales"));
  if (!attribute && context.isAbsent(1))
    return context.fail("has no scales");
  if (failed(attribute ? setScales(context, resampling, attribute.asArrayRef())
                       : setScales(context, resampling, 1)))
    return failure();
  return resample(context, resampling);
}

void nibble::addResizeConversions(NodeConversions &conversions) {
  conversions.add("Resize", 10, [](NodeContext &context) {
    return convertScale(context, Rounding::Simple);
  });
  conversions.add("Resize", 11, convertResize);
  conversions.add("Upsample", 7, [](NodeContext &context) {
    return convertScale(context, Rounding::Floor);
  });
}
