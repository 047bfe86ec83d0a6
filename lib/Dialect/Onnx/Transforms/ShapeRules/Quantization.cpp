//===- Quantization.cpp - Shapes of quantized ops -------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static void inferQuantize(RuleContext &context) {
  Type type = context.getElementType(2);
  if (!type && !context.hasInput(2)) {
    type = context.getDataType("output_dtype");
    if (!type)
      type = Builder(context.getContext()).getIntegerType(8, false);
  }
  context.set(0, type, context.getShape(0));
}

/// The result has the scale's type since opset 19, and f32 before.
static void inferDequantize(RuleContext &context) {
  Type type = context.getDataType("output_dtype");
  if (!type)
    type = context.getElementType(1);
  context.set(0, type, context.getShape(0));
}

static void inferDynamicQuantize(RuleContext &context) {
  Builder builder(context.getContext());
  Type type = builder.getIntegerType(8, false);
  context.set(0, type, context.getShape(0));
  context.set(1, builder.getF32Type(), Shape());
  context.set(2, type, Shape());
}

static void inferMatMulInteger(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI32Type(),
              multiplyShapes(context.getShape(0), context.getShape(1)));
}

/// a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.
static void inferQLinearMatMul(RuleContext &context) {
  context.set(0, context.getElementType(7),
              multiplyShapes(context.getShape(0), context.getShape(3)));
}

static void inferConvInteger(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI32Type(),
              convolve(context, 0, 1));
}

/// x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero.
static void inferQLinearConv(RuleContext &context) {
  context.set(0, context.getElementType(7), convolve(context, 0, 3));
}

/// A product of integers that is scaled to floats, of the type of `scale`.
template <unsigned scale> static void inferScaledMatMul(RuleContext &context) {
  context.set(0, context.getElementType(scale),
              multiplyShapes(context.getShape(0), context.getShape(1)));
}

/// a, a_scale, a_zero, b, …: the operands broadcast.
static void inferQLinearBinary(RuleContext &context) {
  context.set(0, context.getElementType(0), broadcastInputs(context, {0, 3}));
}

/// y_scale, y_zero, and then each part with its scale and zero point.
static void inferQLinearConcat(RuleContext &context) {
  auto result = context.getShape(2);
  Type type = context.getElementType(2);
  if (!result)
    return context.set(0, type);
  auto axis = normalizeAxis(context.getInt("axis", 0), result->size());
  if (!axis)
    return context.reject();
  for (unsigned input = 5; input < context.getNumInputs(); input += 3) {
    auto part = context.getShape(input);
    if (part && part->size() != result->size())
      return context.reject();
    (*result)[*axis] =
        addDimensions((*result)[*axis], part ? (*part)[*axis] : Dimension());
  }
  context.set(0, type, result);
}

/// a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero; floats where the
/// result has no scale.
static void inferQGemm(RuleContext &context) {
  auto a = context.getShape(0), b = context.getShape(3);
  Type type = Builder(context.getContext()).getF32Type();
  if (context.hasInput(7))
    type = context.getElementType(context.hasInput(8) ? 8 : 0);
  if (!a || !b)
    return context.set(0, type);
  if (a->size() != 2 || b->size() != 2)
    return context.reject();
  context.set(0, type,
              Shape{(*a)[context.getInt("transA", 0) ? 1 : 0],
                    (*b)[context.getInt("transB", 0) ? 0 : 1]});
}

/// Rows of a block-quantized table; ui8 data hold two 4-bit codes in each byte
/// of the last dimension.
static void inferGatherBlockQuantized(RuleContext &context) {
  auto data = context.getShape(0), indices = context.getShape(1);
  Type dataType = context.getElementType(0), type = context.getElementType(2);
  if (!data || !indices || data->empty() || !dataType)
    return context.set(0, type);
  int64_t bits = context.getInt("bits", 4);
  if (bits != 2 && bits != 4 && bits != 8)
    return context.reject();
  if (getBitWidth(dataType) == 8)
    data->back() = multiplyDimensions(data->back(), fixed(8 / bits));
  auto axis = normalizeAxis(context.getInt("gather_axis", 0), data->size());
  if (!axis)
    return context.reject();
  Shape result(data->begin(), data->begin() + *axis);
  result.append(*indices);
  result.append(data->begin() + *axis + 1, data->end());
  context.set(0, type, result);
}

void onnx::addQuantizationRules(ShapeRules &rules) {
  rules.add({"QuantizeLinear"}, inferQuantize);
  rules.add({"DequantizeLinear"}, inferDequantize);
  rules.add({"DynamicQuantizeLinear"}, inferDynamicQuantize);
  rules.add({"MatMulInteger"}, inferMatMulInteger);
  rules.add({"ConvInteger"}, inferConvInteger);
  rules.add({"QLinearMatMul"}, inferQLinearMatMul);
  rules.add({"QLinearConv"}, inferQLinearConv);
  StringRef microsoft = "com.microsoft";
  rules.add(microsoft, "QuantizeLinear", 1, inferQuantize);
  rules.add(microsoft, "DequantizeLinear", 1, inferDequantize);
  rules.add(microsoft, "MatMulIntegerToFloat", 1, inferScaledMatMul<2>);
  rules.add(microsoft, "DynamicQuantizeMatMul", 1, inferScaledMatMul<2>);
  rules.add(microsoft, "MatMulInteger16", 1, inferMatMulInteger);
  rules.add(microsoft, "QLinearAdd", 1, inferQLinearBinary);
  rules.add(microsoft, "QLinearMul", 1, inferQLinearBinary);
  rules.add(microsoft, "QLinearConcat", 1, inferQLinearConcat);
  rules.add(microsoft, "QGemm", 1, inferQGemm);
  for (StringRef opType :
       {"QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax"})
    rules.add(microsoft, opType, 1, inferSameAsFirst);
  rules.add(microsoft, "GatherBlockQuantized", 1, inferGatherBlockQuantized);
}
