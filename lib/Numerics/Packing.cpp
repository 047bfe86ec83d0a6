//===- Packing.cpp - Codes in bytes, in each documented order -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Packing.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <vector>

using namespace nibble;

/// Outputs that are packed together, so that reading along K, which is the far
/// axis in memory, uses whole cache lines.
static constexpr size_t tileCols = 64;

static uint8_t maskOf(unsigned bits) {
  return static_cast<uint8_t>((1u << bits) - 1);
}

/// The low `bits` bits of `code`, sign extended where asked.
static uint8_t extend(uint8_t code, unsigned bits, bool isSigned) {
  uint8_t sign = isSigned ? static_cast<uint8_t>(1u << (bits - 1)) : 0;
  return static_cast<uint8_t>(((code & maskOf(bits)) ^ sign) - sign);
}

size_t nibble::packedBytes(size_t count, unsigned bits) {
  // Not (count * bits + 7) / 8, which overflows sooner.
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

void nibble::packLowBitsFirst(const uint8_t *codes, size_t count, unsigned bits,
                              uint8_t *packed) {
  uint8_t mask = maskOf(bits);
  size_t i = 0;
  if (bits == 4) {
    for (size_t byte = 0; byte < count / 2; ++byte)
      packed[byte] = static_cast<uint8_t>((codes[2 * byte] & 15) |
                                          (codes[2 * byte + 1] & 15) << 4);
    i = count / 2 * 2;
    packed += count / 2;
  } else if (bits == 2) {
    for (size_t byte = 0; byte < count / 4; ++byte) {
      const uint8_t *four = codes + 4 * byte;
      packed[byte] =
          static_cast<uint8_t>((four[0] & 3) | (four[1] & 3) << 2 |
                               (four[2] & 3) << 4 | (four[3] & 3) << 6);
    }
    i = count / 4 * 4;
    packed += count / 4;
  }
  uint32_t pending = 0;
  unsigned pendingBits = 0;
  for (; i < count; ++i) {
    pending |= static_cast<uint32_t>(codes[i] & mask) << pendingBits;
    pendingBits += bits;
    if (pendingBits >= 8) {
      *packed++ = static_cast<uint8_t>(pending);
      pending >>= 8;
      pendingBits -= 8;
    }
  }
  if (pendingBits > 0)
    *packed = static_cast<uint8_t>(pending);
}

void nibble::unpackLowBitsFirst(const uint8_t *packed, size_t count,
                                unsigned bits, bool isSigned, uint8_t *codes) {
  size_t i = 0;
  if (bits == 4) {
    for (size_t byte = 0; byte < count / 2; ++byte) {
      codes[2 * byte] = extend(packed[byte], 4, isSigned);
      codes[2 * byte + 1] =
          extend(static_cast<uint8_t>(packed[byte] >> 4), 4, isSigned);
    }
    i = count / 2 * 2;
    packed += count / 2;
  }
  uint32_t pending = 0;
  unsigned pendingBits = 0;
  for (; i < count; ++i) {
    if (pendingBits < bits) {
      pending |= static_cast<uint32_t>(*packed++) << pendingBits;
      pendingBits += 8;
    }
    codes[i] = extend(static_cast<uint8_t>(pending), bits, isSigned);
    pending >>= bits;
    pendingBits -= bits;
  }
}

void nibble::packHighNibbleFirst(const uint8_t *codes, size_t count,
                                 uint8_t *packed) {
  for (size_t byte = 0; byte < count / 2; ++byte)
    packed[byte] =
        static_cast<uint8_t>(codes[2 * byte] << 4 | (codes[2 * byte + 1] & 15));
  if (count % 2)
    packed[count / 2] = static_cast<uint8_t>(codes[count - 1] << 4);
}

void nibble::unpackHighNibbleFirst(const uint8_t *packed, size_t count,
                                   uint8_t *codes) {
  for (size_t byte = 0; byte < count / 2; ++byte) {
    codes[2 * byte] = packed[byte] >> 4;
    codes[2 * byte + 1] = packed[byte] & 15;
  }
  if (count % 2)
    codes[count - 1] = packed[count / 2] >> 4;
}

void nibble::packMatMulNBits(const MatMulNBitsShape &shape,
                             const uint8_t *codes, ptrdiff_t rowStride,
                             ptrdiff_t colStride, uint8_t offset,
                             uint8_t *packed, unsigned threads) {
  size_t blocks = shape.blocks(), blockBytes = shape.blockBytes();
  uint8_t mask = maskOf(shape.bits);
  parallelFor(shape.N, tileCols, threads, [&](size_t begin, size_t end) {
    std::vector<uint8_t> tile(tileCols * shape.blockSize);
    for (size_t block = 0; block < blocks; ++block) {
      size_t k0 = block * shape.blockSize;
      size_t filled = std::min(shape.blockSize, shape.K - k0);
      if (filled < shape.blockSize)
        std::fill(tile.begin(), tile.end(), uint8_t(0));
      for (size_t k = 0; k < filled; ++k) {
        const uint8_t *row = codes + static_cast<ptrdiff_t>(k0 + k) * rowStride;
        for (size_t n = begin; n < end; ++n)
          tile[(n - begin) * shape.blockSize + k] = static_cast<uint8_t>(
              (row[static_cast<ptrdiff_t>(n) * colStride] + offset) & mask);
      }
      for (size_t n = begin; n < end; ++n)
        packLowBitsFirst(&tile[(n - begin) * shape.blockSize], shape.blockSize,
                         shape.bits,
                         packed + (n * blocks + block) * blockBytes);
    }
  });
}

void nibble::unpackMatMulNBits(const MatMulNBitsShape &shape,
                               const uint8_t *packed, ptrdiff_t rowStride,
                               ptrdiff_t colStride, uint8_t offset,
                               bool isSigned, uint8_t *codes,
                               unsigned threads) {
  size_t blocks = shape.blocks(), blockBytes = shape.blockBytes();
  parallelFor(shape.N, tileCols, threads, [&](size_t begin, size_t end) {
    std::vector<uint8_t> tile(tileCols * shape.blockSize);
    for (size_t block = 0; block < blocks; ++block) {
      size_t k0 = block * shape.blockSize;
      size_t filled = std::min(shape.blockSize, shape.K - k0);
      for (size_t n = begin; n < end; ++n)
        unpackLowBitsFirst(packed + (n * blocks + block) * blockBytes,
                           shape.blockSize, shape.bits, false,
                           &tile[(n - begin) * shape.blockSize]);
      for (size_t k = 0; k < filled; ++k) {
        uint8_t *row = codes + static_cast<ptrdiff_t>(k0 + k) * rowStride;
        for (size_t n = begin; n < end; ++n)
          row[static_cast<ptrdiff_t>(n) * colStride] =
              extend(static_cast<uint8_t>(
                         tile[(n - begin) * shape.blockSize + k] - offset),
                     shape.bits, isSigned);
      }
    }
  });
}

/// Zero points are packed as one "block" of a row's zero points.
static size_t zeroPointRowBytes(const MatMulNBitsShape &shape) {
  return packedBytes(shape.blocks(), shape.bits);
}

void nibble::packMatMulNBitsZeroPoints(const MatMulNBitsShape &shape,
                                       const uint8_t *zeroPoints,
                                       ptrdiff_t rowStride, ptrdiff_t colStride,
                                       uint8_t offset, uint8_t *packed) {
  std::vector<uint8_t> row(shape.blocks());
  for (size_t n = 0; n < shape.N; ++n) {
    for (size_t block = 0; block < row.size(); ++block)
      row[block] = static_cast<uint8_t>(
          zeroPoints[static_cast<ptrdiff_t>(block) * rowStride +
                     static_cast<ptrdiff_t>(n) * colStride] +
          offset);
    packLowBitsFirst(row.data(), row.size(), shape.bits,
                     packed + n * zeroPointRowBytes(shape));
  }
}

void nibble::unpackMatMulNBitsZeroPoints(const MatMulNBitsShape &shape,
                                         const uint8_t *packed,
                                         ptrdiff_t rowStride,
                                         ptrdiff_t colStride, uint8_t offset,
                                         bool isSigned, uint8_t *zeroPoints) {
  std::vector<uint8_t> row(shape.blocks());
  for (size_t n = 0; n < shape.N; ++n) {
    unpackLowBitsFirst(packed + n * zeroPointRowBytes(shape), row.size(),
                       shape.bits, false, row.data());
    for (size_t block = 0; block < row.size(); ++block)
      zeroPoints[static_cast<ptrdiff_t>(block) * rowStride +
                 static_cast<ptrdiff_t>(n) * colStride] =
          extend(static_cast<uint8_t>(row[block] - offset), shape.bits,
                 isSigned);
  }
}
