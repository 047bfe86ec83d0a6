//===- WeightsPlace.h - Where a compiled model keeps weights ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_WEIGHTSPLACE_H
#define NIBBLE_TARGET_WEIGHTSPLACE_H

#include <cstdint>

namespace nibble {

enum class WeightsPlace {
  /// In the library up to kMaxEmbeddedWeights bytes, else in a file.
  Auto,
  Embedded,
  File
};

inline constexpr uint64_t kMaxEmbeddedWeights = uint64_t(16) << 20;

} // namespace nibble

#endif // NIBBLE_TARGET_WEIGHTSPLACE_H
