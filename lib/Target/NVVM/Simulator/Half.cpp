//===- Half.cpp - Numbers of 16 bits --------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Half.h"

#include "nibble/Numerics/FloatFormats.h"

#include <cmath>
#include <cstring>
#include <vector>

using namespace nibble;
using namespace nibble::simulator;

/// All 65536 numbers of a format.
static std::vector<float> listNumbers(FloatFormat format) {
  constexpr unsigned count = 1 << 16;
  std::vector<float> numbers(count);
  for (unsigned code = 0; code < count; ++code)
    numbers[code] = decodeFloat(format, code);
  return numbers;
}

float nibble::simulator::decodeHalf(uint16_t bits) {
  static const std::vector<float> numbers = listNumbers(FloatFormat::F16);
  return numbers[bits];
}

float nibble::simulator::decodeBrainFloat(uint16_t bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

/// Rounds nearest + error to the neighbour with an odd last bit, unless it is
/// exact: what is rounded to fewer bits later is then as if rounded once
/// (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE
/// Transactions on Computers 57(4), 2008).
template <typename Float, typename Bits>
static Float roundToOdd(Float nearest, double error) {
  if (error == 0 || !std::isfinite(nearest))
    return nearest;
  Bits bits;
  std::memcpy(&bits, &nearest, sizeof(bits));
  if (bits % 2 == 0)
    bits += (error > 0) == (nearest > 0) ? 1 : -1;
  std::memcpy(&nearest, &bits, sizeof(bits));
  return nearest;
}

/// The product is exact in f64; the sum's error is Knuth's two-sum.
uint16_t nibble::simulator::fuseHalf(uint16_t a, uint16_t b, uint16_t c) {
  double product = double(decodeHalf(a)) * decodeHalf(b);
  double addend = decodeHalf(c), sum = product + addend;
  double part = sum - product;
  double error = (product - (sum - part)) + (addend - part);
  double wide = roundToOdd<double, uint64_t>(sum, error);
  auto narrow = static_cast<float>(wide);
  narrow = roundToOdd<float, uint32_t>(narrow, wide - narrow);
  return encodeFloat(FloatFormat::F16, narrow);
}
