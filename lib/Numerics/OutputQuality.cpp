//===- OutputQuality.cpp - How two models' outputs differ -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/OutputQuality.h"
#include "LinearAlgebra.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace nibble;

/// What a probability of zero counts as.
static constexpr double smallestProbability = 1e-30;

static void takeLogSoftmax(const float *logits, size_t width,
                           std::vector<double> &logs) {
  double largest = *std::max_element(logits, logits + width), sum = 0;
  logs.resize(width);
  for (size_t i = 0; i < width; ++i)
    sum += std::exp(logits[i] - largest);
  double shift = largest + std::log(sum);
  for (size_t i = 0; i < width; ++i)
    logs[i] = logits[i] - shift;
}

static void takeLogs(OutputKind kind, const float *row, size_t width,
                     std::vector<double> &logs) {
  if (kind == OutputKind::Logits)
    return takeLogSoftmax(row, width, logs);
  logs.resize(width);
  for (size_t i = 0; i < width; ++i)
    logs[i] = std::log(std::max<double>(row[i], smallestProbability));
}

void OutputComparison::addRow(const float *reference, const float *other,
                              size_t width, int64_t target) {
  ++rows;
  for (size_t i = 0; i < width; ++i) {
    double a = reference[i], b = other[i];
    referenceSquares += a * a;
    otherSquares += b * b;
    product += a * b;
    errorSquares += (a - b) * (a - b);
  }
  if (kind == OutputKind::Numbers || width == 0)
    return;
  takeLogs(kind, reference, width, referenceLogs);
  takeLogs(kind, other, width, otherLogs);
  double divergence = 0;
  for (size_t i = 0; i < width; ++i)
    divergence +=
        std::exp(referenceLogs[i]) * (referenceLogs[i] - otherLogs[i]);
  divergences.push_back(std::max(divergence, 0.0));
  auto findTop = [&](const float *row) {
    return std::max_element(row, row + width) - row;
  };
  agreements += findTop(reference) == findTop(other);
  if (target < 0 || static_cast<size_t>(target) >= width)
    return;
  referenceLosses.push_back(-referenceLogs[target]);
  otherLosses.push_back(-otherLogs[target]);
}

static MeanWithError average(const std::vector<double> &values) {
  MeanWithError result;
  double squares = 0, count = static_cast<double>(values.size());
  for (double value : values)
    result.mean += value / count;
  for (double value : values)
    squares += (value - result.mean) * (value - result.mean);
  if (values.size() > 1)
    result.error = std::sqrt(squares / (count - 1) / count);
  return result;
}

static MeanWithError getPerplexity(const std::vector<double> &losses) {
  MeanWithError loss = average(losses);
  double perplexity = std::exp(loss.mean);
  return {perplexity, perplexity * loss.error};
}

OutputQuality OutputComparison::summarize() const {
  OutputQuality quality;
  quality.kind = kind;
  quality.rows = rows;
  double lengths = std::sqrt(referenceSquares) * std::sqrt(otherSquares);
  quality.cosine = errorSquares == 0 ? 1 : lengths > 0 ? product / lengths : 0;
  quality.sqnr = errorSquares == 0
                     ? std::numeric_limits<double>::infinity()
                     : 10 * std::log10(referenceSquares / errorSquares);
  if (!divergences.empty()) {
    std::vector<double> sorted = divergences;
    std::sort(sorted.begin(), sorted.end());
    DivergenceSummary summary;
    summary.mean = average(divergences);
    // The smallest value that 99 % of the rows do not exceed.
    size_t rank = (sorted.size() * 99 + 99) / 100;
    summary.percentile99 = sorted[std::max<size_t>(rank, 1) - 1];
    summary.max = sorted.back();
    summary.topAgreement = static_cast<double>(agreements) / sorted.size();
    quality.divergence = summary;
  }
  if (!referenceLosses.empty())
    quality.perplexity = PerplexitySummary{getPerplexity(referenceLosses),
                                           getPerplexity(otherLosses)};
  return quality;
}

static double sumSquares(const std::vector<float> &values) {
  double sum = 0;
  for (float value : values)
    sum += static_cast<double>(value) * value;
  return sum;
}

double nibble::relativeProductError(const float *inputs, size_t rows,
                                    const float *weight, const float *other,
                                    size_t K, size_t N) {
  std::vector<float> product(rows * N), error(rows * N), difference(K * N);
  for (size_t i = 0; i < K * N; ++i)
    difference[i] = weight[i] - other[i];
  multiply(rows, N, K, 1, inputs, K, weight, N, 0, product.data(), N);
  multiply(rows, N, K, 1, inputs, K, difference.data(), N, 0, error.data(), N);
  double signal = sumSquares(product);
  return signal > 0 ? sumSquares(error) / signal : 0;
}
