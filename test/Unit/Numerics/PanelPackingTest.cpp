//===- PanelPackingTest.cpp -----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/PanelPacking.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

using namespace nibble;

namespace {
struct Weight {
  Weight(const PanelFormat &format, unsigned seed)
      : codes(format.K * format.N), scales(format.groups() * format.N),
        zeros(format.groups() * format.N) {
    std::mt19937 random(seed);
    for (uint8_t &code : codes)
      code = static_cast<uint8_t>(random() % (1u << format.bits));
    for (uint8_t &zero : zeros)
      zero = static_cast<uint8_t>(random() % (1u << format.bits));
    for (float &scale : scales)
      scale = static_cast<float>(random() % 1000) / 1024.0f;
  }
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
};
} // namespace

static PanelFormat makeFormat(size_t K, size_t N, size_t group, unsigned bits,
                              unsigned scaleBytes, bool hasZeros) {
  PanelFormat format;
  format.K = K;
  format.N = N;
  format.group = group;
  format.bits = bits;
  format.scaleBytes = scaleBytes;
  format.hasZeros = hasZeros;
  return format;
}

TEST(PanelPacking, ComesBack) {
  for (unsigned bits : {2, 3, 4, 8})
    for (size_t group : {32, 64, 128})
      for (size_t K : {1, 31, 128, 200})
        for (size_t N : {1, 63, 64, 65, 130})
          for (bool hasZeros : {false, true}) {
            PanelFormat format =
                makeFormat(K, N, group, bits, hasZeros ? 2 : 4, hasZeros);
            Weight weight(format, static_cast<unsigned>(K + N));
            std::vector<uint8_t> packed(format.bytes() + 1, 0xa5);
            packPanels(format, weight.codes.data(), static_cast<ptrdiff_t>(N),
                       1, weight.scales.data(), weight.zeros.data(),
                       packed.data(), 2);
            ASSERT_EQ(packed.back(), 0xa5);
            Weight again(format, 0);
            unpackPanels(format, packed.data(), static_cast<ptrdiff_t>(N), 1,
                         again.codes.data(), again.scales.data(),
                         again.zeros.data());
            ASSERT_EQ(again.codes, weight.codes) << bits << " bits " << K;
            ASSERT_EQ(again.scales, weight.scales);
            if (hasZeros) {
              ASSERT_EQ(again.zeros, weight.zeros);
            }
          }
}

TEST(PanelPacking, TransposedSourceGivesTheSameStream) {
  PanelFormat format = makeFormat(70, 90, 32, 4, 4, true);
  Weight weight(format, 1);
  std::vector<uint8_t> transposed(weight.codes.size());
  for (size_t k = 0; k < format.K; ++k)
    for (size_t n = 0; n < format.N; ++n)
      transposed[n * format.K + k] = weight.codes[k * format.N + n];
  std::vector<uint8_t> first(format.bytes()), second(format.bytes());
  packPanels(format, weight.codes.data(), static_cast<ptrdiff_t>(format.N), 1,
             weight.scales.data(), weight.zeros.data(), first.data());
  packPanels(format, transposed.data(), 1, static_cast<ptrdiff_t>(format.K),
             weight.scales.data(), weight.zeros.data(), second.data());
  EXPECT_EQ(first, second);
}

/// After the words of the header: a byte holds, of one column and one place in
/// a quad, the codes of several quads.
TEST(PanelPacking, PlacesOfCodes) {
  PanelFormat format = makeFormat(32, 64, 32, 4, 4, false);
  Weight weight(format, 2);
  std::vector<uint8_t> packed(format.bytes());
  packPanels(format, weight.codes.data(), 64, 1, weight.scales.data(), nullptr,
             packed.data());
  for (size_t k = 0; k < 32; ++k)
    for (size_t n = 0; n < 64; ++n) {
      uint8_t byte = packed[k / 8 * 256 + n * 4 + k % 4];
      ASSERT_EQ(k % 8 < 4 ? byte & 15 : byte >> 4, weight.codes[k * 64 + n]);
    }
  float scale;
  std::memcpy(&scale, packed.data() + 1024 + 4 * 63, sizeof(scale));
  EXPECT_EQ(scale, weight.scales[63]);
}

TEST(PanelPacking, ThreeBitsKeepTheirHighBitsApart) {
  PanelFormat format = makeFormat(32, 64, 32, 3, 4, false);
  Weight weight(format, 3);
  std::vector<uint8_t> packed(format.bytes());
  packPanels(format, weight.codes.data(), 64, 1, weight.scales.data(), nullptr,
             packed.data());
  for (size_t k = 0; k < 32; ++k)
    for (size_t n = 0; n < 64; ++n) {
      size_t quad = k / 4, place = n * 4 + k % 4;
      unsigned low = packed[quad / 4 * 256 + place] >> (quad % 4 * 2) & 3;
      unsigned high = packed[512 + place] >> quad & 1;
      ASSERT_EQ(low | high << 2, weight.codes[k * 64 + n]);
    }
}

TEST(PanelPacking, FloatPanelsArePaddedWithZeros) {
  std::vector<float> values(3 * 70);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i + 1);
  std::vector<float> packed(2 * 3 * 64, -1.0f);
  packFloatPanels(3, 70, values.data(), 70, 1, packed.data());
  for (size_t k = 0; k < 3; ++k)
    for (size_t n = 0; n < 128; ++n)
      ASSERT_EQ(packed[(n / 64 * 3 + k) * 64 + n % 64],
                n < 70 ? values[k * 70 + n] : 0.0f);
}

TEST(PanelPacking, ScalesExactInF16) {
  float exact[] = {1.0f, 0.5f, -2048.0f};
  float inexact[] = {1.0f, 0.1f};
  EXPECT_TRUE(areExactInF16(exact, 3));
  EXPECT_FALSE(areExactInF16(inexact, 2));
}

TEST(PanelPacking, NarrowFloatsArePackedAsTheyAre) {
  const uint16_t values[] = {1, 2, 3, 4, 5, 6}; // [N, K] = [2, 3]
  std::vector<uint16_t> packed(3 * 64, 9);
  packFloatPanels(3, 2, values, 1, 3, packed.data());
  for (size_t k = 0; k < 3; ++k)
    for (size_t n = 0; n < 64; ++n)
      EXPECT_EQ(packed[k * 64 + n], n < 2 ? values[n * 3 + k] : 0);
}
