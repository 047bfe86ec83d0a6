//===- Reduction.cpp - Shapes of reductions -------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The shape left after the axes are reduced; all of them where none is given.
static std::optional<Shape> reduce(RuleContext &context, bool isGiven,
                                   std::optional<SmallVector<int64_t>> axes) {
  auto shape = context.getShape(0);
  bool keep = context.getInt("keepdims", 1) != 0;
  if (!shape)
    return std::nullopt;
  int64_t rank = shape->size();
  if (isGiven && !axes) {
    if (keep)
      return Shape(rank);
    // The number of axes says the rank, unless an empty list means all.
    auto count = context.getShape(1);
    if (!count || count->size() != 1 || !count->front().isStatic() ||
        count->front().size < 1 || count->front().size > rank)
      return std::nullopt;
    return Shape(rank - count->front().size);
  }
  if (!axes || axes->empty()) {
    if (context.getInt("noop_with_empty_axes", 0) != 0)
      return shape;
    axes = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  }
  for (int64_t &axis : *axes) {
    auto position = normalizeAxis(axis, rank);
    if (!position) {
      context.reject();
      return std::nullopt;
    }
    axis = *position;
  }
  Shape result;
  for (int64_t i = 0; i < rank; ++i) {
    bool isReduced = llvm::is_contained(*axes, i);
    if (isReduced && keep)
      result.push_back(fixed(1));
    else if (!isReduced)
      result.push_back((*shape)[i]);
  }
  return result;
}

static void inferReduce(RuleContext &context) {
  bool isGiven;
  auto axes = context.getIntegersOrAttribute(1, "axes", isGiven);
  context.set(0, context.getElementType(0), reduce(context, isGiven, axes));
}

/// The product of a shape is its number of elements.
static void inferReduceProd(RuleContext &context) {
  inferReduce(context);
  auto value = context.getValue(0);
  auto shape = context.getShape(0);
  if (!value || !shape || shape->size() != 1)
    return;
  Dimension product = fixed(1);
  for (const Dimension &element : *value)
    product = multiplyDimensions(product, element);
  context.setValue(0, {product});
}

static void inferArgument(RuleContext &context) {
  SmallVector<int64_t> axes{context.getInt("axis", 0)};
  context.set(0, Builder(context.getContext()).getI64Type(),
              reduce(context, /*isGiven=*/true, axes));
}

static void inferTopK(RuleContext &context) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  Type indexType = Builder(context.getContext()).getI64Type();
  if (!shape) {
    context.set(0, type);
    return context.set(1, indexType);
  }
  auto axis = normalizeAxis(context.getInt("axis", -1), shape->size());
  if (!axis)
    return context.reject();
  Dimension count;
  if (context.getVersion() < 10)
    count = fixed(context.getInt("k", -1));
  else if (auto value = context.getValue(1); value && value->size() == 1)
    count = value->front();
  if (count.isStatic() && count.size < 0)
    return context.reject();
  (*shape)[*axis] = count;
  context.set(0, type, shape);
  context.set(1, indexType, shape);
}

/// Scores [batch, classes, …] and labels [batch, …] → the loss, and the
/// logarithms of the probabilities.
static void inferLoss(RuleContext &context) {
  Type type = context.getElementType(0);
  bool isReduced = context.getString("reduction", "mean") != "none";
  context.set(0, type,
              isReduced ? std::optional(Shape()) : context.getShape(1));
  context.setType(1, context.getType(0));
}

void onnx::addReductionRules(ShapeRules &rules) {
  rules.add({"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
             "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
             "ReduceSumSquare"},
            inferReduce);
  rules.add({"ReduceProd"}, inferReduceProd);
  rules.add({"ArgMax", "ArgMin"}, inferArgument);
  rules.add({"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"},
            inferLoss);
  rules.add({"TopK"}, inferTopK);
}
