//===- PackingTest.cpp ----------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Packing.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

using namespace nibble;

using Bytes = std::vector<uint8_t>;

static constexpr uint8_t guard = 0xa5;

static Bytes randomCodes(size_t count, unsigned bits, bool isSigned,
                         unsigned seed) {
  std::mt19937 random(seed);
  Bytes codes(count);
  for (uint8_t &code : codes) {
    int value = static_cast<int>(random() % (1u << bits));
    code = static_cast<uint8_t>(isSigned ? value - (1 << (bits - 1)) : value);
  }
  return codes;
}

/// Bit by bit, after the words of the documentation.
static void setBit(Bytes &packed, size_t bit, bool value) {
  packed[bit / 8] = static_cast<uint8_t>(packed[bit / 8] | value << bit % 8);
}

static Bytes packNaively(const Bytes &codes, unsigned bits) {
  Bytes packed((codes.size() * bits + 7) / 8);
  for (size_t i = 0; i < codes.size(); ++i)
    for (unsigned b = 0; b < bits; ++b)
      setBit(packed, i * bits + b, codes[i] >> b & 1);
  return packed;
}

TEST(Packing, LowBitsFirstIsADenseBitStream) {
  for (unsigned bits = 1; bits <= 8; ++bits)
    for (size_t count = 0; count < 70; ++count)
      for (bool isSigned : {false, true}) {
        Bytes codes =
            randomCodes(count, bits, isSigned, static_cast<unsigned>(count));
        Bytes expected = packNaively(codes, bits);
        ASSERT_EQ(packedBytes(count, bits), expected.size());
        expected.push_back(guard);
        Bytes packed(expected.size(), guard);
        packLowBitsFirst(codes.data(), count, bits, packed.data());
        ASSERT_EQ(packed, expected) << bits << " bits, " << count;
        Bytes again(count + 1, guard);
        unpackLowBitsFirst(packed.data(), count, bits, isSigned, again.data());
        codes.push_back(guard);
        ASSERT_EQ(again, codes) << bits << " bits, " << count;
      }
}

TEST(Packing, HighNibbleFirst) {
  for (size_t count = 0; count < 20; ++count) {
    Bytes codes = randomCodes(count, 4, false, static_cast<unsigned>(count));
    Bytes packed((count + 1) / 2 + 1, guard), again(count + 1, guard);
    packHighNibbleFirst(codes.data(), count, packed.data());
    for (size_t i = 0; i < count; ++i)
      EXPECT_EQ(packed[i / 2] >> (i % 2 ? 0 : 4) & 15, codes[i]);
    if (count % 2) {
      EXPECT_EQ(packed[count / 2] & 15, 0);
    }
    EXPECT_EQ(packed.back(), guard);
    unpackHighNibbleFirst(packed.data(), count, again.data());
    codes.push_back(guard);
    EXPECT_EQ(again, codes);
  }
}

namespace {
struct MatMulNBits : testing::TestWithParam<std::tuple<unsigned, size_t>> {
  /// Checks one [K, N] weight, stored with its rows or its columns contiguous.
  void check(size_t K, size_t N, bool isColumnMajor, bool isSigned) {
    auto [bits, blockSize] = GetParam();
    MatMulNBitsShape shape{K, N, blockSize, bits};
    ptrdiff_t rowStride = static_cast<ptrdiff_t>(isColumnMajor ? 1 : N);
    ptrdiff_t colStride = static_cast<ptrdiff_t>(isColumnMajor ? K : 1);
    uint8_t offset = static_cast<uint8_t>(isSigned ? 1u << (bits - 1) : 0);
    Bytes codes = randomCodes(K * N, bits, isSigned, bits);
    size_t blocks = (K + blockSize - 1) / blockSize;

    Bytes expected(N * blocks * blockSize * bits / 8);
    for (size_t n = 0; n < N; ++n)
      for (size_t k = 0; k < K; ++k)
        for (unsigned b = 0; b < bits; ++b) {
          uint8_t code = static_cast<uint8_t>(
              codes[isColumnMajor ? n * K + k : k * N + n] + offset);
          setBit(expected, (n * blocks * blockSize + k) * bits + b,
                 code >> b & 1);
        }
    ASSERT_EQ(shape.weightBytes(), expected.size());
    for (unsigned threads : {1u, 3u}) {
      Bytes packed(expected.size(), guard);
      packMatMulNBits(shape, codes.data(), rowStride, colStride, offset,
                      packed.data(), threads);
      ASSERT_EQ(packed, expected);
      Bytes again(codes.size());
      unpackMatMulNBits(shape, packed.data(), rowStride, colStride, offset,
                        isSigned, again.data(), threads);
      ASSERT_EQ(again, codes);
    }
  }
};
} // namespace

TEST_P(MatMulNBits, IsTheDocumentedLayout) {
  auto [bits, blockSize] = GetParam();
  for (size_t K : {size_t(1), blockSize - 1, blockSize, 2 * blockSize + 3})
    for (size_t N : {1, 5, 64, 131})
      for (bool isColumnMajor : {false, true})
        for (bool isSigned : {false, true})
          check(K, N, isColumnMajor, isSigned);
}

TEST_P(MatMulNBits, ZeroPointsArePaddedPerRow) {
  auto [bits, blockSize] = GetParam();
  for (size_t blocks : {1, 2, 3, 9})
    for (size_t N : {1, 7})
      for (bool isSigned : {false, true}) {
        MatMulNBitsShape shape{blocks * blockSize, N, blockSize, bits};
        uint8_t offset = static_cast<uint8_t>(isSigned ? 1u << (bits - 1) : 0);
        Bytes zeros = randomCodes(blocks * N, bits, isSigned, bits);
        size_t rowBytes = (blocks * bits + 7) / 8;
        Bytes expected(N * rowBytes);
        for (size_t n = 0; n < N; ++n)
          for (size_t i = 0; i < blocks; ++i)
            for (unsigned b = 0; b < bits; ++b)
              setBit(expected, n * rowBytes * 8 + i * bits + b,
                     static_cast<uint8_t>(zeros[i * N + n] + offset) >> b & 1);
        ASSERT_EQ(shape.zeroPointBytes(), expected.size());
        Bytes packed(expected.size(), guard), again(zeros.size());
        ptrdiff_t stride = static_cast<ptrdiff_t>(N);
        packMatMulNBitsZeroPoints(shape, zeros.data(), stride, 1, offset,
                                  packed.data());
        ASSERT_EQ(packed, expected);
        unpackMatMulNBitsZeroPoints(shape, packed.data(), stride, 1, offset,
                                    isSigned, again.data());
        ASSERT_EQ(again, zeros);
      }
}

INSTANTIATE_TEST_SUITE_P(Packing, MatMulNBits,
                         testing::Combine(testing::Values(2u, 3u, 4u, 8u),
                                          testing::Values(16, 32, 128)));
