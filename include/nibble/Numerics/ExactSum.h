//===- ExactSum.h - Sums that do not depend on the order --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_EXACTSUM_H
#define NIBBLE_NUMERICS_EXACTSUM_H

#include <cmath>
#include <cstdint>

namespace nibble {

/// A sum of floats in fixed point: a multiple of 2^-56 below 2^53 in magnitude.
/// Integers add exactly, so sums over parts of the data, by any number of
/// threads and in any order, merge to the same bits. Each term is rounded
/// towards zero to a multiple of 2^-56 (1.4e-17).
struct ExactSum {
  int64_t high = 0; ///< in units of 2^-10
  int64_t low = 0;  ///< in units of 2^-56, from 0 to 2^46 - 1

  /// `term` is finite and below 2^52 in magnitude.
  void add(double term) {
    double coarse = std::trunc(term * 0x1p10);
    high += static_cast<int64_t>(coarse);
    low += static_cast<int64_t>((term * 0x1p10 - coarse) * 0x1p46);
    carry();
  }
  void merge(const ExactSum &other) {
    high += other.high;
    low += other.low;
    carry();
  }
  double value() const {
    return static_cast<double>(high) * 0x1p-10 +
           static_cast<double>(low) * 0x1p-56;
  }
  bool operator==(const ExactSum &other) const {
    return high == other.high && low == other.low;
  }

private:
  /// Makes equal sums equal numbers.
  void carry() {
    int64_t units = low >> 46;
    high += units;
    low -= units * (int64_t(1) << 46);
  }
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_EXACTSUM_H
