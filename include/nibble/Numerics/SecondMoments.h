//===- SecondMoments.h - Mean products of channels --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_SECONDMOMENTS_H
#define NIBBLE_NUMERICS_SECONDMOMENTS_H

#include "nibble/Numerics/ExactSum.h"

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace nibble {

/// The mean of x xᵀ over rows x of K channels: half the Hessian of a layer's
/// squared output error per row (GPTQ, https://arxiv.org/abs/2210.17323,
/// section 2). Products of up to 512 rows are summed in f32, those sums exactly
/// (ExactSum), so the result does not depend on the order of `add`s, on threads
/// or on how the data was split. Takes about 8 K² bytes.
class SecondMoments {
public:
  explicit SecondMoments(size_t channels);

  size_t channels() const { return size; }
  uint64_t rows() const { return rowCount; }

  /// Adds `count` rows of `channels()` numbers each, row-major. Several threads
  /// may add at once. False where a number is not finite or above 2^17 in
  /// magnitude; nothing of these rows counts then.
  bool add(const float *rows, size_t count);
  void merge(const SecondMoments &other);

  /// [K, K], row-major and symmetric. Zeros without rows.
  std::vector<double> mean() const;

  /// The sums as they are, for an archive: tiles of 256 x 256 of the upper
  /// half, row of tiles by row of tiles, each row-major.
  const std::vector<ExactSum> &sums() const { return tiles; }
  /// The opposite; `sums` has as many entries as `sums()`.
  void restore(std::vector<ExactSum> sums, uint64_t rows);

private:
  struct Tile;
  std::vector<Tile> listTiles() const;
  void addChunk(const float *rows, size_t count);

  size_t size;
  uint64_t rowCount = 0;
  std::vector<ExactSum> tiles;
  std::unique_ptr<std::mutex> guard;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_SECONDMOMENTS_H
