//===- Sorting.cpp - TopK, Unique -----------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// TopK
//===----------------------------------------------------------------------===//

/// Of equal elements the first comes first.
static LogicalResult convertTopK(NodeContext &context) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0);
  std::optional<int64_t> axis = normalizeAxis(
      context.node.getInt("axis", -1), context.getInputType(0).getRank());
  if (!axis)
    return context.fail("axis is out of range");
  bool isLargest = context.node.getInt("largest", 1) != 0;
  ScalarBuilder outer = context.scalar();
  OpFoldResult chosen;
  if (context.version < 10)
    chosen = context.rewriter.getIndexAttr(context.node.getInt("k", 0));
  else if (auto known = context.getConstantInts(1); known && known->size() == 1)
    chosen = context.rewriter.getIndexAttr(known->front());
  else
    chosen = toIndex(outer, extractScalar(context, 1));
  Sizes sizes = context.getSizes(x);
  Value count = context.toValue(sizes[*axis]), k = context.toValue(chosen);
  context.check(buildAnd(outer, outer.lessEqual(outer.index(0), k),
                         outer.lessEqual(k, count)),
                "k is out of range");

  Sizes resultSizes(sizes), rows(sizes);
  resultSizes[*axis] = chosen;
  rows.erase(rows.begin() + *axis);
  Type i64 = context.rewriter.getI64Type();
  Value values = buildEmpty(context, resultSizes, getStoredElement(x));
  Value indices = buildEmpty(context, resultSizes, i64);
  SmallVector<Value> results = buildSequence(
      context, rows, {values, indices},
      [&](ScalarBuilder &scalar, ValueRange row, ValueRange carried) {
        auto locate = [&](Value position) {
          SmallVector<Value> source(row);
          source.insert(source.begin() + *axis, position);
          return source;
        };
        Value keys = buildTensor(
            scalar.builder, scalar.loc, OpFoldResult(count),
            getComputedType(element),
            [&](ScalarBuilder &body, ValueRange loops) {
              return body.decode(extract(body, x, locate(loops[0])), element);
            });
        Value order = buildSortedPositions(
            scalar, count, [&](ScalarBuilder &body, Value a, Value b) {
              body.isUnsigned = element.isUnsignedInteger();
              Value left = extract(body, keys, isLargest ? b : a);
              Value right = extract(body, keys, isLargest ? a : b);
              Value result = body.less(left, right);
              body.isUnsigned = false;
              return result;
            });
        auto loop = scf::ForOp::create(
            scalar.builder, scalar.loc, scalar.index(0), k, scalar.index(1),
            carried,
            [&](OpBuilder &nested, Location loc, Value position,
                ValueRange inner) {
              ScalarBuilder body(nested, loc);
              Value index = extract(body, order, position);
              Value value = extract(body, x, locate(toIndex(body, index)));
              SmallVector<Value> next{
                  insert(body, value, inner[0], locate(position)),
                  insert(body, index, inner[1], locate(position))};
              scf::YieldOp::create(nested, loc, next);
            });
        return SmallVector<Value>(loop.getResults());
      });
  return context.replace(results);
}

//===----------------------------------------------------------------------===//
// Unique
//===----------------------------------------------------------------------===//

namespace {
/// Slices of a tensor along an axis that are compared with one another.
struct Slices {
  Value tensor;
  Type element;
  int64_t axis;
  Value count;
  /// Sizes of a slice.
  Sizes sizes;

  SmallVector<Value> locate(Value slice, ValueRange position) const {
    SmallVector<Value> source(position);
    source.insert(source.begin() + axis, slice);
    return source;
  }

  /// -1, 0 or 1 as an i8: slice `a` is before, the same as or behind `b` in
  /// lexicographic order.
  Value compare(ScalarBuilder &scalar, Value a, Value b) const {
    Type i8 = scalar.builder.getI8Type();
    ScalarBuilder outer(scalar.builder, scalar.loc);
    SmallVector<Value> from(sizes.size(), outer.index(0)), to;
    SmallVector<Value> steps(sizes.size(), outer.index(1));
    for (OpFoldResult size : sizes)
      to.push_back(toValue(scalar.builder, scalar.loc, size));
    return scf::buildLoopNest(
               scalar.builder, scalar.loc, from, to, steps,
               outer.integer(i8, 0),
               [&](OpBuilder &builder, Location loc, ValueRange position,
                   ValueRange carried) -> scf::ValueVector {
                 ScalarBuilder s(builder, loc, element.isUnsignedInteger());
                 Value left =
                     s.decode(extract(s, tensor, locate(a, position)), element);
                 Value right =
                     s.decode(extract(s, tensor, locate(b, position)), element);
                 Value sign =
                     s.select(s.less(left, right), s.integer(i8, -1),
                              s.select(s.less(right, left), s.integer(i8, 1),
                                       s.integer(i8, 0)));
                 return {s.select(s.isZero(carried[0]), sign, carried[0])};
               })
        .results[0];
  }
};
} // namespace

/// What Unique finds, in the order of its groups.
namespace {
struct Groups {
  /// For each group the first slice of it, and how many there are.
  Value first, sizes;
  /// The group of each slice.
  Value groupOf;
  Value count;
};
} // namespace

static Groups groupSorted(NodeContext &context, const Slices &slices,
                          Value order) {
  ScalarBuilder outer = context.scalar();
  Type i64 = context.rewriter.getI64Type();
  auto makeEmpty = [&] {
    return buildEmpty(context, OpFoldResult(slices.count), i64);
  };
  Value zero = outer.index(0);
  SmallVector<Value> found = buildSequence(
      context, OpFoldResult(slices.count),
      {makeEmpty(), makeEmpty(), makeEmpty(), zero},
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        Value one = scalar.index(1);
        Value slice = extract(scalar, order, loops);
        Value before = scalar.select(scalar.isZero(loops[0]), zero,
                                     scalar.sub(loops[0], one));
        Value previous = extract(scalar, order, before);
        Value differs = buildNegation(
            scalar,
            scalar.isZero(slices.compare(scalar, toIndex(scalar, previous),
                                         toIndex(scalar, slice))));
        Value isNew = buildOr(scalar, scalar.isZero(loops[0]), differs);
        Value count =
            scalar.select(isNew, scalar.add(carried[3], one), carried[3]);
        Value group = scalar.sub(count, one);
        // The sort is stable: the first of a group comes first in the tensor.
        Value first =
            scalar.select(isNew, slice, extract(scalar, carried[0], group));
        Value size = scalar.select(isNew, scalar.integer(i64, 0),
                                   extract(scalar, carried[1], group));
        size = scalar.add(size, scalar.integer(i64, 1));
        return SmallVector<Value>{insert(scalar, first, carried[0], group),
                                  insert(scalar, size, carried[1], group),
                                  insert(scalar, toI64(scalar, group),
                                         carried[2], toIndex(scalar, slice)),
                                  count};
      });
  return {found[0], found[1], found[2], found[3]};
}

/// Puts the groups in the order in which they begin.
static Groups orderByFirst(NodeContext &context, const Slices &slices,
                           const Groups &groups) {
  Type i64 = context.rewriter.getI64Type();
  ScalarBuilder outer = context.scalar();
  Value order = buildSortedPositions(
      outer, groups.count, [&](ScalarBuilder &scalar, Value a, Value b) {
        return scalar.less(extract(scalar, groups.first, a),
                           extract(scalar, groups.first, b));
      });
  auto pick = [&](Value from) {
    return buildTensor(context.rewriter, context.loc,
                       OpFoldResult(groups.count), i64,
                       [&](ScalarBuilder &scalar, ValueRange loops) {
                         Value group = extract(scalar, order, loops);
                         return extract(scalar, from, toIndex(scalar, group));
                       });
  };
  Value rank = buildEmpty(context, OpFoldResult(groups.count), i64);
  rank = buildSequence(
      context, OpFoldResult(groups.count), rank,
      [&](ScalarBuilder &scalar, ValueRange loops, ValueRange carried) {
        Value group = toIndex(scalar, extract(scalar, order, loops));
        return SmallVector<Value>{
            insert(scalar, toI64(scalar, loops[0]), carried[0], group)};
      })[0];
  Value groupOf =
      buildTensor(context.rewriter, context.loc, OpFoldResult(slices.count),
                  i64, [&](ScalarBuilder &scalar, ValueRange loops) {
                    Value group =
                        toIndex(scalar, extract(scalar, groups.groupOf, loops));
                    return extract(scalar, rank, group);
                  });
  return {pick(groups.first), pick(groups.sizes), groupOf, groups.count};
}

static LogicalResult convertUnique(NodeContext &context) {
  Value x = context.getInput(0);
  Slices slices{x, context.getElementType(0), 0, {}, {}};
  if (context.node.getAttributeValue("axis")) {
    auto axis = normalizeAxis(context.node.getInt("axis", 0),
                              context.getInputType(0).getRank());
    if (!axis)
      return context.fail("axis is out of range");
    slices.axis = *axis;
  } else {
    slices.tensor = buildReshape(
        context, x, Sizes{getProduct(context, context.getSizes(x))});
  }
  slices.sizes = context.getSizes(slices.tensor);
  slices.count = context.toValue(slices.sizes[slices.axis]);
  slices.sizes.erase(slices.sizes.begin() + slices.axis);
  ScalarBuilder outer = context.scalar();
  Value order = buildSortedPositions(
      outer, slices.count, [&](ScalarBuilder &scalar, Value a, Value b) {
        Value sign = slices.compare(scalar, a, b);
        return scalar.less(sign, scalar.integer(sign.getType(), 0));
      });
  Groups groups = groupSorted(context, slices, order);
  if (!context.node.getInt("sorted", 1))
    groups = orderByFirst(context, slices, groups);

  Sizes sizes = context.getSizes(slices.tensor);
  sizes[slices.axis] = groups.count;
  Value unique = buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(x),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        SmallVector<Value> source(loops);
        source[slices.axis] =
            toIndex(scalar, extract(scalar, groups.first, loops[slices.axis]));
        return extract(scalar, slices.tensor, source);
      });
  auto takeFirst = [&](Value tensor) -> Value {
    OpBuilder &builder = context.rewriter;
    return tensor::ExtractSliceOp::create(
        context.rewriter, context.loc, tensor,
        ArrayRef<OpFoldResult>{builder.getIndexAttr(0)},
        ArrayRef<OpFoldResult>{groups.count},
        ArrayRef<OpFoldResult>{builder.getIndexAttr(1)});
  };
  SmallVector<Value> results{unique, takeFirst(groups.first), groups.groupOf,
                             takeFirst(groups.sizes)};
  results.resize(context.node.getNumResults());
  return context.replace(results);
}

void nibble::addSortingConversions(NodeConversions &conversions) {
  conversions.add("TopK", 1, convertTopK);
  conversions.add("Unique", 11, convertUnique);
}
