//===- OutputQualityTest.cpp - How two models' outputs differ -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/OutputQuality.h"

#include "gtest/gtest.h"

#include <cmath>

using namespace nibble;

// The expected numbers are NumPy's and SciPy's (log_softmax, rel_entr, sem).
namespace {

const float kReference[3][4] = {{1, 2, 3, 4}, {0, 0, 0, 0}, {-1, 5, 2, 0.5f}};
const float kOther[3][4] = {{1, 2, 4, 3}, {1, 0, 0, 0}, {-1, 5, 2, 0.5f}};

OutputQuality compare(OutputKind kind) {
  OutputComparison comparison(kind);
  const int64_t targets[3] = {3, 0, -1};
  for (int row = 0; row < 3; ++row)
    comparison.addRow(kReference[row], kOther[row], 4, targets[row]);
  return comparison.summarize();
}

TEST(OutputQuality, Numbers) {
  OutputQuality quality = compare(OutputKind::Numbers);
  EXPECT_EQ(quality.rows, 3u);
  // 59.25 / sqrt(60.25 * 61.25) and 10 log10(60.25 / 3).
  EXPECT_NEAR(quality.cosine, 0.975342, 1e-6);
  EXPECT_NEAR(quality.sqnr, 13.028358, 1e-6);
  EXPECT_FALSE(quality.divergence.has_value());
}

TEST(OutputQuality, Logits) {
  OutputQuality quality = compare(OutputKind::Logits);
  ASSERT_TRUE(quality.divergence.has_value());
  const DivergenceSummary &kl = *quality.divergence;
  EXPECT_NEAR(kl.mean.mean, 0.171468, 1e-6);
  EXPECT_NEAR(kl.mean.error, 0.121792, 1e-6);
  EXPECT_NEAR(kl.max, 0.407031, 1e-6);
  EXPECT_NEAR(kl.percentile99, 0.407031, 1e-6);
  // The first number of equals is the largest.
  EXPECT_NEAR(kl.topAgreement, 2.0 / 3, 1e-12);
  ASSERT_TRUE(quality.perplexity.has_value());
  EXPECT_NEAR(quality.perplexity->reference.mean, 2.492390, 1e-6);
  EXPECT_NEAR(quality.perplexity->other.mean, 2.980017, 1e-6);
}

TEST(OutputQuality, Probabilities) {
  OutputComparison comparison(OutputKind::Probabilities);
  const float reference[2] = {0.25f, 0.75f}, other[2] = {0.5f, 0.5f};
  comparison.addRow(reference, other, 2);
  OutputQuality quality = comparison.summarize();
  EXPECT_NEAR(quality.divergence->mean.mean,
              0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-7);
  EXPECT_EQ(quality.divergence->mean.error, 0);
}

TEST(OutputQuality, EqualOutputs) {
  OutputComparison comparison(OutputKind::Logits);
  const float zeros[2] = {0, 0};
  comparison.addRow(zeros, zeros, 2, 1);
  OutputQuality quality = comparison.summarize();
  EXPECT_EQ(quality.cosine, 1);
  EXPECT_TRUE(std::isinf(quality.sqnr));
  EXPECT_EQ(quality.divergence->max, 0);
  EXPECT_NEAR(quality.perplexity->other.mean, 2, 1e-12);
}

TEST(OutputQuality, ProductError) {
  const float inputs[4] = {1, 2, 3, 4}, weight[4] = {1, 0, 0, 1},
              other[4] = {1, 0, 0, 0};
  // Lost: the second column, [2, 4].
  EXPECT_NEAR(relativeProductError(inputs, 2, weight, other, 2, 2), 20.0 / 30,
              1e-6);
  const float zeros[4] = {};
  EXPECT_EQ(relativeProductError(zeros, 2, weight, other, 2, 2), 0);
}

} // namespace
