//===- EqualizeActivations.cpp - --nibble-equalize-activations ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/ActivationRanges.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"
#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/Utils/Affine.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "mlir/IR/BuiltinOps.h"

#include <cmath>

namespace nibble {
#define GEN_PASS_DEF_NIBBLEEQUALIZEACTIVATIONS
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The codes of an activation are u8: this many steps.
static constexpr double kSteps = 255;
/// An output whose signal is less than so many decibels above the noise of its
/// codes stays in float.
static constexpr double kLeastSignal = 32;

namespace {

/// A range that contains 0.
struct Range {
  double low = 0, high = 0;
  double getStep() const { return (high - low) / kSteps; }
  void include(double a, double b) {
    low = std::min(low, a);
    high = std::max(high, b);
  }
};

/// The codes of an output, each channel by itself.
struct OutputLevels {
  Range whole;
  Factors steps, zeros;
};

/// Equalizes one graph.
class Equalizer {
public:
  Equalizer(func::FuncOp graph, const ActivationRanges &ranges)
      : graph(graph), ranges(ranges), names(graph) {}
  EqualizedCounts run();

private:
  void equalize(NodeOp node);
  void equalizeConvolution(Filter &filter, const ActivationRange &input,
                           const ActivationRange &output);
  void noteInput(NodeOp node, const ActivationRange &input);
  Factors chooseFactors(Filter &filter, const ActivationRange &range);
  Range divideInput(Filter &filter, const ActivationRange &range,
                    const Factors &factors);
  void levelOutput(Filter &filter, const OutputLevels &levels);

  func::FuncOp graph;
  const ActivationRanges &ranges;
  ValueNames names;
  EqualizedCounts counts;
};

} // namespace

//===----------------------------------------------------------------------===//
// Which convolutions
//===----------------------------------------------------------------------===//

/// A convolution over single positions: its weights cost more than its
/// activations, and nothing is won by integers.
static bool isVector(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.getRank() > 2 &&
         llvm::all_of(type.getShape().drop_front(2),
                      [](int64_t extent) { return extent == 1; });
}

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

/// Numbers to divide the channels of an input by, so that they and the weights
/// share the burden: s = sqrt(max|x| / max|w|), as in SmoothQuant
/// (arXiv:2211.10438) with alpha 1/2. Where each channel has a filter of its
/// own that has a scale of its own, s = max|x|. {1} where it is not worthwhile.
Factors Equalizer::chooseFactors(Filter &filter, const ActivationRange &range) {
  size_t inputs = filter.getInputs();
  bool depthwise =
      filter.groups == inputs && filter.groups == filter.getOutputs();
  if (range.min.size() != inputs || (filter.groups != 1 && !depthwise) ||
      inputs == 1)
    return {1};
  Factors largest(inputs, 0), energy(inputs, 0);
  filter.forEach([&](size_t, size_t input, double &weight) {
    largest[input] = std::max(largest[input], std::abs(weight));
    energy[input] += weight * weight;
  });
  Factors magnitude(inputs);
  for (size_t i = 0; i < inputs; ++i)
    magnitude[i] = std::max(std::abs(range.min[i]), std::abs(range.max[i]));
  constexpr double least = 1e-4;
  double top = *llvm::max_element(magnitude);
  double topWeight = *llvm::max_element(largest);
  if (!(top > 0) || !(topWeight > 0))
    return {1};
  Factors factors(inputs);
  double logarithms = 0;
  for (size_t i = 0; i < inputs; ++i) {
    double x = std::max(magnitude[i], least * top);
    double w = std::max(largest[i], least * topWeight);
    factors[i] = depthwise ? x : std::sqrt(x / w);
    logarithms += std::log(factors[i]);
  }
  double middle = std::exp(logarithms / static_cast<double>(inputs));
  Range before, after;
  for (size_t i = 0; i < inputs; ++i) {
    factors[i] /= middle;
    before.include(range.min[i], range.max[i]);
    after.include(range.min[i] / factors[i], range.max[i] / factors[i]);
  }
  // What a rounding error of half a step does to the outputs.
  double noiseBefore = 0, noiseAfter = 0;
  for (size_t i = 0; i < inputs; ++i) {
    double step = after.getStep() * factors[i];
    noiseBefore += energy[i] * before.getStep() * before.getStep();
    noiseAfter += energy[i] * step * step;
  }
  return noiseBefore > kWorthwhile * noiseAfter ? factors : Factors{1};
}

/// Divides the constants of what made `value`, a product and perhaps a sum that
/// nobody else reads. False where it was made otherwise.
static bool divideProducer(Value value, const Factors &factors) {
  NodeOp last = getOnlyProducer(value), sum, product;
  auto affine = last ? readAffine(last) : std::nullopt;
  if (affine && last.isOnnx("Add")) {
    sum = last;
    last = getOnlyProducer(affine->data);
    affine = last ? readAffine(last) : std::nullopt;
  }
  if (affine && last.isOnnx("Mul"))
    product = last;
  if (!product)
    return false;
  for (NodeOp node : {product, sum}) {
    if (!node)
      continue;
    Affine old = *readAffine(node);
    OpBuilder builder(node);
    std::string name = node.getOutputName(0).str() + "_equalized";
    Factors constant = combine(node == product ? old.scale : old.shift, factors,
                               std::divides<>());
    Value divided =
        makeFactors(builder, name, getFloatTensor(old.data), constant);
    unsigned operand = node.getInputs()[0] == old.data ? 1 : 0;
    Value replaced = node.getInputs()[operand];
    node.getInputsMutable()[operand].set(divided);
    if (replaced.use_empty())
      replaced.getDefiningOp()->erase();
  }
  return true;
}

/// Divides the input's channels and multiplies the weights; the new range.
Range Equalizer::divideInput(Filter &filter, const ActivationRange &range,
                             const Factors &factors) {
  Range result;
  for (size_t i = 0; i < range.min.size(); ++i)
    result.include(range.min[i] / getFactor(factors, i),
                   range.max[i] / getFactor(factors, i));
  if (factors.size() == 1)
    return result;
  ++counts.inputs;
  filter.forEach(
      [&](size_t, size_t input, double &weight) { weight *= factors[input]; });
  NodeOp node = filter.node;
  Value input = node.getInputs()[0];
  if (divideProducer(input, factors))
    return result;
  OpBuilder builder(node);
  std::string name = node.getOutputName(0).str() + "_input";
  Factors inverse = combine({1}, factors, std::divides<>());
  std::vector<float> numbers(inverse.begin(), inverse.end());
  SmallVector<int64_t> shape{static_cast<int64_t>(numbers.size())};
  shape.append(getFloatTensor(input).getRank() - 2, 1);
  Value constant = makeFloats(builder, name + "_factors", shape, numbers);
  NodeOp divided =
      makeNode(builder, "Mul", name, {input, constant}, input.getType());
  node.getInputsMutable()[0].set(divided.getResult(0));
  return result;
}

//===----------------------------------------------------------------------===//
// Outputs
//===----------------------------------------------------------------------===//

/// The only reader of `value` if it is a Relu.
static NodeOp getOnlyRelu(Value value) {
  auto node = value.hasOneUse() ? dyn_cast<NodeOp>(*value.getUsers().begin())
                                : NodeOp();
  return node && node.isOnnx("Relu") ? node : NodeOp();
}

static ArrayAttr makeRange(Builder &builder, double low, double high) {
  return builder.getF32ArrayAttr(
      {static_cast<float>(low), static_cast<float>(high)});
}

static OutputLevels getOutputLevels(NodeOp node, const ActivationRange &range) {
  bool positive = static_cast<bool>(getOnlyRelu(node.getResult(0)));
  OutputLevels levels;
  SmallVector<Range> channels(range.min.size());
  for (auto [channel, low, high] : llvm::zip(channels, range.min, range.max)) {
    channel.include(positive ? 0 : low, high);
    levels.whole.include(channel.low, channel.high);
  }
  for (const Range &channel : channels) {
    // A channel that is always 0 may have any step.
    double step =
        std::max({channel.getStep(), 1e-4 * levels.whole.getStep(), 1e-30});
    levels.steps.push_back(step);
    levels.zeros.push_back(std::nearbyint(-channel.low / step));
  }
  return levels;
}

/// True where codes of 8 bits are too few for an output: rounding to a step
/// makes noise of step² / 12.
static bool isTooCoarse(const OutputLevels &levels,
                        const ActivationRange &range) {
  double signal = 0, noise = 0;
  for (auto [variance, step] : llvm::zip(range.variance, levels.steps)) {
    signal += variance;
    noise += step * step / 12;
  }
  return !range.variance.empty() &&
         signal < noise * std::pow(10, kLeastSignal / 10);
}

/// Gives every channel of a convolution's output all 256 codes: the filters and
/// biases give y / step + zero point, and a product and a sum behind give y.
void Equalizer::levelOutput(Filter &filter, const OutputLevels &levels) {
  NodeOp node = filter.node;
  OpBuilder builder(node.getContext());
  const Factors &steps = levels.steps, &zeros = levels.zeros;
  double gain = 0;
  for (double step : steps) {
    double ratio = levels.whole.getStep() / step;
    gain += ratio * ratio / static_cast<double>(steps.size());
  }
  if (gain <= kWorthwhile) {
    node->setAttr(kOutputRangeAttrName,
                  makeRange(builder, levels.whole.low, levels.whole.high));
    return;
  }
  ++counts.outputs;
  bool sameZero = llvm::all_equal(zeros);
  double common = sameZero ? zeros.front() : std::nearbyint(kSteps / 2);
  filter.forEach(
      [&](size_t output, size_t, double &weight) { weight /= steps[output]; });
  Factors shift(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    filter.bias[i] = filter.bias[i] / steps[i] + zeros[i] - common;
    shift[i] = (common - zeros[i]) * steps[i];
  }
  node->setAttr(kOutputRangeAttrName,
                makeRange(builder, -common, kSteps - common));
  std::string name = node.getOutputName(0).str();
  node.setOutputsAttr(builder.getStrArrayAttr({name + "_levels"}));
  builder.setInsertionPointAfter(node);
  Value result = node.getResult(0);
  auto type = getFloatTensor(result);
  NodeOp scaled = makeNode(
      builder, "Mul", sameZero ? name : name + "_unshifted",
      {result, makeFactors(builder, name + "_step", type, steps)}, type);
  NodeOp last = scaled;
  if (!sameZero)
    last = makeNode(builder, "Add", name,
                    {scaled.getResult(0),
                     makeFactors(builder, name + "_offset", type, shift)},
                    type);
  result.replaceAllUsesExcept(last.getResult(0), scaled);
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// Notes what the outputs are on average, to compare rounded weights with.
static void noteMeans(Filter &filter, const ActivationRange &range,
                      const Factors &factors) {
  if (range.mean.size() != filter.getInputs())
    return;
  std::vector<float> means(filter.getInputs());
  for (size_t i = 0; i < means.size(); ++i)
    means[i] = static_cast<float>(range.mean[i] / getFactor(factors, i));
  Factors expected(filter.getOutputs(), 0);
  filter.forEach([&](size_t output, size_t input, double &weight) {
    expected[output] += weight * means[input];
  });
  std::vector<float> sums(expected.begin(), expected.end());
  Builder builder(filter.node.getContext());
  filter.node->setAttr(kInputMeansAttrName,
                       builder.getDenseF32ArrayAttr(means));
  filter.node->setAttr(kMeanProductsAttrName,
                       builder.getDenseF32ArrayAttr(sums));
}

void Equalizer::equalizeConvolution(Filter &filter,
                                    const ActivationRange &input,
                                    const ActivationRange &output) {
  NodeOp node = filter.node;
  OutputLevels levels = getOutputLevels(node, output);
  bool fits = output.min.size() == filter.getOutputs() &&
              input.min.size() == filter.getInputs();
  Factors factors{1};
  if (fits && !isVector(node.getInputs()[0]) && levels.whole.getStep() > 0 &&
      !isTooCoarse(levels, output)) {
    factors = chooseFactors(filter, input);
    Range range = divideInput(filter, input, factors);
    Builder builder(node.getContext());
    node->setAttr(kInputRangeAttrName,
                  makeRange(builder, range.low, range.high));
    levelOutput(filter, levels);
  }
  noteMeans(filter, input, factors);
  filter.write();
}

/// What a matrix product reads, if --nibble-smooth has not noted it.
void Equalizer::noteInput(NodeOp node, const ActivationRange &input) {
  if (node->hasAttr(kInputRangeAttrName))
    return;
  Range range;
  for (auto [low, high] : llvm::zip(input.min, input.max))
    range.include(low, high);
  Builder builder(node.getContext());
  node->setAttr(kInputRangeAttrName, makeRange(builder, range.low, range.high));
}

void Equalizer::equalize(NodeOp node) {
  bool isMatrix = isProduct(node);
  if (!isMatrix && !node.isOnnx("Conv"))
    return;
  auto input = ranges.find(names.lookup(node.getInputs()[0]));
  if (input == ranges.end())
    return;
  if (isMatrix)
    return noteInput(node, input->second);
  auto filter = Filter::read(node);
  auto output = ranges.find(node.getOutputName(0));
  if (filter && output != ranges.end())
    equalizeConvolution(*filter, input->second, output->second);
}

EqualizedCounts Equalizer::run() {
  SmallVector<NodeOp> nodes;
  graph.walk([&](NodeOp node) { nodes.push_back(node); });
  for (NodeOp node : nodes)
    equalize(node);
  return counts;
}

EqualizedCounts nibble::equalizeActivations(ModuleOp module,
                                            const ActivationRanges &ranges) {
  EqualizedCounts total;
  for (auto graph : module.getOps<func::FuncOp>()) {
    if (graph.isExternal())
      continue;
    EqualizedCounts counts = Equalizer(graph, ranges).run();
    total.inputs += counts.inputs;
    total.outputs += counts.outputs;
  }
  requireFreeInitializers(module);
  return total;
}

namespace {
struct EqualizeActivations
    : nibble::impl::NibbleEqualizeActivationsBase<EqualizeActivations> {
  using NibbleEqualizeActivationsBase::NibbleEqualizeActivationsBase;

  void runOnOperation() override {
    auto ranges = readActivationRanges(rangesFile, &getContext());
    if (failed(ranges))
      return signalPassFailure();
    EqualizedCounts counts = equalizeActivations(getOperation(), *ranges);
    numInputs += counts.inputs;
    numOutputs += counts.outputs;
  }
};
} // namespace
