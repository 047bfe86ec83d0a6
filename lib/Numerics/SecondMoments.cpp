//===- SecondMoments.cpp - Mean products of channels ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/SecondMoments.h"

#include "LinearAlgebra.h"

#include <algorithm>

using namespace nibble;

static constexpr size_t kTile = 256;
/// Sums of so many products stay far from where f32 loses small terms.
static constexpr size_t kChunk = 512;
/// Sums over half a million rows of such numbers fit into an ExactSum.
static constexpr float kLargest = 0x1p17F;

/// A block of the upper half.
struct SecondMoments::Tile {
  size_t row, col, rows, cols;
  /// Of its first sum.
  size_t offset;
};

std::vector<SecondMoments::Tile> SecondMoments::listTiles() const {
  std::vector<Tile> list;
  size_t offset = 0;
  for (size_t row = 0; row < size; row += kTile)
    for (size_t col = row; col < size; col += kTile) {
      Tile tile = {row, col, std::min(kTile, size - row),
                   std::min(kTile, size - col), offset};
      offset += tile.rows * tile.cols;
      list.push_back(tile);
    }
  return list;
}

SecondMoments::SecondMoments(size_t channels)
    : size(channels), guard(std::make_unique<std::mutex>()) {
  size_t count = 0;
  for (const Tile &tile : listTiles())
    count += tile.rows * tile.cols;
  tiles.resize(count);
}

void SecondMoments::addChunk(const float *rows, size_t count) {
  std::vector<float> product(std::min(size, kTile) * std::min(size, kTile));
  for (const Tile &tile : listTiles()) {
    multiplyTransposed(tile.rows, tile.cols, count, 1, rows + tile.row, size,
                       rows + tile.col, size, 0, product.data(), tile.cols);
    std::lock_guard<std::mutex> lock(*guard);
    ExactSum *sums = tiles.data() + tile.offset;
    for (size_t i = 0; i < tile.rows * tile.cols; ++i)
      sums[i].add(product[i]);
  }
}

bool SecondMoments::add(const float *rows, size_t count) {
  // NaN compares false.
  bool inRange = true;
  for (size_t i = 0; i < count * size; ++i)
    inRange &= std::fabs(rows[i]) <= kLargest;
  if (!inRange)
    return false;
  for (size_t row = 0; row < count; row += kChunk)
    addChunk(rows + row * size, std::min(kChunk, count - row));
  std::lock_guard<std::mutex> lock(*guard);
  rowCount += count;
  return true;
}

void SecondMoments::merge(const SecondMoments &other) {
  for (size_t i = 0; i < tiles.size(); ++i)
    tiles[i].merge(other.tiles[i]);
  rowCount += other.rowCount;
}

void SecondMoments::restore(std::vector<ExactSum> sums, uint64_t rows) {
  tiles = std::move(sums);
  rowCount = rows;
}

std::vector<double> SecondMoments::mean() const {
  std::vector<double> result(size * size);
  double scale = rowCount ? 1.0 / static_cast<double>(rowCount) : 0;
  for (const Tile &tile : listTiles())
    for (size_t r = 0; r < tile.rows; ++r)
      for (size_t c = 0; c < tile.cols; ++c) {
        size_t row = tile.row + r, col = tile.col + c;
        double value = tiles[tile.offset + r * tile.cols + c].value() * scale;
        // Of a tile on the diagonal both halves were summed, alike but for
        // rounding: the upper one counts.
        if (col < row)
          continue;
        result[row * size + col] = result[col * size + row] = value;
      }
  return result;
}
