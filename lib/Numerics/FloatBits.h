//===- FloatBits.h - Floats as bits, in loops that vectorize ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_FLOATBITS_H
#define NIBBLE_LIB_NUMERICS_FLOATBITS_H

#include <cstdint>
#include <cstring>

namespace nibble {

inline uint32_t bitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline float floatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

constexpr uint32_t infinityBits = 0x7f800000;

/// f32 to f16, half to even. `overflow` is the code for what is too large:
/// 0x7c00 (infinity) or 0x7bff. Both halves are computed and one selected: no
/// branch.
inline uint16_t encodeF16(float x, uint32_t overflow) {
  uint32_t bits = bitsOf(x);
  uint32_t magnitude = bits & 0x7fffffff;
  uint32_t rebased = magnitude - (112u << 23);
  uint32_t normal = (rebased + 0xfff + ((rebased >> 13) & 1)) >> 13;
  normal = normal > overflow ? overflow : normal;
  // 0.5 has the unit in the last place of f16's denormals, 2^-24.
  uint32_t denormal = bitsOf(floatOf(magnitude) + 0.5f) - 0x3f000000;
  uint32_t code = magnitude < 0x38800000 ? denormal : normal;
  code = magnitude > infinityBits ? 0x7e00 : code;
  return static_cast<uint16_t>(code | (bits >> 16 & 0x8000));
}

inline float decodeF16(uint16_t code) {
  uint32_t magnitude = code & 0x7fff;
  uint32_t normal = (magnitude << 13) + (112u << 23);
  normal += magnitude >= 0x7c00 ? 112u << 23 : 0;
  uint32_t denormal =
      bitsOf(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  uint32_t bits = magnitude < 0x400 ? denormal : normal;
  return floatOf(bits | static_cast<uint32_t>(code & 0x8000) << 16);
}

/// f32 to bf16, half to even; `overflow` is 0x7f80 (infinity) or 0x7f7f.
inline uint16_t encodeBF16(float x, uint32_t overflow) {
  uint32_t bits = bitsOf(x);
  uint32_t magnitude = bits & 0x7fffffff;
  uint32_t code = (magnitude + 0x7fff + ((magnitude >> 16) & 1)) >> 16;
  code = code > overflow ? overflow : code;
  code = magnitude > infinityBits ? 0x7fc0 : code;
  return static_cast<uint16_t>(code | (bits >> 16 & 0x8000));
}

inline float decodeBF16(uint16_t code) {
  return floatOf(static_cast<uint32_t>(code) << 16);
}

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_FLOATBITS_H
