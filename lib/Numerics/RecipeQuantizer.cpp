//===- RecipeQuantizer.cpp - Second-order weight quantization -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/RecipeQuantizer.h"
#include "PanelKernels.h"
#include "WeightPanel.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <numeric>

using namespace nibble;

/// Inputs of the largest weight that OBQ takes.
static constexpr size_t largestObq = 1024;

namespace {

/// Sums over the columns of a panel: squared H-norms, and in the end plain
/// squares.
struct PanelSums {
  double norm = 0, rawNorm = 0;
  double rounding = 0, gptq = 0, end = 0, raw = 0;
  double squaredError = 0;

  void add(const PanelSums &other) {
    norm += other.norm;
    rawNorm += other.rawNorm;
    rounding += other.rounding;
    gptq += other.gptq;
    end += other.end;
    raw += other.raw;
    squaredError += other.squaredError;
  }
};

/// A step that is undone in every column where it does not help.
class GuardedStep {
public:
  explicit GuardedStep(WeightPanel &panel)
      : panel(panel), solution(panel.solution), residual(panel.residual),
        gradient(panel.gradient), losses(panel.losses) {}
  /// Of the solution that the panel has now.
  double finish() {
    panel.evaluate();
    double loss =
        std::accumulate(panel.losses.begin(), panel.losses.end(), 0.0);
    panel.restoreWorse(solution, residual, gradient, losses);
    return loss;
  }

private:
  WeightPanel &panel;
  PanelSolution solution;
  std::vector<float> residual, gradient;
  std::vector<double> losses;
};

} // namespace

static double sum(const std::vector<double> &values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

/// What damping adds to the squared norm of a [K, stride] matrix.
static double addedNorm(const WeightPanel &panel, const std::vector<float> &x) {
  std::vector<double> sums(panel.stride(), 0.0);
  for (size_t col = 0; col < panel.stride(); col += lanes)
    addWeightedSquares(panel.rows(), panel.stride(),
                       panel.context.hessian.addedDiagonal.data(), &x[col],
                       &sums[col]);
  return sum(sums);
}

static double squares(const WeightPanel &panel, const std::vector<float> &x) {
  std::vector<double> sums(panel.stride(), 0.0);
  for (size_t col = 0; col < panel.stride(); col += lanes)
    addColumnProducts(panel.rows(), panel.stride(), &x[col], &x[col],
                      &sums[col]);
  return sum(sums);
}

static PanelSums solve(WeightPanel &panel, SecondOrderRounding rounding,
                       unsigned rounds, bool refits) {
  PanelSums sums;
  sums.norm = sum(panel.normsOf(panel.weight));
  sums.rawNorm = std::max(0.0, sums.norm - addedNorm(panel, panel.weight));
  panel.evaluate();
  sums.rounding = sum(panel.losses);

  GuardedStep gptq(panel);
  if (rounding == SecondOrderRounding::Gptq)
    roundByGptq(panel);
  else
    roundByObq(panel, rounding == SecondOrderRounding::ObqGreedy);
  sums.gptq = gptq.finish();
  for (unsigned round = 0; round < rounds; ++round) {
    GuardedStep descent(panel);
    descendOverCodes(panel);
    descent.finish();
    if (!refits)
      continue;
    GuardedStep refit(panel);
    refitScales(panel);
    refit.finish();
  }
  sums.end = sum(panel.losses);
  sums.raw = std::max(0.0, sums.end - addedNorm(panel, panel.residual));
  sums.squaredError = squares(panel, panel.residual);
  return sums;
}

static BlockQuantizerOptions getStart(const Scheme &scheme,
                                      const RecipeOptions &recipe,
                                      const DampedHessian &hessian,
                                      unsigned threads) {
  BlockQuantizerOptions options;
  options.storage = scheme.storage;
  options.block = scheme.blockShape();
  options.symmetric = scheme.symmetric;
  options.scaleFormat = scheme.scaleFormat;
  options.search = recipe.scales == ScaleObjective::MinMax
                       ? ScaleSearch::MinMax
                       : ScaleSearch::LeastSquares;
  size_t blockRows =
      options.block.rows == 0 ? hessian.size : options.block.rows;
  if (recipe.scales == ScaleObjective::Blocks && options.block.cols == 1 &&
      blockRows <= BlockQuantizerOptions::largestHessianBlock)
    options.hessian = hessian.matrix.data();
  else if (recipe.scales == ScaleObjective::Diagonal ||
           recipe.scales == ScaleObjective::Blocks)
    options.rowWeights = hessian.diagonal.data();
  options.threads = threads;
  return options;
}

/// Rounding where second-order rounding is impossible.
static Result<QuantizedWeight>
fallBack(const MatrixView &weight, WeightStatistics statistics,
         const DampedHessian *hessian, const Scheme &scheme, unsigned threads) {
  std::string how = "with scales searched under |w|";
  if (hessian && !hessian->diagonal.empty()) {
    statistics.inputSquares = hessian->diagonal;
    how = "with scales searched under the Hessian's diagonal";
  } else if (!statistics.inputSquares.empty()) {
    how = "with scales searched under the mean squares of the inputs";
  }
  statistics.hessian = nullptr;
  RoundingQuantizer rounding(ScaleSearch::LeastSquares);
  Result<QuantizedWeight> result =
      rounding.quantize(weight, statistics, scheme, threads);
  if (!result)
    return result;
  if (hessian) {
    result->notes = hessian->steps;
    result->damping = hessian->damping;
  }
  result->notes.push_back(
      std::string(hessian ? "no factor of the Hessian" : "no Hessian") +
      ": rounded to nearest " + how);
  return result;
}

static double relativeTo(double norm, double loss) {
  return norm > 0 ? loss / norm : 0;
}

std::string_view RecipeQuantizer::name() const {
  if (options.rounds > 0)
    return "auto";
  return options.rounding == SecondOrderRounding::Gptq ? "gptq" : "obq";
}

Result<QuantizedWeight>
RecipeQuantizer::quantize(const MatrixView &weight,
                          const WeightStatistics &statistics,
                          const Scheme &scheme, unsigned threads) const {
  if (!statistics.hessian || weight.rows == 0 || weight.cols == 0)
    return fallBack(weight, statistics, nullptr, scheme, threads);
  if (statistics.hessian->size() != weight.rows)
    return Failure{
        "the Hessian is of " + std::to_string(statistics.hessian->size()) +
        " inputs, but the weight has " + std::to_string(weight.rows)};
  std::shared_ptr<const DampedHessian> hessian =
      statistics.hessian->damped(options.damping, threads);
  if (hessian->factor.empty())
    return fallBack(weight, statistics, hessian.get(), scheme, threads);

  BlockQuantizerOptions start = getStart(scheme, options, *hessian, threads);
  Result<QuantizedMatrix> rounded = quantizeBlocks(weight, start);
  if (!rounded)
    return Failure{rounded.error()};

  Coding coding(scheme.storage);
  ScaleRules rules(start, coding);
  PanelContext context = {*hessian, coding, rules};
  size_t width = panelWidth(weight.cols);
  size_t panels = (weight.cols + width - 1) / width;
  std::vector<PanelSums> panelSums(panels);
  bool refits = rounded->block.cols == 1;
  SecondOrderRounding rounding = options.rounding;
  if (weight.rows > largestObq)
    rounding = SecondOrderRounding::Gptq;
  parallelFor(panels, 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      size_t first = i * width;
      WeightPanel panel(context, weight, *rounded, first,
                        std::min(width, weight.cols - first));
      panelSums[i] = solve(panel, rounding, options.rounds, refits);
      panel.store(*rounded);
    }
  });
  PanelSums sums;
  for (const PanelSums &panel : panelSums)
    sums.add(panel);

  QuantizedWeight result;
  result.matrix = std::move(*rounded);
  result.matrix.squaredError = sums.squaredError;
  result.losses.rounding = relativeTo(sums.norm, sums.rounding);
  result.losses.gptq = relativeTo(sums.norm, sums.gptq);
  result.losses.end = relativeTo(sums.norm, sums.end);
  // A difference below its rounding errors: these inputs were all zero.
  if (sums.rawNorm < 1e-6 * sums.norm)
    sums.rawNorm = 0;
  result.losses.output = relativeTo(sums.rawNorm, sums.raw);
  result.damping = hessian->damping;
  result.usesHessian = true;
  result.notes = hessian->steps;
  if (rounding != options.rounding)
    result.notes.push_back("more than " + std::to_string(largestObq) +
                           " inputs: rounded by GPTQ, not OBQ");
  return result;
}
