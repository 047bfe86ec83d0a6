//===- Coders.h - Rounding one vector of numbers to codes -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What the inner loops of all quantizers share: a type for each kind of storage
// that rounds `lanes` quotients w / scale at once.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_CODERS_H
#define NIBBLE_LIB_NUMERICS_CODERS_H

#include "BlockKernels.h"
#include "FloatBits.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// The same source for each instruction set, chosen when the program starts. The
// sanitizers come too late for that mechanism (ifunc), so there is one version.
#if defined(__SANITIZE_ADDRESS__)
#define NIBBLE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_SANITIZED 1
#endif
#endif
#if defined(__x86_64__) && defined(__linux__) && !defined(NIBBLE_SANITIZED)
#define NIBBLE_EACH_ISA                                                        \
  __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define NIBBLE_EACH_ISA
#endif
#define NIBBLE_INLINE inline __attribute__((always_inline))

namespace nibble {

// Vectors of all lanes; the compiler splits them into the registers there are.
// They never cross a call by value, whose convention depends on the registers.
using Floats = float __attribute__((vector_size(4 * lanes)));
using Ints = int32_t __attribute__((vector_size(4 * lanes)));
using Unsigneds = uint32_t __attribute__((vector_size(4 * lanes)));
using Bytes = uint8_t __attribute__((vector_size(lanes)));
using Doubles = double __attribute__((vector_size(8 * lanes)));

/// Adding and subtracting 1.5 * 2^23 rounds to an integer, half to even, on any
/// machine; valid for |x| <= 2^22, so after the clamp.
constexpr float roundingConstant = 12582912.0f;

struct IntegerCoder {
  NIBBLE_INLINE IntegerCoder(const Coding &, const Grid &grid) {
    std::memcpy(&zero, grid.zero, sizeof(zero));
    std::memcpy(&low, grid.low, sizeof(low));
    std::memcpy(&high, grid.high, sizeof(high));
  }
  NIBBLE_INLINE void round(const Floats &x, Floats &value) const {
    Floats clamped = x < low ? low : x;
    clamped = clamped > high ? high : clamped;
    value = (clamped + roundingConstant) - roundingConstant;
  }
  NIBBLE_INLINE void encode(const Floats &x, Floats &value, Ints &code) const {
    round(x, value);
    code = __builtin_convertvector(value + zero, Ints);
  }

  Floats zero, low, high;
};

struct CodeBookCoder {
  NIBBLE_INLINE CodeBookCoder(const Coding &coding, const Grid &)
      : book(coding.sorted) {}
  NIBBLE_INLINE void find(const Floats &x, Ints &index) const {
    index = Ints{};
    for (float threshold : book.thresholds)
      index -= x > threshold; // a true lane is -1
  }
  NIBBLE_INLINE void round(const Floats &x, Floats &value) const {
    Ints index;
    find(x, index);
    for (size_t lane = 0; lane < lanes; ++lane)
      value[lane] = book.values[static_cast<size_t>(index[lane])];
  }
  NIBBLE_INLINE void encode(const Floats &x, Floats &value, Ints &code) const {
    Ints index;
    find(x, index);
    for (size_t lane = 0; lane < lanes; ++lane) {
      value[lane] = book.values[static_cast<size_t>(index[lane])];
      code[lane] = book.codes[static_cast<size_t>(index[lane])];
    }
  }

  const SortedCodeBook &book;
};

struct FloatCoder {
  NIBBLE_INLINE FloatCoder(const Coding &coding, const Grid &)
      : coding(coding) {}
  NIBBLE_INLINE void round(const Floats &x, Floats &value) const {
    Ints code;
    encode(x, value, code);
  }
  NIBBLE_INLINE void encode(const Floats &x, Floats &value, Ints &code) const {
    for (size_t lane = 0; lane < lanes; ++lane) {
      uint32_t bits =
          encodeFloat(coding.floatFormat, x[lane], Overflow::Saturate);
      code[lane] = static_cast<int32_t>(bits);
      value[lane] = coding.values[bits];
    }
  }

  const Coding &coding;
};

/// The same for one number, where speed is not at stake.
inline float roundOne(const Coding &coding, float x, float low, float high) {
  switch (coding.kind) {
  case StorageKind::Float:
    return coding
        .values[encodeFloat(coding.floatFormat, x, Overflow::Saturate)];
  case StorageKind::CodeBook: {
    const std::vector<float> &thresholds = coding.sorted.thresholds;
    auto above = std::lower_bound(thresholds.begin(), thresholds.end(), x);
    return coding.sorted
        .values[static_cast<size_t>(above - thresholds.begin())];
  }
  default:
    return std::nearbyint(std::clamp(x, low, high));
  }
}

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_CODERS_H
