//===- Reduction.cpp - Nodes that fold dimensions -------------------------===//
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

using Axes = SmallVector<int64_t>;

//===----------------------------------------------------------------------===//
// What a reduction is made of
//===----------------------------------------------------------------------===//

namespace {
/// result = finish(fold of prepare(x), starting with `initial`)
struct Reduction {
  enum Initial { Zero, One, Lowest, Highest };
  using Step = Value (*)(ScalarBuilder &, Value);

  Initial initial;
  Value (ScalarBuilder::*combine)(Value, Value);
  Step prepare;
  Step finish;
  /// The mean divides by the number of elements.
  bool isMean;
};
} // namespace

static Value square(ScalarBuilder &scalar, Value x) { return scalar.mul(x, x); }
static Value absolute(ScalarBuilder &scalar, Value x) { return scalar.abs(x); }
static Value exponential(ScalarBuilder &scalar, Value x) {
  return math::ExpOp::create(scalar.builder, scalar.loc, x);
}
static Value logarithm(ScalarBuilder &scalar, Value x) {
  return math::LogOp::create(scalar.builder, scalar.loc, x);
}
static Value root(ScalarBuilder &scalar, Value x) {
  return math::SqrtOp::create(scalar.builder, scalar.loc, x);
}

static Value getInitial(NodeContext &context, Reduction::Initial initial,
                        Type element) {
  ScalarBuilder scalar = context.scalar();
  switch (initial) {
  case Reduction::Zero:
    return scalar.constant(getComputedType(element), 0);
  case Reduction::One:
    return scalar.constant(getComputedType(element), 1);
  case Reduction::Lowest:
    return scalar.lowest(element);
  case Reduction::Highest:
    return scalar.highest(element);
  }
  return {};
}

/// Maps from all loops to those of the tensor and, without `axes`, the result.
static std::pair<AffineMap, SmallVector<utils::IteratorType>>
getReductionLoops(NodeContext &context, int64_t rank, ArrayRef<int64_t> axes) {
  SmallVector<AffineExpr> exprs;
  SmallVector<utils::IteratorType> iterators;
  for (int64_t axis = 0; axis < rank; ++axis) {
    bool reduced = llvm::is_contained(axes, axis);
    iterators.push_back(reduced ? utils::IteratorType::reduction
                                : utils::IteratorType::parallel);
    if (!reduced)
      exprs.push_back(context.rewriter.getAffineDimExpr(axis));
  }
  return {AffineMap::get(rank, 0, exprs, context.rewriter.getContext()),
          iterators};
}

/// Folds `axes` of a tensor of `element` into computed numbers.
static Value buildFold(NodeContext &context, Value tensor, Type element,
                       ArrayRef<int64_t> axes, const Reduction &reduction) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  auto [map, iterators] = getReductionLoops(context, rank, axes);
  bool isUnsigned = element.isUnsignedInteger() || element.isInteger(1);
  return buildReduction(context.rewriter, context.loc, tensor,
                        {context.rewriter.getMultiDimIdentityMap(rank), map},
                        iterators,
                        dropAxes(context, tensor, axes, /*keep=*/false),
                        getInitial(context, reduction.initial, element),
                        [&](ScalarBuilder &scalar, ValueRange args) {
                          scalar.isUnsigned = isUnsigned;
                          Value x = scalar.decode(args[0], element);
                          if (reduction.prepare)
                            x = reduction.prepare(scalar, x);
                          return (scalar.*reduction.combine)(args[1], x);
                        });
}

/// Number of elements that are folded into one.
static Value countFolded(NodeContext &context, Value tensor,
                         ArrayRef<int64_t> axes) {
  ScalarBuilder scalar = context.scalar();
  Value count = scalar.index(1);
  for (int64_t axis : axes)
    count = arith::MulIOp::create(
        context.rewriter, context.loc, count,
        context.toValue(getSize(context.rewriter, context.loc, tensor, axis)));
  return count;
}

//===----------------------------------------------------------------------===//
// Reduce…
//===----------------------------------------------------------------------===//

/// The axes of a node, an attribute or (later) an input; all where there are
/// none. An empty result means that nothing is folded.
static FailureOr<Axes> getAxes(NodeContext &context, int64_t rank) {
  Axes axes;
  if (auto attribute = context.node.getInts("axes")) {
    axes.assign(attribute->begin(), attribute->end());
  } else if (context.getNumInputs() > 1 && !context.isAbsent(1)) {
    std::optional<Axes> given = context.getConstantInts(1);
    if (!given && context.getInputType(1).getNumElements() != 0)
      return context.fail("the axes must be constant");
    if (given)
      axes = *given;
  }
  if (axes.empty() && !context.node.getInt("noop_with_empty_axes", 0))
    axes = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  for (int64_t &axis : axes) {
    std::optional<int64_t> normal = normalizeAxis(axis, rank);
    if (!normal)
      return context.fail("axis " + Twine(axis) + " is out of range");
    axis = *normal;
  }
  return axes;
}

/// Whether the axes are a tensor whose elements are not known.
static bool hasDynamicAxes(NodeContext &context) {
  return !context.node.getInts("axes") && context.getNumInputs() > 1 &&
         !context.isAbsent(1) && !context.getConstantInts(1) &&
         !(context.getInputType(1).hasStaticShape() &&
           context.getInputType(1).getNumElements() == 0);
}

namespace {
/// A reduction over axes that are known when the code runs: each dimension has
/// two loops, one over what is kept and one over what is folded, of which one
/// has one step.
struct DynamicAxes {
  SmallVector<Value> flags;
  /// Sizes of the loops over what is kept, and over what is folded.
  Sizes kept, folded;
};
} // namespace

static DynamicAxes getDynamicAxes(NodeContext &context, Value x) {
  Sizes sizes = context.getSizes(x);
  DynamicAxes axes;
  axes.flags = flagAxes(context, 1, sizes.size());
  ScalarBuilder scalar = context.scalar();
  Value one = scalar.index(1);
  // An empty list means all axes, unless the node says otherwise.
  if (!context.node.getInt("noop_with_empty_axes", 0)) {
    Value isEmpty = scalar.isZero(context.toValue(
        getSize(context.rewriter, context.loc, context.getInput(1), 0)));
    for (Value &flag : axes.flags)
      flag = buildOr(scalar, flag, isEmpty);
  }
  for (auto [size, flag] : llvm::zip(sizes, axes.flags)) {
    axes.kept.push_back(scalar.select(flag, one, context.toValue(size)));
    axes.folded.push_back(scalar.select(flag, context.toValue(size), one));
  }
  return axes;
}

/// As `buildFold`, with a dimension of 1 for each that is folded.
static Value buildDynamicFold(NodeContext &context, Value x, Type element,
                              const DynamicAxes &axes,
                              const Reduction &reduction) {
  int64_t rank = axes.kept.size();
  SmallVector<AffineExpr> source, loops;
  for (int64_t i = 0; i < 2 * rank; ++i)
    loops.push_back(context.rewriter.getAffineDimExpr(i));
  for (int64_t i = 0; i < rank; ++i)
    source.push_back(loops[i] + loops[rank + i]);
  auto getMap = [&](ArrayRef<AffineExpr> exprs) {
    return AffineMap::get(2 * rank, 0, exprs, context.rewriter.getContext());
  };
  SmallVector<utils::IteratorType> iterators(rank,
                                             utils::IteratorType::parallel);
  iterators.append(rank, utils::IteratorType::reduction);
  // Gives the loops over what is folded their sizes; nothing reads it.
  Value extents =
      buildEmpty(context, axes.folded, context.rewriter.getI1Type());
  return buildReduction(
      context.rewriter, context.loc, {x, extents},
      {getMap(source), getMap(ArrayRef(loops).drop_front(rank)),
       getMap(ArrayRef(loops).take_front(rank))},
      iterators, axes.kept, getInitial(context, reduction.initial, element),
      [&](ScalarBuilder &scalar, ValueRange args) {
        scalar.isUnsigned = element.isUnsignedInteger() || element.isInteger(1);
        Value number = scalar.decode(args[0], element);
        if (reduction.prepare)
          number = reduction.prepare(scalar, number);
        return (scalar.*reduction.combine)(args[2], number);
      });
}

/// Removes the dimensions that were folded, or keeps them as 1.
static FailureOr<Value> finishDynamic(NodeContext &context, Value result,
                                      const DynamicAxes &axes) {
  if (context.node.getInt("keepdims", 1))
    return result;
  RankedTensorType declared = context.getResultType();
  if (!declared)
    return context.fail("the axes are no constant, and the rank of the result "
                        "is not known");
  return buildReshape(
      context, result,
      compactSizes(context, axes.kept, axes.flags, declared.getRank()));
}

/// What is left to do with the fold of `count` elements.
static Value finishReduction(NodeContext &context, Value folded, Value count,
                             Type element, const Reduction &reduction) {
  Type computed = getComputedType(element);
  auto foldedType = RankedTensorType::get(
      cast<RankedTensorType>(folded.getType()).getShape(), computed);
  int64_t rank = foldedType.getRank();
  return buildElementwise(
      context.rewriter, context.loc, folded,
      context.rewriter.getMultiDimIdentityMap(rank), context.getSizes(folded),
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange args) {
        scalar.isUnsigned = element.isUnsignedInteger();
        Value value = args[0];
        if (reduction.isMean) {
          Type i64 = scalar.builder.getI64Type();
          Value divisor = toI64(scalar, count);
          value = scalar.div(value, scalar.convert(divisor, i64, computed));
        }
        if (reduction.finish)
          value = reduction.finish(scalar, value);
        return scalar.encode(value, element);
      });
}

static LogicalResult convertDynamicReduce(NodeContext &context,
                                          const Reduction &reduction) {
  Type element = context.getElementType(0);
  Value x = context.getInput(0);
  DynamicAxes axes = getDynamicAxes(context, x);
  Value folded = buildDynamicFold(context, x, element, axes, reduction);
  Value count = context.toValue(getProduct(context, axes.folded));
  auto result = finishDynamic(
      context, finishReduction(context, folded, count, element, reduction),
      axes);
  if (failed(result))
    return failure();
  return context.replace(*result);
}

static LogicalResult convertReduce(NodeContext &context,
                                   const Reduction &reduction) {
  if (hasDynamicAxes(context))
    return convertDynamicReduce(context, reduction);
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType();
  FailureOr<Axes> axes = getAxes(context, type.getRank());
  if (failed(axes))
    return failure();
  Value x = context.getInput(0);
  bool keep = context.node.getInt("keepdims", 1) != 0;
  Value folded = buildFold(context, x, element, *axes, reduction);
  Value result = finishReduction(
      context, folded, countFolded(context, x, *axes), element, reduction);
  if (keep && !axes->empty())
    result = buildReshape(context, result, dropAxes(context, x, *axes, true));
  return context.replace(result);
}

//===----------------------------------------------------------------------===//
// Softmax
//===----------------------------------------------------------------------===//

static constexpr Reduction kMaximum = {Reduction::Lowest, &ScalarBuilder::max,
                                       nullptr, nullptr, false};
static constexpr Reduction kSum = {Reduction::Zero, &ScalarBuilder::add,
                                   nullptr, nullptr, false};

/// x - max(x) over `axes`, in computed numbers, and the maxima themselves with
/// dimensions of 1. A maximum that is infinite is not subtracted.
static std::pair<Value, Value> subtractMaximum(NodeContext &context, Value x,
                                               RankedTensorType type,
                                               ArrayRef<int64_t> axes,
                                               bool keepInfinite) {
  Type computed = getComputedType(type.getElementType());
  Value maxima = buildFold(context, x, type.getElementType(), axes, kMaximum);
  if (keepInfinite) {
    auto maximaType = cast<RankedTensorType>(maxima.getType());
    maxima = buildBroadcast(
        context, maxima, maximaType, computed,
        [&](ScalarBuilder &scalar, ValueRange args) {
          Value infinite = scalar.equal(scalar.abs(args[0]),
                                        scalar.infinity(computed, false));
          return scalar.select(infinite, scalar.constant(computed, 0), args[0]);
        });
  }
  SmallVector<Dimension> dimensions = getDimensions(type);
  for (int64_t axis : axes)
    dimensions[axis] = {1, {}};
  maxima = buildReshape(context, maxima, dropAxes(context, x, axes, true));
  Value shifted = buildBroadcast(
      context, {x, maxima}, {type, getTensorType(dimensions, computed)},
      computed, [&](ScalarBuilder &scalar, ValueRange args) {
        return scalar.sub(args[0], args[1]);
      });
  return {shifted, maxima};
}

/// Softmax or its logarithm over `axes` together.
static LogicalResult convertSoftmaxOver(NodeContext &context,
                                        ArrayRef<int64_t> axes, bool isLog) {
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType(), computed = getComputedType(element);
  Value x = context.getInput(0);
  Value shifted = subtractMaximum(context, x, type, axes, false).first;
  Reduction sumOfExp = kSum;
  sumOfExp.prepare = exponential;
  Value sums = buildFold(context, shifted, computed, axes, sumOfExp);
  sums = buildReshape(context, sums, dropAxes(context, x, axes, true));
  SmallVector<Dimension> dimensions = getDimensions(type);
  for (int64_t axis : axes)
    dimensions[axis] = {1, {}};
  return context.replace(
      buildBroadcast(context, {shifted, sums},
                     {getTensorType(getDimensions(type), computed),
                      getTensorType(dimensions, computed)},
                     element, [&](ScalarBuilder &scalar, ValueRange args) {
                       if (isLog)
                         return scalar.sub(args[0], logarithm(scalar, args[1]));
                       return scalar.div(exponential(scalar, args[0]), args[1]);
                     }));
}

static LogicalResult convertSoftmax(NodeContext &context, bool isLog) {
  int64_t rank = context.getInputType(0).getRank();
  // Until version 12 all dimensions from the axis on are taken together.
  bool together = context.version < 13;
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", together ? 1 : -1), rank);
  if (!axis)
    return context.fail("axis is out of range");
  Axes axes{*axis};
  if (together)
    axes = llvm::to_vector(llvm::seq<int64_t>(*axis, rank));
  return convertSoftmaxOver(context, axes, isLog);
}

/// max + log(sum(exp(x - max))) over axes that are known when the code runs.
static LogicalResult convertDynamicLogSumExp(NodeContext &context) {
  Type element = context.getElementType(0), computed = getComputedType(element);
  Value x = context.getInput(0);
  DynamicAxes axes = getDynamicAxes(context, x);
  Value maxima = buildDynamicFold(context, x, element, axes, kMaximum);
  Sizes sizes = context.getSizes(x);
  auto getMaximum = [&](ScalarBuilder &scalar, ValueRange position) {
    Value maximum = extract(scalar, maxima, position);
    Value infinite =
        scalar.equal(scalar.abs(maximum), scalar.infinity(computed, false));
    return scalar.select(infinite, scalar.constant(computed, 0), maximum);
  };
  Value shifted = buildTensor(
      context.rewriter, context.loc, sizes, computed,
      [&](ScalarBuilder &scalar, ValueRange loops) {
        SmallVector<Value> position;
        for (auto [loop, flag] : llvm::zip(loops, axes.flags))
          position.push_back(scalar.select(flag, scalar.index(0), loop));
        Value number = scalar.decode(extract(scalar, x, loops), element);
        return scalar.sub(number, getMaximum(scalar, position));
      });
  Reduction sumOfExp = kSum;
  sumOfExp.prepare = exponential;
  Value sums = buildDynamicFold(context, shifted, computed, axes, sumOfExp);
  Value result = buildTensor(
      context.rewriter, context.loc, axes.kept, getStoredType(element),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value sum = logarithm(scalar, extract(scalar, sums, loops));
        return scalar.encode(scalar.add(sum, getMaximum(scalar, loops)),
                             element);
      });
  auto finished = finishDynamic(context, result, axes);
  if (failed(finished))
    return failure();
  return context.replace(*finished);
}

/// log(sum(exp(x))), with the maximum taken out so that nothing overflows.
static LogicalResult convertReduceLogSumExp(NodeContext &context) {
  if (hasDynamicAxes(context) &&
      isa<FloatType>(getComputedType(context.getElementType(0))))
    return convertDynamicLogSumExp(context);
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType(), computed = getComputedType(element);
  FailureOr<Axes> axes = getAxes(context, type.getRank());
  if (failed(axes))
    return failure();
  if (!isa<FloatType>(computed))
    return context.fail("expects floats");
  Value x = context.getInput(0);
  auto [shifted, maxima] = subtractMaximum(context, x, type, *axes, true);
  Reduction sumOfExp = kSum;
  sumOfExp.prepare = exponential;
  Value sums = buildFold(context, shifted, computed, *axes, sumOfExp);
  sums = buildReshape(context, sums, dropAxes(context, x, *axes, true));
  auto sumsType = RankedTensorType::get(
      cast<RankedTensorType>(sums.getType()).getShape(), computed);
  Value result =
      buildBroadcast(context, {sums, maxima}, {sumsType, sumsType}, element,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       return scalar.add(logarithm(scalar, args[0]), args[1]);
                     });
  if (!context.node.getInt("keepdims", 1))
    result = buildReshape(context, result, dropAxes(context, x, *axes, false));
  return context.replace(result);
}

//===----------------------------------------------------------------------===//
// ArgMax, ArgMin
//===----------------------------------------------------------------------===//

static LogicalResult convertArg(NodeContext &context, bool isMax) {
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", 0), type.getRank());
  if (!axis)
    return context.fail("axis is out of range");
  bool last = context.node.getInt("select_last_index", 0) != 0;
  Value x = context.getInput(0);
  Reduction extreme = {isMax ? Reduction::Lowest : Reduction::Highest,
                       isMax ? &ScalarBuilder::max : &ScalarBuilder::min,
                       nullptr, nullptr, false};
  Value best = buildFold(context, x, element, *axis, extreme);
  auto [map, iterators] = getReductionLoops(context, type.getRank(), *axis);
  ScalarBuilder outer = context.scalar();
  Value positions = buildReduction(
      context.rewriter, context.loc, {x, best},
      {context.rewriter.getMultiDimIdentityMap(type.getRank()), map, map},
      iterators, dropAxes(context, x, *axis, false),
      outer.integer(context.rewriter.getI64Type(), -1),
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value found = scalar.equal(scalar.decode(args[0], element), args[1]);
        if (!last) {
          Value open = scalar.less(
              args[2], scalar.integer(scalar.builder.getI64Type(), 0));
          found =
              arith::AndIOp::create(scalar.builder, scalar.loc, found, open);
        }
        Value here = arith::IndexCastOp::create(
            scalar.builder, scalar.loc, scalar.builder.getI64Type(),
            linalg::IndexOp::create(scalar.builder, scalar.loc, *axis));
        return scalar.select(found, here, args[2]);
      });
  if (context.node.getInt("keepdims", 1))
    positions =
        buildReshape(context, positions, dropAxes(context, x, *axis, true));
  return context.replace(positions);
}

//===----------------------------------------------------------------------===//
// Normalization
//===----------------------------------------------------------------------===//

/// (x - mean) / sqrt(variance + epsilon) · scale + bias over the dimensions
/// from `axis` on; RMSNormalization has neither mean nor bias.
static LogicalResult convertNormalization(NodeContext &context, bool isRMS) {
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType(), computed = getComputedType(element);
  int64_t rank = type.getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", -1), rank);
  if (!axis)
    return context.fail("axis is out of range");
  Axes axes = llvm::to_vector(llvm::seq<int64_t>(*axis, rank));
  Value x = context.getInput(0);
  Value count = countFolded(context, x, axes);
  SmallVector<Dimension> dimensions = getDimensions(type);
  auto fullType = getTensorType(dimensions, computed);
  for (int64_t folded : axes)
    dimensions[folded] = {1, {}};
  auto statisticType = getTensorType(dimensions, computed);
  Sizes statisticSizes = dropAxes(context, x, axes, true);
  auto buildMeanOf = [&](Value tensor, Type from, const Reduction &reduction) {
    Value sums = buildFold(context, tensor, from, axes, reduction);
    sums = buildReshape(context, sums, statisticSizes);
    return buildBroadcast(
        context, sums, statisticType, computed,
        [&](ScalarBuilder &scalar, ValueRange args) {
          Type i64 = scalar.builder.getI64Type();
          Value divisor = arith::IndexCastOp::create(scalar.builder, scalar.loc,
                                                     i64, count);
          return scalar.div(args[0], scalar.convert(divisor, i64, computed));
        });
  };
  Value mean, centered = x;
  RankedTensorType centeredType = type;
  if (!isRMS) {
    mean = buildMeanOf(x, element, kSum);
    centered =
        buildBroadcast(context, {x, mean}, {type, statisticType}, computed,
                       [&](ScalarBuilder &scalar, ValueRange args) {
                         return scalar.sub(args[0], args[1]);
                       });
    centeredType = fullType;
  }
  Reduction squares = kSum;
  squares.prepare = square;
  Value variance =
      buildMeanOf(centered, centeredType.getElementType(), squares);
  double epsilon = context.node.getFloat("epsilon", 1e-5f);
  Value inverse = buildBroadcast(
      context, variance, statisticType, computed,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value sum = scalar.add(args[0], scalar.constant(computed, epsilon));
        return scalar.div(scalar.constant(computed, 1), root(scalar, sum));
      });
  SmallVector<Value> tensors{centered, inverse, context.getInput(1)};
  SmallVector<RankedTensorType> types{centeredType, statisticType,
                                      context.getInputType(1)};
  bool hasBias = !isRMS && context.getNumInputs() > 2 && !context.isAbsent(2);
  if (hasBias) {
    tensors.push_back(context.getInput(2));
    types.push_back(context.getInputType(2));
  }
  Value result =
      buildBroadcast(context, tensors, types, element,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value normal = scalar.mul(args[0], args[1]);
                       // The normal numbers are rounded to the input's type
                       // before the scale.
                       if (isa<Float16Type, BFloat16Type>(element))
                         normal = scalar.roundTo(normal, element);
                       normal = scalar.mul(normal, args[2]);
                       return hasBias ? scalar.add(normal, args[3]) : normal;
                     });
  SmallVector<Value> results{result};
  for (unsigned i = 1; i < context.node.getNumResults(); ++i)
    results.push_back(i == 1 ? mean : inverse);
  return context.replace(results);
}

void nibble::addReductionConversions(NodeConversions &conversions) {
  auto add = [&](StringRef opType, Reduction reduction) {
    conversions.add(opType, 1, [reduction](NodeContext &context) {
      return convertReduce(context, reduction);
    });
  };
  add("ReduceSum", kSum);
  add("ReduceMean",
      {Reduction::Zero, &ScalarBuilder::add, nullptr, nullptr, true});
  add("ReduceMax", kMaximum);
  add("ReduceMin",
      {Reduction::Highest, &ScalarBuilder::min, nullptr, nullptr, false});
  add("ReduceProd",
      {Reduction::One, &ScalarBuilder::mul, nullptr, nullptr, false});
  add("ReduceL1",
      {Reduction::Zero, &ScalarBuilder::add, absolute, nullptr, false});
  add("ReduceL2", {Reduction::Zero, &ScalarBuilder::add, square, root, false});
  add("ReduceSumSquare",
      {Reduction::Zero, &ScalarBuilder::add, square, nullptr, false});
  add("ReduceLogSum",
      {Reduction::Zero, &ScalarBuilder::add, nullptr, logarithm, false});
  conversions.add("ReduceLogSumExp", 1, convertReduceLogSumExp);
  conversions.add("Softmax", 1, [](NodeContext &context) {
    return convertSoftmax(context, /*isLog=*/false);
  });
  conversions.add("LogSoftmax", 1, [](NodeContext &context) {
    return convertSoftmax(context, /*isLog=*/true);
  });
  conversions.add("ArgMax", 1, [](NodeContext &context) {
    return convertArg(context, /*isMax=*/true);
  });
  conversions.add("ArgMin", 1, [](NodeContext &context) {
    return convertArg(context, /*isMax=*/false);
  });
  conversions.add("LayerNormalization", 17, [](NodeContext &context) {
    return convertNormalization(context, /*isRMS=*/false);
  });
  conversions.add("RMSNormalization", 23, [](NodeContext &context) {
    return convertNormalization(context, /*isRMS=*/true);
  });
}
