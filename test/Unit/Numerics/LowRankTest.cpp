//===- LowRankTest.cpp ----------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/LowRank.h"
#include "SecondOrderData.h"

#include <gtest/gtest.h>

using namespace nibble;

/// The eigenvalues of Eᵀ H E, descending, by power iteration and deflation.
static std::vector<double> eigenvalues(const std::vector<float> &error,
                                       size_t K, const Matrix &H) {
  size_t N = error.size() / K;
  Matrix image(K * N), gram(N * N);
  for (size_t i = 0; i < K; ++i)
    for (size_t j = 0; j < K; ++j)
      for (size_t n = 0; n < N; ++n)
        image[i * N + n] += H[i * K + j] * error[j * N + n];
  for (size_t m = 0; m < N; ++m)
    for (size_t n = 0; n < N; ++n)
      for (size_t i = 0; i < K; ++i)
        gram[m * N + n] += error[i * N + m] * image[i * N + n];
  std::vector<double> values;
  for (size_t index = 0; index < N; ++index) {
    std::vector<double> x(N);
    for (size_t n = 0; n < N; ++n)
      x[n] = std::sin(double(n * (index + 1)) + 1);
    double value = 0;
    for (int step = 0; step < 3000; ++step) {
      std::vector<double> y(N);
      double norm = 0;
      for (size_t m = 0; m < N; ++m) {
        for (size_t n = 0; n < N; ++n)
          y[m] += gram[m * N + n] * x[n];
        norm += y[m] * y[m];
      }
      value = std::sqrt(norm);
      for (size_t n = 0; n < N; ++n)
        x[n] = value > 0 ? y[n] / value : 0;
    }
    values.push_back(value);
    for (size_t m = 0; m < N; ++m)
      for (size_t n = 0; n < N; ++n)
        gram[m * N + n] -= value * x[m] * x[n];
  }
  return values;
}

TEST(LowRank, TakesAllThatItsRankCan) {
  const size_t K = 60, N = 24;
  Matrix moments = secondMoments(makeInputs(240, K, 6, 1), K);
  Matrix damped = dampNaively(moments, K, 0.01);
  auto hessian = InputHessian(moments, 240).damped({0.01, true});
  std::vector<float> error = makeWeight(K, N, 2);
  std::vector<double> values = eigenvalues(error, K, damped);
  double total = std::accumulate(values.begin(), values.end(), 0.0);
  double left = total;
  for (size_t rank = 1; rank <= N; ++rank) {
    left -= values[rank - 1];
    if (rank != 1 && rank != 4 && rank != 10 && rank != N)
      continue;
    SCOPED_TRACE(rank);
    auto correction = correctLowRank(error, N, *hessian, rank);
    ASSERT_TRUE(correction) << correction.error();
    std::vector<float> rest = error;
    for (size_t k = 0; k < K; ++k)
      for (size_t n = 0; n < N; ++n)
        for (size_t r = 0; r < rank; ++r)
          rest[k * N + n] -=
              correction->left[k * rank + r] * correction->right[r * N + n];
    double actual = hessianNorm(rest, K, damped) / total;
    EXPECT_NEAR(correction->remaining, actual, 1e-5);
    EXPECT_NEAR(actual, left / total, 1e-5);
    auto threaded = correctLowRank(error, N, *hessian, rank, 4);
    EXPECT_EQ(threaded->left, correction->left);
    EXPECT_EQ(threaded->right, correction->right);
  }
}

TEST(LowRank, EdgesAndErrors) {
  auto hessian = InputHessian(Matrix{2, 0.5, 0.5, 1}, 9).damped({});
  auto correction = correctLowRank({0, 0, 0, 0, 0, 0}, 3, *hessian, 8);
  ASSERT_TRUE(correction);
  EXPECT_EQ(correction->rank, 2u);
  EXPECT_EQ(correction->remaining, 0);
  for (float x : correction->left)
    EXPECT_TRUE(std::isfinite(x));
  EXPECT_EQ(correctLowRank({1, 2}, 1, *hessian, 0)->rank, 0u);
  EXPECT_FALSE(correctLowRank({1, 2, 3}, 1, *hessian, 1));
}
