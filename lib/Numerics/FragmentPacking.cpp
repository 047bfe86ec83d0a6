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
static constexpr size_t kWordsPerLoad = 4;

namespace {
struct Place {
  size_t input, output;
};
} // namespace

/// Where code `i` of a lane's word comes from, within a step of a tile of which
/// it is word `word`.
static Place getPlace(const StorageFormat &storage, size_t lane, size_t word,
                      size_t i) {
  size_t input = lane % 4 * 2, output = lane / 4;
  if (storage.bits == 8)
    return {input + i / 2 + word * 8, output + i % 2 * 8};
  if (storage.isInteger())
    return {input + i / 4 + i / 2 % 2 * 8, output + i % 2 * 8};
  return {input + i % 2 + i / 4 * 8, output + i / 2 % 2 * 8};
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
        if (!format.hasZeros())
          continue;
        float magic = -1024;
        for (size_t output : {n, n + 8}) {
          float zero = isThere(g, output) ? zeros[g * format.N + output] : 0;
          storeF16(magic - zero, out);
          if (format.storage.bits == 4)
            magic /= 16;
        }
      }
}

void nibble::packFragments(const FragmentFormat &format, const uint8_t *codes,
                           ptrdiff_t rowStride, ptrdiff_t colStride,
                           const float *scales, const uint8_t *zeros,
                           uint8_t *packedCodes, uint8_t *packedScales) {
  const StorageFormat &storage = format.storage;
  bool isSigned = storage.kind == StorageKind::Signed;
  uint32_t mask = (1u << storage.bits) - 1;
  uint32_t sign = isSigned ? 1u << (storage.bits - 1) : 0;
  auto codeAt = [&](size_t k, size_t n) -> uint32_t {
    if (k >= format.K || n >= format.N)
      return 0;
    uint32_t code = codes[static_cast<ptrdiff_t>(k) * rowStride +
                          static_cast<ptrdiff_t>(n) * colStride];
    return (code ^ sign) & mask;
  };
  size_t wordsPerStep = storage.bits / 4;
  auto wordAt = [&](size_t tile, size_t chunk, size_t lane, size_t index) {
    size_t step = chunk + index / wordsPerStep * kStep;
    uint32_t word = 0;
    for (size_t i = 0; i < 32 / storage.bits; ++i) {
      Place place = getPlace(storage, lane, index % wordsPerStep, i);
      word |= codeAt(step + place.input, tile + place.output)
              << (storage.bits * i);
    }
    return word;
  };
  size_t words = kChunk / kStep * wordsPerStep;
  for (size_t tile = 0; tile < format.paddedN(); tile += kTile)
    for (size_t chunk = 0; chunk < format.paddedK(); chunk += kChunk)
      for (size_t load = 0; load < words; load += kWordsPerLoad)
        for (size_t lane = 0; lane < kLanes; ++lane)
          for (size_t i = 0; i < kWordsPerLoad; ++i) {
            uint32_t word = wordAt(tile, chunk, lane, load + i);
            std::memcpy(packedCodes, &word, sizeof(word));
            packedCodes += sizeof(word);
          }
  packScales(format, scales, zeros, packedScales);
}
