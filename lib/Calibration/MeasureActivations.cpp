//===- MeasureActivations.cpp - Ranges of what products read --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/MeasureActivations.h"

#include "ShowActivations.h"

#include <cmath>
#include <map>

using namespace mlir;
using namespace nibble;

namespace {

/// Sums over what one channel was.
struct Channel {
  float min = INFINITY, max = -INFINITY;
  double sum = 0, magnitudes = 0, squares = 0, count = 0;

  void add(float value) {
    min = std::min(min, value);
    max = std::max(max, value);
    sum += value;
    magnitudes += std::abs(value);
    squares += static_cast<double>(value) * value;
    ++count;
  }
  void add(const Channel &other) {
    min = std::min(min, other.min);
    max = std::max(max, other.max);
    sum += other.sum;
    magnitudes += other.magnitudes;
    squares += other.squares;
    count += other.count;
  }
};

/// By the name of the value.
using Channels = std::map<std::string, std::vector<Channel>>;

void measure(const SeenActivation &seen, Channels &channels) {
  size_t axis = seen.channelsAreLast ? seen.shape.size() - 1 : 1;
  if (axis >= seen.shape.size())
    return;
  size_t count = seen.shape[axis], inner = 1;
  for (int64_t extent : seen.shape.drop_front(axis + 1))
    inner *= extent;
  std::vector<Channel> &found = channels[seen.name.str()];
  found.resize(count);
  const float *value = seen.values.begin();
  while (value != seen.values.end())
    for (Channel &channel : found)
      for (size_t i = 0; i < inner; ++i)
        channel.add(*value++);
}

} // namespace

static ActivationRange getRange(ArrayRef<Channel> channels) {
  ActivationRange range;
  for (const Channel &channel : channels) {
    double mean = channel.sum / channel.count;
    range.min.push_back(channel.min);
    range.max.push_back(channel.max);
    range.mean.push_back(static_cast<float>(mean));
    range.variance.push_back(static_cast<float>(
        std::max(channel.squares / channel.count - mean * mean, 0.0)));
    range.magnitude.push_back(
        static_cast<float>(channel.magnitudes / channel.count));
  }
  return range;
}

FailureOr<ActivationRanges>
nibble::measureActivations(ModuleOp module, const CalibrationData &data,
                           MeasuredLayers layers, unsigned threads) {
  std::vector<Channels> samples(data.size());
  auto see = [&](size_t sample, const SeenActivation &seen) {
    measure(seen, samples[sample]);
  };
  if (failed(showActivations(module, data, layers, threads, see)))
    return failure();
  Channels all;
  for (const Channels &sample : samples) {
    for (auto &[name, channels] : sample) {
      std::vector<Channel> &sums = all[name];
      sums.resize(std::max(sums.size(), channels.size()));
      for (auto [sum, channel] : llvm::zip(sums, channels))
        sum.add(channel);
    }
  }
  ActivationRanges ranges;
  for (auto &[name, channels] : all) {
    if (llvm::any_of(channels, [](const Channel &channel) {
          return !std::isfinite(channel.squares) || channel.count == 0;
        }))
      return module.emitError() << "the model computes NaN or infinity for '"
                                << name << "' on the calibration data";
    ranges[name] = getRange(channels);
  }
  return ranges;
}
