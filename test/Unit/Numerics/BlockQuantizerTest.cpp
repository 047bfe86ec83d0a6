//===- BlockQuantizerTest.cpp ---------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

// Everything against a twin that follows the documentation one element at a
// time in double precision. Since every quotient and product of two f32 numbers
// is the same whether it is rounded from double or computed in f32, the twin's
// bits are the expected ones, not an approximation.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/BlockQuantizer.h"
#include "nibble/Numerics/WeightQuantizer.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

using namespace nibble;

//===----------------------------------------------------------------------===//
// The twin
//===----------------------------------------------------------------------===//

namespace {

struct Parameters {
  float scale;
  int zero;
};

/// One block as a list of numbers with weights.
struct TwinBlock {
  const BlockQuantizerOptions &options;
  std::vector<float> values;
  std::vector<double> weights;

  bool isInteger() const { return options.storage.isInteger(); }
  bool isAsymmetric() const { return isInteger() && !options.symmetric; }
  double low() const {
    double low = 0;
    for (float w : values)
      low = std::min<double>(low, w);
    return low;
  }
  double high() const {
    double high = 0;
    for (float w : values)
      high = std::max<double>(high, w);
    return high;
  }
  double steps() const { return std::pow(2, options.storage.bits) - 1; }
  double span() const {
    return isInteger() ? std::pow(2, options.storage.bits - 1)
                       : largestMagnitude(options.storage);
  }

  float finishScale(double scale) const {
    FloatFormat format = options.scaleFormat;
    if (low() == 0 && high() == 0)
      return 1;
    double limit = largestFinite(format);
    if (format != FloatFormat::F16) {
      double reach = isAsymmetric() ? steps() : span(), power = 1;
      while (power < reach)
        power *= 2;
      limit /= power;
    }
    double clamped = std::copysign(std::min(std::fabs(scale), limit), scale);
    float smallest = smallestPositive(format);
    if (format == FloatFormat::F8E8M0FNU) {
      double power = smallest;
      while (power < clamped)
        power *= 2;
      return static_cast<float>(power);
    }
    float rounded = roundToFormat(format, static_cast<float>(clamped));
    if (rounded == 0)
      return scale < 0 ? -smallest : smallest;
    return rounded;
  }

  int finishZero(double zero) const {
    if (!isAsymmetric())
      return 0;
    double qmin = smallestCode(options.storage);
    return static_cast<int>(
        std::nearbyint(std::min(std::max(zero, qmin), qmin + steps())));
  }

  Parameters minMax() const {
    double qmin = smallestCode(options.storage);
    double scale = std::max(high(), -low()) / span();
    if (isAsymmetric())
      scale = (high() - low()) / steps();
    else if (isInteger() && options.scaleFormat == FloatFormat::F8E8M0FNU)
      scale = std::max(high() / largestCode(options.storage), low() / qmin);
    else if (isInteger() && high() > -low())
      scale = -scale;
    Parameters found;
    found.scale = finishScale(scale);
    found.zero = finishZero(qmin - low() / found.scale);
    return found;
  }

  uint8_t encode(float w, Parameters p) const {
    float quotient = static_cast<float>(static_cast<double>(w) / p.scale);
    if (!isInteger())
      return encodeNearest(options.storage, quotient);
    double code = std::nearbyint(static_cast<double>(quotient)) + p.zero;
    double qmin = smallestCode(options.storage);
    code = std::min(std::max(code, qmin), qmin + steps());
    return static_cast<uint8_t>(static_cast<int>(code));
  }

  double difference(uint8_t code, Parameters p) const {
    return static_cast<double>(codeValue(options.storage, code)) - p.zero;
  }

  double error(Parameters p) const {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      float back = static_cast<float>(difference(encode(values[i], p), p) *
                                      static_cast<double>(p.scale));
      double e = static_cast<double>(values[i]) - back;
      sum += weights[i] * e * e;
    }
    return sum;
  }

  std::vector<Parameters> candidates() const {
    std::vector<Parameters> list;
    double largest = std::max(high(), -low()), width = high() - low();
    double qmin = smallestCode(options.storage);
    bool bothSigns =
        isInteger() && options.scaleFormat != FloatFormat::F8E8M0FNU;
    for (int i = 0; i < 20 && !isAsymmetric(); ++i) {
      double factor = 1.15 - i * 0.65 / 19;
      list.push_back({finishScale(factor * largest / span()), 0});
      if (bothSigns)
        list.push_back({finishScale(-factor * largest / span()), 0});
    }
    for (int i = 0; i < 11 && isAsymmetric(); ++i)
      for (int shift : {0, -1, 1}) {
        double zero = width == 0 ? qmin : qmin - low() * steps() / width;
        double scale = (1 - 0.05 * i) * width / steps();
        list.push_back(
            {finishScale(scale), finishZero(std::nearbyint(zero) + shift)});
      }
    return list;
  }

  Parameters leastSquares() const {
    Parameters best = minMax();
    double bestError = error(best);
    auto attempt = [&](Parameters p) {
      if (double e = error(p); e < bestError) {
        bestError = e;
        best = p;
      }
    };
    for (Parameters p : candidates())
      attempt(p);
    for (int repeat = 0; repeat < 2; ++repeat) {
      double numerator = 0, denominator = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        double c = difference(encode(values[i], best), best);
        numerator += weights[i] * c * values[i];
        denominator += weights[i] * c * c;
      }
      if (denominator > 0 && numerator != 0)
        attempt({finishScale(numerator / denominator), best.zero});
    }
    return best;
  }
};

} // namespace

/// Calls `visit(index of the block, its TwinBlock, its rows and columns)`.
template <typename Visit>
static void forEachBlock(const MatrixView &matrix,
                         const BlockQuantizerOptions &options, Visit visit) {
  size_t blockRows = options.block.rows ? options.block.rows : matrix.rows;
  size_t blockCols = options.block.cols ? options.block.cols : matrix.cols;
  size_t index = 0;
  for (size_t r0 = 0; r0 < matrix.rows; r0 += blockRows)
    for (size_t c0 = 0; c0 < matrix.cols; c0 += blockCols, ++index) {
      TwinBlock block{options, {}, {}};
      std::vector<std::pair<size_t, size_t>> places;
      for (size_t r = r0; r < std::min(r0 + blockRows, matrix.rows); ++r)
        for (size_t c = c0; c < std::min(c0 + blockCols, matrix.cols); ++c) {
          block.values.push_back(matrix.at(r, c));
          float weight = options.rowWeights ? options.rowWeights[r] : 1.0f;
          if (options.weighByMagnitude)
            weight *= std::fabs(matrix.at(r, c));
          block.weights.push_back(weight);
          places.push_back({r, c});
        }
      visit(index, block, places);
    }
}

static Parameters parametersOf(const QuantizedMatrix &q, size_t block) {
  int zero = q.zeroPoints.empty()
                 ? 0
                 : static_cast<int>(codeValue(q.storage, q.zeroPoints[block]));
  return {q.scales[block], zero};
}

/// Checks the result block by block.
static void check(const MatrixView &matrix,
                  const BlockQuantizerOptions &options,
                  const QuantizedMatrix &q) {
  std::vector<float> back = dequantize(q);
  double squaredError = 0, squaredNorm = 0;
  ASSERT_EQ(q.codes.size(), matrix.rows * matrix.cols);
  size_t blocks = 0;
  forEachBlock(
      matrix, options,
      [&](size_t index, const TwinBlock &block, const auto &places) {
        ++blocks;
        Parameters actual = parametersOf(q, index);
        ASSERT_TRUE(std::isfinite(actual.scale) && actual.scale != 0);
        Parameters expected = options.search == ScaleSearch::MinMax
                                  ? block.minMax()
                                  : block.leastSquares();
        bool isSame =
            actual.scale == expected.scale && actual.zero == expected.zero;
        if (options.search == ScaleSearch::MinMax || isSame) {
          ASSERT_EQ(actual.scale, expected.scale) << "block " << index;
          ASSERT_EQ(actual.zero, expected.zero) << "block " << index;
        } else {
          // Sums in another order may break a tie between equally good
          // candidates.
          double ours = block.error(actual), theirs = block.error(expected);
          ASSERT_LE(std::fabs(ours - theirs), 1e-12 * theirs)
              << "block " << index;
        }
        for (size_t i = 0; i < places.size(); ++i) {
          auto [row, col] = places[i];
          float w = block.values[i];
          uint8_t code = block.encode(w, actual);
          ASSERT_EQ(q.codes[row * matrix.cols + col], code)
              << w << " at " << row << ", " << col;
          float value = back[row * matrix.cols + col];
          ASSERT_EQ(value,
                    static_cast<float>(block.difference(code, actual) *
                                       static_cast<double>(actual.scale)));
          ASSERT_TRUE(std::isfinite(value));
          if (w == 0 && options.storage.isInteger()) {
            ASSERT_EQ(value, 0);
          }
          squaredError += std::pow(static_cast<double>(w) - value, 2);
          squaredNorm += std::pow(static_cast<double>(w), 2);
        }
      });
  ASSERT_EQ(q.scales.size(), blocks);
  EXPECT_NEAR(q.squaredError, squaredError, 1e-12 * squaredError);
  EXPECT_NEAR(q.squaredNorm, squaredNorm, 1e-12 * squaredNorm);
}

//===----------------------------------------------------------------------===//
// Inputs
//===----------------------------------------------------------------------===//

static const char *const inputKinds[] = {
    "normal", "outliers", "denormal", "tiny",  "huge", "largest",
    "zeros",  "constant", "negative", "mixed", "ties"};

static float sample(const std::string &kind, std::mt19937 &random) {
  std::normal_distribution<float> normal;
  float x = normal(random);
  if (kind == "outliers")
    return random() % 50 ? x : 100 * x;
  if (kind == "denormal")
    return x * 1e-41f;
  if (kind == "tiny")
    return x * 1e-9f; // a f16 scale rounds to zero
  if (kind == "huge")
    return x * 5e36f;
  if (kind == "largest")
    return random() % 2 ? FLT_MAX : random() % 2 ? -FLT_MAX : x * 1e38f;
  if (kind == "zeros")
    return random() % 2 ? 0.0f : -0.0f;
  if (kind == "constant")
    return 0.37f;
  if (kind == "negative")
    return -std::fabs(x) - 0.1f;
  if (kind == "mixed")
    return std::ldexp(x, static_cast<int>(random() % 250) - 125);
  if (kind == "ties")
    return static_cast<float>(static_cast<int>(random() % 65) - 32) / 4;
  return x;
}

static std::vector<float> makeMatrix(const std::string &kind, size_t count) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::vector<float> values(count);
  for (float &value : values)
    value = sample(kind, random);
  return values;
}

static std::vector<BlockQuantizerOptions> allOptions() {
  std::vector<BlockQuantizerOptions> all;
  for (const char *storage :
       {"u2", "u3", "u4", "u8", "i2", "i4", "i5", "i8", "nf4", "fp4",
        "f8E4M3FN", "f8E5M2", "f4E2M1FN", "[-1, 0.5, 3]"})
    for (bool symmetric : {false, true})
      for (FloatFormat scale : {FloatFormat::F32, FloatFormat::F16,
                                FloatFormat::BF16, FloatFormat::F8E8M0FNU})
        for (ScaleSearch search :
             {ScaleSearch::MinMax, ScaleSearch::LeastSquares}) {
          BlockQuantizerOptions options;
          options.storage = *parseStorage(storage);
          options.symmetric = symmetric;
          options.scaleFormat = scale;
          options.search = search;
          if (symmetric && options.storage.kind != StorageKind::Signed)
            continue;
          all.push_back(options);
        }
  return all;
}

static std::string describe(const BlockQuantizerOptions &options) {
  return printStorage(options.storage) +
         (options.symmetric ? " symmetric " : " ") +
         getInfo(options.scaleFormat).name +
         (options.search == ScaleSearch::MinMax ? " min/max " : " search ") +
         std::to_string(options.block.rows) + "x" +
         std::to_string(options.block.cols);
}

//===----------------------------------------------------------------------===//
// Tests
//===----------------------------------------------------------------------===//

TEST(BlockQuantizer, EqualsItsTwin) {
  for (const char *kind : inputKinds)
    for (BlockQuantizerOptions options : allOptions())
      for (BlockShape block :
           {BlockShape{8, 1}, {0, 1}, {1, 8}, {5, 3}, {0, 0}}) {
        options.block = block;
        SCOPED_TRACE(std::string(kind) + " " + describe(options));
        std::vector<float> values = makeMatrix(kind, 11 * 19);
        MatrixView matrix = MatrixView::rowMajor(values.data(), 11, 19);
        auto q = quantizeBlocks(matrix, options);
        ASSERT_TRUE(q) << q.error();
        check(matrix, options, *q);
        if (HasFatalFailure())
          return;
      }
}

TEST(BlockQuantizer, OddShapes) {
  for (auto [rows, cols] : {std::pair<size_t, size_t>{1, 1},
                            {1, 50},
                            {50, 1},
                            {33, 16},
                            {32, 17},
                            {7, 100},
                            {129, 3}})
    for (BlockShape block : {BlockShape{32, 1},
                             {128, 1},
                             {1, 32},
                             {16, 16},
                             {0, 1},
                             {1, 0},
                             {0, 0}})
      for (bool symmetric : {false, true}) {
        BlockQuantizerOptions options;
        options.storage = StorageFormat::getSigned(4);
        options.symmetric = symmetric;
        options.block = block;
        options.search = ScaleSearch::LeastSquares;
        SCOPED_TRACE(describe(options) + " of " + std::to_string(rows) + "x" +
                     std::to_string(cols));
        std::vector<float> values = makeMatrix("normal", rows * cols);
        MatrixView matrix = MatrixView::rowMajor(values.data(), rows, cols);
        auto q = quantizeBlocks(matrix, options);
        ASSERT_TRUE(q) << q.error();
        check(matrix, options, *q);
      }
}

TEST(BlockQuantizer, EmptyMatrices) {
  for (auto [rows, cols] : {std::pair<size_t, size_t>{0, 0}, {0, 5}, {5, 0}})
    for (BlockShape block : {BlockShape{32, 1}, {0, 0}, {1, 32}}) {
      BlockQuantizerOptions options;
      options.block = block;
      auto q =
          quantizeBlocks(MatrixView::rowMajor(nullptr, rows, cols), options);
      ASSERT_TRUE(q);
      EXPECT_TRUE(q->codes.empty() && q->scales.empty());
      EXPECT_TRUE(dequantize(*q).empty());
    }
}

TEST(BlockQuantizer, BlocksOfManyElements) {
  // More than a tile takes, so that they go through in chunks.
  std::vector<float> values = makeMatrix("outliers", 270 * 281);
  MatrixView matrix = MatrixView::rowMajor(values.data(), 270, 281);
  for (const char *storage : {"u4", "nf4", "[-1, 0.5, 3]"})
    for (BlockShape block : {BlockShape{0, 0}, {260, 260}})
      for (ScaleSearch search :
           {ScaleSearch::MinMax, ScaleSearch::LeastSquares}) {
        BlockQuantizerOptions options;
        options.storage = *parseStorage(storage);
        options.block = block;
        options.search = search;
        SCOPED_TRACE(describe(options));
        auto q = quantizeBlocks(matrix, options);
        ASSERT_TRUE(q);
        check(matrix, options, *q);
      }
}

TEST(BlockQuantizer, WeightedSearch) {
  std::vector<float> values = makeMatrix("outliers", 100 * 21), weights(100);
  std::mt19937 random(3);
  for (float &weight : weights)
    weight = random() % 5 ? static_cast<float>(random() % 1000) / 7 : 0;
  // A block without any weight keeps its min/max scale.
  std::fill_n(weights.begin() + 32, 32, 0.0f);
  MatrixView matrix = MatrixView::rowMajor(values.data(), 100, 21);
  for (const char *storage : {"u4", "i4", "i3", "fp4"})
    for (BlockShape block : {BlockShape{32, 1}, {1, 7}, {9, 4}, {0, 0}}) {
      BlockQuantizerOptions options;
      options.storage = *parseStorage(storage);
      options.symmetric = options.storage.kind != StorageKind::Unsigned;
      options.block = block;
      options.search = ScaleSearch::LeastSquares;
      options.rowWeights = weights.data();
      for (bool weighByMagnitude : {false, true}) {
        options.weighByMagnitude = weighByMagnitude;
        SCOPED_TRACE(describe(options));
        auto q = quantizeBlocks(matrix, options);
        ASSERT_TRUE(q);
        check(matrix, options, *q);
      }
    }
}

TEST(BlockQuantizer, TheSearchIsNeverWorse) {
  for (const char *kind : inputKinds)
    for (BlockQuantizerOptions options : allOptions()) {
      options.block = {16, 1};
      std::vector<float> values = makeMatrix(kind, 64 * 20);
      MatrixView matrix = MatrixView::rowMajor(values.data(), 64, 20);
      options.search = ScaleSearch::MinMax;
      auto plain = quantizeBlocks(matrix, options);
      options.search = ScaleSearch::LeastSquares;
      auto searched = quantizeBlocks(matrix, options);
      EXPECT_LE(searched->squaredError, plain->squaredError * (1 + 1e-14))
          << kind << " " << describe(options);
    }
}

static void expectSame(const QuantizedMatrix &a, const QuantizedMatrix &b) {
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.zeroPoints, b.zeroPoints);
  EXPECT_EQ(a.squaredError, b.squaredError);
  EXPECT_EQ(a.squaredNorm, b.squaredNorm);
}

TEST(BlockQuantizer, ThreadsChangeNoBit) {
  std::vector<float> values = makeMatrix("normal", 515 * 403);
  MatrixView matrix = MatrixView::rowMajor(values.data(), 515, 403);
  for (BlockShape block :
       {BlockShape{32, 1}, {1, 64}, {0, 1}, {0, 0}, {64, 48}})
    for (ScaleSearch search :
         {ScaleSearch::MinMax, ScaleSearch::LeastSquares}) {
      BlockQuantizerOptions options;
      options.block = block;
      options.search = search;
      auto one = quantizeBlocks(matrix, options);
      for (unsigned threads : {2u, 5u}) {
        options.threads = threads;
        SCOPED_TRACE(describe(options));
        expectSame(*one, *quantizeBlocks(matrix, options));
        EXPECT_EQ(dequantize(*one, 1), dequantize(*one, threads));
      }
    }
}

TEST(BlockQuantizer, MemoryOrderChangesNoBit) {
  const size_t rows = 75, cols = 53;
  std::vector<float> values = makeMatrix("normal", rows * cols);
  std::vector<float> transposed(rows * cols), padded(rows * (cols + 9), NAN);
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < cols; ++c) {
      transposed[c * rows + r] = values[r * cols + c];
      padded[r * (cols + 9) + c] = values[r * cols + c];
    }
  for (BlockShape block : {BlockShape{32, 1}, {1, 16}, {10, 10}, {0, 0}}) {
    BlockQuantizerOptions options;
    options.block = block;
    options.search = ScaleSearch::LeastSquares;
    auto expected = quantizeBlocks(
        MatrixView::rowMajor(values.data(), rows, cols), options);
    expectSame(*expected, *quantizeBlocks(MatrixView::columnMajor(
                                              transposed.data(), rows, cols),
                                          options));
    expectSame(
        *expected,
        *quantizeBlocks({padded.data(), rows, cols, cols + 9, 1}, options));
    // Backwards: the last element first, with negative strides.
    std::vector<float> reversed(values.rbegin(), values.rend());
    ptrdiff_t stride = -static_cast<ptrdiff_t>(cols);
    expectSame(
        *expected,
        *quantizeBlocks({&reversed.back(), rows, cols, stride, -1}, options));
  }
}

TEST(BlockQuantizer, TransposedBlocksGiveTransposedResults) {
  const size_t rows = 40, cols = 37;
  std::vector<float> values = makeMatrix("normal", rows * cols);
  BlockQuantizerOptions options;
  options.search = ScaleSearch::LeastSquares;
  options.block = {1, 16};
  auto q =
      quantizeBlocks(MatrixView::rowMajor(values.data(), rows, cols), options);
  options.block = {16, 1};
  auto t = quantizeBlocks(MatrixView::columnMajor(values.data(), cols, rows),
                          options);
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < cols; ++c)
      ASSERT_EQ(q->codes[r * cols + c], t->codes[c * rows + r]);
  for (size_t r = 0; r < q->blockRows(); ++r)
    for (size_t c = 0; c < q->blockCols(); ++c)
      ASSERT_EQ(q->scales[r * q->blockCols() + c],
                t->scales[c * t->blockCols() + r]);
}

TEST(BlockQuantizer, TheLargestMagnitudeOfASymmetricBlockIsExact) {
  std::vector<float> values = makeMatrix("normal", 64);
  for (float largest : {50.0f, -50.0f}) {
    values[17] = largest;
    BlockQuantizerOptions options;
    options.storage = StorageFormat::getSigned(4);
    options.symmetric = true;
    options.block = {0, 1};
    auto q =
        quantizeBlocks(MatrixView::rowMajor(values.data(), 64, 1), options);
    EXPECT_EQ(static_cast<int8_t>(q->codes[17]), -8);
    EXPECT_EQ(std::signbit(q->scales[0]), largest > 0);
    EXPECT_EQ(dequantize(*q)[17], largest);
  }
}

TEST(BlockQuantizer, AllZeroBlocks) {
  std::vector<float> values(64, 0.0f);
  for (BlockQuantizerOptions options : allOptions()) {
    options.block = {32, 1};
    auto q =
        quantizeBlocks(MatrixView::rowMajor(values.data(), 64, 1), options);
    EXPECT_EQ(q->scales, std::vector<float>({1, 1}));
    if (!q->zeroPoints.empty()) {
      EXPECT_EQ(codeValue(q->storage, q->zeroPoints[0]),
                smallestCode(options.storage));
    }
  }
}

TEST(BlockQuantizer, NamesTheFirstElementThatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::pair<float, const char *> cases[] = {
      {NAN, "NaN"}, {infinity, " infinity"}, {-infinity, "-infinity"}};
  for (auto [bad, name] : cases)
    for (BlockShape block : {BlockShape{32, 1}, {1, 32}, {0, 0}, {7, 7}})
      for (size_t size : {40, 300}) {
        std::vector<float> values = makeMatrix("normal", size * size);
        values[11 * size + 5] = bad;
        values[11 * size + 6] = NAN;
        values[38 * size + 2] = NAN;
        BlockQuantizerOptions options;
        options.block = block;
        options.threads = 3;
        MatrixView matrix = MatrixView::rowMajor(values.data(), size, size);
        auto q = quantizeBlocks(matrix, options);
        ASSERT_FALSE(q);
        EXPECT_EQ(q.error().find("element [11, 5] is"), 0u) << q.error();
        EXPECT_NE(q.error().find(name), std::string::npos) << q.error();
      }
}

TEST(BlockQuantizer, RefusesOptionsThatDoNotFit) {
  float values[4] = {1, 2, 3, 4};
  MatrixView matrix = MatrixView::rowMajor(values, 2, 2);
  auto errorOf = [&](auto change) {
    BlockQuantizerOptions options;
    change(options);
    auto q = quantizeBlocks(matrix, options);
    return q ? std::string("accepted") : q.error();
  };
  EXPECT_NE(errorOf([](auto &o) { o.symmetric = true; }).find("signed storage"),
            std::string::npos);
  EXPECT_NE(errorOf([](auto &o) {
              o.scaleFormat = FloatFormat::F8E5M2;
            }).find("a scale is"),
            std::string::npos);
  EXPECT_NE(errorOf([](auto &o) { o.storage.bits = 9; }).find("9 bits"),
            std::string::npos);
  EXPECT_NE(errorOf([](auto &o) {
              o.storage = StorageFormat::getCodeBook({0, 0});
            }).find("not zero"),
            std::string::npos);
  const float weights[2] = {1, -1};
  EXPECT_NE(
      errorOf([&](auto &o) { o.rowWeights = weights; }).find("weight of row 1"),
      std::string::npos);
}

TEST(BlockQuantizer, RoundsToGivenScales) {
  std::vector<float> values = makeMatrix("normal", 70 * 33);
  MatrixView matrix = MatrixView::rowMajor(values.data(), 70, 33);
  for (const char *storage : {"u4", "i4", "nf4"})
    for (BlockShape block : {BlockShape{32, 1}, {1, 8}, {0, 0}}) {
      BlockQuantizerOptions options;
      options.storage = *parseStorage(storage);
      options.symmetric = options.storage.kind != StorageKind::Unsigned;
      options.block = block;
      options.search = ScaleSearch::LeastSquares;
      auto expected = quantizeBlocks(matrix, options);
      QuantizedMatrix grid = *expected;
      grid.codes.clear();
      auto rounded = roundToScales(matrix, grid, 2);
      ASSERT_TRUE(rounded) << rounded.error();
      expectSame(*expected, *rounded);

      grid.scales[0] = 0;
      EXPECT_NE(roundToScales(matrix, grid).error().find("scale 0"),
                std::string::npos);
      grid.scales.pop_back();
      EXPECT_FALSE(roundToScales(matrix, grid));
    }
}

TEST(BlockQuantizer, DoubleQuantizationOfScales) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(0.01f, 0.03f);
  std::vector<float> scales(1000);
  double sum = 0;
  for (float &scale : scales)
    sum += scale = uniform(random);
  auto q = quantizeScales(scales.data(), scales.size());
  ASSERT_TRUE(q);
  EXPECT_EQ(q->offset, static_cast<float>(sum / 1000));
  EXPECT_EQ(q->deviations.scales.size(), 4u);
  std::vector<float> back = dequantizeScales(*q);
  for (size_t i = 0; i < scales.size(); ++i) {
    float step = std::fabs(q->deviations.scales[i / 256]);
    // Half a step, or a whole one at the end that -2^7 leaves without a code.
    EXPECT_NEAR(back[i], scales[i], step * 1.001f) << i;
    EXPECT_LE(step, 0.02f / 128);
  }
  scales[3] = NAN;
  EXPECT_FALSE(quantizeScales(scales.data(), scales.size()));
}

TEST(RoundingQuantizer, FollowsTheScheme) {
  std::vector<float> values = makeMatrix("normal", 96 * 10);
  MatrixView weight = MatrixView::rowMajor(values.data(), 96, 10);
  WeightStatistics statistics;
  statistics.inputSquares = makeMatrix("constant", 96);
  RoundingQuantizer quantizer(ScaleSearch::LeastSquares);
  auto q = quantizer.quantize(weight, statistics, *parseScheme("w4g64s"), 1);
  ASSERT_TRUE(q);
  EXPECT_EQ(q->matrix.scales.size(), 20u);
  EXPECT_TRUE(q->matrix.zeroPoints.empty());
  statistics.inputSquares.pop_back();
  auto bad = quantizer.quantize(weight, statistics, *parseScheme("w4c"), 1);
  EXPECT_NE(bad.error().find("95 inputs"), std::string::npos);
}
