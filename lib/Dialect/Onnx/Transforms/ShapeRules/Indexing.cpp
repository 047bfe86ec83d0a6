//===- Indexing.cpp - Shapes of ops that pick, join and cut ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"

#include <limits>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static Type getI64(RuleContext &context) {
  return Builder(context.getContext()).getI64Type();
}

//===----------------------------------------------------------------------===//
// Gather and Scatter
//===----------------------------------------------------------------------===//

/// The elements that constant indices pick from a list; the list is a shape.
static void gatherValue(RuleContext &context) {
  auto data = context.getValue(0), indices = context.getValue(1);
  auto shape = context.getShape(0);
  if (!data || !indices || !shape || shape->size() != 1)
    return;
  Shape value;
  for (const Dimension &index : *indices) {
    auto position = index.isStatic() ? normalizeAxis(index.size, data->size())
                                     : std::optional<int64_t>();
    value.push_back(position ? (*data)[*position] : Dimension());
  }
  context.setValue(0, value);
}

static void inferGather(RuleContext &context) {
  auto data = context.getShape(0), indices = context.getShape(1);
  Type type = context.getElementType(0);
  int64_t axis = context.getInt("axis", 0);
  if (!data || !indices)
    return context.set(0, type);
  auto position = normalizeAxis(axis, data->size());
  if (!position)
    return context.reject();
  Shape result(data->begin(), data->begin() + *position);
  result.append(*indices);
  result.append(data->begin() + *position + 1, data->end());
  context.set(0, type, result);
  gatherValue(context);
}

static void inferGatherElements(RuleContext &context) {
  context.set(0, context.getElementType(0), context.getShape(1));
}

static void inferGatherND(RuleContext &context) {
  auto data = context.getShape(0), indices = context.getShape(1);
  Type type = context.getElementType(0);
  int64_t batch = context.getInt("batch_dims", 0);
  if (!data || !indices || indices->empty() || !indices->back().isStatic())
    return context.set(0, type);
  int64_t used = indices->back().size;
  if (batch < 0 || used < 0 ||
      static_cast<uint64_t>(batch) + used > data->size())
    return context.reject();
  Shape result(indices->begin(), indices->end() - 1);
  result.append(data->begin() + batch + used, data->end());
  context.set(0, type, result);
}

static void inferOneHot(RuleContext &context) {
  auto indices = context.getShape(0);
  Type type = context.getElementType(2);
  if (!indices)
    return context.set(0, type);
  auto axis = normalizeAxis(context.getInt("axis", -1), indices->size() + 1);
  if (!axis)
    return context.reject();
  auto depth = context.getValue(1);
  Dimension size = depth && depth->size() == 1 ? depth->front() : Dimension();
  indices->insert(indices->begin() + *axis, size);
  context.set(0, type, indices);
}

static void inferNonZero(RuleContext &context) {
  auto shape = context.getShape(0);
  Dimension rank = shape ? fixed(shape->size()) : Dimension();
  context.set(0, getI64(context), Shape{rank, Dimension()});
}

static void inferCompress(RuleContext &context) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  bool hasAxis = context.getNode().getAttributeValue("axis") != Attribute();
  if (!hasAxis)
    return context.set(0, type, Shape(1));
  if (!shape)
    return context.set(0, type);
  auto axis = normalizeAxis(context.getInt("axis", 0), shape->size());
  if (!axis)
    return context.reject();
  (*shape)[*axis] = Dimension();
  context.set(0, type, shape);
}

static void inferUnique(RuleContext &context) {
  auto shape = context.getShape(0);
  bool hasAxis = context.getNode().getAttributeValue("axis") != Attribute();
  if (!hasAxis) {
    context.set(0, context.getElementType(0), Shape(1));
  } else if (shape) {
    auto axis = normalizeAxis(context.getInt("axis", 0), shape->size());
    if (!axis)
      return context.reject();
    (*shape)[*axis] = Dimension();
    context.set(0, context.getElementType(0), shape);
  }
  for (unsigned i = 1; i < 4; ++i)
    context.set(i, getI64(context), Shape(1));
}

//===----------------------------------------------------------------------===//
// Slice
//===----------------------------------------------------------------------===//

namespace {
struct SliceBounds {
  Dimension start, end;
  int64_t step = 1;
};
} // namespace

/// `bound` counted from the front and clamped to what the step allows.
static int64_t clampBound(int64_t bound, int64_t size, int64_t step) {
  if (bound < 0)
    bound += size;
  int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  return std::min(std::max(bound, low), high);
}

/// The first index of a static slice; a start is never before the first.
static int64_t clampStart(int64_t start, int64_t size, int64_t step) {
  if (start < 0)
    start += size;
  return std::min(std::max<int64_t>(start, 0), step > 0 ? size : size - 1);
}

/// An end is never before the first, and for a negative step one before it.
static int64_t countSlice(int64_t start, int64_t end, int64_t step,
                          int64_t size) {
  start = clampStart(start, size, step);
  end = clampBound(end, size, step);
  int64_t distance = step > 0 ? end - start : start - end;
  if (distance <= 0)
    return 0;
  // A step past the end makes one element; negating the least one overflows.
  uint64_t stride = step > 0 ? step : -static_cast<uint64_t>(step);
  return (distance - 1) / stride + 1;
}

static Dimension sliceDimension(const Dimension &size,
                                const SliceBounds &bounds) {
  const Dimension &start = bounds.start, &end = bounds.end;
  if (size.isStatic() && start.isStatic() && end.isStatic())
    return fixed(countSlice(start.size, end.size, bounds.step, size.size));
  if (bounds.step != 1 || !start.isStatic())
    return {};
  bool fromFront = start.size == 0;
  // All of a dimension of unknown size.
  if (fromFront && end.isStatic() &&
      end.size >= std::numeric_limits<int32_t>::max())
    return size;
  if (fromFront && end.isKnownEqual(size))
    return size;
  // A table for the longest sequence is cut to a named length.
  if (fromFront && end.symbol && size.isStatic())
    return end;
  return {};
}

static void sliceBy(RuleContext &context, std::optional<Shape> starts,
                    std::optional<Shape> ends,
                    std::optional<SmallVector<int64_t>> axes,
                    std::optional<SmallVector<int64_t>> steps) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  int64_t rank = shape->size();
  if (!axes)
    return context.set(0, type, Shape(rank));
  if ((starts && starts->size() != axes->size()) ||
      (ends && ends->size() != axes->size()) ||
      (steps && steps->size() != axes->size()))
    return context.reject();
  auto value = rank == 1 ? context.getValue(0) : std::nullopt;
  for (auto [index, axis] : llvm::enumerate(*axes)) {
    auto position = normalizeAxis(axis, rank);
    if (!position || (steps && (*steps)[index] == 0))
      return context.reject();
    if (!starts || !ends || !steps) {
      (*shape)[*position] = Dimension();
      value.reset();
      continue;
    }
    SliceBounds bounds{(*starts)[index], (*ends)[index], (*steps)[index]};
    if (value && bounds.start.isStatic() && bounds.end.isStatic()) {
      int64_t size = value->size();
      int64_t count =
          countSlice(bounds.start.size, bounds.end.size, bounds.step, size);
      int64_t first = clampStart(bounds.start.size, size, bounds.step);
      Shape cut;
      for (int64_t i = 0; i < count; ++i)
        cut.push_back((*value)[first + i * bounds.step]);
      value = cut;
    } else {
      value.reset();
    }
    (*shape)[*position] = sliceDimension((*shape)[*position], bounds);
  }
  context.set(0, type, shape);
  if (value)
    context.setValue(0, *value);
}

static std::optional<Shape> toShape(std::optional<ArrayRef<int64_t>> integers) {
  if (!integers)
    return std::nullopt;
  Shape shape;
  for (int64_t integer : *integers)
    shape.push_back(fixed(integer));
  return shape;
}

static void inferOldSlice(RuleContext &context) {
  auto starts = context.getInts("starts"), ends = context.getInts("ends");
  auto axes = context.getInts("axes");
  if (!starts || !ends)
    return context.reject();
  if (!axes)
    axes = llvm::to_vector(llvm::seq<int64_t>(0, starts->size()));
  SmallVector<int64_t> steps(axes->size(), 1);
  sliceBy(context, toShape(*starts), toShape(*ends), axes, steps);
}

static void inferSlice(RuleContext &context) {
  auto starts = context.getValue(1), ends = context.getValue(2);
  // The number of axes follows from any of the lists.
  size_t count = 0;
  for (unsigned input : {1, 2})
    if (auto length = context.getShape(input);
        length && length->size() == 1 && length->front().isStatic())
      count = std::max<int64_t>(count, length->front().size);
  if (starts)
    count = starts->size();
  std::optional<SmallVector<int64_t>> axes, steps;
  if (context.hasInput(3))
    axes = context.getIntegers(3);
  else if (count > 0 && count <= kMaxShapeElements)
    axes = llvm::to_vector(llvm::seq<int64_t>(0, count));
  if (context.hasInput(4))
    steps = context.getIntegers(4);
  else if (axes)
    steps = SmallVector<int64_t>(axes->size(), 1);
  sliceBy(context, starts, ends, axes, steps);
}

//===----------------------------------------------------------------------===//
// Concat and Split
//===----------------------------------------------------------------------===//

static void concatValue(RuleContext &context) {
  Shape value;
  for (unsigned i = 0; i < context.getNumInputs(); ++i) {
    auto shape = context.getShape(i);
    auto part = context.getValue(i);
    if (!part && shape && shape->size() == 1 && shape->front().isStatic() &&
        shape->front().size <= kMaxShapeElements)
      part = Shape(shape->front().size);
    if (!part || value.size() > kMaxShapeElements)
      return;
    value.append(*part);
  }
  context.setValue(0, value);
}

static void inferConcat(RuleContext &context) {
  Type type;
  for (unsigned i = 0; i < context.getNumInputs() && !type; ++i)
    type = context.getElementType(i);
  int64_t axis = context.getInt("axis", 1);
  std::optional<Shape> result;
  for (unsigned i = 0; i < context.getNumInputs(); ++i) {
    auto shape = context.getShape(i);
    if (!shape)
      return context.set(0, type);
    auto position = normalizeAxis(axis, shape->size());
    if (!position || (result && result->size() != shape->size()))
      return context.reject();
    if (!result) {
      result = shape;
      continue;
    }
    for (auto [index, dimension] : llvm::enumerate(*shape)) {
      Dimension &mine = (*result)[index];
      if (static_cast<int64_t>(index) == *position)
        mine = addDimensions(mine, dimension);
      else if (mine.isStatic() && dimension.isStatic() &&
               mine.size != dimension.size)
        return context.reject();
      else if (!mine.isStatic() && (dimension.isStatic() || !mine.symbol))
        mine = dimension;
    }
  }
  context.set(0, type, result);
  if (result && result->size() == 1)
    concatValue(context);
}

/// The sizes of the parts of a Split that gives none: equal, but the last may
/// be smaller.
static Shape splitEvenly(RuleContext &context, const Dimension &size) {
  int64_t parts = context.getNumOutputs();
  if (parts == 1)
    return Shape{size};
  if (!size.isStatic())
    return Shape(parts);
  int64_t part = (size.size + parts - 1) / parts;
  int64_t last = size.size - part * (parts - 1);
  if (last < 0)
    context.reject();
  Shape sizes(parts, fixed(part));
  sizes.back() = fixed(last);
  return sizes;
}

static void inferSplit(RuleContext &context) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  if (!shape) {
    for (unsigned i = 0; i < context.getNumOutputs(); ++i)
      context.set(i, type);
    return;
  }
  auto axis = normalizeAxis(context.getInt("axis", 0), shape->size());
  if (!axis)
    return context.reject();
  std::optional<Shape> sizes;
  if (context.hasInput(1)) {
    sizes = context.getValue(1);
    if (!sizes)
      sizes = Shape(context.getNumOutputs());
  } else if (auto split = context.getInts("split")) {
    sizes = toShape(*split);
  } else {
    sizes = splitEvenly(context, (*shape)[*axis]);
  }
  if (sizes->size() != context.getNumOutputs())
    return context.reject();
  Dimension total = fixed(0), whole = (*shape)[*axis];
  for (const Dimension &size : *sizes)
    total = addDimensions(total, size);
  if (total.isStatic() && whole.isStatic() && total.size != whole.size)
    return context.reject();
  auto value = shape->size() == 1 ? context.getValue(0) : std::nullopt;
  int64_t begin = 0;
  for (auto [index, size] : llvm::enumerate(*sizes)) {
    if (size.isStatic() && size.size < 0)
      return context.reject();
    Shape part = *shape;
    part[*axis] = size;
    context.set(index, type, part);
    if (!size.isStatic() || !value ||
        size.size > static_cast<int64_t>(value->size()) - begin) {
      value.reset();
      continue;
    }
    context.setValue(index, Shape(value->begin() + begin,
                                  value->begin() + begin + size.size));
    begin += size.size;
  }
}

void onnx::addIndexingRules(ShapeRules &rules) {
  rules.add({"Gather"}, inferGather);
  rules.add({"GatherElements"}, inferGatherElements);
  rules.add({"GatherND"}, inferGatherND);
  rules.add({"Scatter", "ScatterElements", "ScatterND", "TensorScatter"},
            inferSameAsFirst);
  rules.add({"OneHot"}, inferOneHot);
  rules.add({"NonZero"}, inferNonZero);
  rules.add({"Compress"}, inferCompress);
  rules.add({"Unique"}, inferUnique);
  rules.add({"Slice"}, inferOldSlice);
  rules.add({"Slice"}, inferSlice, 10);
  rules.add({"Concat"}, inferConcat);
  rules.add({"Split"}, inferSplit);
}
