//===- Elementwise.cpp - Shapes of elementwise ops ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Dimensions
//===----------------------------------------------------------------------===//

std::optional<int64_t> onnx::normalizeAxis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank)
    return std::nullopt;
  return axis < 0 ? axis + rank : axis;
}

Dimension onnx::addDimensions(const Dimension &left, const Dimension &right) {
  if (left.isStatic() && left.size == 0)
    return right;
  if (right.isStatic() && right.size == 0)
    return left;
  int64_t sum;
  if (!left.isStatic() || !right.isStatic() ||
      llvm::AddOverflow(left.size, right.size, sum))
    return {};
  return fixed(sum);
}

Dimension onnx::subtractDimensions(const Dimension &left,
                                   const Dimension &right) {
  if (right.isStatic() && right.size == 0)
    return left;
  if (left.isKnownEqual(right))
    return fixed(0);
  int64_t difference;
  if (!left.isStatic() || !right.isStatic() ||
      llvm::SubOverflow(left.size, right.size, difference))
    return {};
  return fixed(difference);
}

Dimension onnx::multiplyDimensions(const Dimension &left,
                                   const Dimension &right) {
  for (const auto &[one, other] : {std::pair(left, right), {right, left}}) {
    if (one.isStatic() && one.size == 0)
      return fixed(0);
    if (one.isStatic() && one.size == 1)
      return other;
  }
  int64_t product;
  if (!left.isStatic() || !right.isStatic() ||
      llvm::MulOverflow(left.size, right.size, product))
    return {};
  return fixed(product);
}

Dimension onnx::divideDimensions(const Dimension &left,
                                 const Dimension &right) {
  if (right.isStatic() && right.size == 1)
    return left;
  // The one quotient that overflows is of the least number by -1, and the least
  // number stands for "unknown".
  if (!left.isStatic() || !right.isStatic() || right.size == 0)
    return {};
  return fixed(left.size / right.size);
}

/// A dimension that two operands share by broadcasting; false where they
/// cannot.
static bool broadcastDimension(const Dimension &left, const Dimension &right,
                               Dimension &result) {
  auto isFixed = [](const Dimension &dimension, bool one) {
    return dimension.isStatic() && (dimension.size == 1) == one;
  };
  if (isFixed(left, false) && isFixed(right, false)) {
    result = left;
    return left.size == right.size;
  }
  if (isFixed(left, true) || isFixed(right, false))
    result = right;
  else if (isFixed(right, true) || isFixed(left, false))
    result = left;
  else if (left.isKnownEqual(right))
    result = left;
  else
    result = Dimension();
  return true;
}

std::optional<Shape> onnx::broadcast(ArrayRef<Dimension> left,
                                     ArrayRef<Dimension> right) {
  size_t rank = std::max(left.size(), right.size());
  Shape result(rank);
  for (size_t i = 0; i < rank; ++i) {
    Dimension a = i < left.size() ? left[left.size() - 1 - i] : fixed(1);
    Dimension b = i < right.size() ? right[right.size() - 1 - i] : fixed(1);
    if (!broadcastDimension(a, b, result[rank - 1 - i]))
      return std::nullopt;
  }
  return result;
}

std::optional<Shape> onnx::broadcastInputs(RuleContext &context,
                                           ArrayRef<unsigned> inputs) {
  std::optional<Shape> result = Shape();
  for (unsigned input : inputs) {
    std::optional<Shape> shape = context.getShape(input);
    if (!shape)
      return std::nullopt;
    result = broadcast(*result, *shape);
    if (!result) {
      context.reject();
      return std::nullopt;
    }
  }
  return result;
}

//===----------------------------------------------------------------------===//
// Rules
//===----------------------------------------------------------------------===//

void onnx::inferSameAsFirst(RuleContext &context) {
  context.setType(0, context.getType(0));
}

static void inferIdentity(RuleContext &context) {
  inferSameAsFirst(context);
  if (auto value = context.getValue(0))
    context.setValue(0, *value);
}

/// The element type that all operands share; only one may be known yet.
static Type getCommonElementType(RuleContext &context, unsigned first = 0) {
  for (unsigned i = first; i < context.getNumInputs(); ++i)
    if (Type type = context.getElementType(i))
      return type;
  return {};
}

static std::optional<Shape> broadcastAll(RuleContext &context) {
  return broadcastInputs(
      context, llvm::to_vector(llvm::seq(0u, context.getNumInputs())));
}

static void inferBroadcast(RuleContext &context) {
  if (context.getNumInputs() == 0)
    return context.reject();
  context.set(0, getCommonElementType(context), broadcastAll(context));
}

/// Operands of other types than the first's: BitShift, Pow, PRelu.
static void inferBroadcastOfFirstType(RuleContext &context) {
  context.set(0, context.getElementType(0), broadcastInputs(context, {0, 1}));
}

static void inferComparison(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI1Type(),
              broadcastInputs(context, {0, 1}));
}

/// Before opset 7 the second operand is fitted to the first.
static void inferOldComparison(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI1Type(),
              context.getShape(0));
}

static void inferWhere(RuleContext &context) {
  context.set(0, getCommonElementType(context, /*first=*/1),
              broadcastInputs(context, {0, 1, 2}));
  auto condition = context.getIntegers(0);
  auto left = context.getValue(1), right = context.getValue(2);
  if (!left || !right)
    return;
  // Both branches may agree even where the condition is unknown.
  size_t size = std::max(left->size(), right->size());
  if (condition)
    size = std::max(size, condition->size());
  Shape value;
  for (size_t i = 0; i < size; ++i) {
    if ((left->size() != 1 && left->size() != size) ||
        (right->size() != 1 && right->size() != size) ||
        (condition && condition->size() != 1 && condition->size() != size))
      return;
    const Dimension &a = (*left)[left->size() == 1 ? 0 : i];
    const Dimension &b = (*right)[right->size() == 1 ? 0 : i];
    if (condition)
      value.push_back((*condition)[condition->size() == 1 ? 0 : i] ? a : b);
    else
      value.push_back(a.isKnownEqual(b) ? a : Dimension());
  }
  // An unknown condition may be longer than the branches.
  if (condition || size > 1)
    context.setValue(0, value);
}

static void inferPredicate(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI1Type(),
              context.getShape(0));
}

/// True where `value` is an element of the integer type.
static bool fits(int64_t value, Type type) {
  auto integer = dyn_cast<IntegerType>(type);
  if (!integer || integer.getWidth() == 1)
    return integer && (value == 0 || value == 1);
  if (integer.isUnsigned())
    return value >= 0 && (integer.getWidth() >= 64 ||
                          llvm::isUIntN(integer.getWidth(), value));
  return llvm::isIntN(integer.getWidth(), value);
}

/// The elements of an integer tensor after a conversion. Sizes fit 32 bits.
static void convertValue(RuleContext &context, Type type) {
  std::optional<Shape> value = context.getValue(0);
  auto integer = dyn_cast_if_present<IntegerType>(type);
  if (!value || !integer)
    return;
  for (Dimension &element : *value)
    if (element.isStatic() ? !fits(element.size, type)
                           : integer.getWidth() < 32)
      element = Dimension();
  context.setValue(0, *value);
}

static void inferCast(RuleContext &context) {
  Type type = context.getDataType("to");
  context.set(0, type, context.getShape(0));
  convertValue(context, type);
}

static void inferCastLike(RuleContext &context) {
  Type type = context.getElementType(1);
  context.set(0, type, context.getShape(0));
  convertValue(context, type);
}

/// BitCast keeps the last dimension's bits.
static void inferBitCast(RuleContext &context) {
  Type from = context.getElementType(0), to = context.getDataType("to");
  if (!from || !to || getBitWidth(from) != getBitWidth(to))
    return;
  context.set(0, to, context.getShape(0));
}

using Arithmetic = Dimension (*)(const Dimension &, const Dimension &);

/// Elementwise arithmetic on shape tensors.
static void inferArithmeticValue(RuleContext &context, Arithmetic arithmetic) {
  Type type = getCommonElementType(context);
  auto left = context.getValue(0), right = context.getValue(1);
  if (!left || !right || !isa_and_present<IntegerType>(type))
    return;
  size_t size = left->size() == 1 ? right->size() : left->size();
  if (right->size() != 1 && right->size() != size)
    return;
  Shape value;
  for (size_t i = 0; i < size; ++i) {
    Dimension element = arithmetic((*left)[left->size() == 1 ? 0 : i],
                                   (*right)[right->size() == 1 ? 0 : i]);
    // The product wraps in narrow types.
    if (element.isStatic() && !fits(element.size, type))
      element = Dimension();
    value.push_back(element);
  }
  context.setValue(0, value);
}

template <Arithmetic arithmetic>
static void inferArithmetic(RuleContext &context) {
  inferBroadcast(context);
  inferArithmeticValue(context, arithmetic);
}

/// Half of the last dimension stays.
static void inferHalved(RuleContext &context) {
  auto shape = context.getShape(0);
  if (shape && shape->empty())
    return context.reject();
  if (shape)
    shape->back() = divideDimensions(shape->back(), fixed(2));
  context.set(0, context.getElementType(0), shape);
}

void onnx::addElementwiseRules(ShapeRules &rules) {
  rules.add({"Abs",
             "Acos",
             "Acosh",
             "Asin",
             "Asinh",
             "Atan",
             "Atanh",
             "BitwiseNot",
             "Ceil",
             "Celu",
             "Clip",
             "Cos",
             "Cosh",
             "CumProd",
             "CumSum",
             "Elu",
             "Erf",
             "Exp",
             "Floor",
             "Gelu",
             "HardSigmoid",
             "HardSwish",
             "Hardmax",
             "LeakyRelu",
             "Log",
             "LogSoftmax",
             "Mish",
             "Neg",
             "Not",
             "Reciprocal",
             "Relu",
             "Round",
             "Selu",
             "Shrink",
             "Sigmoid",
             "Sign",
             "Sin",
             "Sinh",
             "Softmax",
             "Softplus",
             "Softsign",
             "Sqrt",
             "SwiGLU",
             "Swish",
             "Tan",
             "Tanh",
             "ThresholdedRelu",
             "Trilu",
             "Add",
             "Sub",
             "Mul",
             "Div",
             "Pow",
             "Max",
             "Min",
             "Mean",
             "Sum",
             "PRelu",
             "ReverseSequence"},
            inferSameAsFirst);
  rules.add({"Identity"}, inferIdentity);
  rules.add({"Add"}, inferArithmetic<addDimensions>, 7);
  rules.add({"Sub"}, inferArithmetic<subtractDimensions>, 7);
  rules.add({"Mul"}, inferArithmetic<multiplyDimensions>, 7);
  rules.add({"Div"}, inferArithmetic<divideDimensions>, 7);
  rules.add({"Max", "Min", "Mean", "Sum"}, inferBroadcast, 8);
  rules.add({"Mod", "BitwiseAnd", "BitwiseOr", "BitwiseXor"}, inferBroadcast);
  rules.add({"BitShift"}, inferBroadcastOfFirstType);
  rules.add({"Pow"}, inferBroadcastOfFirstType, 7);
  rules.add({"Equal", "Greater", "Less", "And", "Or", "Xor"},
            inferOldComparison);
  rules.add({"Equal", "Greater", "Less", "And", "Or", "Xor"}, inferComparison,
            7);
  rules.add({"GreaterOrEqual", "LessOrEqual"}, inferComparison);
  rules.add({"IsInf", "IsNaN"}, inferPredicate);
  rules.add({"Where"}, inferWhere);
  rules.add({"Cast"}, inferCast);
  rules.add({"CastLike"}, inferCastLike);
  rules.add({"BitCast"}, inferBitCast);
  for (StringRef opType : {"Gelu", "FastGelu", "BiasGelu", "QuickGelu"})
    rules.add("com.microsoft", opType, 1, inferSameAsFirst);
  rules.add("com.microsoft", "BiasSplitGelu", 1, inferHalved);
}
