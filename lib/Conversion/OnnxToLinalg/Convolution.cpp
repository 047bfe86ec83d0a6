//===- Convolution.cpp - Convolutions of one to any number of dimensions --===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A convolution is a linalg.generic over an input that is padded beforehand:
//
//   sum[n, g, m, o…] += x[n, g, c, o·stride + k·dilation…] · w[g, m, c, k…]
//
// without g where there is one group. The bias is what the sum starts with.
// Floats narrower than f32 are summed in f32, integers in i32. The loops are in
// the order n, g, m, o…, c, k…, o: along a row of the result no step depends on
// another.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// The loops
//===----------------------------------------------------------------------===//

namespace {
/// The tensors of a convolution.
struct Filter {
  /// [N, groups · C, spatial…], padded.
  Value data;
  Type dataElement;
  /// [groups · M, C, kernel…].
  Value weight;
  Type weightElement;
  int64_t groups;
  SmallVector<Window> windows;
  /// Numbers by output channel [groups · M], or null: what a sum starts with,
  /// and what `product` gets beside x and w.
  Value bias, extra;
  Type biasElement, extraElement;
};

/// The loops of a convolution of `rank` spatial dimensions.
struct ConvolutionLoops {
  ConvolutionLoops(int64_t rank, bool grouped) : rank(rank) {
    int64_t next = 0;
    n = next++;
    g = grouped ? next++ : -1;
    m = next++;
    for (int64_t i = 0; i + 1 < rank; ++i)
      outputs.push_back(next++);
    c = next++;
    for (int64_t i = 0; i < rank; ++i)
      kernel.push_back(next++);
    if (rank > 0)
      outputs.push_back(next++);
    count = next;
  }

  /// `first` and the group, where there is one, and `rest`.
  SmallVector<int64_t> list(ArrayRef<int64_t> first,
                            ArrayRef<int64_t> rest) const {
    SmallVector<int64_t> result(first);
    if (g >= 0)
      result.push_back(g);
    llvm::append_range(result, rest);
    return result;
  }

  int64_t rank, n, g, m, c, count;
  SmallVector<int64_t> outputs, kernel;
};
} // namespace

/// [groups · M] as [groups, M].
static Value splitChannels(NodeContext &context, Value tensor, int64_t axis,
                           int64_t groups) {
  if (groups == 1)
    return tensor;
  SizeMath math(context);
  OpFoldResult all = getSize(context.rewriter, context.loc, tensor, axis);
  OpFoldResult count = math.constant(groups);
  return splitDimension(context, tensor, axis,
                        {count, math.floorDiv(all, count)});
}

/// What the sums of `sizes`, [N, groups, M, …] or [N, M, …], start with.
static Value buildInitialSums(NodeContext &context, const Filter &filter,
                              ArrayRef<OpFoldResult> sizes, Type sumType) {
  if (!filter.bias)
    return buildFilled(context, sizes, context.scalar().constant(sumType, 0));
  SmallVector<int64_t> channel{1};
  if (filter.groups != 1)
    channel.push_back(2);
  Operand bias = makeOperand(
      context, splitChannels(context, filter.bias, 0, filter.groups),
      filter.biasElement, channel);
  return buildMapped(context, bias, sizes, sumType,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       return scalar.convert(args[0], filter.biasElement,
                                             sumType);
                     });
}

using Product = llvm::function_ref<Value(ScalarBuilder &, ValueRange)>;

/// Sums, of type `sumType`, of what `product` makes of x, w (and, where there
/// is one, the extra number), as [N, groups · M, output…].
static Value buildSums(NodeContext &context, const Filter &filter, Type sumType,
                       Product product) {
  int64_t rank = filter.windows.size();
  bool grouped = filter.groups != 1;
  ConvolutionLoops loops(rank, grouped);
  Value data = splitChannels(context, filter.data, 1, filter.groups);
  Value weight = splitChannels(context, filter.weight, 0, filter.groups);

  SmallVector<int64_t> dataLoops = loops.list(loops.n, loops.c);
  Operand x = makeOperand(context, data, filter.dataElement, dataLoops);
  for (auto [output, kernel, window] :
       llvm::zip(loops.outputs, loops.kernel, filter.windows))
    x.indices.push_back(
        context.rewriter.getAffineDimExpr(output) * window.stride +
        context.rewriter.getAffineDimExpr(kernel) * window.dilation);
  SmallVector<int64_t> weightLoops = loops.list({}, {loops.m, loops.c});
  llvm::append_range(weightLoops, loops.kernel);
  SmallVector<Operand> operands{
      x, makeOperand(context, weight, filter.weightElement, weightLoops)};
  if (filter.extra)
    operands.push_back(makeOperand(
        context, splitChannels(context, filter.extra, 0, filter.groups),
        filter.extraElement, loops.list({}, loops.m)));

  Sizes sizes{getSize(context.rewriter, context.loc, data, 0)};
  for (int64_t axis = 0; axis <= grouped; ++axis)
    sizes.push_back(getSize(context.rewriter, context.loc, weight, axis));
  for (const Window &window : filter.windows)
    sizes.push_back(window.count);
  Value initial = buildInitialSums(context, filter, sizes, sumType);
  SmallVector<int64_t> kept = loops.list(loops.n, loops.m);
  llvm::append_range(kept, loops.outputs);
  Value sums = buildFolded(context, operands, loops.count, kept, initial,
                           [&](ScalarBuilder &body, ValueRange args) {
                             return body.add(args.back(), product(body, args));
                           });
  return grouped ? mergeDimensions(context, sums, 1, 2) : sums;
}

static Value multiply(ScalarBuilder &scalar, ValueRange args) {
  return scalar.mul(args[0], args[1]);
}

//===----------------------------------------------------------------------===//
// Conv
//===----------------------------------------------------------------------===//

/// Sizes of the weight's dimensions from `first` on, or those that
/// kernel_shape states.
static FailureOr<Sizes> getKernel(NodeContext &context, Value weight,
                                  int64_t first) {
  Sizes kernel = context.getSizes(weight);
  kernel.erase(kernel.begin(), kernel.begin() + first);
  auto declared = context.node.getInts("kernel_shape");
  if (!declared)
    return kernel;
  if (declared->size() != kernel.size())
    return context.fail("kernel_shape has not the weight's dimensions");
  SizeMath math(context);
  for (auto [size, stated] : llvm::zip(kernel, *declared)) {
    if (failed(math.requireEqual(size, math.constant(stated),
                                 "kernel_shape is not the weight's")))
      return failure();
    size = math.constant(stated);
  }
  return kernel;
}

/// What Conv and its integer versions have in common: input `weight` over
/// input 0, [N, C, spatial…], which is padded with `padding` (null: zeros).
static FailureOr<Filter> getFilter(NodeContext &context, Value data,
                                   Type dataElement, Value weight,
                                   Type weightElement, Value padding) {
  int64_t rank = cast<RankedTensorType>(data.getType()).getRank();
  if (rank < 3 || cast<RankedTensorType>(weight.getType()).getRank() != rank)
    return context.fail("expects an input [N, C, spatial…] and a weight of "
                        "the same number of dimensions");
  Filter filter{data,
                dataElement,
                weight,
                weightElement,
                context.node.getInt("group", 1),
                {},
                {},
                {},
                {},
                {}};
  if (filter.groups < 1 || filter.groups >= int64_t(1) << 30)
    return context.fail("group must be positive");
  SizeMath math(context);
  Sizes sizes = context.getSizes(data), weightSizes = context.getSizes(weight);
  OpFoldResult groups = math.constant(filter.groups);
  FailureOr<Sizes> kernel = getKernel(context, weight, 2);
  if (failed(kernel) ||
      failed(math.requireEqual(
          sizes[1], math.mul(weightSizes[1], groups),
          "the input's channels are not those of the weight")) ||
      failed(math.requireEqual(
          math.mul(math.floorDiv(weightSizes[0], groups), groups),
          weightSizes[0], "the weight's channels are no multiple of group")))
    return failure();
  auto windows = getWindows(context, ArrayRef(sizes).drop_front(2), *kernel);
  if (failed(windows))
    return failure();
  filter.windows = *windows;
  if (!padding) {
    ScalarBuilder scalar = context.scalar();
    padding = scalar.encode(scalar.constant(getComputedType(dataElement), 0),
                            dataElement);
  }
  filter.data = padForWindows(context, data, filter.windows, 2, padding);
  return filter;
}

/// Adds input `input`, one number for each output channel, as the bias.
static LogicalResult setBias(NodeContext &context, Filter &filter,
                             unsigned input) {
  if (context.isAbsent(input))
    return success();
  RankedTensorType type = context.getInputType(input);
  if (type.getRank() != 1)
    return context.fail("expects a bias of one dimension");
  filter.bias = context.getInput(input);
  filter.biasElement = type.getElementType();
  SizeMath math(context);
  return math.requireEqual(
      getSize(context.rewriter, context.loc, filter.bias, 0),
      getSize(context.rewriter, context.loc, filter.weight, 0),
      "the bias has not one number for each output channel");
}

/// x with the elements `from` as one of `to`, rounded.
static Value buildRounded(NodeContext &context, Value x, Type from, Type to) {
  return from == to ? x : buildCast(context, x, from, to);
}

static LogicalResult convertConv(NodeContext &context) {
  Type element = context.getElementType(0), sum = getComputedType(element);
  auto filter = getFilter(context, context.getInput(0), element,
                          context.getInput(1), context.getElementType(1), {});
  if (failed(filter) || failed(setBias(context, *filter, 2)))
    return failure();
  Value sums = buildSums(context, *filter, sum, multiply);
  return context.replace(buildRounded(context, sums, sum, element));
}

//===----------------------------------------------------------------------===//
// FusedConv, NhwcConv (com.microsoft)
//===----------------------------------------------------------------------===//

static Value getParameter(ScalarBuilder &scalar, NodeOp node, unsigned index,
                          Type type, float value) {
  if (auto given = dyn_cast_if_present<DenseF32ArrayAttr>(
          node.getAttributeValue("activation_params"));
      given && index < given.size())
    value = given[index];
  return scalar.constant(type, value);
}

/// The function that FusedConv names in `activation`; null where it has none
/// that is known.
static Value buildActivation(ScalarBuilder &scalar, NodeOp node, Value x) {
  StringRef name = node.getString("activation", "");
  Type type = x.getType();
  auto parameter = [&](unsigned index, float value) {
    return getParameter(scalar, node, index, type, value);
  };
  Value zero = scalar.constant(type, 0), one = scalar.constant(type, 1);
  if (name.empty())
    return x;
  if (name == "Relu")
    return scalar.max(x, zero);
  if (name == "Tanh")
    return math::TanhOp::create(scalar.builder, scalar.loc, x);
  if (name == "Sigmoid")
    return scalar.div(
        one, scalar.add(one, math::ExpOp::create(scalar.builder, scalar.loc,
                                                 scalar.neg(x))));
  if (name == "LeakyRelu")
    return scalar.select(scalar.less(x, zero),
                         scalar.mul(x, parameter(0, 0.01f)), x);
  if (name == "Clip")
    return scalar.min(
        scalar.max(x, parameter(0, std::numeric_limits<float>::lowest())),
        parameter(1, std::numeric_limits<float>::max()));
  if (name == "HardSigmoid")
    return scalar.max(
        zero, scalar.min(one, scalar.add(scalar.mul(x, parameter(0, 0.2f)),
                                         parameter(1, 0.5f))));
  return {};
}

/// activation(conv(x, w) + b + z)
static LogicalResult convertFusedConv(NodeContext &context) {
  Type element = context.getElementType(0), sum = getComputedType(element);
  StringRef name = context.node.getString("activation", "");
  if (!llvm::is_contained(
          {"", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid"},
          name))
    return context.fail("has the unknown activation '" + name + "'");
  auto filter = getFilter(context, context.getInput(0), element,
                          context.getInput(1), context.getElementType(1), {});
  if (failed(filter) || failed(setBias(context, *filter, 2)))
    return failure();
  Value sums = buildSums(context, *filter, sum, multiply);
  SmallVector<Value> tensors{sums};
  SmallVector<RankedTensorType> types{cast<RankedTensorType>(sums.getType())};
  if (!context.isAbsent(3)) {
    tensors.push_back(context.getInput(3));
    types.push_back(context.getInputType(3));
  }
  return context.replace(
      buildBroadcast(context, tensors, types, element,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       Value x = args[0];
                       if (args.size() > 1)
                         x = scalar.add(x, args[1]);
                       return buildActivation(scalar, context.node, x);
                     }));
}

/// Conv with the channels last: x [N, spatial…, C], w [M, kernel…, C/groups].
static LogicalResult convertNhwcConv(NodeContext &context) {
  int64_t last = context.getInputType(0).getRank() - 1;
  if (last < 2 || context.getInputType(1).getRank() != last + 1)
    return context.fail("expects an input [N, spatial…, C] and a weight of "
                        "the same number of dimensions");
  Type element = context.getElementType(0), sum = getComputedType(element);
  auto filter =
      getFilter(context, moveDimension(context, context.getInput(0), last, 1),
                element, moveDimension(context, context.getInput(1), last, 1),
                context.getElementType(1), {});
  if (failed(filter) || failed(setBias(context, *filter, 2)))
    return failure();
  Value sums = buildSums(context, *filter, sum, multiply);
  sums = buildRounded(context, sums, sum, element);
  return context.replace(moveDimension(context, sums, 1, last));
}

//===----------------------------------------------------------------------===//
// ConvInteger, QLinearConv
//===----------------------------------------------------------------------===//

/// The one number of input `input` as it is stored; a zero where it is left
/// out.
static Value getStoredScalar(NodeContext &context, unsigned input,
                             Type element) {
  ScalarBuilder scalar = context.scalar();
  if (context.isAbsent(input))
    return scalar.integer(getStoredType(element), 0);
  Value tensor = context.getInput(input);
  SmallVector<Value> first(context.getInputType(input).getRank(),
                           scalar.index(0));
  return tensor::ExtractOp::create(context.rewriter, context.loc, tensor,
                                   first);
}

static bool hasOneElement(RankedTensorType type) {
  return type.hasStaticShape() && type.getNumElements() == 1;
}

/// Sums in i32 of (x - x's zero point) · (w - w's zero point). The input is
/// padded with its zero point.
static FailureOr<Value> buildIntegerSums(NodeContext &context, unsigned weight,
                                         unsigned dataZero, unsigned weightZero,
                                         std::optional<unsigned> bias) {
  Type dataElement = context.getElementType(0);
  Type weightElement = context.getElementType(weight);
  Type i32 = context.rewriter.getI32Type();
  if (!context.isAbsent(dataZero) &&
      !hasOneElement(context.getInputType(dataZero)))
    return context.fail("expects one zero point for the input");
  Value zero = getStoredScalar(context, dataZero, dataElement);
  auto filter = getFilter(context, context.getInput(0), dataElement,
                          context.getInput(weight), weightElement, zero);
  if (failed(filter) || (bias && failed(setBias(context, *filter, *bias))))
    return failure();
  ScalarBuilder outer = context.scalar();
  Value wideZero = outer.convert(zero, dataElement, i32), wideWeightZero;
  if (!context.isAbsent(weightZero)) {
    RankedTensorType type = context.getInputType(weightZero);
    if (hasOneElement(type)) {
      wideWeightZero =
          outer.convert(getStoredScalar(context, weightZero, weightElement),
                        weightElement, i32);
    } else {
      if (type.getRank() != 1)
        return context.fail("expects one zero point, or one for each output "
                            "channel");
      filter->extra = context.getInput(weightZero);
      filter->extraElement = weightElement;
      SizeMath math(context);
      if (failed(math.requireEqual(
              getSize(context.rewriter, context.loc, filter->extra, 0),
              getSize(context.rewriter, context.loc, filter->weight, 0),
              "there is not one zero point for each output channel")))
        return failure();
    }
  }
  return buildSums(
      context, *filter, i32, [&](ScalarBuilder &scalar, ValueRange args) {
        Value x =
            scalar.sub(scalar.convert(args[0], dataElement, i32), wideZero);
        Value w = scalar.convert(args[1], weightElement, i32);
        if (filter->extra)
          w = scalar.sub(w, scalar.convert(args[2], weightElement, i32));
        else if (wideWeightZero)
          w = scalar.sub(w, wideWeightZero);
        return scalar.mul(x, w);
      });
}

static LogicalResult convertConvInteger(NodeContext &context) {
  FailureOr<Value> sums =
      buildIntegerSums(context, 1, 2, 3, /*bias=*/std::nullopt);
  if (failed(sums))
    return failure();
  return context.replace(*sums);
}

/// saturate(round(sums · (x's scale · w's scale / y's scale)) + zero)
static LogicalResult convertQLinearConv(NodeContext &context) {
  FailureOr<Value> sums = buildIntegerSums(
      context, 3, 2, 5,
      context.isAbsent(8) ? std::nullopt : std::optional<unsigned>(8));
  if (failed(sums))
    return failure();
  Type i32 = context.rewriter.getI32Type(), f32 = context.rewriter.getF32Type();
  SmallVector<Operand> operands{makeOperand(context, *sums, i32)};
  for (unsigned input : {1u, 4u, 6u, 7u}) {
    RankedTensorType type = context.getInputType(input);
    bool perChannel = input == 4 && !hasOneElement(type);
    if (perChannel ? type.getRank() != 1 : !hasOneElement(type))
      return context.fail("expects one scale and zero point, or one scale for "
                          "each output channel of the weight");
    Operand operand{context.getInput(input), type.getElementType(), {}};
    operand.indices.assign(
        type.getRank(), perChannel ? context.rewriter.getAffineDimExpr(1)
                                   : context.rewriter.getAffineConstantExpr(0));
    operands.push_back(operand);
    SizeMath math(context);
    if (perChannel &&
        failed(math.requireEqual(
            getSize(context.rewriter, context.loc, operand.tensor, 0),
            getSize(context.rewriter, context.loc, *sums, 1),
            "there is not one scale for each output channel")))
      return failure();
  }
  Type element = context.getElementType(7);
  return context.replace(buildMapped(
      context, operands, context.getSizes(*sums), element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value scale = scalar.div(scalar.mul(args[1], args[2]), args[3]);
        Value quotient = scalar.mul(scalar.convert(args[0], i32, f32), scale);
        return buildLinearCode(scalar, quotient, args[4], element, element,
                               OutOfRange::Saturate);
      }));
}

//===----------------------------------------------------------------------===//
// ConvTranspose
//===----------------------------------------------------------------------===//

namespace {
/// What ConvTranspose does along one spatial dimension: it cuts `before`
/// elements off the full result, of which `count` stay.
struct TransposedWindow {
  OpFoldResult size, kernel;
  int64_t stride, dilation;
  OpFoldResult before, count;
};
} // namespace

/// The formulas of https://onnx.ai/onnx/operators/onnx__ConvTranspose.html.
static FailureOr<SmallVector<TransposedWindow>>
getTransposedWindows(NodeContext &context, ArrayRef<OpFoldResult> sizes,
                     ArrayRef<OpFoldResult> kernel) {
  int64_t rank = sizes.size();
  auto getList = [&](StringRef name, size_t count, int64_t value) {
    auto given = context.node.getInts(name);
    return given ? llvm::to_vector(*given) : SmallVector<int64_t>(count, value);
  };
  auto strides = getList("strides", rank, 1);
  auto dilations = getList("dilations", rank, 1);
  auto pads = getList("pads", 2 * rank, 0);
  auto outputPadding = getList("output_padding", rank, 0);
  auto outputShape = context.node.getInts("output_shape");
  auto isOutside = [](int64_t low) {
    return [low](int64_t x) { return x < low || x >= int64_t(1) << 30; };
  };
  if (static_cast<int64_t>(strides.size()) != rank ||
      static_cast<int64_t>(dilations.size()) != rank ||
      static_cast<int64_t>(pads.size()) != 2 * rank ||
      static_cast<int64_t>(outputPadding.size()) != rank ||
      (outputShape && static_cast<int64_t>(outputShape->size()) < rank) ||
      llvm::any_of(strides, isOutside(1)) ||
      llvm::any_of(dilations, isOutside(1)) ||
      llvm::any_of(outputPadding, isOutside(0)) ||
      llvm::any_of(pads, isOutside(-(int64_t(1) << 30))))
    return context.fail(
        "has attributes that do not fit the spatial dimensions");
  StringRef autoPad = context.node.getString("auto_pad", "NOTSET");

  SizeMath math(context);
  OpFoldResult one = math.constant(1), zero = math.constant(0);
  SmallVector<TransposedWindow> windows;
  for (int64_t i = 0; i < rank; ++i) {
    TransposedWindow window{sizes[i],     kernel[i], strides[i],
                            dilations[i], zero,      zero};
    OpFoldResult reach = math.add(
        math.mul(math.sub(kernel[i], one), math.constant(dilations[i])), one);
    // What all positions of the input reach, with the output padding.
    OpFoldResult stride = math.constant(strides[i]);
    OpFoldResult full =
        math.add(math.add(math.mul(math.sub(sizes[i], one), stride), reach),
                 math.constant(outputPadding[i]));
    std::optional<OpFoldResult> wanted;
    if (outputShape)
      wanted = math.constant((*outputShape)[outputShape->size() - rank + i]);
    else if (autoPad.starts_with("SAME"))
      wanted = math.mul(sizes[i], stride);
    if (wanted) {
      OpFoldResult total = math.max(math.sub(full, *wanted), zero);
      OpFoldResult half = math.floorDiv(total, math.constant(2));
      window.before = autoPad == "SAME_UPPER" ? half : math.sub(total, half);
      window.count = *wanted;
    } else if (autoPad == "VALID") {
      window.count = full;
    } else {
      window.before = math.constant(pads[i]);
      window.count = math.max(
          math.sub(full, math.constant(pads[i] + pads[i + rank])), zero);
    }
    windows.push_back(window);
  }
  return windows;
}

/// Windows that do not overlap: each position of the input makes the elements
/// of its own window, y[n, g, m, i…, k…] = x[n, g, c, i…] · w[g, c, m, k…].
static Value buildSeparateWindows(NodeContext &context, const Filter &filter,
                                  Type sumType) {
  int64_t rank = cast<RankedTensorType>(filter.data.getType()).getRank() - 2;
  bool grouped = filter.groups != 1;
  Value data = splitChannels(context, filter.data, 1, filter.groups);
  Value weight = splitChannels(context, filter.weight, 0, filter.groups);
  // Loops: n, g, m, (i, k)…, c, and the last position and kernel inside.
  int64_t next = 0;
  int64_t n = next++, g = grouped ? next++ : -1, m = next++;
  SmallVector<int64_t> places, kernel;
  for (int64_t i = 0; i + 1 < rank; ++i) {
    places.push_back(next++);
    kernel.push_back(next++);
  }
  int64_t c = next++;
  places.push_back(next++);
  kernel.push_back(next++);

  SmallVector<int64_t> xLoops{n}, wLoops, result{n};
  if (grouped) {
    xLoops.push_back(g);
    wLoops.push_back(g);
    result.push_back(g);
  }
  xLoops.push_back(c);
  llvm::append_range(xLoops, places);
  wLoops.append({c, m});
  llvm::append_range(wLoops, kernel);
  result.push_back(m);
  for (int64_t i = 0; i < rank; ++i)
    result.append({places[i], kernel[i]});

  Sizes dataSizes = context.getSizes(data);
  Sizes weightSizes = context.getSizes(weight), sizes{dataSizes[0]};
  if (grouped)
    sizes.push_back(dataSizes[1]);
  sizes.push_back(weightSizes[grouped + 1]);
  for (int64_t i = 0; i < rank; ++i)
    sizes.append({dataSizes[2 + grouped + i], weightSizes[2 + grouped + i]});
  Value initial = buildInitialSums(context, filter, sizes, sumType);
  Value sums = buildFolded(
      context,
      {makeOperand(context, data, filter.dataElement, xLoops),
       makeOperand(context, weight, filter.weightElement, wLoops)},
      next, result, initial, [&](ScalarBuilder &body, ValueRange args) {
        return body.add(args[2], body.mul(args[0], args[1]));
      });
  if (grouped)
    sums = mergeDimensions(context, sums, 1, 2);
  for (int64_t i = 0; i < rank; ++i)
    sums = mergeDimensions(context, sums, 2 + i, 2);
  return sums;
}

/// The weight [groups · C, M, kernel…] of a transposed convolution as that of
/// a convolution, [groups · M, C, kernel…] with the kernel reversed.
static Value buildReversedWeight(NodeContext &context, Value weight,
                                 int64_t groups) {
  SizeMath math(context);
  Sizes own = context.getSizes(weight);
  OpFoldResult count = math.constant(groups);
  OpFoldResult inputs = math.floorDiv(own[0], count), outputs = own[1];
  Sizes sizes(own);
  sizes[0] = math.mul(outputs, count);
  sizes[1] = inputs;
  return buildTensor(
      context.rewriter, context.loc, sizes,
      cast<RankedTensorType>(weight.getType()).getElementType(),
      [&](ScalarBuilder &scalar, ValueRange loops) -> Value {
        auto value = [&](OpFoldResult size) {
          return nibble::toValue(scalar.builder, scalar.loc, size);
        };
        Value group = arith::DivUIOp::create(scalar.builder, scalar.loc,
                                             loops[0], value(outputs));
        Value output = scalar.sub(loops[0], scalar.mul(group, value(outputs)));
        SmallVector<Value> source{
            scalar.add(scalar.mul(group, value(inputs)), loops[1]), output};
        for (size_t axis = 2; axis < own.size(); ++axis)
          source.push_back(scalar.sub(
              scalar.sub(value(own[axis]), scalar.index(1)), loops[axis]));
        return tensor::ExtractOp::create(scalar.builder, scalar.loc, weight,
                                         source);
      });
}

/// The input with `stride` - 1 zeros between its elements, shifted so that a
/// convolution of stride 1 gives the transposed one: element i lies at
/// i · stride + reach - 1 - before.
static FailureOr<Value> buildSpread(NodeContext &context, Value data,
                                    Type element,
                                    ArrayRef<TransposedWindow> windows) {
  SizeMath math(context);
  OpFoldResult one = math.constant(1), zero = math.constant(0);
  Sizes sizes = context.getSizes(data);
  int64_t rank = sizes.size();
  Sizes starts(rank, zero), counts(sizes), offsets(rank, zero),
      steps(rank, one);
  for (auto [i, window] : llvm::enumerate(windows)) {
    OpFoldResult reach = math.add(
        math.mul(math.sub(window.kernel, one), math.constant(window.dilation)),
        one);
    OpFoldResult stride = math.constant(window.stride);
    OpFoldResult length = math.sub(math.add(window.count, reach), one);
    OpFoldResult first = math.sub(math.sub(reach, one), window.before);
    // Elements in front of the first place that is kept are left out.
    OpFoldResult outside = math.max(math.sub(zero, first), zero);
    OpFoldResult skipped = math.floorDiv(
        math.add(outside, math.constant(window.stride - 1)), stride);
    skipped = math.min(skipped, window.size);
    OpFoldResult start = math.add(first, math.mul(skipped, stride));
    OpFoldResult room = math.max(
        math.sub(math.add(length, math.constant(window.stride - 1)), start),
        zero);
    OpFoldResult fits = math.floorDiv(room, stride);
    sizes[2 + i] = length;
    starts[2 + i] = skipped;
    counts[2 + i] =
        math.max(math.min(math.sub(window.size, skipped), fits), zero);
    offsets[2 + i] = math.min(math.max(start, zero), length);
    steps[2 + i] = stride;
  }
  ScalarBuilder scalar = context.scalar();
  Value number =
      scalar.encode(scalar.constant(getComputedType(element), 0), element);
  Value filled = buildFilled(context, sizes, number);
  Value kept = tensor::ExtractSliceOp::create(
      context.rewriter, context.loc, data, starts, counts, Sizes(rank, one));
  return tensor::InsertSliceOp::create(context.rewriter, context.loc, kept,
                                       filled, offsets, counts, steps)
      .getResult();
}

static bool isSeparate(const TransposedWindow &window) {
  auto count = getConstantIntValue(window.count);
  auto size = getConstantIntValue(window.size);
  return getConstantIntValue(window.kernel) == window.stride &&
         window.dilation == 1 && getConstantIntValue(window.before) == 0 &&
         (!count || !size || *count == *size * window.stride);
}

static LogicalResult convertConvTranspose(NodeContext &context) {
  Type element = context.getElementType(0), sum = getComputedType(element);
  Value data = context.getInput(0), weight = context.getInput(1);
  int64_t rank = context.getInputType(0).getRank();
  if (rank < 3 || context.getInputType(1).getRank() != rank)
    return context.fail("expects an input [N, C, spatial…] and a weight of "
                        "the same number of dimensions");
  Filter filter{data,
                element,
                weight,
                context.getElementType(1),
                context.node.getInt("group", 1),
                {},
                {},
                {},
                {},
                {}};
  if (filter.groups < 1 || filter.groups >= int64_t(1) << 30)
    return context.fail("group must be positive");
  SizeMath math(context);
  Sizes sizes = context.getSizes(data), weightSizes = context.getSizes(weight);
  OpFoldResult groups = math.constant(filter.groups);
  FailureOr<Sizes> kernel = getKernel(context, weight, 2);
  if (failed(kernel) ||
      failed(math.requireEqual(
          sizes[1], weightSizes[0],
          "the input's channels are not those of the weight")) ||
      failed(math.requireEqual(
          math.mul(math.floorDiv(weightSizes[0], groups), groups),
          weightSizes[0], "the weight's channels are no multiple of group")))
    return failure();
  auto windows =
      getTransposedWindows(context, ArrayRef(sizes).drop_front(2), *kernel);
  if (failed(windows))
    return failure();
  if (!context.isAbsent(2)) {
    filter.bias = context.getInput(2);
    filter.biasElement = context.getElementType(2);
    if (context.getInputType(2).getRank() != 1 ||
        failed(math.requireEqual(
            getSize(context.rewriter, context.loc, filter.bias, 0),
            math.mul(weightSizes[1], groups),
            "the bias has not one number for each output channel")))
      return context.fail("expects a bias of one dimension");
  }
  // Without pads, output padding and wanted shapes each window is its own.
  bool hasPads = llvm::any_of(*windows, [](const TransposedWindow &window) {
    return !isSeparate(window);
  });
  auto isGiven = [&](StringRef name) {
    auto given = context.node.getInts(name);
    return given && llvm::any_of(*given, [](int64_t x) { return x != 0; });
  };
  StringRef autoPad = context.node.getString("auto_pad", "NOTSET");
  if (!hasPads && !isGiven("output_padding") && !isGiven("output_shape") &&
      (!isGiven("pads") || autoPad != "NOTSET")) {
    Value sums = buildSeparateWindows(context, filter, sum);
    return context.replace(buildRounded(context, sums, sum, element));
  }
  for (const TransposedWindow &window : *windows)
    filter.windows.push_back({window.count, window.kernel, 1, window.dilation,
                              math.constant(0), math.constant(0),
                              math.constant(0), window.count});
  auto spread = buildSpread(context, data, element, *windows);
  if (failed(spread))
    return failure();
  filter.data = *spread;
  filter.weight = buildReversedWeight(context, weight, filter.groups);
  Value sums = buildSums(context, filter, sum, multiply);
  return context.replace(buildRounded(context, sums, sum, element));
}

void nibble::addConvolutionConversions(NodeConversions &conversions) {
  conversions.add("Conv", 1, convertConv);
  conversions.add("ConvTranspose", 1, convertConvTranspose);
  conversions.add("ConvInteger", 10, convertConvInteger);
  conversions.add("QLinearConv", 10, convertQLinearConv);
  conversions.add("com.microsoft", "FusedConv", 1, convertFusedConv);
  conversions.add("com.microsoft", "NhwcConv", 1, convertNhwcConv);
}
