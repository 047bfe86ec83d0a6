//===- MixedPrecision.cpp - Schemes within a budget -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "MixedPrecision.h"

#include "Session.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Evaluation/Sensitivity.h"
#include "nibble/Numerics/BudgetAllocation.h"
#include "nibble/Support/Progress.h"

#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace nibble;

/// What a budget chooses from: all that MatMulNBits holds without waste, from
/// few bits to many.
static constexpr const char *kCandidates[] = {
    "w2g128", "w2g64", "w2g32", "w4g128", "w4g64", "w4g32", "w8g128"};
/// Of a node and the names of its tensors in a file.
static constexpr uint64_t kNodeBytes = 512;
static constexpr size_t kCurvePoints = 60;

namespace {
class MixedPrecision {
public:
  MixedPrecision(ModuleOp module, const CalibrationData &data,
                 const QuantizeCommand &command, const Scheme &scheme,
                 uint64_t fileBytes)
      : module(module), data(data), command(command), scheme(scheme),
        fileBytes(fileBytes) {}
  FailureOr<BudgetReport> run();

private:
  LogicalResult measure();
  uint64_t countFixedBytes();
  std::optional<std::vector<size_t>> choose(const BudgetAllocation &allocation);
  BudgetPoint makePoint(const AllocationChoice &choice) const {
    return {8.0 * double(choice.bytes) / double(parameters), choice.loss, ""};
  }
  int refuse(const BudgetAllocation &allocation);

  ModuleOp module;
  const CalibrationData &data;
  const QuantizeCommand &command;
  const Scheme &scheme;
  uint64_t fileBytes;
  std::vector<Scheme> candidates;
  std::vector<WeightSensitivity> weights;
  uint64_t parameters = 0;
};
} // namespace

/// The encoding of `constant` by another scheme.
static QuantizedAttr getEncodingAs(onnx::ConstantOp constant,
                                   const Scheme &scheme) {
  Type element = cast<ShapedType>(constant.getType()).getElementType();
  return getEncoding(constant.getContext(), withScalesFor(scheme, element),
                     getChosenAxis(constant));
}

LogicalResult MixedPrecision::measure() {
  for (const char *name : kCandidates)
    candidates.push_back(*parseScheme(name));
  std::unique_ptr<Progress> progress;
  size_t total = 0;
  auto show = [&](StringRef item, size_t step, size_t steps) {
    if (!progress || steps != total)
      progress =
          std::make_unique<Progress>("measuring", steps - step, command.quiet);
    total = steps;
    progress->begin(item, 1);
  };
  SensitivityOptions options;
  options.candidates = candidates;
  options.threads = command.threads;
  options.progress = show;
  auto measured = measureSensitivities(module, data, options);
  if (failed(measured))
    return failure();
  for (WeightSensitivity &weight : *measured) {
    auto encoding =
        weight.constant->getAttrOfType<QuantizedAttr>(kEncodingAttrName);
    if (encoding != getEncodingAs(weight.constant, scheme))
      continue;
    parameters += cast<ShapedType>(weight.constant.getType()).getNumElements();
    weights.push_back(std::move(weight));
  }
  if (!weights.empty())
    return success();
  fail("there is no matrix for a budget to choose a scheme for; leave out "
       "--target-bpw, --target-size and --max-kl");
  return failure();
}

/// What the file holds beside the weights that the budget is for.
uint64_t MixedPrecision::countFixedBytes() {
  llvm::StringSet<> chosen;
  for (WeightSensitivity &weight : weights)
    chosen.insert(weight.constant.getName());
  uint64_t bytes = fileBytes;
  for (const PlannedWeight &weight : collectPlan(module).weights) {
    bytes += kNodeBytes;
    bytes -= std::min(bytes, weight.bytesBefore);
    bytes += chosen.contains(weight.name) ? 0 : weight.bytesAfter;
  }
  return bytes;
}

std::optional<std::vector<size_t>>
MixedPrecision::choose(const BudgetAllocation &allocation) {
  if (command.maxDivergence > 0)
    return allocation.allocateForLoss(command.maxDivergence);
  if (command.targetBits > 0)
    return allocation.allocateWithin(
        static_cast<uint64_t>(command.targetBits * double(parameters) / 8));
  uint64_t fixed = countFixedBytes();
  if (command.targetBytes < fixed)
    return std::nullopt;
  return allocation.allocateWithin(command.targetBytes - fixed);
}

int MixedPrecision::refuse(const BudgetAllocation &allocation) {
  std::vector<AllocationChoice> curve = allocation.getCurve(kCurvePoints);
  if (command.maxDivergence > 0)
    return fail(llvm::formatv("even {0:f2} bits a weight are predicted to "
                              "diverge by {1:f4}, more than --max-kl {2}",
                              makePoint(curve.back()).bitsPerWeight,
                              curve.back().loss, command.maxDivergence)
                    .str());
  if (command.targetBits > 0)
    return fail(llvm::formatv("--target-bpw {0} is less than the {1:f2} bits a "
                              "weight that the smallest schemes take",
                              command.targetBits,
                              makePoint(curve.front()).bitsPerWeight)
                    .str());
  return fail("--target-size " + formatBytes(command.targetBytes) +
              " is less than what the smallest schemes and the rest of the "
              "model take together, " +
              formatBytes(countFixedBytes() + curve.front().bytes) +
              "; quantize more of it, for example by --embedding w8g32");
}

FailureOr<BudgetReport> MixedPrecision::run() {
  if (command.maxDivergence > 0 && !hasDistributions(module)) {
    fail("--max-kl is for a model that gives logits or probabilities; use "
         "--target-bpw or --target-size");
    return failure();
  }
  if (failed(measure()))
    return failure();
  std::vector<std::vector<AllocationChoice>> choices;
  for (const WeightSensitivity &weight : weights) {
    std::vector<AllocationChoice> &list = choices.emplace_back();
    for (auto [bytes, loss] : llvm::zip(weight.bytes, weight.losses))
      list.push_back({bytes, loss});
  }
  BudgetAllocation allocation(std::move(choices));
  auto chosen = choose(allocation);
  if (!chosen) {
    refuse(allocation);
    return failure();
  }
  BudgetReport report;
  for (const AllocationChoice &point : allocation.getCurve(kCurvePoints))
    report.curve.push_back(makePoint(point));
  for (size_t i = 0; i < candidates.size(); ++i) {
    report.uniform.push_back(
        makePoint(allocation.evaluate(std::vector<size_t>(weights.size(), i))));
    report.uniform.back().label = kCandidates[i];
  }
  report.chosen = makePoint(allocation.evaluate(*chosen));
  for (auto [weight, index] : llvm::zip(weights, *chosen))
    weight.constant->setAttr(kEncodingAttrName,
                             getEncodingAs(weight.constant, candidates[index]));
  return report;
}

FailureOr<BudgetReport>
nibble::assignWithinBudget(ModuleOp module, const CalibrationData &data,
                           const QuantizeCommand &command, const Scheme &scheme,
                           uint64_t fileBytes) {
  return MixedPrecision(module, data, command, scheme, fileBytes).run();
}
