//===- RecipeQuantizer.cpp - Second-order weight quantization -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/RecipeQuantizer.h"
#include "PanelKernels.h"
#include "SpqrOutliers.h"
#include "WeightPanel.h"
#include "nibble/Numerics/NestedScales.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
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
  /// The loss of the solution that the panel has now.
  double accept() {
    panel.evaluate();
    return std::accumulate(panel.losses.begin(), panel.losses.end(), 0.0);
  }
  /// The same, before it is undone where it is worse.
  double finish() {
    double loss = accept();
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
    result->notes.insert(result->notes.begin(), hessian->steps.begin(),
                         hessian->steps.end());
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

namespace {

/// One weight with a Hessian that has a factor.
class RecipeRun {
public:
  RecipeRun(const RecipeOptions &options, const MatrixView &weight,
            const DampedHessian &hessian, const Scheme &scheme,
            unsigned threads)
      : options(options), weight(weight), hessian(hessian), threads(threads),
        start(getStart(scheme, options, hessian, threads)),
        coding(scheme.storage), rules(start, coding),
        context{hessian, coding, rules}, width(panelWidth(weight.cols)),
        sums((weight.cols + width - 1) / width) {}

  Result<QuantizedWeight> run();

private:
  std::optional<Failure> checkStart();
  std::optional<Failure> findScales();
  Result<QuantizedMatrix> roundWithoutOutliers() const;
  void solvePanels();
  double roundSecondOrder(WeightPanel &panel);
  void solvePanel(WeightPanel &panel, PanelSums &sums);
  void improve(WeightPanel &panel);
  void finishPanel(WeightPanel &panel, PanelSums &sums);
  void nestAndImprove();
  void collectOutliers();
  void report();
  WeightPanel makePanel(size_t index) const {
    size_t first = index * width;
    return {context, weight, result.matrix, first,
            std::min(width, weight.cols - first)};
  }

  RecipeOptions options;
  const MatrixView &weight;
  const DampedHessian &hessian;
  unsigned threads;
  BlockQuantizerOptions start;
  Coding coding;
  ScaleRules rules;
  PanelContext context;
  size_t width;
  /// Of weights that become outliers; 0: none do.
  double threshold = 0;
  /// By panel.
  std::vector<PanelSums> sums;
  std::vector<std::vector<float>> outliers;
  QuantizedWeight result;
};

} // namespace

/// Options that do not go with the weight or the scheme.
std::optional<Failure> RecipeRun::checkStart() {
  if (options.nestedScales.bits > 8 ||
      (options.nestedScales.bits > 0 && options.nestedScales.runLength == 0))
    return Failure{"scales are quantized again to 1 to 8 bits, in runs of at "
                   "least one"};
  bool isObq = options.rounding == SecondOrderRounding::ObqGreedy ||
               options.rounding == SecondOrderRounding::ObqInOrder;
  if (weight.rows > largestObq && isObq) {
    options.rounding = SecondOrderRounding::Gptq;
    result.notes.push_back("more than " + std::to_string(largestObq) +
                           " inputs: rounded by GPTQ, not OBQ");
  }
  bool isOneColumn =
      start.block.cols == 1 || (start.block.cols == 0 && weight.cols == 1);
  if (options.outlierShare < 0 || options.outlierShare > 1)
    return Failure{"the share of outliers is from 0 to 1"};
  if (options.keepsOutliers() &&
      (!isOneColumn || options.rounding != SecondOrderRounding::Gptq))
    return Failure{"outliers are kept only by GPTQ with scales of one column"};
  return std::nullopt;
}

/// The weight rounded to scales that likely outliers have no part in.
Result<QuantizedMatrix> RecipeRun::roundWithoutOutliers() const {
  Result<std::vector<float>> others =
      replaceLikelyOutliers(weight, hessian, start, threshold);
  if (!others)
    return Failure{others.error()};
  Result<QuantizedMatrix> grid = quantizeBlocks(
      MatrixView::rowMajor(others->data(), weight.rows, weight.cols), start);
  if (!grid)
    return grid;
  return roundToScales(weight, std::move(*grid), threads);
}

/// The scales to start from, and rounding to them.
std::optional<Failure> RecipeRun::findScales() {
  Result<QuantizedMatrix> rounded = quantizeBlocks(weight, start);
  if (!rounded)
    return Failure{rounded.error()};
  double share = options.outlierShare;
  if (share > 0)
    threshold = thresholdOfShare(weight, *rounded, hessian, share);
  else if (options.outliers > 0)
    threshold = spqrThreshold(weight, hessian, options.outliers);
  if (threshold > 0) {
    rounded = roundWithoutOutliers();
    if (!rounded)
      return Failure{rounded.error()};
  }
  // What is an outlier now that the scales are for the others.
  if (share > 0)
    threshold = thresholdOfShare(weight, *rounded, hessian, share);
  result.matrix = std::move(*rounded);
  return std::nullopt;
}

/// The loss afterwards; NaN where there is no such step.
double RecipeRun::roundSecondOrder(WeightPanel &panel) {
  if (options.rounding == SecondOrderRounding::Nearest)
    return std::numeric_limits<double>::quiet_NaN();
  GuardedStep step(panel);
  if (options.rounding == SecondOrderRounding::Gptq)
    roundByGptq(panel, threshold);
  else
    roundByObq(panel, options.rounding == SecondOrderRounding::ObqGreedy);
  // With outliers the problem is another one: there is no way back.
  return threshold > 0 ? step.accept() : step.finish();
}

void RecipeRun::solvePanel(WeightPanel &panel, PanelSums &sums) {
  sums.norm = sum(panel.normsOf(panel.weight));
  sums.rawNorm = std::max(0.0, sums.norm - addedNorm(panel, panel.weight));
  panel.evaluate();
  sums.rounding = sum(panel.losses);

  sums.gptq = roundSecondOrder(panel);
  improve(panel);
}

/// Undone in the columns where it does not help.
static void guardedRefit(WeightPanel &panel) {
  GuardedStep refit(panel);
  refitScales(panel);
  refit.finish();
}

/// Each step may only lower the loss.
void RecipeRun::improve(WeightPanel &panel) {
  bool refits = result.matrix.block.cols == 1;
  bool repeats = refits && threshold == 0 && options.rounds > 0 &&
                 options.rounding != SecondOrderRounding::Nearest;
  for (unsigned pass = 1; repeats && pass < options.passes; ++pass) {
    guardedRefit(panel);
    roundSecondOrder(panel);
  }
  for (unsigned round = 0; round < options.rounds; ++round) {
    GuardedStep descent(panel);
    descendOverCodes(panel);
    descent.finish();
    if (refits)
      guardedRefit(panel);
  }
}

void RecipeRun::finishPanel(WeightPanel &panel, PanelSums &sums) {
  sums.end = sum(panel.losses);
  sums.raw = std::max(0.0, sums.end - addedNorm(panel, panel.residual));
  sums.squaredError = squares(panel, panel.residual);
}

void RecipeRun::solvePanels() {
  outliers.resize(threshold > 0 ? sums.size() : 0);
  parallelFor(sums.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      WeightPanel panel = makePanel(i);
      solvePanel(panel, sums[i]);
      finishPanel(panel, sums[i]);
      panel.store(result.matrix);
      if (threshold > 0)
        outliers[i] = std::move(panel.outliers);
    }
  });
}

/// Quantizes the scales, and improves the codes for what they are now.
void RecipeRun::nestAndImprove() {
  result.nestedScales =
      nestScales(result.matrix.scales, options.nestedScales.bits,
                 options.nestedScales.runLength, options.nestedScales.format);
  parallelFor(sums.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      WeightPanel panel = makePanel(i);
      if (threshold > 0)
        panel.keepOutliers(outliers[i]);
      panel.evaluate();
      for (int sweep = 0; sweep < 2; ++sweep) {
        GuardedStep descent(panel);
        descendOverCodes(panel);
        descent.finish();
      }
      finishPanel(panel, sums[i]);
      panel.store(result.matrix);
    }
  });
}

void RecipeRun::collectOutliers() {
  SparseOutliers &list = result.outliers;
  for (size_t row = 0; row < weight.rows; ++row)
    for (size_t i = 0; i < outliers.size(); ++i) {
      size_t first = i * width, stride = outliers[i].size() / weight.rows;
      for (size_t col = first; col < std::min(weight.cols, first + width);
           ++col)
        if (float value = outliers[i][row * stride + col - first]; value != 0) {
          list.rows.push_back(static_cast<uint32_t>(row));
          list.cols.push_back(static_cast<uint32_t>(col));
          list.values.push_back(value);
        }
    }
  char percent[16];
  std::snprintf(percent, sizeof percent, "%.2f",
                100.0 * double(list.values.size()) /
                    double(weight.rows * weight.cols));
  result.notes.push_back("SpQR: " + std::string(percent) +
                         " % of the elements are kept apart in f16");
}

void RecipeRun::report() {
  PanelSums total;
  for (const PanelSums &panel : sums)
    total.add(panel);
  // A difference below its rounding errors: these inputs were all zero.
  if (total.rawNorm < 1e-6 * total.norm)
    total.rawNorm = 0;
  result.matrix.squaredError = total.squaredError;
  result.losses.rounding = relativeTo(total.norm, total.rounding);
  result.losses.gptq = relativeTo(total.norm, total.gptq);
  result.losses.end = relativeTo(total.norm, total.end);
  result.losses.output = relativeTo(total.rawNorm, total.raw);
  result.damping = hessian.damping;
  result.usesHessian = true;
  result.notes.insert(result.notes.begin(), hessian.steps.begin(),
                      hessian.steps.end());
}

Result<QuantizedWeight> RecipeRun::run() {
  if (auto failure = checkStart())
    return *failure;
  if (auto failure = findScales())
    return *failure;
  solvePanels();
  if (options.nestedScales.bits > 0)
    nestAndImprove();
  if (options.keepsOutliers())
    collectOutliers();
  report();
  return std::move(result);
}

std::string_view RecipeQuantizer::name() const {
  if (options.keepsOutliers())
    return "spqr";
  if (options.rounds > 0)
    return "recipe";
  switch (options.rounding) {
  case SecondOrderRounding::Gptq:
    return "gptq";
  case SecondOrderRounding::Nearest:
    return "round";
  default:
    return "obq";
  }
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
  // To the nearest needs no factor.
  if (options.rounding == SecondOrderRounding::Nearest
          ? hessian->matrix.empty()
          : hessian->factor.empty())
    return fallBack(weight, statistics, hessian.get(), scheme, threads);

  return RecipeRun(options, weight, *hessian, scheme, threads).run();
}
