//===- RangeObserver.cpp - The range that codes are spread over -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/RangeObserver.h"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace nibble;

static constexpr size_t kBins = ValueHistogram::kBins;
static constexpr size_t kCodes = 256;
/// Of all numbers, at each end.
static constexpr double kOutside = 5e-5;
/// Ranges are compared in steps of so many bins.
static constexpr size_t kStride = 16;

void ValueHistogram::add(const float *values, size_t count) {
  double width = (double(range.high) - range.low) / kBins;
  if (!(width > 0))
    return;
  for (size_t i = 0; i < count; ++i) {
    double place = (values[i] - double(range.low)) / width;
    // What is left is not negative: the conversion rounds down.
    double inside = std::clamp(place, 0.0, double(kBins - 1));
    ++counts[static_cast<size_t>(inside)];
  }
}

namespace {
/// Bins from `first` up to, but not with, `last`.
struct BinRange {
  size_t first = 0, last = kBins;
};

class Chooser {
public:
  explicit Chooser(const ValueHistogram &histogram)
      : counts(histogram.getCounts()), range(histogram.getRange()),
        width((double(range.high) - range.low) / kBins) {
    double place = std::floor(-double(range.low) / width);
    zero = static_cast<size_t>(std::clamp(place, 0.0, double(kBins - 1)));
    for (uint64_t count : counts)
      total += count;
  }

  bool isEmpty() const { return total == 0; }
  BinRange choosePercentile() const;
  BinRange chooseEntropy() const;
  BinRange chooseMeanSquares() const;
  NumberRange getValues(BinRange bins) const;

private:
  double getDivergence(BinRange bins) const;

  const std::vector<uint64_t> &counts;
  NumberRange range;
  double width;
  /// The bin of 0.
  size_t zero;
  uint64_t total = 0;
};
} // namespace

/// The ends of the whole range stay as they are.
NumberRange Chooser::getValues(BinRange bins) const {
  NumberRange values = range;
  if (bins.first > 0)
    values.low = static_cast<float>(range.low + double(bins.first) * width);
  if (bins.last < kBins)
    values.high = static_cast<float>(range.low + double(bins.last) * width);
  values.low = std::min(values.low, 0.0F);
  values.high = std::max(values.high, 0.0F);
  return values;
}

BinRange Chooser::choosePercentile() const {
  double allowed = kOutside * double(total);
  BinRange bins;
  for (uint64_t below = counts[0];
       bins.first < zero && double(below) <= allowed;)
    below += counts[++bins.first];
  for (uint64_t above = counts[kBins - 1];
       bins.last > zero + 1 && double(above) <= allowed;)
    above += counts[--bins.last - 1];
  return bins;
}

/// KL(P || Q) where P are the counts in `bins`, those outside at its ends, and
/// Q are the counts in `bins` merged to as many levels as there are codes, each
/// spread evenly over its bins that are not empty.
double Chooser::getDivergence(BinRange bins) const {
  size_t size = bins.last - bins.first;
  std::vector<double> exact(counts.begin() + bins.first,
                            counts.begin() + bins.last);
  std::vector<double> coarse(size, 0);
  double inside = 0;
  for (size_t level = 0; level < kCodes; ++level) {
    size_t begin = level * size / kCodes, end = (level + 1) * size / kCodes;
    double sum = 0, filled = 0;
    for (size_t i = begin; i < end; ++i) {
      sum += exact[i];
      filled += exact[i] > 0;
    }
    for (size_t i = begin; i < end; ++i)
      coarse[i] = exact[i] > 0 ? sum / filled : 0;
    inside += sum;
  }
  if (inside == 0)
    return std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < bins.first; ++i)
    exact.front() += double(counts[i]);
  for (size_t i = bins.last; i < kBins; ++i)
    exact.back() += double(counts[i]);
  // An end that is empty but for what was cut off is no level of Q.
  constexpr double least = 1e-4;
  double divergence = 0;
  for (size_t i = 0; i < size; ++i)
    if (exact[i] > 0)
      divergence += exact[i] / double(total) *
                    std::log(exact[i] / double(total) /
                             std::max(coarse[i] / inside, least / kBins));
  return divergence;
}

BinRange Chooser::chooseEntropy() const {
  BinRange best;
  double least = getDivergence(best);
  auto consider = [&](BinRange bins) {
    double divergence = getDivergence(bins);
    if (divergence >= least)
      return;
    least = divergence;
    best = bins;
  };
  BinRange whole = best;
  for (size_t last = kBins - kStride; last > zero && last >= kCodes;
       last -= kStride)
    consider({whole.first, last});
  size_t last = best.last;
  for (size_t first = kStride; first <= zero && first + kCodes <= last;
       first += kStride)
    consider({first, last});
  return best;
}

BinRange Chooser::chooseMeanSquares() const {
  // Sums over bins before each one of 1, x and x², x the middle of a bin.
  std::vector<double> ones(kBins + 1, 0), sums(kBins + 1, 0),
      squares(kBins + 1, 0);
  for (size_t i = 0; i < kBins; ++i) {
    double middle = range.low + (double(i) + 0.5) * width;
    double count = double(counts[i]);
    ones[i + 1] = ones[i] + count;
    sums[i + 1] = sums[i] + count * middle;
    squares[i + 1] = squares[i] + count * middle * middle;
  }
  // Σ (x - end)² over the bins [from, to).
  auto distance = [&](size_t from, size_t to, double end) {
    double count = ones[to] - ones[from];
    return squares[to] - squares[from] - 2 * end * (sums[to] - sums[from]) +
           count * end * end;
  };
  BinRange best;
  double least = std::numeric_limits<double>::infinity();
  for (size_t last = kBins; last > zero; last -= std::min(kStride, last))
    for (size_t first = 0; first <= zero && first < last; first += kStride) {
      double low = range.low + double(first) * width;
      double high = range.low + double(last) * width;
      double step = (high - low) / (kCodes - 1);
      double error = step * step / 12 * (ones[last] - ones[first]) +
                     distance(0, first, low) + distance(last, kBins, high);
      if (error < least) {
        least = error;
        best = {first, last};
      }
    }
  return best;
}

NumberRange nibble::chooseRange(const ValueHistogram &histogram,
                                RangeObserver observer) {
  NumberRange range = histogram.getRange();
  if (observer == RangeObserver::MinMax || !(range.high > range.low))
    return range;
  Chooser chooser(histogram);
  if (chooser.isEmpty())
    return range;
  switch (observer) {
  case RangeObserver::MinMax:
    break;
  case RangeObserver::Percentile:
    return chooser.getValues(chooser.choosePercentile());
  case RangeObserver::Entropy:
    return chooser.getValues(chooser.chooseEntropy());
  case RangeObserver::MeanSquares:
    return chooser.getValues(chooser.chooseMeanSquares());
  }
  return range;
}
