//===- Indexing.cpp - Nodes that read and write at computed positions -----===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Tuples of indices: GatherND, ScatterND
//===----------------------------------------------------------------------===//

namespace {
/// The last dimension of the indices holds tuples, each of which names a
/// position in the dimensions of the data from `batch` on.
struct Tuples {
  int64_t batch = 0, length = 0, indexRank = 0;
  Value indices;
  Sizes sizes;

  /// Where in the data the element at `loops` of the result (or the updates)
  /// is.
  SmallVector<Value> locate(ScalarBuilder &scalar, ValueRange loops) const {
    SmallVector<Value> source(loops.take_front(batch));
    SmallVector<Value> tuple(loops.take_front(indexRank - 1));
    tuple.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      tuple.back() = scalar.index(i);
      Value size = toValue(scalar.builder, scalar.loc, sizes[batch + i]);
      source.push_back(
          resolveIndex(scalar, extract(scalar, indices, tuple), size));
    }
    llvm::append_range(source, loops.drop_front(indexRank - 1));
    return source;
  }
};
} // namespace

/// The tuples of input 1 into input 0, checked.
static FailureOr<Tuples> getTuples(NodeContext &context, int64_t batch) {
  RankedTensorType type = context.getInputType(0);
  RankedTensorType indexType = context.getInputType(1);
  Tuples tuples;
  tuples.batch = batch;
  tuples.indexRank = indexType.getRank();
  if (tuples.indexRank < 1 || indexType.isDynamicDim(tuples.indexRank - 1))
    return context.fail("the number of indices in a tuple must be known");
  tuples.length = indexType.getDimSize(tuples.indexRank - 1);
  if (batch < 0 || batch >= tuples.indexRank ||
      batch + tuples.length > type.getRank())
    return context.fail("has more indices in a tuple than dimensions");
  tuples.indices = context.getInput(1);
  tuples.sizes = context.getSizes(context.getInput(0));
  for (int64_t axis = 0; axis < batch; ++axis)
    checkSameSize(context, 0, axis, 1, axis);
  Value valid = buildAllOf(
      context, tuples.indices,
      [&](ScalarBuilder &scalar, Value index, ValueRange loops) {
        Value size = scalar.index(0);
        for (int64_t i = 0; i < tuples.length; ++i)
          size = scalar.select(
              scalar.equal(loops.back(), scalar.index(i)),
              toValue(scalar.builder, scalar.loc, tuples.sizes[batch + i]),
              size);
        Value position = resolveIndex(scalar, index, size);
        return buildAnd(scalar, scalar.lessEqual(scalar.index(0), position),
                        scalar.less(position, size));
      });
  context.check(valid, "index is out of range");
  return tuples;
}

static LogicalResult convertGatherND(NodeContext &context) {
  FailureOr<Tuples> tuples =
      getTuples(context, context.node.getInt("batch_dims", 0));
  if (failed(tuples))
    return failure();
  Value data = context.getInput(0);
  Sizes sizes = context.getSizes(tuples->indices);
  sizes.pop_back();
  llvm::append_range(
      sizes,
      ArrayRef(tuples->sizes).drop_front(tuples->batch + tuples->length));
  return context.replace(
      buildTensor(context.rewriter, context.loc, sizes, getStoredElement(data),
                  [&](ScalarBuilder &scalar, ValueRange loops) {
                    return extract(scalar, data, tuples->locate(scalar, loops));
                  }));
}

//===----------------------------------------------------------------------===//
// Scatter
//===----------------------------------------------------------------------===//

/// `update` written over `old`, or combined with it as `reduction` says; null
/// where there is no such reduction.
static Value combine(ScalarBuilder &scalar, StringRef reduction, Value old,
                     Value update, Type element) {
  if (reduction == "none")
    return update;
  scalar.isUnsigned = element.isUnsignedInteger();
  Value a = scalar.decode(old, element), b = scalar.decode(update, element);
  Value result;
  if (reduction == "add")
    result = scalar.add(a, b);
  else if (reduction == "mul")
    result = scalar.mul(a, b);
  else if (reduction == "max")
    result = scalar.max(a, b);
  else
    result = scalar.min(a, b);
  scalar.isUnsigned = false;
  return scalar.encode(result, element);
}

static FailureOr<StringRef> getReduction(NodeContext &context) {
  StringRef reduction = context.node.getString("reduction", "none");
  if (llvm::is_contained({"none", "add", "mul", "max", "min"}, reduction))
    return reduction;
  return context.fail("there is no reduction '" + reduction + "'");
}

/// Writes the updates (input 2) into the data one after another: of several at
/// one position the last one stays.
static LogicalResult convertScatter(
    NodeContext &context,
    function_ref<SmallVector<Value>(ScalarBuilder &, ValueRange)> locate) {
  FailureOr<StringRef> reduction = getReduction(context);
  if (failed(reduction))
    return failure();
  Value updates = context.getInput(2);
  Type element = context.getElementType(0);
  SmallVector<Value> result = buildSequence(
      context, context.getSizes(updates), context.getInput(0),
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        SmallVector<Value> position = locate(scalar, loops);
        Value update = extract(scalar, updates, loops), old;
        if (*reduction != "none")
          old = extract(scalar, carried[0], position);
        update = combine(scalar, *reduction, old, update, element);
        return SmallVector<Value>{insert(scalar, update, carried[0], position)};
      });
  return context.replace(result);
}

static LogicalResult convertScatterND(NodeContext &context) {
  FailureOr<Tuples> tuples = getTuples(context, /*batch=*/0);
  if (failed(tuples))
    return failure();
  int64_t rank = context.getInputType(0).getRank();
  int64_t leading = tuples->indexRank - 1;
  if (context.getInputType(2).getRank() != leading + rank - tuples->length)
    return context.fail("the updates have not the rank that the indices ask "
                        "for");
  for (int64_t axis = 0; axis < leading; ++axis)
    checkSameSize(context, 1, axis, 2, axis);
  for (int64_t axis = tuples->length; axis < rank; ++axis)
    checkSameSize(context, 0, axis, 2, leading + axis - tuples->length);
  return convertScatter(context, [&](ScalarBuilder &scalar, ValueRange loops) {
    return tuples->locate(scalar, loops);
  });
}

/// Checks that the dimensions of input `inner` but `axis` fit into those of the
/// data.
static void checkWithin(NodeContext &context, unsigned inner, int64_t axis) {
  SmallVector<Dimension> whole = getDimensions(context.getInputType(0));
  SmallVector<Dimension> part = getDimensions(context.getInputType(inner));
  ScalarBuilder scalar = context.scalar();
  for (int64_t i = 0, rank = whole.size(); i < rank; ++i) {
    if (i == axis || part[i].isKnownEqual(whole[i]) ||
        (part[i].isStatic() && whole[i].isStatic() &&
         part[i].size <= whole[i].size))
      continue;
    Value size = context.toValue(
        getSize(context.rewriter, context.loc, context.getInput(inner), i));
    Value limit = context.toValue(
        getSize(context.rewriter, context.loc, context.getInput(0), i));
    context.check(scalar.lessEqual(size, limit),
                  "dimension " + Twine(i) + " of the indices is too large");
  }
}

/// The axis of a node whose indices have the rank of the data, all checked.
static FailureOr<int64_t> getElementAxis(NodeContext &context) {
  int64_t rank = context.getInputType(0).getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", 0), rank);
  if (!axis)
    return context.fail("axis is out of range");
  if (context.getInputType(1).getRank() != rank)
    return context.fail("expects indices of the rank of the data");
  checkWithin(context, 1, *axis);
  checkIndices(
      context, 1,
      getSize(context.rewriter, context.loc, context.getInput(0), *axis));
  return *axis;
}

static LogicalResult convertScatterElements(NodeContext &context) {
  FailureOr<int64_t> axis = getElementAxis(context);
  if (failed(axis))
    return failure();
  int64_t rank = context.getInputType(0).getRank();
  if (context.getInputType(2).getRank() != rank)
    return context.fail("expects updates of the rank of the data");
  for (int64_t i = 0; i < rank; ++i)
    checkSameSize(context, 1, i, 2, i);
  Value indices = context.getInput(1);
  OpFoldResult size =
      getSize(context.rewriter, context.loc, context.getInput(0), *axis);
  return convertScatter(context, [&](ScalarBuilder &scalar, ValueRange loops) {
    SmallVector<Value> position(loops);
    position[*axis] = resolveIndex(scalar, extract(scalar, indices, loops),
                                   toValue(scalar.builder, scalar.loc, size));
    return position;
  });
}

static LogicalResult convertGatherElements(NodeContext &context) {
  FailureOr<int64_t> axis = getElementAxis(context);
  if (failed(axis))
    return failure();
  Value data = context.getInput(0), indices = context.getInput(1);
  OpFoldResult size = getSize(context.rewriter, context.loc, data, *axis);
  return context.replace(buildTensor(
      context.rewriter, context.loc, context.getSizes(indices),
      getStoredElement(data), [&](ScalarBuilder &scalar, ValueRange loops) {
        SmallVector<Value> source(loops);
        source[*axis] = resolveIndex(scalar, extract(scalar, indices, loops),
                                     toValue(scalar.builder, scalar.loc, size));
        return extract(scalar, data, source);
      }));
}

//===----------------------------------------------------------------------===//
// OneHot, EyeLike, ReverseSequence
//===----------------------------------------------------------------------===//

/// Indices may have any type of numbers; those out of range choose nothing.
static LogicalResult convertOneHot(NodeContext &context) {
  int64_t rank = context.getInputType(0).getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", -1), rank + 1);
  if (!axis)
    return context.fail("axis is out of range");
  Type i64 = context.rewriter.getI64Type();
  Value indices = context.getInput(0), values = context.getInput(2);
  Type indexType = context.getElementType(0);
  ScalarBuilder outer = context.scalar();
  OpFoldResult depth;
  if (auto known = context.getConstantInts(1); known && known->size() == 1) {
    depth = context.rewriter.getIndexAttr(known->front());
  } else {
    Type type = context.getElementType(1);
    Value number = outer.decode(extractScalar(context, 1), type);
    depth = toIndex(outer, outer.convert(number, type, i64));
  }
  context.check(outer.lessEqual(outer.index(0), context.toValue(depth)),
                "the depth is negative");
  Sizes sizes = context.getSizes(indices);
  sizes.insert(sizes.begin() + *axis, depth);
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(values),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        SmallVector<Value> source(loops);
        source.erase(source.begin() + *axis);
        Value number =
            scalar.decode(extract(scalar, indices, source), indexType);
        Value position =
            resolveIndex(scalar, scalar.convert(number, indexType, i64),
                         toValue(scalar.builder, scalar.loc, depth));
        Value hot = scalar.equal(position, loops[*axis]);
        return scalar.select(hot, extract(scalar, values, scalar.index(1)),
                             extract(scalar, values, scalar.index(0)));
      }));
}

static LogicalResult convertEyeLike(NodeContext &context) {
  RankedTensorType declared = context.getResultType();
  if (!declared || !getStoredType(declared))
    return context.fail("the elements of the result are not known "
                        "(run --onnx-infer-shapes)");
  if (context.getInputType(0).getRank() != 2)
    return context.fail("expects a matrix");
  Type element = declared.getElementType(), computed = getComputedType(element);
  int64_t shift = context.node.getInt("k", 0);
  return context.replace(buildTensor(
      context.rewriter, context.loc, context.getSizes(context.getInput(0)),
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange loops) {
        Value diagonal = scalar.add(loops[0], scalar.index(shift));
        Value number = scalar.select(scalar.equal(diagonal, loops[1]),
                                     scalar.constant(computed, 1),
                                     scalar.constant(computed, 0));
        return scalar.encode(number, element);
      }));
}

static LogicalResult convertReverseSequence(NodeContext &context) {
  int64_t rank = context.getInputType(0).getRank();
  auto batch = normalizeAxis(context.node.getInt("batch_axis", 1), rank);
  auto time = normalizeAxis(context.node.getInt("time_axis", 0), rank);
  if (!batch || !time || *batch == *time)
    return context.fail("axis is out of range");
  Value x = context.getInput(0), lengths = context.getInput(1);
  checkSameSize(context, 0, *batch, 1, 0);
  Value size =
      context.toValue(getSize(context.rewriter, context.loc, x, *time));
  context.check(
      buildAllOf(context, lengths,
                 [&](ScalarBuilder &scalar, Value length, ValueRange) {
                   Value count = toIndex(scalar, length);
                   return buildAnd(scalar,
                                   scalar.lessEqual(scalar.index(0), count),
                                   scalar.lessEqual(count, size));
                 }),
      "length is out of range");
  return context.replace(buildTensor(
      context.rewriter, context.loc, context.getSizes(x), getStoredElement(x),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value length = toIndex(scalar, extract(scalar, lengths, loops[*batch]));
        Value last = scalar.sub(length, scalar.index(1));
        SmallVector<Value> source(loops);
        source[*time] =
            scalar.select(scalar.less(loops[*time], length),
                          scalar.sub(last, loops[*time]), loops[*time]);
        return extract(scalar, x, source);
      }));
}

//===----------------------------------------------------------------------===//
// As many elements as the data says: Compress, NonZero
//===----------------------------------------------------------------------===//

/// The first `count` columns of a matrix, or elements of a vector.
static Value takeFirst(NodeContext &context, Value tensor, Value count) {
  Sizes sizes = context.getSizes(tensor);
  sizes.back() = count;
  SmallVector<OpFoldResult> offsets(sizes.size(),
                                    context.rewriter.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(),
                                    context.rewriter.getIndexAttr(1));
  return tensor::ExtractSliceOp::create(context.rewriter, context.loc, tensor,
                                        offsets, sizes, strides);
}

static LogicalResult convertCompress(NodeContext &context) {
  Value x = context.getInput(0), condition = context.getInput(1);
  int64_t axis = 0;
  if (context.node.getAttributeValue("axis")) {
    auto given = normalizeAxis(context.node.getInt("axis", 0),
                               context.getInputType(0).getRank());
    if (!given)
      return context.fail("axis is out of range");
    axis = *given;
  } else {
    x = buildReshape(context, x,
                     Sizes{getProduct(context, context.getSizes(x))});
  }
  Sizes sizes = context.getSizes(x);
  ScalarBuilder outer = context.scalar();
  // The condition may be shorter than the dimension.
  Value length =
      context.toValue(getSize(context.rewriter, context.loc, condition, 0));
  length = outer.min(length, context.toValue(sizes[axis]));
  Value positions =
      buildEmpty(context, OpFoldResult(length), context.rewriter.getI64Type());
  SmallVector<Value> kept = buildSequence(
      context, OpFoldResult(length), {positions, outer.index(0)},
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        // A position that is not kept is written over by the next one.
        Value next =
            insert(scalar, toI64(scalar, loops[0]), carried[0], carried[1]);
        Value more = scalar.add(carried[1], scalar.index(1));
        Value taken = extract(scalar, condition, loops);
        return SmallVector<Value>{next, scalar.select(taken, more, carried[1])};
      });
  sizes[axis] = kept[1];
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(x),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        SmallVector<Value> source(loops);
        source[axis] = toIndex(scalar, extract(scalar, kept[0], loops[axis]));
        return extract(scalar, x, source);
      }));
}

static LogicalResult convertNonZero(NodeContext &context) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0);
  Sizes sizes = context.getSizes(x);
  ScalarBuilder outer = context.scalar();
  OpFoldResult rank = context.rewriter.getIndexAttr(sizes.size());
  Value positions = buildEmpty(context, {rank, getProduct(context, sizes)},
                               context.rewriter.getI64Type());
  SmallVector<Value> found = buildSequence(
      context, sizes, {positions, outer.index(0)},
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        Value next = carried[0];
        for (auto [axis, loop] : llvm::enumerate(loops))
          next = insert(scalar, toI64(scalar, loop), next,
                        {scalar.index(axis), carried[1]});
        Value number = scalar.decode(extract(scalar, x, loops), element);
        Value isZero = scalar.isZero(number);
        Value more = scalar.add(carried[1], scalar.index(1));
        return SmallVector<Value>{next,
                                  scalar.select(isZero, carried[1], more)};
      });
  return context.replace(takeFirst(context, found[0], found[1]));
}

//===----------------------------------------------------------------------===//
// CumSum, CumProd
//===----------------------------------------------------------------------===//

/// Each element folds those before it along the axis, which may be known only
/// when the code runs.
static LogicalResult convertCumulative(NodeContext &context, bool isProduct) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0), computed = getComputedType(element);
  int64_t rank = context.getInputType(0).getRank();
  bool exclusive = context.node.getInt("exclusive", 0) != 0;
  bool reverse = context.node.getInt("reverse", 0) != 0;
  checkIndices(context, 1, context.rewriter.getIndexAttr(rank));
  ScalarBuilder outer = context.scalar();
  Value axis =
      resolveIndex(outer, extractScalar(context, 1), outer.index(rank));
  SmallVector<Value> isAxis;
  if (auto known = context.getConstantInts(1); known && known->size() == 1)
    axis = outer.index(known->front() < 0 ? known->front() + rank
                                          : known->front());
  for (int64_t i = 0; i < rank; ++i)
    isAxis.push_back(outer.equal(axis, outer.index(i)));
  Sizes sizes = context.getSizes(x);
  Value sums = buildEmpty(context, sizes, computed);
  Value unit = outer.constant(computed, isProduct ? 1 : 0);
  sums = buildSequence(
      context, sizes, sums,
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        SmallVector<Value> here, before;
        Value isFirst = scalar.boolean(false);
        Value one = scalar.index(1);
        for (auto [loop, size, mine] : llvm::zip(loops, sizes, isAxis)) {
          Value position = loop, previous = scalar.sub(loop, one);
          Value starts = scalar.isZero(loop);
          isFirst = buildOr(scalar, isFirst, buildAnd(scalar, mine, starts));
          if (reverse) {
            Value last =
                scalar.sub(toValue(scalar.builder, scalar.loc, size), one);
            position = scalar.select(mine, scalar.sub(last, loop), loop);
            previous = scalar.add(position, one);
          }
          // The first one has none before it and reads itself.
          Value moves = buildAnd(scalar, mine, buildNegation(scalar, starts));
          here.push_back(position);
          before.push_back(scalar.select(moves, previous, position));
        }
        auto read = [&](ValueRange indices) {
          return scalar.decode(extract(scalar, x, indices), element);
        };
        Value sum =
            scalar.select(isFirst, unit, extract(scalar, carried[0], before));
        Value factor =
            exclusive ? scalar.select(isFirst, unit, read(before)) : read(here);
        Value next =
            isProduct ? scalar.mul(sum, factor) : scalar.add(sum, factor);
        return SmallVector<Value>{insert(scalar, next, carried[0], here)};
      })[0];
  return context.replace(buildElementwise(
      context.rewriter, context.loc, sums,
      context.rewriter.getMultiDimIdentityMap(rank), sizes,
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange args) {
        return scalar.encode(args[0], element);
      }));
}

void nibble::addIndexingConversions(NodeConversions &conversions) {
  conversions.add("GatherND", 11, convertGatherND);
  conversions.add("GatherElements", 11, convertGatherElements);
  conversions.add("Scatter", 9, convertScatterElements);
  conversions.add("ScatterElements", 11, convertScatterElements);
  conversions.add("ScatterND", 11, convertScatterND);
  conversions.add("OneHot", 9, convertOneHot);
  conversions.add("EyeLike", 9, convertEyeLike);
  conversions.add("ReverseSequence", 10, convertReverseSequence);
  conversions.add("Compress", 9, convertCompress);
  conversions.add("NonZero", 9, convertNonZero);
  conversions.add("CumSum", 11, [](NodeContext &context) {
    return convertCumulative(context, /*isProduct=*/false);
  });
  conversions.add("CumProd", 26, [](NodeContext &context) {
    return convertCumulative(context, /*isProduct=*/true);
  });
}
