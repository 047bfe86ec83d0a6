//===- Convolution.cpp - Shapes of convolutions, pools and resizing -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Windows
//===----------------------------------------------------------------------===//

namespace {
/// How a window moves over the spatial dimensions; one entry for each.
struct Window {
  Shape kernel;
  SmallVector<int64_t> strides, dilations, pads;
  StringRef autoPad;
  bool ceilMode = false;
};
} // namespace

/// Sizes that a sane model stays below, so that the arithmetic cannot overflow.
static bool isSane(ArrayRef<int64_t> numbers, int64_t low) {
  return llvm::all_of(numbers, [&](int64_t number) {
    return number >= low && number < (int64_t(1) << 30);
  });
}

/// The attributes of a window of `rank` dimensions; std::nullopt, after a
/// rejection, where they do not fit.
static std::optional<Window> getWindow(RuleContext &context, size_t rank,
                                       Shape kernel) {
  Window window;
  if (auto sizes = context.getInts("kernel_shape")) {
    kernel.clear();
    for (int64_t size : *sizes)
      kernel.push_back(fixed(size));
    if (!isSane(*sizes, 1))
      context.reject();
  }
  window.kernel = kernel;
  window.strides =
      context.getInts("strides").value_or(SmallVector<int64_t>(rank, 1));
  window.dilations =
      context.getInts("dilations").value_or(SmallVector<int64_t>(rank, 1));
  window.pads =
      context.getInts("pads").value_or(SmallVector<int64_t>(2 * rank, 0));
  window.autoPad = context.getString("auto_pad", "NOTSET");
  window.ceilMode = context.getInt("ceil_mode", 0) != 0;
  if (kernel.size() != rank || window.strides.size() != rank ||
      window.dilations.size() != rank || window.pads.size() != 2 * rank ||
      !isSane(window.strides, 1) || !isSane(window.dilations, 1) ||
      !isSane(window.pads, -(int64_t(1) << 30)))
    context.reject();
  return context.isRejected() ? std::nullopt : std::optional(window);
}

/// Number of positions of the window along dimension `index`.
static Dimension slide(const Window &window, size_t index,
                       const Dimension &size) {
  int64_t stride = window.strides[index];
  if (window.autoPad.starts_with("SAME")) {
    if (stride == 1)
      return size;
    return size.isStatic() ? fixed((size.size + stride - 1) / stride)
                           : Dimension();
  }
  if (!window.kernel[index].isStatic())
    return {};
  int64_t reach = window.dilations[index] * (window.kernel[index].size - 1) + 1;
  int64_t before = 0, after = 0;
  if (window.autoPad != "VALID") {
    before = window.pads[index];
    after = window.pads[index + window.kernel.size()];
  }
  if (stride == 1 && before + after + 1 == reach)
    return size;
  if (!size.isStatic() || size.size >= (int64_t(1) << 40))
    return {};
  int64_t room = size.size + before + after - reach;
  if (room < 0)
    return {};
  int64_t positions = room / stride + 1;
  if (window.ceilMode && room % stride != 0) {
    ++positions;
    // A window must start inside the input or its padding before.
    if ((positions - 1) * stride >= size.size + before)
      --positions;
  }
  return fixed(positions);
}

namespace {
/// What the rules of convolutions whose results differ begin with.
struct Filter {
  Shape input;
  std::optional<Shape> filter;
  Window window;
  size_t getRank() const { return window.kernel.size(); }
  Dimension getFirst() const { return filter ? filter->front() : Dimension(); }
};
} // namespace

/// The shapes of inputs `data` and `weight`, whose spatial dimensions start at
/// `firstSpatial`, and the window; std::nullopt where the input is unknown, or,
/// after a rejection, where they do not fit.
static std::optional<Filter> getFilter(RuleContext &context, unsigned data,
                                       unsigned weight, size_t firstSpatial,
                                       size_t minRank = 2) {
  auto input = context.getShape(data), filter = context.getShape(weight);
  if (!input)
    return std::nullopt;
  if (input->size() < minRank || (filter && filter->size() != input->size())) {
    context.reject();
    return std::nullopt;
  }
  size_t rank = input->size() - 2;
  Shape kernel(rank, Dimension());
  if (filter)
    kernel.assign(filter->begin() + firstSpatial,
                  filter->begin() + firstSpatial + rank);
  auto window = getWindow(context, rank, kernel);
  if (!window)
    return std::nullopt;
  return Filter{*input, filter, *window};
}

std::optional<Shape> onnx::convolve(RuleContext &context, unsigned data,
                                    unsigned weight) {
  auto filter = getFilter(context, data, weight, /*firstSpatial=*/2);
  if (!filter)
    return std::nullopt;
  Shape result{filter->input[0], filter->getFirst()};
  for (size_t i = 0; i < filter->getRank(); ++i)
    result.push_back(slide(filter->window, i, filter->input[i + 2]));
  return result;
}

static void inferConv(RuleContext &context) {
  context.set(0, context.getElementType(0), convolve(context, 0, 1));
}

/// com.microsoft, with the channels last: x [N, spatial…, C], w [M, kernel…,
/// C].
static void inferNhwcConv(RuleContext &context) {
  auto filter = getFilter(context, 0, 1, /*firstSpatial=*/1, /*minRank=*/3);
  Type type = context.getElementType(0);
  if (!filter)
    return context.set(0, type);
  Shape result{filter->input[0]};
  for (size_t i = 0; i < filter->getRank(); ++i)
    result.push_back(slide(filter->window, i, filter->input[i + 1]));
  result.push_back(filter->getFirst());
  context.set(0, type, result);
}

/// Size along dimension `index` after the inverse of a convolution.
static Dimension unslide(const Window &window, size_t index,
                         const Dimension &size, int64_t outputPadding) {
  int64_t stride = window.strides[index];
  if (window.autoPad.starts_with("SAME"))
    return multiplyDimensions(size, fixed(stride));
  if (!size.isStatic() || !window.kernel[index].isStatic() ||
      size.size >= (int64_t(1) << 30))
    return {};
  int64_t reach = window.dilations[index] * (window.kernel[index].size - 1) + 1;
  int64_t result = stride * (size.size - 1) + outputPadding + reach;
  if (window.autoPad != "VALID")
    result -= window.pads[index] + window.pads[index + window.kernel.size()];
  return result >= 0 ? fixed(result) : Dimension();
}

static void inferConvTranspose(RuleContext &context) {
  auto filter = getFilter(context, 0, 1, /*firstSpatial=*/2);
  Type type = context.getElementType(0);
  if (!filter)
    return context.set(0, type);
  size_t rank = filter->getRank();
  auto sizes = context.getInts("output_shape");
  auto padding =
      context.getInts("output_padding").value_or(SmallVector<int64_t>(rank, 0));
  if (padding.size() != rank || !isSane(padding, 0))
    return context.reject();
  Dimension groups = fixed(context.getInt("group", 1));
  Shape result{filter->input[0],
               filter->filter ? multiplyDimensions((*filter->filter)[1], groups)
                              : Dimension()};
  // `output_shape` may list all dimensions or the spatial ones.
  if (sizes && (sizes->size() < rank || !isSane(*sizes, 0)))
    return context.reject();
  for (size_t i = 0; i < rank; ++i)
    result.push_back(
        sizes ? fixed((*sizes)[sizes->size() - rank + i])
              : unslide(filter->window, i, filter->input[i + 2], padding[i]));
  context.set(0, type, result);
}

//===----------------------------------------------------------------------===//
// Pools
//===----------------------------------------------------------------------===//

static void inferPool(RuleContext &context) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  Type indexType = Builder(context.getContext()).getI64Type();
  if (!shape) {
    context.set(0, type);
    return context.set(1, indexType);
  }
  if (shape->size() < 2)
    return context.reject();
  size_t rank = shape->size() - 2;
  auto window = getWindow(context, rank, Shape());
  if (!window)
    return;
  for (size_t i = 0; i < rank; ++i)
    (*shape)[i + 2] = slide(*window, i, (*shape)[i + 2]);
  context.set(0, type, shape);
  context.set(1, indexType, shape);
}

/// com.microsoft, with the channels in the second place or the last.
static void inferQLinearPool(RuleContext &context) {
  if (!context.getInt("channels_last", 0))
    return inferPool(context);
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  if (shape->size() < 3)
    return context.reject();
  auto window = getWindow(context, shape->size() - 2, Shape());
  if (!window)
    return;
  for (size_t i = 0; i + 2 < shape->size(); ++i)
    (*shape)[i + 1] = slide(*window, i, (*shape)[i + 1]);
  context.set(0, type, shape);
}

static void inferQLinearGlobalPool(RuleContext &context) {
  auto shape = context.getShape(0);
  if (shape && shape->size() < 3)
    return context.reject();
  size_t first = context.getInt("channels_last", 0) ? 1 : 2;
  if (shape)
    for (size_t i = 0; i + 2 < shape->size(); ++i)
      (*shape)[first + i] = fixed(1);
  context.set(0, context.getElementType(0), shape);
}

/// The elements of input `index` as sizes; a rejection where one is negative.
static std::optional<Shape> getSizes(RuleContext &context, unsigned index) {
  auto sizes = context.getValue(index);
  if (sizes)
    for (const Dimension &size : *sizes)
      if (size.isStatic() && size.size < 0)
        context.reject();
  return context.isRejected() ? std::nullopt : sizes;
}

/// The sizes of input 2 where they are given, else those that the window makes.
static void inferMaxUnpool(RuleContext &context) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  if (context.hasInput(2)) {
    auto sizes = getSizes(context, 2);
    return context.set(0, type,
                       sizes ? *sizes : Shape(shape->size(), Dimension()));
  }
  if (shape->size() < 3)
    return context.reject();
  auto window = getWindow(context, shape->size() - 2, Shape());
  if (!window)
    return;
  for (size_t i = 0; i + 2 < shape->size(); ++i)
    (*shape)[i + 2] = unslide(*window, i, (*shape)[i + 2], 0);
  context.set(0, type, shape);
}

static void inferGlobalPool(RuleContext &context) {
  auto shape = context.getShape(0);
  if (shape && shape->size() < 2)
    return context.reject();
  if (shape)
    for (Dimension &dimension : llvm::drop_begin(*shape, 2))
      dimension = fixed(1);
  context.set(0, context.getElementType(0), shape);
}

/// [regions, channels, output_height, output_width].
static void inferRoiAlign(RuleContext &context) {
  auto data = context.getShape(0), regions = context.getShape(1);
  context.set(
      0, context.getElementType(0),
      Shape{regions && !regions->empty() ? regions->front() : Dimension(),
            data && data->size() == 4 ? (*data)[1] : Dimension(),
            fixed(context.getInt("output_height", 1)),
            fixed(context.getInt("output_width", 1))});
}

/// X [N, C, …], grid [N, …, rank] → [N, C, the grid's spatial sizes].
static void inferGridSample(RuleContext &context) {
  auto data = context.getShape(0), grid = context.getShape(1);
  Type type = context.getElementType(0);
  if (!data || !grid)
    return context.set(0, type);
  if (data->size() < 3 || grid->size() != data->size())
    return context.reject();
  Shape result{(*data)[0], (*data)[1]};
  result.append(grid->begin() + 1, grid->end() - 1);
  context.set(0, type, result);
}

/// theta [N, rank, rank + 1], sizes → [N, spatial…, rank].
static void inferAffineGrid(RuleContext &context) {
  Type type = context.getElementType(0);
  auto sizes = getSizes(context, 1);
  if (!sizes || (sizes->size() != 4 && sizes->size() != 5))
    return context.set(0, type);
  Shape result{(*sizes)[0]};
  result.append(sizes->begin() + 2, sizes->end());
  result.push_back(fixed(sizes->size() - 2));
  context.set(0, type, result);
}

/// Columns [N, C · block, places], image sizes, block sizes → [N, C, image].
static void inferCol2Im(RuleContext &context) {
  auto shape = context.getShape(0), image = getSizes(context, 1);
  auto block = getSizes(context, 2);
  Type type = context.getElementType(0);
  if (!shape || !image || shape->size() != 3)
    return context.set(0, type);
  Dimension count = fixed(1);
  for (const Dimension &size : block ? *block : Shape(1, Dimension()))
    count = multiplyDimensions(count, size);
  Shape result{(*shape)[0], count.isStatic() && count.size > 0
                                ? divideDimensions((*shape)[1], count)
                                : Dimension()};
  result.append(*image);
  context.set(0, type, result);
}

static void inferNonMaxSuppression(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI64Type(),
              Shape{Dimension(), fixed(3)});
}

//===----------------------------------------------------------------------===//
// Resize
//===----------------------------------------------------------------------===//

/// floor(size × scale), computed in f32 as ONNX does.
static Dimension scaleDimension(const Dimension &size, float scale) {
  if (scale == 1.0f)
    return size;
  if (!size.isStatic() || !(scale > 0))
    return {};
  float scaled = std::floor(static_cast<float>(size.size) * scale);
  return scaled < 1e9f ? fixed(static_cast<int64_t>(scaled)) : Dimension();
}

static void resizeBy(RuleContext &context, std::optional<Shape> sizes,
                     std::optional<ArrayRef<float>> scales) {
  auto shape = context.getShape(0);
  Type type = context.getElementType(0);
  if (!shape)
    return context.set(0, type);
  auto axes = context.getInts("axes");
  if (!axes)
    axes = llvm::to_vector(llvm::seq<int64_t>(0, shape->size()));
  bool isStretch =
      context.getString("keep_aspect_ratio_policy", "stretch") == "stretch";
  if ((sizes && sizes->size() != axes->size()) ||
      (scales && scales->size() != axes->size()))
    return context.reject();
  for (auto [index, axis] : llvm::enumerate(*axes)) {
    auto position = normalizeAxis(axis, shape->size());
    if (!position)
      return context.reject();
    Dimension &dimension = (*shape)[*position];
    if (sizes && isStretch)
      dimension = (*sizes)[index];
    else if (scales)
      dimension = scaleDimension(dimension, (*scales)[index]);
    else
      dimension = Dimension();
  }
  context.set(0, type, shape);
}

static std::optional<ArrayRef<float>>
toArray(const std::optional<std::vector<float>> &floats) {
  if (!floats || floats->empty())
    return std::nullopt;
  return ArrayRef<float>(*floats);
}

/// Inputs: X, roi, scales, sizes.
static void inferResize(RuleContext &context) {
  auto scales = context.getFloats(2);
  auto sizes = context.getValue(3);
  resizeBy(context, sizes && !sizes->empty() ? sizes : std::nullopt,
           toArray(scales));
}

/// Inputs: X, scales (Resize of opset 10, Upsample of opset 9).
static void inferScale(RuleContext &context) {
  auto scales = context.getFloats(1);
  resizeBy(context, std::nullopt, toArray(scales));
}

static void inferOldUpsample(RuleContext &context) {
  auto scales = context.getFloatList("scales");
  if (!scales)
    return context.reject();
  resizeBy(context, std::nullopt, ArrayRef<float>(*scales));
}

void onnx::addConvolutionRules(ShapeRules &rules) {
  rules.add({"Conv", "DeformConv"}, inferConv);
  rules.add({"ConvTranspose"}, inferConvTranspose);
  rules.add({"AveragePool", "LpPool", "MaxPool"}, inferPool);
  rules.add({"GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"},
            inferGlobalPool);
  rules.add({"RoiAlign"}, inferRoiAlign);
  rules.add({"GridSample"}, inferGridSample);
  rules.add({"NonMaxSuppression"}, inferNonMaxSuppression);
  rules.add({"MaxUnpool"}, inferMaxUnpool);
  rules.add({"AffineGrid"}, inferAffineGrid);
  rules.add({"Col2Im"}, inferCol2Im);
  StringRef microsoft = "com.microsoft";
  rules.add(microsoft, "FusedConv", 1, inferConv);
  rules.add(microsoft, "NhwcConv", 1, inferNhwcConv);
  rules.add(microsoft, "GridSample", 1, inferGridSample);
  rules.add(microsoft, "QLinearAveragePool", 1, inferQLinearPool);
  rules.add(microsoft, "QLinearGlobalAveragePool", 1, inferQLinearGlobalPool);
  rules.add({"Resize"}, inferScale, 10);
  rules.add({"Resize"}, inferResize, 11);
  rules.add({"Upsample"}, inferOldUpsample);
  rules.add({"Upsample"}, inferScale, 9);
}
