//===- Pad.cpp - Elements added around a tensor, and moved to depth -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// A part of one tensor in another
//===----------------------------------------------------------------------===//

/// A tensor of `sizes` that holds `value` and, from `offsets` on, the elements
/// of `tensor` from `starts` on, as many as lie in both.
static Value buildPlaced(NodeContext &context, Value tensor,
                         ArrayRef<OpFoldResult> starts,
                         ArrayRef<OpFoldResult> offsets,
                         ArrayRef<OpFoldResult> sizes, Value value) {
  SizeMath math(context);
  OpFoldResult zero = math.constant(0);
  Sizes own = context.getSizes(tensor), counts, from, to;
  for (auto [size, start, offset, wanted] :
       llvm::zip(own, starts, offsets, sizes)) {
    from.push_back(math.min(start, size));
    to.push_back(math.min(offset, wanted));
    counts.push_back(math.max(
        math.min(math.sub(size, start), math.sub(wanted, offset)), zero));
  }
  Value filled = buildFilled(context, sizes, value);
  Sizes steps(own.size(), math.constant(1));
  Value kept = tensor::ExtractSliceOp::create(context.rewriter, context.loc,
                                              tensor, from, counts, steps);
  return tensor::InsertSliceOp::create(context.rewriter, context.loc, kept,
                                       filled, to, counts, steps);
}

//===----------------------------------------------------------------------===//
// Pad
//===----------------------------------------------------------------------===//

namespace {
/// Elements added (or, where negative, taken away) at both ends of dimensions.
struct Padding {
  Sizes before, after;
};
} // namespace

/// Sizes for all dimensions, from those for `axes`, which may be known only
/// when the code runs. The others are 0.
static FailureOr<Sizes> spreadOverAxes(NodeContext &context,
                                       ArrayRef<OpFoldResult> sizes,
                                       ArrayRef<OpFoldResult> axes,
                                       int64_t rank) {
  SizeMath math(context);
  Sizes result(rank, math.constant(0));
  for (auto [size, axis] : llvm::zip(sizes, axes)) {
    if (auto known = getConstantIntValue(axis)) {
      auto normal = normalizeAxis(*known, rank);
      if (!normal)
        return context.fail("axis " + Twine(*known) + " is out of range");
      result[*normal] = size;
      continue;
    }
    ScalarBuilder scalar = context.scalar();
    Value given = cast<Value>(axis);
    Value isNegative = scalar.less(given, scalar.index(0));
    Value position =
        scalar.select(isNegative, scalar.add(given, scalar.index(rank)), given);
    context.check(arith::CmpIOp::create(context.rewriter, context.loc,
                                        arith::CmpIPredicate::ult, position,
                                        scalar.index(rank)),
                  "axis is out of range");
    for (int64_t i = 0; i < rank; ++i)
      result[i] =
          scalar.select(scalar.equal(position, scalar.index(i)),
                        context.toValue(size), context.toValue(result[i]));
  }
  return result;
}

static FailureOr<Padding> getPadding(NodeContext &context) {
  int64_t rank = context.getInputType(0).getRank();
  SizeMath math(context);
  Sizes axes;
  for (int64_t axis = 0; axis < rank; ++axis)
    axes.push_back(math.constant(axis));
  auto attribute =
      context.node.getInts(context.version < 2 ? "paddings" : "pads");
  if (!attribute && context.isAbsent(1))
    return context.fail("has no pads");
  if (!context.isAbsent(3)) {
    // As many axes as there are pairs of pads, whichever is known.
    RankedTensorType type = context.getInputType(3);
    RankedTensorType padsType = context.getInputType(1);
    if (!type.hasStaticShape() && !padsType.hasStaticShape())
      return context.fail("the number of axes is not known "
                          "(run --onnx-infer-shapes)");
    auto given =
        getIntegerInput(context, 3,
                        type.hasStaticShape() ? type.getNumElements()
                                              : padsType.getNumElements() / 2);
    if (failed(given))
      return failure();
    axes = *given;
  }
  FailureOr<Sizes> pads = Sizes();
  if (attribute)
    for (int64_t size : *attribute)
      pads->push_back(math.constant(size));
  else
    pads = getIntegerInput(context, 1, 2 * axes.size());
  if (failed(pads))
    return failure();
  if (pads->size() != 2 * axes.size())
    return context.fail("expects two pads for each axis");
  ArrayRef<OpFoldResult> all(*pads);
  auto before =
      spreadOverAxes(context, all.take_front(axes.size()), axes, rank);
  auto after = spreadOverAxes(context, all.drop_front(axes.size()), axes, rank);
  if (failed(before) || failed(after))
    return failure();
  return Padding{*before, *after};
}

/// Where the element at `position`, which counts from the input's first and may
/// lie outside, comes from.
static Value getSource(ScalarBuilder &scalar, StringRef mode, Value position,
                       Value size) {
  Value zero = scalar.index(0), one = scalar.index(1);
  Value last = scalar.sub(size, one);
  if (mode == "edge")
    return scalar.min(scalar.max(position, zero), last);
  bool reflects = mode == "reflect";
  Value period = reflects ? scalar.max(scalar.add(last, last), one) : size;
  Value rest =
      arith::RemSIOp::create(scalar.builder, scalar.loc, position, period);
  rest = scalar.select(scalar.less(rest, zero), scalar.add(rest, period), rest);
  if (!reflects)
    return rest;
  return scalar.select(scalar.less(last, rest), scalar.sub(period, rest), rest);
}

static Value getPadValue(NodeContext &context, Type element) {
  ScalarBuilder scalar = context.scalar();
  if (context.version >= 11 && !context.isAbsent(2)) {
    SmallVector<Value> first(context.getInputType(2).getRank(),
                             scalar.index(0));
    return tensor::ExtractOp::create(context.rewriter, context.loc,
                                     context.getInput(2), first);
  }
  double value = context.version < 11 ? context.node.getFloat("value", 0) : 0;
  return scalar.encode(scalar.constant(getComputedType(element), value),
                       element);
}

static LogicalResult convertPad(NodeContext &context) {
  FailureOr<Padding> padding = getPadding(context);
  if (failed(padding))
    return failure();
  Value x = context.getInput(0);
  StringRef mode = context.node.getString("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge" &&
      mode != "wrap")
    return context.fail("has the unknown mode '" + mode + "'");
  SizeMath math(context);
  OpFoldResult zero = math.constant(0);
  Sizes own = context.getSizes(x), sizes, starts, offsets;
  bool isPositive = true;
  for (auto [size, before, after] :
       llvm::zip(own, padding->before, padding->after)) {
    sizes.push_back(math.add(math.add(size, before), after));
    starts.push_back(math.max(math.sub(zero, before), zero));
    offsets.push_back(math.max(before, zero));
    isPositive &= getConstantIntValue(before).value_or(-1) >= 0 &&
                  getConstantIntValue(after).value_or(-1) >= 0;
  }
  if (!isPositive)
    for (OpFoldResult size : sizes)
      if (failed(math.requireLessEqual(
              zero, size, "takes away more elements than there are")))
        return failure();
  if (mode == "constant") {
    Value value = getPadValue(context, context.getElementType(0));
    return context.replace(
        isPositive
            ? buildPadded(context, x, padding->before, padding->after, value)
            : buildPlaced(context, x, starts, offsets, sizes, value));
  }
  // What is taken away is not repeated either.
  Sizes kept;
  for (auto [axis, size] : llvm::enumerate(own)) {
    OpFoldResult gone = math.add(
        starts[axis], math.max(math.sub(zero, padding->after[axis]), zero));
    kept.push_back(math.sub(size, gone));
    if (failed(math.requireLessEqual(math.min(sizes[axis], math.constant(1)),
                                     kept.back(), "has no elements to repeat")))
      return failure();
  }
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes,
      cast<RankedTensorType>(x.getType()).getElementType(),
      [&](ScalarBuilder &scalar, ValueRange loops) -> Value {
        SmallVector<Value> source(loops);
        for (auto [axis, position] : llvm::enumerate(source)) {
          if (getConstantIntValue(padding->before[axis]) == 0 &&
              getConstantIntValue(padding->after[axis]) == 0)
            continue;
          auto value = [&](OpFoldResult size) {
            return nibble::toValue(scalar.builder, scalar.loc, size);
          };
          Value inside = getSource(scalar, mode,
                                   scalar.sub(position, value(offsets[axis])),
                                   value(kept[axis]));
          position = scalar.add(value(starts[axis]), inside);
        }
        return tensor::ExtractOp::create(scalar.builder, scalar.loc, x, source);
      }));
}

/// Crops or pads with zeros around the center to the sizes of input 1.
static LogicalResult convertCenterCropPad(NodeContext &context) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0);
  SizeMath math(context);
  Sizes sizes = context.getSizes(x), own(sizes);
  SmallVector<int64_t> axes;
  if (auto given = context.node.getInts("axes"))
    axes.assign(given->begin(), given->end());
  else
    axes = llvm::to_vector(llvm::seq<int64_t>(0, own.size()));
  FailureOr<Sizes> wanted = getIntegerInput(context, 1, axes.size());
  if (failed(wanted))
    return failure();
  for (auto [axis, size] : llvm::zip(axes, *wanted)) {
    auto normal = normalizeAxis(axis, own.size());
    if (!normal)
      return context.fail("axis " + Twine(axis) + " is out of range");
    if (failed(math.requireLessEqual(math.constant(0), size,
                                     "expects sizes that are not negative")))
      return failure();
    sizes[*normal] = size;
  }
  Sizes starts, offsets;
  OpFoldResult zero = math.constant(0), two = math.constant(2);
  for (auto [size, target] : llvm::zip(own, sizes)) {
    starts.push_back(
        math.floorDiv(math.max(math.sub(size, target), zero), two));
    offsets.push_back(
        math.floorDiv(math.max(math.sub(target, size), zero), two));
  }
  ScalarBuilder scalar = context.scalar();
  Value value =
      scalar.encode(scalar.constant(getComputedType(element), 0), element);
  return context.replace(
      buildPlaced(context, x, starts, offsets, sizes, value));
}

//===----------------------------------------------------------------------===//
// DepthToSpace, SpaceToDepth
//===----------------------------------------------------------------------===//

static FailureOr<OpFoldResult> getBlock(NodeContext &context) {
  int64_t block = context.node.getInt("blocksize", 0);
  if (block < 1 || block >= 1 << 15)
    return context.fail("blocksize must be positive");
  if (context.getInputType(0).getRank() != 4)
    return context.fail("expects an input [N, C, H, W]");
  return OpFoldResult(context.rewriter.getIndexAttr(block));
}

static LogicalResult convertDepthToSpace(NodeContext &context) {
  FailureOr<OpFoldResult> block = getBlock(context);
  if (failed(block))
    return failure();
  SizeMath math(context);
  Value x = context.getInput(0);
  OpFoldResult channels = getSize(context.rewriter, context.loc, x, 1);
  OpFoldResult square = math.mul(*block, *block);
  OpFoldResult outer = math.floorDiv(channels, square);
  if (failed(math.requireEqual(math.mul(outer, square), channels,
                               "the channels are no multiple of blocksize²")))
    return failure();
  bool depthFirst = context.node.getString("mode", "DCR") == "DCR";
  Value parts =
      depthFirst
          ? buildTranspose(
                context, splitDimension(context, x, 1, {*block, *block, outer}),
                {0, 3, 4, 1, 5, 2})
          : buildTranspose(
                context, splitDimension(context, x, 1, {outer, *block, *block}),
                {0, 1, 4, 2, 5, 3});
  Value rows = mergeDimensions(context, parts, 2, 2);
  return context.replace(mergeDimensions(context, rows, 3, 2));
}

static LogicalResult convertSpaceToDepth(NodeContext &context) {
  FailureOr<OpFoldResult> block = getBlock(context);
  if (failed(block))
    return failure();
  SizeMath math(context);
  Value x = context.getInput(0);
  Sizes sizes = context.getSizes(x);
  OpFoldResult rows = math.floorDiv(sizes[2], *block);
  OpFoldResult columns = math.floorDiv(sizes[3], *block);
  for (auto [part, whole] : {std::pair(rows, sizes[2]), {columns, sizes[3]}})
    if (failed(math.requireEqual(math.mul(part, *block), whole,
                                 "the size is no multiple of blocksize")))
      return failure();
  Value parts = splitDimension(context, x, 3, {columns, *block});
  parts = splitDimension(context, parts, 2, {rows, *block});
  bool depthFirst = context.node.getString("mode", "DCR") == "DCR";
  parts = buildTranspose(context, parts,
                         depthFirst ? ArrayRef<int64_t>{0, 3, 5, 1, 2, 4}
                                    : ArrayRef<int64_t>{0, 1, 3, 5, 2, 4});
  return context.replace(mergeDimensions(context, parts, 1, 3));
}

void nibble::addPadConversions(NodeConversions &conversions) {
  conversions.add("Pad", 1, convertPad);
  conversions.add("CenterCropPad", 18, convertCenterCropPad);
  conversions.add("DepthToSpace", 1, convertDepthToSpace);
  conversions.add("SpaceToDepth", 1, convertSpaceToDepth);
}
