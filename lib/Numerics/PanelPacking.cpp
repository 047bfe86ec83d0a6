//===- PanelPacking.cpp - Codes as kernels read them ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/PanelPacking.h"

#include "nibble/Numerics/FloatFormats.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <cstring>
#include <vector>

using namespace nibble;

static constexpr size_t kColumns = PanelFormat::kColumns;
static constexpr size_t kQuadBytes = 4 * kColumns;

//===----------------------------------------------------------------------===//
// Codes
//===----------------------------------------------------------------------===//

/// One step from its quads, kQuadBytes each.
static void packStep(const PanelFormat &format, const uint8_t *quads,
                     uint8_t *rows) {
  size_t count = format.quadsPerStep();
  if (format.bits != 3) {
    for (size_t i = 0; i < kQuadBytes; ++i) {
      unsigned byte = 0;
      for (size_t quad = 0; quad < count; ++quad)
        byte |= quads[quad * kQuadBytes + i] << (quad * format.bits);
      rows[i] = byte;
    }
    return;
  }
  for (size_t i = 0; i < kQuadBytes; ++i) {
    unsigned low[2] = {0, 0}, high = 0;
    for (size_t quad = 0; quad < count; ++quad) {
      unsigned code = quads[quad * kQuadBytes + i];
      low[quad / 4] |= (code & 3) << (quad % 4 * 2);
      high |= (code >> 2) << quad;
    }
    rows[i] = low[0];
    rows[kQuadBytes + i] = low[1];
    rows[2 * kQuadBytes + i] = high;
  }
}

static void unpackStep(const PanelFormat &format, const uint8_t *rows,
                       uint8_t *quads) {
  unsigned mask = (1u << format.bits) - 1;
  for (size_t quad = 0; quad < format.quadsPerStep(); ++quad)
    for (size_t i = 0; i < kQuadBytes; ++i) {
      unsigned code = rows[i] >> (quad * format.bits);
      if (format.bits == 3)
        code = ((rows[quad / 4 * kQuadBytes + i] >> (quad % 4 * 2)) & 3) |
               ((rows[2 * kQuadBytes + i] >> quad) & 1) << 2;
      quads[quad * kQuadBytes + i] = code & mask;
    }
}

namespace {
/// The part of a weight that one group of one tile covers.
struct GroupRange {
  GroupRange(const PanelFormat &format, size_t tile, size_t group)
      : firstK(group * format.group),
        countK(std::min(format.group, format.K - firstK)),
        firstN(tile * kColumns), countN(std::min(kColumns, format.N - firstN)) {
  }
  size_t firstK, countK, firstN, countN;
};
} // namespace

/// Where element (k, n) of a group is among its quads.
static size_t getQuadPosition(size_t k, size_t n) {
  return k / 4 * kQuadBytes + n * 4 + k % 4;
}

static void packCodes(const PanelFormat &format, const GroupRange &range,
                      const uint8_t *codes, ptrdiff_t rowStride,
                      ptrdiff_t colStride, std::vector<uint8_t> &quads,
                      uint8_t *packed) {
  std::fill(quads.begin(), quads.end(), 0);
  const uint8_t *first = codes +
                         static_cast<ptrdiff_t>(range.firstK) * rowStride +
                         static_cast<ptrdiff_t>(range.firstN) * colStride;
  // The inner loop runs along the stride that is 1.
  if (colStride == 1)
    for (size_t k = 0; k < range.countK; ++k)
      for (size_t n = 0; n < range.countN; ++n)
        quads[getQuadPosition(k, n)] =
            first[static_cast<ptrdiff_t>(k) * rowStride +
                  static_cast<ptrdiff_t>(n)];
  else
    for (size_t n = 0; n < range.countN; ++n)
      for (size_t k = 0; k < range.countK; ++k)
        quads[getQuadPosition(k, n)] =
            first[static_cast<ptrdiff_t>(k) * rowStride +
                  static_cast<ptrdiff_t>(n) * colStride];
  size_t stepQuadBytes = format.quadsPerStep() * kQuadBytes;
  for (size_t step = 0; step < format.stepsPerGroup(); ++step)
    packStep(format, quads.data() + step * stepQuadBytes,
             packed + step * format.stepBytes());
}

//===----------------------------------------------------------------------===//
// Groups
//===----------------------------------------------------------------------===//

static void packScales(const PanelFormat &format, const GroupRange &range,
                       const float *scales, uint8_t *packed) {
  std::memset(packed, 0, kColumns * format.scaleBytes);
  if (format.scaleBytes == 4)
    std::memcpy(packed, scales, range.countN * sizeof(float));
  else
    encodeArray(FloatFormat::F16, scales, range.countN, packed);
}

void nibble::packPanels(const PanelFormat &format, const uint8_t *codes,
                        ptrdiff_t rowStride, ptrdiff_t colStride,
                        const float *scales, const uint8_t *zeros,
                        uint8_t *packed, unsigned threads) {
  auto packTiles = [&](size_t begin, size_t end) {
    std::vector<uint8_t> quads(format.group * kColumns);
    for (size_t tile = begin; tile < end; ++tile)
      for (size_t group = 0; group < format.groups(); ++group) {
        GroupRange range(format, tile, group);
        uint8_t *out =
            packed + (tile * format.groups() + group) * format.groupBytes();
        packCodes(format, range, codes, rowStride, colStride, quads, out);
        out += format.codeBytes();
        size_t grid = group * format.N + range.firstN;
        packScales(format, range, scales + grid, out);
        out += kColumns * format.scaleBytes;
        if (format.hasZeros) {
          std::memset(out, 0, kColumns);
          std::memcpy(out, zeros + grid, range.countN);
        }
      }
  };
  parallelFor(format.tiles(), 1, threads, packTiles);
}

void nibble::unpackPanels(const PanelFormat &format, const uint8_t *packed,
                          ptrdiff_t rowStride, ptrdiff_t colStride,
                          uint8_t *codes, float *scales, uint8_t *zeros) {
  std::vector<uint8_t> quads(format.group * kColumns);
  size_t stepQuadBytes = format.quadsPerStep() * kQuadBytes;
  for (size_t tile = 0; tile < format.tiles(); ++tile)
    for (size_t group = 0; group < format.groups(); ++group) {
      GroupRange range(format, tile, group);
      for (size_t step = 0; step < format.stepsPerGroup(); ++step)
        unpackStep(format, packed + step * format.stepBytes(),
                   quads.data() + step * stepQuadBytes);
      for (size_t k = 0; k < range.countK; ++k)
        for (size_t n = 0; n < range.countN; ++n)
          codes[static_cast<ptrdiff_t>(range.firstK + k) * rowStride +
                static_cast<ptrdiff_t>(range.firstN + n) * colStride] =
              quads[getQuadPosition(k, n)];
      size_t grid = group * format.N + range.firstN;
      const uint8_t *rest = packed + format.codeBytes();
      if (format.scaleBytes == 4)
        std::memcpy(scales + grid, rest, range.countN * sizeof(float));
      else
        decodeArray(FloatFormat::F16, rest, range.countN, scales + grid);
      if (format.hasZeros)
        std::memcpy(zeros + grid, rest + kColumns * format.scaleBytes,
                    range.countN);
      packed += format.groupBytes();
    }
}

bool nibble::areExactInF16(const float *scales, size_t count) {
  return std::all_of(scales, scales + count, [](float scale) {
    return roundToFormat(FloatFormat::F16, scale) == scale;
  });
}

template <typename T>
static void packNumbers(size_t K, size_t N, const T *values,
                        ptrdiff_t rowStride, ptrdiff_t colStride, T *packed,
                        unsigned threads) {
  size_t tiles = (N + kColumns - 1) / kColumns;
  auto packTiles = [&](size_t begin, size_t end) {
    for (size_t tile = begin; tile < end; ++tile)
      for (size_t k = 0; k < K; ++k) {
        size_t firstN = tile * kColumns,
               countN = std::min(kColumns, N - firstN);
        T *row = packed + (tile * K + k) * kColumns;
        const T *source = values + static_cast<ptrdiff_t>(k) * rowStride +
                          static_cast<ptrdiff_t>(firstN) * colStride;
        for (size_t n = 0; n < countN; ++n)
          row[n] = source[static_cast<ptrdiff_t>(n) * colStride];
        std::fill(row + countN, row + kColumns, T(0));
      }
  };
  parallelFor(tiles, 1, threads, packTiles);
}

void nibble::packFloatPanels(size_t K, size_t N, const float *values,
                             ptrdiff_t rowStride, ptrdiff_t colStride,
                             float *packed, unsigned threads) {
  packNumbers(K, N, values, rowStride, colStride, packed, threads);
}

void nibble::packFloatPanels(size_t K, size_t N, const uint16_t *values,
                             ptrdiff_t rowStride, ptrdiff_t colStride,
                             uint16_t *packed, unsigned threads) {
  packNumbers(K, N, values, rowStride, colStride, packed, threads);
}
