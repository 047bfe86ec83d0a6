//===- MicrosoftAttention.cpp - Attention ops of ONNX Runtime -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// GroupQueryAttention, MultiHeadAttention, Attention and RotaryEmbedding of the
// domain com.microsoft, as
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
// describes them.
//
//===----------------------------------------------------------------------===//

#include "Attention.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static OpFoldResult getExtent(NodeContext &context, const TypedTensor &tensor,
                              int64_t axis) {
  return getSize(context.rewriter, context.loc, tensor.tensor, axis);
}

static Value getExtentValue(NodeContext &context, const TypedTensor &tensor,
                            int64_t axis) {
  return context.toValue(getExtent(context, tensor, axis));
}

/// A vector [batch] as [batch, 1, 1, 1].
static TypedTensor spreadBatch(NodeContext &context,
                               const TypedTensor &vector) {
  OpFoldResult one = context.rewriter.getIndexAttr(1);
  return reshape(context, vector,
                 {vector.dimensions[0], {1, {}}, {1, {}}, {1, {}}},
                 {getExtent(context, vector, 0), one, one, one});
}

/// A scalar, or the first element of a tensor, as an index.
static Value readIndex(NodeContext &context, const TypedTensor &tensor) {
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> first(tensor.dimensions.size(), scalar.index(0));
  return toIndex(scalar, extract(scalar, tensor.tensor, first));
}

static LogicalResult refuseInputs(NodeContext &context, unsigned first,
                                  unsigned last, StringRef what) {
  for (unsigned i = first; i <= last && i < context.getNumInputs(); ++i)
    if (!context.isAbsent(i))
      return context.fail("input " + Twine(i) + " (" + what +
                          ") is not supported");
  return success();
}

//===----------------------------------------------------------------------===//
// GroupQueryAttention
//===----------------------------------------------------------------------===//

namespace {
struct Projections {
  TypedTensor query, key, value;
};

/// How many keys each sequence of the batch has behind it, and their total.
struct CacheState {
  /// [batch] as i64: keys in front of the new ones.
  TypedTensor past;
  /// The largest number of keys of a sequence.
  Value total;
};
} // namespace

/// Query, key and value as [batch, heads, sequence, size].
static FailureOr<Projections> getGroupedProjections(NodeContext &context) {
  int64_t heads = context.node.getInt("num_heads", 0);
  int64_t keyHeads = context.node.getInt("kv_num_heads", 0);
  TypedTensor query = getTensor(context, 0), key = getTensor(context, 1),
              value = getTensor(context, 2);
  if (heads < 1 || keyHeads < 1 || heads % keyHeads != 0)
    return context.fail("the number of heads is no multiple of that of the "
                        "keys");
  if (query.dimensions.size() != 3)
    return context.fail("expects a query of rank 3");
  if (!key) {
    // All three are packed in the query.
    auto packed = splitHeads(context, query, heads + 2 * keyHeads);
    if (failed(packed))
      return failure();
    return Projections{slice(context, *packed, 1, 0, heads),
                       slice(context, *packed, 1, heads, keyHeads),
                       slice(context, *packed, 1, heads + keyHeads, keyHeads)};
  }
  if (!value || key.dimensions.size() != 3 || value.dimensions.size() != 3)
    return context.fail("expects a key and a value of rank 3");
  auto q = splitHeads(context, query, heads);
  auto k = splitHeads(context, key, keyHeads);
  auto v = splitHeads(context, value, keyHeads);
  if (failed(q) || failed(k) || failed(v))
    return failure();
  agree(context, "batch size", {{&*q, 0}, {&*k, 0}, {&*v, 0}});
  agree(context, "number of queries", {{&*q, 2}, {&*k, 2}, {&*v, 2}});
  agree(context, "size of a head", {{&*q, 3}, {&*k, 3}, {&*v, 3}});
  return Projections{*q, *k, *v};
}

/// A first prompt has as many keys as the longest sequence; else there are
/// `seqlens_k + 1 - sequence` keys in front of the new ones.
static CacheState getCacheState(NodeContext &context, Projections &tensors) {
  TypedTensor lengths = getTensor(context, 5), total = getTensor(context, 6);
  agree(context, "batch size",
        {{&tensors.query, 0},
         {&tensors.key, 0},
         {&tensors.value, 0},
         {&lengths, 0}});
  ScalarBuilder outer = context.scalar();
  Value sequence = getExtentValue(context, tensors.query, 2);
  CacheState state;
  state.total = readIndex(context, total);
  Value isPrompt = outer.equal(sequence, state.total);
  Type i64 = context.rewriter.getI64Type();
  auto countPast = [=](ScalarBuilder &scalar, Value length) {
    Value all = scalar.add(toIndex(scalar, length), scalar.index(1));
    return scalar.select(isPrompt, scalar.index(0), scalar.sub(all, sequence));
  };
  Value valid = buildAllOf(
      context, lengths.tensor,
      [&](ScalarBuilder &scalar, Value length, ValueRange) {
        Value past = countPast(scalar, length);
        Value end = scalar.add(past, sequence);
        return buildAnd(scalar, scalar.lessEqual(scalar.index(0), past),
                        scalar.lessEqual(end, state.total));
      });
  context.check(valid, "seqlens_k does not fit total_sequence_length");
  state.past = {buildElementwise(context.rewriter, context.loc, lengths.tensor,
                                 context.rewriter.getMultiDimIdentityMap(1),
                                 getExtent(context, lengths, 0), i64,
                                 [&](ScalarBuilder &scalar, ValueRange args) {
                                   return toI64(scalar,
                                                countPast(scalar, args[0]));
                                 }),
                {lengths.dimensions[0]},
                i64};
  return state;
}

/// The cache with the new keys (or values) written behind those of the past:
/// in the past's own tensor where it has room for them, else in a larger one.
static TypedTensor appendToCache(NodeContext &context, unsigned pastInput,
                                 unsigned result, TypedTensor &added,
                                 const CacheState &state) {
  OpBuilder &builder = context.rewriter;
  ScalarBuilder outer = context.scalar();
  TypedTensor past = getTensor(context, pastInput);
  Sizes sizes = context.getSizes(added.tensor);
  OpFoldResult zero = builder.getIndexAttr(0), one = builder.getIndexAttr(1);
  SmallVector<OpFoldResult> origin(4, zero), strides(4, one);
  TypedTensor cache = added;
  cache.dimensions[2] = Dimension();
  Value capacity = state.total;
  RankedTensorType declared = context.getResultType(result);
  bool hasRoom = false;
  if (past) {
    agree(context, "batch size", {{&added, 0}, {&past, 0}});
    agree(context, "number of key heads", {{&added, 1}, {&past, 1}});
    agree(context, "size of a head", {{&added, 3}, {&past, 3}});
    hasRoom =
        declared && past.dimensions[2].isKnownEqual(getDimensions(declared)[2]);
    Value own = getExtentValue(context, past, 2);
    // Where the past is not full it keeps its size.
    capacity = hasRoom ? own : outer.max(own, state.total);
    if (hasRoom)
      context.check(outer.lessEqual(state.total, own),
                    "the cache has no room for the new keys");
  }
  if (hasRoom) {
    cache.tensor = past.tensor;
    cache.dimensions[2] = past.dimensions[2];
  } else {
    Sizes cacheSizes(sizes);
    cacheSizes[2] = capacity;
    Value nothing = outer.encode(
        outer.constant(getComputedType(added.element), 0), added.element);
    cache.tensor = buildFilled(context, cacheSizes, nothing);
    if (past)
      cache.tensor = tensor::InsertSliceOp::create(
          builder, context.loc, past.tensor, cache.tensor, origin,
          context.getSizes(past.tensor), strides);
  }
  // Each sequence has a position of its own.
  Sizes partSizes(sizes);
  partSizes[0] = one;
  cache.tensor = buildSequence(
      context, sizes[0], cache.tensor,
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        SmallVector<OpFoldResult> from(origin), to(origin);
        from[0] = to[0] = loops[0];
        to[2] = toIndex(scalar, extract(scalar, state.past.tensor, loops));
        Value part = tensor::ExtractSliceOp::create(
            scalar.builder, scalar.loc, added.tensor, from, partSizes, strides);
        Value next =
            tensor::InsertSliceOp::create(scalar.builder, scalar.loc, part,
                                          carried[0], to, partSizes, strides);
        return SmallVector<Value>{next};
      })[0];
  return cache;
}

/// Positions [batch, sequence] of the new tokens.
static FailureOr<Value> getPositions(NodeContext &context,
                                     const Projections &tensors,
                                     const CacheState &state) {
  Sizes sizes{getExtent(context, tensors.query, 0),
              getExtent(context, tensors.query, 2)};
  if (TypedTensor given = getTensor(context, 9)) {
    if (given.dimensions.size() != 2)
      return context.fail("expects position_ids of rank 2");
    TypedTensor query = tensors.query;
    agree(context, "batch size", {{&query, 0}, {&given, 0}});
    agree(context, "number of queries", {{&query, 2}, {&given, 1}});
    return given.tensor;
  }
  return buildTensor(
      context.rewriter, context.loc, sizes, context.rewriter.getI64Type(),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value past = extract(scalar, state.past.tensor, loops[0]);
        return scalar.add(past, toI64(scalar, loops[1]));
      });
}

static void checkPositions(NodeContext &context, Value positions,
                           const TypedTensor &cache) {
  Value limit = getExtentValue(context, cache, 0);
  context.check(
      buildAllOf(context, positions,
                 [&](ScalarBuilder &scalar, Value position, ValueRange) {
                   Value row = toIndex(scalar, position);
                   return buildAnd(scalar,
                                   scalar.lessEqual(scalar.index(0), row),
                                   scalar.less(row, limit));
                 }),
      "a position is not in the cache of cosines");
}

static LogicalResult rotate(NodeContext &context, Projections &tensors,
                            const CacheState &state) {
  TypedTensor cosines = getTensor(context, 7), sines = getTensor(context, 8);
  if (!cosines || !sines || cosines.dimensions.size() != 2 ||
      sines.dimensions.size() != 2)
    return context.fail("do_rotary needs caches of cosines and sines");
  for (int64_t axis : {0, 1})
    agree(context, "shape of the caches", {{&cosines, axis}, {&sines, axis}});
  auto positions = getPositions(context, tensors, state);
  if (failed(positions))
    return failure();
  checkPositions(context, *positions, cosines);
  bool isInterleaved = context.node.getInt("rotary_interleaved", 0) != 0;
  for (TypedTensor *tensor : {&tensors.query, &tensors.key})
    tensor->tensor = buildRotary(context, *tensor, cosines, sines, *positions,
                                 isInterleaved);
  return success();
}

/// A logit whose exponential adds to the sum of a softmax.
static TypedTensor getSink(NodeContext &context) {
  if (TypedTensor sink = getTensor(context, 11))
    return sink;
  if (context.node.getInt("smooth_softmax", 0) != 1)
    return {};
  Type f32 = context.rewriter.getF32Type();
  Value zero = context.scalar().constant(f32, 0);
  return {buildFilled(context, {}, zero), {}, f32};
}

static LogicalResult convertGroupQueryAttention(NodeContext &context) {
  NodeOp node = context.node;
  if (failed(refuseInputs(context, 12, 13, "scales of a quantized cache")) ||
      failed(refuseInputs(context, 14, 15, "weights of a norm")) ||
      failed(refuseInputs(context, 16, 16, "query_seqlens")))
    return failure();
  if (node.getInt("sliding_window_cache", 0) || node.getNumResults() > 3)
    return context.fail("sliding_window_cache and output_qk are not supported");
  if (context.isAbsent(5) || context.isAbsent(6))
    return context.fail("expects seqlens_k and total_sequence_length");
  auto projections = getGroupedProjections(context);
  if (failed(projections))
    return failure();
  Projections &tensors = *projections;
  Type element = tensors.query.element;
  CacheState state = getCacheState(context, tensors);
  if (node.getInt("do_rotary", 0) && failed(rotate(context, tensors, state)))
    return failure();
  TypedTensor keys = appendToCache(context, 3, 1, tensors.key, state);
  TypedTensor values = appendToCache(context, 4, 2, tensors.value, state);
  Value presentKey = keys.tensor, presentValue = values.tensor;

  // Behind the longest sequence there is nothing to see.
  keys = slice(context, keys, 2, context.rewriter.getIndexAttr(0), {},
               state.total);
  values = slice(context, values, 2, context.rewriter.getIndexAttr(0), {},
                 state.total);
  agree(context, "number of keys", {{&keys, 2}, {&values, 2}});
  agree(context, "number of queries", {{&tensors.query, 2}});
  auto scores = buildScores(context, tensors.query, keys);
  FailureOr<double> scale = getScale(context, tensors.query);
  if (failed(scores) || failed(scale))
    return failure();
  SmallVector<TypedTensor> operands{spreadBatch(context, state.past)};
  TypedTensor bias = getTensor(context, 10);
  if (bias)
    operands.push_back(bias);
  Visibility visibility;
  visibility.isCausal = node.getInt("causal", 1) != 0;
  // The window counts the query's own position.
  if (int64_t window = node.getInt("local_window_size", -1); window > 0)
    visibility.left = window - 1;
  Value sequence = getExtentValue(context, tensors.query, 2);
  TypedTensor logits = buildLogits(
      context, *scores, *scale, node.getFloat("softcap", 0), operands,
      [&](ScalarBuilder &scalar, Value logit, ValueRange args) {
        Value past = toIndex(scalar, args[0]), length;
        if (!visibility.isCausal)
          length = scalar.add(past, sequence);
        Value visible = visibility.build(scalar, past, length);
        if (bias)
          logit = scalar.add(
              logit, scalar.convert(args[1], bias.element, logit.getType()));
        return scalar.select(visible, logit,
                             scalar.infinity(logit.getType(), true));
      },
      scores->element);
  TypedTensor probabilities =
      buildProbabilities(context, logits, getSink(context));
  auto sums = buildWeightedSum(context, probabilities, values, element);
  if (failed(sums))
    return failure();
  SmallVector<Value> results{mergeHeads(context, *sums), presentKey,
                             presentValue};
  results.resize(node.getNumResults());
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// Masks of MultiHeadAttention and Attention
//===----------------------------------------------------------------------===//

namespace {
/// What is added to a logit, from integers that say what is padding.
struct PaddingMask {
  enum Kind {
    None,
    /// [batch]: the number of keys that are no padding.
    Lengths,
    /// [2 * batch]: ends, and then starts.
    Intervals,
    /// Integers broadcast to [batch, heads, sequence, total], 0 for padding.
    Flags
  };
  Kind kind = None;
  SmallVector<TypedTensor> operands;

  /// Whether a key is padding, from the numbers of the operands.
  Value isPadding(ScalarBuilder &scalar, ValueRange args) const {
    if (kind == Flags)
      return scalar.isZero(args[0]);
    Value key = linalg::IndexOp::create(scalar.builder, scalar.loc, 3);
    Value padding = scalar.lessEqual(toIndex(scalar, args[0]), key);
    if (kind == Intervals)
      padding =
          buildOr(scalar, padding, scalar.less(key, toIndex(scalar, args[1])));
    return padding;
  }
};
} // namespace

/// The first keys that are padding behind each sequence, and the first ones
/// that are none: [batch], or [2 * batch] with starts behind the ends.
static SmallVector<TypedTensor> getIntervals(NodeContext &context,
                                             const TypedTensor &mask,
                                             const TypedTensor &scores) {
  ScalarBuilder outer = context.scalar();
  OpFoldResult size = getExtent(context, scores, 0);
  Value batch = context.toValue(size),
        length = getExtentValue(context, mask, 0);
  Value isTwice = outer.equal(length, outer.mul(batch, outer.index(2)));
  if (!mask.dimensions[0].isKnownEqual(scores.dimensions[0]))
    context.check(buildOr(outer, isTwice, outer.equal(length, batch)),
                  "a mask of rank 1 needs a number or two for each sequence");
  auto build = [&](bool isStart) {
    Value vector = buildTensor(
        context.rewriter, context.loc, size, getStoredElement(mask.tensor),
        [&](ScalarBuilder &scalar, ValueRange loops) {
          if (!isStart)
            return extract(scalar, mask.tensor, loops);
          Value position = scalar.select(isTwice, scalar.add(loops[0], batch),
                                         scalar.index(0));
          Value start = extract(scalar, mask.tensor, position);
          return scalar.select(isTwice, start,
                               scalar.constant(start.getType(), 0));
        });
    return spreadBatch(context, {vector, {scores.dimensions[0]}, mask.element});
  };
  return {build(/*isStart=*/false), build(/*isStart=*/true)};
}

/// The mask of input `index` for logits like `scores`, of which `past` keys are
/// from the past (or null).
static FailureOr<PaddingMask> getPaddingMask(NodeContext &context,
                                             unsigned index, TypedTensor scores,
                                             OpFoldResult past) {
  TypedTensor mask = getTensor(context, index);
  PaddingMask result;
  if (!mask)
    return result;
  OpFoldResult one = context.rewriter.getIndexAttr(1);
  Dimension unit{1, {}};
  Dimension batch = scores.dimensions[0];
  switch (mask.dimensions.size()) {
  case 1: {
    Dimension size = mask.dimensions[0];
    result.kind = PaddingMask::Intervals;
    result.operands = getIntervals(context, mask, scores);
    if (!size.isKnownEqual(batch))
      return result;
    result.kind = PaddingMask::Lengths;
    result.operands.pop_back();
    return result;
  }
  case 2:
    mask = reshape(
        context, mask, {mask.dimensions[0], unit, unit, mask.dimensions[1]},
        {getExtent(context, mask, 0), one, one, getExtent(context, mask, 1)});
    break;
  case 3:
    mask = reshape(
        context, mask,
        {mask.dimensions[0], unit, mask.dimensions[1], mask.dimensions[2]},
        {getExtent(context, mask, 0), one, getExtent(context, mask, 1),
         getExtent(context, mask, 2)});
    break;
  case 4: {
    // A square for the longest sequence: rows behind the past, all keys.
    ScalarBuilder scalar = context.scalar();
    Value rows = getExtentValue(context, mask, 2);
    Value columns = getExtentValue(context, mask, 3);
    Value sequence = getExtentValue(context, scores, 2);
    Value total = getExtentValue(context, scores, 3);
    Value end = scalar.add(context.toValue(past), sequence);
    context.check(buildAnd(scalar, scalar.lessEqual(end, rows),
                           scalar.lessEqual(total, columns)),
                  "the mask is too small");
    mask = slice(context, mask, 2, past, scores.dimensions[2], sequence);
    mask = slice(context, mask, 3, context.rewriter.getIndexAttr(0),
                 scores.dimensions[3], total);
    break;
  }
  default:
    return context.fail("there is no mask of rank " +
                        Twine(mask.dimensions.size()));
  }
  result.kind = PaddingMask::Flags;
  result.operands.push_back(mask);
  return result;
}

/// The logits of scores under a padding mask and an attention bias (inputs of
/// the node; either may be left out).
static FailureOr<TypedTensor>
buildMaskedLogits(NodeContext &context, const TypedTensor &scores, double scale,
                  unsigned maskInput, unsigned biasInput, OpFoldResult past) {
  auto mask = getPaddingMask(context, maskInput, scores, past);
  if (failed(mask))
    return failure();
  SmallVector<TypedTensor> operands(mask->operands);
  TypedTensor bias = getTensor(context, biasInput);
  if (bias)
    operands.push_back(bias);
  double filter = context.node.getFloat("mask_filter_value", -10000);
  Visibility visibility;
  visibility.isCausal = context.node.getInt("unidirectional", 0) != 0;
  Value offset = context.toValue(past);
  return buildLogits(
      context, scores, scale, /*softcap=*/0, operands,
      [&](ScalarBuilder &scalar, Value logit, ValueRange args) {
        Type type = logit.getType();
        if (bias)
          logit = scalar.add(logit,
                             scalar.convert(args.back(), bias.element, type));
        if (mask->kind != PaddingMask::None) {
          Value added = scalar.select(mask->isPadding(scalar, args),
                                      scalar.constant(type, filter),
                                      scalar.constant(type, 0));
          logit = scalar.add(logit, added);
        }
        if (!visibility.isCausal)
          return logit;
        return scalar.select(visibility.build(scalar, offset, {}), logit,
                             scalar.infinity(type, /*negative=*/true));
      },
      scores.element);
}

/// The attention of [batch, heads, sequence, size] tensors, as [batch,
/// sequence, heads × size].
static FailureOr<Value> buildMaskedAttention(NodeContext &context,
                                             Projections &tensors,
                                             unsigned maskInput,
                                             unsigned biasInput,
                                             OpFoldResult past) {
  agree(context, "batch size",
        {{&tensors.query, 0}, {&tensors.key, 0}, {&tensors.value, 0}});
  agree(context, "size of a query", {{&tensors.query, 3}, {&tensors.key, 3}});
  agree(context, "number of keys", {{&tensors.key, 2}, {&tensors.value, 2}});
  agree(context, "number of queries", {{&tensors.query, 2}});
  auto scores = buildScores(context, tensors.query, tensors.key);
  FailureOr<double> scale = getScale(context, tensors.query);
  if (failed(scores) || failed(scale))
    return failure();
  auto logits =
      buildMaskedLogits(context, *scores, *scale, maskInput, biasInput, past);
  if (failed(logits))
    return failure();
  TypedTensor probabilities = buildProbabilities(context, *logits);
  auto sums = buildWeightedSum(context, probabilities, tensors.value,
                               tensors.query.element);
  if (failed(sums))
    return failure();
  return mergeHeads(context, *sums);
}

//===----------------------------------------------------------------------===//
// MultiHeadAttention
//===----------------------------------------------------------------------===//

/// A [batch, sequence, hidden] tensor with part of the bias (input 3) added.
static TypedTensor addBias(NodeContext &context, const TypedTensor &tensor,
                           OpFoldResult start) {
  TypedTensor bias = getTensor(context, 3);
  if (!bias)
    return tensor;
  ScalarBuilder scalar = context.scalar();
  OpFoldResult width = getExtent(context, tensor, 2);
  Value end = scalar.add(context.toValue(start), context.toValue(width));
  context.check(scalar.lessEqual(end, getExtentValue(context, bias, 0)),
                "the bias is too short");
  bias = slice(context, bias, 0, start, tensor.dimensions[2], width);
  TypedTensor result = tensor;
  agree(context, "hidden size", {{&result, 2}, {&bias, 0}});
  result.tensor = buildBroadcast(
      context, {tensor.tensor, bias.tensor}, {result.getType(), bias.getType()},
      tensor.element, [](ScalarBuilder &body, ValueRange args) {
        return body.add(args[0], args[1]);
      });
  return result;
}

/// Part `index` of [batch, sequence, heads, parts, size], as [batch, heads,
/// sequence, size].
static TypedTensor unpack(NodeContext &context, const TypedTensor &packed,
                          int64_t index) {
  TypedTensor part = slice(context, packed, 3, index, 1);
  SmallVector<Dimension> dimensions(part.dimensions);
  dimensions.erase(dimensions.begin() + 3);
  Sizes sizes = context.getSizes(part.tensor);
  sizes.erase(sizes.begin() + 3);
  return transpose(context, reshape(context, part, dimensions, sizes),
                   {0, 2, 1, 3});
}

static FailureOr<Projections> getHeadProjections(NodeContext &context) {
  int64_t heads = context.node.getInt("num_heads", 0);
  TypedTensor query = getTensor(context, 0), key = getTensor(context, 1),
              value = getTensor(context, 2);
  bool hasBias = static_cast<bool>(getTensor(context, 3));
  if (query.dimensions.size() == 5) {
    if (hasBias)
      return context.fail("a bias of a packed query is not supported");
    return Projections{unpack(context, query, 0), unpack(context, query, 1),
                       unpack(context, query, 2)};
  }
  if (query.dimensions.size() != 3 || !key)
    return context.fail("expects a query of rank 3 and a key");
  OpFoldResult zero = context.rewriter.getIndexAttr(0);
  OpFoldResult width = getExtent(context, query, 2);
  auto q = splitHeads(context, addBias(context, query, zero), heads);
  if (failed(q))
    return failure();
  if (key.dimensions.size() == 5) {
    if (hasBias)
      return context.fail("a bias of packed keys is not supported");
    return Projections{*q, unpack(context, key, 0), unpack(context, key, 1)};
  }
  if (!value || key.dimensions.size() != value.dimensions.size())
    return context.fail("expects a key and a value of one rank");
  if (key.dimensions.size() == 4)
    return Projections{*q, key, value};
  if (key.dimensions.size() != 3)
    return context.fail("expects a key of rank 3, 4 or 5");
  OpFoldResult second = width;
  OpFoldResult third =
      getProduct(context, {context.rewriter.getIndexAttr(2), width});
  auto k = splitHeads(context, addBias(context, key, second), heads);
  auto v = splitHeads(context, addBias(context, value, third), heads);
  if (failed(k) || failed(v))
    return failure();
  return Projections{*q, *k, *v};
}

static LogicalResult convertMultiHeadAttention(NodeContext &context) {
  if (failed(refuseInputs(context, 8, 9, "a shared buffer of the past")))
    return failure();
  if (context.node.getNumResults() > 3)
    return context.fail("the output qk is not supported");
  auto projections = getHeadProjections(context);
  if (failed(projections))
    return failure();
  Projections &tensors = *projections;
  OpFoldResult past = context.rewriter.getIndexAttr(0);
  TypedTensor pastKey = getTensor(context, 6),
              pastValue = getTensor(context, 7);
  if (pastKey && pastValue) {
    past = getExtent(context, pastKey, 2);
    for (auto [old, added] : {std::pair(&pastKey, &tensors.key),
                              std::pair(&pastValue, &tensors.value)}) {
      agree(context, "batch size", {{added, 0}, {old, 0}});
      agree(context, "number of key heads", {{added, 1}, {old, 1}});
      agree(context, "size of a head", {{added, 3}, {old, 3}});
      *added = concatenate(context, {*old, *added}, 2);
    }
  }
  auto output = buildMaskedAttention(context, tensors, 4, 5, past);
  if (failed(output))
    return failure();
  SmallVector<Value> results{*output, tensors.key.tensor, tensors.value.tensor};
  results.resize(context.node.getNumResults());
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// Input · weights + bias, as [batch, heads, sequence, size] for query, key
/// and value.
static FailureOr<Projections> project(NodeContext &context) {
  int64_t heads = context.node.getInt("num_heads", 0);
  TypedTensor input = getTensor(context, 0), weights = getTensor(context, 1);
  if (input.dimensions.size() != 3 || weights.dimensions.size() != 2)
    return context.fail("expects an input of rank 3 and a matrix of weights");
  Dimension width = weights.dimensions[1];
  SmallVector<int64_t> hidden;
  if (auto given = context.node.getInts("qkv_hidden_sizes");
      given && given->size() == 3)
    hidden.assign(given->begin(), given->end());
  else if (width.isStatic() && width.size % 3 == 0)
    hidden.assign(3, width.size / 3);
  else
    return context.fail("the hidden size must be known");
  Type element = input.element;
  Value product = buildMatMul(context, input.tensor, input.getType(),
                              weights.tensor, weights.getType(), element);
  TypedTensor all{
      product, {input.dimensions[0], input.dimensions[1], width}, element};
  if (TypedTensor bias = getTensor(context, 2)) {
    agree(context, "hidden size", {{&all, 2}, {&bias, 0}});
    all.tensor = buildBroadcast(context, {all.tensor, bias.tensor},
                                {all.getType(), bias.getType()}, element,
                                [](ScalarBuilder &scalar, ValueRange args) {
                                  return scalar.add(args[0], args[1]);
                                });
  }
  int64_t start = 0;
  SmallVector<TypedTensor> parts;
  for (int64_t size : hidden) {
    if (all.dimensions[2].isStatic() && start + size > all.dimensions[2].size)
      return context.fail("qkv_hidden_sizes do not fit the weights");
    auto part = splitHeads(context, slice(context, all, 2, start, size), heads);
    if (failed(part))
      return failure();
    parts.push_back(*part);
    start += size;
  }
  return Projections{parts[0], parts[1], parts[2]};
}

/// Keys (0) or values (1) of a past [2, batch, heads, past, size].
static TypedTensor getPast(NodeContext &context, const TypedTensor &past,
                           int64_t index) {
  TypedTensor part = slice(context, past, 0, index, 1);
  Sizes sizes = context.getSizes(part.tensor);
  return reshape(context, part, ArrayRef(part.dimensions).drop_front(),
                 ArrayRef(sizes).drop_front());
}

/// Keys and values one after the other, as [2, batch, heads, total, size].
static Value joinPresent(NodeContext &context, const Projections &tensors) {
  SmallVector<Value> parts;
  for (const TypedTensor *part : {&tensors.key, &tensors.value}) {
    Sizes sizes = context.getSizes(part->tensor);
    sizes.insert(sizes.begin(), context.rewriter.getIndexAttr(1));
    parts.push_back(buildReshape(context, part->tensor, sizes));
  }
  return buildConcat(context, parts, 0);
}

static LogicalResult convertAttention(NodeContext &context) {
  if (context.node.getInt("do_rotary", 0) ||
      context.node.getInt("past_present_share_buffer", 0))
    return context.fail("do_rotary and past_present_share_buffer are not "
                        "supported");
  auto projections = project(context);
  if (failed(projections))
    return failure();
  Projections &tensors = *projections;
  OpFoldResult pastSize = context.rewriter.getIndexAttr(0);
  if (TypedTensor past = getTensor(context, 4)) {
    if (past.dimensions.size() != 5)
      return context.fail("expects a past of rank 5");
    pastSize = getExtent(context, past, 3);
    int64_t index = 0;
    for (TypedTensor *added : {&tensors.key, &tensors.value}) {
      TypedTensor old = getPast(context, past, index++);
      for (int64_t axis : {0, 1, 3})
        agree(context, "shape of the past (" + std::to_string(axis) + ")",
              {{added, axis}, {&old, axis}});
      *added = concatenate(context, {old, *added}, 2);
    }
  }
  auto output = buildMaskedAttention(context, tensors, 3, 5, pastSize);
  if (failed(output))
    return failure();
  SmallVector<Value> results{*output};
  if (context.node.getNumResults() > 1)
    results.push_back(joinPresent(context, tensors));
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// RotaryEmbedding
//===----------------------------------------------------------------------===//

static LogicalResult convertRotaryEmbedding(NodeContext &context) {
  TypedTensor x = getTensor(context, 0), given = getTensor(context, 1),
              cosines = getTensor(context, 2), sines = getTensor(context, 3);
  if (context.node.getInt("is_packed_batching", 0) ||
      context.node.getFloat("scale", 1) != 1)
    return context.fail("is_packed_batching and scale are not supported");
  if (cosines.dimensions.size() != 2 || sines.dimensions.size() != 2)
    return context.fail("expects caches of rank 2");
  bool isFlat = x.dimensions.size() == 3;
  if (isFlat) {
    int64_t heads = context.node.getInt("num_heads", 0);
    Dimension hidden = x.dimensions[2], half = cosines.dimensions[1];
    if (heads == 0 && hidden.isStatic() && half.isStatic() && half.size > 0)
      heads = hidden.size / (2 * half.size);
    auto split = splitHeads(context, x, heads);
    if (failed(split))
      return failure();
    x = *split;
  }
  if (x.dimensions.size() != 4)
    return context.fail("expects an input of rank 3 or 4");
  for (int64_t axis : {0, 1})
    agree(context, "shape of the caches", {{&cosines, axis}, {&sines, axis}});
  Value positions = given.tensor;
  if (given.dimensions.size() == 2) {
    agree(context, "batch size", {{&x, 0}, {&given, 0}});
    agree(context, "sequence length", {{&x, 2}, {&given, 1}});
  } else {
    // One number is where the first token is.
    Value first = readIndex(context, given);
    positions =
        buildTensor(context.rewriter, context.loc,
                    Sizes{getExtent(context, x, 0), getExtent(context, x, 2)},
                    context.rewriter.getI64Type(),
                    [&](ScalarBuilder &scalar, ValueRange loops) {
                      return toI64(scalar, scalar.add(first, loops[1]));
                    });
  }
  checkPositions(context, positions, cosines);
  x.tensor = buildRotary(context, x, cosines, sines, positions,
                         context.node.getInt("interleaved", 0) != 0);
  return context.replace(isFlat ? mergeHeads(context, x) : x.tensor);
}

void nibble::addMicrosoftAttentionConversions(NodeConversions &conversions) {
  auto add = [&](StringRef opType, LogicalResult (*conversion)(NodeContext &)) {
    conversions.add("com.microsoft", opType, 1, conversion);
  };
  add("GroupQueryAttention", convertGroupQueryAttention);
  add("MultiHeadAttention", convertMultiHeadAttention);
  add("Attention", convertAttention);
  add("RotaryEmbedding", convertRotaryEmbedding);
}
