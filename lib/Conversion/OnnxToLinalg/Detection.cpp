//===- Detection.cpp - NonMaxSuppression and Det --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Algorithms whose steps depend on each other: loops over tensors.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static Value buildAnd(ScalarBuilder &scalar, Value a, Value b) {
  return arith::AndIOp::create(scalar.builder, scalar.loc, a, b);
}

static Value extract(ScalarBuilder &scalar, Value tensor, ValueRange indices) {
  return tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor, indices);
}

static Value insert(ScalarBuilder &scalar, Value value, Value tensor,
                    ValueRange indices) {
  return tensor::InsertOp::create(scalar.builder, scalar.loc, value, tensor,
                                  indices);
}

using LoopBody =
    llvm::function_ref<SmallVector<Value>(ScalarBuilder &, Value, ValueRange)>;

/// for (i = start; i < end; ++i) state = body(i, state)
static ResultRange buildLoop(ScalarBuilder &scalar, Value start, Value end,
                             ValueRange state, LoopBody body) {
  return scf::ForOp::create(
             scalar.builder, scalar.loc, start, end, scalar.index(1), state,
             [&](OpBuilder &builder, Location loc, Value i, ValueRange values) {
               ScalarBuilder inner(builder, loc, scalar.isUnsigned);
               scf::YieldOp::create(builder, loc, body(inner, i, values));
             })
      .getResults();
}

//===----------------------------------------------------------------------===//
// NonMaxSuppression
//===----------------------------------------------------------------------===//

namespace {
struct Suppression {
  Value boxes, scores;
  Type element;
  bool isCentered;
  Value iouThreshold;
  /// Null: every score counts.
  Value scoreThreshold;
};

struct Box {
  Value low[2], high[2];
};
} // namespace

/// The corners of a box, which may be given by its center.
static Box readBox(ScalarBuilder &scalar, const Suppression &node, Value batch,
                   Value box) {
  auto read = [&](int64_t position) {
    return extractNumber(scalar, node.boxes, node.element,
                         {batch, box, scalar.index(position)});
  };
  Box result;
  for (int axis = 0; axis < 2; ++axis) {
    Value first = read(axis), second = read(axis + 2);
    if (node.isCentered) {
      Value half = scalar.mul(second, scalar.constant(second.getType(), 0.5));
      result.low[axis] = scalar.sub(first, half);
      result.high[axis] = scalar.add(first, half);
    } else {
      result.low[axis] = scalar.min(first, second);
      result.high[axis] = scalar.max(first, second);
    }
  }
  return result;
}

static Value getArea(ScalarBuilder &scalar, const Box &box) {
  return scalar.mul(scalar.sub(box.high[0], box.low[0]),
                    scalar.sub(box.high[1], box.low[1]));
}

/// True where the boxes' intersection over their union exceeds the threshold.
static Value overlaps(ScalarBuilder &scalar, const Suppression &node,
                      const Box &a, const Box &b) {
  Box common;
  Value zero = scalar.constant(a.low[0].getType(), 0);
  Value result = scalar.boolean(true);
  for (int axis = 0; axis < 2; ++axis) {
    common.low[axis] = scalar.max(a.low[axis], b.low[axis]);
    common.high[axis] = scalar.min(a.high[axis], b.high[axis]);
    result = buildAnd(scalar, result,
                      scalar.less(common.low[axis], common.high[axis]));
  }
  Value first = getArea(scalar, a), second = getArea(scalar, b);
  Value shared = getArea(scalar, common);
  Value together = scalar.sub(scalar.add(first, second), shared);
  for (Value area : {first, second, shared, together})
    result = buildAnd(scalar, result, scalar.less(zero, area));
  return buildAnd(scalar, result,
                  scalar.less(node.iouThreshold, scalar.div(shared, together)));
}

/// The open box of a class with the highest score, the first among equals, or
/// -1 where there is none.
static Value findBest(ScalarBuilder &scalar, const Suppression &node,
                      Value batch, Value kind, Value open, Value count) {
  Type computed = getComputedType(node.element);
  Value lowest = scalar.infinity(computed, /*negative=*/true);
  return buildLoop(
      scalar, scalar.index(0), count, {lowest, scalar.index(-1)},
      [&](ScalarBuilder &body, Value box, ValueRange state) {
        Value score =
            extractNumber(body, node.scores, node.element, {batch, kind, box});
        Value none = body.equal(state[1], body.index(-1));
        Value better = arith::OrIOp::create(body.builder, body.loc, none,
                                            body.less(state[0], score));
        better = buildAnd(body, better, extract(body, open, box));
        if (node.scoreThreshold)
          better =
              buildAnd(body, better, body.less(node.scoreThreshold, score));
        return SmallVector<Value>{body.select(better, score, state[0]),
                                  body.select(better, box, state[1])};
      })[1];
}

/// Adds the selected boxes of one class of one batch to `state`: the table of
/// results and their number.
static SmallVector<Value> suppress(ScalarBuilder &scalar,
                                   const Suppression &node, Value batch,
                                   Value kind, Value limit, Value count,
                                   ValueRange state) {
  Type i1 = scalar.builder.getI1Type(), i64 = scalar.builder.getI64Type();
  Value empty = tensor::EmptyOp::create(
      scalar.builder, scalar.loc,
      RankedTensorType::get({ShapedType::kDynamic}, i1), count);
  Value open = linalg::FillOp::create(scalar.builder, scalar.loc,
                                      scalar.boolean(true), empty)
                   .getResult(0);
  // The table, its length, the open boxes, how many are selected, and whether
  // there may be more.
  SmallVector<Value> initial{state[0], state[1], open, scalar.index(0),
                             scalar.boolean(true)};
  auto loop = scf::WhileOp::create(
      scalar.builder, scalar.loc, ValueRange(initial).getTypes(), initial,
      [&](OpBuilder &builder, Location loc, ValueRange values) {
        ScalarBuilder body(builder, loc);
        Value more = buildAnd(body, values[4], body.less(values[3], limit));
        scf::ConditionOp::create(builder, loc, more, values);
      },
      [&](OpBuilder &builder, Location loc, ValueRange values) {
        ScalarBuilder body(builder, loc);
        Value best = findBest(body, node, batch, kind, values[2], count);
        Value found = body.lessEqual(body.index(0), best);
        auto branch = scf::IfOp::create(
            builder, loc, found,
            [&](OpBuilder &then, Location at) {
              ScalarBuilder inner(then, at);
              Value table = values[0];
              for (auto [column, index] :
                   llvm::enumerate(ArrayRef<Value>{batch, kind, best})) {
                Value number = arith::IndexCastOp::create(then, at, i64, index);
                table = insert(inner, number, table,
                               {values[1], inner.index(column)});
              }
              Box chosen = readBox(inner, node, batch, best);
              Value closed =
                  insert(inner, inner.boolean(false), values[2], best);
              Value left = buildLoop(
                  inner, inner.index(0), count, closed,
                  [&](ScalarBuilder &each, Value box, ValueRange boxes) {
                    Box other = readBox(each, node, batch, box);
                    Value gone = overlaps(each, node, chosen, other);
                    Value stays = each.select(gone, each.boolean(false),
                                              extract(each, boxes[0], box));
                    return SmallVector<Value>{
                        insert(each, stays, boxes[0], box)};
                  })[0];
              Value one = inner.index(1);
              scf::YieldOp::create(then, at,
                                   ValueRange{table, inner.add(values[1], one),
                                              left, inner.add(values[3], one),
                                              inner.boolean(true)});
            },
            [&](OpBuilder &otherwise, Location at) {
              ScalarBuilder inner(otherwise, at);
              scf::YieldOp::create(otherwise, at,
                                   ValueRange{values[0], values[1], values[2],
                                              values[3], inner.boolean(false)});
            });
        scf::YieldOp::create(builder, loc, branch.getResults());
      });
  return {loop.getResult(0), loop.getResult(1)};
}

/// The number of a scalar input, or null where it is left out.
static Value readScalar(NodeContext &context, unsigned input) {
  if (context.isAbsent(input))
    return {};
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> first(context.getInputType(input).getRank(),
                           scalar.index(0));
  return extractNumber(scalar, context.getInput(input),
                       context.getElementType(input), first);
}

static LogicalResult convertNonMaxSuppression(NodeContext &context) {
  if (context.getInputType(0).getRank() != 3 ||
      context.getInputType(1).getRank() != 3)
    return context.fail("expects boxes [N, boxes, 4] and scores [N, classes, "
                        "boxes]");
  SizeMath math(context);
  ScalarBuilder scalar = context.scalar();
  Suppression node{context.getInput(0),
                   context.getInput(1),
                   context.getElementType(0),
                   context.node.getInt("center_point_box", 0) != 0,
                   readScalar(context, 3),
                   readScalar(context, 4)};
  Type computed = getComputedType(node.element);
  if (!node.iouThreshold)
    node.iouThreshold = scalar.constant(computed, 0);
  Sizes boxes = context.getSizes(node.boxes);
  Sizes scores = context.getSizes(node.scores);
  if (failed(math.requireEqual(boxes[2], math.constant(4),
                               "a box has four coordinates")) ||
      failed(math.requireEqual(boxes[0], scores[0],
                               "the scores have not the boxes' batch")) ||
      failed(math.requireEqual(boxes[1], scores[2],
                               "there is not one score a box")))
    return failure();
  Value count = context.toValue(boxes[1]), limit = scalar.index(0);
  if (Value most = readScalar(context, 2))
    limit = arith::IndexCastOp::create(context.rewriter, context.loc,
                                       context.rewriter.getIndexType(), most);
  limit = scalar.min(scalar.max(limit, scalar.index(0)), count);
  OpFoldResult rows = math.mul(math.mul(scores[0], scores[1]), limit);
  Value table =
      tensor::EmptyOp::create(context.rewriter, context.loc,
                              Sizes{context.toValue(rows), math.constant(3)},
                              context.rewriter.getI64Type());
  Value zero = scalar.index(0);
  Value batches = context.toValue(scores[0]),
        kinds = context.toValue(scores[1]);
  auto selected = buildLoop(
      scalar, zero, batches, {table, zero},
      [&](ScalarBuilder &outer, Value batch, ValueRange state) {
        return SmallVector<Value>(buildLoop(
            outer, zero, kinds, state,
            [&](ScalarBuilder &inner, Value kind, ValueRange innerState) {
              return suppress(inner, node, batch, kind, limit, count,
                              innerState);
            }));
      });
  OpFoldResult none = math.constant(0), one = math.constant(1);
  return context.replace(
      tensor::ExtractSliceOp::create(
          context.rewriter, context.loc, selected[0], Sizes{none, none},
          Sizes{selected[1], math.constant(3)}, Sizes{one, one})
          .getResult());
}

//===----------------------------------------------------------------------===//
// Det
//===----------------------------------------------------------------------===//

/// One step of Gaussian elimination on matrix `batch` of `state` (the matrices
/// and the determinant so far): the largest element of column `k` moves to the
/// diagonal, and the rows below lose their part of it.
static SmallVector<Value> eliminate(ScalarBuilder &scalar, Value batch, Value k,
                                    Value size, ValueRange state) {
  Value one = scalar.index(1);
  auto read = [&](ScalarBuilder &at, Value matrices, Value row, Value column) {
    return extract(at, matrices, {batch, row, column});
  };
  Value first = scalar.abs(read(scalar, state[0], k, k));
  Value pivotRow = buildLoop(
      scalar, scalar.add(k, one), size, {first, k},
      [&](ScalarBuilder &body, Value row, ValueRange best) {
        Value number = body.abs(read(body, state[0], row, k));
        Value larger = body.less(best[0], number);
        return SmallVector<Value>{body.select(larger, number, best[0]),
                                  body.select(larger, row, best[1])};
      })[1];
  Value swapped =
      buildLoop(scalar, scalar.index(0), size, state[0],
                [&](ScalarBuilder &body, Value column, ValueRange matrices) {
                  Value upper = read(body, matrices[0], k, column);
                  Value lower = read(body, matrices[0], pivotRow, column);
                  Value next =
                      insert(body, lower, matrices[0], {batch, k, column});
                  return SmallVector<Value>{
                      insert(body, upper, next, {batch, pivotRow, column})};
                })[0];
  Value pivot = read(scalar, swapped, k, k);
  Value isSingular = scalar.isZero(pivot);
  Value divisor =
      scalar.select(isSingular, scalar.constant(pivot.getType(), 1), pivot);
  Value reduced = buildLoop(
      scalar, scalar.add(k, one), size, swapped,
      [&](ScalarBuilder &body, Value row, ValueRange matrices) {
        Value factor = body.div(read(body, matrices[0], row, k), divisor);
        return SmallVector<Value>(buildLoop(
            body, k, size, matrices,
            [&](ScalarBuilder &inner, Value column, ValueRange values) {
              Value above = read(inner, values[0], k, column);
              Value own = read(inner, values[0], row, column);
              Value next = inner.sub(own, inner.mul(factor, above));
              return SmallVector<Value>{
                  insert(inner, next, values[0], {batch, row, column})};
            }));
      })[0];
  Value sign =
      scalar.select(scalar.equal(pivotRow, k), pivot, scalar.neg(pivot));
  return {reduced, scalar.mul(state[1], sign)};
}

static LogicalResult convertDet(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank();
  if (rank < 2)
    return context.fail("expects matrices");
  SizeMath math(context);
  Value x = context.getInput(0);
  Sizes own = context.getSizes(x);
  if (failed(math.requireEqual(own[rank - 2], own[rank - 1],
                               "expects square matrices")))
    return failure();
  Sizes outer(own.begin(), own.end() - 2);
  OpFoldResult count = math.product(outer);
  Type element = type.getElementType(), computed = getComputedType(element);
  Value numbers =
      buildMapped(context, makeOperand(context, x, element), own, computed,
                  [](ScalarBuilder &, ValueRange args) { return args[0]; });
  Value matrices = buildReshape(context, numbers,
                                Sizes{count, own[rank - 2], own[rank - 1]});
  Value results = tensor::EmptyOp::create(context.rewriter, context.loc,
                                          Sizes{count}, computed);
  ScalarBuilder scalar = context.scalar();
  Value zero = scalar.index(0), size = context.toValue(own[rank - 1]);
  Value determinants = buildLoop(
      scalar, zero, context.toValue(count), {matrices, results},
      [&](ScalarBuilder &body, Value batch, ValueRange state) {
        Value one = body.constant(computed, 1);
        auto done =
            buildLoop(body, zero, size, {state[0], one},
                      [&](ScalarBuilder &inner, Value k, ValueRange step) {
                        return eliminate(inner, batch, k, size, step);
                      });
        return SmallVector<Value>{done[0],
                                  insert(body, done[1], state[1], batch)};
      })[1];
  Value shaped = buildReshape(context, determinants, outer);
  return context.replace(buildCast(context, shaped, computed, element));
}

void nibble::addDetectionConversions(NodeConversions &conversions) {
  conversions.add("NonMaxSuppression", 10, convertNonMaxSuppression);
  conversions.add("Det", 11, convertDet);
}
