//===- Random.h - Numbers by a seed -----------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_RANDOM_H
#define NIBBLE_SUPPORT_RANDOM_H

#include <cstdint>

namespace nibble {

/// A uniform number in [0, 1), the same on every machine: splitmix64 (Steele,
/// Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
inline double drawUniform(uint64_t &state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

} // namespace nibble

#endif // NIBBLE_SUPPORT_RANDOM_H
