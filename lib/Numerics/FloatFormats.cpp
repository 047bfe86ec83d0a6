//===- FloatFormats.cpp - Bit-exact small floats --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/FloatFormats.h"
#include "FloatBits.h"

#include <algorithm>
#include <array>
#include <cmath>

using namespace nibble;

static constexpr FloatFormatInfo formats[numFloatFormats] = {
    {"f32", 32, 8, 23, 127, true, NonFinite::InfinityAndNaN, true},
    {"f16", 16, 5, 10, 15, true, NonFinite::InfinityAndNaN, true},
    {"bf16", 16, 8, 7, 127, true, NonFinite::InfinityAndNaN, true},
    {"f8E4M3FN", 8, 4, 3, 7, true, NonFinite::NaNAllOnes, true},
    {"f8E4M3FNUZ", 8, 4, 3, 8, true, NonFinite::NaNNegativeZero, true},
    {"f8E5M2", 8, 5, 2, 15, true, NonFinite::InfinityAndNaN, true},
    {"f8E5M2FNUZ", 8, 5, 2, 16, true, NonFinite::NaNNegativeZero, true},
    {"f8E8M0FNU", 8, 8, 0, 127, false, NonFinite::NaNAllOnes, false},
    {"f4E2M1FN", 4, 2, 1, 1, true, NonFinite::None, true},
    {"f6E2M3FN", 6, 2, 3, 1, true, NonFinite::None, true},
    {"f6E3M2FN", 6, 3, 2, 3, true, NonFinite::None, true},
};

const FloatFormatInfo &nibble::getInfo(FloatFormat format) {
  return formats[static_cast<size_t>(format)];
}

std::optional<FloatFormat> nibble::parseFloatFormat(std::string_view name) {
  for (unsigned i = 0; i < numFloatFormats; ++i)
    if (name == formats[i].name)
      return static_cast<FloatFormat>(i);
  return std::nullopt;
}

/// The sign bit, or 0 where there is none.
static uint32_t signBit(const FloatFormatInfo &info) {
  return info.hasSign ? 1u << (info.bits - 1) : 0;
}

static uint32_t largestCode(const FloatFormatInfo &info) {
  uint32_t allOnes = (1u << (info.exponentBits + info.mantissaBits)) - 1;
  switch (info.nonFinite) {
  case NonFinite::InfinityAndNaN:
    return allOnes - (1u << info.mantissaBits);
  case NonFinite::NaNAllOnes:
    return allOnes - 1;
  case NonFinite::NaNNegativeZero:
  case NonFinite::None:
    break;
  }
  return allOnes;
}

static uint32_t encodeNaN(const FloatFormatInfo &info, uint32_t sign) {
  switch (info.nonFinite) {
  case NonFinite::InfinityAndNaN:
    return sign | ((1u << info.exponentBits) - 1) << info.mantissaBits |
           1u << (info.mantissaBits - 1);
  case NonFinite::NaNAllOnes:
    return sign | (largestCode(info) + 1);
  case NonFinite::NaNNegativeZero:
  case NonFinite::None:
    break;
  }
  return signBit(info);
}

static uint32_t encodeOverflow(const FloatFormatInfo &info, uint32_t sign,
                               Overflow overflow) {
  uint32_t largest = largestCode(info);
  if (overflow == Overflow::Saturate || info.nonFinite == NonFinite::None)
    return sign | largest;
  if (info.nonFinite == NonFinite::NaNNegativeZero)
    return signBit(info);
  return sign | (largest + 1); // infinity, or NaN of all ones
}

uint32_t nibble::encodeFloat(FloatFormat format, float x, Overflow overflow) {
  const FloatFormatInfo &info = getInfo(format);
  uint32_t bits = bitsOf(x);
  uint32_t magnitude = bits & 0x7fffffff;
  uint32_t sign = bits >> 31 ? signBit(info) : 0;
  if (magnitude > infinityBits)
    return encodeNaN(info, sign);
  if (!info.hasSign && (bits >> 31 || magnitude == 0))
    return encodeNaN(info, 0);
  if (magnitude == infinityBits)
    return encodeOverflow(info, sign, overflow);
  if (magnitude == 0)
    return info.nonFinite == NonFinite::NaNNegativeZero ? 0 : sign;

  // |x| = significand * 2^(exponent - 23), the significand in [2^23, 2^24).
  int exponent = static_cast<int>(magnitude >> 23) - 127;
  uint32_t significand = (magnitude & 0x7fffff) | 0x800000;
  if (exponent == -127) {
    significand = magnitude;
    for (exponent = -126; significand < 0x800000; --exponent)
      significand <<= 1;
  }

  // A code of 0 in the exponent has the step of the code 1, if it is special.
  int biased = exponent + info.bias;
  int least = info.hasZero ? 1 : 0;
  int shift = 23 - static_cast<int>(info.mantissaBits);
  if (biased < least) {
    shift = std::min(shift + least - biased, 26);
    biased = least;
  }
  // Half to even; a carry out of the significand raises the exponent by itself.
  uint32_t rounded = significand >> shift;
  if (shift > 0) {
    uint32_t rest = significand & ((1u << shift) - 1);
    uint32_t half = 1u << (shift - 1);
    rounded += rest > half || (rest == half && (rounded & 1));
  }
  // In a format without zero anything below the least number becomes it.
  uint32_t leastSignificand = 1u << info.mantissaBits;
  if (!info.hasZero)
    rounded = std::max(rounded, leastSignificand);
  uint32_t code = (static_cast<uint32_t>(biased) << info.mantissaBits) +
                  rounded - leastSignificand;
  if (code > largestCode(info))
    return encodeOverflow(info, sign, overflow);
  if (code == 0 && info.nonFinite == NonFinite::NaNNegativeZero)
    return 0;
  return sign | code;
}

float nibble::decodeFloat(FloatFormat format, uint32_t code) {
  const FloatFormatInfo &info = getInfo(format);
  if (format == FloatFormat::F32)
    return floatOf(code);
  code &= (1u << info.bits) - 1;
  uint32_t negative = code & signBit(info) ? 0x80000000 : 0;
  uint32_t magnitude =
      code & ((1u << (info.exponentBits + info.mantissaBits)) - 1);
  if (info.nonFinite == NonFinite::NaNNegativeZero && code == signBit(info))
    return floatOf(0x7fc00000);
  uint32_t largest = largestCode(info);
  if (magnitude > largest) {
    bool isInfinity =
        info.nonFinite == NonFinite::InfinityAndNaN && magnitude == largest + 1;
    return floatOf(negative | (isInfinity ? infinityBits : 0x7fc00000));
  }
  int exponent = static_cast<int>(magnitude >> info.mantissaBits);
  uint32_t significand = magnitude & ((1u << info.mantissaBits) - 1);
  if (exponent > 0 || !info.hasZero)
    significand |= 1u << info.mantissaBits;
  else
    exponent = 1;
  float value =
      std::ldexp(static_cast<float>(significand),
                 exponent - info.bias - static_cast<int>(info.mantissaBits));
  return floatOf(bitsOf(value) | negative);
}

float nibble::roundToFormat(FloatFormat format, float x, Overflow overflow) {
  return decodeFloat(format, encodeFloat(format, x, overflow));
}

float nibble::largestFinite(FloatFormat format) {
  return decodeFloat(format, largestCode(getInfo(format)));
}

float nibble::smallestPositive(FloatFormat format) {
  return decodeFloat(format, getInfo(format).hasZero ? 1 : 0);
}

size_t nibble::codeBytes(FloatFormat format) {
  unsigned bits = getInfo(format).bits;
  return bits <= 8 ? 1 : bits / 8;
}

void nibble::encodeArray(FloatFormat format, const float *values, size_t count,
                         void *codes, Overflow overflow) {
  bool saturate = overflow == Overflow::Saturate;
  if (format == FloatFormat::F32 && !saturate) {
    std::copy(values, values + count, static_cast<float *>(codes));
  } else if (format == FloatFormat::F32) {
    for (size_t i = 0; i < count; ++i)
      static_cast<uint32_t *>(codes)[i] =
          encodeFloat(format, values[i], overflow);
  } else if (format == FloatFormat::F16) {
    uint32_t limit = saturate ? 0x7bff : 0x7c00;
    for (size_t i = 0; i < count; ++i)
      static_cast<uint16_t *>(codes)[i] = encodeF16(values[i], limit);
  } else if (format == FloatFormat::BF16) {
    uint32_t limit = saturate ? 0x7f7f : 0x7f80;
    for (size_t i = 0; i < count; ++i)
      static_cast<uint16_t *>(codes)[i] = encodeBF16(values[i], limit);
  } else {
    for (size_t i = 0; i < count; ++i)
      static_cast<uint8_t *>(codes)[i] =
          static_cast<uint8_t>(encodeFloat(format, values[i], overflow));
  }
}

void nibble::decodeArray(FloatFormat format, const void *codes, size_t count,
                         float *values) {
  if (format == FloatFormat::F32) {
    const float *floats = static_cast<const float *>(codes);
    std::copy(floats, floats + count, values);
  } else if (format == FloatFormat::F16) {
    for (size_t i = 0; i < count; ++i)
      values[i] = decodeF16(static_cast<const uint16_t *>(codes)[i]);
  } else if (format == FloatFormat::BF16) {
    for (size_t i = 0; i < count; ++i)
      values[i] = decodeBF16(static_cast<const uint16_t *>(codes)[i]);
  } else {
    std::array<float, 256> table;
    for (uint32_t code = 0; code < 256; ++code)
      table[code] = decodeFloat(format, code);
    for (size_t i = 0; i < count; ++i)
      values[i] = table[static_cast<const uint8_t *>(codes)[i]];
  }
}
