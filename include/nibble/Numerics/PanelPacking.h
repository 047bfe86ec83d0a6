//===- PanelPacking.h - Codes as kernels read them --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A packed weight [K, N] is a stream that a matrix product reads once from its
// first byte to its last. 64 columns make a tile; a tile is cut along K into
// groups; a group is its codes, then 64 scales, then (if there are any) 64 zero
// points:
//
//          tile 0 (columns 0…63)            tile 1
//   ┌─────────┬─────────┬─────────┬───┬─────────┬───
//   │ group 0 │ group 1 │   …     │   │ group 0 │ …
//   └─────────┴─────────┴─────────┴───┴─────────┴───
//      │
//      └─ codes │ 64 scales (f16 or f32) │ 64 zero points (u8)
//
// Four consecutive inputs k, a quad, are what a dot-product instruction sums.
// A row of codes is 64 columns of 4 bytes; byte 4·n + j belongs to column n
// and to element j of a quad. A step of rows holds several quads, each in its
// own bits of the bytes:
//
//   8 bits   1 row,  1 quad: the byte
//   4 bits   1 row,  2 quads: bits 0–3 and 4–7
//   2 bits   1 row,  4 quads: bits 0–1, 2–3, 4–5, 6–7
//   3 bits   3 rows, 8 quads: low two bits of quads 0–3, of 4–7, then the high
//            bits, bit i of quad i
//
// So unpacking is a shift and a mask, no shuffle; any vector width that divides
// 64 bytes reads the same stream.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_PANELPACKING_H
#define NIBBLE_NUMERICS_PANELPACKING_H

#include <cstddef>
#include <cstdint>

namespace nibble {

/// What a packed weight is made of.
struct PanelFormat {
  /// Columns of a tile.
  static constexpr size_t kColumns = 64;

  size_t K = 0;
  size_t N = 0;
  /// Inputs of a group, a multiple of groupMultiple().
  size_t group = 128;
  /// Bits of a code: 2, 3, 4 or 8.
  unsigned bits = 4;
  /// Bytes of a scale: 2 for f16, 4 for f32.
  unsigned scaleBytes = 4;
  bool hasZeros = false;

  /// Quads in a step of rows.
  size_t quadsPerStep() const { return bits == 3 ? 8 : 8 / bits; }
  size_t groupMultiple() const { return 4 * quadsPerStep(); }
  size_t stepBytes() const { return quadsPerStep() * bits * kColumns / 2; }
  size_t stepsPerGroup() const { return group / groupMultiple(); }
  size_t groups() const { return (K + group - 1) / group; }
  size_t tiles() const { return (N + kColumns - 1) / kColumns; }
  size_t codeBytes() const { return stepBytes() * stepsPerGroup(); }
  size_t groupBytes() const {
    return codeBytes() + kColumns * (scaleBytes + (hasZeros ? 1 : 0));
  }
  size_t bytes() const { return tiles() * groups() * groupBytes(); }
};

/// Packs codes [K, N] (one a byte, zero-extended, `codes[k * rowStride + n *
/// colStride]`), scales [groups, N] and zero points [groups, N] (null without).
/// Padding along K and N has code, scale and zero point 0. A scale that is to
/// be kept in f16 must be exact in it.
void packPanels(const PanelFormat &format, const uint8_t *codes,
                ptrdiff_t rowStride, ptrdiff_t colStride, const float *scales,
                const uint8_t *zeros, uint8_t *packed, unsigned threads = 0);

/// The inverse, for codes [K, N], scales [groups, N] and zero points.
void unpackPanels(const PanelFormat &format, const uint8_t *packed,
                  ptrdiff_t rowStride, ptrdiff_t colStride, uint8_t *codes,
                  float *scales, uint8_t *zeros);

/// True if every scale is a number of f16.
bool areExactInF16(const float *scales, size_t count);

/// Packs a matrix [K, N] of f32 or of 16-bit floats into tiles of [K, 64]
/// columns, padded with 0: `packed` takes tiles · K · 64 numbers.
void packFloatPanels(size_t K, size_t N, const float *values,
                     ptrdiff_t rowStride, ptrdiff_t colStride, float *packed,
                     unsigned threads = 0);
void packFloatPanels(size_t K, size_t N, const uint16_t *values,
                     ptrdiff_t rowStride, ptrdiff_t colStride, uint16_t *packed,
                     unsigned threads = 0);

} // namespace nibble

#endif // NIBBLE_NUMERICS_PANELPACKING_H
