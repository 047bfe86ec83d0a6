//===- Packing.h - Codes in bytes, in each documented order -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_PACKING_H
#define NIBBLE_NUMERICS_PACKING_H

#include <cstddef>
#include <cstdint>

namespace nibble {

/// Everywhere here a code takes one byte before packing, and only its low
/// `bits` bits (1 to 8) are packed. Unpacking gives zero-extended codes, or,
/// where it says `isSigned`, two's complement int8. Bits that no code fills are
/// zero.

/// Bytes that `count` codes take in a dense stream: ceil(count * bits / 8).
size_t packedBytes(size_t count, unsigned bits);

/// A dense stream, low bits first: code i takes the bits [i*bits, (i+1)*bits),
/// where bit b is bit b%8 of byte b/8. ONNX INT4, UINT4, INT2 and UINT2 over
/// the flattened tensor, and the rows of MatMulNBits. Codes of 3, 5, 6 and 7
/// bits cross byte borders.
void packLowBitsFirst(const uint8_t *codes, size_t count, unsigned bits,
                      uint8_t *packed);
void unpackLowBitsFirst(const uint8_t *packed, size_t count, unsigned bits,
                        bool isSigned, uint8_t *codes);

/// 4-bit codes, two a byte, the first in the high nibble: com.microsoft
/// MatMulBnb4 over the flattened [N, K] weight.
void packHighNibbleFirst(const uint8_t *codes, size_t count, uint8_t *packed);
void unpackHighNibbleFirst(const uint8_t *packed, size_t count, uint8_t *codes);

/// The shape of a com.microsoft MatMulNBits weight: K inputs, N outputs, blocks
/// of `blockSize` along K. `blockSize * bits` is a multiple of 8.
struct MatMulNBitsShape {
  size_t K = 0;
  size_t N = 0;
  size_t blockSize = 32;
  unsigned bits = 4;

  size_t blocks() const { return (K + blockSize - 1) / blockSize; }
  size_t blockBytes() const { return blockSize * bits / 8; }
  /// Bytes of B, [N, blocks(), blockBytes()].
  size_t weightBytes() const { return N * blocks() * blockBytes(); }
  /// Bytes of the packed zero points, [N, ceil(blocks() * bits / 8)].
  size_t zeroPointBytes() const { return N * ((blocks() * bits + 7) / 8); }
};

/// Packs the codes of a [K, N] weight, code (k, n) at
/// `codes[k * rowStride + n * colStride]`, into B of MatMulNBits: low bits
/// first along K, each output's last block padded with zero bits. `offset` is
/// added to each code, modulo 2^bits: signed codes are stored with offset
/// 2^(bits-1), which is then their zero point (and MatMulNBits' default).
void packMatMulNBits(const MatMulNBitsShape &shape, const uint8_t *codes,
                     ptrdiff_t rowStride, ptrdiff_t colStride, uint8_t offset,
                     uint8_t *packed, unsigned threads = 0);

/// The inverse: writes the K * N codes and leaves the padding out. `offset` is
/// subtracted again; signed codes come back as int8.
void unpackMatMulNBits(const MatMulNBitsShape &shape, const uint8_t *packed,
                       ptrdiff_t rowStride, ptrdiff_t colStride, uint8_t offset,
                       bool isSigned, uint8_t *codes, unsigned threads = 0);

/// The same for zero points, [blocks(), N] with strides, into N rows of
/// ceil(blocks() * bits / 8) bytes each, the last byte padded with zero bits.
void packMatMulNBitsZeroPoints(const MatMulNBitsShape &shape,
                               const uint8_t *zeroPoints, ptrdiff_t rowStride,
                               ptrdiff_t colStride, uint8_t offset,
                               uint8_t *packed);
void unpackMatMulNBitsZeroPoints(const MatMulNBitsShape &shape,
                                 const uint8_t *packed, ptrdiff_t rowStride,
                                 ptrdiff_t colStride, uint8_t offset,
                                 bool isSigned, uint8_t *zeroPoints);

} // namespace nibble

#endif // NIBBLE_NUMERICS_PACKING_H
