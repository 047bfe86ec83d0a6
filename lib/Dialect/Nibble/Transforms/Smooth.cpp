//===- Smooth.cpp - --nibble-smooth ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Numerics/InputScaling.h"

#include "llvm/Support/FormatVariadic.h"

#include <cmath>

namespace nibble {
#define GEN_PASS_DEF_NIBBLESMOOTH
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Channels that calibration hardly saw count as this much of the largest: what
/// they are later should not grow beyond measure.
static constexpr double kLeastMaximum = 1e-4;

/// Makes the geometric mean of all factors 1, and those of tied channels equal.
static void balance(std::vector<float> &factors, ArrayRef<uint32_t> ties) {
  std::vector<double> logarithms(factors.size(), 0), counts(factors.size(), 0);
  double middle = 0;
  for (size_t i = 0; i < factors.size(); ++i) {
    double logarithm = std::log(static_cast<double>(factors[i]));
    logarithms[ties[i]] += logarithm;
    ++counts[ties[i]];
    middle += logarithm / static_cast<double>(factors.size());
  }
  for (size_t i = 0; i < factors.size(); ++i)
    factors[i] = static_cast<float>(
        std::exp(logarithms[ties[i]] / counts[ties[i]] - middle));
}

/// The length of the range of all channels, divided by factors, and 0.
static double getSpan(const ActivationRange &range, ArrayRef<float> factors) {
  double low = 0, high = 0;
  for (auto [least, largest, factor] :
       llvm::zip(range.min, range.max, factors)) {
    low = std::min(low, static_cast<double>(least / factor));
    high = std::max(high, static_cast<double>(largest / factor));
  }
  return high - low;
}

/// Σ w² over the weights of each channel.
static std::vector<double> getEnergies(ArrayRef<MatrixView> weights) {
  std::vector<double> energies(weights.front().rows, 0);
  for (const MatrixView &weight : weights)
    for (size_t k = 0; k < weight.rows; ++k)
      for (size_t n = 0; n < weight.cols; ++n)
        energies[k] += static_cast<double>(weight.at(k, n)) * weight.at(k, n);
  return energies;
}

/// The factors, and what rounding all channels to 256 codes of one scale does
/// to the outputs: Σ energy step².
static FailureOr<std::optional<FactorChoice>>
chooseSmoothing(InputGroup &group, const ChannelStatistics &statistics,
                double strength) {
  std::vector<std::vector<float>> storage;
  std::vector<MatrixView> weights;
  for (InputWeight &weight : group.weights) {
    ConstantOp constant = weight.getConstant();
    storage.push_back(*getFloats(getConstantValue(constant.getResult())));
    weights.push_back(viewMatrix(weight, storage.back()));
  }
  std::vector<float> maxima = statistics.getMaxima();
  float least = static_cast<float>(*llvm::max_element(maxima) * kLeastMaximum);
  for (float &maximum : maxima)
    maximum = std::max(maximum, least);
  auto scales = findSmoothQuantScales(maxima, weights, strength);
  if (!scales)
    return group.weights.front().product.emitError(
               "SmoothQuant of what reads '")
           << getValueName(group.value) << "': " << scales.error();
  FactorChoice choice;
  choice.factors = std::move(*scales);
  balance(choice.factors, statistics.ties);
  const ActivationRange &range = statistics.range;
  std::vector<float> ones(choice.factors.size(), 1);
  double before = getSpan(range, ones), after = getSpan(range, choice.factors);
  for (auto [energy, factor] :
       llvm::zip(getEnergies(weights), choice.factors)) {
    choice.noiseBefore += energy * before * before;
    choice.noiseAfter += energy * after * after * factor * factor;
  }
  choice.note =
      llvm::formatv("SmoothQuant: rounding the inputs makes {0:f2} times less "
                    "noise",
                    choice.noiseBefore / choice.noiseAfter);
  return std::optional(std::move(choice));
}

/// Notes what the products read for --nibble-quantize-activations.
static void noteRanges(ModuleOp module, const ActivationRanges &ranges) {
  module.walk([&](NodeOp node) {
    if (!isProduct(node) ||
        !getMatrixSource(node.getInputs()[1]).value.getDefiningOp<ConstantOp>())
      return;
    auto known = ranges.find(getValueName(node.getInputs()[0]));
    if (known == ranges.end())
      return;
    const ActivationRange &range = known->second;
    Builder builder(node.getContext());
    node->setAttr(kInputRangeAttrName,
                  builder.getF32ArrayAttr(
                      {std::min(*llvm::min_element(range.min), 0.0f),
                       std::max(*llvm::max_element(range.max), 0.0f)}));
  });
}

FailureOr<RescaleCounts> nibble::smoothInputs(ModuleOp module,
                                              ActivationRanges &ranges,
                                              double strength) {
  auto counts = rescaleInputs(
      module, ranges, [&](InputGroup &group, const ChannelStatistics &known) {
        return chooseSmoothing(group, known, strength);
      });
  if (succeeded(counts))
    noteRanges(module, ranges);
  return counts;
}

namespace {
struct Smooth : nibble::impl::NibbleSmoothBase<Smooth> {
  using NibbleSmoothBase::NibbleSmoothBase;

  void runOnOperation() override {
    auto ranges = readActivationRanges(rangesFile, &getContext());
    if (failed(ranges))
      return signalPassFailure();
    if (!(strength >= 0 && strength <= 1)) {
      emitError(UnknownLoc::get(&getContext()))
          << "strength is a number from 0 to 1";
      return signalPassFailure();
    }
    auto counts = smoothInputs(getOperation(), *ranges, strength);
    if (failed(counts))
      return signalPassFailure();
    numFolded += counts->folded;
    numInserted += counts->inserted;
    numLeft += counts->left;
  }
};
} // namespace
