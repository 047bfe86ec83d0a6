//===- InputHessianTest.cpp -----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "SecondOrderData.h"

#include <gtest/gtest.h>

#include <limits>

using namespace nibble;

/// Uᵀ U times the permuted matrix is the identity, within the precision that
/// the matrix's condition leaves.
static void expectInverse(const DampedHessian &hessian, double tolerance) {
  size_t K = hessian.size;
  for (size_t i = 0; i < K; ++i) {
    std::vector<double> row(K), image(K);
    for (size_t m = 0; m <= i; ++m)
      for (size_t j = m; j < K; ++j)
        row[j] += double(hessian.factor[m * K + i]) * hessian.factor[m * K + j];
    for (size_t k = 0; k < K; ++k)
      for (size_t j = 0; j < K; ++j)
        image[j] +=
            row[k] * hessian.matrix[hessian.order[k] * K + hessian.order[j]];
    for (size_t j = 0; j < K; ++j)
      EXPECT_NEAR(image[j], i == j, tolerance) << i << " " << j;
  }
}

TEST(InputHessian, FactorsTheInverseOfAnySize) {
  // One tile, exact tiles, tails, and tiles of both sizes.
  for (size_t K : {1, 2, 17, 128, 129, 300}) {
    Matrix moments = secondMoments(makeInputs(64, K, 5, 1), K);
    InputHessian hessian(moments, 64);
    auto damped = hessian.damped({0.01, true});
    EXPECT_EQ(damped->damping, 0.01);
    EXPECT_TRUE(damped->steps.empty());
    expectInverse(*damped, 2e-3);
    for (size_t i = 0; i + 1 < K; ++i)
      EXPECT_GE(damped->diagonal[damped->order[i]],
                damped->diagonal[damped->order[i + 1]]);
  }
}

TEST(InputHessian, DampsAsTheFormulaSays) {
  const size_t K = 20;
  Matrix moments = secondMoments(makeInputs(64, K, 5, 2), K);
  for (size_t k = 0; k < K; ++k)
    moments[3 * K + k] = moments[k * K + 3] = 0;
  auto damped = InputHessian(moments, 64).damped({0.05, false});
  Matrix expected = dampNaively(moments, K, 0.05);
  double mean = 0;
  for (size_t k = 0; k < K; ++k)
    mean += moments[k * K + k] / (K - 1);
  for (size_t i = 0; i < K * K; ++i)
    EXPECT_NEAR(damped->matrix[i], expected[i] / mean, 1e-6);
  for (size_t k = 0; k < K; ++k) {
    EXPECT_EQ(damped->order[k], k);
    EXPECT_NEAR(damped->addedDiagonal[k], k == 3 ? 1.05 : 0.05, 1e-6);
  }
  ASSERT_EQ(damped->steps.size(), 1u);
  EXPECT_NE(damped->steps[0].find("1 of 20 inputs were always zero"),
            std::string::npos);
}

TEST(InputHessian, GoesDownTheLadder) {
  const size_t K = 8;
  // Rank 1 and no damping: the next damping that works is told.
  Matrix moments(K * K, 1.0);
  auto damped = InputHessian(moments, 1).damped({0, true});
  EXPECT_EQ(damped->damping, 1e-4);
  ASSERT_EQ(damped->steps.size(), 1u);
  EXPECT_NE(damped->steps[0].find("damping by 0.0001"), std::string::npos);
  EXPECT_FALSE(damped->factor.empty());

  // Not second moments of anything: far from positive definite.
  for (size_t i = 0; i < K; ++i)
    for (size_t j = 0; j < K; ++j)
      moments[i * K + j] = i == j ? 1 : ((i + j) % 2 ? 9 : -9);
  damped = InputHessian(moments, 1).damped({0.01, true});
  EXPECT_EQ(damped->steps.size(), 3u);
  EXPECT_NE(damped->steps[2].find("8 of its diagonal's entries were raised"),
            std::string::npos);
  EXPECT_FALSE(damped->factor.empty());

  moments[2 * K + 5] = std::numeric_limits<double>::quiet_NaN();
  damped = InputHessian(moments, 1).damped({0.01, true});
  ASSERT_EQ(damped->steps.size(), 1u);
  EXPECT_NE(damped->steps[0].find("inputs 2 and 5 is not finite"),
            std::string::npos);
  EXPECT_TRUE(damped->matrix.empty());
}

TEST(InputHessian, ThreadsDoNotChangeABit) {
  const size_t K = 700;
  Matrix moments = secondMoments(makeInputs(40, K, 5, 3), K);
  auto one = InputHessian(moments, 40).damped({}, 1);
  for (unsigned threads : {2u, 4u}) {
    auto other = InputHessian(moments, 40).damped({}, threads);
    EXPECT_EQ(one->factor, other->factor);
    EXPECT_EQ(one->matrix, other->matrix);
  }
}

TEST(InputHessian, KeepsWhatWasAskedLast) {
  InputHessian hessian(secondMoments(makeInputs(40, 9, 5, 3), 9), 40);
  auto first = hessian.damped({0.01, true});
  EXPECT_EQ(first, hessian.damped({0.01, true}));
  EXPECT_NE(first, hessian.damped({0.02, true}));
}
