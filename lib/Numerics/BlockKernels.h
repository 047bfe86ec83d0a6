//===- BlockKernels.h - The inner loops of block quantization ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

// The loops see tiles: [steps][lanes] floats. A lane is one block and the steps
// are its elements; or, for a block that is too large for that, all lanes are
// strips of it. Lanes never mix here, so a block's numbers do not depend on its
// neighbours, on the instruction set or on the number of threads.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_BLOCKKERNELS_H
#define NIBBLE_LIB_NUMERICS_BLOCKKERNELS_H

#include "nibble/Numerics/Storage.h"

#include <array>

namespace nibble {

constexpr size_t lanes = 16;

/// Scale and zero point of each lane. An integer w becomes
/// c = round(clamp(w / scale, low, high)), stored as c + zero.
struct alignas(64) Grid {
  float scale[lanes];
  float zero[lanes];
  float low[lanes];
  float high[lanes];
};

/// Least and greatest value of each lane, 0 included.
struct alignas(64) Range {
  float low[lanes];
  float high[lanes];
  /// The bits of the largest |w|, to find infinities and NaNs.
  uint32_t magnitude[lanes];
};

/// A storage format, made ready for the loops.
struct Coding {
  explicit Coding(const StorageFormat &storage);

  StorageKind kind;
  FloatFormat floatFormat;
  /// Integers: the range of codes.
  int qmin, qmax;
  /// Code books.
  SortedCodeBook sorted;
  /// Floats: the value of each code.
  std::array<float, 256> values;
};

/// Widens `range` by the tile.
void extendRange(const float *tile, size_t steps, Range &range);

/// errors[lane] = sum of weight * (w - dequantized)^2.
void sumErrors(const Coding &coding, const Grid &grid, const float *tile,
               const float *weights, size_t steps, double *errors);

/// numerators[lane] = sum of weight * c * w, denominators[lane] = sum of
/// weight * c * c, with c = w's code value less the zero point.
void sumMoments(const Coding &coding, const Grid &grid, const float *tile,
                const float *weights, size_t steps, double *numerators,
                double *denominators);

/// The code values less the zero points; `stride` floats from step to step.
void roundTile(const Coding &coding, const Grid &grid, const float *tile,
               size_t steps, float *values, size_t stride);

/// The codes, [steps][lanes], and the sums of (w - dequantized)^2 and w^2.
/// `valid` is a tile of ones, and zeros where an element is padding; null for
/// all ones.
void encodeTile(const Coding &coding, const Grid &grid, const float *tile,
                const float *valid, size_t steps, uint8_t *codes,
                double *errors, double *norms);

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_BLOCKKERNELS_H
