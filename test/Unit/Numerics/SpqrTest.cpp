//===- SpqrTest.cpp -------------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "SecondOrderData.h"
#include "nibble/Numerics/RecipeQuantizer.h"

#include <gtest/gtest.h>

using namespace nibble;

namespace {

/// A layer with some weights that no grid of their group holds.
struct SpikyLayer {
  SpikyLayer(size_t K, size_t N)
      : K(K), N(N), moments(secondMoments(makeInputs(4 * K, K, 6, 1), K)),
        weight(makeWeight(K, N, 2)) {
    for (size_t i = 13; i < K * N; i += 97) {
      weight[i] *= 30;
      spikes += std::fabs(weight[i]) > 0.5f;
    }
  }
  QuantizedWeight quantize(const RecipeOptions &options, const char *scheme,
                           unsigned threads = 1) const {
    auto result = RecipeQuantizer(options).quantize(
        MatrixView::rowMajor(weight.data(), K, N), makeStatistics(moments),
        *parseScheme(scheme), threads);
    EXPECT_TRUE(result) << result.error();
    return std::move(*result);
  }

  size_t K, N, spikes = 0;
  Matrix moments;
  std::vector<float> weight;
};

} // namespace

static RecipeOptions spqr(unsigned rounds = 0) {
  RecipeOptions options;
  options.outliers = 0.2;
  options.rounds = rounds;
  options.scales = ScaleObjective::MinMax;
  return options;
}

/// The loss with the outliers in place of what the codes say.
static double lossWithOutliers(const SpikyLayer &layer,
                               const QuantizedWeight &q, const Matrix &H) {
  std::vector<float> weight = layer.weight;
  std::vector<float> back = dequantize(q.matrix);
  for (size_t i = 0; i < q.outliers.values.size(); ++i) {
    size_t at = q.outliers.rows[i] * layer.N + q.outliers.cols[i];
    EXPECT_EQ(back[at], 0);
    weight[at] -= q.outliers.values[i];
  }
  return hessianLoss(weight, q.matrix, H) /
         hessianNorm(layer.weight, layer.K, H);
}

TEST(Spqr, KeepsOutliersApart) {
  SpikyLayer layer(96, 40);
  Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
  for (const char *scheme : {"w3g16", "w4g32s", "w2g48", "nf4g32"})
    for (unsigned rounds : {0, 2}) {
      SCOPED_TRACE(scheme);
      QuantizedWeight q = layer.quantize(spqr(rounds), scheme);
      EXPECT_EQ(RecipeQuantizer(spqr()).name(), "spqr");
      std::pair<uint32_t, uint32_t> last;
      for (size_t i = 0; i < q.outliers.values.size(); ++i) {
        float value = q.outliers.values[i];
        EXPECT_EQ(roundToFormat(FloatFormat::F16, value), value);
        std::pair place(q.outliers.rows[i], q.outliers.cols[i]);
        EXPECT_TRUE(i == 0 || last < place);
        last = place;
      }
      double loss = lossWithOutliers(layer, q, damped);
      EXPECT_NEAR(q.losses.end, loss, 1e-5 * loss);
      EXPECT_LE(q.losses.end, q.losses.gptq);
      EXPECT_EQ(rounds > 0, q.losses.end < q.losses.gptq);
    }
}

/// At three bits the spikes go, few others with them, and the rest is served
/// much better.
TEST(Spqr, FindsWhatDoesNotFit) {
  SpikyLayer layer(96, 40);
  QuantizedWeight q = layer.quantize(spqr(), "w3g16");
  size_t found = 0;
  for (float value : q.outliers.values)
    found += std::fabs(value) > 0.45f;
  EXPECT_GE(found, layer.spikes * 9 / 10);
  EXPECT_LT(q.outliers.values.size(), layer.weight.size() / 20);
  RecipeOptions plain = spqr();
  plain.outliers = 0;
  QuantizedWeight dense = layer.quantize(plain, "w3g16");
  EXPECT_TRUE(dense.outliers.values.empty());
  EXPECT_LT(q.losses.end * 4, dense.losses.end);
}

/// The published algorithm step by step, with exact inverses for factors.
TEST(Spqr, FollowsTheAlgorithm) {
  const size_t K = 48, N = 8, group = 16;
  SpikyLayer layer(K, N);
  QuantizedWeight q = layer.quantize(spqr(), "w3g16");
  Matrix damped = dampNaively(layer.moments, K, 0.01);
  std::vector<uint32_t> order(K);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return damped[a * K + a] > damped[b * K + b];
  });

  // U[k, k]² is the inverse's diagonal when k is next.
  Matrix inverse = invertNaively(damped, K);
  std::vector<Matrix> inverses;
  std::vector<double> square(K);
  for (uint32_t p : order) {
    inverses.push_back(inverse);
    square[p] = inverse[p * K + p];
    for (size_t i = 0; i < K; ++i)
      for (size_t j = 0; j < K; ++j)
        inverse[i * K + j] -=
            inverses.back()[i * K + p] * inverses.back()[p * K + j] / square[p];
  }
  double threshold = 0;
  for (size_t k = 0; k < K; ++k) {
    double mean = 0, variance = 0;
    for (size_t n = 0; n < N; ++n)
      mean += layer.weight[k * N + n] / double(N);
    for (size_t n = 0; n < N; ++n)
      variance += std::pow(layer.weight[k * N + n] - mean, 2) / (N - 1);
    threshold += 0.2 * variance / square[k] / K;
  }

  // Scales from each group without what it is better off without.
  auto fit = [&](const std::vector<double> &w, double &scale, double &zero) {
    double low = 0, high = 0;
    for (double x : w) {
      low = std::min(low, x);
      high = std::max(high, x);
    }
    scale = float((high - low) / 7);
    zero = std::nearbyint(std::clamp(-low / scale, 0.0, 7.0));
  };
  auto back = [](double w, double scale, double zero) {
    double code = std::nearbyint(double(float(w / scale))) + zero;
    return (std::clamp(code, 0.0, 7.0) - zero) * scale;
  };
  for (size_t first = 0; first < K; first += group)
    for (size_t n = 0; n < N; ++n) {
      auto errorOf = [&](size_t without) {
        std::vector<double> w;
        for (size_t k = first; k < first + group; ++k)
          if (k != without)
            w.push_back(layer.weight[k * N + n]);
        double scale, zero, sum = 0;
        fit(w, scale, zero);
        for (size_t k = first; k < first + group; ++k)
          if (k != without) {
            double x = layer.weight[k * N + n];
            sum += std::pow(x - back(x, scale, zero), 2) / square[k];
          }
        return sum;
      };
      std::vector<double> kept;
      for (size_t k = first; k < first + group; ++k)
        if (errorOf(K) - errorOf(k) <= threshold)
          kept.push_back(layer.weight[k * N + n]);
      double scale, zero;
      fit(kept, scale, zero);
      EXPECT_EQ(q.matrix.scales[first / group * N + n], float(scale));
      EXPECT_EQ(q.matrix.zeroPoints[first / group * N + n], zero);
    }

  std::vector<std::pair<size_t, size_t>> outliers;
  for (size_t n = 0; n < N; ++n) {
    std::vector<double> w(K);
    for (size_t k = 0; k < K; ++k)
      w[k] = layer.weight[k * N + n];
    for (size_t step = 0; step < K; ++step) {
      uint32_t p = order[step];
      double value = 0;
      encodeNaively(q.matrix, p, n, w[p], value);
      double error = w[p] - value;
      if (error * error / square[p] > threshold) {
        outliers.emplace_back(p, n);
        error = w[p] - double(roundToFormat(FloatFormat::F16, float(w[p])));
      }
      for (size_t later = step; later < K; ++later)
        w[order[later]] -=
            error / square[p] * inverses[step][order[later] * K + p];
    }
  }
  std::sort(outliers.begin(), outliers.end());
  ASSERT_EQ(q.outliers.rows.size(), outliers.size());
  for (size_t i = 0; i < outliers.size(); ++i) {
    EXPECT_EQ(q.outliers.rows[i], outliers[i].first);
    EXPECT_EQ(q.outliers.cols[i], outliers[i].second);
  }
}

/// About as many elements go as were asked for, those that cost most: all
/// spikes first.
TEST(Spqr, KeepsAShare) {
  SpikyLayer layer(192, 96);
  double last = std::numeric_limits<double>::infinity();
  for (double share : {0.01, 0.02, 0.05, 0.2})
    for (const char *scheme : {"w3g32", "nf4g64"}) {
      SCOPED_TRACE(scheme);
      RecipeOptions options;
      options.outlierShare = share;
      QuantizedWeight q = layer.quantize(options, scheme);
      double found =
          double(q.outliers.values.size()) / double(layer.weight.size());
      EXPECT_GT(found, share * 0.6);
      EXPECT_LT(found, share * 1.5);
      if (std::string(scheme) == "w3g32") {
        EXPECT_LT(q.losses.end, last);
        last = q.losses.end;
      }
    }
}

TEST(Spqr, KeepsNoneOrAll) {
  SpikyLayer layer(32, 8);
  RecipeOptions options;
  options.outlierShare = 1;
  QuantizedWeight q = layer.quantize(options, "w4g16");
  EXPECT_GT(q.outliers.values.size(), layer.weight.size() * 9 / 10);
  EXPECT_LT(q.losses.end, 1e-6);
  for (double share : {-0.1, 1.1}) {
    options.outlierShare = share;
    auto refused = RecipeQuantizer(options).quantize(
        MatrixView::rowMajor(layer.weight.data(), 32, 8),
        makeStatistics(layer.moments), *parseScheme("w4g16"), 1);
    EXPECT_NE(refused.error().find("from 0 to 1"), std::string::npos);
  }
}

TEST(Spqr, ThreadsDoNotChangeABit) {
  SpikyLayer layer(96, 200);
  RecipeOptions options = spqr(2);
  options.nestedScales = {3, 16, FloatFormat::F16};
  QuantizedWeight one = layer.quantize(options, "w3g16", 1);
  EXPECT_FALSE(one.outliers.values.empty());
  for (unsigned threads : {2u, 4u}) {
    QuantizedWeight other = layer.quantize(options, "w3g16", threads);
    EXPECT_EQ(one.matrix.codes, other.matrix.codes);
    EXPECT_EQ(one.matrix.scales, other.matrix.scales);
    EXPECT_EQ(one.outliers.rows, other.outliers.rows);
    EXPECT_EQ(one.outliers.cols, other.outliers.cols);
    EXPECT_EQ(one.outliers.values, other.outliers.values);
    EXPECT_EQ(one.nestedScales->codes, other.nestedScales->codes);
  }
}

TEST(Spqr, RefusesWhatItCannotDo) {
  SpikyLayer layer(32, 8);
  RecipeOptions options = spqr();
  MatrixView view = MatrixView::rowMajor(layer.weight.data(), 32, 8);
  WeightStatistics statistics = makeStatistics(layer.moments);
  auto q = RecipeQuantizer(options).quantize(view, statistics,
                                             *parseScheme("w4t"), 1);
  EXPECT_NE(q.error().find("scales of one column"), std::string::npos);
  options.rounding = SecondOrderRounding::ObqGreedy;
  EXPECT_FALSE(RecipeQuantizer(options).quantize(view, statistics,
                                                 *parseScheme("w4g16"), 1));
  options = {};
  options.nestedScales.bits = 9;
  EXPECT_FALSE(RecipeQuantizer(options).quantize(view, statistics,
                                                 *parseScheme("w4g16"), 1));
}

/// Nothing varies, so nothing stands out.
TEST(Spqr, ConstantWeights) {
  SpikyLayer layer(32, 8);
  std::fill(layer.weight.begin(), layer.weight.end(), 0.25f);
  QuantizedWeight q = layer.quantize(spqr(3), "w3g16");
  EXPECT_TRUE(q.outliers.values.empty());
  EXPECT_LT(q.losses.end, 1e-10);
  layer.weight.assign(32, 1.0f);
  layer.weight[7] = 90;
  layer.N = 1;
  RecipeOptions plain = spqr(3);
  plain.outliers = 0;
  EXPECT_LT(layer.quantize(spqr(3), "w3g16").losses.end,
            layer.quantize(plain, "w3g16").losses.end);
}

//===----------------------------------------------------------------------===//
// Nested scales
//===----------------------------------------------------------------------===//

static void expectNested(const QuantizedWeight &q) {
  const NestedScales &nested = *q.nestedScales;
  ASSERT_EQ(nested.codes.size(), q.matrix.scales.size());
  size_t runs = (nested.codes.size() + nested.runLength - 1) / nested.runLength;
  ASSERT_EQ(nested.steps.size(), runs);
  ASSERT_EQ(nested.zeros.size(), runs);
  for (size_t i = 0; i < nested.codes.size(); ++i) {
    size_t run = i / nested.runLength;
    EXPECT_LT(nested.codes[i], 1u << nested.bits);
    float difference = static_cast<float>(nested.codes[i]) - nested.zeros[run];
    EXPECT_EQ(q.matrix.scales[i], nested.steps[run] * difference);
    EXPECT_NE(q.matrix.scales[i], 0);
  }
  for (const std::vector<float> *list : {&nested.steps, &nested.zeros})
    for (float x : *list)
      EXPECT_EQ(roundToFormat(nested.format, x), x);
}

TEST(NestedScales, CodesFitTheScalesThatRemain) {
  SpikyLayer layer(96, 40);
  Matrix damped = dampNaively(layer.moments, layer.K, 0.01);
  double norm = hessianNorm(layer.weight, layer.K, damped);
  for (const char *scheme : {"nf4g16", "w4g16", "w3g32s", "w4c"}) {
    SCOPED_TRACE(scheme);
    RecipeOptions options;
    QuantizedWeight plain = layer.quantize(options, scheme);
    for (auto [bits, run, format] : {std::tuple(8u, 256u, FloatFormat::F32),
                                     std::tuple(3u, 16u, FloatFormat::F16),
                                     std::tuple(1u, 7u, FloatFormat::BF16)}) {
      options.nestedScales = {bits, run, format};
      QuantizedWeight q = layer.quantize(options, scheme);
      expectNested(q);
      double loss = hessianLoss(layer.weight, q.matrix, damped) / norm;
      EXPECT_NEAR(q.losses.end, loss, 1e-5 * loss);
      EXPECT_EQ(q.losses.gptq, plain.losses.gptq);
    }
  }
}

/// Double quantization costs next to nothing (QLoRA, section 3).
TEST(NestedScales, EightBitsLoseLittle) {
  SpikyLayer layer(256, 64);
  layer.weight = makeWeight(256, 64, 5);
  RecipeOptions options;
  double plain = layer.quantize(options, "nf4g64").losses.end;
  options.nestedScales = {8, 256, FloatFormat::F32};
  EXPECT_LT(layer.quantize(options, "nf4g64").losses.end, plain * 1.02);
}
