//===- NestedScales.cpp - Scales quantized again --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/NestedScales.h"

#include <algorithm>
#include <cmath>

using namespace nibble;

/// step * (code - zero), as NestedScales says.
static float scaleOf(float step, int code, float zero) {
  return step * (static_cast<float>(code) - zero);
}

/// The code whose scale is nearest to `scale`, among those that are not 0.
static int nearestCode(float scale, float step, float zero, int largest) {
  int best = 0;
  float bestDistance = INFINITY;
  for (int code = 0; code <= largest; ++code) {
    float value = scaleOf(step, code, zero);
    float distance = std::fabs(value - scale);
    if (value != 0 && distance < bestDistance) {
      bestDistance = distance;
      best = code;
    }
  }
  return best;
}

NestedScales nibble::nestScales(std::vector<float> &scales, unsigned bits,
                                size_t runLength, FloatFormat format) {
  NestedScales nested;
  nested.bits = bits;
  nested.runLength = runLength;
  nested.format = format;
  int largest = (1 << bits) - 1;
  for (size_t begin = 0; begin < scales.size(); begin += runLength) {
    size_t end = std::min(scales.size(), begin + runLength);
    auto [low, high] =
        std::minmax_element(scales.begin() + static_cast<ptrdiff_t>(begin),
                            scales.begin() + static_cast<ptrdiff_t>(end));
    // Steps so fine that the zero would lose its unit are of no use.
    float magnitude = std::max(std::fabs(*low), std::fabs(*high));
    float precision = format == FloatFormat::F32 ? 0x1p-20f : 0x1p-8f;
    float step = std::max((*high - *low) / static_cast<float>(largest),
                          magnitude * precision);
    step = roundToFormat(format, step, Overflow::Saturate);
    if (step == 0)
      step = smallestPositive(format);
    float zero = roundToFormat(format, -*low / step, Overflow::Saturate);
    nested.steps.push_back(step);
    nested.zeros.push_back(zero);
    for (size_t i = begin; i < end; ++i) {
      int code = nearestCode(scales[i], step, zero, largest);
      nested.codes.push_back(static_cast<uint8_t>(code));
      scales[i] = scaleOf(step, code, zero);
    }
  }
  return nested;
}
