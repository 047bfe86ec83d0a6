//===- FloatFormats.h - Bit-exact small floats ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_FLOATFORMATS_H
#define NIBBLE_NUMERICS_FLOATFORMATS_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace nibble {

/// A binary floating-point format. The names and the bits are those of MLIR's
/// types and of the NumPy package ml_dtypes.
enum class FloatFormat : uint8_t {
  F32,
  F16,
  BF16,
  F8E4M3FN,
  F8E4M3FNUZ,
  F8E5M2,
  F8E5M2FNUZ,
  F8E8M0FNU,
  F4E2M1FN,
  F6E2M3FN,
  F6E3M2FN,
};
constexpr unsigned numFloatFormats = 11;

/// Which codes of a format are no finite numbers.
enum class NonFinite : uint8_t {
  /// IEEE 754: an exponent of all ones is infinity (mantissa 0) or NaN.
  InfinityAndNaN,
  /// No infinity; exponent and mantissa all ones is NaN, with either sign.
  NaNAllOnes,
  /// No infinity and no negative zero; the code of "-0" is the only NaN.
  NaNNegativeZero,
  /// Every code is a finite number.
  None,
};

/// One row a format: sign (where it has one), exponent and mantissa, from the
/// high bit to the low.
struct FloatFormatInfo {
  const char *name;
  unsigned bits;
  unsigned exponentBits;
  unsigned mantissaBits;
  int bias;
  bool hasSign;
  NonFinite nonFinite;
  /// Whether exponent code 0 stands for zero and denormals; not so in
  /// f8E8M0FNU, where every code but NaN is a power of two.
  bool hasZero;
};

const FloatFormatInfo &getInfo(FloatFormat format);

/// The format called `name` ("f16", "bf16", "f8E4M3FN", ...).
std::optional<FloatFormat> parseFloatFormat(std::string_view name);

/// What a number beyond the largest finite one becomes.
enum class Overflow : uint8_t {
  /// The rule of the format, as in ml_dtypes: infinity where there is one
  /// (f16, bf16, f8E5M2), else NaN where there is one, else (f4E2M1FN,
  /// f6E2M3FN, f6E3M2FN) the largest finite number.
  ByFormat,
  /// The largest finite number with the same sign, for infinities too: ONNX
  /// QuantizeLinear, and Cast with saturate = 1.
  Saturate,
};

/// Rounds `x` to the nearest number of `format`, half to even, and returns its
/// code in the low bits. A number overflows if it is beyond the largest finite
/// one *after* rounding to the format's precision.
///  - NaN gives the format's quiet NaN with the sign of `x`; negative zero in a
///    format that has no NaN.
///  - A format without negative zero gives zero for it.
///  - f8E8M0FNU has no sign and no zero: zero and negative numbers give NaN,
///    even when saturating; positive numbers below 2^-127 give 2^-127; half
///    way between two powers of two goes up.
uint32_t encodeFloat(FloatFormat format, float x,
                     Overflow overflow = Overflow::ByFormat);

/// The number that the low bits of `code` stand for; exact for every format.
float decodeFloat(FloatFormat format, uint32_t code);

/// decodeFloat(encodeFloat(x)).
float roundToFormat(FloatFormat format, float x,
                    Overflow overflow = Overflow::ByFormat);

float largestFinite(FloatFormat format);

/// The smallest positive number, denormals included.
float smallestPositive(FloatFormat format);

/// Bytes of one code in the arrays below: 4, 2, or 1 for 8 bits and fewer.
size_t codeBytes(FloatFormat format);

/// encodeFloat and decodeFloat over `count` elements; `codes` holds uint32_t,
/// uint16_t or uint8_t as codeBytes says. f16 and bf16 are vectorized.
void encodeArray(FloatFormat format, const float *values, size_t count,
                 void *codes, Overflow overflow = Overflow::ByFormat);
void decodeArray(FloatFormat format, const void *codes, size_t count,
                 float *values);

} // namespace nibble

#endif // NIBBLE_NUMERICS_FLOATFORMATS_H
