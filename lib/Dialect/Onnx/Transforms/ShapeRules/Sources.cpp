//===- Sources.cpp - Shapes of ops that make tensors ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/IR/Builders.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Constant
//===----------------------------------------------------------------------===//

static void inferConstant(RuleContext &context) {
  NodeOp node = context.getNode();
  Builder builder(context.getContext());
  if (Attribute value = node.getAttributeValue("value")) {
    auto tensor = dyn_cast<TensorAttr>(value);
    auto typed = tensor ? dyn_cast<TypedAttr>(tensor.getValue()) : TypedAttr();
    if (typed)
      context.setType(0, typed.getType());
    return;
  }
  if (Attribute value = node.getAttributeValue("value_int")) {
    context.set(0, builder.getI64Type(), Shape());
    if (auto integer = dyn_cast<IntegerAttr>(value))
      context.setValue(0, {fixed(integer.getInt())});
  } else if (node.getAttributeValue("value_ints")) {
    auto integers = context.getInts("value_ints");
    if (!integers)
      return;
    Shape value;
    for (int64_t integer : *integers)
      value.push_back(fixed(integer));
    context.set(0, builder.getI64Type(), Shape{fixed(value.size())});
    context.setValue(0, value);
  } else if (node.getAttributeValue("value_float")) {
    context.set(0, builder.getF32Type(), Shape());
  } else if (node.getAttributeValue("value_floats")) {
    if (auto floats = context.getFloatList("value_floats"))
      context.set(0, builder.getF32Type(), Shape{fixed(floats->size())});
  } else if (node.getAttributeValue("value_string")) {
    context.set(0, onnx::StringType::get(context.getContext()), Shape());
  } else if (auto strings = dyn_cast_if_present<ArrayAttr>(
                 node.getAttributeValue("value_strings"))) {
    context.set(0, onnx::StringType::get(context.getContext()),
                Shape{fixed(strings.size())});
  }
}

static void inferConstantOfShape(RuleContext &context) {
  auto shape = context.getValue(0);
  if (!shape)
    if (auto length = context.getShape(0);
        length && length->size() == 1 && length->front().isStatic() &&
        length->front().size <= kMaxShapeElements)
      shape = Shape(length->front().size);
  Type type = Builder(context.getContext()).getF32Type();
  std::optional<Dimension> fill;
  if (Attribute value = context.getNode().getAttributeValue("value")) {
    auto tensor = dyn_cast<TensorAttr>(value);
    auto typed = tensor ? dyn_cast<TypedAttr>(tensor.getValue()) : TypedAttr();
    if (!typed)
      return context.reject();
    auto tensorType = cast<ShapedType>(typed.getType());
    type = tensorType.getElementType();
    if (tensorType.hasStaticShape() && tensorType.getNumElements() == 1)
      if (auto integers = getIntegers(typed))
        fill = fixed(integers->front());
  }
  if (shape)
    for (const Dimension &dimension : *shape)
      if (dimension.isStatic() && dimension.size < 0)
        return context.reject();
  context.set(0, type, shape);
  if (shape && fill && shape->size() <= 1) {
    Dimension count = shape->empty() ? fixed(1) : shape->front();
    if (count.isStatic() && count.size <= kMaxShapeElements)
      context.setValue(0, Shape(count.size, *fill));
  }
}

//===----------------------------------------------------------------------===//
// Range
//===----------------------------------------------------------------------===//

/// Elements of a Range: max(ceil((limit − start) / delta), 0).
static Dimension countRange(const Dimension &start, const Dimension &limit,
                            const Dimension &delta) {
  if (!delta.isStatic() || delta.size == 0)
    return {};
  Dimension distance = subtractDimensions(limit, start);
  if (!distance.isStatic())
    return delta.size == 1 && distance.symbol ? distance : Dimension();
  bool hasElements = delta.size > 0 ? distance.size > 0 : distance.size < 0;
  if (!hasElements)
    return fixed(0);
  int64_t toward = delta.size > 0 ? distance.size - 1 : distance.size + 1;
  return fixed(toward / delta.size + 1);
}

static void inferRange(RuleContext &context) {
  Type type;
  for (unsigned i = 0; i < context.getNumInputs() && !type; ++i)
    type = context.getElementType(i);
  std::optional<Shape> start = context.getValue(0), limit = context.getValue(1),
                       delta = context.getValue(2);
  auto isScalar = [](const std::optional<Shape> &value) {
    return value && value->size() == 1;
  };
  if (!isScalar(start) || !isScalar(limit) || !isScalar(delta)) {
    auto a = context.getFloats(0), b = context.getFloats(1),
         c = context.getFloats(2);
    Shape shape(1);
    if (a && b && c && a->size() == 1 && b->size() == 1 && c->size() == 1 &&
        isa_and_present<Float32Type>(type)) {
      double count = std::ceil(((*b)[0] - (*a)[0]) * 1.0 / (*c)[0]);
      if (count >= 0 && count < 1e15)
        shape[0] = fixed(static_cast<int64_t>(count));
    }
    return context.set(0, type, shape);
  }
  Dimension count = countRange(start->front(), limit->front(), delta->front());
  context.set(0, type, Shape{count});
  if (!count.isStatic() || count.size > kMaxShapeElements ||
      !start->front().isStatic())
    return;
  Shape value;
  for (int64_t i = 0; i < count.size; ++i)
    value.push_back(fixed(start->front().size + i * delta->front().size));
  context.setValue(0, value);
}

//===----------------------------------------------------------------------===//
// Random and patterned tensors
//===----------------------------------------------------------------------===//

static void inferRandom(RuleContext &context) {
  auto sizes = context.getInts("shape");
  Type type = context.getDataType("dtype");
  if (!type)
    type = Builder(context.getContext()).getF32Type();
  if (!sizes)
    return context.set(0, type);
  Shape shape;
  for (int64_t size : *sizes) {
    if (size < 0)
      return context.reject();
    shape.push_back(fixed(size));
  }
  context.set(0, type, shape);
}

static void inferLike(RuleContext &context) {
  Type type = context.getDataType("dtype");
  context.set(0, type ? type : context.getElementType(0), context.getShape(0));
}

static void inferMultinomial(RuleContext &context) {
  Type type = context.getDataType("dtype");
  auto shape = context.getShape(0);
  Dimension batch = shape && shape->size() == 2 ? (*shape)[0] : Dimension();
  context.set(0, type ? type : Builder(context.getContext()).getI32Type(),
              Shape{batch, fixed(context.getInt("sample_size", 1))});
}

static void inferWindow(RuleContext &context) {
  Type type = context.getNode().getAttributeValue("output_datatype")
                  ? context.getDataType("output_datatype")
                  : Builder(context.getContext()).getF32Type();
  auto size = context.getValue(0);
  context.set(0, type,
              Shape{size && size->size() == 1 ? size->front() : Dimension()});
}

void onnx::addSourceRules(ShapeRules &rules) {
  rules.add({"Constant"}, inferConstant);
  rules.add({"ConstantOfShape"}, inferConstantOfShape);
  rules.add({"Range"}, inferRange);
  rules.add({"RandomNormal", "RandomUniform"}, inferRandom);
  rules.add({"RandomNormalLike", "RandomUniformLike", "Bernoulli", "EyeLike"},
            inferLike);
  rules.add({"Multinomial"}, inferMultinomial);
  rules.add({"BlackmanWindow", "HammingWindow", "HannWindow"}, inferWindow);
}
