//===- Shape.cpp - Nodes that move elements and compute shapes ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Sizes that a node reads from a tensor are read when the code runs; constant
// ones are folded away. Only the number of dimensions must be known.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/IndexingUtils.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Axes
//===----------------------------------------------------------------------===//

static FailureOr<SmallVector<int64_t>>
normalizeAxes(NodeContext &context, ArrayRef<int64_t> axes, int64_t rank) {
  SmallVector<int64_t> result;
  for (int64_t axis : axes) {
    std::optional<int64_t> normal = normalizeAxis(axis, rank);
    if (!normal)
      return context.fail("axis " + Twine(axis) + " is out of range");
    result.push_back(*normal);
  }
  return result;
}

/// Axes from an attribute, or from input `input` in later versions.
static FailureOr<std::optional<SmallVector<int64_t>>>
getAxes(NodeContext &context, unsigned input) {
  if (auto axes = context.node.getInts("axes"))
    return std::optional(llvm::to_vector(*axes));
  if (context.isAbsent(input))
    return std::optional<SmallVector<int64_t>>();
  auto axes = context.getConstantInts(input);
  if (!axes)
    return context.fail("the axes must be constant");
  return axes;
}

//===----------------------------------------------------------------------===//
// The same elements in another shape
//===----------------------------------------------------------------------===//

static LogicalResult reshapeTo(NodeContext &context, FailureOr<Sizes> sizes) {
  if (failed(sizes))
    return failure();
  return context.replace(buildReshape(context, context.getInput(0), *sizes));
}

/// Replaces 0 by the input's size and -1 by what is left.
static FailureOr<Sizes> resolveShape(NodeContext &context,
                                     ArrayRef<OpFoldResult> given) {
  Sizes own = context.getSizes(context.getInput(0)), sizes(given);
  bool copiesZero = !context.node.getInt("allowzero", 0);
  ScalarBuilder scalar = context.scalar();
  std::optional<size_t> inferred;
  bool isDynamic = false;
  for (auto [axis, size] : llvm::enumerate(sizes)) {
    auto known = getConstantIntValue(size);
    if (known == 0 && copiesZero && axis < own.size()) {
      size = own[axis];
    } else if (known == -1) {
      inferred = axis;
    } else if (!known) {
      isDynamic = true;
      if (copiesZero && axis < own.size())
        size = scalar.select(scalar.isZero(cast<Value>(size)),
                             context.toValue(own[axis]), cast<Value>(size));
    }
  }
  OpFoldResult total = getProduct(context, own);
  auto divide = [&](Value product) -> Value {
    Value divisor =
        scalar.select(scalar.isZero(product), scalar.index(1), product);
    return arith::DivUIOp::create(context.rewriter, context.loc,
                                  context.toValue(total), divisor);
  };
  if (inferred) {
    Sizes others(sizes);
    others.erase(others.begin() + *inferred);
    OpFoldResult product = getProduct(context, others);
    auto count = getConstantIntValue(total),
         rest = getConstantIntValue(product);
    if (count && rest)
      sizes[*inferred] =
          context.rewriter.getIndexAttr(*rest == 0 ? 0 : *count / *rest);
    else
      sizes[*inferred] = divide(context.toValue(product));
  } else if (isDynamic) {
    // Any of the sizes that are not constant may be the -1.
    Value product = scalar.index(1), minusOne = scalar.index(-1);
    for (OpFoldResult size : sizes) {
      Value value = context.toValue(size);
      Value factor =
          scalar.select(scalar.equal(value, minusOne), scalar.index(1), value);
      product = scalar.mul(product, factor);
    }
    Value rest = divide(product);
    for (OpFoldResult &size : sizes)
      if (auto value = dyn_cast<Value>(size))
        size = scalar.select(scalar.equal(value, minusOne), rest, value);
  }
  return sizes;
}

/// Checks that a shape has as many elements as the input, and no negative
/// size.
static void checkCount(NodeContext &context, ArrayRef<OpFoldResult> sizes) {
  OpFoldResult wanted = getProduct(context, sizes);
  OpFoldResult own = getProduct(context, context.getSizes(context.getInput(0)));
  if (getConstantIntValue(wanted) && getConstantIntValue(own) &&
      getConstantIntValue(wanted) == getConstantIntValue(own))
    return;
  ScalarBuilder scalar = context.scalar();
  context.check(scalar.equal(context.toValue(wanted), context.toValue(own)),
                "the new shape has another number of elements");
  for (OpFoldResult size : sizes)
    if (!getConstantIntValue(size))
      context.check(scalar.lessEqual(scalar.index(0), context.toValue(size)),
                    "a size is negative");
}

static LogicalResult convertReshape(NodeContext &context) {
  Sizes given;
  if (auto shape = context.node.getInts("shape")) {
    for (int64_t size : *shape)
      given.push_back(context.rewriter.getIndexAttr(size));
  } else {
    FailureOr<Sizes> input = getSizeInput(context, 1);
    if (failed(input))
      return failure();
    given = *input;
  }
  FailureOr<Sizes> sizes = resolveShape(context, given);
  if (failed(sizes))
    return failure();
  checkCount(context, *sizes);
  return reshapeTo(context, sizes);
}

static LogicalResult convertFlatten(NodeContext &context) {
  int64_t rank = context.getInputType(0).getRank();
  int64_t axis = context.node.getInt("axis", 1);
  if (axis < 0)
    axis += rank;
  if (axis < 0 || axis > rank)
    return context.fail("axis is out of range");
  Sizes sizes = context.getSizes(context.getInput(0));
  ArrayRef<OpFoldResult> all(sizes);
  return reshapeTo(context, Sizes{getProduct(context, all.take_front(axis)),
                                  getProduct(context, all.drop_front(axis))});
}

/// Whether the axes of a node are a tensor whose elements are not known.
static bool hasDynamicAxes(NodeContext &context, unsigned input) {
  return !context.node.getInts("axes") && !context.isAbsent(input) &&
         !context.getConstantInts(input);
}

/// Squeeze by axes that are known when the code runs.
static LogicalResult squeezeDynamically(NodeContext &context) {
  RankedTensorType declared = context.getResultType();
  if (!declared)
    return context.fail("the axes are no constant, and the rank of the result "
                        "is not known");
  Value x = context.getInput(0);
  Sizes sizes = context.getSizes(x);
  SmallVector<Value> dropped = flagAxes(context, 1, sizes.size());
  ScalarBuilder scalar = context.scalar();
  for (auto [flag, size] : llvm::zip(dropped, sizes)) {
    Value isOne = scalar.equal(context.toValue(size), scalar.index(1));
    context.check(buildOr(scalar, buildNegation(scalar, flag), isOne),
                  "cannot squeeze a dimension that is not 1");
  }
  return context.replace(buildReshape(
      context, x, compactSizes(context, sizes, dropped, declared.getRank())));
}

static LogicalResult convertSqueeze(NodeContext &context) {
  if (hasDynamicAxes(context, 1))
    return squeezeDynamically(context);
  auto given = getAxes(context, 1);
  if (failed(given))
    return failure();
  RankedTensorType type = context.getInputType(0);
  SmallVector<int64_t> axes;
  if (*given) {
    auto normal = normalizeAxes(context, **given, type.getRank());
    if (failed(normal))
      return failure();
    axes = *normal;
  } else {
    for (int64_t axis = 0; axis < type.getRank(); ++axis)
      if (type.getDimSize(axis) == 1)
        axes.push_back(axis);
  }
  Value x = context.getInput(0);
  ScalarBuilder scalar = context.scalar();
  for (int64_t axis : axes)
    if (type.isDynamicDim(axis))
      context.check(
          scalar.equal(
              context.toValue(getSize(context.rewriter, context.loc, x, axis)),
              scalar.index(1)),
          "cannot squeeze dimension " + Twine(axis) + ", which is not 1");
  return reshapeTo(context, dropAxes(context, x, axes, false));
}

/// Unsqueeze by axes that are known when the code runs.
static LogicalResult unsqueezeDynamically(NodeContext &context) {
  RankedTensorType type = context.getInputType(1);
  if (type.getRank() > 1 || !type.hasStaticShape())
    return context.fail("the number of axes is not known");
  Sizes own = context.getSizes(context.getInput(0)), sizes;
  ScalarBuilder scalar = context.scalar();
  Value next = scalar.index(0), one = scalar.index(1);
  int64_t rank = own.size() + type.getNumElements();
  for (Value isNew : flagAxes(context, 1, rank)) {
    Value size = one;
    for (auto [position, extent] : llvm::enumerate(own)) {
      Value here = buildAnd(scalar, buildNegation(scalar, isNew),
                            scalar.equal(next, scalar.index(position)));
      size = scalar.select(here, context.toValue(extent), size);
    }
    next = scalar.select(isNew, next, scalar.add(next, one));
    sizes.push_back(size);
  }
  context.check(scalar.equal(next, scalar.index(own.size())),
                "an axis is named twice");
  return reshapeTo(context, sizes);
}

/// `tensor` with dimensions of 1 at `axes`, as a view: a part of a buffer,
/// which a reshape would have to copy, gets them too.
static Value insertDimensions(NodeContext &context, Value tensor,
                              ArrayRef<int64_t> axes,
                              ArrayRef<OpFoldResult> sizes) {
  if (sizes.size() == axes.size())
    return buildReshape(context, tensor, sizes);
  // A new dimension belongs to the old one behind it, or else to the last one.
  SmallVector<ReassociationIndices> groups(1);
  size_t count = sizes.size() - axes.size();
  for (int64_t axis = 0; axis < static_cast<int64_t>(sizes.size()); ++axis) {
    groups.back().push_back(axis);
    if (!llvm::is_contained(axes, axis) && groups.size() < count)
      groups.emplace_back();
  }
  SmallVector<Value> dynamic;
  SmallVector<int64_t> shape;
  dispatchIndexOpFoldResults(sizes, dynamic, shape);
  auto type = RankedTensorType::get(
      shape, cast<RankedTensorType>(tensor.getType()).getElementType());
  return tensor::ExpandShapeOp::create(context.rewriter, context.loc, type,
                                       tensor, groups, sizes);
}

static LogicalResult convertUnsqueeze(NodeContext &context) {
  if (hasDynamicAxes(context, 1))
    return unsqueezeDynamically(context);
  auto given = getAxes(context, 1);
  if (failed(given))
    return failure();
  if (!*given)
    return context.fail("has no axes");
  Sizes own = context.getSizes(context.getInput(0)), sizes;
  int64_t rank = own.size() + (*given)->size();
  auto axes = normalizeAxes(context, **given, rank);
  if (failed(axes))
    return failure();
  auto *next = own.begin();
  for (int64_t axis = 0; axis < rank; ++axis) {
    bool isNew = llvm::is_contained(*axes, axis);
    if (!isNew && next == own.end())
      return context.fail("names an axis twice");
    sizes.push_back(isNew ? OpFoldResult(context.rewriter.getIndexAttr(1))
                          : *next++);
  }
  return context.replace(
      insertDimensions(context, context.getInput(0), *axes, sizes));
}

//===----------------------------------------------------------------------===//
// Shapes as values
//===----------------------------------------------------------------------===//

static LogicalResult convertShape(NodeContext &context) {
  Sizes sizes = context.getSizes(context.getInput(0));
  int64_t rank = sizes.size();
  auto clamp = [&](int64_t position) {
    return std::clamp<int64_t>(position < 0 ? position + rank : position, 0,
                               rank);
  };
  int64_t start = clamp(context.node.getInt("start", 0));
  int64_t end = std::max(start, clamp(context.node.getInt("end", rank)));
  ScalarBuilder scalar = context.scalar();
  SmallVector<Value> values;
  for (OpFoldResult size : ArrayRef(sizes).slice(start, end - start))
    values.push_back(toI64(scalar, context.toValue(size)));
  auto type =
      RankedTensorType::get({end - start}, context.rewriter.getI64Type());
  if (values.empty())
    return context.replace(tensor::EmptyOp::create(context.rewriter,
                                                   context.loc, type,
                                                   ValueRange())
                               .getResult());
  return context.replace(tensor::FromElementsOp::create(
                             context.rewriter, context.loc, type, values)
                             .getResult());
}

static LogicalResult convertSize(NodeContext &context) {
  Sizes sizes = context.getSizes(context.getInput(0));
  ScalarBuilder scalar = context.scalar();
  Value count = toI64(scalar, context.toValue(getProduct(context, sizes)));
  auto type = RankedTensorType::get({}, context.rewriter.getI64Type());
  return context.replace(
      tensor::FromElementsOp::create(context.rewriter, context.loc, type, count)
          .getResult());
}

/// Checks that sizes that a tensor gives are not negative.
static void checkSizes(NodeContext &context, ArrayRef<OpFoldResult> sizes) {
  ScalarBuilder scalar = context.scalar();
  for (OpFoldResult size : sizes)
    if (auto known = getConstantIntValue(size); !known || *known < 0)
      context.check(scalar.lessEqual(scalar.index(0), context.toValue(size)),
                    "a size is negative");
}

static LogicalResult convertConstantOfShape(NodeContext &context) {
  FailureOr<Sizes> sizes = getSizeInput(context, 0);
  if (failed(sizes))
    return failure();
  RankedTensorType declared = context.getResultType();
  if (!declared || !getStoredType(declared))
    return context.fail("the elements of the result are not known "
                        "(run --onnx-infer-shapes)");
  checkSizes(context, *sizes);
  Type element = declared.getElementType(), type = getComputedType(element);
  ScalarBuilder scalar = context.scalar();
  Value number = scalar.constant(type, 0);
  if (auto given = dyn_cast_if_present<TensorAttr>(
          context.node.getAttributeValue("value"))) {
    if (auto integers = getIntegers(given.getValue()); integers)
      number = scalar.integer(type, integers->front());
    else if (auto floats = getFloats(given.getValue()); floats)
      number = scalar.constant(type, floats->front());
    else
      return context.fail("has a value that is no number");
  }
  Value stored = scalar.encode(number, element);
  Value empty = tensor::EmptyOp::create(context.rewriter, context.loc, *sizes,
                                        getStoredType(element));
  return context.replace(
      linalg::FillOp::create(context.rewriter, context.loc, stored, empty)
          .getResult(0));
}

/// ceil((limit - start) / delta) numbers, but none for a negative count.
static LogicalResult convertRange(NodeContext &context) {
  Type element = context.getElementType(0), type = getComputedType(element);
  ScalarBuilder scalar = context.scalar();
  // Runtimes take tensors of one element for scalars, and models have them.
  auto read = [&](unsigned input) {
    SmallVector<Value> first(context.getInputType(input).getRank(),
                             scalar.index(0));
    return scalar.decode(extract(scalar, context.getInput(input), first),
                         element);
  };
  Value start = read(0), limit = read(1), delta = read(2), count;
  Type i64 = context.rewriter.getI64Type();
  context.check(buildNegation(scalar, scalar.isZero(delta)),
                "the step is zero");
  Value difference = scalar.sub(limit, start);
  if (isa<FloatType>(type)) {
    Value quotient = scalar.div(difference, delta);
    Value whole = scalar.convert(quotient, type, i64);
    Value back = scalar.convert(whole, i64, type);
    Value more = arith::ExtUIOp::create(context.rewriter, context.loc, i64,
                                        scalar.less(back, quotient));
    count = scalar.add(whole, more);
  } else {
    Value wide = scalar.convert(difference, element, i64);
    Value step = scalar.convert(delta, element, i64);
    Value zero = scalar.integer(i64, 0);
    // With the remainder, one more.
    Value rest = scalar.rem(wide, step), whole = scalar.div(wide, step);
    Value inexact = arith::CmpIOp::create(context.rewriter, context.loc,
                                          arith::CmpIPredicate::ne, rest, zero);
    count = scalar.add(whole, arith::ExtUIOp::create(
                                  context.rewriter, context.loc, i64, inexact));
    Value backwards =
        arith::XOrIOp::create(context.rewriter, context.loc,
                              scalar.less(wide, zero), scalar.less(step, zero));
    count = scalar.select(backwards, zero, count);
  }
  count = scalar.max(count, scalar.integer(i64, 0));
  OpFoldResult size =
      arith::IndexCastOp::create(context.rewriter, context.loc,
                                 context.rewriter.getIndexType(), count)
          .getResult();
  return context.replace(buildTensor(
      context.rewriter, context.loc, size, getStoredType(element),
      [&](ScalarBuilder &body, ValueRange indices) {
        Value position =
            arith::IndexCastOp::create(body.builder, body.loc, i64, indices[0]);
        Value steps = body.convert(position, i64, element);
        return body.encode(body.add(start, body.mul(steps, delta)), element);
      }));
}

//===----------------------------------------------------------------------===//
// Elements moved
//===----------------------------------------------------------------------===//

static LogicalResult convertTranspose(NodeContext &context) {
  Value x = context.getInput(0);
  int64_t rank = context.getInputType(0).getRank();
  SmallVector<int64_t> order;
  if (auto given = context.node.getInts("perm"))
    order.assign(given->begin(), given->end());
  else
    order = llvm::to_vector(llvm::reverse(llvm::seq<int64_t>(0, rank)));
  if (static_cast<int64_t>(order.size()) != rank || !isPermutationVector(order))
    return context.fail("perm is no permutation of the dimensions");
  return context.replace(buildTranspose(context, x, order));
}

Value nibble::buildConcat(NodeContext &context, ValueRange inputs,
                          int64_t axis) {
  Sizes sizes = context.getSizes(inputs[0]), extents;
  bool isStatic = true;
  int64_t known = 0;
  for (Value input : inputs) {
    extents.push_back(getSize(context.rewriter, context.loc, input, axis));
    auto extent = getConstantIntValue(extents.back());
    isStatic &= extent.has_value();
    known += extent.value_or(0);
  }
  Value position = context.scalar().index(0);
  SmallVector<OpFoldResult> starts;
  for (OpFoldResult extent : extents) {
    starts.push_back(position);
    position = arith::AddIOp::create(context.rewriter, context.loc, position,
                                     context.toValue(extent));
  }
  sizes[axis] = isStatic ? OpFoldResult(context.rewriter.getIndexAttr(known))
                         : OpFoldResult(position);
  Value result = tensor::EmptyOp::create(context.rewriter, context.loc, sizes,
                                         getStoredElement(inputs[0]));
  OpFoldResult zero = context.rewriter.getIndexAttr(0);
  OpFoldResult one = context.rewriter.getIndexAttr(1);
  for (auto [input, start] : llvm::zip(inputs, starts)) {
    SmallVector<OpFoldResult> offsets(sizes.size(), zero),
        strides(sizes.size(), one);
    offsets[axis] = start;
    result = tensor::InsertSliceOp::create(context.rewriter, context.loc, input,
                                           result, offsets,
                                           context.getSizes(input), strides);
  }
  return result;
}

static LogicalResult convertConcat(NodeContext &context) {
  int64_t rank = context.getInputType(0).getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", 1), rank);
  if (!axis)
    return context.fail("axis is out of range");
  SmallVector<Value> inputs;
  for (unsigned i = 0; i < context.getNumInputs(); ++i) {
    if (context.getInputType(i).getRank() != rank)
      return context.fail("expects tensors of one rank");
    for (int64_t other = 0; i > 0 && other < rank; ++other)
      if (other != *axis)
        checkSameSize(context, 0, other, i, other);
    inputs.push_back(context.getInput(i));
  }
  return context.replace(buildConcat(context, inputs, *axis));
}

/// A position in front of or behind the end, brought into [low, high].
static Value clampPosition(NodeContext &context, Value position, Value size,
                           Value low, Value high) {
  ScalarBuilder scalar = context.scalar();
  Value fromEnd = scalar.add(position, size);
  Value result =
      scalar.select(scalar.less(position, scalar.index(0)), fromEnd, position);
  return scalar.min(scalar.max(result, low), high);
}

namespace {
/// A slice of one dimension.
struct Interval {
  OpFoldResult start, size, step;
};
} // namespace

static Interval getStaticInterval(NodeContext &context, int64_t size,
                                  int64_t start, int64_t end, int64_t step) {
  auto clamp = [&](int64_t position, int64_t low, int64_t high) {
    return std::clamp(position < 0 ? position + size : position, low, high);
  };
  bool forward = step > 0;
  start = clamp(start, 0, forward ? size : size - 1);
  end = clamp(end, forward ? 0 : -1, size);
  int64_t count = forward ? (end - start + step - 1) / step
                          : (start - end - step - 1) / -step;
  OpBuilder &builder = context.rewriter;
  return {builder.getIndexAttr(start),
          builder.getIndexAttr(std::max<int64_t>(count, 0)),
          builder.getIndexAttr(step)};
}

static Interval getInterval(NodeContext &context, OpFoldResult size,
                            OpFoldResult start, OpFoldResult end,
                            OpFoldResult step) {
  auto knownSize = getConstantIntValue(size),
       knownStart = getConstantIntValue(start);
  auto knownEnd = getConstantIntValue(end),
       knownStep = getConstantIntValue(step);
  if (knownSize && knownStart && knownEnd && knownStep && *knownStep != 0)
    return getStaticInterval(context, *knownSize, *knownStart, *knownEnd,
                             *knownStep);
  // A positive constant end that counts from 0 on a size that is not known may
  // still lie behind it, so everything is clamped when the code runs.
  ScalarBuilder scalar = context.scalar();
  Value length = context.toValue(size), stride = context.toValue(step);
  Value zero = scalar.index(0), one = scalar.index(1);
  if (!knownStep)
    context.check(buildNegation(scalar, scalar.isZero(stride)),
                  "the step is zero");
  Value forward = scalar.less(zero, stride);
  Value last = scalar.sub(length, one);
  Value from = clampPosition(context, context.toValue(start), length, zero,
                             scalar.select(forward, length, last));
  Value to =
      clampPosition(context, context.toValue(end), length,
                    scalar.select(forward, zero, scalar.index(-1)), length);
  Value difference =
      scalar.select(forward, scalar.sub(to, from), scalar.sub(from, to));
  Value magnitude = scalar.select(forward, stride, scalar.sub(zero, stride));
  Value rounded = scalar.add(difference, scalar.sub(magnitude, one));
  Value count = scalar.max(scalar.div(rounded, magnitude), zero);
  // Rounding towards zero makes a negative difference too large.
  count = scalar.select(scalar.less(zero, difference), count, zero);
  return {from, count, stride};
}

/// Makes starts, ends and steps of axes that are known when the code runs those
/// of all `rank` axes.
static LogicalResult spreadOverAxes(NodeContext &context, int64_t rank,
                                    Sizes &starts, Sizes &ends, Sizes &steps) {
  FailureOr<Sizes> axes = getSizeInput(context, 3);
  if (failed(axes))
    return failure();
  if (axes->size() != starts.size())
    return context.fail("expects as many axes as starts");
  checkIndices(context, 3, context.rewriter.getIndexAttr(rank));
  ScalarBuilder scalar = context.scalar();
  Sizes all[3];
  for (int64_t axis = 0; axis < rank; ++axis) {
    Value interval[3] = {scalar.index(0),
                         scalar.index(std::numeric_limits<int64_t>::max()),
                         scalar.index(1)};
    for (auto [i, given] : llvm::enumerate(*axes)) {
      Value position =
          resolveIndex(scalar, context.toValue(given), scalar.index(rank));
      Value here = scalar.equal(position, scalar.index(axis));
      for (auto [value, part] :
           llvm::zip(interval,
                     ArrayRef<OpFoldResult>({starts[i], ends[i], steps[i]})))
        value = scalar.select(here, context.toValue(part), value);
    }
    for (int part = 0; part < 3; ++part)
      all[part].push_back(interval[part]);
  }
  starts = all[0];
  ends = all[1];
  steps = all[2];
  return success();
}

static LogicalResult convertSlice(NodeContext &context) {
  Value x = context.getInput(0);
  int64_t rank = context.getInputType(0).getRank();
  auto getPart = [&](StringRef name, unsigned input) -> FailureOr<Sizes> {
    Sizes sizes;
    if (auto given = context.node.getInts(name)) {
      for (int64_t size : *given)
        sizes.push_back(context.rewriter.getIndexAttr(size));
      return sizes;
    }
    return context.isAbsent(input) ? FailureOr<Sizes>(sizes)
                                   : getSizeInput(context, input);
  };
  FailureOr<Sizes> starts = getPart("starts", 1), ends = getPart("ends", 2),
                   steps = getPart("steps", 4);
  if (failed(starts) || failed(ends) || failed(steps))
    return failure();
  OpFoldResult one = context.rewriter.getIndexAttr(1);
  steps->resize(starts->size(), one);
  if (ends->size() != starts->size())
    return context.fail("expects as many ends as starts");
  if (hasDynamicAxes(context, 3) &&
      failed(spreadOverAxes(context, rank, *starts, *ends, *steps)))
    return failure();
  SmallVector<int64_t> axes =
      llvm::to_vector(llvm::seq<int64_t>(0, starts->size()));
  if (!hasDynamicAxes(context, 3)) {
    auto given = getAxes(context, 3);
    if (failed(given))
      return failure();
    auto normal = normalizeAxes(context, *given ? **given : axes, rank);
    if (failed(normal))
      return failure();
    axes = *normal;
  }
  if (axes.size() != starts->size())
    return context.fail("expects as many axes as starts");

  Sizes sizes = context.getSizes(x);
  SmallVector<std::optional<Interval>> ranges(rank);
  for (auto [i, axis] : llvm::enumerate(axes)) {
    if (getConstantIntValue((*steps)[i]) == 0)
      return context.fail("the step is zero");
    ranges[axis] = getInterval(context, sizes[axis], (*starts)[i], (*ends)[i],
                               (*steps)[i]);
    sizes[axis] = ranges[axis]->size;
  }
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(x),
      [&](ScalarBuilder &scalar, ValueRange indices) {
        SmallVector<Value> source(indices);
        for (auto [position, range] : llvm::zip(source, ranges)) {
          if (!range)
            continue;
          Value step = toValue(scalar.builder, scalar.loc, range->step);
          Value start = toValue(scalar.builder, scalar.loc, range->start);
          position = scalar.add(start, scalar.mul(position, step));
        }
        return extract(scalar, x, source);
      }));
}

static LogicalResult convertGather(NodeContext &context) {
  Value indices = context.getInput(1);
  int64_t rank = context.getInputType(0).getRank();
  int64_t indexRank = context.getInputType(1).getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", 0), rank);
  if (!axis)
    return context.fail("axis is out of range");
  bool quantized = isQuantized(context.getInputType(0));
  Value table = quantized ? context.node.getInput(0) : context.getInput(0);
  checkIndices(context, 1,
               getSize(context.rewriter, context.loc, table, *axis));
  if (quantized)
    return context.replace(
        GatherOp::create(context.rewriter, context.loc, table, indices, *axis)
            .getResult());
  Sizes own = context.getSizes(table), sizes;
  llvm::append_range(sizes, ArrayRef(own).take_front(*axis));
  llvm::append_range(sizes, context.getSizes(indices));
  llvm::append_range(sizes, ArrayRef(own).drop_front(*axis + 1));
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(table),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value index = extract(scalar, indices, loops.slice(*axis, indexRank));
        SmallVector<Value> source(loops.take_front(*axis));
        source.push_back(resolveIndex(
            scalar, index, toValue(scalar.builder, scalar.loc, own[*axis])));
        llvm::append_range(source, loops.drop_front(*axis + indexRank));
        return extract(scalar, table, source);
      }));
}

/// Expand broadcasts both ways: a size of 1 leaves the input's.
static LogicalResult convertExpand(NodeContext &context) {
  FailureOr<Sizes> target = getSizeInput(context, 1);
  if (failed(target))
    return failure();
  Value x = context.getInput(0);
  Sizes own = context.getSizes(x), sizes(*target);
  size_t rank = std::max(own.size(), sizes.size());
  OpFoldResult one = context.rewriter.getIndexAttr(1);
  sizes.insert(sizes.begin(), rank - sizes.size(), one);
  size_t leading = rank - own.size();
  ScalarBuilder outer = context.scalar();
  for (size_t axis = leading; axis < rank; ++axis) {
    OpFoldResult size = own[axis - leading];
    auto known = getConstantIntValue(size),
         wanted = getConstantIntValue(sizes[axis]);
    if (wanted == 1) {
      sizes[axis] = size;
    } else if (known != 1 && (!known || known != wanted)) {
      Value value = context.toValue(size),
            target = context.toValue(sizes[axis]);
      Value isOne = outer.equal(value, outer.index(1));
      Value staysOwn = outer.equal(target, outer.index(1));
      Value agrees = buildOr(outer, buildOr(outer, isOne, staysOwn),
                             outer.equal(value, target));
      context.check(agrees, "cannot expand dimension " + Twine(axis - leading) +
                                " to another size");
      sizes[axis] =
          known ? size : OpFoldResult(outer.select(isOne, target, value));
    }
  }
  checkSizes(context, sizes);
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getStoredElement(x),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        SmallVector<Value> source;
        for (auto [loop, size] : llvm::zip(loops.drop_front(leading), own)) {
          Value extent = toValue(scalar.builder, scalar.loc, size);
          source.push_back(scalar.select(scalar.equal(extent, scalar.index(1)),
                                         scalar.index(0), loop));
        }
        return extract(scalar, x, source);
      }));
}

static LogicalResult convertTile(NodeContext &context) {
  FailureOr<Sizes> repeats = getSizeInput(context, 1);
  if (failed(repeats))
    return failure();
  Value x = context.getInput(0);
  Sizes own = context.getSizes(x), sizes;
  if (repeats->size() != own.size())
    return context.fail("expects a repeat for each dimension");
  checkSizes(context, *repeats);
  for (auto [size, repeat] : llvm::zip(own, *repeats))
    sizes.push_back(getProduct(context, {size, repeat}));
  return context.replace(
      buildTensor(context.rewriter, context.loc, sizes, getStoredElement(x),
                  [&](ScalarBuilder &scalar, ValueRange loops) {
                    SmallVector<Value> source;
                    for (auto [loop, size] : llvm::zip(loops, own))
                      source.push_back(arith::RemUIOp::create(
                          scalar.builder, scalar.loc, loop,
                          toValue(scalar.builder, scalar.loc, size)));
                    return extract(scalar, x, source);
                  }));
}

/// Keeps the upper or lower triangle of the last two dimensions, shifted by k.
static LogicalResult convertTrilu(NodeContext &context) {
  Value x = context.getInput(0);
  Type element = context.getElementType(0);
  if (context.getInputType(0).getRank() < 2)
    return context.fail("expects at least two dimensions");
  bool upper = context.node.getInt("upper", 1) != 0;
  Value shift = context.scalar().index(0);
  if (context.getNumInputs() > 1 && !context.isAbsent(1))
    shift = context.extractIndex(context.getInput(1), 0);
  return context.replace(buildTensor(
      context.rewriter, context.loc, context.getSizes(x), getStoredElement(x),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value row = loops[loops.size() - 2], column = loops.back();
        Value diagonal = scalar.add(row, shift);
        Value kept = upper ? scalar.lessEqual(diagonal, column)
                           : scalar.lessEqual(column, diagonal);
        Value zero = scalar.encode(scalar.constant(getComputedType(element), 0),
                                   element);
        return scalar.select(kept, extract(scalar, x, loops), zero);
      }));
}

static OpFoldResult addSizes(NodeContext &context, OpFoldResult a,
                             OpFoldResult b) {
  auto known = getConstantIntValue(a), other = getConstantIntValue(b);
  if (known && other)
    return context.rewriter.getIndexAttr(*known + *other);
  return context.scalar().add(context.toValue(a), context.toValue(b));
}

/// The length of each part of a dimension of size `whole`: what is given, or
/// equal ones, of which the last may be shorter.
static FailureOr<Sizes> getSplitLengths(NodeContext &context,
                                        OpFoldResult whole) {
  Sizes lengths;
  if (auto given = context.node.getInts("split")) {
    for (int64_t length : *given)
      lengths.push_back(context.rewriter.getIndexAttr(length));
    return lengths;
  }
  if (context.getNumInputs() > 1 && !context.isAbsent(1))
    return getSizeInput(context, 1);
  int64_t count = context.node.getNumResults();
  if (auto size = getConstantIntValue(whole)) {
    int64_t length = (*size + count - 1) / count;
    for (int64_t i = 0; i < count; ++i)
      lengths.push_back(context.rewriter.getIndexAttr(
          std::clamp<int64_t>(*size - i * length, 0, length)));
    return lengths;
  }
  ScalarBuilder scalar = context.scalar();
  Value size = context.toValue(whole), zero = scalar.index(0);
  Value length = scalar.div(scalar.add(size, scalar.index(count - 1)),
                            scalar.index(count));
  for (int64_t i = 0; i < count; ++i) {
    Value rest = scalar.sub(size, scalar.mul(length, scalar.index(i)));
    lengths.push_back(scalar.min(scalar.max(rest, zero), length));
  }
  return lengths;
}

static LogicalResult convertSplit(NodeContext &context) {
  Value x = context.getInput(0);
  int64_t rank = context.getInputType(0).getRank();
  std::optional<int64_t> axis =
      normalizeAxis(context.node.getInt("axis", 0), rank);
  if (!axis)
    return context.fail("axis is out of range");
  int64_t count = context.node.getNumResults();
  Sizes sizes = context.getSizes(x);
  OpFoldResult whole = sizes[*axis];
  FailureOr<Sizes> lengths = getSplitLengths(context, whole);
  if (failed(lengths))
    return failure();
  if (static_cast<int64_t>(lengths->size()) != count)
    return context.fail("expects a length for each output");
  SmallVector<Value> results;
  OpFoldResult zero = context.rewriter.getIndexAttr(0), position = zero;
  SmallVector<OpFoldResult> strides(rank, context.rewriter.getIndexAttr(1));
  checkSizes(context, *lengths);
  SmallVector<OpFoldResult> positions;
  for (OpFoldResult length : *lengths) {
    positions.push_back(position);
    position = addSizes(context, position, length);
  }
  ScalarBuilder scalar = context.scalar();
  if (!getConstantIntValue(position) ||
      getConstantIntValue(position) != getConstantIntValue(whole))
    context.check(
        scalar.equal(context.toValue(position), context.toValue(whole)),
        "the lengths of the parts do not add up to the size of the dimension");
  for (auto [start, length] : llvm::zip(positions, *lengths)) {
    sizes[*axis] = length;
    SmallVector<OpFoldResult> offsets(rank, zero);
    offsets[*axis] = start;
    // A slice may not begin at the end, be it empty or not.
    auto known = getConstantIntValue(start), end = getConstantIntValue(whole);
    if (known && end && *known >= *end) {
      results.push_back(buildEmpty(context, sizes, getStoredElement(x)));
      continue;
    }
    results.push_back(tensor::ExtractSliceOp::create(
        context.rewriter, context.loc, x, offsets, sizes, strides));
  }
  return context.replace(results);
}

void nibble::addShapeConversions(NodeConversions &conversions) {
  conversions.add("Reshape", 1, convertReshape);
  conversions.add("Flatten", 1, convertFlatten);
  conversions.add("Squeeze", 1, convertSqueeze);
  conversions.add("Unsqueeze", 1, convertUnsqueeze);
  conversions.add("Shape", 1, convertShape);
  conversions.add("Size", 1, convertSize);
  conversions.add("ConstantOfShape", 9, convertConstantOfShape);
  conversions.add("Range", 11, convertRange);
  conversions.add("Transpose", 1, convertTranspose);
  conversions.add("Concat", 4, convertConcat);
  conversions.add("Slice", 1, convertSlice);
  conversions.add("Gather", 1, convertGather);
  conversions.add("Expand", 8, convertExpand);
  conversions.add("Tile", 6, convertTile);
  conversions.add("Trilu", 14, convertTrilu);
  conversions.add("Split", 2, convertSplit);
}
