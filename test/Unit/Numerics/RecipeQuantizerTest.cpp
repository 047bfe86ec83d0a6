//===- RecipeQuantizerTest.cpp --------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/RecipeQuantizer.h"
#include "SecondOrderData.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

using namespace nibble;

namespace {

struct Layer {
  Layer(size_t K, size_t N, uint32_t seed = 1)
      : K(K), N(N), moments(secondMoments(makeInputs(4 * K, K, 6, seed), K)),
        weight(makeWeight(K, N, seed + 1)) {}

  MatrixView view() const { return MatrixView::rowMajor(weight.data(), K, N); }
  QuantizedWeight quantize(const RecipeOptions &options,
                           const std::string &scheme,
                           unsigned threads = 1) const {
    auto result = RecipeQuantizer(options).quantize(
        view(), makeStatistics(moments), *parseScheme(scheme), threads);
    EXPECT_TRUE(result) << result.error();
    return std::move(*result);
  }

  size_t K, N;
  Matrix moments;
  std::vector<float> weight;
};

} // namespace

static RecipeOptions plainGptq(ScaleObjective scales = ScaleObjective::MinMax) {
  RecipeOptions options;
  options.rounds = 0;
  options.scales = scales;
  return options;
}

static void expectSame(const QuantizedWeight &a, const QuantizedWeight &b) {
  EXPECT_EQ(a.matrix.codes, b.matrix.codes);
  EXPECT_EQ(a.matrix.scales, b.matrix.scales);
  EXPECT_EQ(a.matrix.zeroPoints, b.matrix.zeroPoints);
  EXPECT_EQ(a.losses.end, b.losses.end);
  EXPECT_EQ(a.matrix.squaredError, b.matrix.squaredError);
}

static const char *const schemes[] = {"w2g16",  "w3g16s", "w4g16",  "w4g32s",
                                      "w8g16s", "w4c",    "w4ts",   "nf4g16",
                                      "fp4g32", "w3g48",  "w4g512s"};

TEST(RecipeQuantizer, LossesAreThoseOfTheFormula) {
  Layer layer(90, 21);
  for (const char *scheme : schemes) {
    SCOPED_TRACE(scheme);
    QuantizedWeight q = layer.quantize({}, scheme);
    Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
    double norm = hessianNorm(layer.weight, layer.K, damped);
    double end = hessianLoss(layer.weight, q.matrix, damped) / norm;
    EXPECT_NEAR(q.losses.end, end, 1e-5 * end);
    double rawNorm = hessianNorm(layer.weight, layer.K, layer.moments);
    double raw = hessianLoss(layer.weight, q.matrix, layer.moments) / rawNorm;
    EXPECT_NEAR(q.losses.output, raw, 1e-4 * raw);

    std::vector<float> back = dequantize(q.matrix);
    double squares = 0;
    for (size_t i = 0; i < back.size(); ++i)
      squares += std::pow(double(layer.weight[i]) - back[i], 2);
    EXPECT_NEAR(q.matrix.squaredError, squares, 1e-6 * squares);
    EXPECT_TRUE(q.usesHessian);
    EXPECT_EQ(q.damping, 0.01);
    EXPECT_TRUE(q.notes.empty());
  }
}

TEST(RecipeQuantizer, EveryStepLowersTheLoss) {
  for (size_t N : {21, 70})
    for (const char *scheme : schemes) {
      SCOPED_TRACE(scheme);
      Layer layer(90, N);
      QuantizedWeight gptq =
          layer.quantize(plainGptq(ScaleObjective::Diagonal), scheme);
      EXPECT_LT(gptq.losses.gptq, gptq.losses.rounding);
      EXPECT_LE(gptq.losses.end, gptq.losses.gptq);
      double before = gptq.losses.end;
      for (unsigned rounds = 1; rounds <= 4; ++rounds) {
        RecipeOptions options;
        options.rounds = rounds;
        QuantizedWeight q = layer.quantize(options, scheme);
        EXPECT_EQ(q.losses.rounding, gptq.losses.rounding);
        EXPECT_EQ(q.losses.gptq, gptq.losses.gptq);
        EXPECT_LE(q.losses.end, before);
        before = q.losses.end;
      }
    }
}

TEST(RecipeQuantizer, GptqIsExactBrainQuantizationInItsOrder) {
  // Two lazy blocks and a tail; the groups cross them.
  Layer layer(140, 5);
  for (bool orderByDiagonal : {false, true})
    for (const char *scheme : {"w4g32", "w3g48s", "w2c", "nf4g32", "w8g64s"}) {
      SCOPED_TRACE(scheme);
      RecipeOptions options = plainGptq();
      options.damping.orderByDiagonal = orderByDiagonal;
      QuantizedWeight q = layer.quantize(options, scheme);
      Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
      std::vector<uint32_t> order(layer.K);
      std::iota(order.begin(), order.end(), 0u);
      auto diagonal = [&](uint32_t k) { return damped[k * layer.K + k]; };
      if (orderByDiagonal)
        std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
          return diagonal(a) > diagonal(b);
        });
      QuantizedMatrix expected = q.matrix;
      std::fill(expected.codes.begin(), expected.codes.end(), uint8_t(0));
      quantizeInOrderNaively(layer.weight, damped, order, expected);
      double norm = hessianNorm(layer.weight, layer.K, damped);
      double loss = hessianLoss(layer.weight, expected, damped) / norm;
      EXPECT_NEAR(hessianLoss(layer.weight, q.matrix, damped) / norm, loss,
                  1e-6 * loss);
      // What is reported is summed in f32, as exactly as BLAS's kernels do.
      EXPECT_NEAR(q.losses.gptq, loss, 1e-5 * loss);
    }
}

TEST(RecipeQuantizer, ObqInOrderIsGptq) {
  Layer layer(140, 20);
  for (const char *scheme : {"w4g32", "w3g48s", "w2c", "nf4g32", "w4ts"}) {
    SCOPED_TRACE(scheme);
    RecipeOptions options = plainGptq();
    QuantizedWeight gptq = layer.quantize(options, scheme);
    options.rounding = SecondOrderRounding::ObqInOrder;
    QuantizedWeight obq = layer.quantize(options, scheme);
    Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
    double loss = hessianLoss(layer.weight, gptq.matrix, damped);
    EXPECT_NEAR(hessianLoss(layer.weight, obq.matrix, damped), loss,
                1e-6 * loss);
    EXPECT_NEAR(obq.losses.gptq, gptq.losses.gptq, 1e-5 * gptq.losses.gptq);
    EXPECT_EQ(RecipeQuantizer(options).name(), "obq");
  }
}

/// Each weight of a column the cheapest one that remains, step by step.
TEST(RecipeQuantizer, ObqIsGreedy) {
  const size_t K = 24;
  Layer layer(K, 1);
  RecipeOptions options = plainGptq();
  options.rounding = SecondOrderRounding::ObqGreedy;
  QuantizedWeight q = layer.quantize(options, "w3g8");
  Matrix damped = dampNaively(layer.moments, K, 0.01);

  QuantizedMatrix expected = q.matrix;
  std::vector<double> w(layer.weight.begin(), layer.weight.end());
  std::vector<size_t> left(K);
  std::iota(left.begin(), left.end(), size_t(0));
  while (!left.empty()) {
    size_t n = left.size();
    Matrix H(n * n);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j)
        H[i * n + j] = damped[left[i] * K + left[j]];
    Matrix inverse = invertNaively(H, n);
    double least = INFINITY, error = 0;
    size_t best = 0;
    for (size_t i = 0; i < n; ++i) {
      double value = 0;
      encodeNaively(expected, left[i], 0, w[left[i]], value);
      double e = w[left[i]] - value;
      if (e * e / inverse[i * n + i] < least) {
        least = e * e / inverse[i * n + i];
        error = e / inverse[i * n + i];
        best = i;
      }
    }
    double value = 0;
    expected.codes[left[best]] =
        encodeNaively(expected, left[best], 0, w[left[best]], value);
    for (size_t i = 0; i < n; ++i)
      w[left[i]] -= error * inverse[i * n + best];
    left.erase(left.begin() + static_cast<ptrdiff_t>(best));
  }
  double loss = hessianLoss(layer.weight, expected, damped) /
                hessianNorm(layer.weight, K, damped);
  EXPECT_NEAR(q.losses.gptq, loss, 1e-6 * loss);
}

/// The search under the blocks' Hessians: no candidate of the documented list
/// is better, and min/max and the diagonal's choice never are.
TEST(RecipeQuantizer, BlockSearchIsBestInEveryBlock) {
  const size_t K = 40, N = 19, group = 16;
  Layer layer(K, N);
  auto damped = InputHessian(layer.moments, 9).damped({});
  auto loss = [&](const QuantizedMatrix &q, size_t block, size_t n) {
    std::vector<float> back = dequantize(q);
    double sum = 0;
    size_t end = std::min(K, (block + 1) * group);
    for (size_t i = block * group; i < end; ++i)
      for (size_t j = block * group; j < end; ++j)
        sum += (double(layer.weight[i * N + n]) - back[i * N + n]) *
               damped->matrix[i * K + j] *
               (double(layer.weight[j * N + n]) - back[j * N + n]);
    return sum;
  };
  for (const char *name : {"w4g16s", "w3g16", "nf4g16"}) {
    SCOPED_TRACE(name);
    Scheme scheme = *parseScheme(name);
    BlockQuantizerOptions options;
    options.storage = scheme.storage;
    options.block = scheme.blockShape();
    options.symmetric = scheme.symmetric;
    auto minMax = quantizeBlocks(layer.view(), options);
    options.search = ScaleSearch::LeastSquares;
    options.hessian = damped->matrix.data();
    auto q = quantizeBlocks(layer.view(), options);
    ASSERT_TRUE(q && minMax);
    for (size_t block = 0; block < q->blockRows(); ++block)
      for (size_t n = 0; n < N; ++n) {
        double best = loss(*q, block, n) * (1 - 1e-5);
        EXPECT_LE(best, loss(*minMax, block, n));
        if (!scheme.symmetric && scheme.storage.isInteger())
          continue;
        QuantizedMatrix other = *q;
        double largest = 0;
        for (size_t i = block * group; i < std::min(K, (block + 1) * group);
             ++i)
          largest =
              std::max<double>(largest, std::fabs(layer.weight[i * N + n]));
        for (int step = 0; step < 20; ++step)
          for (double sign : {1.0, -1.0}) {
            if (sign < 0 && !scheme.storage.isInteger())
              continue;
            other.scales[block * N + n] =
                static_cast<float>(sign * (1.15 - 0.65 * step / 19) * largest /
                                   largestMagnitude(scheme.storage));
            auto rounded = roundToScales(layer.view(), other);
            EXPECT_LE(best, loss(*rounded, block, n)) << step;
          }
      }
  }
  BlockQuantizerOptions tooWide;
  tooWide.block = {0, 0};
  tooWide.hessian = damped->matrix.data();
  EXPECT_NE(quantizeBlocks(layer.view(), tooWide).error().find("one column"),
            std::string::npos);
}

TEST(RecipeQuantizer, EveryObjectiveIsSound) {
  Layer layer(150, 20);
  for (ScaleObjective scales :
       {ScaleObjective::MinMax, ScaleObjective::Squares,
        ScaleObjective::Diagonal, ScaleObjective::Blocks})
    for (const char *scheme : schemes) {
      SCOPED_TRACE(scheme);
      RecipeOptions options;
      options.scales = scales;
      QuantizedWeight q = layer.quantize(options, scheme);
      EXPECT_LT(q.losses.gptq, q.losses.rounding);
      EXPECT_LE(q.losses.end, q.losses.gptq);
    }
}

TEST(RecipeQuantizer, AnotherPassLowersTheLoss) {
  Layer layer(256, 64);
  for (const char *scheme : {"w3g64", "w2g32s", "nf4g64"}) {
    SCOPED_TRACE(scheme);
    RecipeOptions options;
    options.passes = 1;
    QuantizedWeight one = layer.quantize(options, scheme);
    options.passes = 2;
    QuantizedWeight two = layer.quantize(options, scheme);
    EXPECT_EQ(one.losses.gptq, two.losses.gptq);
    EXPECT_LT(two.losses.end, one.losses.end);
    // Plain GPTQ stays what it is.
    options.rounds = 0;
    options.passes = 9;
    QuantizedWeight plain = layer.quantize(options, scheme);
    EXPECT_EQ(plain.matrix.scales,
              layer.quantize(plainGptq(ScaleObjective::Diagonal), scheme)
                  .matrix.scales);
  }
}

/// Rounding under the same searches; each sees more of the Hessian and loses
/// less.
TEST(RecipeQuantizer, RoundsToNearestToo) {
  Layer layer(150, 40);
  double last = INFINITY;
  for (ScaleObjective scales :
       {ScaleObjective::MinMax, ScaleObjective::Diagonal,
        ScaleObjective::Blocks}) {
    RecipeOptions options = plainGptq(scales);
    QuantizedWeight gptq = layer.quantize(options, "w3g32");
    options.rounding = SecondOrderRounding::Nearest;
    QuantizedWeight q = layer.quantize(options, "w3g32");
    EXPECT_EQ(RecipeQuantizer(options).name(), "round");
    EXPECT_EQ(q.losses.end, gptq.losses.rounding);
    EXPECT_TRUE(std::isnan(q.losses.gptq));
    auto again = roundToScales(layer.view(), q.matrix);
    EXPECT_EQ(again->codes, q.matrix.codes);
    EXPECT_LT(q.losses.end, last);
    last = q.losses.end;
    options.rounds = 2;
    EXPECT_LT(layer.quantize(options, "w3g32").losses.end, last);
  }
}

/// No single code can be changed for the better when descent has converged.
TEST(RecipeQuantizer, DescentEndsInALocalOptimum) {
  Layer layer(40, 3);
  for (const char *scheme : {"w3g16", "w4g16s", "nf4g16"}) {
    SCOPED_TRACE(scheme);
    RecipeOptions options;
    options.rounds = 60;
    QuantizedWeight q = layer.quantize(options, scheme);
    Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
    double loss = hessianLoss(layer.weight, q.matrix, damped);
    for (uint8_t &code : q.matrix.codes) {
      uint8_t old = code;
      for (int other = smallestCode(q.matrix.storage);
           other <= largestCode(q.matrix.storage); ++other) {
        code = static_cast<uint8_t>(other);
        EXPECT_GE(hessianLoss(layer.weight, q.matrix, damped),
                  loss * (1 - 1e-5));
      }
      code = old;
    }
    // Nor can a scale.
    for (float &scale : q.matrix.scales)
      for (float factor : {0.999f, 1.001f}) {
        float old = scale;
        scale *= factor;
        EXPECT_GE(hessianLoss(layer.weight, q.matrix, damped),
                  loss * (1 - 1e-5));
        scale = old;
      }
  }
}

TEST(RecipeQuantizer, ScalesAreOfTheirFormat) {
  Layer layer(64, 20);
  for (FloatFormat format :
       {FloatFormat::F16, FloatFormat::BF16, FloatFormat::F8E8M0FNU}) {
    Scheme scheme = *parseScheme("w3g16s");
    scheme.scaleFormat = format;
    auto q = RecipeQuantizer().quantize(
        layer.view(), makeStatistics(layer.moments), scheme, 1);
    ASSERT_TRUE(q);
    for (float scale : q->matrix.scales)
      EXPECT_EQ(roundToFormat(format, scale), scale);
    EXPECT_LE(q->losses.end, q->losses.gptq);
    Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
    double end = hessianLoss(layer.weight, q->matrix, damped) /
                 hessianNorm(layer.weight, layer.K, damped);
    EXPECT_NEAR(q->losses.end, end, 1e-5 * end);
  }
}

TEST(RecipeQuantizer, ThreadsAndLayoutDoNotChangeABit) {
  Layer layer(150, 200);
  std::vector<float> transposed(layer.weight.size());
  for (size_t k = 0; k < layer.K; ++k)
    for (size_t n = 0; n < layer.N; ++n)
      transposed[n * layer.K + k] = layer.weight[k * layer.N + n];
  for (const char *scheme : {"w4g32s", "w3g128", "w4t"}) {
    QuantizedWeight one = layer.quantize({}, scheme, 1);
    expectSame(one, layer.quantize({}, scheme, 2));
    expectSame(one, layer.quantize({}, scheme, 4));
    auto other = RecipeQuantizer().quantize(
        MatrixView::columnMajor(transposed.data(), layer.K, layer.N),
        makeStatistics(layer.moments), *parseScheme(scheme), 2);
    ASSERT_TRUE(other);
    expectSame(one, *other);
  }
}

/// The fewer the bits, the more rounding loses and GPTQ holds.
TEST(RecipeQuantizer, RoundingCollapsesWhereGptqHolds) {
  Layer layer(256, 64);
  for (const char *scheme : {"w3c", "w2g64"}) {
    SCOPED_TRACE(scheme);
    QuantizedWeight q = layer.quantize(plainGptq(), scheme);
    EXPECT_LT(q.losses.gptq * 3, q.losses.rounding);
  }
}

/// On normal weights a code book of normal quantiles beats integers of as many
/// bits (QLoRA, https://arxiv.org/abs/2305.14314, section 4), in blocks of 64.
TEST(RecipeQuantizer, NormalFloatsBeatIntegersOnNormalWeights) {
  Layer layer(512, 128);
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (float &weight : layer.weight)
    weight = normal(random);
  RecipeOptions rounding;
  rounding.rounding = SecondOrderRounding::Nearest;
  rounding.rounds = 0;
  for (ScaleObjective scales :
       {ScaleObjective::MinMax, ScaleObjective::Squares}) {
    rounding.scales = scales;
    double integers = layer.quantize(rounding, "w4g64s").matrix.squaredError;
    double floats = layer.quantize(rounding, "nf4g64").matrix.squaredError;
    EXPECT_LT(floats, 0.95 * integers);
  }
}

TEST(RecipeQuantizer, WithoutHessianRoundsAndSaysSo) {
  Layer layer(64, 20);
  Scheme scheme = *parseScheme("w4g16");
  auto q = RecipeQuantizer().quantize(layer.view(), {}, scheme, 1);
  ASSERT_TRUE(q);
  EXPECT_FALSE(q->usesHessian);
  ASSERT_EQ(q->notes.size(), 1u);
  EXPECT_NE(q->notes[0].find("no Hessian: rounded"), std::string::npos);
  auto rounded = RoundingQuantizer(ScaleSearch::LeastSquares)
                     .quantize(layer.view(), {}, scheme, 1);
  EXPECT_EQ(q->matrix.codes, rounded->matrix.codes);
}

//===----------------------------------------------------------------------===//
// Adversarial layers
//===----------------------------------------------------------------------===//

/// Holds of any result: finite, and the losses fall.
static void expectSound(const QuantizedWeight &q) {
  for (float x : dequantize(q.matrix))
    EXPECT_TRUE(std::isfinite(x));
  for (float scale : q.matrix.scales)
    EXPECT_TRUE(std::isfinite(scale) && scale != 0);
  if (!q.usesHessian)
    return;
  EXPECT_LE(q.losses.end, q.losses.gptq);
  EXPECT_LE(q.losses.end, q.losses.rounding);
}

static void expectSoundEverywhere(const Layer &layer) {
  for (const char *scheme : schemes) {
    SCOPED_TRACE(scheme);
    expectSound(layer.quantize({}, scheme));
  }
}

TEST(AdversarialLayers, AllZeroWeights) {
  Layer layer(48, 20);
  std::fill(layer.weight.begin(), layer.weight.end(), 0.0f);
  for (const char *scheme : schemes) {
    QuantizedWeight q = layer.quantize({}, scheme);
    expectSound(q);
    EXPECT_EQ(q.losses.end, 0);
    EXPECT_EQ(q.matrix.squaredError, 0);
  }
}

TEST(AdversarialLayers, AllZeroInputs) {
  Layer layer(48, 20);
  std::fill(layer.moments.begin(), layer.moments.end(), 0.0);
  expectSoundEverywhere(layer);
  QuantizedWeight q = layer.quantize({}, "w4g16");
  EXPECT_EQ(q.losses.output, 0);
  EXPECT_NE(q.notes[0].find("48 of 48 inputs were always zero"),
            std::string::npos);
  // Nothing is known of the inputs, so the weights are the target.
  EXPECT_LT(q.matrix.squaredError, 0.01 * q.matrix.squaredNorm);
}

TEST(AdversarialLayers, OneInputAMillionTimesLarger) {
  Layer layer(48, 20);
  for (size_t k = 0; k < layer.K; ++k) {
    layer.moments[5 * layer.K + k] *= 1e6;
    layer.moments[k * layer.K + 5] *= 1e6;
  }
  expectSoundEverywhere(layer);
}

TEST(AdversarialLayers, OneColumnAMillionTimesLarger) {
  Layer layer(48, 20);
  QuantizedWeight plain = layer.quantize({}, "w4g16");
  for (size_t k = 0; k < layer.K; ++k)
    layer.weight[k * layer.N + 7] *= 1048576;
  expectSoundEverywhere(layer);
  // The other columns do not notice.
  QuantizedWeight scaled = layer.quantize({}, "w4g16");
  EXPECT_EQ(plain.matrix.codes, scaled.matrix.codes);
}

TEST(AdversarialLayers, DuplicatedAndDependentInputs) {
  Layer layer(48, 20);
  Matrix inputs = makeInputs(200, 48, 6, 9);
  for (size_t row = 0; row < 200; ++row) {
    double *x = &inputs[row * 48];
    x[10] = x[11];
    x[20] = x[21] + x[22] - 2 * x[23];
  }
  layer.moments = secondMoments(inputs, 48);
  expectSoundEverywhere(layer);
  // Singular without damping: the ladder finds one that works.
  RecipeOptions options;
  options.damping.damping = 0;
  for (const char *scheme : schemes)
    expectSound(layer.quantize(options, scheme));
}

TEST(AdversarialLayers, RankOne) {
  Layer layer(48, 20);
  for (size_t i = 0; i < 48; ++i)
    for (size_t j = 0; j < 48; ++j)
      layer.moments[i * 48 + j] = (1.0 + double(i)) * (1.0 + double(j));
  expectSoundEverywhere(layer);
}

TEST(AdversarialLayers, FewerSamplesThanChannels) {
  Layer layer(96, 20);
  layer.moments = secondMoments(makeInputs(7, 96, 6, 4), 96);
  expectSoundEverywhere(layer);
}

TEST(AdversarialLayers, NanInTheData) {
  Layer layer(48, 20);
  Matrix good = layer.moments;
  layer.moments[3 * 48 + 9] = std::numeric_limits<double>::quiet_NaN();
  QuantizedWeight q = layer.quantize({}, "w4g16");
  expectSound(q);
  EXPECT_FALSE(q.usesHessian);
  EXPECT_NE(q.notes[0].find("inputs 3 and 9 is not finite"), std::string::npos);

  // The diagonal too, for what looks no further.
  layer.moments[9 * 48 + 9] = std::numeric_limits<double>::infinity();
  auto rounded = RoundingQuantizer(ScaleSearch::LeastSquares)
                     .quantize(layer.view(), makeStatistics(layer.moments),
                               *parseScheme("w4g16"), 1);
  ASSERT_TRUE(rounded) << rounded.error();
  ASSERT_EQ(rounded->notes.size(), 1u);
  EXPECT_NE(rounded->notes[0].find("not used"), std::string::npos);

  layer.moments = good;
  layer.weight[5 * 20 + 2] = std::numeric_limits<float>::quiet_NaN();
  auto bad = RecipeQuantizer().quantize(layer.view(), makeStatistics(good),
                                        *parseScheme("w4g16"), 1);
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().find("[5, 2] is NaN"), std::string::npos);
}

TEST(AdversarialLayers, ExtremeShapes) {
  for (size_t K : {1, 5, 9 * 16, 9 * 16 - 1})
    for (size_t N : {1, 3, 65}) {
      SCOPED_TRACE(std::to_string(K) + " x " + std::to_string(N));
      expectSoundEverywhere(Layer(K, N));
    }
}

TEST(AdversarialLayers, TooLargeForObq) {
  Layer layer(1, 2);
  layer.K = 1025;
  layer.weight = makeWeight(1025, 2, 1);
  layer.moments.assign(1025 * 1025, 0.1);
  RecipeOptions options;
  options.rounding = SecondOrderRounding::ObqGreedy;
  QuantizedWeight q = layer.quantize(options, "w4g128");
  expectSound(q);
  ASSERT_EQ(q.notes.size(), 1u);
  EXPECT_NE(q.notes[0].find("rounded by GPTQ"), std::string::npos);
}

TEST(AdversarialLayers, NoRowsOrColumns) {
  for (auto [K, N] : {std::pair<size_t, size_t>(0, 4), {4, 0}}) {
    WeightStatistics statistics = makeStatistics(Matrix(K * K, 1.0));
    auto q = RecipeQuantizer().quantize(MatrixView::rowMajor(nullptr, K, N),
                                        statistics, *parseScheme("w4g16"), 1);
    EXPECT_TRUE(q) << q.error();
  }
}

TEST(AdversarialLayers, StatisticsOfAnotherLayer) {
  Layer layer(48, 20);
  auto q = RecipeQuantizer().quantize(layer.view(),
                                      makeStatistics(Matrix(47 * 47, 1.0)),
                                      *parseScheme("w4g16"), 1);
  ASSERT_FALSE(q);
  EXPECT_NE(q.error().find("of 47 inputs, but the weight has 48"),
            std::string::npos);
}
