//===- Loss.cpp - Losses, and Dropout -------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

using Iterator = utils::IteratorType;

//===----------------------------------------------------------------------===//
// NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss
//===----------------------------------------------------------------------===//

/// Folds all dimensions of a tensor into one of rank 0.
static Value
foldAll(NodeContext &context, Value tensor, Value initial,
        function_ref<Value(ScalarBuilder &, Value, Value)> combine) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  return buildReduction(
      context.rewriter, context.loc, tensor,
      {context.rewriter.getMultiDimIdentityMap(rank),
       AffineMap::get(rank, 0, context.rewriter.getContext())},
      SmallVector<Iterator>(rank, Iterator::reduction), {}, initial,
      [&](ScalarBuilder &scalar, ValueRange args) {
        return combine(scalar, args[1], args[0]);
      });
}

static Value sumAll(NodeContext &context, Value tensor, Type computed) {
  return foldAll(context, tensor, context.scalar().constant(computed, 0),
                 [](ScalarBuilder &scalar, Value sum, Value x) {
                   return scalar.add(sum, x);
                 });
}

namespace {
/// The labels of a loss, [batch, …], each the number of a class.
struct Labels {
  Value tensor;
  std::optional<int64_t> ignored;

  Value isIgnored(ScalarBuilder &scalar, Value label) const {
    return ignored
               ? scalar.equal(label, scalar.integer(label.getType(), *ignored))
               : scalar.boolean(false);
  }
  /// The class at `indices`, 0 where it is ignored.
  std::pair<Value, Value> extract(ScalarBuilder &scalar,
                                  ValueRange indices) const {
    Value label =
        tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor, indices);
    Value skip = isIgnored(scalar, label);
    Value position = arith::IndexCastOp::create(
        scalar.builder, scalar.loc, scalar.builder.getIndexType(), label);
    return {scalar.select(skip, scalar.index(0), position), skip};
  }
};
} // namespace

/// Ends the run where a label is no class.
static void checkLabels(NodeContext &context, const Labels &labels,
                        Value classes) {
  ScalarBuilder outer = context.scalar();
  Value valid = foldAll(
      context, labels.tensor, outer.boolean(true),
      [&](ScalarBuilder &scalar, Value all, Value label) -> Value {
        Value position = arith::IndexCastOp::create(
            scalar.builder, scalar.loc, scalar.builder.getIndexType(), label);
        Value inRange =
            arith::AndIOp::create(scalar.builder, scalar.loc,
                                  scalar.lessEqual(scalar.index(0), position),
                                  scalar.less(position, classes));
        Value holds = arith::OrIOp::create(scalar.builder, scalar.loc, inRange,
                                           labels.isIgnored(scalar, label));
        return arith::AndIOp::create(scalar.builder, scalar.loc, all, holds);
      });
  context.check(tensor::ExtractOp::create(context.rewriter, context.loc, valid,
                                          ValueRange()),
                "a label is no class");
}

/// The loss of log-probabilities in computed numbers, [batch, classes, …], as
/// `reduction` asks for. The mean is weighted.
static Value buildLoss(NodeContext &context, Value probabilities,
                       const Labels &labels, Value weights, Type weightElement,
                       StringRef reduction) {
  ConversionPatternRewriter &rewriter = context.rewriter;
  Type computed =
      cast<RankedTensorType>(probabilities.getType()).getElementType();
  auto getWeight = [&](ScalarBuilder &scalar, Value label) -> Value {
    if (!weights)
      return scalar.constant(computed, 1);
    Value weight =
        tensor::ExtractOp::create(scalar.builder, scalar.loc, weights, label);
    return scalar.decode(weight, weightElement);
  };
  Sizes sizes = context.getSizes(labels.tensor);
  Value losses = buildTensor(
      rewriter, context.loc, sizes, computed,
      [&](ScalarBuilder &scalar, ValueRange indices) {
        auto [label, skip] = labels.extract(scalar, indices);
        SmallVector<Value> source(indices);
        source.insert(source.begin() + 1, label);
        Value x = tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                            probabilities, source);
        Value loss = scalar.neg(scalar.mul(x, getWeight(scalar, label)));
        return scalar.select(skip, scalar.constant(computed, 0), loss);
      });
  if (reduction == "none")
    return losses;
  Value sum = sumAll(context, losses, computed);
  if (reduction == "sum")
    return sum;
  Value counted =
      buildTensor(rewriter, context.loc, sizes, computed,
                  [&](ScalarBuilder &scalar, ValueRange indices) {
                    auto [label, skip] = labels.extract(scalar, indices);
                    return scalar.select(skip, scalar.constant(computed, 0),
                                         getWeight(scalar, label));
                  });
  Value total = sumAll(context, counted, computed);
  AffineMap none = AffineMap::get(0, 0, rewriter.getContext());
  return buildElementwise(rewriter, context.loc, {sum, total}, {none, none}, {},
                          computed, [](ScalarBuilder &scalar, ValueRange args) {
                            return scalar.div(args[0], args[1]);
                          });
}

/// log(softmax(x)) over dimension 1, in computed numbers.
static Value buildLogSoftmax(NodeContext &context, Value x, Type computed) {
  ConversionPatternRewriter &rewriter = context.rewriter;
  MLIRContext *mlir = rewriter.getContext();
  Sizes all = context.getSizes(x), folded(all);
  folded.erase(folded.begin() + 1);
  int64_t rank = all.size();
  SmallVector<AffineExpr> exprs;
  SmallVector<Iterator> iterators(rank, Iterator::parallel);
  iterators[1] = Iterator::reduction;
  for (int64_t axis = 0; axis < rank; ++axis)
    if (axis != 1)
      exprs.push_back(getAffineDimExpr(axis, mlir));
  AffineMap whole = rewriter.getMultiDimIdentityMap(rank),
            without = AffineMap::get(rank, 0, exprs, mlir);
  Value maxima =
      buildReduction(rewriter, context.loc, x, {whole, without}, iterators,
                     folded, context.scalar().lowest(computed),
                     [](ScalarBuilder &scalar, ValueRange args) {
                       return scalar.max(args[1], args[0]);
                     });
  Value sums = buildReduction(
      rewriter, context.loc, {x, maxima}, {whole, without, without}, iterators,
      folded, context.scalar().constant(computed, 0),
      [](ScalarBuilder &scalar, ValueRange args) {
        Value power = math::ExpOp::create(scalar.builder, scalar.loc,
                                          scalar.sub(args[0], args[1]));
        return scalar.add(args[2], power);
      });
  return buildElementwise(
      rewriter, context.loc, {x, maxima, sums}, {whole, without, without}, all,
      computed, [](ScalarBuilder &scalar, ValueRange args) {
        Value logarithm =
            math::LogOp::create(scalar.builder, scalar.loc, args[2]);
        return scalar.sub(scalar.sub(args[0], args[1]), logarithm);
      });
}

static LogicalResult convertLoss(NodeContext &context, bool withSoftmax) {
  NodeOp node = context.node;
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType(), computed = getComputedType(element);
  if (!isa<FloatType>(element))
    return context.fail("its scores must be floats");
  if (type.getRank() < 2 ||
      context.getInputType(1).getRank() != type.getRank() - 1)
    return context.fail("expects scores [batch, classes, …] and labels "
                        "[batch, …]");
  StringRef reduction = node.getString("reduction", "mean");
  if (!llvm::is_contained({"none", "sum", "mean"}, reduction))
    return context.fail("'" + reduction + "' is no reduction");
  Labels labels{context.getInput(1), std::nullopt};
  if (node.getAttributeValue("ignore_index"))
    labels.ignored = node.getInt("ignore_index", 0);
  bool hasWeights = context.getNumInputs() > 2 && !context.isAbsent(2);
  Value weights = hasWeights ? context.getInput(2) : Value();
  Type weightElement = hasWeights ? context.getElementType(2) : Type();

  Value scores = buildCast(context, context.getInput(0), element, computed);
  ScalarBuilder scalar = context.scalar();
  Sizes sizes = context.getSizes(scores);
  Value classes = context.toValue(sizes[1]);
  checkLabels(context, labels, classes);
  sizes.erase(sizes.begin() + 1);
  for (auto [a, b] : llvm::zip(sizes, context.getSizes(labels.tensor)))
    if (a != b)
      context.check(scalar.equal(context.toValue(a), context.toValue(b)),
                    "scores and labels have different shapes");
  if (hasWeights)
    context.check(
        scalar.equal(classes, context.toValue(getSize(
                                  context.rewriter, context.loc, weights, 0))),
        "needs a weight for each class");
  if (withSoftmax)
    scores = buildLogSoftmax(context, scores, computed);
  Value loss =
      buildLoss(context, scores, labels, weights, weightElement, reduction);
  SmallVector<Value> results{buildCast(context, loss, computed, element)};
  if (node->getNumResults() > 1)
    results.push_back(buildCast(context, scores, computed, element));
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// Dropout
//===----------------------------------------------------------------------===//

/// Outside of training nothing is dropped, and the mask is all true.
static LogicalResult convertDropout(NodeContext &context) {
  if (context.version < 7 && context.node.getInt("is_test", 0) == 0)
    return context.fail("drops at random (training); set is_test to 1");
  bool mayTrain = context.getNumInputs() > 2 && !context.isAbsent(2);
  if (auto training = mayTrain ? context.getConstantInts(2) : std::nullopt)
    mayTrain = training->front() != 0;
  Value x = context.getInput(0);
  if (mayTrain) {
    // Training without dropping is the same.
    auto extractFirst = [&](unsigned input) -> Value {
      Value tensor = context.getInput(input);
      SmallVector<Value> indices(
          cast<RankedTensorType>(tensor.getType()).getRank(),
          context.scalar().index(0));
      return tensor::ExtractOp::create(context.rewriter, context.loc, tensor,
                                       indices);
    };
    ScalarBuilder scalar = context.scalar();
    bool hasRatio = !context.isAbsent(1);
    Value keepsAll = hasRatio ? scalar.isZero(scalar.decode(
                                    extractFirst(1), context.getElementType(1)))
                              : scalar.boolean(false);
    Value infers = scalar.equal(extractFirst(2), scalar.boolean(false));
    context.check(
        arith::OrIOp::create(context.rewriter, context.loc, keepsAll, infers),
        "drops at random (training); set training_mode to false");
  }
  SmallVector<Value> results{x};
  if (context.node->getNumResults() > 1) {
    RankedTensorType maskType = context.getResultType(1);
    if (!maskType)
      return context.fail("the type of the mask is not known");
    Type maskElement = maskType.getElementType();
    results.push_back(buildTensor(
        context.rewriter, context.loc, context.getSizes(x),
        getStoredType(maskElement), [&](ScalarBuilder &scalar, ValueRange) {
          Type computed = getComputedType(maskElement);
          return scalar.encode(isa<FloatType>(computed)
                                   ? scalar.constant(computed, 1)
                                   : scalar.integer(computed, 1),
                               maskElement);
        }));
  }
  return context.replace(results);
}

void nibble::addLossConversions(NodeConversions &conversions) {
  conversions.add("NegativeLogLikelihoodLoss", 12, [](NodeContext &context) {
    return convertLoss(context, /*withSoftmax=*/false);
  });
  conversions.add("SoftmaxCrossEntropyLoss", 12, [](NodeContext &context) {
    return convertLoss(context, /*withSoftmax=*/true);
  });
  conversions.add("Dropout", 1, convertDropout);
}
