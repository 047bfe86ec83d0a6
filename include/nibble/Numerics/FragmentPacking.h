//===- FragmentPacking.h - Codes as tensor cores read them ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Tensor-core kernels compute the transposed product, Yᵀ = Wᵀ·Xᵀ, so that the
// weight is the A operand of mma.m16n8k16 (and of wgmma), which a warp takes
// from registers, and the scale of an output belongs to a row of the fragment.
// 16 outputs make a tile; a tile is cut along K into chunks of 64 inputs:
//
//          tile 0 (outputs 0…15)               tile 1
//   ┌─────────┬─────────┬───┬─────────┬─────────┬───
//   │ chunk 0 │ chunk 1 │ … │ chunk n │ chunk 0 │ …
//   └─────────┴─────────┴───┴─────────┴─────────┴───
//      │
//      └─ lane 0 │ lane 1 │ … │ lane 31, 16 bytes each
//
// So a lane gets its share of a chunk by one load of 16 bytes, and a warp reads
// 512 bytes in a row. The four words of a lane are the fragments of four steps
// of 16 inputs. A chunk of 8-bit codes is two such rows, of 32 inputs each: two
// steps of two words. With g = lane / 4 and t = lane % 4, a word holds codes of
// the outputs g and g + 8 (PTX ISA, "Matrix fragments for mma.m16n8k16"):
//
//   4-bit integers
//   bits   31…28  27…24  23…20  19…16  15…12  11…8   7…4    3…0
//   output  g+8     g     g+8     g     g+8     g    g+8     g
//   input  2t+9   2t+9   2t+1   2t+1   2t+8   2t+8   2t     2t
//
//   other 4-bit codes
//   output  g+8    g+8     g      g     g+8    g+8    g      g
//   input  2t+9   2t+8   2t+9   2t+8   2t+1    2t    2t+1   2t
//
//   8-bit codes (the second word of a step: 8 inputs further)
//   bits      31…24         23…16         15…8          7…0
//   output     g+8            g            g+8           g
//   input     2t+1          2t+1           2t            2t
//
// Bits 3…0 and 19…16 of 4-bit integers are the two halves of a register of the
// fragment: one `(word & 0x000f000f) | 0x64006400` makes them the f16 numbers
// 1024 + code, and one with the mask 0x00f000f0 makes 1024 + 16 · code of the
// next register; 8-bit integers go the same way with 0x00ff00ff. Other 4-bit
// codes look up the bytes of four numbers at a time, of which the first two
// are one register. 8-bit floats are in place in the upper half of an f16.
//
// Signed codes are stored with 8 or 128 added. Beside the codes, for each tile,
// group and g: the scales of the outputs g and g + 8 in f16 and, where there
// are zero points, what turns the numbers above to code - zero: the f16 numbers
// -(1024 + zero) of g and -(64 + zero), or -(1024 + zero) of 8-bit codes, of
// g + 8.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_FRAGMENTPACKING_H
#define NIBBLE_NUMERICS_FRAGMENTPACKING_H

#include "nibble/Numerics/Storage.h"

#include <cstddef>
#include <cstdint>

namespace nibble {

/// What a weight [K, N] packed for tensor cores is made of.
struct FragmentFormat {
  /// Outputs of a tile and inputs of a chunk.
  static constexpr size_t kTile = 16, kChunk = 64;

  size_t K = 0;
  size_t N = 0;
  /// Inputs of a group: 32, 64, a multiple of 128, or 0 for all of K.
  size_t group = 128;
  /// Integers of 4 or 8 bits, f8E4M3FN, f8E5M2, or any other of 4 bits.
  StorageFormat storage = StorageFormat::getSigned(4);

  bool hasZeros() const { return storage.kind == StorageKind::Unsigned; }

  /// K with padding: a kernel multiplies by scales every 32, 64 or 128 inputs.
  size_t paddedK() const {
    return roundUp(K, group == 0 || group > 64 ? 128 : 64);
  }
  size_t paddedN() const { return roundUp(N, kTile); }
  size_t groups() const {
    return group == 0 ? 1 : (paddedK() + group - 1) / group;
  }
  size_t codeBytes() const { return paddedK() * paddedN() * storage.bits / 8; }
  size_t scaleBytes() const {
    return groups() * paddedN() * (hasZeros() ? 4 : 2);
  }

  static size_t roundUp(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
  }
};

/// Packs codes [K, N] (one a byte, `codes[k * rowStride + n * colStride]`),
/// scales [groups of K, N] and zero points of that shape (null without) into
/// codeBytes() and scaleBytes() bytes. Scales are rounded to f16. Padding has
/// code and scale 0.
void packFragments(const FragmentFormat &format, const uint8_t *codes,
                   ptrdiff_t rowStride, ptrdiff_t colStride,
                   const float *scales, const uint8_t *zeros,
                   uint8_t *packedCodes, uint8_t *packedScales);

} // namespace nibble

#endif // NIBBLE_NUMERICS_FRAGMENTPACKING_H
