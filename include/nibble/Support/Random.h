//===- Random.h - Random numbers that are the same everywhere ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_RANDOM_H
#define NIBBLE_SUPPORT_RANDOM_H

#include <cstdint>

namespace nibble {

/// Random numbers from a seed, the same on every machine: splitmix64
/// (https://doi.org/10.1145/2714064.2660195).
class Random {
public:
  explicit Random(uint64_t seed) : state(seed) {}

  /// Uniform in [0, 1).
  double draw() {
    uint64_t z = (state += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }

private:
  uint64_t state;
};

} // namespace nibble

#endif // NIBBLE_SUPPORT_RANDOM_H
