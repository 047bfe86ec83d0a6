//===- Attention.cpp - ONNX's Attention and RotaryEmbedding ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Attention.h"

#include "nibble/Dialect/Onnx/IR/DataTypes.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

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

/// A logit, or -infinity where what is asked for is not visible.
static Value applyMask(ScalarBuilder &scalar, Value logit, Value visible,
                       Value mask, Type maskElement) {
  Type type = logit.getType();
  Value masked = scalar.infinity(type, /*negative=*/true);
  if (mask && maskElement.isInteger(1)) {
    visible = buildAnd(scalar, visible, mask);
  } else if (mask) {
    Value bias = scalar.convert(mask, maskElement, type);
    // What is masked stays so, whatever its score is.
    visible = buildAnd(scalar, visible,
                       buildNegation(scalar, scalar.equal(bias, masked)));
    logit = scalar.add(logit, bias);
  }
  return scalar.select(visible, logit, masked);
}

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
  Value offset = outer.index(0);
  Value sequence =
      context.toValue(getSize(context.rewriter, context.loc, query.tensor, 2));
  if (pastKey) {
    offset = context.toValue(
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
  SmallVector<TypedTensor> operands;
  TypedTensor mask = getTensor(context, 3);
  if (mask && mask.dimensions.empty())
    return context.fail("expects a mask with dimensions");
  if (mask)
    operands.push_back(padMask(context, mask, total, totalSize));
  bool hasLengths = false;
  if (TypedTensor lengths = getTensor(context, 6)) {
    agree(context, "batch size", {{&query, 0}, {&lengths, 0}});
    OpFoldResult one = context.rewriter.getIndexAttr(1);
    operands.push_back(reshape(
        context, lengths, {lengths.dimensions[0], {1, {}}, {1, {}}, {1, {}}},
        {context.getSizes(lengths.tensor).front(), one, one, one}));
    hasLengths = true;
  }

  FailureOr<TypedTensor> scores = buildScores(context, query, key);
  if (failed(scores))
    return failure();
  FailureOr<double> scale = getScale(context, query);
  if (failed(scale))
    return failure();
  Type type = scores->element;
  constexpr int64_t doublePrecision = 11;
  if (node.getInt("softmax_precision", 0) == doublePrecision)
    type = context.rewriter.getF64Type();
  auto applyMasks = [&](ScalarBuilder &scalar, Value logit, ValueRange args) {
    Value length, first = offset;
    if (hasLengths) {
      length = toIndex(scalar, args.back());
      first = scalar.sub(length, sequence);
    }
    Value visible = visibility.build(scalar, first, length);
    return applyMask(scalar, logit, visible, mask ? args.front() : Value(),
                     mask.element);
  };
  double softcap = node.getFloat("softcap", 0);
  TypedTensor logits = buildLogits(context, *scores, *scale, softcap, operands,
                                   applyMasks, type);
  TypedTensor probabilities = buildProbabilities(context, logits);
  FailureOr<TypedTensor> sums =
      buildWeightedSum(context, probabilities, value, element);
  if (failed(sums))
    return failure();

  SmallVector<Value> results{isFlat ? mergeHeads(context, *sums) : sums->tensor,
                             key.tensor, value.tensor};
  results.resize(node.getNumResults());
  if (node.getNumResults() > 3) {
    int64_t mode = node.getInt("qk_matmul_output_mode", 0);
    if (mode == 3)
      results[3] = buildCast(context, probabilities.tensor,
                             probabilities.element, element);
    else if (mode == 2)
      results[3] = buildLogits(context, *scores, *scale, softcap, operands,
                               applyMasks, element)
                       .tensor;
    else
      results[3] = buildLogits(context, *scores, *scale, mode ? softcap : 0, {},
                               nullptr, element)
                       .tensor;
  }
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// FlexAttention
//===----------------------------------------------------------------------===//

/// The subgraph that attribute `name` holds, or null.
static Region *getSubgraph(NodeOp node, StringRef name) {
  unsigned index = 0;
  for (Attribute attribute : node.getNodeAttributes()) {
    auto entry = cast<NodeAttributeAttr>(attribute);
    if (!isa<GraphAttr>(entry.getValue()))
      continue;
    if (entry.getName() == name)
      return &node->getRegion(index);
    ++index;
  }
  return nullptr;
}

/// `numbers`, or what the subgraph `name` makes of them, rounded to `element`
/// before.
static FailureOr<TypedTensor> modify(NodeContext &context, StringRef name,
                                     const TypedTensor &numbers, Type element) {
  Region *body = getSubgraph(context.node, name);
  if (!body)
    return numbers;
  Value given = buildCast(context, numbers.tensor, numbers.element, element);
  FailureOr<Value> made = inlineFunction(context, *body, given);
  if (failed(made))
    return failure();
  auto type = cast<RankedTensorType>((*made).getType());
  if (type.getRank() != 4 || type.getElementType() != getStoredType(element))
    return context.fail("the subgraph " + name +
                        " changes the type of its input");
  TypedTensor result = numbers;
  result.tensor = buildCast(context, *made, element, numbers.element);
  ScalarBuilder scalar = context.scalar();
  for (int64_t axis = 0; axis < 4; ++axis) {
    auto getExtent = [&](Value tensor) {
      return context.toValue(
          getSize(context.rewriter, context.loc, tensor, axis));
    };
    context.check(scalar.equal(getExtent(numbers.tensor), getExtent(*made)),
                  "the subgraph " + name + " changes the shape of its input");
  }
  return result;
}

static LogicalResult convertFlexAttention(NodeContext &context) {
  TypedTensor query = getTensor(context, 0), key = getTensor(context, 1),
              value = getTensor(context, 2);
  for (const TypedTensor *tensor : {&query, &key, &value})
    if (tensor->dimensions.size() != 4)
      return context.fail("expects tensors of rank 4");
  agree(context, "batch size", {{&query, 0}, {&key, 0}, {&value, 0}});
  agree(context, "number of key heads", {{&key, 1}, {&value, 1}});
  agree(context, "number of keys", {{&key, 2}, {&value, 2}});
  agree(context, "size of a query", {{&query, 3}, {&key, 3}});
  agree(context, "number of queries", {{&query, 2}});
  auto scores = buildScores(context, query, key);
  FailureOr<double> scale = getScale(context, query);
  if (failed(scores) || failed(scale))
    return failure();
  Type element = query.element;
  Type precision = scores->element;
  if (int64_t given = context.node.getInt("softmax_precision", 0))
    precision = onnx::getElementType(context.rewriter.getContext(), given);
  if (!isa_and_present<FloatType>(precision))
    return context.fail("softmax_precision names no type of floats");
  Type type = precision.isF64() ? precision : scores->element;
  TypedTensor logits =
      buildLogits(context, *scores, *scale, /*softcap=*/0, {}, nullptr, type);
  auto modified = modify(context, "score_mod", logits, precision);
  if (failed(modified))
    return failure();
  auto probabilities = modify(
      context, "prob_mod", buildProbabilities(context, *modified), precision);
  if (failed(probabilities))
    return failure();
  auto sums = buildWeightedSum(context, *probabilities, value, element);
  if (failed(sums))
    return failure();
  return context.replace(sums->tensor);
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
  conversions.add("ai.onnx.preview", "FlexAttention", 1, convertFlexAttention);
  conversions.add("RotaryEmbedding", 23, convertRotaryEmbedding);
}
