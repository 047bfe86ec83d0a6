//===- Scheme.h - The short names of quantization schemes -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_SCHEME_H
#define NIBBLE_NUMERICS_SCHEME_H

#include "nibble/Numerics/Storage.h"

namespace nibble {

/// How many rows and columns share one scale; 0 is the whole extent. The last
/// block of a row or column may be short.
struct BlockShape {
  size_t rows = 0;
  size_t cols = 0;

  bool operator==(const BlockShape &other) const {
    return rows == other.rows && cols == other.cols;
  }
};

enum class Granularity : uint8_t {
  Tensor,  ///< one scale
  Channel, ///< one scale an output channel
  Group,   ///< one scale for each `groupSize` inputs of an output channel
};

/// How a weight is stored, as a user names it.
struct Scheme {
  StorageFormat storage = StorageFormat::getUnsigned(4);
  Granularity granularity = Granularity::Group;
  /// Inputs that share a scale; only for Granularity::Group.
  size_t groupSize = 128;
  /// No zero point. True for every storage but integers.
  bool symmetric = false;
  FloatFormat scaleFormat = FloatFormat::F32;

  /// The blocks of a [K, N] weight, inputs first.
  BlockShape blockShape() const;
  bool operator==(const Scheme &other) const;
};

/// Reads a scheme's name: storage, granularity, symmetry.
///
///     storage      w2 ... w8   integers of that many bits
///                  nf4, fp4    code books; f8E4M3FN, f8E5M2, f4E2M1FN: floats
///     granularity  g<n>        groups of n inputs (1 to 1048576)
///                  c           per output channel
///                  t           per tensor
///     symmetry     s           symmetric: signed codes, no zero point
///                  (none)      asymmetric: unsigned codes with a zero point
///
/// `w4g128`, `w4g128s`, `w3g64`, `w4c`, `w4ts`, `nf4g64`, `w8c`. Code books
/// and floats have no zero point, so `s` after them is an error. A name does
/// not say the scale's format, which is f32 until the caller changes it.
Result<Scheme> parseScheme(std::string_view name);

/// The name that parseScheme reads; for a storage that has no scheme name (an
/// inline code book, a float) its text, as printStorage gives it.
std::string printScheme(const Scheme &scheme);

} // namespace nibble

#endif // NIBBLE_NUMERICS_SCHEME_H
