//===- Positions.cpp - Positions in tensors -------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Elements
//===----------------------------------------------------------------------===//

Type nibble::getStoredElement(Value tensor) {
  return cast<RankedTensorType>(tensor.getType()).getElementType();
}

Value nibble::extract(ScalarBuilder &scalar, Value tensor, ValueRange indices) {
  return tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor, indices);
}

Value nibble::insert(ScalarBuilder &scalar, Value element, Value tensor,
                     ValueRange indices) {
  return tensor::InsertOp::create(scalar.builder, scalar.loc, element, tensor,
                                  indices);
}

Value nibble::toIndex(ScalarBuilder &scalar, Value integer) {
  if (integer.getType().isIndex())
    return integer;
  return arith::IndexCastOp::create(scalar.builder, scalar.loc,
                                    scalar.builder.getIndexType(), integer);
}

Value nibble::toI64(ScalarBuilder &scalar, Value index) {
  return arith::IndexCastOp::create(scalar.builder, scalar.loc,
                                    scalar.builder.getI64Type(), index);
}

Value nibble::buildAnd(ScalarBuilder &scalar, Value a, Value b) {
  return arith::AndIOp::create(scalar.builder, scalar.loc, a, b);
}

Value nibble::buildOr(ScalarBuilder &scalar, Value a, Value b) {
  return arith::OrIOp::create(scalar.builder, scalar.loc, a, b);
}

Value nibble::buildNegation(ScalarBuilder &scalar, Value condition) {
  return arith::XOrIOp::create(scalar.builder, scalar.loc, condition,
                               scalar.boolean(true));
}

Value nibble::resolveIndex(ScalarBuilder &scalar, Value index, Value size) {
  Value position = toIndex(scalar, index);
  return scalar.select(scalar.less(position, scalar.index(0)),
                       scalar.add(position, size), position);
}

Value nibble::extractScalar(NodeContext &context, unsigned input) {
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> first(context.getInputType(input).getRank(),
                           scalar.index(0));
  return extract(scalar, context.getInput(input), first);
}

//===----------------------------------------------------------------------===//
// Sizes
//===----------------------------------------------------------------------===//

FailureOr<Sizes> nibble::getSizeInput(NodeContext &context, unsigned input) {
  Sizes sizes;
  if (auto known = context.getConstantInts(input)) {
    for (int64_t size : *known)
      sizes.push_back(context.rewriter.getIndexAttr(size));
    return sizes;
  }
  RankedTensorType type = context.getInputType(input);
  if (type.getRank() > 1 || !type.hasStaticShape())
    return context.fail("the number of integers in input " + Twine(input) +
                        " is not known (run --onnx-infer-shapes)");
  for (int64_t i = 0, count = type.getNumElements(); i < count; ++i)
    sizes.push_back(context.extractIndex(context.getInput(input), i));
  return sizes;
}

OpFoldResult nibble::getProduct(NodeContext &context,
                                ArrayRef<OpFoldResult> sizes) {
  int64_t known = 1;
  Value product;
  for (OpFoldResult size : sizes) {
    if (auto constant = getConstantIntValue(size)) {
      known *= *constant;
      continue;
    }
    Value factor = cast<Value>(size);
    product = product ? arith::MulIOp::create(context.rewriter, context.loc,
                                              product, factor)
                            .getResult()
                      : factor;
  }
  if (!product || known == 0)
    return context.rewriter.getIndexAttr(known);
  if (known != 1)
    product = arith::MulIOp::create(context.rewriter, context.loc, product,
                                    context.scalar().index(known));
  return product;
}

Sizes nibble::compactSizes(NodeContext &context, ArrayRef<OpFoldResult> sizes,
                           ArrayRef<Value> dropped, int64_t rank) {
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> result(rank, scalar.index(1));
  Value next = scalar.index(0);
  for (auto [size, isDropped] : llvm::zip(sizes, dropped)) {
    for (auto [position, kept] : llvm::enumerate(result)) {
      Value here = buildAnd(scalar, buildNegation(scalar, isDropped),
                            scalar.equal(next, scalar.index(position)));
      kept = scalar.select(here, context.toValue(size), kept);
    }
    next = scalar.select(isDropped, next, scalar.add(next, scalar.index(1)));
  }
  context.check(scalar.equal(next, scalar.index(rank)),
                "the axes do not leave " + Twine(rank) + " dimensions");
  return Sizes(result.begin(), result.end());
}

//===----------------------------------------------------------------------===//
// Loops in order
//===----------------------------------------------------------------------===//

SmallVector<Value> nibble::buildSequence(
    NodeContext &context, ArrayRef<OpFoldResult> sizes, ValueRange initial,
    function_ref<SmallVector<Value>(ScalarBuilder &, ValueRange, ValueRange)>
        body) {
  ScalarBuilder outer = context.scalar();
  SmallVector<Value> from(sizes.size(), outer.index(0)), to;
  SmallVector<Value> steps(sizes.size(), outer.index(1));
  for (OpFoldResult size : sizes)
    to.push_back(context.toValue(size));
  scf::LoopNest nest = scf::buildLoopNest(
      context.rewriter, context.loc, from, to, steps, initial,
      [&](OpBuilder &builder, Location loc, ValueRange indices,
          ValueRange carried) -> scf::ValueVector {
        ScalarBuilder scalar(builder, loc);
        SmallVector<Value> next = body(scalar, indices, carried);
        return scf::ValueVector(next.begin(), next.end());
      });
  return SmallVector<Value>(nest.results.begin(), nest.results.end());
}

// Runs of 1, 2, 4 … positions are merged in pairs.
Value nibble::buildSortedPositions(
    ScalarBuilder &scalar, Value count,
    function_ref<Value(ScalarBuilder &, Value, Value)> before) {
  OpBuilder &builder = scalar.builder;
  Location loc = scalar.loc;
  Type i64 = builder.getI64Type();
  Value zero = scalar.index(0), one = scalar.index(1);
  auto isBelow = [](ScalarBuilder &s, Value a, Value b) -> Value {
    return arith::CmpIOp::create(s.builder, s.loc, arith::CmpIPredicate::slt, a,
                                 b);
  };
  Value start = buildTensor(builder, loc, OpFoldResult(count), i64,
                            [](ScalarBuilder &body, ValueRange indices) {
                              return toI64(body, indices[0]);
                            });
  Value last = scalar.sub(count, one);
  Value spare = tensor::EmptyOp::create(builder, loc, OpFoldResult(count), i64);
  auto mergeRuns = [&](OpBuilder &outer, Value width, Value runs,
                       Value target) {
    // Two cursors move through a pair of runs.
    SmallVector<Value> initial{target, zero, zero};
    return scf::ForOp::create(
               outer, loc, zero, count, one, initial,
               [&](OpBuilder &nested, Location, Value position,
                   ValueRange carried) {
                 ScalarBuilder s(nested, loc);
                 Value pair = s.mul(width, s.index(2));
                 Value within =
                     arith::RemUIOp::create(nested, loc, position, pair);
                 Value first = s.sub(position, within);
                 Value middle = s.min(s.add(first, width), count);
                 Value end = s.min(s.add(first, pair), count);
                 Value isFirst = s.equal(within, zero);
                 Value left = s.select(isFirst, first, carried[1]);
                 Value right = s.select(isFirst, middle, carried[2]);
                 Value a = extract(s, runs, s.min(left, last));
                 Value b = extract(s, runs, s.min(right, last));
                 Value hasLeft = isBelow(s, left, middle);
                 Value rightEnds = buildNegation(s, isBelow(s, right, end));
                 Value rightIsLater =
                     buildNegation(s, before(s, toIndex(s, b), toIndex(s, a)));
                 Value takesLeft =
                     buildAnd(s, hasLeft, buildOr(s, rightEnds, rightIsLater));
                 Value next =
                     insert(s, s.select(takesLeft, a, b), carried[0], position);
                 SmallVector<Value> values{
                     next, s.select(takesLeft, s.add(left, one), left),
                     s.select(takesLeft, right, s.add(right, one))};
                 scf::YieldOp::create(nested, loc, values);
               })
        .getResult(0);
  };
  SmallVector<Value> initial{one, start, spare};
  auto loop = scf::WhileOp::create(
      builder, loc, ValueRange(initial).getTypes(), initial,
      [&](OpBuilder &nested, Location, ValueRange values) {
        ScalarBuilder s(nested, loc);
        scf::ConditionOp::create(nested, loc, isBelow(s, values[0], count),
                                 values);
      },
      [&](OpBuilder &nested, Location, ValueRange values) {
        ScalarBuilder s(nested, loc);
        Value merged = mergeRuns(nested, values[0], values[1], values[2]);
        // Each tensor keeps its buffer.
        Value runs =
            linalg::CopyOp::create(nested, loc, merged, values[1]).getResult(0);
        Value width = s.mul(values[0], s.index(2));
        scf::YieldOp::create(nested, loc, ValueRange{width, runs, merged});
      });
  return loop.getResult(1);
}

//===----------------------------------------------------------------------===//
// Checks
//===----------------------------------------------------------------------===//

Value nibble::buildAllOf(
    NodeContext &context, Value tensor,
    function_ref<Value(ScalarBuilder &, Value, ValueRange)> predicate) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  SmallVector<utils::IteratorType> iterators(rank,
                                             utils::IteratorType::reduction);
  ScalarBuilder outer = context.scalar();
  Value all = buildReduction(
      context.rewriter, context.loc, tensor,
      {context.rewriter.getMultiDimIdentityMap(rank),
       AffineMap::get(rank, 0, context.rewriter.getContext())},
      iterators, {}, outer.boolean(true),
      [&](ScalarBuilder &scalar, ValueRange args) {
        SmallVector<Value> indices;
        for (int64_t i = 0; i < rank; ++i)
          indices.push_back(
              linalg::IndexOp::create(scalar.builder, scalar.loc, i));
        return buildAnd(scalar, args[1], predicate(scalar, args[0], indices));
      });
  return extract(outer, all, {});
}

static Value isInRange(ScalarBuilder &scalar, Value index, Value size) {
  Value negative = scalar.sub(scalar.index(0), size);
  return buildAnd(scalar, scalar.lessEqual(negative, index),
                  scalar.less(index, size));
}

static constexpr const char *kOutOfRange = "index is out of range";

void nibble::checkIndices(NodeContext &context, unsigned input,
                          OpFoldResult size) {
  ScalarBuilder scalar = context.scalar();
  if (auto constants = context.getConstantInts(input)) {
    if (constants->empty())
      return;
    int64_t low = *llvm::min_element(*constants);
    int64_t high = *llvm::max_element(*constants);
    auto known = getConstantIntValue(size);
    if (known && -*known <= low && high < *known)
      return;
    Value extent = context.toValue(size);
    context.check(buildAnd(scalar, isInRange(scalar, scalar.index(low), extent),
                           isInRange(scalar, scalar.index(high), extent)),
                  kOutOfRange);
    return;
  }
  Value extent = context.toValue(size);
  Value valid =
      buildAllOf(context, context.getInput(input),
                 [&](ScalarBuilder &body, Value index, ValueRange) {
                   return isInRange(body, toIndex(body, index), extent);
                 });
  context.check(valid, kOutOfRange);
}

void nibble::checkSameSize(NodeContext &context, unsigned a, int64_t axis,
                           unsigned b, int64_t otherAxis) {
  Dimension first = getDimensions(context.getInputType(a))[axis];
  Dimension second = getDimensions(context.getInputType(b))[otherAxis];
  if (first.isKnownEqual(second))
    return;
  ScalarBuilder scalar = context.scalar();
  auto getExtent = [&](unsigned input, int64_t position) {
    return context.toValue(getSize(context.rewriter, context.loc,
                                   context.getInput(input), position));
  };
  context.check(scalar.equal(getExtent(a, axis), getExtent(b, otherAxis)),
                "dimension " + Twine(axis) + " of input " + Twine(a) +
                    " and dimension " + Twine(otherAxis) + " of input " +
                    Twine(b) + " differ");
}

SmallVector<Value> nibble::flagAxes(NodeContext &context, unsigned input,
                                    int64_t rank) {
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> flags;
  if (auto known = context.getConstantInts(input)) {
    for (int64_t axis = 0; axis < rank; ++axis)
      flags.push_back(scalar.boolean(llvm::is_contained(*known, axis) ||
                                     llvm::is_contained(*known, axis - rank)));
    return flags;
  }
  checkIndices(context, input, context.rewriter.getIndexAttr(rank));
  for (int64_t axis = 0; axis < rank; ++axis) {
    Value isFree = buildAllOf(
        context, context.getInput(input),
        [&](ScalarBuilder &body, Value given, ValueRange) {
          Value position = resolveIndex(body, given, body.index(rank));
          return buildNegation(body, body.equal(position, body.index(axis)));
        });
    flags.push_back(buildNegation(scalar, isFree));
  }
  return flags;
}
