//===- Quantization.cpp - QuantizeLinear and its family -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Where an element's scale is
//===----------------------------------------------------------------------===//

namespace {
/// How the scales of QuantizeLinear and DequantizeLinear are spread.
struct Granularity {
  /// Dimension of the scales, or -1 for one scale.
  int64_t axis = -1;
  /// Elements along the axis that share a scale; 0 for one scale each.
  int64_t block = 0;

  /// Where the scale or zero point of the element at `indices` is.
  SmallVector<Value> locate(ScalarBuilder &scalar, Value tensor,
                            ValueRange indices) const {
    if (axis < 0)
      return SmallVector<Value>(
          cast<RankedTensorType>(tensor.getType()).getRank(), scalar.index(0));
    if (block == 0)
      return {indices[axis]};
    SmallVector<Value> result(indices);
    result[axis] = arith::DivUIOp::create(scalar.builder, scalar.loc,
                                          indices[axis], scalar.index(block));
    return result;
  }
};
} // namespace

/// Checks that there is a scale, and where there are any a zero point, for each
/// element.
static void checkScales(NodeContext &context, const Granularity &granularity) {
  bool hasZeros = context.getNumInputs() > 2 && !context.isAbsent(2);
  int64_t scaleRank = context.getInputType(1).getRank();
  if (hasZeros && context.getInputType(2).getRank() == scaleRank)
    for (int64_t i = 0; i < scaleRank; ++i)
      checkSameSize(context, 1, i, 2, i);
  if (granularity.block == 0)
    return checkSameSize(context, 0, granularity.axis, 1, 0);
  for (int64_t i = 0; i < scaleRank; ++i)
    if (i != granularity.axis)
      checkSameSize(context, 0, i, 1, i);
  auto getExtent = [&](unsigned input) {
    return context.toValue(getSize(context.rewriter, context.loc,
                                   context.getInput(input), granularity.axis));
  };
  if (context.getInputType(0).isDynamicDim(granularity.axis) ||
      context.getInputType(1).isDynamicDim(granularity.axis)) {
    ScalarBuilder scalar = context.scalar();
    Value covered = scalar.mul(getExtent(1), scalar.index(granularity.block));
    context.check(scalar.lessEqual(getExtent(0), covered),
                  "there is not a scale for each block");
  }
}

static FailureOr<Granularity> getGranularity(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  RankedTensorType scales = context.getInputType(1);
  Granularity result;
  result.block = context.node.getInt("block_size", 0);
  bool isOne = scales.getRank() == 1 && scales.getDimSize(0) == 1;
  if (scales.getRank() == 0 || (isOne && result.block == 0))
    return result;
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", 1), type.getRank());
  if (!axis)
    return context.fail("axis is out of range");
  result.axis = *axis;
  if (scales.getRank() != (result.block == 0 ? 1 : type.getRank()))
    return context.fail(
        "expects one scale, one for each slice along the axis, or blocks of "
        "the input's rank");
  checkScales(context, result);
  return result;
}

static Value extractNumber(ScalarBuilder &scalar, Value tensor,
                           ValueRange indices, Type element) {
  Value stored =
      tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor, indices);
  return scalar.decode(stored, element);
}

//===----------------------------------------------------------------------===//
// DequantizeLinear: y = (x - zero) * scale
//===----------------------------------------------------------------------===//

static LogicalResult convertDequantizeLinear(NodeContext &context) {
  FailureOr<Granularity> granularity = getGranularity(context);
  if (failed(granularity))
    return failure();
  Value x = context.getInput(0), scales = context.getInput(1), zeros;
  if (context.getNumInputs() > 2)
    zeros = context.getInput(2);
  Type code = context.getElementType(0), scaleType = context.getElementType(1);
  RankedTensorType declared = context.getResultType();
  Type element = declared ? declared.getElementType() : scaleType;
  Type f32 = context.rewriter.getF32Type(), i32 = context.rewriter.getI32Type();
  return context.replace(buildTensor(
      context.rewriter, context.loc, context.getSizes(x),
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange indices) {
        Value number = extractNumber(scalar, x, indices, code);
        Value scale = extractNumber(
            scalar, scales, granularity->locate(scalar, scales, indices),
            scaleType);
        scale = scalar.convert(scale, scaleType, f32);
        // Differences of integers are exact in i32.
        bool isInteger = isa<IntegerType>(code);
        number = scalar.convert(number, code, isInteger ? i32 : f32);
        if (zeros) {
          Value zero = extractNumber(
              scalar, zeros, granularity->locate(scalar, zeros, indices), code);
          zero = scalar.convert(zero, code, isInteger ? i32 : f32);
          number = scalar.sub(number, zero);
        }
        if (isInteger)
          number = scalar.convert(number, i32, f32);
        return scalar.encode(scalar.mul(number, scale), element);
      }));
}

//===----------------------------------------------------------------------===//
// QuantizeLinear: y = saturate(round(x / scale) + zero)
//===----------------------------------------------------------------------===//

Value nibble::buildLinearCode(ScalarBuilder &scalar, Value quotient, Value zero,
                              Type zeroType, Type element,
                              OutOfRange overflow) {
  if (isa<FloatType>(element)) {
    if (zero)
      quotient = scalar.add(quotient,
                            scalar.convert(zero, zeroType, quotient.getType()));
    return scalar.encode(quotient, element, overflow);
  }
  Value rounded =
      math::RoundEvenOp::create(scalar.builder, scalar.loc, quotient);
  if (zero)
    rounded =
        scalar.add(rounded, scalar.convert(zero, zeroType, rounded.getType()));
  return scalar.encode(scalar.convert(rounded, rounded.getType(), element),
                       element);
}

static LogicalResult convertQuantizeLinear(NodeContext &context) {
  FailureOr<Granularity> granularity = getGranularity(context);
  if (failed(granularity))
    return failure();
  RankedTensorType declared = context.getResultType();
  Value x = context.getInput(0), scales = context.getInput(1), zeros;
  Type zeroType;
  if (context.getNumInputs() > 2 && !context.isAbsent(2)) {
    zeros = context.getInput(2);
    zeroType = context.getElementType(2);
  }
  Type element = zeroType;
  if (!element)
    element = declared ? declared.getElementType()
                       : IntegerType::get(context.rewriter.getContext(), 8,
                                          IntegerType::Unsigned);
  if (!getStoredType(element))
    return context.fail("the elements of the result are not known "
                        "(run --onnx-infer-shapes)");
  Type type = context.getElementType(0), scaleType = context.getElementType(1);
  OutOfRange overflow = context.node.getInt("saturate", 1)
                            ? OutOfRange::Saturate
                            : OutOfRange::Propagate;
  // ONNX divides in the precision of the input, or in the one that is asked
  // for.
  Type precision = scaleType;
  switch (context.node.getInt("precision", 0)) {
  case 1:
    precision = context.rewriter.getF32Type();
    break;
  case 10:
    precision = context.rewriter.getF16Type();
    break;
  case 16:
    precision = context.rewriter.getBF16Type();
    break;
  default:
    break;
  }
  Type f32 = context.rewriter.getF32Type();
  return context.replace(buildTensor(
      context.rewriter, context.loc, context.getSizes(x),
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange indices) {
        Value number =
            scalar.convert(extractNumber(scalar, x, indices, type), type, f32);
        Value scale = scalar.convert(
            extractNumber(scalar, scales,
                          granularity->locate(scalar, scales, indices),
                          scaleType),
            scaleType, f32);
        Value quotient = scalar.div(number, scale);
        if (isa<Float16Type, BFloat16Type>(precision))
          quotient = scalar.roundTo(quotient, precision);
        Value zero;
        if (zeros)
          zero = extractNumber(scalar, zeros,
                               granularity->locate(scalar, zeros, indices),
                               zeroType);
        return buildLinearCode(scalar, quotient, zero, zeroType, element,
                               overflow);
      }));
}

//===----------------------------------------------------------------------===//
// DynamicQuantizeLinear
//===----------------------------------------------------------------------===//

/// Folds all elements into one, with 0 among them.
static Value reduceAll(NodeContext &context, Value tensor,
                       Value (ScalarBuilder::*function)(Value, Value)) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  SmallVector<utils::IteratorType> iterators(rank,
                                             utils::IteratorType::reduction);
  AffineMap none = AffineMap::get(rank, 0, context.rewriter.getContext());
  ScalarBuilder scalar = context.scalar();
  return buildReduction(context.rewriter, context.loc, tensor,
                        {context.rewriter.getMultiDimIdentityMap(rank), none},
                        iterators, {},
                        scalar.constant(context.rewriter.getF32Type(), 0),
                        [&](ScalarBuilder &body, ValueRange args) {
                          return (body.*function)(args[0], args[1]);
                        });
}

DynamicCodes nibble::buildDynamicCodes(NodeContext &context, Value x,
                                       RankedTensorType type) {
  Value low = reduceAll(context, x, &ScalarBuilder::min);
  Value high = reduceAll(context, x, &ScalarBuilder::max);
  MLIRContext *mlirContext = context.rewriter.getContext();
  Type f32 = context.rewriter.getF32Type();
  Type u8 = IntegerType::get(mlirContext, 8, IntegerType::Unsigned);
  auto scalarType = RankedTensorType::get({}, f32);
  Value scale =
      buildBroadcast(context, {low, high}, {scalarType, scalarType}, f32,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value range = scalar.sub(args[1], args[0]);
                       Value result =
                           scalar.div(range, scalar.constant(f32, 255));
                       // All zeros: any scale will do.
                       return scalar.select(scalar.isZero(range),
                                            scalar.constant(f32, 1), result);
                     });
  Value zero =
      buildBroadcast(context, {low, scale}, {scalarType, scalarType}, u8,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value quotient =
                           scalar.div(scalar.neg(args[0]), args[1]);
                       return buildLinearCode(scalar, quotient, {}, {}, u8,
                                              OutOfRange::Saturate);
                     });
  auto zeroType = RankedTensorType::get({}, u8);
  Value codes = buildBroadcast(
      context, {x, scale, zero}, {type, scalarType, zeroType}, u8,
      [&](ScalarBuilder &scalar, ValueRange args) {
        return buildLinearCode(scalar, scalar.div(args[0], args[1]), args[2],
                               u8, u8, OutOfRange::Saturate);
      });
  return {codes, scale, zero, u8};
}

static LogicalResult convertDynamicQuantizeLinear(NodeContext &context) {
  DynamicCodes result =
      buildDynamicCodes(context, context.getInput(0), context.getInputType(0));
  return context.replace({result.codes, result.scale, result.zero});
}

void nibble::addQuantizationConversions(NodeConversions &conversions) {
  conversions.add("DequantizeLinear", 10, convertDequantizeLinear);
  conversions.add("QuantizeLinear", 10, convertQuantizeLinear);
  conversions.add("DynamicQuantizeLinear", 11, convertDynamicQuantizeLinear);
  conversions.add("com.microsoft", "DequantizeLinear", 1,
                  convertDequantizeLinear);
  conversions.add("com.microsoft", "QuantizeLinear", 1, convertQuantizeLinear);
}
