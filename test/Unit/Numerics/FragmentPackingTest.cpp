//===- FragmentPackingTest.cpp --------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/FragmentPacking.h"

#include "nibble/Numerics/FloatFormats.h"

#include <gtest/gtest.h>

#include <cmath>
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
    int smallest = smallestCode(format.storage);
    unsigned count = 1u << format.storage.bits;
    for (uint8_t &code : codes)
      code =
          static_cast<uint8_t>(smallest + static_cast<int>(random() % count));
    for (uint8_t &zero : zeros)
      zero = static_cast<uint8_t>(random() % count);
    for (float &scale : scales)
      scale = static_cast<float>(random() % 1000) / 1024.0f;
    packFragments(format, codes.data(), static_cast<ptrdiff_t>(format.N), 1,
                  scales.data(), format.hasZeros() ? zeros.data() : nullptr,
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
                                 const char *storage) {
  FragmentFormat format;
  format.K = K;
  format.N = N;
  format.group = group;
  format.storage = *parseStorage(storage);
  return format;
}

/// The half of a 32-bit register as an f16 number.
static float getHalf(uint32_t word, unsigned half) {
  return decodeFloat(FloatFormat::F16, word >> (16 * half) & 0xffff);
}

/// Half `half` of register a0 … a3 as kernels make it of the words of a step.
static float unpack(const StorageFormat &storage, const uint32_t *words,
                    unsigned reg, unsigned half, const float *biases) {
  bool isHigh = reg % 2 == 1;
  if (storage.bits == 8) {
    uint32_t byte = words[reg / 2] >> (16 * half + (isHigh ? 8 : 0)) & 0xff;
    if (!storage.isInteger())
      return codeValue(storage, static_cast<uint8_t>(byte));
    return getHalf(byte | 0x6400u, 0) + biases[isHigh];
  }
  if (!storage.isInteger())
    return codeValue(storage, words[0] >> (8 * reg + 4 * half) & 15);
  uint32_t mask = isHigh ? 0x00f000f0u : 0x000f000fu;
  uint32_t pair = (words[0] >> (reg / 2 * 8) & mask) | 0x64006400u;
  return getHalf(pair, half) * (isHigh ? 1.0f / 16 : 1.0f) + biases[isHigh];
}

/// Registers a0 … a3 of mma.m16n8k16 as PTX ISA defines them: for i in 0 … 7,
/// row = g where i is 0, 1, 4 or 5, else g + 8; column = 2t + (i & 1), and 8
/// more from i = 4 on; register i / 2, half i % 2.
static void expectFragments(const PackedWeight &weight) {
  const FragmentFormat &format = weight.format;
  const StorageFormat &storage = format.storage;
  size_t wordsPerStep = storage.bits / 4;
  size_t perOutput = format.hasZeros() ? 4 : 2;
  float offset = storage.bits == 8 ? 128 : 8;
  for (size_t n0 = 0; n0 < format.N; n0 += 16)
    for (size_t k0 = 0; k0 < format.K; k0 += 16)
      for (size_t lane = 0; lane < 32; ++lane) {
        size_t chunk = n0 / 16 * (format.K / 64) + k0 / 64;
        size_t first = k0 % 64 / 16 * wordsPerStep;
        size_t load = chunk * wordsPerStep + first / 4;
        uint32_t words[2];
        for (size_t i = 0; i < wordsPerStep; ++i)
          words[i] = weight.wordAt((load * 32 + lane) * 4 + first % 4 + i);
        size_t group = k0 / format.group;
        size_t scales =
            ((n0 / 16 * format.groups() + group) * 8 + lane / 4) * perOutput;
        float biases[] = {-1024 - offset,
                          (storage.bits == 8 ? -1024 : -64) - offset};
        for (size_t i = 0; i < 2 && format.hasZeros(); ++i)
          biases[i] = weight.f16At(scales + 2 + i);
        for (unsigned i = 0; i < 8; ++i) {
          bool isHigh = i == 2 || i == 3 || i >= 6;
          size_t n = n0 + lane / 4 + (isHigh ? 8 : 0);
          size_t k = k0 + lane % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0);
          float zero =
              format.hasZeros() ? weight.zeros[group * format.N + n] : 0;
          float expected =
              codeValue(storage, weight.codes[k * format.N + n]) - zero;
          float value = unpack(storage, words, i / 2, i % 2, biases);
          if (std::isnan(expected))
            EXPECT_TRUE(std::isnan(value));
          else
            EXPECT_EQ(value, expected) << printStorage(storage);
          EXPECT_EQ(weight.f16At(scales + (isHigh ? 1 : 0)),
                    weight.scales[group * format.N + n]);
        }
      }
}

TEST(FragmentPacking, UnpacksToTheFragmentOfThePtxManual) {
  for (const char *storage :
       {"i4", "u4", "i8", "u8", "nf4", "f4E2M1FN", "f8E4M3FN", "f8E5M2"})
    expectFragments(PackedWeight(makeFormat(256, 48, 128, storage), 1));
}

TEST(FragmentPacking, PadsWithZero) {
  PackedWeight weight(makeFormat(70, 5, 32, "u4"), 2);
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
  FragmentFormat format = makeFormat(64, 16, 0, "i4");
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
