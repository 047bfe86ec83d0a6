//===- RangeObserver.h - The range that codes are spread over ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_RANGEOBSERVER_H
#define NIBBLE_NUMERICS_RANGEOBSERVER_H

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nibble {

/// How the range of an activation's codes is chosen from what calibration saw.
enum class RangeObserver : uint8_t {
  MinMax, ///< all of it
  /// All but .005 % of the numbers at each end.
  Percentile,
  /// Where the numbers as codes are distributed most like the numbers: the
  /// least Kullback-Leibler divergence, as TensorRT does (Migacz, 8-bit
  /// Inference with TensorRT, GTC 2017), first of the upper end, then of the
  /// lower one.
  Entropy,
  /// The least expected squared error: step² / 12 inside of the range, the
  /// squared distance to it outside.
  MeanSquares,
};

/// A range of numbers that contains 0.
struct NumberRange {
  float low = 0, high = 0;
};

/// How many numbers fell into each of equal bins of a range; the first and the
/// last bin also have what is beyond. Counts are exact, so sums over parts of
/// the data do not depend on their order.
class ValueHistogram {
public:
  static constexpr size_t kBins = 2048;

  explicit ValueHistogram(NumberRange range) : range(range), counts(kBins, 0) {}

  void add(const float *values, size_t count);
  void merge(const ValueHistogram &other) {
    for (size_t i = 0; i < kBins; ++i)
      counts[i] += other.counts[i];
  }

  NumberRange getRange() const { return range; }
  const std::vector<uint64_t> &getCounts() const { return counts; }
  /// The opposite; `bins` has kBins entries.
  void setCounts(std::vector<uint64_t> bins) { counts = std::move(bins); }

private:
  NumberRange range;
  std::vector<uint64_t> counts;
};

/// Chooses a range of whole bins for 256 codes. It contains the bin of 0, and
/// is all of the range where nothing was counted.
NumberRange chooseRange(const ValueHistogram &histogram,
                        RangeObserver observer);

} // namespace nibble

#endif // NIBBLE_NUMERICS_RANGEOBSERVER_H
