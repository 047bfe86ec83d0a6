//===- SpqrOutliers.cpp - Which weights SpQR keeps apart ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "SpqrOutliers.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

using namespace nibble;

/// 1 / U[k, k]², by input.
static std::vector<double> inverseSquares(const DampedHessian &hessian) {
  std::vector<double> squares(hessian.size);
  for (size_t i = 0; i < hessian.size; ++i) {
    double u = hessian.factor[i * hessian.size + i];
    squares[hessian.order[i]] = 1 / (u * u);
  }
  return squares;
}

double nibble::spqrThreshold(const MatrixView &weight,
                             const DampedHessian &hessian, double factor) {
  std::vector<double> importance = inverseSquares(hessian);
  double total = 0, N = static_cast<double>(weight.cols);
  for (size_t row = 0; row < weight.rows; ++row) {
    double sum = 0, squares = 0;
    for (size_t col = 0; col < weight.cols; ++col) {
      double w = weight.at(row, col);
      sum += w;
      squares += w * w;
    }
    double variance =
        weight.cols > 1 ? (squares - sum * sum / N) / (N - 1) : squares;
    total += std::max(variance, 0.0) * importance[row];
  }
  return factor * total / static_cast<double>(weight.rows);
}

double nibble::thresholdOfShare(const MatrixView &weight,
                                const QuantizedMatrix &rounded,
                                const DampedHessian &hessian, double share) {
  std::vector<double> importance = inverseSquares(hessian);
  std::vector<float> back = dequantize(rounded);
  std::vector<double> costs(back.size());
  for (size_t i = 0; i < costs.size(); ++i) {
    size_t row = i / weight.cols;
    double error = static_cast<double>(weight.at(row, i % weight.cols)) -
                   static_cast<double>(back[i]);
    costs[i] = error * error * importance[row];
  }
  size_t above =
      std::min(costs.size(),
               static_cast<size_t>(std::llround(share * double(costs.size()))));
  constexpr double least = std::numeric_limits<float>::min();
  if (above == costs.size())
    return least;
  auto limit = costs.begin() + static_cast<ptrdiff_t>(above);
  std::nth_element(costs.begin(), limit, costs.end(), std::greater<>());
  return std::max(*limit, least);
}

namespace {

/// The blocks of one column of a weight while outliers are looked for.
class LeaveOneOut {
public:
  LeaveOneOut(const MatrixView &weight, const DampedHessian &hessian,
              const BlockQuantizerOptions &options)
      : options(options), K(weight.rows), N(weight.cols),
        importance(inverseSquares(hessian)), values(K * N) {
    this->options.search = ScaleSearch::MinMax;
    this->options.hessian = nullptr;
    for (size_t row = 0; row < K; ++row)
      for (size_t col = 0; col < N; ++col)
        values[row * N + col] = weight.at(row, col);
  }

  Result<std::vector<float>> run(double threshold);

private:
  std::optional<Failure> fit(const std::vector<float> &from,
                             std::vector<double> &squares,
                             std::vector<double> &blockSums);
  std::vector<size_t> findExtremes(bool largest) const;
  std::vector<float> replaceMarked(const std::vector<bool> &isOutlier) const;
  size_t blockOf(size_t row, size_t col) const {
    return row / blockRows * N + col;
  }

  BlockQuantizerOptions options;
  size_t K, N, blockRows = 1, blocks = 0;
  std::vector<double> importance;
  std::vector<float> values;
};

} // namespace

/// Rounds to min/max scales: the weighted squared errors of the elements, and
/// their sums over the blocks.
std::optional<Failure> LeaveOneOut::fit(const std::vector<float> &from,
                                        std::vector<double> &squares,
                                        std::vector<double> &blockSums) {
  Result<QuantizedMatrix> rounded =
      quantizeBlocks(MatrixView::rowMajor(from.data(), K, N), options);
  if (!rounded)
    return Failure{rounded.error()};
  blockRows = rounded->block.rows;
  blocks = rounded->scales.size();
  std::vector<float> back = dequantize(*rounded, options.threads);
  squares.resize(K * N);
  blockSums.assign(blocks, 0.0);
  for (size_t row = 0; row < K; ++row)
    for (size_t col = 0; col < N; ++col) {
      size_t i = row * N + col;
      double error =
          static_cast<double>(from[i]) - static_cast<double>(back[i]);
      squares[i] = error * error * importance[row];
      blockSums[blockOf(row, col)] += squares[i];
    }
  return std::nullopt;
}

/// The first largest or least element of each block.
std::vector<size_t> LeaveOneOut::findExtremes(bool largest) const {
  std::vector<size_t> extremes(blocks, K * N);
  for (size_t row = 0; row < K; ++row)
    for (size_t col = 0; col < N; ++col) {
      size_t i = row * N + col;
      size_t &best = extremes[blockOf(row, col)];
      if (best == K * N ||
          (largest ? values[i] > values[best] : values[i] < values[best]))
        best = i;
    }
  return extremes;
}

std::vector<float>
LeaveOneOut::replaceMarked(const std::vector<bool> &isOutlier) const {
  std::vector<double> sums(blocks), counts(blocks);
  for (size_t i = 0; i < values.size(); ++i)
    if (!isOutlier[i]) {
      sums[blockOf(i / N, i % N)] += static_cast<double>(values[i]);
      counts[blockOf(i / N, i % N)] += 1;
    }
  std::vector<float> replaced = values;
  for (size_t i = 0; i < values.size(); ++i) {
    size_t block = blockOf(i / N, i % N);
    if (isOutlier[i])
      replaced[i] = counts[block] == 0
                        ? 0.0f
                        : static_cast<float>(sums[block] / counts[block]);
  }
  return replaced;
}

/// Without an element that is neither the largest nor the least the range is
/// the same, so its own error is all that is saved. The two extremes are left
/// out by a 0 in their place, which every range contains.
Result<std::vector<float>> LeaveOneOut::run(double threshold) {
  std::vector<double> squares, sums;
  if (auto failure = fit(values, squares, sums))
    return *failure;
  std::vector<bool> isOutlier(K * N);
  for (size_t i = 0; i < squares.size(); ++i)
    isOutlier[i] = squares[i] > threshold;
  for (bool largest : {true, false}) {
    std::vector<size_t> extremes = findExtremes(largest);
    std::vector<float> without = values;
    for (size_t i : extremes)
      without[i] = 0;
    std::vector<double> otherSquares, otherSums;
    if (auto failure = fit(without, otherSquares, otherSums))
      return *failure;
    for (size_t block = 0; block < blocks; ++block)
      isOutlier[extremes[block]] = sums[block] - otherSums[block] > threshold;
  }
  return replaceMarked(isOutlier);
}

Result<std::vector<float>> nibble::replaceLikelyOutliers(
    const MatrixView &weight, const DampedHessian &hessian,
    const BlockQuantizerOptions &options, double threshold) {
  return LeaveOneOut(weight, hessian, options).run(threshold);
}
