//===- StateSpace.cpp - LinearAttention and its companions ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What decoders with a state of fixed size are made of: attention as a
// recurrence, the causal convolution before it, and caches that are updated in
// place of being appended to.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

using Iterator = utils::IteratorType;

static bool isGiven(NodeContext &context, unsigned input) {
  return input < context.getNumInputs() && !context.isAbsent(input);
}

/// An input in computed numbers; null where it is left out.
static Value getNumbers(NodeContext &context, unsigned input) {
  if (!isGiven(context, input))
    return {};
  Type element = context.getElementType(input);
  return buildCast(context, context.getInput(input), element,
                   getComputedType(element));
}

static Type getElement(Value tensor) {
  return cast<RankedTensorType>(tensor.getType()).getElementType();
}

static Value buildFilled(NodeContext &context, ArrayRef<OpFoldResult> sizes,
                         Type computed) {
  Value empty =
      tensor::EmptyOp::create(context.rewriter, context.loc, sizes, computed);
  return linalg::FillOp::create(context.rewriter, context.loc,
                                context.scalar().constant(computed, 0), empty)
      .getResult(0);
}

//===----------------------------------------------------------------------===//
// LinearAttention
//===----------------------------------------------------------------------===//

namespace {
/// The recurrence, in computed numbers. b: batch, h: key and value head, g:
/// query head of its group, d and m: parts of a key and of a value.
///
///   S[b,h,d,m] *= exp(decay)                         gated
///   v[b,h,m] = beta · (v - Σ_d S[b,h,d,m] · k[b,h,d])   delta
///   S[b,h,d,m] += k[b,h,d] · v[b,h,m]
///   o[b,h,g,m] = scale · Σ_d q[b,h,g,d] · S[b,h,d,m]
class LinearAttentionBuilder {
public:
  explicit LinearAttentionBuilder(NodeContext &context)
      : context(context), rewriter(context.rewriter), loc(context.loc) {}
  LogicalResult convert();

private:
  LogicalResult check();
  /// [batch, time, heads · x] as [batch, time, heads…, x].
  Value unpack(Value packed, ArrayRef<int64_t> heads);
  /// tensor[:, step], without the dimension of time.
  Value takeStep(Value tensor, Value step);
  AffineMap map(unsigned loops, StringRef letters);
  Value getScale(Value query);
  /// The state after the step, and what is read from it.
  std::pair<Value, Value> buildStep(Value state, Value step);

  NodeContext &context;
  ConversionPatternRewriter &rewriter;
  Location loc;
  int64_t heads = 0, group = 0;
  bool isGated = false, isDelta = false;
  Type computed;
  Value query, key, value, decay, beta, scale;
};
} // namespace

LogicalResult LinearAttentionBuilder::check() {
  NodeOp node = context.node;
  heads = node.getInt("kv_num_heads", 0);
  int64_t queryHeads = node.getInt("q_num_heads", 0);
  if (heads < 1 || queryHeads < 1 || queryHeads % heads != 0)
    return context.fail("q_num_heads must be a multiple of kv_num_heads");
  group = queryHeads / heads;
  StringRef rule = node.getString("update_rule", "gated_delta");
  if (!llvm::is_contained({"linear", "gated", "delta", "gated_delta"}, rule))
    return context.fail("'" + rule + "' is no update rule");
  isGated = rule.starts_with("gated");
  isDelta = rule.ends_with("delta");
  for (unsigned i : {0u, 1u, 2u, 4u, 5u})
    if (isGiven(context, i) && context.getInputType(i).getRank() != 3)
      return context.fail("input " + Twine(i) + " has not rank 3");
  if (isGated != isGiven(context, 4))
    return context.fail("a decay belongs to the gated rules and only to them");
  if (isDelta != isGiven(context, 5))
    return context.fail("a beta belongs to the delta rules and only to them");
  for (unsigned i : {4u, 5u})
    if (isGiven(context, i) && context.getInputType(i).isDynamicDim(2))
      return context.fail("the last dimension of input " + Twine(i) +
                          " must be known");
  return success();
}

Value LinearAttentionBuilder::unpack(Value packed, ArrayRef<int64_t> parts) {
  Sizes sizes = context.getSizes(packed);
  int64_t count = 1;
  for (int64_t part : parts)
    count *= part;
  OpFoldResult last = sizes.pop_back_val();
  for (int64_t part : parts)
    sizes.push_back(rewriter.getIndexAttr(part));
  if (auto known = getConstantIntValue(last)) {
    sizes.push_back(rewriter.getIndexAttr(*known / count));
  } else {
    ScalarBuilder scalar = context.scalar();
    sizes.push_back(scalar.div(context.toValue(last), scalar.index(count)));
  }
  return buildReshape(context, packed, sizes);
}

Value LinearAttentionBuilder::takeStep(Value tensor, Value step) {
  auto type = cast<RankedTensorType>(tensor.getType());
  Sizes sizes = context.getSizes(tensor);
  Sizes offsets(sizes.size(), rewriter.getIndexAttr(0));
  Sizes strides(sizes.size(), rewriter.getIndexAttr(1));
  offsets[1] = step;
  sizes[1] = rewriter.getIndexAttr(1);
  SmallVector<int64_t> shape(type.getShape());
  shape.erase(shape.begin() + 1);
  return tensor::ExtractSliceOp::create(
      rewriter, loc, RankedTensorType::get(shape, type.getElementType()),
      tensor, offsets, sizes, strides);
}

/// "bhd" for the loops b, h, d …; they stand in the order b h g m d where there
/// are five, else b h d m.
AffineMap LinearAttentionBuilder::map(unsigned loops, StringRef letters) {
  StringRef order = loops == 5 ? "bhgmd" : loops == 3 ? "bhm" : "bhdm";
  SmallVector<AffineExpr> exprs;
  for (char letter : letters)
    exprs.push_back(
        letter == '0'
            ? getAffineConstantExpr(0, rewriter.getContext())
            : getAffineDimExpr(order.find(letter), rewriter.getContext()));
  return AffineMap::get(loops, 0, exprs, rewriter.getContext());
}

/// The attribute, or 1 / sqrt(size of a key).
Value LinearAttentionBuilder::getScale(Value packed) {
  ScalarBuilder scalar = context.scalar();
  double given = context.node.getFloat("scale", 0);
  if (given != 0)
    return scalar.constant(computed, given);
  Value size = context.toValue(getSize(rewriter, loc, packed, 4));
  Value integer =
      arith::IndexCastOp::create(rewriter, loc, rewriter.getI64Type(), size);
  Value number = arith::SIToFPOp::create(rewriter, loc, computed, integer);
  return scalar.div(scalar.constant(computed, 1),
                    math::SqrtOp::create(rewriter, loc, number));
}

std::pair<Value, Value> LinearAttentionBuilder::buildStep(Value state,
                                                          Value step) {
  Value q = takeStep(query, step), k = takeStep(key, step),
        v = takeStep(value, step);
  Sizes stateSizes = context.getSizes(state);
  if (isGated) {
    Value g = takeStep(decay, step);
    bool perPart = cast<RankedTensorType>(g.getType()).getRank() == 3;
    state = buildElementwise(
        rewriter, loc, {state, g},
        {map(4, "bhdm"), map(4, perPart ? "bhd" : "bh")}, stateSizes, computed,
        [](ScalarBuilder &scalar, ValueRange args) {
          Value factor =
              math::ExpOp::create(scalar.builder, scalar.loc, args[1]);
          return scalar.mul(args[0], factor);
        });
  }
  if (isDelta) {
    Value b = takeStep(beta, step);
    bool perHead = cast<RankedTensorType>(b.getType()).getDimSize(1) != 1;
    Value held = buildReduction(
        rewriter, loc, {state, k},
        {map(4, "bhdm"), map(4, "bhd"), map(4, "bhm")},
        {Iterator::parallel, Iterator::parallel, Iterator::reduction,
         Iterator::parallel},
        context.getSizes(v), context.scalar().constant(computed, 0),
        [](ScalarBuilder &scalar, ValueRange args) {
          return scalar.add(args[2], scalar.mul(args[0], args[1]));
        });
    v = buildElementwise(
        rewriter, loc, {v, held, b},
        {map(3, "bhm"), map(3, "bhm"), map(3, perHead ? "bh" : "b0")},
        context.getSizes(v), computed,
        [](ScalarBuilder &scalar, ValueRange args) {
          return scalar.mul(args[2], scalar.sub(args[0], args[1]));
        });
  }
  state = buildElementwise(
      rewriter, loc, {state, k, v},
      {map(4, "bhdm"), map(4, "bhd"), map(4, "bhm")}, stateSizes, computed,
      [](ScalarBuilder &scalar, ValueRange args) {
        return scalar.add(args[0], scalar.mul(args[1], args[2]));
      });
  Sizes outputSizes{stateSizes[0], stateSizes[1], rewriter.getIndexAttr(group),
                    stateSizes[3]};
  Value output = buildReduction(
      rewriter, loc, {q, state},
      {map(5, "bhgd"), map(5, "bhdm"), map(5, "bhgm")},
      {Iterator::parallel, Iterator::parallel, Iterator::parallel,
       Iterator::parallel, Iterator::reduction},
      outputSizes, context.scalar().constant(computed, 0),
      [](ScalarBuilder &scalar, ValueRange args) {
        return scalar.add(args[2], scalar.mul(args[0], args[1]));
      });
  output = buildElementwise(
      rewriter, loc, output, rewriter.getMultiDimIdentityMap(4), outputSizes,
      computed, [&](ScalarBuilder &scalar, ValueRange args) {
        return scalar.mul(args[0], scale);
      });
  return {state, output};
}

LogicalResult LinearAttentionBuilder::convert() {
  if (failed(check()))
    return failure();
  Type element = context.getElementType(0);
  computed = getComputedType(element);
  if (!isa<FloatType>(computed))
    return context.fail("its numbers must be floats");
  Value packed = getNumbers(context, 0);
  query = unpack(packed, {heads, group});
  key = unpack(getNumbers(context, 1), heads);
  value = unpack(getNumbers(context, 2), heads);
  scale = getScale(query);
  if (isGated) {
    decay = getNumbers(context, 4);
    if (context.getInputType(4).getDimSize(2) != heads)
      decay = unpack(decay, heads);
  }
  beta = getNumbers(context, 5);
  ScalarBuilder scalar = context.scalar();
  Sizes keys = context.getSizes(key), values = context.getSizes(value);
  Sizes stateSizes{keys[0], keys[2], keys[3], values[3]};
  auto stateType = cast<RankedTensorType>(
      tensor::EmptyOp::create(rewriter, loc, stateSizes, computed).getType());
  Type stateElement = element;
  Value state = getNumbers(context, 3);
  if (state) {
    stateElement = context.getElementType(3);
    if (getElement(state) != computed)
      state = buildCast(context, state, getElement(state), computed);
    if (state.getType() != stateType)
      state = tensor::CastOp::create(rewriter, loc, stateType, state);
  } else {
    state = buildFilled(context, stateSizes, computed);
  }
  Sizes outputSizes{keys[0], keys[1], keys[2], rewriter.getIndexAttr(group),
                    values[3]};
  Value outputs = tensor::EmptyOp::create(rewriter, loc, outputSizes, computed);
  auto loop = scf::ForOp::create(rewriter, loc, scalar.index(0),
                                 context.toValue(keys[1]), scalar.index(1),
                                 ValueRange{state, outputs});
  {
    OpBuilder::InsertionGuard guard(rewriter);
    rewriter.setInsertionPointToStart(loop.getBody());
    Value step = loop.getInductionVar();
    auto [next, output] = buildStep(loop.getRegionIterArg(0), step);
    Sizes sizes = context.getSizes(output);
    sizes.insert(sizes.begin() + 1, rewriter.getIndexAttr(1));
    Sizes offsets(5, rewriter.getIndexAttr(0)),
        strides(5, rewriter.getIndexAttr(1));
    offsets[1] = step;
    Value written = tensor::InsertSliceOp::create(rewriter, loc, output,
                                                  loop.getRegionIterArg(1),
                                                  offsets, sizes, strides);
    scf::YieldOp::create(rewriter, loc, ValueRange{next, written});
  }
  Sizes flat{keys[0], keys[1]};
  if (auto size = getConstantIntValue(values[3]))
    flat.push_back(rewriter.getIndexAttr(*size * heads * group));
  else
    flat.push_back(
        scalar.mul(context.toValue(values[3]), scalar.index(heads * group)));
  Value result = buildReshape(context, loop.getResult(1), flat);
  SmallVector<Value> results{buildCast(context, result, computed, element)};
  if (context.node->getNumResults() > 1)
    results.push_back(
        buildCast(context, loop.getResult(0), computed, stateElement));
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// CausalConvWithState
//===----------------------------------------------------------------------===//

/// Each channel with its own kernel of size k, after the k - 1 elements of the
/// state: x [batch, channels, length], weight [channels, 1, k].
static LogicalResult convertCausalConv(NodeContext &context) {
  ConversionPatternRewriter &rewriter = context.rewriter;
  MLIRContext *mlir = rewriter.getContext();
  Location loc = context.loc;
  for (unsigned i : {0u, 1u, 3u})
    if (isGiven(context, i) && context.getInputType(i).getRank() != 3)
      return context.fail("input " + Twine(i) + " has not rank 3");
  StringRef activation = context.node.getString("activation", "none");
  if (!llvm::is_contained({"none", "silu", "swish"}, activation))
    return context.fail("'" + activation + "' is no activation");
  Type element = context.getElementType(0), computed = getComputedType(element);
  if (!isa<FloatType>(computed))
    return context.fail("its numbers must be floats");
  Value x = getNumbers(context, 0), weight = getNumbers(context, 1),
        bias = getNumbers(context, 2), past = getNumbers(context, 3);
  ScalarBuilder outer = context.scalar();
  Sizes sizes = context.getSizes(x);
  OpFoldResult kernel = getSize(rewriter, loc, weight, 2);
  Value before = outer.sub(context.toValue(kernel), outer.index(1));
  if (past)
    context.check(
        outer.equal(before, context.toValue(getSize(rewriter, loc, past, 2))),
        "its state has not one element less than the kernel");
  Sizes paddedSizes(sizes);
  paddedSizes[2] = outer.add(context.toValue(sizes[2]), before);
  Value last = outer.max(outer.sub(before, outer.index(1)), outer.index(0));
  Value padded = buildTensor(
      rewriter, loc, paddedSizes, computed,
      [&](ScalarBuilder &scalar, ValueRange indices) {
        // Both are read, so both positions are inside.
        Value isNew = scalar.lessEqual(before, indices[2]);
        SmallVector<Value> source(indices);
        source[2] = scalar.select(isNew, scalar.sub(indices[2], before),
                                  scalar.index(0));
        Value given =
            tensor::ExtractOp::create(scalar.builder, scalar.loc, x, source);
        Value old = scalar.constant(computed, 0);
        if (past) {
          Value isEmpty = scalar.equal(before, scalar.index(0));
          source[2] = scalar.select(isNew, last, indices[2]);
          // A kernel of one element has no state to read.
          old = scf::IfOp::create(
                    scalar.builder, scalar.loc, isEmpty,
                    [&](OpBuilder &builder, Location nested) {
                      ScalarBuilder inner(builder, nested);
                      scf::YieldOp::create(builder, nested,
                                           inner.constant(computed, 0));
                    },
                    [&](OpBuilder &builder, Location nested) {
                      Value stored = tensor::ExtractOp::create(builder, nested,
                                                               past, source);
                      scf::YieldOp::create(builder, nested, stored);
                    })
                    .getResult(0);
        }
        return scalar.select(isNew, given, old);
      });

  AffineExpr b = getAffineDimExpr(0, mlir), c = getAffineDimExpr(1, mlir),
             l = getAffineDimExpr(2, mlir), j = getAffineDimExpr(3, mlir);
  AffineExpr zero = getAffineConstantExpr(0, mlir);
  Value sums =
      buildReduction(rewriter, loc, {padded, weight},
                     {AffineMap::get(4, 0, {b, c, l + j}, mlir),
                      AffineMap::get(4, 0, {c, zero, j}, mlir),
                      AffineMap::get(4, 0, {b, c, l}, mlir)},
                     {Iterator::parallel, Iterator::parallel,
                      Iterator::parallel, Iterator::reduction},
                     sizes, outer.constant(computed, 0),
                     [](ScalarBuilder &scalar, ValueRange args) {
                       return scalar.add(args[2], scalar.mul(args[0], args[1]));
                     });
  SmallVector<Value> operands{sums};
  SmallVector<AffineMap> maps{rewriter.getMultiDimIdentityMap(3)};
  if (bias) {
    operands.push_back(bias);
    maps.push_back(AffineMap::get(3, 0, {c}, mlir));
  }
  Value result = buildElementwise(
      rewriter, loc, operands, maps, sizes, getStoredType(element),
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value value = bias ? scalar.add(args[0], args[1]) : args[0];
        if (activation != "none") {
          Value power = math::ExpOp::create(scalar.builder, scalar.loc,
                                            scalar.neg(value));
          value = scalar.div(value,
                             scalar.add(scalar.constant(computed, 1), power));
        }
        return scalar.encode(value, element);
      });
  SmallVector<Value> results{result};
  if (context.node->getNumResults() > 1) {
    Sizes offsets(3, rewriter.getIndexAttr(0)),
        strides(3, rewriter.getIndexAttr(1)), kept(sizes);
    offsets[2] = sizes[2];
    kept[2] = before;
    if (auto known = getConstantIntValue(kernel))
      kept[2] = rewriter.getIndexAttr(*known - 1);
    Value state = tensor::ExtractSliceOp::create(rewriter, loc, padded, offsets,
                                                 kept, strides);
    results.push_back(buildCast(context, state, computed, element));
  }
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// TensorScatter
//===----------------------------------------------------------------------===//

/// A cache with an update written from a position on that each entry of the
/// batch has; what would lie past the end is left out, or wraps around.
static LogicalResult convertTensorScatter(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", -2), rank);
  if (!axis || *axis == 0)
    return context.fail("its axis is out of range");
  if (context.getInputType(1).getRank() != rank)
    return context.fail("cache and update have different ranks");
  StringRef mode = context.node.getString("mode", "linear");
  if (mode != "linear" && mode != "circular")
    return context.fail("'" + mode + "' is no mode");
  Value cache = context.getInput(0), update = context.getInput(1);
  Value positions = isGiven(context, 2) ? context.getInput(2) : Value();
  Sizes sizes = context.getSizes(cache);
  Value longest = context.toValue(sizes[*axis]);
  Value length =
      context.toValue(getSize(context.rewriter, context.loc, update, *axis));
  ScalarBuilder outer = context.scalar();
  context.check(outer.lessEqual(length, longest),
                "the update is longer than the cache");
  Value isEmpty = outer.equal(length, outer.index(0));
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getElement(cache),
      [&](ScalarBuilder &scalar, ValueRange indices) {
        OpBuilder &builder = scalar.builder;
        Value start = scalar.index(0);
        if (positions)
          start = arith::IndexCastOp::create(
              builder, scalar.loc, builder.getIndexType(),
              tensor::ExtractOp::create(builder, scalar.loc, positions,
                                        indices[0]));
        Value offset = scalar.sub(indices[*axis], start);
        if (mode == "circular") {
          offset = scalar.rem(offset, longest);
          offset = scalar.select(scalar.less(offset, scalar.index(0)),
                                 scalar.add(offset, longest), offset);
        }
        Value isInside = arith::AndIOp::create(
            builder, scalar.loc, scalar.lessEqual(scalar.index(0), offset),
            scalar.less(offset, length));
        isInside = scalar.select(isEmpty, scalar.boolean(false), isInside);
        Value old =
            tensor::ExtractOp::create(builder, scalar.loc, cache, indices);
        SmallVector<Value> source(indices);
        source[*axis] = offset;
        return scf::IfOp::create(
                   builder, scalar.loc, isInside,
                   [&](OpBuilder &nested, Location loc) {
                     Value given =
                         tensor::ExtractOp::create(nested, loc, update, source);
                     scf::YieldOp::create(nested, loc, given);
                   },
                   [&](OpBuilder &nested, Location loc) {
                     scf::YieldOp::create(nested, loc, old);
                   })
            .getResult(0);
      }));
}

//===----------------------------------------------------------------------===//
// What --onnx-update-caches leaves
//===----------------------------------------------------------------------===//

namespace {
/// A part of a buffer along its growing dimension.
struct CachePart {
  CachePart(NodeContext &context, OpFoldResult start, OpFoldResult size,
            int64_t axis)
      : sizes(context.getSizes(context.getInput(0))),
        offsets(sizes.size(), context.rewriter.getIndexAttr(0)),
        strides(sizes.size(), context.rewriter.getIndexAttr(1)) {
    offsets[axis] = start;
    sizes[axis] = size;
  }
  Sizes sizes, offsets, strides;
};
} // namespace

/// What a cache holds before the run: (buffer, length).
static LogicalResult convertPrefix(NodeContext &context) {
  int64_t axis = context.node.getInt("axis", 0);
  Value length = context.extractIndex(context.getInput(1), 0);
  CachePart part(context, context.rewriter.getIndexAttr(0), length, axis);
  return context.replace(tensor::ExtractSliceOp::create(
                             context.rewriter, context.loc, context.getInput(0),
                             part.offsets, part.sizes, part.strides)
                             .getResult());
}

/// A cache with new entries behind its old ones: (buffer, entries, length).
static LogicalResult convertAppend(NodeContext &context) {
  int64_t axis = context.node.getInt("axis", 0);
  Value buffer = context.getInput(0), entries = context.getInput(1);
  for (int64_t other = 0; other < context.getInputType(0).getRank(); ++other)
    if (other != axis)
      checkSameSize(context, 0, other, 1, other);
  OpBuilder &builder = context.rewriter;
  ScalarBuilder scalar = context.scalar();
  Value length = context.extractIndex(context.getInput(2), 0);
  OpFoldResult added = getSize(builder, context.loc, entries, axis);
  Value total = scalar.add(length, context.toValue(added));
  Value capacity = context.toValue(getSize(builder, context.loc, buffer, axis));
  Value fits = arith::AndIOp::create(builder, context.loc,
                                     scalar.lessEqual(scalar.index(0), length),
                                     scalar.lessEqual(total, capacity));
  context.check(fits, "the cache has no room for past_length and the new "
                      "entries; pass buffers with a larger capacity");
  // The buffer's type may know sizes that the entries' lacks, and the other
  // way.
  SmallVector<int64_t> shape(
      cast<RankedTensorType>(buffer.getType()).getShape());
  auto entriesType = cast<RankedTensorType>(entries.getType());
  shape[axis] = entriesType.getDimSize(axis);
  entries = tensor::CastOp::create(
      builder, context.loc,
      RankedTensorType::get(shape, entriesType.getElementType()), entries);
  CachePart behind(context, length, added, axis),
      all(context, builder.getIndexAttr(0), total, axis);
  Value updated = tensor::InsertSliceOp::create(builder, context.loc, entries,
                                                buffer, behind.offsets,
                                                behind.sizes, behind.strides);
  return context.replace(tensor::ExtractSliceOp::create(builder, context.loc,
                                                        updated, all.offsets,
                                                        all.sizes, all.strides)
                             .getResult());
}

void nibble::addStateSpaceConversions(NodeConversions &conversions) {
  conversions.add("LinearAttention", 27, [](NodeContext &context) {
    return LinearAttentionBuilder(context).convert();
  });
  conversions.add("CausalConvWithState", 27, convertCausalConv);
  conversions.add("TensorScatter", 24, convertTensorScatter);
  conversions.add("nibble", "Prefix", 0, convertPrefix);
  conversions.add("nibble", "Append", 0, convertAppend);
}
