//===- OutlierInputs.cpp - Inputs kept apart, as in LLM.int8() ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/InputScaling.h"

using namespace nibble;

/// As if these inputs were always zero.
static WeightStatistics withoutInputs(WeightStatistics statistics,
                                      const std::vector<uint32_t> &inputs) {
  if (statistics.hessian) {
    std::vector<double> moments = statistics.hessian->secondMoments();
    size_t K = statistics.hessian->size();
    for (uint32_t input : inputs)
      for (size_t k = 0; k < K; ++k)
        moments[input * K + k] = moments[k * K + input] = 0;
    statistics.hessian = std::make_shared<const InputHessian>(
        std::move(moments), statistics.hessian->rows());
  }
  if (!statistics.inputSquares.empty())
    for (uint32_t input : inputs)
      statistics.inputSquares[input] = 0;
  return statistics;
}

/// Moves the rows of `inputs` out of `weight` [K, N], and their squares and
/// rounding errors into the result's.
static void moveRows(std::vector<float> &weight, size_t N,
                     OutlierInputs &outliers, double &squaredNorm,
                     double &squaredError) {
  for (uint32_t input : outliers.inputs)
    for (size_t n = 0; n < N; ++n) {
      float &w = weight[input * N + n];
      float half = roundToFormat(FloatFormat::F16, w, Overflow::Saturate);
      double exact = w, error = exact - static_cast<double>(half);
      outliers.values.push_back(half);
      squaredNorm += exact * exact;
      squaredError += error * error;
      w = 0;
    }
}

Result<QuantizedWeight>
OutlierInputsQuantizer::quantize(const MatrixView &weight,
                                 const WeightStatistics &statistics,
                                 const Scheme &scheme, unsigned threads) const {
  const std::vector<float> &maxima = statistics.inputMaxima;
  if (!maxima.empty() && maxima.size() != weight.rows)
    return Failure{
        "the largest magnitudes are of " + std::to_string(maxima.size()) +
        " inputs, but the weight has " + std::to_string(weight.rows)};
  OutlierInputs outliers;
  outliers.inputs = findOutlierInputs(maxima, threshold);
  if (outliers.inputs.empty()) {
    auto result = others.quantize(weight, statistics, scheme, threads);
    if (result && maxima.empty())
      result->notes.emplace_back("the magnitudes of the inputs are not known: "
                                 "none is kept apart");
    return result;
  }
  if ((statistics.hessian && statistics.hessian->size() != weight.rows) ||
      (!statistics.inputSquares.empty() &&
       statistics.inputSquares.size() != weight.rows))
    return others.quantize(weight, statistics, scheme, threads);

  std::vector<float> rest =
      scaleRows(weight, std::vector<float>(weight.rows, 1.0f));
  double squaredNorm = 0, squaredError = 0;
  moveRows(rest, weight.cols, outliers, squaredNorm, squaredError);
  auto result = others.quantize(
      MatrixView::rowMajor(rest.data(), weight.rows, weight.cols),
      withoutInputs(statistics, outliers.inputs), scheme, threads);
  if (!result)
    return result;
  result->matrix.squaredNorm += squaredNorm;
  result->matrix.squaredError += squaredError;
  result->notes.push_back(std::to_string(outliers.inputs.size()) + " of " +
                          std::to_string(weight.rows) +
                          " inputs are kept apart in f16, and count as zero "
                          "for the others");
  result->outlierInputs = std::move(outliers);
  return result;
}
