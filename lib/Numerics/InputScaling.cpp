//===- InputScaling.cpp - Equivalent rescaling and outlier inputs ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/InputScaling.h"
#include "LinearAlgebra.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <cmath>

using namespace nibble;

std::vector<uint32_t>
nibble::findOutlierInputs(const std::vector<float> &inputMaxima,
                          float threshold) {
  std::vector<uint32_t> outliers;
  for (size_t k = 0; k < inputMaxima.size(); ++k)
    if (!(inputMaxima[k] < threshold))
      outliers.push_back(static_cast<uint32_t>(k));
  return outliers;
}

/// Why statistics do not belong to the weights, if so.
static std::optional<Failure>
checkStatistics(const std::vector<MatrixView> &weights,
                const std::vector<float> &statistics, const char *what) {
  for (const MatrixView &weight : weights)
    if (weight.rows != statistics.size())
      return Failure{
          std::string(what) + " are of " + std::to_string(statistics.size()) +
          " inputs, but a weight has " + std::to_string(weight.rows)};
  for (size_t k = 0; k < statistics.size(); ++k)
    if (!(statistics[k] >= 0 && std::isfinite(statistics[k])))
      return Failure{std::string(what) + ": that of input " +
                     std::to_string(k) + " is not a finite number >= 0"};
  return std::nullopt;
}

Result<std::vector<float>>
nibble::findSmoothQuantScales(const std::vector<float> &inputMaxima,
                              const std::vector<MatrixView> &weights,
                              double strength) {
  if (auto failure = checkStatistics(weights, inputMaxima, "largest inputs"))
    return *failure;
  std::vector<float> scales(inputMaxima.size(), 1.0f);
  for (size_t k = 0; k < scales.size(); ++k) {
    double largest = 0;
    for (const MatrixView &weight : weights)
      for (size_t n = 0; n < weight.cols; ++n)
        largest = std::max<double>(largest, std::fabs(weight.at(k, n)));
    double scale = std::pow(static_cast<double>(inputMaxima[k]), strength) /
                   std::pow(largest, 1 - strength);
    if (inputMaxima[k] > 0 && largest > 0 && scale > 0 && std::isfinite(scale))
      scales[k] = static_cast<float>(scale);
  }
  return scales;
}

std::vector<float>
nibble::makeAwqScales(const std::vector<float> &inputMagnitudes,
                      double exponent) {
  std::vector<double> raw;
  raw.reserve(inputMagnitudes.size());
  double least = INFINITY, largest = 0;
  for (float magnitude : inputMagnitudes) {
    raw.push_back(
        std::max(std::pow(static_cast<double>(magnitude), exponent), 1e-4));
    least = std::min(least, raw.back());
    largest = std::max(largest, raw.back());
  }
  std::vector<float> scales;
  scales.reserve(raw.size());
  for (double scale : raw)
    scales.push_back(static_cast<float>(scale / std::sqrt(largest * least)));
  return scales;
}

std::vector<float> nibble::scaleRows(const MatrixView &weight,
                                     const std::vector<float> &scales) {
  std::vector<float> scaled(weight.rows * weight.cols);
  for (size_t row = 0; row < weight.rows; ++row)
    for (size_t col = 0; col < weight.cols; ++col)
      scaled[row * weight.cols + col] = weight.at(row, col) * scales[row];
  return scaled;
}

std::vector<float> nibble::clampBlocks(const MatrixView &weight,
                                       size_t blockRows,
                                       const std::vector<float> &magnitudes) {
  std::vector<float> clamped(weight.rows * weight.cols);
  for (size_t row = 0; row < weight.rows; ++row)
    for (size_t col = 0; col < weight.cols; ++col) {
      float limit = magnitudes[row / blockRows * weight.cols + col];
      clamped[row * weight.cols + col] =
          std::clamp(weight.at(row, col), -limit, limit);
    }
  return clamped;
}

static BlockQuantizerOptions minMaxOptions(const Scheme &scheme,
                                           unsigned threads) {
  BlockQuantizerOptions options;
  options.storage = scheme.storage;
  options.block = scheme.blockShape();
  options.symmetric = scheme.symmetric;
  options.scaleFormat = scheme.scaleFormat;
  options.threads = threads;
  return options;
}

/// Columns of one matrix product; never depends on the number of threads.
static constexpr size_t productColumns = 128;

/// xᵀ H x of each block of `blockRows` rows of a [K, N] matrix, H the Hessian
/// of the block's inputs: [K / blockRows, N].
static std::vector<double> blockNorms(const DampedHessian &hessian,
                                      const std::vector<float> &x, size_t N,
                                      size_t blockRows, unsigned threads) {
  size_t K = hessian.size, blocks = (K + blockRows - 1) / blockRows;
  std::vector<double> norms(blocks * N);
  parallelFor(N, productColumns, threads, [&](size_t begin, size_t end) {
    size_t width = end - begin;
    std::vector<float> product(blockRows * width);
    for (size_t block = 0; block < blocks; ++block) {
      size_t first = block * blockRows, rows = std::min(blockRows, K - first);
      multiply(rows, width, rows, 1, &hessian.matrix[first * (K + 1)], K,
               &x[first * N + begin], N, 0, product.data(), width);
      for (size_t row = 0; row < rows; ++row)
        for (size_t col = 0; col < width; ++col)
          norms[block * N + begin + col] +=
              static_cast<double>(product[row * width + col]) *
              static_cast<double>(x[(first + row) * N + begin + col]);
    }
  });
  return norms;
}

/// Σ h[k] x[k, n]².
static double weightedSquares(const std::vector<float> &h,
                              const std::vector<float> &x, size_t N) {
  double total = 0;
  for (size_t k = 0; k < h.size(); ++k) {
    double squares = 0;
    for (size_t n = 0; n < N; ++n)
      squares += static_cast<double>(x[k * N + n]) * x[k * N + n];
    total += static_cast<double>(h[k]) * squares;
  }
  return total;
}

/// Σ h (W - s⁻¹ Q(s W))².
static Result<double> scaledLoss(const AwqWeight &weight,
                                 const std::vector<float> &scales,
                                 const std::vector<float> &inputSquares,
                                 unsigned threads) {
  const auto &[matrix, scheme] = weight;
  std::vector<float> scaled = scaleRows(matrix, scales);
  Result<QuantizedMatrix> rounded = quantizeBlocks(
      MatrixView::rowMajor(scaled.data(), matrix.rows, matrix.cols),
      minMaxOptions(scheme, threads));
  if (!rounded)
    return Failure{rounded.error()};
  std::vector<float> error = dequantize(*rounded, threads);
  for (size_t i = 0; i < error.size(); ++i)
    error[i] = (scaled[i] - error[i]) / scales[i / matrix.cols];
  return weightedSquares(inputSquares, error, matrix.cols);
}

Result<AwqScales>
nibble::searchAwqScales(const std::vector<AwqWeight> &weights,
                        const std::vector<float> &inputMagnitudes,
                        const std::vector<float> &inputSquares,
                        unsigned threads, unsigned steps) {
  std::vector<MatrixView> matrices;
  matrices.reserve(weights.size());
  for (const AwqWeight &weight : weights)
    matrices.push_back(weight.matrix);
  for (const auto &[numbers, what] :
       {std::pair(&inputMagnitudes, "mean magnitudes"),
        std::pair(&inputSquares, "mean squares")})
    if (auto failure = checkStatistics(matrices, *numbers, what))
      return *failure;
  AwqScales best;
  double norm = 0;
  for (const MatrixView &matrix : matrices)
    norm += weightedSquares(
        inputSquares, scaleRows(matrix, std::vector<float>(matrix.rows, 1.0f)),
        matrix.cols);
  for (unsigned step = 0; step < std::max(steps, 1u); ++step) {
    double exponent = step / static_cast<double>(std::max(steps, 1u));
    std::vector<float> scales = makeAwqScales(inputMagnitudes, exponent);
    double loss = 0;
    for (const AwqWeight &weight : weights) {
      Result<double> part = scaledLoss(weight, scales, inputSquares, threads);
      if (!part)
        return Failure{part.error()};
      loss += norm > 0 ? *part / norm : 0;
    }
    if (step == 0)
      best.lossBefore = loss;
    if (step == 0 || loss < best.lossAfter) {
      best.scales = std::move(scales);
      best.exponent = exponent;
      best.lossAfter = loss;
    }
  }
  return best;
}

/// The largest magnitude of each block.
static std::vector<float> blockMaxima(const MatrixView &weight,
                                      size_t blockRows) {
  std::vector<float> maxima((weight.rows + blockRows - 1) / blockRows *
                            weight.cols);
  for (size_t row = 0; row < weight.rows; ++row)
    for (size_t col = 0; col < weight.cols; ++col) {
      float &largest = maxima[row / blockRows * weight.cols + col];
      largest = std::max(largest, std::fabs(weight.at(row, col)));
    }
  return maxima;
}

Result<std::vector<float>> nibble::searchAwqClips(const MatrixView &weight,
                                                  const DampedHessian &hessian,
                                                  const Scheme &scheme,
                                                  unsigned threads) {
  const int candidates = 10;
  BlockQuantizerOptions options = minMaxOptions(scheme, threads);
  if (options.block.cols != 1)
    return Failure{"clipping needs scales of one column"};
  if (hessian.matrix.empty() || hessian.size != weight.rows)
    return Failure{"the search for clips needs the Hessian of the " +
                   std::to_string(weight.rows) + " inputs"};
  size_t N = weight.cols;
  size_t blockRows = options.block.rows == 0
                         ? weight.rows
                         : std::min(options.block.rows, weight.rows);
  std::vector<float> maxima = blockMaxima(weight, blockRows), best = maxima;
  std::vector<double> least(maxima.size(), INFINITY);
  for (int i = 0; i < candidates; ++i) {
    std::vector<float> limits = maxima;
    for (float &limit : limits)
      limit *= 1 - static_cast<float>(i) / 20;
    std::vector<float> clamped = clampBlocks(weight, blockRows, limits);
    Result<QuantizedMatrix> rounded = quantizeBlocks(
        MatrixView::rowMajor(clamped.data(), weight.rows, N), options);
    if (!rounded)
      return Failure{rounded.error()};
    std::vector<float> error = dequantize(*rounded, threads);
    for (size_t j = 0; j < error.size(); ++j)
      error[j] = weight.at(j / N, j % N) - error[j];
    std::vector<double> losses =
        blockNorms(hessian, error, N, blockRows, threads);
    for (size_t j = 0; j < losses.size(); ++j)
      if (losses[j] < least[j]) {
        least[j] = losses[j];
        best[j] = limits[j];
      }
  }
  return best;
}
