//===- QuantizationReport.cpp - What a quantization did -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Report/QuantizationReport.h"

#include "nibble/Support/Progress.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>

using namespace nibble;
using llvm::formatv;

/// How many of the most harmed weights a terminal shows.
static constexpr size_t kShown = 5;
/// How many times the error on the calibration data another one may be before
/// it is called overfitting.
static constexpr double kOverfit = 2;

//===----------------------------------------------------------------------===//
// Harm
//===----------------------------------------------------------------------===//

double nibble::getError(const PlannedWeight &weight) {
  if (weight.heldOutError)
    return *weight.heldOutError;
  if (weight.outputError)
    return *weight.outputError;
  return std::pow(10.0, -weight.sqnr.value_or(0) / 10);
}

static std::string suggestCure(const PlannedWeight &weight) {
  if (weight.heldOutError && weight.outputError &&
      *weight.heldOutError > kOverfit * *weight.outputError)
    return formatv("more calibration samples: its error is {0:f1} times as "
                   "large on data that calibration has not seen",
                   *weight.heldOutError / *weight.outputError);
  auto rule = [&](const llvm::Twine &scheme) {
    return ("--rule '" + weight.name + "=" + scheme + "'").str();
  };
  if (!weight.isMatrix)
    return weight.bits < 8 ? rule("w8cs") : "--keep '" + weight.name + "'";
  if (weight.bits >= 8 && weight.groupSize > 0 && weight.groupSize <= 32)
    return "--keep '" + weight.name + "'";
  if (weight.bits >= 8 || weight.bits == 4)
    return rule(llvm::Twine("w") +
                (weight.groupSize == 0 || weight.groupSize > 32
                     ? llvm::Twine(weight.bits)
                     : llvm::Twine(8)) +
                "g32");
  return rule(weight.bits < 4 ? "w4g32" : "w8g32");
}

std::vector<HarmedWeight> nibble::rankByHarm(const QuantizationPlan &plan) {
  std::vector<HarmedWeight> ranked;
  ranked.reserve(plan.weights.size());
  for (const PlannedWeight &weight : plan.weights)
    ranked.push_back({&weight, suggestCure(weight)});
  llvm::sort(ranked, [](const HarmedWeight &a, const HarmedWeight &b) {
    double left = getError(*a.weight), right = getError(*b.weight);
    return left > right || (left == right && a.weight->name < b.weight->name);
  });
  return ranked;
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

static void printWeights(const QuantizationReport &report,
                         llvm::raw_ostream &os) {
  uint64_t parameters = 0;
  double signal = 0;
  for (const PlannedWeight &weight : report.plan.weights) {
    parameters += weight.parameters;
    signal += weight.sqnr.value_or(0) * double(weight.parameters);
  }
  const ModelReport &before = report.weightsBefore;
  os << formatv("{0} weights quantized, {1} of {2} parameters\n",
                report.plan.weights.size(), parameters, before.parameters);
  os << formatv("all weights: {0} -> {1}, {2:f2} -> {3:f2} bits each\n",
                formatBytes(before.weightBytes),
                formatBytes(report.weightsAfter.weightBytes),
                before.bitsPerWeight(),
                8.0 * double(report.weightsAfter.weightBytes) /
                    double(before.parameters));
  auto worst = llvm::min_element(
      report.plan.weights, [](const PlannedWeight &a, const PlannedWeight &b) {
        return a.sqnr.value_or(0) < b.sqnr.value_or(0);
      });
  os << formatv("signal to noise: {0:f1} dB on average, least {1:f1} dB in "
                "{2}\n",
                signal / double(parameters), worst->sqnr.value_or(0),
                worst->name);
}

static void printOutput(const OutputReport &output, llvm::raw_ostream &os) {
  const OutputQuality &quality = output.quality;
  os << formatv("  {0}: cosine {1:f5}, signal to noise {2:f1} dB", output.name,
                quality.cosine, quality.sqnr);
  if (auto &divergence = quality.divergence)
    os << formatv("; KL {0:f4} +- {1:f4} (99 % below {2:f3}, largest {3:f2}), "
                  "top-1 agreement {4:P1}",
                  divergence->mean.mean, divergence->mean.error,
                  divergence->percentile99, divergence->max,
                  divergence->topAgreement);
  if (auto &perplexity = quality.perplexity)
    os << formatv("; perplexity {0:f2} +- {1:f2} -> {2:f2} +- {3:f2}",
                  perplexity->reference.mean, perplexity->reference.error,
                  perplexity->other.mean, perplexity->other.error);
  os << formatv(" ({0} rows)\n", quality.rows);
}

static void printHarm(const QuantizationReport &report, llvm::raw_ostream &os) {
  std::vector<HarmedWeight> measured = rankByHarm(report.plan);
  llvm::erase_if(measured, [](const HarmedWeight &harmed) {
    return !harmed.weight->heldOutError && !harmed.weight->outputError;
  });
  if (measured.empty())
    return;
  auto show = [](std::optional<double> error) {
    return error ? formatv("{0:P2}", *error).str() : std::string("-");
  };
  os << formatv("{0,-46} {1,9} {2,9}  {3}\n", "most harmed weights", "held out",
                "calib.", "what may help");
  if (measured.size() > kShown)
    measured.resize(kShown);
  for (const HarmedWeight &harmed : measured)
    os << formatv("{0,-46} {1,9} {2,9}  {3}\n", harmed.weight->name,
                  show(harmed.weight->heldOutError),
                  show(harmed.weight->outputError), harmed.cure);
}

void nibble::printText(const QuantizationReport &report,
                       llvm::raw_ostream &os) {
  printWeights(report, os);
  if (report.budget)
    os << formatv("budget: {0:f2} bits a weight, predicted loss {1:f4}\n",
                  report.budget->chosen.bitsPerWeight,
                  report.budget->chosen.loss);
  if (!report.inlined.empty())
    os << "local functions that read weights are part of the graph now: "
       << llvm::join(report.inlined, ", ") << "\n";
  if (!report.calibratedOn.empty())
    os << "calibrated on " << report.calibratedOn << "\n";
  if (!report.evaluatedOn.empty())
    os << "outputs beside the float model's, on " << report.evaluatedOn
       << ":\n";
  for (const OutputReport &output : report.outputs)
    printOutput(output, os);
  printHarm(report, os);
  // One line for each reason, not for each node.
  std::map<std::string, unsigned> reasons;
  for (const KeptNode &kept : report.plan.kept)
    ++reasons[kept.opType + ": " + kept.why];
  for (auto &[reason, count] : reasons)
    os << "kept in float: " << count << " " << reason << "\n";
  os << formatv("{0}: {1} -> {2}: {3} ({4:P1})\n", report.input,
                formatBytes(report.bytesBefore), report.output,
                formatBytes(report.bytesAfter),
                double(report.bytesAfter) / double(report.bytesBefore));
}

//===----------------------------------------------------------------------===//
// JSON
//===----------------------------------------------------------------------===//

/// JSON has no infinity.
static llvm::json::Value makeNumber(double value) {
  return std::isfinite(value) ? llvm::json::Value(value)
                              : llvm::json::Value(nullptr);
}

static llvm::json::Object makeObject(const MeanWithError &value) {
  return llvm::json::Object{{"mean", makeNumber(value.mean)},
                            {"standard_error", makeNumber(value.error)}};
}

static llvm::json::Object makeObject(const OutputReport &output) {
  const OutputQuality &quality = output.quality;
  llvm::json::Object object{{"name", output.name},
                            {"rows", quality.rows},
                            {"cosine", makeNumber(quality.cosine)},
                            {"sqnr_db", makeNumber(quality.sqnr)}};
  if (auto &divergence = quality.divergence)
    object["kl"] = llvm::json::Object{
        {"mean", makeNumber(divergence->mean.mean)},
        {"standard_error", makeNumber(divergence->mean.error)},
        {"p99", makeNumber(divergence->percentile99)},
        {"max", makeNumber(divergence->max)},
        {"top1_agreement", divergence->topAgreement}};
  if (auto &perplexity = quality.perplexity)
    object["perplexity"] =
        llvm::json::Object{{"float", makeObject(perplexity->reference)},
                           {"quantized", makeObject(perplexity->other)}};
  return object;
}

static llvm::json::Object makeObject(const BudgetPoint &point) {
  llvm::json::Object object{{"bits_per_weight", point.bitsPerWeight},
                            {"predicted_loss", makeNumber(point.loss)}};
  if (!point.label.empty())
    object["scheme"] = point.label;
  return object;
}

static llvm::json::Array makeArray(const std::vector<BudgetPoint> &points) {
  llvm::json::Array array;
  for (const BudgetPoint &point : points)
    array.push_back(makeObject(point));
  return array;
}

void nibble::addToJSON(const QuantizationReport &report,
                       llvm::json::Object &object) {
  object["method"] = report.method;
  object["seconds"] = report.seconds;
  if (!report.inlined.empty())
    object["inlined_functions"] = llvm::json::Array(report.inlined);
  if (!report.calibratedOn.empty())
    object["calibration"] = report.calibratedOn;
  if (!report.evaluatedOn.empty()) {
    llvm::json::Array outputs;
    for (const OutputReport &output : report.outputs)
      outputs.push_back(makeObject(output));
    object["evaluation"] = llvm::json::Object{{"data", report.evaluatedOn},
                                              {"outputs", std::move(outputs)}};
  }
  llvm::json::Array ranked;
  for (const HarmedWeight &harmed : rankByHarm(report.plan))
    ranked.push_back(llvm::json::Object{{"name", harmed.weight->name},
                                        {"error", getError(*harmed.weight)},
                                        {"cure", harmed.cure}});
  object["most_harmed"] = std::move(ranked);
  if (report.budget)
    object["budget"] =
        llvm::json::Object{{"chosen", makeObject(report.budget->chosen)},
                           {"curve", makeArray(report.budget->curve)},
                           {"uniform", makeArray(report.budget->uniform)}};
}
