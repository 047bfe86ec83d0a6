//===- Awq.cpp - --nibble-awq ---------------------------------------------===//
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

namespace nibble {
#define GEN_PASS_DEF_NIBBLEAWQ
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The factors that are best for the weights of the group that will be
/// quantized.
static FailureOr<std::optional<FactorChoice>>
chooseFactors(InputGroup &group, const ChannelStatistics &statistics,
              const AwqOptions &options) {
  std::vector<std::vector<float>> storage;
  std::vector<AwqWeight> weights;
  storage.reserve(group.weights.size());
  for (InputWeight &weight : group.weights) {
    ConstantOp constant = weight.getConstant();
    auto encoding = constant->getAttrOfType<QuantizedAttr>(kEncodingAttrName);
    if (!encoding)
      continue;
    if (getScheme(encoding).storage.bits < options.leastBits)
      return std::optional<FactorChoice>();
    storage.push_back(*getFloats(getConstantValue(constant.getResult())));
    weights.push_back(
        {viewMatrix(weight, storage.back()), getScheme(encoding)});
  }
  if (weights.empty())
    return std::optional<FactorChoice>();
  NodeOp product = group.weights.front().product;
  const ActivationRange &range = statistics.range;
  if (range.magnitude.empty() || range.variance.empty())
    return product.emitError("AWQ needs the magnitude and the variance of '")
           << getValueName(group.value) << "'";
  auto found = searchAwqScales(weights, statistics.getMagnitudes(),
                               statistics.getSquares(), options.threads);
  if (!found)
    return product.emitError("AWQ of what reads '")
           << getValueName(group.value) << "': " << found.error();
  FactorChoice choice;
  choice.factors = std::move(found->scales);
  choice.noiseBefore = found->lossBefore;
  choice.noiseAfter = found->lossAfter;
  choice.note = llvm::formatv(
      "AWQ: inputs divided by their mean magnitude to the power {0:f2}; the "
      "error of rounding is {1:f2} of what it was",
      found->exponent, found->lossAfter / found->lossBefore);
  return std::optional(std::move(choice));
}

FailureOr<RescaleCounts> nibble::applyAwq(ModuleOp module,
                                          ActivationRanges &ranges,
                                          const AwqOptions &options,
                                          FactorRecord &record) {
  auto choose = [&](InputGroup &group, const ChannelStatistics &statistics)
      -> FailureOr<std::optional<FactorChoice>> {
    std::string name = getValueName(group.value);
    if (auto known = record.find(name); known != record.end())
      return std::optional(known->second);
    auto choice = chooseFactors(group, statistics, options);
    if (succeeded(choice) && *choice)
      record[name] = **choice;
    return choice;
  };
  return rescaleInputs(module, ranges, choose);
}

namespace {
struct Awq : nibble::impl::NibbleAwqBase<Awq> {
  using NibbleAwqBase::NibbleAwqBase;

  void runOnOperation() override {
    auto ranges = readActivationRanges(rangesFile, &getContext());
    if (failed(ranges))
      return signalPassFailure();
    FactorRecord record;
    AwqOptions options;
    options.threads = threads;
    auto counts = applyAwq(getOperation(), *ranges, options, record);
    if (failed(counts))
      return signalPassFailure();
    numFolded += counts->folded;
    numInserted += counts->inserted;
    numLeft += counts->left;
  }
};
} // namespace
