//===- LowRank.cpp - A low-rank correction of quantized weights -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/LowRank.h"
#include "LinearAlgebra.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <cmath>

using namespace nibble;

/// Columns of one matrix product; never depends on the number of threads.
static constexpr size_t productColumns = 128;

/// U⁻ᵀ E, with the rows of E in the factor's order.
static std::vector<float> whiten(const std::vector<float> &error, size_t N,
                                 const DampedHessian &hessian,
                                 unsigned threads) {
  size_t K = hessian.size;
  std::vector<float> white(K * N);
  for (size_t i = 0; i < K; ++i)
    std::copy_n(&error[hessian.order[i] * N], N, &white[i * N]);
  parallelFor(N, productColumns, threads, [&](size_t begin, size_t end) {
    solveTransposedUpper(K, end - begin, hessian.factor.data(), &white[begin],
                         N);
  });
  return white;
}

/// Makes the columns of `q` [K, width] orthonormal; those that depend on
/// earlier ones become zero.
static void orthonormalize(size_t K, size_t width, std::vector<float> &q) {
  std::vector<double> sums(width);
  for (size_t col = 0; col < width; ++col)
    for (int repeat = 0; repeat < 2; ++repeat) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (size_t row = 0; row < K; ++row)
        for (size_t other = 0; other <= col; ++other)
          sums[other] += static_cast<double>(q[row * width + other]) *
                         static_cast<double>(q[row * width + col]);
      double norm = sums[col];
      for (size_t other = 0; other < col; ++other)
        norm -= sums[other] * sums[other];
      double factor =
          norm > 1e-10 * sums[col] && norm > 0 ? 1 / std::sqrt(norm) : 0;
      for (size_t row = 0; row < K; ++row) {
        double x = q[row * width + col];
        for (size_t other = 0; other < col; ++other)
          x -= sums[other] * static_cast<double>(q[row * width + other]);
        q[row * width + col] = static_cast<float>(x * factor);
      }
    }
}

/// An orthonormal basis [K, width] near the leading left singular vectors of
/// `matrix` [K, N].
static std::vector<float> leadingBasis(const std::vector<float> &matrix,
                                       size_t K, size_t N, size_t width) {
  const int iterations = 12;
  std::vector<float> basis(K * width), image(N * width);
  uint32_t state = 1;
  for (float &x : image) {
    state = state * 1664525 + 1013904223;
    x = static_cast<float>(state >> 8) / 16777216.0f - 0.5f;
  }
  for (int i = 0; i < iterations; ++i) {
    multiply(K, width, N, 1, matrix.data(), N, image.data(), width, 0,
             basis.data(), width);
    orthonormalize(K, width, basis);
    if (i + 1 < iterations)
      multiplyTransposed(N, width, K, 1, matrix.data(), N, basis.data(), width,
                         0, image.data(), width);
  }
  return basis;
}

static double sumSquares(const std::vector<float> &values) {
  double sum = 0;
  for (float x : values)
    sum += static_cast<double>(x) * static_cast<double>(x);
  return sum;
}

/// The `rank` best directions within `basis` [K, width]: those of the matrix
/// basisᵀ M, by Jacobi rotations of its Gram matrix.
static std::vector<float> bestDirections(const std::vector<float> &basis,
                                         const std::vector<float> &matrix,
                                         size_t K, size_t N, size_t width,
                                         size_t rank) {
  std::vector<float> small(width * N);
  multiplyTransposed(width, N, K, 1, basis.data(), width, matrix.data(), N, 0,
                     small.data(), N);
  std::vector<double> gram(width * width), vectors(width * width);
  for (size_t i = 0; i < width; ++i) {
    vectors[i * width + i] = 1;
    for (size_t j = 0; j < width; ++j)
      for (size_t n = 0; n < N; ++n)
        gram[i * width + j] += static_cast<double>(small[i * N + n]) *
                               static_cast<double>(small[j * N + n]);
  }
  diagonalizeSymmetric(width, gram.data(), vectors.data());
  std::vector<size_t> order(width);
  for (size_t i = 0; i < width; ++i)
    order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    double x = gram[a * width + a], y = gram[b * width + b];
    return x > y || (x == y && a < b);
  });
  std::vector<float> chosen(width * rank), directions(K * rank);
  for (size_t i = 0; i < width; ++i)
    for (size_t j = 0; j < rank; ++j)
      chosen[i * rank + j] = static_cast<float>(vectors[i * width + order[j]]);
  multiply(K, rank, width, 1, basis.data(), width, chosen.data(), rank, 0,
           directions.data(), rank);
  return directions;
}

Result<LowRankCorrection>
nibble::correctLowRank(const std::vector<float> &error, size_t cols,
                       const DampedHessian &hessian, size_t rank,
                       unsigned threads) {
  size_t K = hessian.size, N = cols;
  if (hessian.factor.empty() || error.size() != K * N)
    return Failure{"a low-rank correction needs the factor of the Hessian of "
                   "the weight's inputs"};
  LowRankCorrection result;
  result.rank = rank = std::min({rank, K, N});
  if (rank == 0)
    return result;
  std::vector<float> white = whiten(error, N, hessian, threads);
  double before = sumSquares(white);
  // A few directions more than wanted make the iteration converge.
  size_t width = std::min({rank + 8, K, N});
  std::vector<float> q = bestDirections(leadingBasis(white, K, N, width), white,
                                        K, N, width, rank);
  result.right.resize(rank * N);
  multiplyTransposed(rank, N, K, 1, q.data(), rank, white.data(), N, 0,
                     result.right.data(), N);
  std::vector<float> left(K * rank);
  multiplyTransposed(K, rank, K, 1, hessian.factor.data(), K, q.data(), rank, 0,
                     left.data(), rank);
  result.left.resize(K * rank);
  for (size_t i = 0; i < K; ++i)
    std::copy_n(&left[i * rank], rank, &result.left[hessian.order[i] * rank]);
  result.remaining =
      before > 0 ? std::max(0.0, 1 - sumSquares(result.right) / before) : 0;
  return result;
}
