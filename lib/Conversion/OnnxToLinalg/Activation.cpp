//===- Activation.cpp - Hardmax, gated and fused activations --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Those of the domain com.microsoft are described in
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

template <typename Op> static Value apply(ScalarBuilder &scalar, Value x) {
  return Op::create(scalar.builder, scalar.loc, x);
}

//===----------------------------------------------------------------------===//
// Formulas
//===----------------------------------------------------------------------===//

static Value buildSigmoid(ScalarBuilder &scalar, Value x) {
  Value one = scalar.constant(x.getType(), 1);
  return scalar.div(one,
                    scalar.add(one, apply<math::ExpOp>(scalar, scalar.neg(x))));
}

static Value buildGelu(ScalarBuilder &scalar, Value x) {
  auto constant = [&](double value) {
    return scalar.constant(x.getType(), value);
  };
  Value inner = apply<math::ErfOp>(
      scalar, scalar.mul(x, constant(0.70710678118654752440)));
  return scalar.mul(scalar.mul(constant(0.5), x),
                    scalar.add(constant(1), inner));
}

static Value buildTanhGelu(ScalarBuilder &scalar, Value x) {
  auto constant = [&](double value) {
    return scalar.constant(x.getType(), value);
  };
  Value cube = scalar.mul(scalar.mul(x, x), x);
  Value inner = scalar.add(x, scalar.mul(constant(0.044715), cube));
  inner = apply<math::TanhOp>(
      scalar, scalar.mul(constant(0.79788456080286535588), inner));
  return scalar.mul(scalar.mul(constant(0.5), x),
                    scalar.add(constant(1), inner));
}

//===----------------------------------------------------------------------===//
// Elementwise
//===----------------------------------------------------------------------===//

/// function(x + bias), where the bias may be left out.
static LogicalResult convertBiased(NodeContext &context,
                                   Value (*function)(ScalarBuilder &, Value)) {
  SmallVector<Value> tensors{context.getInput(0)};
  SmallVector<RankedTensorType> types{context.getInputType(0)};
  if (!context.isAbsent(1)) {
    tensors.push_back(context.getInput(1));
    types.push_back(context.getInputType(1));
    if (types[1].getRank() > types[0].getRank())
      return context.fail("the bias has more dimensions than the input");
  }
  return context.replace(
      buildBroadcast(context, tensors, types, context.getElementType(0),
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value x = args[0];
                       if (args.size() > 1)
                         x = scalar.add(x, args[1]);
                       return function(scalar, x);
                     }));
}

/// x · sigmoid(alpha · x)
static LogicalResult convertQuickGelu(NodeContext &context) {
  double alpha = context.node.getFloat("alpha", 1.702f);
  return context.replace(buildBroadcast(
      context, context.getInput(0), context.getInputType(0),
      context.getElementType(0), [&](ScalarBuilder &scalar, ValueRange args) {
        Value x = args[0];
        Value scaled = scalar.mul(scalar.constant(x.getType(), alpha), x);
        return scalar.mul(x, buildSigmoid(scalar, scaled));
      }));
}

/// a · sigmoid(alpha · a) · b
static LogicalResult convertSwiGLU(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  if (context.getInputType(1).getRank() != type.getRank())
    return context.fail("expects two inputs of the same shape");
  double alpha = context.node.getFloat("alpha", 1);
  Type element = type.getElementType();
  Value a = context.getInput(0), b = context.getInput(1);
  SizeMath math(context);
  for (auto [left, right] : llvm::zip(context.getSizes(a), context.getSizes(b)))
    if (failed(math.requireEqual(left, right,
                                 "expects two inputs of the same shape")))
      return failure();
  return context.replace(buildMapped(
      context,
      {makeOperand(context, a, element), makeOperand(context, b, element)},
      context.getSizes(a), element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value x = args[0];
        Value scaled = scalar.mul(scalar.constant(x.getType(), alpha), x);
        Value gate = buildSigmoid(scalar, scaled);
        // The gate and what it passes are rounded as numbers of their own.
        bool isNarrow = isa<Float16Type, BFloat16Type>(element);
        if (isNarrow)
          gate = scalar.roundTo(gate, element);
        Value passed = scalar.mul(x, gate);
        if (isNarrow)
          passed = scalar.roundTo(passed, element);
        return scalar.mul(passed, args[1]);
      }));
}

/// The first half of the last dimension, with the bias, times gelu of the
/// second.
static LogicalResult convertBiasSplitGelu(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t last = type.getRank() - 1;
  if (last < 0 || context.getInputType(1).getRank() != 1)
    return context.fail("expects an input with dimensions and a bias of one");
  Value x = context.getInput(0), bias = context.getInput(1);
  SizeMath math(context);
  Sizes sizes = context.getSizes(x);
  OpFoldResult half = math.floorDiv(sizes[last], math.constant(2));
  if (failed(math.requireEqual(getSize(context.rewriter, context.loc, bias, 0),
                               sizes[last],
                               "the bias has not the input's size")))
    return failure();
  sizes[last] = half;
  Type element = type.getElementType();
  return context.replace(buildMapped(
      context, {}, sizes, element, [&](ScalarBuilder &scalar, ValueRange) {
        SmallVector<Value> at;
        for (int64_t axis = 0; axis <= last; ++axis)
          at.push_back(
              linalg::IndexOp::create(scalar.builder, scalar.loc, axis));
        auto read = [&]() {
          return scalar.add(extractNumber(scalar, x, element, at),
                            extractNumber(scalar, bias, element, at.back()));
        };
        Value value = read();
        at.back() = scalar.add(
            at.back(), nibble::toValue(scalar.builder, scalar.loc, half));
        return scalar.mul(value, buildGelu(scalar, read()));
      }));
}

//===----------------------------------------------------------------------===//
// FusedMatMul
//===----------------------------------------------------------------------===//

/// Swaps the last two dimensions, and with `batch` moves the first one behind
/// the other batch dimensions.
static Value transposeFactor(NodeContext &context, Value tensor,
                             RankedTensorType &type, bool swaps, bool batch) {
  int64_t rank = type.getRank();
  SmallVector<int64_t> order = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  if (batch && rank > 2) {
    order.erase(order.begin());
    order.insert(order.end() - 1, 0);
  }
  if (swaps && rank > 1)
    std::swap(order[rank - 2], order[rank - 1]);
  SmallVector<Dimension> own = getDimensions(type), dimensions;
  for (int64_t axis : order)
    dimensions.push_back(own[axis]);
  type = getTensorType(dimensions, type.getElementType());
  return buildTranspose(context, tensor, order);
}

/// alpha · A · B, each transposed where the node says so.
static LogicalResult convertFusedMatMul(NodeContext &context) {
  NodeOp node = context.node;
  Value factors[2];
  RankedTensorType types[2];
  for (unsigned i : {0u, 1u}) {
    factors[i] = context.getInput(i);
    types[i] = context.getInputType(i);
    bool swaps = node.getInt(i == 0 ? "transA" : "transB", 0) != 0;
    bool batch = node.getInt(i == 0 ? "transBatchA" : "transBatchB", 0) != 0;
    if (swaps || batch)
      factors[i] = transposeFactor(context, factors[i], types[i], swaps, batch);
  }
  Type element = types[0].getElementType();
  Type computed = getComputedType(element);
  auto product = buildAnyMatMul(context, factors[0], types[0], factors[1],
                                types[1], computed);
  if (failed(product))
    return failure();
  double alpha = node.getFloat("alpha", 1);
  return context.replace(buildMapped(
      context, makeOperand(context, *product, computed),
      context.getSizes(*product), element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        return alpha == 1
                   ? args[0]
                   : scalar.mul(scalar.constant(computed, alpha), args[0]);
      }));
}

//===----------------------------------------------------------------------===//
// Hardmax
//===----------------------------------------------------------------------===//

/// 1 for the first of the largest elements along an axis, 0 for the others.
static LogicalResult convertHardmax(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank();
  // Until version 12 all dimensions from the axis on are taken together.
  bool together = context.version < 13;
  auto axis =
      normalizeAxis(context.node.getInt("axis", together ? 1 : -1), rank);
  if (!axis)
    return context.fail("axis is out of range");
  Value x = context.getInput(0);
  Sizes own = context.getSizes(x);
  if (together && rank - *axis > 1)
    x = mergeDimensions(context, x, *axis, rank - *axis);
  Type element = type.getElementType(), computed = getComputedType(element);
  Type indexType = context.rewriter.getIndexType();
  Sizes sizes = context.getSizes(x);
  SmallVector<int64_t> kept = getOtherAxes(sizes.size(), *axis);
  Sizes outer = dropAxes(context, x, *axis, /*keep=*/false);
  ScalarBuilder scalar = context.scalar();
  Operand operand = makeOperand(context, x, element);
  Value maxima =
      buildFolded(context, operand, sizes.size(), kept,
                  buildFilled(context, outer, scalar.infinity(computed, true)),
                  [](ScalarBuilder &body, ValueRange args) {
                    return body.max(args[1], args[0]);
                  });
  Operand largest = makeOperand(context, maxima, computed, kept);
  auto here = [&](ScalarBuilder &body) -> Value {
    return linalg::IndexOp::create(body.builder, body.loc, *axis);
  };
  Value places =
      buildFolded(context, {operand, largest}, sizes.size(), kept,
                  buildFilled(context, outer, scalar.index(-1)),
                  [&](ScalarBuilder &body, ValueRange args) {
                    Value isFirst = arith::AndIOp::create(
                        body.builder, body.loc, body.equal(args[0], args[1]),
                        body.equal(args[2], body.index(-1)));
                    return body.select(isFirst, here(body), args[2]);
                  });
  Value result =
      buildMapped(context, makeOperand(context, places, indexType, kept), sizes,
                  element, [&](ScalarBuilder &body, ValueRange args) {
                    return body.select(body.equal(args[0], here(body)),
                                       body.constant(computed, 1),
                                       body.constant(computed, 0));
                  });
  if (together && rank - *axis > 1)
    result =
        splitDimension(context, result, *axis, ArrayRef(own).drop_front(*axis));
  return context.replace(result);
}

void nibble::addActivationConversions(NodeConversions &conversions) {
  conversions.add("Hardmax", 1, convertHardmax);
  conversions.add("SwiGLU", 1, convertSwiGLU);
  StringRef microsoft = "com.microsoft";
  auto addBiased = [&](StringRef opType,
                       Value (*function)(ScalarBuilder &, Value)) {
    conversions.add(microsoft, opType, 1, [function](NodeContext &context) {
      return convertBiased(context, function);
    });
  };
  addBiased("BiasGelu", buildGelu);
  addBiased("Gelu", buildGelu);
  addBiased("FastGelu", buildTanhGelu);
  conversions.add(microsoft, "QuickGelu", 1, convertQuickGelu);
  conversions.add(microsoft, "BiasSplitGelu", 1, convertBiasSplitGelu);
  conversions.add(microsoft, "FusedMatMul", 1, convertFusedMatMul);
}
