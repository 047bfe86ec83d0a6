//===- InputScalingTest.cpp -----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/InputScaling.h"
#include "SecondOrderData.h"
#include "nibble/Numerics/RecipeQuantizer.h"

#include <gtest/gtest.h>

using namespace nibble;

static MatrixView view(const std::vector<float> &weight, size_t K) {
  return MatrixView::rowMajor(weight.data(), K, weight.size() / K);
}

/// The error of rounding s W to min/max scales, divided by s again.
static QuantizedMatrix roundScaled(const std::vector<float> &weight, size_t K,
                                   const std::vector<float> &scales,
                                   const Scheme &scheme,
                                   std::vector<float> &error) {
  size_t N = weight.size() / K;
  std::vector<float> scaled = weight;
  for (size_t i = 0; i < scaled.size(); ++i)
    scaled[i] *= scales[i / N];
  auto q = RoundingQuantizer(ScaleSearch::MinMax)
               .quantize(view(scaled, K), {}, scheme, 1);
  error = dequantize(q->matrix);
  for (size_t i = 0; i < error.size(); ++i)
    error[i] = weight[i] - error[i] / scales[i / N];
  return q->matrix;
}

TEST(OutlierInputs, AreThoseOfAbsoluteMagnitude) {
  EXPECT_EQ(findOutlierInputs({1, 6, 5.9f, NAN, 100}),
            (std::vector<uint32_t>{1, 3, 4}));
  EXPECT_EQ(findOutlierInputs({1, 6}, 7), (std::vector<uint32_t>{}));
}

TEST(OutlierInputs, TheirRowsAreKeptInHalfPrecision) {
  const size_t K = 48, N = 20;
  std::vector<float> weight = makeWeight(K, N, 1);
  Matrix moments = secondMoments(makeInputs(200, K, 6, 2), K);
  WeightStatistics statistics = makeStatistics(moments);
  statistics.inputMaxima.assign(K, 1.0f);
  statistics.inputMaxima[5] = 8;
  statistics.inputMaxima[40] = 60;
  RecipeQuantizer recipe;
  RoundingQuantizer rounding(ScaleSearch::LeastSquares);
  for (const WeightQuantizer *inner :
       {static_cast<const WeightQuantizer *>(&recipe),
        static_cast<const WeightQuantizer *>(&rounding)})
    for (const char *scheme : {"w8cs", "w4g16", "nf4g16"}) {
      SCOPED_TRACE(scheme);
      auto q = OutlierInputsQuantizer(*inner).quantize(
          view(weight, K), statistics, *parseScheme(scheme), 1);
      ASSERT_TRUE(q) << q.error();
      ASSERT_EQ(q->outlierInputs.inputs, (std::vector<uint32_t>{5, 40}));
      std::vector<float> back = dequantize(q->matrix);
      for (size_t i = 0; i < 2; ++i)
        for (size_t n = 0; n < N; ++n) {
          size_t at = q->outlierInputs.inputs[i] * N + n;
          EXPECT_EQ(back[at], 0);
          back[at] = q->outlierInputs.values[i * N + n];
          EXPECT_EQ(back[at], roundToFormat(FloatFormat::F16, weight[at]));
        }
      double error = 0, norm = 0;
      for (size_t i = 0; i < back.size(); ++i) {
        error += std::pow(double(weight[i]) - back[i], 2);
        norm += std::pow(double(weight[i]), 2);
      }
      EXPECT_NEAR(q->matrix.squaredError, error, 1e-5 * error);
      EXPECT_NEAR(q->matrix.squaredNorm, norm, 1e-6 * norm);
    }
  statistics.inputMaxima.clear();
  auto q = OutlierInputsQuantizer(rounding).quantize(
      view(weight, K), statistics, *parseScheme("w8cs"), 1);
  EXPECT_TRUE(q->outlierInputs.inputs.empty());
  EXPECT_EQ(q->notes.size(), 1u);
  statistics.inputMaxima.assign(K + 1, 9.0f);
  EXPECT_FALSE(OutlierInputsQuantizer(rounding).quantize(
      view(weight, K), statistics, *parseScheme("w8cs"), 1));
}

TEST(SmoothQuant, FollowsTheFormula) {
  const size_t K = 6;
  std::vector<float> a = makeWeight(K, 4, 1), b = makeWeight(K, 3, 2);
  std::vector<float> maxima = {1, 50, 0.5f, 2, 0, 3};
  std::fill(a.begin() + 5 * 4, a.end(), 0.0f);
  std::fill(b.begin() + 5 * 3, b.end(), 0.0f);
  for (double strength : {0.0, 0.5, 0.85, 1.0}) {
    auto scales =
        findSmoothQuantScales(maxima, {view(a, K), view(b, K)}, strength);
    ASSERT_TRUE(scales);
    for (size_t k = 0; k < K; ++k) {
      double largest = 0;
      for (size_t n = 0; n < 4; ++n)
        largest = std::max<double>(largest, std::fabs(a[k * 4 + n]));
      for (size_t n = 0; n < 3; ++n)
        largest = std::max<double>(largest, std::fabs(b[k * 3 + n]));
      double expected = k == 4 || k == 5 ? 1
                                         : std::pow(maxima[k], strength) /
                                               std::pow(largest, 1 - strength);
      EXPECT_NEAR((*scales)[k], expected, 1e-6 * expected);
    }
  }
  maxima[2] = INFINITY;
  EXPECT_NE(findSmoothQuantScales(maxima, {view(a, K)}).error().find("input 2"),
            std::string::npos);
  maxima.pop_back();
  EXPECT_FALSE(findSmoothQuantScales(maxima, {view(a, K)}));
}

TEST(Awq, ScalesFollowTheFormula) {
  std::vector<float> magnitudes = {0.5f, 4, 0, 1e-9f, 2};
  for (double exponent : {0.0, 0.35, 0.95}) {
    std::vector<float> scales = makeAwqScales(magnitudes, exponent);
    double least = INFINITY, largest = 0;
    for (float m : magnitudes) {
      double s = std::max(std::pow(double(m), exponent), 1e-4);
      least = std::min(least, s);
      largest = std::max(largest, s);
    }
    for (size_t k = 0; k < scales.size(); ++k) {
      double s = std::max(std::pow(double(magnitudes[k]), exponent), 1e-4) /
                 std::sqrt(least * largest);
      EXPECT_NEAR(scales[k], s, 1e-6 * s);
    }
  }
}

TEST(Awq, SearchFindsTheBestExponent) {
  const size_t K = 40;
  Matrix inputs = makeInputs(200, K, 6, 3);
  std::vector<float> magnitudes(K);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (i % K == 9)
      inputs[i] *= 20;
    magnitudes[i % K] += static_cast<float>(std::fabs(inputs[i]) / 200);
  }
  Matrix moments = secondMoments(inputs, K);
  Matrix diagonal(K * K, 0);
  std::vector<float> squares(K);
  for (size_t k = 0; k < K; ++k) {
    squares[k] = static_cast<float>(moments[k * (K + 1)]);
    diagonal[k * (K + 1)] = squares[k];
  }
  std::vector<std::vector<float>> weights = {makeWeight(K, 20, 4),
                                             makeWeight(K, 9, 5)};
  // Weights of one input may be stored in different ways.
  std::vector<Scheme> schemes = {*parseScheme("w3g16"), *parseScheme("w2g8")};
  std::vector<AwqWeight> both = {{view(weights[0], K), schemes[0]},
                                 {view(weights[1], K), schemes[1]}};
  auto found = searchAwqScales(both, magnitudes, squares, 2);
  ASSERT_TRUE(found) << found.error();

  double norm = 0, least = INFINITY, before = 0, bestExponent = 0;
  for (const std::vector<float> &weight : weights)
    norm += hessianNorm(weight, K, diagonal);
  for (int step = 0; step < 20; ++step) {
    double loss = 0;
    for (size_t i = 0; i < 2; ++i) {
      std::vector<float> error;
      roundScaled(weights[i], K, makeAwqScales(magnitudes, step / 20.0),
                  schemes[i], error);
      loss += hessianNorm(error, K, diagonal) / norm;
    }
    if (step == 0)
      before = loss;
    if (loss < least) {
      least = loss;
      bestExponent = step / 20.0;
    }
  }
  EXPECT_EQ(found->exponent, bestExponent);
  EXPECT_GT(bestExponent, 0);
  EXPECT_NEAR(found->lossBefore, before, 1e-4 * before);
  EXPECT_NEAR(found->lossAfter, least, 1e-4 * least);
  EXPECT_EQ(found->scales, makeAwqScales(magnitudes, bestExponent));
  auto one = searchAwqScales(both, magnitudes, squares, 1);
  EXPECT_EQ(one->lossAfter, found->lossAfter);
  magnitudes[3] = NAN;
  EXPECT_FALSE(searchAwqScales(both, magnitudes, squares));
  magnitudes[3] = 1;
  squares.pop_back();
  EXPECT_FALSE(searchAwqScales(both, magnitudes, squares));
}

TEST(Awq, ClipsAreTheBestOfTen) {
  const size_t K = 40, N = 7, group = 16;
  Matrix moments = secondMoments(makeInputs(200, K, 6, 3), K);
  auto hessian = InputHessian(moments, 200).damped({0.01, true});
  std::vector<float> weight = makeWeight(K, N, 6);
  for (size_t i = 0; i < weight.size(); i += 19)
    weight[i] *= 3;
  Scheme scheme = *parseScheme("w2g16");
  auto clips = searchAwqClips(view(weight, K), *hessian, scheme, 2);
  ASSERT_TRUE(clips) << clips.error();
  ASSERT_EQ(clips->size(), 3 * N);
  size_t clipped = 0;
  for (size_t block = 0; block < 3; ++block)
    for (size_t n = 0; n < N; ++n) {
      size_t first = block * group, end = std::min(K, first + group);
      float largest = 0;
      for (size_t k = first; k < end; ++k)
        largest = std::max(largest, std::fabs(weight[k * N + n]));
      double least = INFINITY;
      float best = 0;
      for (int i = 0; i < 10; ++i) {
        float limit = largest * (1 - static_cast<float>(i) / 20);
        std::vector<float> column, e;
        for (size_t k = first; k < end; ++k)
          column.push_back(std::clamp(weight[k * N + n], -limit, limit));
        auto q = RoundingQuantizer(ScaleSearch::MinMax)
                     .quantize(view(column, column.size()), {}, scheme, 1);
        std::vector<float> back = dequantize(q->matrix);
        double loss = 0;
        for (size_t a = first; a < end; ++a)
          for (size_t b = first; b < end; ++b)
            loss += (double(weight[a * N + n]) - back[a - first]) *
                    hessian->matrix[a * K + b] *
                    (double(weight[b * N + n]) - back[b - first]);
        if (loss < least) {
          least = loss;
          best = limit;
        }
      }
      EXPECT_EQ((*clips)[block * N + n], best);
      clipped += best < largest;
    }
  EXPECT_GT(clipped, N);
  std::vector<float> clamped = clampBlocks(view(weight, K), group, *clips);
  for (size_t i = 0; i < clamped.size(); ++i)
    EXPECT_EQ(
        std::fabs(clamped[i]),
        std::min(std::fabs(weight[i]), (*clips)[i / N / group * N + i % N]));
  EXPECT_FALSE(
      searchAwqClips(view(weight, K), *hessian, *parseScheme("w4t"), 1));
}
