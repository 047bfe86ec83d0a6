//===- SecondOrderData.h - Layers and naive references for tests *- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Everything in double precision and as the formulas say, element by element.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TEST_UNIT_NUMERICS_SECONDORDERDATA_H
#define NIBBLE_TEST_UNIT_NUMERICS_SECONDORDERDATA_H

#include "nibble/Numerics/WeightQuantizer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

namespace nibble {

using Matrix = std::vector<double>;

/// [rows, K] inputs that are mixtures of few causes, so that H has large
/// entries off the diagonal, with channels of different size.
inline Matrix makeInputs(size_t rows, size_t K, size_t causes, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Matrix mixing(causes * K), inputs(rows * K);
  for (double &x : mixing)
    x = normal(random);
  for (size_t row = 0; row < rows; ++row) {
    std::vector<double> cause(causes);
    for (double &x : cause)
      x = normal(random);
    for (size_t k = 0; k < K; ++k) {
      double x = 0.3 * normal(random);
      for (size_t c = 0; c < causes; ++c)
        x += cause[c] * mixing[c * K + k] / std::sqrt(double(causes));
      inputs[row * K + k] = x * (k % 7 == 3 ? 4 : 1);
    }
  }
  return inputs;
}

/// The mean of x xᵀ.
inline Matrix secondMoments(const Matrix &inputs, size_t K) {
  size_t rows = inputs.size() / K;
  Matrix moments(K * K);
  for (size_t row = 0; row < rows; ++row)
    for (size_t i = 0; i < K; ++i)
      for (size_t j = 0; j < K; ++j)
        moments[i * K + j] +=
            inputs[row * K + i] * inputs[row * K + j] / double(rows);
  return moments;
}

inline WeightStatistics makeStatistics(const Matrix &moments) {
  WeightStatistics statistics;
  statistics.hessian = std::make_shared<InputHessian>(moments, 1000);
  return statistics;
}

inline std::vector<float> makeWeight(size_t K, size_t N, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> weight(K * N);
  for (float &w : weight)
    w = normal(random);
  return weight;
}

/// H + damping * mean(diagonal), a dead input's diagonal the mean of the
/// others.
inline Matrix dampNaively(Matrix moments, size_t K, double damping) {
  double sum = 0, alive = 0;
  for (size_t i = 0; i < K; ++i) {
    sum += moments[i * K + i];
    alive += moments[i * K + i] != 0;
  }
  double mean = alive > 0 ? sum / alive : 1;
  for (size_t i = 0; i < K; ++i) {
    if (moments[i * K + i] == 0)
      moments[i * K + i] = mean;
    moments[i * K + i] += damping * mean;
  }
  return moments;
}

/// tr(Eᵀ H E) with E = weight - dequantized.
inline double hessianLoss(const std::vector<float> &weight,
                          const QuantizedMatrix &matrix, const Matrix &H) {
  std::vector<float> back = dequantize(matrix);
  size_t K = matrix.rows, N = matrix.cols;
  double loss = 0;
  for (size_t n = 0; n < N; ++n)
    for (size_t i = 0; i < K; ++i)
      for (size_t j = 0; j < K; ++j)
        loss += (double(weight[i * N + n]) - back[i * N + n]) * H[i * K + j] *
                (double(weight[j * N + n]) - back[j * N + n]);
  return loss;
}

inline double hessianNorm(const std::vector<float> &weight, size_t K,
                          const Matrix &H) {
  size_t N = weight.size() / K;
  double norm = 0;
  for (size_t n = 0; n < N; ++n)
    for (size_t i = 0; i < K; ++i)
      for (size_t j = 0; j < K; ++j)
        norm += double(weight[i * N + n]) * H[i * K + j] * weight[j * N + n];
  return norm;
}

/// By Gauss-Jordan elimination.
inline Matrix invertNaively(Matrix a, size_t n) {
  Matrix inverse(n * n);
  for (size_t i = 0; i < n; ++i)
    inverse[i * n + i] = 1;
  for (size_t p = 0; p < n; ++p) {
    double pivot = a[p * n + p];
    for (size_t j = 0; j < n; ++j) {
      a[p * n + j] /= pivot;
      inverse[p * n + j] /= pivot;
    }
    for (size_t i = 0; i < n; ++i) {
      double factor = i == p ? 0 : a[i * n + p];
      for (size_t j = 0; j < n; ++j) {
        a[i * n + j] -= factor * a[p * n + j];
        inverse[i * n + j] -= factor * inverse[p * n + j];
      }
    }
  }
  return inverse;
}

/// The nearest code of the block's grid and what it dequantizes to.
inline uint8_t encodeNaively(const QuantizedMatrix &grid, size_t row,
                             size_t col, double w, double &value) {
  size_t block =
      row / grid.block.rows * grid.blockCols() + col / grid.block.cols;
  double scale = grid.scales[block];
  double zero = grid.zeroPoints.empty()
                    ? 0
                    : codeValue(grid.storage, grid.zeroPoints[block]);
  int best = 0;
  double bestDistance = INFINITY;
  for (int code = smallestCode(grid.storage); code <= largestCode(grid.storage);
       ++code) {
    double candidate =
        scale * (codeValue(grid.storage, static_cast<uint8_t>(code)) - zero);
    if (std::fabs(w - candidate) < bestDistance) {
      bestDistance = std::fabs(w - candidate);
      best = code;
      value = candidate;
    }
  }
  return static_cast<uint8_t>(best);
}

/// Optimal brain quantization of every column in one order, with the inverse
/// of the remaining inputs' Hessian updated exactly after each step
/// (https://arxiv.org/abs/2208.11580, algorithm 3). Fills in `grid`'s codes.
inline void quantizeInOrderNaively(const std::vector<float> &weight,
                                   const Matrix &H,
                                   const std::vector<uint32_t> &order,
                                   QuantizedMatrix &grid) {
  size_t K = grid.rows, N = grid.cols;
  for (size_t n = 0; n < N; ++n) {
    Matrix inverse = invertNaively(H, K);
    std::vector<double> w(K);
    for (size_t k = 0; k < K; ++k)
      w[k] = weight[k * N + n];
    std::vector<bool> done(K);
    for (uint32_t p : order) {
      double value = 0;
      grid.codes[p * N + n] = encodeNaively(grid, p, n, w[p], value);
      double error = (w[p] - value) / inverse[p * K + p];
      done[p] = true;
      for (size_t k = 0; k < K; ++k)
        if (!done[k])
          w[k] -= error * inverse[k * K + p];
      Matrix old = inverse;
      for (size_t i = 0; i < K; ++i)
        for (size_t j = 0; j < K; ++j)
          inverse[i * K + j] -=
              old[i * K + p] * old[p * K + j] / old[p * K + p];
    }
  }
}

} // namespace nibble

#endif // NIBBLE_TEST_UNIT_NUMERICS_SECONDORDERDATA_H
