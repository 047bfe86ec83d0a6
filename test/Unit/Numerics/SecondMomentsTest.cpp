//===- SecondMomentsTest.cpp ----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/SecondMoments.h"

#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <thread>

using namespace nibble;

static std::vector<float> makeRows(size_t rows, size_t channels, float scale) {
  std::mt19937 random(static_cast<unsigned>(rows + channels));
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(rows * channels);
  for (float &value : values)
    value = normal(random);
  return values;
}

TEST(ExactSum, GivesBackWhatItGot) {
  for (double term : {0.0, 1.0, -1.0, 0.375, -1e-9, 3e12, -0x1p51, 0x1p-56}) {
    ExactSum sum;
    sum.add(term);
    EXPECT_NEAR(sum.value(), term, 0x1p-56 + std::abs(term) * 0x1p-52) << term;
  }
}

TEST(ExactSum, DoesNotDependOnTheOrder) {
  std::vector<float> terms = makeRows(1, 5000, 1e6F);
  for (size_t i = 0; i < terms.size(); i += 3)
    terms[i] *= 1e-12F;
  ExactSum forwards, backwards, halves[2];
  for (size_t i = 0; i < terms.size(); ++i) {
    forwards.add(terms[i]);
    backwards.add(terms[terms.size() - 1 - i]);
    halves[i % 2].add(terms[i]);
  }
  halves[1].merge(halves[0]);
  EXPECT_TRUE(forwards == backwards);
  EXPECT_TRUE(forwards == halves[1]);
}

/// Tiles at both borders, several chunks of rows.
TEST(SecondMoments, AreTheMeanOfProducts) {
  for (size_t channels : {1, 7, 256, 300}) {
    size_t rows = 1100;
    std::vector<float> values = makeRows(rows, channels, 2);
    SecondMoments moments(channels);
    ASSERT_TRUE(moments.add(values.data(), rows));
    EXPECT_EQ(moments.rows(), rows);
    std::vector<double> mean = moments.mean();
    for (size_t i = 0; i < channels; i += 13)
      for (size_t j = 0; j < channels; j += 11) {
        double expected = 0;
        for (size_t row = 0; row < rows; ++row)
          expected += double(values[row * channels + i]) *
                      values[row * channels + j] / double(rows);
        EXPECT_NEAR(mean[i * channels + j], expected, 2e-5);
        EXPECT_EQ(mean[i * channels + j], mean[j * channels + i]);
      }
  }
}

TEST(SecondMoments, OfShardsMergeToTheSameBits) {
  constexpr size_t channels = 300, samples = 6, rows = 700;
  std::vector<float> values = makeRows(samples * rows, channels, 30);
  auto sample = [&](size_t i) { return &values[i * rows * channels]; };
  SecondMoments whole(channels), first(channels), second(channels);
  for (size_t i = 0; i < samples; ++i) {
    ASSERT_TRUE(whole.add(sample(i), rows));
    ASSERT_TRUE((i < 2 ? first : second).add(sample(i), rows));
  }
  second.merge(first);
  EXPECT_EQ(whole.rows(), second.rows());
  EXPECT_TRUE(whole.sums() == second.sums());

  SecondMoments threaded(channels);
  std::vector<std::thread> threads;
  threads.reserve(samples);
  for (size_t i = 0; i < samples; ++i)
    threads.emplace_back([&, i] { threaded.add(sample(i), rows); });
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_TRUE(whole.sums() == threaded.sums());

  SecondMoments restored(channels);
  restored.restore(whole.sums(), whole.rows());
  EXPECT_EQ(restored.mean(), whole.mean());
}

TEST(SecondMoments, RefuseWhatIsNoNumber) {
  std::vector<float> values = makeRows(4, 3, 1);
  SecondMoments moments(3);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(),
                    std::numeric_limits<float>::infinity(), 1e6F}) {
    std::vector<float> damaged = values;
    damaged[5] = bad;
    EXPECT_FALSE(moments.add(damaged.data(), 4));
  }
  EXPECT_EQ(moments.rows(), 0u);
  EXPECT_EQ(moments.mean(), std::vector<double>(9, 0.0));
}
