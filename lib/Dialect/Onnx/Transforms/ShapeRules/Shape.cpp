//===- Shape.cpp - Shapes of ops that change a tensor's shape -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/SmallBitVector.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static Type getI64(RuleContext &context) {
  return Builder(context.getContext()).getI64Type();
}

/// A shape of known rank whose sizes are unknown; std::nullopt where `index` is
/// no shape tensor of known length.
static std::optional<Shape> getShapeOfLength(RuleContext &context,
                                             unsigned index) {
  auto length = context.getShape(index);
  if (!length || length->size() != 1 || !length->front().isStatic())
    return std::nullopt;
  int64_t rank = length->front().size;
  return rank <= kMaxShapeElements ? std::optional(Shape(rank)) : std::nullopt;
}

//===----------------------------------------------------------------------===//
// Shape and Size
//===----------------------------------------------------------------------===//

static void inferShape(RuleContext &context) {
  auto shape = context.getShape(0);
  if (!shape)
    return context.set(0, getI64(context), Shape(1));
  int64_t rank = shape->size();
  auto clamp = [&](int64_t axis) {
    axis = axis < 0 ? axis + rank : axis;
    return std::min(std::max<int64_t>(axis, 0), rank);
  };
  int64_t start = clamp(context.getInt("start", 0));
  int64_t end = clamp(context.getInt("end", rank));
  Shape value(shape->begin() + start, shape->begin() + std::max(start, end));
  context.set(0, getI64(context), Shape{fixed(value.size())});
  context.setValue(0, value);
}

static void inferSize(RuleContext &context) {
  context.set(0, getI64(context), Shape());
  auto shape = context.getShape(0);
  if (!shape)
    return;
  Dimension size = fixed(1);
  for (const Dimension &dimension : *shape)
    size = multiplyDimensions(size, dimension);
  context.setValue(0, {size});
}

//===----------------------------------------------------------------------===//
// Reshape
//===----------------------------------------------------------------------===//

/// The size that makes `target` hold as many elements as `source`: the quotient
/// of the products, once equal names are cancelled.
static Dimension inferRemainder(Shape source, ArrayRef<Dimension> target,
                                size_t position) {
  Dimension others = fixed(1);
  for (size_t index = 0; index < target.size(); ++index) {
    const Dimension &dimension = target[index];
    if (index == position)
      continue;
    auto same = llvm::find_if(source, [&](const Dimension &candidate) {
      return !candidate.isStatic() && candidate.isKnownEqual(dimension);
    });
    if (same != source.end())
      source.erase(same);
    else
      others = multiplyDimensions(others, dimension);
  }
  if (!others.isStatic() || others.size <= 0)
    return {};
  // Sizes are multiplied before names, so that one name may be left over.
  Dimension constants = fixed(1), names = fixed(1);
  for (const Dimension &dimension : source) {
    Dimension &product = dimension.isStatic() ? constants : names;
    product = multiplyDimensions(product, dimension);
  }
  if (!constants.isStatic())
    return {};
  if (constants.size == others.size)
    return names;
  if (!names.isStatic() || constants.size % others.size != 0)
    return {};
  return fixed(constants.size / others.size);
}

static void reshapeTo(RuleContext &context, Shape target, bool allowZero) {
  auto source = context.getShape(0);
  std::optional<size_t> inferred;
  for (auto [index, dimension] : llvm::enumerate(target)) {
    if (dimension.isStatic() && dimension.size == -1) {
      if (inferred)
        return context.reject();
      inferred = index;
      dimension = Dimension();
    } else if (dimension.isStatic() && dimension.size < 0) {
      return context.reject();
    } else if (dimension.isStatic() && dimension.size == 0 && !allowZero) {
      if (source && index >= source->size())
        return context.reject();
      dimension = source ? (*source)[index] : Dimension();
    }
  }
  if (source && inferred)
    target[*inferred] = inferRemainder(*source, target, *inferred);
  // One unknown size follows from the others.
  if (source && !inferred) {
    auto isUnknown = [](const Dimension &dimension) {
      return !dimension.isStatic() && !dimension.symbol;
    };
    auto it = llvm::find_if(target, isUnknown);
    if (llvm::count_if(target, isUnknown) == 1)
      *it = inferRemainder(*source, target, it - target.begin());
  }
  context.set(0, context.getElementType(0), target);
  // A scalar and a list of one element have the same elements.
  auto value = context.getValue(0);
  if (value && target.size() <= 1)
    context.setValue(0, *value);
}

static void inferReshape(RuleContext &context) {
  auto target = context.getValue(1);
  if (!target)
    target = getShapeOfLength(context, 1);
  if (!target)
    return context.set(0, context.getElementType(0));
  reshapeTo(context, *target, context.getInt("allowzero", 0) != 0);
}

static void inferOldReshape(RuleContext &context) {
  auto sizes = context.getInts("shape");
  if (!sizes)
    return;
  Shape target;
  for (int64_t size : *sizes)
    target.push_back(fixed(size));
  reshapeTo(context, target, /*allowZero=*/false);
}

static void inferFlatten(RuleContext &context) {
  auto shape = context.getShape(0);
  if (!shape)
    return context.set(0, context.getElementType(0), Shape(2));
  int64_t rank = shape->size(), axis = context.getInt("axis", 1);
  axis = axis < 0 ? axis + rank : axis;
  if (axis < 0 || axis > rank)
    return context.reject();
  Shape result(2, fixed(1));
  for (auto [index, dimension] : llvm::enumerate(*shape)) {
    Dimension &part = result[static_cast<int64_t>(index) >= axis];
    part = multiplyDimensions(part, dimension);
  }
  context.set(0, context.getElementType(0), result);
}

//===----------------------------------------------------------------------===//
// Dimensions of size 1
//===----------------------------------------------------------------------===//

static void keepValue(RuleContext &context, size_t rank) {
  auto value = context.getValue(0);
  if (value && rank <= 1)
    context.setValue(0, *value);
}

static void inferSqueeze(RuleContext &context) {
  auto shape = context.getShape(0);
  bool isGiven;
  auto axes = context.getIntegersOrAttribute(1, "axes", isGiven);
  Type type = context.getElementType(0);
  if (!shape || (isGiven && !axes))
    return context.set(0, type);
  llvm::SmallBitVector squeezed(shape->size());
  if (isGiven) {
    for (int64_t axis : *axes) {
      auto position = normalizeAxis(axis, shape->size());
      if (!position)
        return context.reject();
      squeezed.set(*position);
    }
  } else {
    for (auto [index, dimension] : llvm::enumerate(*shape)) {
      if (!dimension.isStatic())
        return context.set(0, type);
      squeezed[index] = dimension.size == 1;
    }
  }
  Shape result;
  for (auto [index, dimension] : llvm::enumerate(*shape))
    if (!squeezed[index])
      result.push_back(dimension);
  context.set(0, type, result);
  keepValue(context, result.size());
}

static void inferUnsqueeze(RuleContext &context) {
  auto shape = context.getShape(0);
  bool isGiven;
  auto axes = context.getIntegersOrAttribute(1, "axes", isGiven);
  Type type = context.getElementType(0);
  if (!shape || !axes) {
    auto added = getShapeOfLength(context, 1);
    if (shape && added)
      return context.set(0, type, Shape(shape->size() + added->size()));
    return context.set(0, type);
  }
  size_t rank = shape->size() + axes->size();
  llvm::SmallBitVector added(rank);
  for (int64_t axis : *axes) {
    auto position = normalizeAxis(axis, rank);
    if (!position || added.test(*position))
      return context.reject();
    added.set(*position);
  }
  Shape result;
  const Dimension *next = shape->begin();
  for (size_t i = 0; i < rank; ++i)
    result.push_back(added.test(i) ? fixed(1) : *next++);
  context.set(0, type, result);
  keepValue(context, rank);
}

//===----------------------------------------------------------------------===//
// Other moves
//===----------------------------------------------------------------------===//

static void inferTranspose(RuleContext &context) {
  auto shape = context.getShape(0);
  auto permutation = context.getInts("perm");
  if (!shape) {
    if (permutation)
      return context.set(0, context.getElementType(0),
                         Shape(permutation->size()));
    return context.set(0, context.getElementType(0));
  }
  if (!permutation)
    permutation =
        llvm::to_vector(llvm::reverse(llvm::seq<int64_t>(0, shape->size())));
  if (permutation->size() != shape->size())
    return context.reject();
  Shape result;
  llvm::SmallBitVector moved(shape->size());
  for (int64_t axis : *permutation) {
    if (axis < 0 || !normalizeAxis(axis, shape->size()) || moved.test(axis))
      return context.reject();
    moved.set(axis);
    result.push_back((*shape)[axis]);
  }
  context.set(0, context.getElementType(0), result);
  keepValue(context, result.size());
}

static void inferExpand(RuleContext &context) {
  auto shape = context.getShape(0);
  auto target = context.getValue(1);
  if (!target)
    target = getShapeOfLength(context, 1);
  Type type = context.getElementType(0);
  if (!shape || !target)
    return context.set(0, type);
  auto result = broadcast(*shape, *target);
  if (!result)
    return context.reject();
  context.set(0, type, result);
  auto value = context.getValue(0);
  if (value && value->size() == 1 && result->size() == 1 &&
      result->front().isStatic() && result->front().size <= kMaxShapeElements)
    context.setValue(0, Shape(result->front().size, value->front()));
}

static void inferTile(RuleContext &context) {
  auto shape = context.getShape(0);
  auto repeats = context.getValue(1);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  if (!repeats)
    return context.set(0, type, Shape(shape->size()));
  if (repeats->size() != shape->size())
    return context.reject();
  Shape result;
  for (auto [dimension, repeat] : llvm::zip(*shape, *repeats))
    result.push_back(multiplyDimensions(dimension, repeat));
  context.set(0, type, result);
}

/// The axes of `count` values: those of input `index`, or all in order.
static std::optional<SmallVector<int64_t>>
getAxes(RuleContext &context, unsigned index, int64_t rank) {
  if (!context.hasInput(index))
    return llvm::to_vector(llvm::seq<int64_t>(0, rank));
  auto axes = context.getIntegers(index);
  if (!axes)
    return std::nullopt;
  for (int64_t &axis : *axes) {
    auto position = normalizeAxis(axis, rank);
    if (!position) {
      context.reject();
      return std::nullopt;
    }
    axis = *position;
  }
  return axes;
}

static void padBy(RuleContext &context, std::optional<Shape> pads) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  auto axes = getAxes(context, 3, shape->size());
  if (!pads || !axes)
    return context.set(0, type, Shape(shape->size()));
  if (pads->size() != 2 * axes->size())
    return context.reject();
  for (auto [index, axis] : llvm::enumerate(*axes)) {
    Dimension padding =
        addDimensions((*pads)[index], (*pads)[index + axes->size()]);
    (*shape)[axis] = addDimensions((*shape)[axis], padding);
    if ((*shape)[axis].isStatic() && (*shape)[axis].size < 0)
      return context.reject();
  }
  context.set(0, type, shape);
}

static void inferPad(RuleContext &context) {
  padBy(context, context.getValue(1));
}

static void inferOldPad(RuleContext &context) {
  auto sizes = context.getInts(context.getVersion() < 2 ? "paddings" : "pads");
  if (!sizes)
    return context.reject();
  Shape pads;
  for (int64_t size : *sizes)
    pads.push_back(fixed(size));
  padBy(context, pads);
}

static void inferCenterCropPad(RuleContext &context) {
  auto shape = context.getShape(0);
  auto target = context.getValue(1);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  auto axes = context.getInts("axes");
  if (!axes)
    axes = llvm::to_vector(llvm::seq<int64_t>(0, shape->size()));
  if (target && target->size() != axes->size())
    return context.reject();
  for (auto [index, axis] : llvm::enumerate(*axes)) {
    auto position = normalizeAxis(axis, shape->size());
    if (!position)
      return context.reject();
    (*shape)[*position] = target ? (*target)[index] : Dimension();
  }
  context.set(0, type, shape);
}

static void moveBlocks(RuleContext &context, bool toDepth) {
  auto shape = context.getShape(0);
  int64_t block = context.getInt("blocksize", 0);
  if (!shape)
    return context.set(0, context.getElementType(0), Shape(4));
  if (shape->size() != 4 || block <= 0)
    return context.reject();
  auto scale = [&](Dimension dimension, bool up, int64_t factor) {
    return up ? multiplyDimensions(dimension, fixed(factor))
              : divideDimensions(dimension, fixed(factor));
  };
  if (block > (1 << 15))
    return context.reject();
  (*shape)[1] = scale((*shape)[1], toDepth, block * block);
  (*shape)[2] = scale((*shape)[2], !toDepth, block);
  (*shape)[3] = scale((*shape)[3], !toDepth, block);
  context.set(0, context.getElementType(0), shape);
}

void onnx::addShapeRules(ShapeRules &rules) {
  rules.add({"Shape"}, inferShape);
  rules.add({"Size"}, inferSize);
  rules.add({"Reshape"}, inferOldReshape);
  rules.add({"Reshape"}, inferReshape, 5);
  rules.add({"Flatten"}, inferFlatten);
  rules.add({"Squeeze"}, inferSqueeze);
  rules.add({"Unsqueeze"}, inferUnsqueeze);
  rules.add({"Transpose"}, inferTranspose);
  rules.add({"Expand"}, inferExpand);
  rules.add({"Tile"}, inferTile, 6);
  rules.add({"Pad"}, inferOldPad);
  rules.add({"Pad"}, inferPad, 11);
  rules.add({"CenterCropPad"}, inferCenterCropPad);
  rules.add({"SpaceToDepth"},
            [](RuleContext &context) { moveBlocks(context, true); });
  rules.add({"DepthToSpace"},
            [](RuleContext &context) { moveBlocks(context, false); });
}
