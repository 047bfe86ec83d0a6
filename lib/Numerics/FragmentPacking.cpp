//===- FragmentPacking.cpp - Codes as tensor cores read them --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/FragmentPacking.h"

#include "nibble/Numerics/FloatFormats.h"

#include <cstring>

using namespace nibble;

static constexpr size_t kTile = FragmentFormat::kTile;
static constexpr size_t kChunk = FragmentFormat::kChunk;
static constexpr size_t kStep = 16;
static constexpr size_t kLanes = 32;

/// Where nibble `i` of a lane's word comes from, within a step of a tile.
static size_t getOutput(size_t lane, size_t i) { return lane / 4 + i % 2 * 8; }
static size_t getInput(size_t lane, size_t i) {
  return lane % 4 * 2 + i / 4 + i % 4 / 2 * 8;
}

template <typename CodeAt>
static uint32_t packWord(size_t lane, CodeAt codeAt) {
  uint32_t word = 0;
  for (size_t i = 0; i < 8; ++i)
    word |= uint32_t(codeAt(getInput(lane, i), getOutput(lane, i))) << (4 * i);
  return word;
}

static void storeF16(float value, uint8_t *&out) {
  auto code = static_cast<uint16_t>(encodeFloat(FloatFormat::F16, value));
  std::memcpy(out, &code, sizeof(code));
  out += sizeof(code);
}

static void packScales(const FragmentFormat &format, const float *scales,
                       const uint8_t *zeros, uint8_t *out) {
  size_t group = format.group == 0 ? format.K : format.group;
  size_t storedGroups = (format.K + group - 1) / group;
  auto isThere = [&](size_t g, size_t n) {
    return g < storedGroups && n < format.N;
  };
  for (size_t tile = 0; tile < format.paddedN(); tile += kTile)
    for (size_t g = 0; g < format.groups(); ++g)
      for (size_t n = tile; n < tile + kTile / 2; ++n) {
        for (size_t output : {n, n + 8})
          storeF16(isThere(g, output) ? scales[g * format.N + output] : 0, out);
        if (!format.hasZeros)
          continue;
        float magic = -1024;
        for (size_t output : {n, n + 8}) {
          float zero = isThere(g, output) ? zeros[g * format.N + output] : 0;
          storeF16(magic - zero, out);
          magic /= 16;
        }
      }
}

void nibble::packFragments(const FragmentFormat &format, const uint8_t *codes,
                           ptrdiff_t rowStride, ptrdiff_t colStride,
                           const float *scales, const uint8_t *zeros,
                           uint8_t *packedCodes, uint8_t *packedScales) {
  auto codeAt = [&](size_t k, size_t n) -> uint8_t {
    if (k >= format.K || n >= format.N)
      return 0;
    return codes[static_cast<ptrdiff_t>(k) * rowStride +
                 static_cast<ptrdiff_t>(n) * colStride] &
           15;
  };
  for (size_t tile = 0; tile < format.paddedN(); tile += kTile)
    for (size_t chunk = 0; chunk < format.paddedK(); chunk += kChunk)
      for (size_t lane = 0; lane < kLanes; ++lane)
        for (size_t step = chunk; step < chunk + kChunk; step += kStep) {
          uint32_t word = packWord(lane, [&](size_t k, size_t n) {
            return codeAt(step + k, tile + n);
          });
          std::memcpy(packedCodes, &word, sizeof(word));
          packedCodes += sizeof(word);
        }
  packScales(format, scales, zeros, packedScales);
}
