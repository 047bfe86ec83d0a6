//===- Attention.cpp - ONNX's Attention and RotaryEmbedding ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Attention.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

namespace {
/// What a logit is made of beside its score, each broadcast to [batch, heads,
/// sequence, total].
struct MaskOperands {
  TypedTensor mask;
  /// [batch, 1, 1, 1]: the number of keys that are no padding.
  TypedTensor lengths;
};

/// The attributes that say what a query may see.
struct Visibility {
  bool isCausal = false;
  int64_t left = -1, right = -1;
  /// Number of keys before the first query, where it is the same for all.
  Value offset;
  Value sequence;

  bool usesPositions() const { return isCausal || left >= 0 || right >= 0; }
};
} // namespace

/// The mask with its last dimension extended to the number of keys: what is
/// missing is masked.
static TypedTensor padMask(NodeContext &context, TypedTensor mask,
                           const Dimension &total, OpFoldResult totalSize) {
  Dimension &last = mask.dimensions.back();
  if (last.isKnownEqual(total))
    return mask;
  Sizes sizes = context.getSizes(mask.tensor);
  ScalarBuilder outer = context.scalar();
  Value size = context.toValue(sizes.back());
  context.check(outer.lessEqual(size, context.toValue(totalSize)),
                "the mask has more columns than there are keys");
  Value hasNoKeys = outer.isZero(context.toValue(totalSize));
  context.check(buildOr(outer, hasNoKeys, outer.less(outer.index(0), size)),
                "the mask has no columns");
  sizes.back() = totalSize;
  Value from = mask.tensor;
  Type element = mask.element, computed = getComputedType(element);
  last = total;
  mask.tensor = buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(from),
      [&](ScalarBuilder &scalar, ValueRange loops) -> Value {
        Value isThere = scalar.less(loops.back(), size);
        SmallVector<Value> source(loops);
        source.back() = scalar.select(isThere, loops.back(), scalar.index(0));
        Value masked =
            element.isInteger(1)
                ? scalar.boolean(false)
                : scalar.encode(scalar.infinity(computed, true), element);
        return scalar.select(isThere, extract(scalar, from, source), masked);
      });
  return mask;
}

/// Whether query `loops[2]` may see key `loops[3]`, of which `length` are no
/// padding (null where all are).
static Value buildVisible(ScalarBuilder &scalar, const Visibility &visibility,
                          Value length) {
  auto getLoop = [&](int64_t axis) -> Value {
    return linalg::IndexOp::create(scalar.builder, scalar.loc, axis);
  };
  Value visible = scalar.boolean(true), key = getLoop(3);
  if (length)
    visible = scalar.less(key, length);
  if (!visibility.usesPositions())
    return visible;
  Value offset = visibility.offset;
  if (length)
    offset = scalar.sub(length, visibility.sequence);
  Value position = scalar.add(getLoop(2), offset);
  if (visibility.isCausal)
    visible = buildAnd(scalar, visible, scalar.lessEqual(key, position));
  if (visibility.left >= 0)
    visible =
        buildAnd(scalar, visible,
                 scalar.lessEqual(
                     scalar.sub(position, scalar.index(visibility.left)), key));
  if (visibility.right >= 0)
    visible = buildAnd(
        scalar, visible,
        scalar.lessEqual(key,
                         scalar.add(position, scalar.index(visibility.right))));
  return visible;
}

/// softcap · tanh(x / softcap), or x where there is no softcap.
static Value buildSoftcap(ScalarBuilder &scalar, Value x, double softcap) {
  if (softcap <= 0)
    return x;
  Value limit = scalar.constant(x.getType(), softcap);
  Value inner =
      math::TanhOp::create(scalar.builder, scalar.loc, scalar.div(x, limit));
  return scalar.mul(inner, limit);
}

namespace {
/// The numbers of one Attention node between its two contractions.
struct LogitBuilder {
  NodeContext &context;
  TypedTensor scores;
  MaskOperands operands;
  Visibility visibility;
  double scale, softcap;

  /// Scaled scores; capped, and masked, where that is asked for, as `type`.
  Value build(bool isCapped, bool isMasked, Type element) {
    SmallVector<Value> tensors{scores.tensor};
    SmallVector<RankedTensorType> types{scores.getType()};
    auto use = [&](const TypedTensor &operand) {
      if (!operand || !isMasked)
        return -1;
      tensors.push_back(operand.tensor);
      types.push_back(operand.getType());
      return static_cast<int>(tensors.size()) - 1;
    };
    int mask = use(operands.mask), lengths = use(operands.lengths);
    return buildBroadcast(
        context, tensors, types, element,
        [&](ScalarBuilder &scalar, ValueRange args) {
          Type type = args[0].getType();
          Value logit = scalar.mul(args[0], scalar.constant(type, scale));
          if (isCapped)
            logit = buildSoftcap(scalar, logit, softcap);
          if (isMasked)
            logit = applyMask(scalar, logit, mask < 0 ? Value() : args[mask],
                              lengths < 0 ? Value() : args[lengths]);
          return scalar.convert(logit, type, element);
        });
  }

private:
  Value applyMask(ScalarBuilder &scalar, Value logit, Value mask,
                  Value length) {
    Type type = logit.getType();
    if (length)
      length = toIndex(scalar, length);
    Value visible = buildVisible(scalar, visibility, length);
    Value masked = scalar.infinity(type, /*negative=*/true);
    if (mask && operands.mask.element.isInteger(1)) {
      visible = buildAnd(scalar, visible, mask);
    } else if (mask) {
      Value bias = scalar.convert(mask, operands.mask.element, type);
      // What is masked stays so, whatever its score is.
      visible = buildAnd(scalar, visible,
                         buildNegation(scalar, scalar.equal(bias, masked)));
      logit = scalar.add(logit, bias);
    }
    return scalar.select(visible, logit, masked);
  }
};
} // namespace

/// Query, key and value as [batch, heads, sequence, size].
static LogicalResult splitInputs(NodeContext &context, TypedTensor &query,
                                 TypedTensor &key, TypedTensor &value) {
  if (query.dimensions.size() != key.dimensions.size() ||
      query.dimensions.size() != value.dimensions.size())
    return context.fail("expects query, key and value of one rank");
  if (query.dimensions.size() == 4)
    return success();
  if (query.dimensions.size() != 3)
    return context.fail("expects tensors of rank 3 or 4");
  int64_t heads = context.node.getInt("q_num_heads", 0);
  int64_t keyHeads = context.node.getInt("kv_num_heads", heads);
  FailureOr<TypedTensor> q = splitHeads(context, query, heads);
  FailureOr<TypedTensor> k = splitHeads(context, key, keyHeads);
  FailureOr<TypedTensor> v = splitHeads(context, value, keyHeads);
  if (failed(q) || failed(k) || failed(v))
    return failure();
  query = *q;
  key = *k;
  value = *v;
  return success();
}

/// Puts what is cached in front of the new keys and values.
static void prependPast(NodeContext &context, TypedTensor &past,
                        TypedTensor &tensor, StringRef size) {
  agree(context, "number of key heads", {{&tensor, 1}, {&past, 1}});
  agree(context, size, {{&tensor, 3}, {&past, 3}});
  tensor = concatenate(context, {past, tensor}, 2);
}

static LogicalResult convertAttention(NodeContext &context) {
  NodeOp node = context.node;
  TypedTensor query = getTensor(context, 0), key = getTensor(context, 1),
              value = getTensor(context, 2);
  bool isFlat = query.dimensions.size() == 3;
  if (failed(splitInputs(context, query, key, value)))
    return failure();
  Type element = query.element;
  TypedTensor pastKey = getTensor(context, 4),
              pastValue = getTensor(context, 5);
  if (static_cast<bool>(pastKey) != static_cast<bool>(pastValue))
    return context.fail("expects both a past key and a past value, or none");
  SmallVector<std::pair<TypedTensor *, int64_t>> batches{
      {&query, 0}, {&key, 0}, {&value, 0}};
  if (pastKey) {
    batches.push_back({&pastKey, 0});
    batches.push_back({&pastValue, 0});
  }
  agree(context, "batch size", batches);
  agree(context, "number of new keys", {{&key, 2}, {&value, 2}});
  agree(context, "number of key heads", {{&key, 1}, {&value, 1}});
  ScalarBuilder outer = context.scalar();
  Visibility visibility;
  visibility.isCausal = node.getInt("is_causal", 0) != 0;
  visibility.left = node.getInt("left_window_size", -1);
  visibility.right = node.getInt("right_window_size", -1);
  visibility.offset = outer.index(0);
  visibility.sequence =
      context.toValue(getSize(context.rewriter, context.loc, query.tensor, 2));
  if (pastKey) {
    visibility.offset = context.toValue(
        getSize(context.rewriter, context.loc, pastKey.tensor, 2));
    agree(context, "number of past keys", {{&pastKey, 2}, {&pastValue, 2}});
    prependPast(context, pastKey, key, "size of a key");
    prependPast(context, pastValue, value, "size of a value");
  }
  agree(context, "size of a query", {{&query, 3}, {&key, 3}});
  Dimension total = agree(context, "number of keys", {{&key, 2}, {&value, 2}});
  OpFoldResult totalSize =
      getSize(context.rewriter, context.loc, key.tensor, 2);

  // The name of a dimension that has none, so that masks are known to agree.
  agree(context, "number of queries", {{&query, 2}});
  MaskOperands operands;
  operands.mask = getTensor(context, 3);
  if (operands.mask && operands.mask.dimensions.empty())
    return context.fail("expects a mask with dimensions");
  if (operands.mask)
    operands.mask = padMask(context, operands.mask, total, totalSize);
  if (TypedTensor lengths = getTensor(context, 6)) {
    agree(context, "batch size", {{&query, 0}, {&lengths, 0}});
    OpFoldResult one = context.rewriter.getIndexAttr(1);
    operands.lengths = {
        buildReshape(context, lengths.tensor,
                     {context.getSizes(lengths.tensor).front(), one, one, one}),
        {lengths.dimensions[0], {1, {}}, {1, {}}, {1, {}}},
        lengths.element};
  }

  FailureOr<TypedTensor> scores = buildScores(context, query, key);
  if (failed(scores))
    return failure();
  double scale = node.getFloat("scale", 0);
  if (!node.getAttributeValue("scale")) {
    if (!query.dimensions[3].isStatic())
      return context.fail("the size of a head must be known, or a scale given");
    scale = 1 / std::sqrt(static_cast<double>(query.dimensions[3].size));
  }
  Type type = scores->element;
  constexpr int64_t doublePrecision = 11;
  if (node.getInt("softmax_precision", 0) == doublePrecision)
    type = context.rewriter.getF64Type();
  LogitBuilder logits{context,    *scores, operands,
                      visibility, scale,   node.getFloat("softcap", 0)};
  TypedTensor masked = *scores;
  masked.element = type;
  masked.tensor = logits.build(/*isCapped=*/true, /*isMasked=*/true, type);
  TypedTensor probabilities = buildProbabilities(context, masked);
  FailureOr<TypedTensor> sums =
      buildWeightedSum(context, probabilities, value, element);
  if (failed(sums))
    return failure();

  SmallVector<Value> results{isFlat ? mergeHeads(context, *sums) : sums->tensor,
                             key.tensor, value.tensor};
  results.resize(node.getNumResults());
  if (node.getNumResults() > 3) {
    int64_t mode = node.getInt("qk_matmul_output_mode", 0);
    results[3] = mode == 3 ? buildCast(context, probabilities.tensor,
                                       probabilities.element, element)
                           : logits.build(/*isCapped=*/mode >= 1,
                                          /*isMasked=*/mode == 2, element);
  }
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// RotaryEmbedding
//===----------------------------------------------------------------------===//

static LogicalResult convertRotaryEmbedding(NodeContext &context) {
  TypedTensor x = getTensor(context, 0), cosines = getTensor(context, 1),
              sines = getTensor(context, 2), positions = getTensor(context, 3);
  bool isFlat = x.dimensions.size() == 3;
  if (isFlat) {
    auto split = splitHeads(context, x, context.node.getInt("num_heads", 0));
    if (failed(split))
      return failure();
    x = *split;
  }
  size_t cacheRank = positions ? 2 : 3;
  if (x.dimensions.size() != 4 || cosines.dimensions.size() != cacheRank ||
      sines.dimensions.size() != cacheRank)
    return context.fail("expects an input of rank 3 or 4 and caches of rank " +
                        Twine(cacheRank));
  for (size_t axis = 0; axis < cacheRank; ++axis)
    agree(context, "shape of the caches",
          {{&cosines, static_cast<int64_t>(axis)},
           {&sines, static_cast<int64_t>(axis)}});
  if (positions) {
    agree(context, "batch size", {{&x, 0}, {&positions, 0}});
    agree(context, "sequence length", {{&x, 2}, {&positions, 1}});
    checkIndices(context, 3,
                 getSize(context.rewriter, context.loc, cosines.tensor, 0));
  } else {
    agree(context, "batch size", {{&x, 0}, {&cosines, 0}});
    agree(context, "sequence length", {{&x, 2}, {&cosines, 1}});
  }
  x.tensor = buildRotary(context, x, cosines, sines, positions.tensor,
                         context.node.getInt("interleaved", 0) != 0);
  return context.replace(isFlat ? mergeHeads(context, x) : x.tensor);
}

void nibble::addAttentionConversions(NodeConversions &conversions) {
  conversions.add("Attention", 23, convertAttention);
  conversions.add("RotaryEmbedding", 23, convertRotaryEmbedding);
}
