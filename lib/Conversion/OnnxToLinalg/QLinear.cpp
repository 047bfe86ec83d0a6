//===- QLinear.cpp - Nodes of com.microsoft that work on linear codes -----===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Each works on the numbers that its codes stand for, in f32, and rounds the
// result to a code once. They are described in
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Elementwise
//===----------------------------------------------------------------------===//

/// Inputs: a, its scale and zero point, b, its scale and zero point, and those
/// of the result.
static LogicalResult convertBinary(NodeContext &context,
                                   Value (ScalarBuilder::*function)(Value,
                                                                    Value)) {
  Type element = context.getElementType(0);
  if (context.isAbsent(3) || context.getElementType(3) != element)
    return context.fail("expects two operands of the same type");
  auto a = getLinearCode(context, element, 1, 2);
  auto b = getLinearCode(context, element, 4, 5);
  auto result = getLinearCode(context, element, 6, 7);
  if (failed(a) || failed(b) || failed(result))
    return failure();
  return context.replace(buildBroadcast(
      context, {context.getInput(0), context.getInput(3)},
      {context.getInputType(0), context.getInputType(3)}, element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value number = (scalar.*function)(a->dequantize(scalar, args[0]),
                                          b->dequantize(scalar, args[1]));
        return result->quantize(scalar, number);
      }));
}

using Function = Value (*)(ScalarBuilder &, Value, NodeOp);

/// Inputs: x, its scale and zero point, and those of the result.
static LogicalResult convertUnary(NodeContext &context, Function function) {
  Type element = context.getElementType(0);
  auto from = getLinearCode(context, element, 1, 2);
  auto to = getLinearCode(context, element, 3, 4);
  if (failed(from) || failed(to))
    return failure();
  Value x = context.getInput(0);
  return context.replace(buildMapped(
      context, makeOperand(context, x, element), context.getSizes(x), element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value number = from->dequantize(scalar, args[0]);
        return to->quantize(scalar, function(scalar, number, context.node));
      }));
}

static Value buildSigmoid(ScalarBuilder &scalar, Value x, NodeOp) {
  Value one = scalar.constant(x.getType(), 1);
  Value power = math::ExpOp::create(scalar.builder, scalar.loc, scalar.neg(x));
  return scalar.div(one, scalar.add(one, power));
}

static Value buildLeakyRelu(ScalarBuilder &scalar, Value x, NodeOp node) {
  Value alpha = scalar.constant(x.getType(), node.getFloat("alpha", 0.01f));
  Value isNegative = scalar.less(x, scalar.constant(x.getType(), 0));
  return scalar.select(isNegative, scalar.mul(alpha, x), x);
}

//===----------------------------------------------------------------------===//
// QLinearSoftmax
//===----------------------------------------------------------------------===//

/// Inputs: x, its scale and zero point, and those of the result. The attribute
/// `opset` says whose Softmax it is.
static LogicalResult convertSoftmax(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank();
  Type element = type.getElementType(), f32 = context.rewriter.getF32Type();
  Type i32 = context.rewriter.getI32Type();
  auto from = getLinearCode(context, element, 1, 2);
  auto to = getLinearCode(context, element, 3, 4);
  auto axis = normalizeAxis(context.node.getInt("axis", -1), rank);
  if (failed(from) || failed(to))
    return failure();
  if (!axis)
    return context.fail("axis is out of range");
  // Until version 12 all dimensions from the axis on are taken together.
  SmallVector<int64_t> axes{*axis};
  if (context.node.getInt("opset", 13) < 13)
    axes = llvm::to_vector(llvm::seq<int64_t>(*axis, rank));
  SmallVector<int64_t> kept = getOtherAxes(rank, axes);
  Value x = context.getInput(0);
  Sizes sizes = context.getSizes(x);
  Sizes outer = dropAxes(context, x, axes, /*keep=*/false);
  Operand operand = makeOperand(context, x, element);
  ScalarBuilder scalar = context.scalar();
  Value lowest = scalar.integer(i32, std::numeric_limits<int32_t>::min());
  Value maxima = buildFolded(
      context, operand, rank, kept, buildFilled(context, outer, lowest),
      [&](ScalarBuilder &body, ValueRange args) {
        return body.max(args[1], from->center(body, args[0]));
      });
  Operand largest = makeOperand(context, maxima, i32, kept);
  auto exponential = [&](ScalarBuilder &body, Value code, Value most) -> Value {
    Value distance = body.sub(from->center(body, code), most);
    Value number = body.mul(body.convert(distance, i32, f32), from->scale);
    return math::ExpOp::create(body.builder, body.loc, number);
  };
  Value sums = buildFolded(context, {operand, largest}, rank, kept,
                           buildFilled(context, outer, scalar.constant(f32, 0)),
                           [&](ScalarBuilder &body, ValueRange args) {
                             return body.add(
                                 args[2], exponential(body, args[0], args[1]));
                           });
  return context.replace(buildMapped(
      context, {operand, largest, makeOperand(context, sums, f32, kept)}, sizes,
      element, [&](ScalarBuilder &body, ValueRange args) {
        Value number = exponential(body, args[0], args[1]);
        return to->quantize(body, body.div(number, args[2]));
      }));
}

//===----------------------------------------------------------------------===//
// QLinearConcat
//===----------------------------------------------------------------------===//

/// Inputs: the result's scale and zero point, and then each part with its own.
static LogicalResult convertConcat(NodeContext &context) {
  unsigned count = context.getNumInputs();
  if (count < 5 || count % 3 != 2)
    return context.fail("expects a scale and a zero point for each part");
  Type element = context.getElementType(2);
  int64_t rank = context.getInputType(2).getRank();
  auto to = getLinearCode(context, element, 0, 1);
  auto axis = normalizeAxis(context.node.getInt("axis", 0), rank);
  if (failed(to))
    return failure();
  if (!axis)
    return context.fail("axis is out of range");
  SizeMath math(context);
  OpFoldResult zero = math.constant(0), position = zero;
  SmallVector<Value> parts;
  Sizes starts, sizes = context.getSizes(context.getInput(2));
  for (unsigned input = 2; input < count; input += 3) {
    if (context.getElementType(input) != element ||
        context.getInputType(input).getRank() != rank)
      return context.fail("expects parts of the same type and rank");
    auto from = getLinearCode(context, element, input + 1, input + 2);
    if (failed(from))
      return failure();
    Value x = context.getInput(input);
    Sizes own = context.getSizes(x);
    for (int64_t i = 0; i < rank; ++i)
      if (i != *axis &&
          failed(math.requireEqual(own[i], sizes[i],
                                   "expects parts that differ along the axis "
                                   "alone")))
        return failure();
    parts.push_back(buildMapped(
        context, makeOperand(context, x, element), own, element,
        [&](ScalarBuilder &scalar, ValueRange args) {
          return to->quantize(scalar, from->dequantize(scalar, args[0]));
        }));
    starts.push_back(position);
    position = math.add(position, own[*axis]);
  }
  sizes[*axis] = position;
  Value result = tensor::EmptyOp::create(context.rewriter, context.loc, sizes,
                                         getStoredType(element));
  for (auto [part, start] : llvm::zip(parts, starts)) {
    Sizes offsets(rank, zero), steps(rank, math.constant(1));
    offsets[*axis] = start;
    result = tensor::InsertSliceOp::create(context.rewriter, context.loc, part,
                                           result, offsets,
                                           context.getSizes(part), steps);
  }
  return context.replace(result);
}

//===----------------------------------------------------------------------===//
// QGemm
//===----------------------------------------------------------------------===//

/// alpha · (A - zero) · (B - zero) + C with integers, scaled; codes where the
/// result has a scale and floats where not. Inputs: A, its scale and zero
/// point, B, its scales and zero points (one or one for each column), C, and
/// the result's scale and zero point.
static LogicalResult convertGemm(NodeContext &context) {
  NodeOp node = context.node;
  if (context.getInputType(0).getRank() != 2 ||
      context.getInputType(3).getRank() != 2)
    return context.fail("expects matrices");
  Type aElement = context.getElementType(0),
       bElement = context.getElementType(3);
  Type i32 = context.rewriter.getI32Type(), f32 = context.rewriter.getF32Type();
  auto a = getLinearCode(context, aElement, 1, 2);
  if (failed(a))
    return failure();
  bool transA = node.getInt("transA", 0) != 0;
  bool transB = node.getInt("transB", 0) != 0;
  Value left = context.getInput(0), right = context.getInput(3);
  Sizes leftSizes = context.getSizes(left),
        rightSizes = context.getSizes(right);
  Sizes sizes{leftSizes[transA], rightSizes[!transB]};
  SizeMath math(context);
  if (failed(math.requireEqual(leftSizes[!transA], rightSizes[transB],
                               "the factors' inner sizes differ")))
    return failure();
  // Loops: row, inner, column. One number, or one for each column.
  auto getColumns = [&](unsigned input, int64_t loop) -> FailureOr<Operand> {
    RankedTensorType type = context.getInputType(input);
    Value tensor = context.getInput(input);
    if (type.hasStaticShape() && type.getNumElements() == 1)
      return Operand{
          tensor, type.getElementType(),
          SmallVector<AffineExpr>(type.getRank(),
                                  context.rewriter.getAffineConstantExpr(0))};
    if (type.getRank() != 1 ||
        failed(math.requireEqual(
            getSize(context.rewriter, context.loc, tensor, 0), sizes[1],
            "expects one number, or one for each column of B")))
      return context.fail("expects one number, or one for each column of B");
    return makeOperand(context, tensor, type.getElementType(), loop);
  };
  SmallVector<Operand> operands{
      makeOperand(context, left, aElement,
                  transA ? ArrayRef<int64_t>{1, 0} : ArrayRef<int64_t>{0, 1}),
      makeOperand(context, right, bElement,
                  transB ? ArrayRef<int64_t>{2, 1} : ArrayRef<int64_t>{1, 2})};
  if (!context.isAbsent(5)) {
    auto zeros = getColumns(5, 2);
    if (failed(zeros))
      return failure();
    operands.push_back(*zeros);
  }
  Value zero = context.scalar().integer(i32, 0);
  Value sums = buildFolded(
      context, operands, 3, {0, 2}, buildFilled(context, sizes, zero),
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value y = scalar.convert(args[1], bElement, i32);
        if (operands.size() > 2)
          y = scalar.sub(y, scalar.convert(args[2], bElement, i32));
        return scalar.add(args.back(),
                          scalar.mul(a->center(scalar, args[0]), y));
      });
  auto scales = getColumns(4, 1);
  if (failed(scales))
    return failure();
  SmallVector<Value> tensors{sums};
  SmallVector<RankedTensorType> types{cast<RankedTensorType>(sums.getType())};
  if (!context.isAbsent(6)) {
    if (context.getInputType(6).getRank() > 2)
      return context.fail("expects C of at most two dimensions");
    tensors.push_back(context.getInput(6));
    types.push_back(context.getInputType(6));
    sums = buildBroadcast(context, tensors, types, i32,
                          [](ScalarBuilder &scalar, ValueRange args) {
                            return scalar.add(args[0], args[1]);
                          });
  }
  std::optional<LinearCode> to;
  Type element = f32;
  if (!context.isAbsent(7)) {
    element = context.isAbsent(8) ? aElement : context.getElementType(8);
    auto code = getLinearCode(context, element, 7, 8);
    if (failed(code))
      return failure();
    to = *code;
  }
  double alpha = node.getFloat("alpha", 1);
  return context.replace(buildMapped(
      context, {makeOperand(context, sums, i32), *scales}, sizes, element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value scale = scalar.mul(
            scalar.mul(scalar.constant(f32, alpha), a->scale), args[1]);
        Value number = scalar.mul(scalar.convert(args[0], i32, f32), scale);
        return to ? to->quantize(scalar, number) : number;
      }));
}

void nibble::addQLinearConversions(NodeConversions &conversions) {
  StringRef microsoft = "com.microsoft";
  conversions.add(microsoft, "QLinearAdd", 1, [](NodeContext &context) {
    return convertBinary(context, &ScalarBuilder::add);
  });
  conversions.add(microsoft, "QLinearMul", 1, [](NodeContext &context) {
    return convertBinary(context, &ScalarBuilder::mul);
  });
  conversions.add(microsoft, "QLinearSigmoid", 1, [](NodeContext &context) {
    return convertUnary(context, buildSigmoid);
  });
  conversions.add(microsoft, "QLinearLeakyRelu", 1, [](NodeContext &context) {
    return convertUnary(context, buildLeakyRelu);
  });
  conversions.add(microsoft, "QLinearSoftmax", 1, convertSoftmax);
  conversions.add(microsoft, "QLinearConcat", 1, convertConcat);
  conversions.add(microsoft, "QGemm", 1, convertGemm);
}
