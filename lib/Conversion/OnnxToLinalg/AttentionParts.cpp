//===- AttentionParts.cpp - What attention ops share ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Attention.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Tensors and their dimensions
//===----------------------------------------------------------------------===//

TypedTensor nibble::getTensor(NodeContext &context, unsigned index) {
  if (index >= context.getNumInputs() || context.isAbsent(index))
    return {};
  RankedTensorType type = context.getInputType(index);
  return {context.getInput(index), getDimensions(type), type.getElementType()};
}

static OpFoldResult getExtent(NodeContext &context, const TypedTensor &tensor,
                              int64_t axis) {
  if (tensor.dimensions[axis].isStatic())
    return context.rewriter.getIndexAttr(tensor.dimensions[axis].size);
  return getSize(context.rewriter, context.loc, tensor.tensor, axis);
}

static Sizes getExtents(NodeContext &context, const TypedTensor &tensor) {
  Sizes sizes;
  for (size_t axis = 0; axis < tensor.dimensions.size(); ++axis)
    sizes.push_back(getExtent(context, tensor, axis));
  return sizes;
}

Dimension nibble::agree(NodeContext &context, StringRef name,
                        ArrayRef<std::pair<TypedTensor *, int64_t>> parts) {
  auto get = [](const std::pair<TypedTensor *, int64_t> &part) -> Dimension & {
    return part.first->dimensions[part.second];
  };
  std::pair<TypedTensor *, int64_t> chosen = parts.front();
  for (const auto &part : parts)
    if (!get(chosen).isStatic() && get(part).isStatic())
      chosen = part;
  Dimension common = get(chosen);
  if (!common.isStatic() && !common.symbol)
    common.symbol = StringAttr::get(context.rewriter.getContext(),
                                    "the attention's " + name);
  for (const auto &part : parts) {
    if (part != chosen && !get(part).isKnownEqual(common))
      context.check(
          context.scalar().equal(
              context.toValue(getExtent(context, *chosen.first, chosen.second)),
              context.toValue(getExtent(context, *part.first, part.second))),
          "the inputs do not agree on the " + name);
    get(part) = common;
  }
  return common;
}

TypedTensor nibble::transpose(NodeContext &context, const TypedTensor &tensor,
                              ArrayRef<int64_t> order) {
  TypedTensor result{{}, {}, tensor.element};
  Sizes own = getExtents(context, tensor), sizes;
  for (int64_t axis : order) {
    sizes.push_back(own[axis]);
    result.dimensions.push_back(tensor.dimensions[axis]);
  }
  Value empty = buildEmpty(context, sizes, getStoredElement(tensor.tensor));
  result.tensor = linalg::TransposeOp::create(context.rewriter, context.loc,
                                              tensor.tensor, empty, order)
                      ->getResult(0);
  return result;
}

/// The tensor with all that its dimensions and its type say of its shape.
static TypedTensor refine(NodeContext &context, const TypedTensor &tensor) {
  TypedTensor result = tensor;
  auto type = cast<RankedTensorType>(tensor.tensor.getType());
  SmallVector<int64_t> shape;
  for (auto [dimension, size] : llvm::zip(result.dimensions, type.getShape())) {
    if (!dimension.isStatic() && !ShapedType::isDynamic(size))
      dimension = {size, {}};
    shape.push_back(dimension.size);
  }
  auto refined = RankedTensorType::get(shape, type.getElementType());
  if (refined != type)
    result.tensor = tensor::CastOp::create(context.rewriter, context.loc,
                                           refined, tensor.tensor);
  return result;
}

FailureOr<TypedTensor> nibble::splitDimension(NodeContext &context,
                                              const TypedTensor &given,
                                              int64_t axis, int64_t outer) {
  TypedTensor tensor = refine(context, given);
  Dimension whole = tensor.dimensions[axis];
  if (outer < 1 || (whole.isStatic() && whole.size % outer != 0))
    return context.fail("cannot split a dimension of " + Twine(whole.size) +
                        " into " + Twine(outer) + " heads");
  TypedTensor result = tensor;
  result.dimensions[axis] = {outer, {}};
  Dimension inner;
  Sizes sizes = getExtents(context, tensor);
  OpBuilder &builder = context.rewriter;
  OpFoldResult rest;
  if (whole.isStatic()) {
    inner.size = whole.size / outer;
    rest = builder.getIndexAttr(inner.size);
  } else {
    ScalarBuilder scalar = context.scalar();
    Value size = context.toValue(sizes[axis]), heads = scalar.index(outer);
    Value quotient = arith::DivUIOp::create(builder, context.loc, size, heads);
    context.check(scalar.equal(scalar.mul(quotient, heads), size),
                  "a dimension is no multiple of the number of heads");
    rest = quotient;
  }
  result.dimensions.insert(result.dimensions.begin() + axis + 1, inner);
  sizes[axis] = builder.getIndexAttr(outer);
  sizes.insert(sizes.begin() + axis + 1, rest);
  SmallVector<ReassociationIndices> groups;
  for (int64_t i = 0, rank = tensor.dimensions.size(); i < rank; ++i) {
    if (i == axis)
      groups.push_back({i, i + 1});
    else
      groups.push_back({i < axis ? i : i + 1});
  }
  SmallVector<int64_t> shape;
  SmallVector<Value> dynamic;
  dispatchIndexOpFoldResults(sizes, dynamic, shape);
  result.tensor = tensor::ExpandShapeOp::create(
      builder, context.loc,
      RankedTensorType::get(shape, getStoredElement(tensor.tensor)),
      tensor.tensor, groups, sizes);
  return result;
}

/// Joins dimensions `axis` and `axis + 1`.
static TypedTensor joinDimensions(NodeContext &context,
                                  const TypedTensor &tensor, int64_t axis) {
  TypedTensor result = tensor;
  Dimension a = tensor.dimensions[axis], b = tensor.dimensions[axis + 1];
  Dimension joined;
  if (a.isStatic() && b.isStatic())
    joined.size = a.size * b.size;
  else if (a.size == 1)
    joined = b;
  else if (b.size == 1)
    joined = a;
  result.dimensions.erase(result.dimensions.begin() + axis);
  result.dimensions[axis] = joined;
  SmallVector<ReassociationIndices> groups;
  for (int64_t i = 0, rank = tensor.dimensions.size(); i < rank; ++i) {
    if (i == axis)
      groups.push_back({i, i + 1});
    else if (i != axis + 1)
      groups.push_back({i});
  }
  result.tensor = tensor::CollapseShapeOp::create(context.rewriter, context.loc,
                                                  tensor.tensor, groups);
  return result;
}

FailureOr<TypedTensor> nibble::splitHeads(NodeContext &context,
                                          const TypedTensor &tensor,
                                          int64_t heads) {
  FailureOr<TypedTensor> split = splitDimension(context, tensor, 2, heads);
  if (failed(split))
    return failure();
  return transpose(context, *split, {0, 2, 1, 3});
}

Value nibble::mergeHeads(NodeContext &context, const TypedTensor &tensor) {
  TypedTensor turned = transpose(context, tensor, {0, 2, 1, 3});
  return joinDimensions(context, turned, 2).tensor;
}

TypedTensor nibble::slice(NodeContext &context, const TypedTensor &tensor,
                          int64_t axis, OpFoldResult start, Dimension size,
                          OpFoldResult extent) {
  TypedTensor result = tensor;
  result.dimensions[axis] = size;
  Sizes sizes = getExtents(context, tensor);
  sizes[axis] = extent;
  SmallVector<OpFoldResult> offsets(sizes.size(),
                                    context.rewriter.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(),
                                    context.rewriter.getIndexAttr(1));
  offsets[axis] = start;
  result.tensor = tensor::ExtractSliceOp::create(
      context.rewriter, context.loc, tensor.tensor, offsets, sizes, strides);
  return result;
}

TypedTensor nibble::slice(NodeContext &context, const TypedTensor &tensor,
                          int64_t axis, int64_t start, int64_t size) {
  return slice(context, tensor, axis, context.rewriter.getIndexAttr(start),
               Dimension{size, {}}, context.rewriter.getIndexAttr(size));
}

TypedTensor nibble::reshape(NodeContext &context, const TypedTensor &tensor,
                            ArrayRef<Dimension> dimensions,
                            ArrayRef<OpFoldResult> sizes) {
  return {buildReshape(context, tensor.tensor, sizes),
          SmallVector<Dimension>(dimensions), tensor.element};
}

TypedTensor nibble::concatenate(NodeContext &context,
                                ArrayRef<TypedTensor> tensors, int64_t axis) {
  SmallVector<Value> values;
  Dimension total{0, {}};
  for (const TypedTensor &tensor : tensors) {
    values.push_back(tensor.tensor);
    Dimension part = tensor.dimensions[axis];
    if (total.isStatic() && part.isStatic())
      total.size += part.size;
    else
      total = Dimension();
  }
  TypedTensor result = tensors.front();
  result.dimensions[axis] = total;
  result.tensor = buildConcat(context, values, axis);
  return result;
}

//===----------------------------------------------------------------------===//
// The two contractions
//===----------------------------------------------------------------------===//

/// [batch, key heads × group, sequence, n] ⇒ [batch, key heads, group ×
/// sequence, n], which moves nothing.
static FailureOr<TypedTensor> groupHeads(NodeContext &context,
                                         const TypedTensor &tensor,
                                         const Dimension &keyHeads) {
  if (tensor.dimensions[1].isKnownEqual(keyHeads))
    return tensor;
  if (!keyHeads.isStatic())
    return context.fail("the number of heads of the key must be known where "
                        "it is not known to be that of the query");
  FailureOr<TypedTensor> split =
      splitDimension(context, tensor, 1, keyHeads.size);
  if (failed(split))
    return failure();
  return joinDimensions(context, *split, 2);
}

/// The other way round: back to the dimensions `wanted`.
static FailureOr<TypedTensor> ungroupHeads(NodeContext &context,
                                           const TypedTensor &grouped,
                                           ArrayRef<OpFoldResult> sizes,
                                           ArrayRef<Dimension> wanted) {
  TypedTensor result{grouped.tensor, SmallVector<Dimension>(wanted),
                     grouped.element};
  if (grouped.dimensions[1].isKnownEqual(wanted[1]))
    return result;
  // [batch, key heads, group × sequence, n] ⇒ [batch, heads, sequence, n]
  result.tensor = buildReshape(context, grouped.tensor, sizes);
  return result;
}

/// Σ over k of lhs [batch, head, m, k] · rhs [batch, head, k, n], or [batch,
/// head, n, k] where it is transposed, in computed numbers.
static TypedTensor contract(NodeContext &context, const TypedTensor &lhs,
                            const TypedTensor &rhs, bool isTransposed) {
  OpBuilder &builder = context.rewriter;
  AffineExpr b = builder.getAffineDimExpr(0), h = builder.getAffineDimExpr(1),
             m = builder.getAffineDimExpr(2), k = builder.getAffineDimExpr(3),
             n = builder.getAffineDimExpr(4);
  auto getMap = [&](AffineExpr row, AffineExpr column) {
    return AffineMap::get(5, 0, {b, h, row, column}, builder.getContext());
  };
  SmallVector<AffineMap> maps{
      getMap(m, k), isTransposed ? getMap(n, k) : getMap(k, n), getMap(m, n)};
  SmallVector<utils::IteratorType> iterators(5, utils::IteratorType::parallel);
  iterators[3] = utils::IteratorType::reduction;
  int64_t columns = isTransposed ? 2 : 3;
  Type computed = getComputedType(lhs.element);
  TypedTensor result{{}, lhs.dimensions, computed};
  result.dimensions[3] = rhs.dimensions[columns];
  Sizes sizes = getExtents(context, lhs);
  sizes[3] = getExtent(context, rhs, columns);
  result.tensor =
      buildReduction(builder, context.loc, {lhs.tensor, rhs.tensor}, maps,
                     iterators, sizes, context.scalar().constant(computed, 0),
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value left = scalar.decode(args[0], lhs.element);
                       Value right = scalar.decode(args[1], rhs.element);
                       if (left.getType() != right.getType())
                         right =
                             scalar.convert(right, rhs.element, left.getType());
                       return scalar.add(args[2], scalar.mul(left, right));
                     });
  return result;
}

FailureOr<TypedTensor> nibble::buildScores(NodeContext &context,
                                           const TypedTensor &query,
                                           const TypedTensor &key) {
  FailureOr<TypedTensor> grouped =
      groupHeads(context, query, key.dimensions[1]);
  if (failed(grouped))
    return failure();
  TypedTensor scores = contract(context, *grouped, key, /*isTransposed=*/true);
  Sizes sizes = getExtents(context, query);
  sizes[3] = getExtent(context, key, 2);
  SmallVector<Dimension> dimensions(query.dimensions);
  dimensions[3] = key.dimensions[2];
  return ungroupHeads(context, scores, sizes, dimensions);
}

FailureOr<TypedTensor>
nibble::buildWeightedSum(NodeContext &context, const TypedTensor &probabilities,
                         const TypedTensor &value, Type element) {
  FailureOr<TypedTensor> grouped =
      groupHeads(context, probabilities, value.dimensions[1]);
  if (failed(grouped))
    return failure();
  TypedTensor sums = contract(context, *grouped, value, /*isTransposed=*/false);
  Sizes sizes = getExtents(context, probabilities);
  sizes[3] = getExtent(context, value, 3);
  SmallVector<Dimension> dimensions(probabilities.dimensions);
  dimensions[3] = value.dimensions[3];
  FailureOr<TypedTensor> result =
      ungroupHeads(context, sums, sizes, dimensions);
  if (failed(result))
    return failure();
  result->tensor = buildCast(context, result->tensor, result->element, element);
  result->element = element;
  return result;
}

//===----------------------------------------------------------------------===//
// Logits
//===----------------------------------------------------------------------===//

Value Visibility::build(ScalarBuilder &scalar, Value offset,
                        Value length) const {
  auto getLoop = [&](int64_t axis) -> Value {
    return linalg::IndexOp::create(scalar.builder, scalar.loc, axis);
  };
  Value visible = scalar.boolean(true), key = getLoop(3);
  if (length)
    visible = scalar.less(key, length);
  if (!usesPositions())
    return visible;
  Value position = scalar.add(getLoop(2), offset);
  if (isCausal)
    visible = buildAnd(scalar, visible, scalar.lessEqual(key, position));
  if (left >= 0) {
    Value first = scalar.sub(position, scalar.index(left));
    visible = buildAnd(scalar, visible, scalar.lessEqual(first, key));
  }
  if (right >= 0) {
    Value last = scalar.add(position, scalar.index(right));
    visible = buildAnd(scalar, visible, scalar.lessEqual(key, last));
  }
  return visible;
}

/// softcap · tanh(x / softcap)
static Value buildSoftcap(ScalarBuilder &scalar, Value x, double softcap) {
  Value limit = scalar.constant(x.getType(), softcap);
  Value inner =
      math::TanhOp::create(scalar.builder, scalar.loc, scalar.div(x, limit));
  return scalar.mul(inner, limit);
}

TypedTensor nibble::buildLogits(
    NodeContext &context, const TypedTensor &scores, double scale,
    double softcap, ArrayRef<TypedTensor> operands,
    function_ref<Value(ScalarBuilder &, Value, ValueRange)> mask,
    Type element) {
  SmallVector<Value> tensors{scores.tensor};
  SmallVector<RankedTensorType> types{scores.getType()};
  for (const TypedTensor &operand : operands) {
    tensors.push_back(operand.tensor);
    types.push_back(operand.getType());
  }
  TypedTensor result = scores;
  result.element = element;
  result.tensor =
      buildBroadcast(context, tensors, types, element,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Type type = args[0].getType();
                       Value logit =
                           scalar.mul(args[0], scalar.constant(type, scale));
                       if (softcap > 0)
                         logit = buildSoftcap(scalar, logit, softcap);
                       if (mask)
                         logit = mask(scalar, logit, args.drop_front());
                       return scalar.convert(logit, type, element);
                     });
  return result;
}

FailureOr<double> nibble::getScale(NodeContext &context,
                                   const TypedTensor &query) {
  double scale = context.node.getFloat("scale", 0);
  if (scale != 0)
    return scale;
  if (!query.dimensions.back().isStatic())
    return context.fail("the size of a head must be known, or a scale given");
  return 1 / std::sqrt(static_cast<double>(query.dimensions.back().size));
}

//===----------------------------------------------------------------------===//
// Softmax
//===----------------------------------------------------------------------===//

TypedTensor nibble::buildProbabilities(NodeContext &context,
                                       const TypedTensor &logits,
                                       const TypedTensor &sink) {
  Type type = logits.element;
  int64_t rank = logits.dimensions.size();
  OpBuilder &builder = context.rewriter;
  SmallVector<AffineExpr> exprs;
  for (int64_t i = 0; i + 1 < rank; ++i)
    exprs.push_back(builder.getAffineDimExpr(i));
  AffineMap rows = AffineMap::get(rank, 0, exprs, builder.getContext());
  AffineMap all = builder.getMultiDimIdentityMap(rank);
  SmallVector<utils::IteratorType> iterators(rank,
                                             utils::IteratorType::parallel);
  iterators.back() = utils::IteratorType::reduction;
  Sizes sizes = getExtents(context, logits);
  Sizes rowSizes(sizes.begin(), sizes.end() - 1);
  ScalarBuilder outer = context.scalar();
  Value maxima = buildReduction(builder, context.loc, logits.tensor,
                                {all, rows}, iterators, rowSizes,
                                outer.infinity(type, /*negative=*/true),
                                [](ScalarBuilder &scalar, ValueRange args) {
                                  return scalar.max(args[0], args[1]);
                                });
  SmallVector<Value> operands{maxima};
  SmallVector<AffineMap> rowMaps{builder.getMultiDimIdentityMap(rank - 1)};
  if (sink) {
    operands.push_back(sink.tensor);
    rowMaps.push_back(sink.dimensions.empty()
                          ? AffineMap::get(rank - 1, 0, builder.getContext())
                          : AffineMap::get(rank - 1, 0,
                                           builder.getAffineDimExpr(1),
                                           builder.getContext()));
  }
  // A row that is masked throughout has no maximum to take out.
  maxima = buildElementwise(
      builder, context.loc, operands, rowMaps, rowSizes, type,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value maximum = args[0];
        if (sink)
          maximum = scalar.max(maximum, scalar.decode(args[1], sink.element));
        Value masked =
            scalar.equal(maximum, scalar.infinity(type, /*negative=*/true));
        return scalar.select(masked, scalar.constant(type, 0), maximum);
      });
  Value exponentials = buildElementwise(
      builder, context.loc, {logits.tensor, maxima}, {all, rows}, sizes, type,
      [](ScalarBuilder &scalar, ValueRange args) -> Value {
        return math::ExpOp::create(scalar.builder, scalar.loc,
                                   scalar.sub(args[0], args[1]));
      });
  Value sums = buildReduction(builder, context.loc, exponentials, {all, rows},
                              iterators, rowSizes, outer.constant(type, 0),
                              [](ScalarBuilder &scalar, ValueRange args) {
                                return scalar.add(args[0], args[1]);
                              });
  operands.front() = sums;
  operands.push_back(maxima);
  rowMaps.push_back(rowMaps.front());
  Value divisors = buildElementwise(
      builder, context.loc, operands, rowMaps, rowSizes, type,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value sum = args[0];
        if (sink) {
          Value extra =
              scalar.sub(scalar.decode(args[1], sink.element), args.back());
          sum = scalar.add(
              sum, math::ExpOp::create(scalar.builder, scalar.loc, extra));
        }
        return scalar.select(scalar.isZero(sum), scalar.constant(type, 1), sum);
      });
  TypedTensor result = logits;
  result.tensor = buildElementwise(
      builder, context.loc, {exponentials, divisors}, {all, rows}, sizes, type,
      [](ScalarBuilder &scalar, ValueRange args) {
        return scalar.div(args[0], args[1]);
      });
  return result;
}

//===----------------------------------------------------------------------===//
// Rotary embedding
//===----------------------------------------------------------------------===//

Value nibble::buildRotary(NodeContext &context, const TypedTensor &tensor,
                          const TypedTensor &cosines, const TypedTensor &sines,
                          Value positions, bool isInterleaved) {
  Value x = tensor.tensor;
  Type element = tensor.element;
  int64_t cacheRank = cosines.dimensions.size();
  Value half = context.toValue(getExtent(context, cosines, cacheRank - 1));
  Value size = context.toValue(getExtent(context, tensor, 3));
  ScalarBuilder outer = context.scalar();
  Value rotated = outer.mul(half, outer.index(2));
  context.check(outer.lessEqual(rotated, size),
                "the cache of cosines is wider than a head");
  return buildTensor(
      context.rewriter, context.loc, getExtents(context, tensor),
      getStoredElement(x), [&](ScalarBuilder &scalar, ValueRange loops) {
        Value batch = loops[0], row = loops[2], column = loops[3];
        Value one = scalar.index(1), two = scalar.index(2);
        Value isRotated = scalar.less(column, rotated);
        Value angle, isSecond, partner;
        if (isInterleaved) {
          angle =
              arith::DivUIOp::create(scalar.builder, scalar.loc, column, two);
          Value odd =
              arith::RemUIOp::create(scalar.builder, scalar.loc, column, two);
          isSecond = scalar.equal(odd, one);
          partner = scalar.select(isSecond, scalar.sub(column, one),
                                  scalar.add(column, one));
        } else {
          isSecond = scalar.lessEqual(half, column);
          angle = scalar.select(isSecond, scalar.sub(column, half), column);
          partner = scalar.select(isSecond, scalar.sub(column, half),
                                  scalar.add(column, half));
        }
        // Behind the rotated numbers nothing is used of what is read here.
        Value zero = scalar.index(0);
        angle = scalar.select(isRotated, angle, zero);
        partner = scalar.select(isRotated, partner, zero);
        SmallVector<Value> where{batch, row, angle};
        if (positions)
          where = {toIndex(scalar, extract(scalar, positions, {batch, row})),
                   angle};
        auto read = [&](const TypedTensor &from, ValueRange indices) {
          return scalar.decode(extract(scalar, from.tensor, indices),
                               from.element);
        };
        Value cosine = read(cosines, where), sine = read(sines, where);
        SmallVector<Value> other(loops);
        other.back() = partner;
        Value own = read(tensor, loops);
        sine = scalar.select(isSecond, sine, scalar.neg(sine));
        Value turned = scalar.add(scalar.mul(own, cosine),
                                  scalar.mul(read(tensor, other), sine));
        return scalar.encode(scalar.select(isRotated, turned, own), element);
      });
}
