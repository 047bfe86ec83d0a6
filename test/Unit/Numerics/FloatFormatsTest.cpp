//===- FloatFormatsTest.cpp -----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/FloatFormats.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

using namespace nibble;

static uint32_t bitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

static std::vector<FloatFormat> allFormats() {
  std::vector<FloatFormat> formats;
  formats.reserve(numFloatFormats);
  for (unsigned i = 0; i < numFloatFormats; ++i)
    formats.push_back(static_cast<FloatFormat>(i));
  return formats;
}

/// Every exponent with many mantissas, both signs, infinities and NaNs.
static std::vector<float> manyFloats() {
  std::mt19937 random(1);
  std::vector<float> values;
  for (uint32_t top = 0; top < 512; ++top)
    for (int i = 0; i < 400; ++i) {
      // Few bits set: ties are common in small formats.
      uint32_t mantissa = i % 2 ? random() & 0x7fffff
                                : (random() & random() & random()) & 0x7ff000;
      uint32_t bits = top << 23 | mantissa;
      float value;
      std::memcpy(&value, &bits, sizeof(value));
      values.push_back(value);
    }
  return values;
}

TEST(FloatFormats, NamesComeBack) {
  for (FloatFormat format : allFormats())
    EXPECT_EQ(parseFloatFormat(getInfo(format).name), format);
  EXPECT_FALSE(parseFloatFormat("f8"));
  EXPECT_FALSE(parseFloatFormat(""));
}

TEST(FloatFormats, EveryNumberEncodesToItself) {
  for (FloatFormat format : allFormats()) {
    const FloatFormatInfo &info = getInfo(format);
    if (info.bits == 32)
      continue;
    for (uint32_t code = 0; code < 1u << info.bits; ++code) {
      float value = decodeFloat(format, code);
      if (std::isnan(value))
        continue;
      EXPECT_EQ(encodeFloat(format, value), code) << info.name;
      EXPECT_EQ(bitsOf(roundToFormat(format, value)), bitsOf(value));
    }
  }
}

/// The nearest finite number by trying them all, half to the even code.
static uint32_t nearestCode(FloatFormat format, float x) {
  uint32_t best = 0;
  double bestDistance = INFINITY;
  for (uint32_t code = 0; code < 1u << getInfo(format).bits; ++code) {
    float value = decodeFloat(format, code);
    bool isOnlyZero =
        value == 0 && getInfo(format).nonFinite == NonFinite::NaNNegativeZero;
    if (!std::isfinite(value) ||
        (std::signbit(value) != std::signbit(x) && !isOnlyZero))
      continue;
    double distance = std::fabs(static_cast<double>(value) - x);
    if (distance < bestDistance ||
        (distance == bestDistance && code % 2 == 0)) {
      best = code;
      bestDistance = distance;
    }
  }
  return best;
}

TEST(FloatFormats, SaturatingEncodeIsTheNearestNumber) {
  std::vector<float> values = manyFloats();
  for (FloatFormat format : allFormats()) {
    const FloatFormatInfo &info = getInfo(format);
    // f8E8M0FNU breaks ties upwards, which its own test shows.
    if (info.bits > 8 || !info.hasSign)
      continue;
    for (size_t i = 0; i < values.size(); i += 3) {
      float x = values[i];
      if (!std::isfinite(x))
        continue;
      // From very far every distance is the same double.
      float bounded = std::min(std::max(x, -1e6f), 1e6f);
      float expected = decodeFloat(format, nearestCode(format, bounded));
      float actual =
          decodeFloat(format, encodeFloat(format, x, Overflow::Saturate));
      ASSERT_EQ(actual, expected) << info.name << " " << x;
    }
  }
}

TEST(FloatFormats, PowersOfTwoBreakTiesUpwards) {
  FloatFormat format = FloatFormat::F8E8M0FNU;
  for (int exponent = -126; exponent < 127; ++exponent) {
    float power = std::ldexp(1.0f, exponent);
    EXPECT_EQ(roundToFormat(format, 1.5f * power), 2 * power);
    EXPECT_EQ(roundToFormat(format, std::nextafter(1.5f * power, 0.0f)), power);
  }
  EXPECT_EQ(roundToFormat(format, 1e-45f), std::ldexp(1.0f, -127));
  EXPECT_TRUE(std::isnan(roundToFormat(format, 0.0f)));
  EXPECT_TRUE(std::isnan(roundToFormat(format, -1.0f, Overflow::Saturate)));
  EXPECT_TRUE(std::isnan(roundToFormat(format, 3e38f)));
  EXPECT_EQ(roundToFormat(format, 3e38f, Overflow::Saturate),
            std::ldexp(1.0f, 127));
}

TEST(FloatFormats, OverflowFollowsTheFormat) {
  EXPECT_TRUE(std::isinf(roundToFormat(FloatFormat::F16, 65520.0f)));
  EXPECT_EQ(roundToFormat(FloatFormat::F16, 65519.0f), 65504.0f);
  EXPECT_EQ(roundToFormat(FloatFormat::F16, -1e9f, Overflow::Saturate),
            -65504.0f);
  EXPECT_TRUE(std::isnan(roundToFormat(FloatFormat::F8E4M3FN, 465.0f)));
  EXPECT_EQ(roundToFormat(FloatFormat::F8E4M3FN, 464.0f), 448.0f);
  EXPECT_EQ(roundToFormat(FloatFormat::F4E2M1FN, -INFINITY), -6.0f);
}

TEST(FloatFormats, ArraysAgreeWithSingleNumbers) {
  std::vector<float> values = manyFloats();
  for (FloatFormat format : allFormats())
    for (Overflow overflow : {Overflow::ByFormat, Overflow::Saturate}) {
      size_t bytes = codeBytes(format);
      std::vector<uint8_t> codes(values.size() * bytes);
      std::vector<float> decoded(values.size());
      encodeArray(format, values.data(), values.size(), codes.data(), overflow);
      decodeArray(format, codes.data(), values.size(), decoded.data());
      for (size_t i = 0; i < values.size(); ++i) {
        uint32_t code = 0;
        std::memcpy(&code, &codes[i * bytes], bytes);
        // A f32 NaN keeps its payload in a plain copy.
        if (format == FloatFormat::F32 && std::isnan(values[i]))
          continue;
        ASSERT_EQ(code, encodeFloat(format, values[i], overflow))
            << getInfo(format).name << " " << values[i];
        ASSERT_EQ(bitsOf(decoded[i]), bitsOf(decodeFloat(format, code)));
      }
    }
}

TEST(FloatFormats, ArrayDecodesEveryHalf) {
  std::vector<uint16_t> codes(65536);
  for (size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<uint16_t>(i);
  for (FloatFormat format : {FloatFormat::F16, FloatFormat::BF16}) {
    std::vector<float> values(codes.size());
    decodeArray(format, codes.data(), codes.size(), values.data());
    for (uint32_t code = 0; code < codes.size(); ++code) {
      float expected = decodeFloat(format, code);
      if (std::isnan(expected))
        EXPECT_TRUE(std::isnan(values[code]));
      else
        EXPECT_EQ(bitsOf(values[code]), bitsOf(expected)) << code;
    }
  }
}
