//===- MeasureActivations.cpp - Ranges of what products read --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/MeasureActivations.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"
#include "nibble/Numerics/Parallel.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

#include <cmath>
#include <map>
#include <mutex>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// Sums over what one channel was.
struct Channel {
  float min = INFINITY, max = -INFINITY;
  double sum = 0, squares = 0, count = 0;

  void add(float value) {
    min = std::min(min, value);
    max = std::max(max, value);
    sum += value;
    squares += static_cast<double>(value) * value;
    ++count;
  }
  void add(const Channel &other) {
    min = std::min(min, other.min);
    max = std::max(max, other.max);
    sum += other.sum;
    squares += other.squares;
    count += other.count;
  }
};

/// By the name of the value.
using Channels = std::map<std::string, std::vector<Channel>>;

/// A probe's id: the dimension of the channels (of a matrix product the last
/// one, as "-"), and the name of the value.
std::string getProbeId(StringRef name, bool isLast) {
  return ((isLast ? "-" : "1") + name).str();
}

class RangeObserver : public RunObserver {
public:
  RangeObserver(ArrayRef<std::string> probes, Channels &channels)
      : probes(probes), channels(channels) {}

  void observe(size_t probe, const ObservedTensor &tensor) override {
    StringRef id = probes[probe];
    size_t rank = tensor.shape.size();
    size_t axis = id.consume_front("-") ? rank - 1 : 1;
    id.consume_front("1");
    if (axis >= rank)
      return;
    size_t count = tensor.shape[axis], inner = 1;
    for (size_t i = axis + 1; i < rank; ++i)
      inner *= tensor.shape[i];
    std::vector<Channel> &found = channels[id.str()];
    found.resize(count);
    for (size_t i = 0; i < tensor.values.size(); ++i)
      found[i / inner % count].add(tensor.values[i]);
  }

private:
  ArrayRef<std::string> probes;
  Channels &channels;
};

} // namespace

static void insertProbes(func::FuncOp main) {
  ValueNames names(main);
  llvm::DenseSet<Value> known;
  auto probe = [&](Value value, bool isLast) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    StringRef name = names.lookup(value);
    if (!type || !type.getElementType().isF32() || name.empty() ||
        getConstantValue(value) || !known.insert(value).second)
      return;
    OpBuilder builder(main.getContext());
    builder.setInsertionPointAfterValue(value);
    ObserveOp::create(builder, value.getLoc(), type, getProbeId(name, isLast),
                      value);
  };
  SmallVector<NodeOp> nodes(main.getBody().front().getOps<NodeOp>());
  for (NodeOp node : nodes) {
    if (node.isOnnx("Conv")) {
      probe(node.getInputs()[0], /*isLast=*/false);
      probe(node.getResult(0), /*isLast=*/false);
    } else if (node.isOnnx("MatMul")) {
      probe(node.getInputs()[0], /*isLast=*/true);
    }
  }
}

static ActivationRange getRange(ArrayRef<Channel> channels) {
  ActivationRange range;
  for (const Channel &channel : channels) {
    double mean = channel.sum / channel.count;
    range.min.push_back(channel.min);
    range.max.push_back(channel.max);
    range.mean.push_back(static_cast<float>(mean));
    range.variance.push_back(static_cast<float>(
        std::max(channel.squares / channel.count - mean * mean, 0.0)));
  }
  return range;
}

FailureOr<ActivationRanges>
nibble::measureActivations(ModuleOp module, const CalibrationData &data,
                           unsigned threads) {
  OwningOpRef<ModuleOp> copy = module.clone();
  auto main = copy->lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return module.emitError("has no function 'main' to run");
  insertProbes(main);
  CompileOptions options;
  options.reference = false;
  options.compute = "f32";
  options.observe = true;
  auto model = CompiledModel::compile(*copy, options);
  if (failed(model))
    return failure();

  std::vector<Channels> samples(data.size());
  std::vector<std::string> failures(data.size());
  parallelFor(data.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t sample = begin; sample < end; ++sample) {
      auto inputs = data.getSample(sample);
      if (!inputs) {
        failures[sample] = llvm::toString(inputs.takeError());
        continue;
      }
      RangeObserver observer((*model)->getProbes(), samples[sample]);
      auto outputs = (*model)->run(*inputs, &observer);
      if (!outputs)
        failures[sample] = llvm::toString(outputs.takeError());
    }
  });
  Channels all;
  for (size_t sample = 0; sample < data.size(); ++sample) {
    if (!failures[sample].empty())
      return module.emitError()
             << "calibration sample " << sample << ": " << failures[sample];
    for (auto &[name, channels] : samples[sample]) {
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
