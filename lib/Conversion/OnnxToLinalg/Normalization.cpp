//===- Normalization.cpp - Nodes that shift and scale by statistics -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Statistics are computed in f32 (f64 for f64): the mean first, then the mean
// of the squared distances from it.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

using Axes = SmallVector<int64_t>;

static Value buildRoot(ScalarBuilder &scalar, Value x) {
  return math::SqrtOp::create(scalar.builder, scalar.loc, x);
}

static Axes range(int64_t first, int64_t end) {
  return llvm::to_vector(llvm::seq(first, end));
}

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

namespace {
/// Statistics of a tensor over some of its dimensions, in computed numbers.
struct Statistics {
  Operand mean, variance;
};
} // namespace

static Statistics buildStatistics(NodeContext &context, const Operand &x,
                                  ArrayRef<int64_t> axes) {
  Type computed = getComputedType(x.element);
  Sizes sizes = context.getSizes(x.tensor);
  Axes kept = getOtherAxes(sizes.size(), axes);
  auto identity = [](ScalarBuilder &, ValueRange args) { return args[0]; };
  Value mean = buildMeanOver(context, x, sizes, axes, computed, identity);
  Operand meanOperand = makeOperand(context, mean, computed, kept);
  Value variance =
      buildMeanOver(context, {x, meanOperand}, sizes, axes, computed,
                    [](ScalarBuilder &scalar, ValueRange args) {
                      Value distance = scalar.sub(args[0], args[1]);
                      return scalar.mul(distance, distance);
                    });
  return {meanOperand, makeOperand(context, variance, computed, kept)};
}

/// 1 / sqrt(variance + epsilon), where the variance is.
static Operand buildInverse(NodeContext &context, const Operand &variance,
                            double epsilon) {
  Type computed = getComputedType(variance.element);
  Value inverse = buildMapped(
      context, makeOperand(context, variance.tensor, variance.element),
      context.getSizes(variance.tensor), computed,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value sum =
            scalar.add(scalar.convert(args[0], variance.element, computed),
                       scalar.constant(computed, epsilon));
        return scalar.div(scalar.constant(computed, 1), buildRoot(scalar, sum));
      });
  return {inverse, computed, variance.indices};
}

/// Input `input`, numbers along the loops `loops`.
static FailureOr<Operand> getParameter(NodeContext &context, unsigned input,
                                       ArrayRef<int64_t> loops,
                                       ArrayRef<OpFoldResult> sizes) {
  RankedTensorType type = context.getInputType(input);
  if (!type || type.getRank() != static_cast<int64_t>(loops.size()))
    return context.fail("input " + Twine(input) +
                        " has not the expected number of dimensions");
  Value tensor = context.getInput(input);
  SizeMath math(context);
  for (auto [axis, loop] : llvm::enumerate(loops))
    if (failed(math.requireEqual(
            getSize(context.rewriter, context.loc, tensor, axis), sizes[loop],
            "input " + Twine(input) + " has not the input's size")))
      return failure();
  return makeOperand(context, tensor, type.getElementType(), loops);
}

/// Converts the numbers of all operands to `computed`.
static SmallVector<Value> convertAll(ScalarBuilder &scalar, ValueRange args,
                                     ArrayRef<Operand> operands,
                                     Type computed) {
  SmallVector<Value> numbers;
  for (auto [value, operand] : llvm::zip(args, operands))
    numbers.push_back(scalar.convert(value, operand.element, computed));
  return numbers;
}

/// (x - mean) · inverse · scale + bias, each operand over the loops of x. The
/// scale and the bias may be left out.
static Value buildNormalized(NodeContext &context, const Operand &x,
                             const Operand &mean, const Operand &inverse,
                             std::optional<Operand> scale,
                             std::optional<Operand> bias, Type element) {
  SmallVector<Operand> operands{x, mean, inverse};
  if (scale)
    operands.push_back(*scale);
  if (bias)
    operands.push_back(*bias);
  Type computed = getComputedType(x.element);
  return buildMapped(context, operands, context.getSizes(x.tensor), element,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       auto n = convertAll(scalar, args, operands, computed);
                       Value y = scalar.mul(scalar.sub(n[0], n[1]), n[2]);
                       if (scale)
                         y = scalar.mul(y, n[3]);
                       return bias ? scalar.add(y, n.back()) : y;
                     });
}

//===----------------------------------------------------------------------===//
// BatchNormalization
//===----------------------------------------------------------------------===//

/// weight · old + (1 - weight) · next, elementwise.
static Value buildRunning(NodeContext &context, Value old, Type oldElement,
                          Value next, Type nextElement, double weight) {
  Type computed = getComputedType(oldElement);
  Operand operands[] = {makeOperand(context, old, oldElement),
                        makeOperand(context, next, nextElement)};
  return buildMapped(
      context, operands, context.getSizes(old), oldElement,
      [&](ScalarBuilder &scalar, ValueRange args) {
        auto n = convertAll(scalar, args, operands, computed);
        Value first = scalar.mul(scalar.constant(computed, weight), n[0]);
        Value second = scalar.mul(scalar.constant(computed, 1 - weight), n[1]);
        return scalar.add(first, second);
      });
}

static LogicalResult convertBatchNormalization(NodeContext &context) {
  NodeOp node = context.node;
  RankedTensorType type = context.getInputType(0);
  if (type.getRank() < 2)
    return context.fail("expects an input [N, C, …]");
  bool isTraining = context.version >= 14 && node.getInt("training_mode", 0);
  auto isUsed = [&](unsigned index) {
    return index < node.getNumResults() && !node.getOutputName(index).empty();
  };
  bool hasStatistics = false;
  for (unsigned i = 1; i < node.getNumResults(); ++i)
    hasStatistics |= isUsed(i);
  if (hasStatistics && !isTraining)
    return context.fail("gives statistics: training is not supported before "
                        "version 14");
  if (context.version < 9 && !node.getInt("spatial", 1))
    return context.fail("statistics for each element (spatial = 0) are not "
                        "supported");
  Operand x = makeOperand(context, context.getInput(0), type.getElementType());
  Sizes sizes = context.getSizes(x.tensor);
  SmallVector<Operand> parameters;
  for (unsigned input = 1; input <= 4; ++input) {
    auto operand = getParameter(context, input, {1}, sizes);
    if (failed(operand))
      return failure();
    parameters.push_back(*operand);
  }
  Operand mean = parameters[2], variance = parameters[3];
  SmallVector<Value> results(node.getNumResults());
  if (isTraining) {
    Axes axes = range(2, type.getRank());
    axes.insert(axes.begin(), 0);
    Statistics batch = buildStatistics(context, x, axes);
    double momentum = node.getFloat("momentum", 0.9f);
    Operand now[] = {batch.mean, batch.variance};
    for (unsigned i = 1; i < std::min(3u, node.getNumResults()); ++i)
      results[i] = buildRunning(context, parameters[i + 1].tensor,
                                parameters[i + 1].element, now[i - 1].tensor,
                                now[i - 1].element, momentum);
    mean = batch.mean;
    variance = batch.variance;
  }
  Operand inverse =
      buildInverse(context, variance, node.getFloat("epsilon", 1e-5f));
  // One factor for each channel.
  Type computed = inverse.element;
  Operand factors[] = {
      makeOperand(context, inverse.tensor, computed),
      makeOperand(context, parameters[0].tensor, parameters[0].element)};
  Value factor = buildMapped(
      context, factors, context.getSizes(inverse.tensor), computed,
      [&](ScalarBuilder &scalar, ValueRange args) {
        return scalar.mul(
            args[0], scalar.convert(args[1], factors[1].element, computed));
      });
  results[0] = buildNormalized(
      context, x, mean, makeOperand(context, factor, computed, {1}),
      std::nullopt, parameters[1], type.getElementType());
  for (unsigned i = 1; i < results.size(); ++i)
    if (!results[i]) // unused: any tensor of the right type
      results[i] = parameters[i <= 2 ? i + 1 : 3].tensor;
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// InstanceNormalization, GroupNormalization
//===----------------------------------------------------------------------===//

static LogicalResult convertInstanceNormalization(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  if (type.getRank() < 3)
    return context.fail("expects an input [N, C, spatial…]");
  Operand x = makeOperand(context, context.getInput(0), type.getElementType());
  Sizes sizes = context.getSizes(x.tensor);
  auto scale = getParameter(context, 1, {1}, sizes);
  auto bias = getParameter(context, 2, {1}, sizes);
  if (failed(scale) || failed(bias))
    return failure();
  Statistics statistics = buildStatistics(context, x, range(2, type.getRank()));
  Operand inverse = buildInverse(context, statistics.variance,
                                 context.node.getFloat("epsilon", 1e-5f));
  return context.replace(buildNormalized(context, x, statistics.mean, inverse,
                                         scale, bias, type.getElementType()));
}

/// Scale and bias are one for each group until version 20, and one for each
/// channel since.
static LogicalResult convertGroupNormalization(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  if (type.getRank() < 2)
    return context.fail("expects an input [N, C, …]");
  int64_t groups = context.node.getInt("num_groups", 0);
  if (groups < 1 || groups >= int64_t(1) << 30)
    return context.fail("num_groups must be positive");
  SizeMath math(context);
  Value data = context.getInput(0);
  OpFoldResult channels = getSize(context.rewriter, context.loc, data, 1);
  OpFoldResult count = math.constant(groups);
  OpFoldResult inner = math.floorDiv(channels, count);
  if (failed(math.requireEqual(math.mul(inner, count), channels,
                               "the channels are no multiple of num_groups")))
    return failure();
  Operand x =
      makeOperand(context, splitDimension(context, data, 1, {count, inner}),
                  type.getElementType());
  bool perChannel = context.version >= 21;
  SmallVector<Operand> parameters;
  for (unsigned input : {1u, 2u}) {
    RankedTensorType given = context.getInputType(input);
    if (given.getRank() != 1)
      return context.fail("expects scale and bias of one dimension");
    Value tensor = context.getInput(input);
    OpFoldResult size = getSize(context.rewriter, context.loc, tensor, 0);
    if (failed(math.requireEqual(size, perChannel ? channels : count,
                                 "scale and bias have not the right size")))
      return failure();
    if (perChannel)
      parameters.push_back(makeOperand(
          context, splitDimension(context, tensor, 0, {count, inner}),
          given.getElementType(), {1, 2}));
    else
      parameters.push_back(
          makeOperand(context, tensor, given.getElementType(), {1}));
  }
  Statistics statistics =
      buildStatistics(context, x, range(2, type.getRank() + 1));
  Operand inverse = buildInverse(context, statistics.variance,
                                 context.node.getFloat("epsilon", 1e-5f));
  Value result =
      buildNormalized(context, x, statistics.mean, inverse, parameters[0],
                      parameters[1], type.getElementType());
  return context.replace(mergeDimensions(context, result, 1, 2));
}

//===----------------------------------------------------------------------===//
// MeanVarianceNormalization, LpNormalization, LRN
//===----------------------------------------------------------------------===//

static LogicalResult convertMeanVariance(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  Axes axes{0, 2, 3};
  if (auto given = context.node.getInts("axes"))
    axes.assign(given->begin(), given->end());
  for (int64_t &axis : axes) {
    auto normal = normalizeAxis(axis, type.getRank());
    if (!normal)
      return context.fail("axis " + Twine(axis) + " is out of range");
    axis = *normal;
  }
  Operand x = makeOperand(context, context.getInput(0), type.getElementType());
  Type computed = getComputedType(x.element);
  Statistics statistics = buildStatistics(context, x, axes);
  return context.replace(buildMapped(
      context, {x, statistics.mean, statistics.variance},
      context.getSizes(x.tensor), x.element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        // The epsilon of the node's definition.
        Value deviation = scalar.add(buildRoot(scalar, args[2]),
                                     scalar.constant(computed, 1e-9));
        return scalar.div(scalar.sub(args[0], args[1]), deviation);
      }));
}

/// x / (sum |x|^p)^(1/p), with 0 for 0 / 0.
static LogicalResult convertLpNormalization(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  auto axis = normalizeAxis(context.node.getInt("axis", -1), type.getRank());
  if (!axis)
    return context.fail("axis is out of range");
  int64_t p = context.node.getInt("p", 2);
  if (p != 1 && p != 2)
    return context.fail("p must be 1 or 2");
  Operand x = makeOperand(context, context.getInput(0), type.getElementType());
  Type computed = getComputedType(x.element);
  Axes kept = getOtherAxes(type.getRank(), *axis);
  Sizes outer = dropAxes(context, x.tensor, *axis, /*keep=*/false);
  Value zero = context.scalar().constant(computed, 0);
  Value sums = buildFolded(context, x, type.getRank(), kept,
                           buildFilled(context, outer, zero),
                           [&](ScalarBuilder &scalar, ValueRange args) {
                             Value power = p == 1
                                               ? scalar.abs(args[0])
                                               : scalar.mul(args[0], args[0]);
                             return scalar.add(args[1], power);
                           });
  return context.replace(buildMapped(
      context, {x, makeOperand(context, sums, computed, kept)},
      context.getSizes(x.tensor), x.element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value norm = p == 1 ? args[1] : buildRoot(scalar, args[1]);
        return scalar.select(scalar.isZero(norm), scalar.constant(computed, 0),
                             scalar.div(args[0], norm));
      }));
}

/// x / (bias + alpha / size · sum of x² over `size` channels around)^beta
static LogicalResult convertLRN(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank(), size = context.node.getInt("size", 0);
  if (rank < 2 || size < 1 || size >= int64_t(1) << 30)
    return context.fail("expects an input [N, C, …] and a positive size");
  Operand x = makeOperand(context, context.getInput(0), type.getElementType());
  Type computed = getComputedType(x.element);
  SizeMath math(context);
  ScalarBuilder outer = context.scalar();
  OpFoldResult zero = math.constant(0);
  Sizes before(rank, zero), after(rank, zero);
  before[1] = math.constant((size - 1) / 2);
  after[1] = math.constant(size / 2);
  Value padded =
      buildPadded(context, x.tensor, before, after,
                  outer.encode(outer.constant(computed, 0), x.element));
  // Loops: those of x, and the channels of the window.
  Axes kept = range(0, rank);
  Operand window = makeOperand(context, padded, x.element, kept);
  AffineExpr step = context.rewriter.getAffineDimExpr(rank);
  window.indices[1] = context.rewriter.getAffineDimExpr(1) + step;
  Operand shape{tensor::EmptyOp::create(context.rewriter, context.loc,
                                        Sizes{math.constant(size)},
                                        context.rewriter.getI1Type()),
                context.rewriter.getI1Type(),
                {step}};
  Sizes sizes = context.getSizes(x.tensor);
  Value sums =
      buildFolded(context, {window, shape}, rank + 1, kept,
                  buildFilled(context, sizes, outer.constant(computed, 0)),
                  [&](ScalarBuilder &scalar, ValueRange args) {
                    return scalar.add(args[2], scalar.mul(args[0], args[0]));
                  });
  NodeOp node = context.node;
  double factor = double(node.getFloat("alpha", 1e-4f)) / size;
  return context.replace(buildMapped(
      context, {x, makeOperand(context, sums, computed)}, sizes, x.element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value scaled = scalar.mul(args[1], scalar.constant(computed, factor));
        Value base = scalar.add(
            scaled, scalar.constant(computed, node.getFloat("bias", 1)));
        Value power = math::PowFOp::create(
            scalar.builder, scalar.loc, base,
            scalar.constant(computed, node.getFloat("beta", 0.75f)));
        return scalar.div(args[0], power);
      }));
}

//===----------------------------------------------------------------------===//
// Layer normalizations of com.microsoft
//===----------------------------------------------------------------------===//

namespace {
/// A normalization over the last dimensions, from `axis` on.
struct LayerNormalization {
  Value result;
  /// Without the normalized dimensions; the mean is null where only the root
  /// of the mean square divides.
  Value mean, inverse;
};
} // namespace

/// `scale` and `bias` are inputs with the normalized dimensions.
static FailureOr<LayerNormalization>
buildLayerNormalization(NodeContext &context, const Operand &x, int64_t axis,
                        bool isRMS, unsigned scaleInput,
                        std::optional<unsigned> biasInput, Type element) {
  Sizes sizes = context.getSizes(x.tensor);
  int64_t rank = sizes.size();
  Axes axes = range(axis, rank), kept = range(0, axis);
  Type computed = getComputedType(x.element);
  auto scale = getParameter(context, scaleInput, axes, sizes);
  if (failed(scale))
    return failure();
  std::optional<Operand> bias;
  if (biasInput && !context.isAbsent(*biasInput)) {
    auto given = getParameter(context, *biasInput, axes, sizes);
    if (failed(given))
      return failure();
    bias = *given;
  }
  double epsilon = context.node.getFloat("epsilon", isRMS ? 1e-5f : 1e-12f);
  LayerNormalization layer;
  if (!isRMS) {
    Statistics statistics = buildStatistics(context, x, axes);
    Operand inverse = buildInverse(context, statistics.variance, epsilon);
    layer.result = buildNormalized(context, x, statistics.mean, inverse, scale,
                                   bias, element);
    layer.mean = statistics.mean.tensor;
    layer.inverse = inverse.tensor;
    return layer;
  }
  Value squares = buildMeanOver(context, x, sizes, axes, computed,
                                [](ScalarBuilder &scalar, ValueRange args) {
                                  return scalar.mul(args[0], args[0]);
                                });
  Operand inverse = buildInverse(
      context, makeOperand(context, squares, computed, kept), epsilon);
  SmallVector<Operand> operands{x, inverse, *scale};
  if (bias)
    operands.push_back(*bias);
  layer.inverse = inverse.tensor;
  layer.result =
      buildMapped(context, operands, sizes, element,
                  [&](ScalarBuilder &scalar, ValueRange args) {
                    auto n = convertAll(scalar, args, operands, computed);
                    Value y = scalar.mul(scalar.mul(n[0], n[1]), n[2]);
                    return bias ? scalar.add(y, n.back()) : y;
                  });
  return layer;
}

/// A statistic with dimensions of 1 in place of the normalized ones.
static Value keepDimensions(NodeContext &context, Value statistic, int64_t rank,
                            Type element) {
  auto type = cast<RankedTensorType>(statistic.getType());
  Sizes sizes = context.getSizes(statistic);
  sizes.resize(rank, context.rewriter.getIndexAttr(1));
  Value kept = buildReshape(context, statistic, sizes);
  return buildCast(context, kept, type.getElementType(), element);
}

/// Element type of result `index`, or f32.
static Type getResultElement(NodeContext &context, unsigned index) {
  RankedTensorType type = context.getResultType(index);
  return type ? type.getElementType() : Type(context.rewriter.getF32Type());
}

/// x / sqrt(mean(x²) + epsilon) · scale
static LogicalResult convertSimplifiedLayer(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  auto axis = normalizeAxis(context.node.getInt("axis", -1), type.getRank());
  if (!axis)
    return context.fail("axis is out of range");
  Operand x = makeOperand(context, context.getInput(0), type.getElementType());
  auto layer = buildLayerNormalization(context, x, *axis, /*isRMS=*/true, 1,
                                       std::nullopt, context.getElementType(1));
  if (failed(layer))
    return failure();
  SmallVector<Value> results{layer->result};
  if (context.node.getNumResults() > 1)
    results.push_back(keepDimensions(context, layer->inverse, type.getRank(),
                                     getResultElement(context, 1)));
  return context.replace(results);
}

/// normalize(x + skip + bias), with outputs y, mean, inverse deviation and the
/// sum. Inputs: x, skip, scale, and then beta (not for `isRMS`) and bias.
static LogicalResult convertSkipLayer(NodeContext &context, bool isRMS) {
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType();
  int64_t rank = type.getRank();
  if (rank < 1)
    return context.fail("expects an input with dimensions");
  unsigned biasInput = isRMS ? 3 : 4;
  SmallVector<Value> tensors{context.getInput(0), context.getInput(1)};
  SmallVector<RankedTensorType> types{type, context.getInputType(1)};
  if (!context.isAbsent(biasInput)) {
    tensors.push_back(context.getInput(biasInput));
    types.push_back(context.getInputType(biasInput));
  }
  Value sum =
      buildBroadcast(context, tensors, types, element,
                     [](ScalarBuilder &scalar, ValueRange args) {
                       Value sum = scalar.add(args[0], args[1]);
                       return args.size() > 2 ? scalar.add(sum, args[2]) : sum;
                     });
  auto layer = buildLayerNormalization(
      context, makeOperand(context, sum, element), rank - 1, isRMS, 2,
      isRMS ? std::nullopt : std::optional<unsigned>(3), element);
  if (failed(layer))
    return failure();
  SmallVector<Value> results{layer->result};
  Value statistics[] = {layer->mean ? layer->mean : layer->inverse,
                        layer->inverse};
  for (unsigned i = 1; i < context.node.getNumResults(); ++i)
    results.push_back(i == 3 ? sum
                             : keepDimensions(context, statistics[i - 1], rank,
                                              getResultElement(context, i)));
  return context.replace(results);
}

/// How many elements of each row of a mask [batch, length] are 1: the length
/// of what is not masked.
static Value countUnmasked(NodeContext &context, Value mask, Type element,
                           OpFoldResult batch) {
  Type i32 = context.rewriter.getI32Type();
  Value zero = context.scalar().integer(i32, 0);
  return buildFolded(context, makeOperand(context, mask, element), 2, 0,
                     buildFilled(context, batch, zero),
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value one = scalar.constant(args[0].getType(), 1);
                       Value counts = scalar.select(scalar.equal(args[0], one),
                                                    scalar.integer(i32, 1),
                                                    scalar.integer(i32, 0));
                       return scalar.add(args[1], counts);
                     });
}

/// Sums the rows of a word, a position and a segment table and normalizes
/// them. Inputs: words [batch, length], segments, the three tables, gamma,
/// beta, mask, positions.
static LogicalResult convertEmbedLayer(NodeContext &context) {
  if (context.getInputType(0).getRank() != 2)
    return context.fail("expects input_ids [batch, length]");
  Value words = context.getInput(0);
  Sizes sizes = context.getSizes(words);
  SizeMath math(context);
  // The indices (null: the position itself) and the table of each part.
  struct Part {
    Value indices;
    Type indexElement;
    Value table;
    bool oneRow;
  };
  SmallVector<Part> parts;
  for (auto [indices, table] :
       {std::pair(0u, 2u), std::pair(8u, 3u), std::pair(1u, 4u)}) {
    bool isPosition = table == 3;
    if (context.isAbsent(table) || (table == 4 && context.isAbsent(indices)))
      continue;
    if (context.getInputType(table).getRank() != 2)
      return context.fail("expects tables of two dimensions");
    Part part{{}, {}, context.getInput(table), false};
    Sizes tableSizes = context.getSizes(part.table);
    if (!context.isAbsent(indices)) {
      if (context.getInputType(indices).getRank() != 2)
        return context.fail("expects indices [batch, length]");
      part.indices = context.getInput(indices);
      part.indexElement = context.getElementType(indices);
      Sizes given = context.getSizes(part.indices);
      part.oneRow =
          isPosition && context.getInputType(indices).getDimSize(0) == 1;
      if ((!part.oneRow &&
           failed(math.requireEqual(given[0], sizes[0],
                                    "indices have another batch"))) ||
          failed(math.requireEqual(given[1], sizes[1],
                                   "indices have another length")))
        return failure();
      checkPositions(context, part.indices, part.indexElement, tableSizes[0]);
    } else if (failed(math.requireLessEqual(
                   sizes[1], tableSizes[0],
                   "there are more positions than the table has"))) {
      return failure();
    }
    if (!parts.empty() &&
        failed(math.requireEqual(
            tableSizes[1],
            getSize(context.rewriter, context.loc, parts[0].table, 1),
            "the tables have rows of different lengths")))
      return failure();
    parts.push_back(part);
  }
  sizes.push_back(getSize(context.rewriter, context.loc, parts[0].table, 1));
  Type element = context.getElementType(2);
  Value sum = buildMapped(
      context, {}, sizes, element, [&](ScalarBuilder &scalar, ValueRange) {
        auto loop = [&](int64_t position) -> Value {
          return linalg::IndexOp::create(scalar.builder, scalar.loc, position);
        };
        Value total;
        for (const Part &part : parts) {
          Value row = loop(1);
          if (part.indices) {
            Value batch = part.oneRow ? scalar.index(0) : loop(0);
            row = arith::IndexCastOp::create(
                scalar.builder, scalar.loc, scalar.builder.getIndexType(),
                tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                          part.indices,
                                          ValueRange{batch, loop(1)}));
          }
          Value number =
              extractNumber(scalar, part.table, element, {row, loop(2)});
          total = total ? scalar.add(total, number) : number;
        }
        return total;
      });
  auto layer =
      buildLayerNormalization(context, makeOperand(context, sum, element), 2,
                              /*isRMS=*/false, 5, 6, element);
  if (failed(layer))
    return failure();
  SmallVector<Value> results{layer->result};
  if (context.node.getNumResults() > 1) {
    Type i32 = context.rewriter.getI32Type();
    results.push_back(
        context.isAbsent(7)
            ? buildFilled(context, sizes[0], context.scalar().integer(i32, 0))
            : countUnmasked(context, context.getInput(7),
                            context.getElementType(7), sizes[0]));
  }
  if (context.node.getNumResults() > 2)
    results.push_back(sum);
  return context.replace(results);
}

void nibble::addNormalizationConversions(NodeConversions &conversions) {
  conversions.add("BatchNormalization", 6, convertBatchNormalization);
  conversions.add("InstanceNormalization", 1, convertInstanceNormalization);
  conversions.add("GroupNormalization", 18, convertGroupNormalization);
  conversions.add("MeanVarianceNormalization", 9, convertMeanVariance);
  conversions.add("LpNormalization", 1, convertLpNormalization);
  conversions.add("LRN", 1, convertLRN);
  // ONNX Runtime fuses into these in its own domain and in ONNX's.
  for (StringRef domain : {"", "com.microsoft"})
    conversions.add(domain, "SimplifiedLayerNormalization", 1,
                    convertSimplifiedLayer);
  conversions.add("com.microsoft", "SkipLayerNormalization", 1,
                  [](NodeContext &context) {
                    return convertSkipLayer(context, /*isRMS=*/false);
                  });
  conversions.add("com.microsoft", "SkipSimplifiedLayerNormalization", 1,
                  [](NodeContext &context) {
                    return convertSkipLayer(context, /*isRMS=*/true);
                  });
  conversions.add("com.microsoft", "EmbedLayerNormalization", 1,
                  convertEmbedLayer);
}
