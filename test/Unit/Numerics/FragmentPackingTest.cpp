//===- FragmentPackingTest.cpp --------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/FragmentPacking.h"

#include "nibble/Numerics/FloatFormats.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

using namespace nibble;

namespace {
struct PackedWeight {
  PackedWeight(const FragmentFormat &format, unsigned seed)
      : format(format), codes(format.K * format.N),
        scales(format.groups() * format.N), zeros(scales.size()),
        packedCodes(format.codeBytes(), 0xa5),
        packedScales(format.scaleBytes(), 0xa5) {
    std::mt19937 random(seed);
    for (uint8_t &code : codes)
      code = random() % 16;
    for (uint8_t &zero : zeros)
      zero = random() % 16;
    for (float &scale : scales)
      scale = static_cast<float>(random() % 1000) / 1024.0f;
    packFragments(format, codes.data(), static_cast<ptrdiff_t>(format.N), 1,
                  scales.data(), format.hasZeros ? zeros.data() : nullptr,
                  packedCodes.data(), packedScales.data());
  }

  uint32_t wordAt(size_t index) const {
    uint32_t word;
    std::memcpy(&word, &packedCodes[4 * index], 4);
    return word;
  }
  float f16At(size_t index) const {
    uint16_t code;
    std::memcpy(&code, &packedScales[2 * index], 2);
    return decodeFloat(FloatFormat::F16, code);
  }

  FragmentFormat format;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
  std::vector<uint8_t> packedCodes, packedScales;
};
} // namespace

static FragmentFormat makeFormat(size_t K, size_t N, size_t group,
                                 bool hasZeros) {
  FragmentFormat format;
  format.K = K;
  format.N = N;
  format.group = group;
  format.hasZeros = hasZeros;
  return format;
}

/// The half of a 32-bit register as an f16 number.
static float getHalf(uint32_t word, unsigned half) {
  return decodeFloat(FloatFormat::F16, word >> (16 * half) & 0xffff);
}

/// Registers a0 … a3 of mma.m16n8k16 as PTX ISA defines them: for i in 0 … 7,
/// row = g where i is 0, 1, 4 or 5, else g + 8; column = 2t + (i & 1), and 8
/// more from i = 4 on; register i / 2, half i % 2.
TEST(FragmentPacking, UnpacksToTheFragmentOfThePtxManual) {
  for (bool hasZeros : {false, true}) {
    PackedWeight weight(makeFormat(256, 48, 128, hasZeros), 1);
    for (size_t n0 = 0; n0 < 48; n0 += 16)
      for (size_t k0 = 0; k0 < 256; k0 += 16)
        for (size_t lane = 0; lane < 32; ++lane) {
          size_t chunk = n0 / 16 * 4 + k0 / 64;
          uint32_t word = weight.wordAt((chunk * 32 + lane) * 4 + k0 % 64 / 16);
          for (unsigned i = 0; i < 8; ++i) {
            size_t n = n0 + lane / 4 + (i == 2 || i == 3 || i >= 6 ? 8 : 0);
            size_t k = k0 + lane % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0);
            unsigned reg = i / 2;
            bool isHigh = reg % 2 == 1;
            uint32_t half =
                (word >> (reg / 2 * 8) & (isHigh ? 0x00f000f0u : 0x000f000fu)) |
                0x64006400u;
            size_t group = k0 / 128;
            size_t scale = (n0 / 16 * 2 + group) * 8 * (hasZeros ? 4 : 2) +
                           lane / 4 * (hasZeros ? 4 : 2) +
                           (n >= n0 + 8 ? 1 : 0);
            float zero = hasZeros ? weight.zeros[group * 48 + n] : 8;
            float bias = hasZeros ? weight.f16At(scale + 2)
                                  : (isHigh ? -72.0f : -1032.0f);
            float value = getHalf(half, i % 2) * (isHigh ? 1.0f / 16 : 1.0f);
            EXPECT_EQ(value + bias, weight.codes[k * 48 + n] - zero);
            EXPECT_EQ(weight.f16At(scale), weight.scales[group * 48 + n]);
          }
        }
  }
}

TEST(FragmentPacking, PadsWithZero) {
  PackedWeight weight(makeFormat(70, 5, 32, true), 2);
  EXPECT_EQ(weight.format.paddedK(), 128u);
  EXPECT_EQ(weight.format.paddedN(), 16u);
  size_t nonzero = 0;
  for (uint8_t byte : weight.packedCodes)
    nonzero += (byte & 15 ? 1 : 0) + (byte >> 4 ? 1 : 0);
  size_t expected = 0;
  for (uint8_t code : weight.codes)
    expected += code ? 1 : 0;
  EXPECT_EQ(nonzero, expected);
  // Tile 0, group 3 (padding), output 0: scale 0 and the numbers for zero 0.
  EXPECT_EQ(weight.f16At(3 * 32), 0.0f);
  EXPECT_EQ(weight.f16At(3 * 32 + 2), -1024.0f);
  EXPECT_EQ(weight.f16At(3 * 32 + 3), -64.0f);
}

TEST(FragmentPacking, TakesTheStridesOfATransposedWeight) {
  FragmentFormat format = makeFormat(64, 16, 0, false);
  PackedWeight weight(format, 3);
  std::vector<uint8_t> transposed(weight.codes.size());
  for (size_t k = 0; k < 64; ++k)
    for (size_t n = 0; n < 16; ++n)
      transposed[n * 64 + k] = weight.codes[k * 16 + n];
  std::vector<uint8_t> codes(format.codeBytes()), scales(format.scaleBytes());
  packFragments(format, transposed.data(), 1, 64, weight.scales.data(), nullptr,
                codes.data(), scales.data());
  EXPECT_EQ(codes, weight.packedCodes);
  EXPECT_EQ(scales, weight.packedScales);
}
