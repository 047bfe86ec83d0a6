//===- MeasureActivations.cpp - Ranges of what products read --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/MeasureActivations.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

#include <cmath>
#include <cstring>
#include <map>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

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

/// A probe's id: the dimension of the channels (of a matrix product the last
/// one, as "-"), and the name of the value.
std::string getProbeId(StringRef name, bool isLast) {
  return ((isLast ? "-" : "1") + name).str();
}

void measure(StringRef id, ArrayRef<int64_t> shape, ArrayRef<float> values,
             Channels &channels) {
  size_t axis = id.consume_front("-") ? shape.size() - 1 : 1;
  id.consume_front("1");
  if (axis >= shape.size())
    return;
  size_t count = shape[axis], inner = 1;
  for (int64_t extent : shape.drop_front(axis + 1))
    inner *= extent;
  std::vector<Channel> &found = channels[id.str()];
  found.resize(count);
  for (size_t i = 0; i < values.size(); ++i)
    found[i / inner % count].add(values[i]);
}

/// An input of the model, of f32.
void measure(StringRef id, const HostTensor &tensor, Channels &channels) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(),
              values.size() * sizeof(float));
  measure(id, tensor.shape, values, channels);
}

class RangeObserver : public RunObserver {
public:
  RangeObserver(ArrayRef<std::string> probes, Channels &channels)
      : probes(probes), channels(channels) {}

  void observe(size_t probe, const ObservedTensor &tensor) override {
    measure(probes[probe], tensor.shape, tensor.values, channels);
  }

private:
  ArrayRef<std::string> probes;
  Channels &channels;
};

} // namespace

/// Puts probes behind what products read and give. The ids for the inputs of
/// the model, which are measured as they are given, go to `inputs`.
static void insertProbes(func::FuncOp main,
                         std::map<unsigned, std::string> &inputs) {
  ValueNames names(main);
  auto probe = [&](Value value, bool isLast) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    // Another probe may have seen it.
    if (value.getDefiningOp<ObserveOp>())
      return;
    StringRef name = names.lookup(value);
    if (!type || !type.getElementType().isF32() || name.empty() ||
        getConstantValue(value))
      return;
    if (auto argument = dyn_cast<BlockArgument>(value)) {
      inputs[argument.getArgNumber()] = getProbeId(name, isLast);
      return;
    }
    OpBuilder builder(main.getContext());
    builder.setInsertionPointAfterValue(value);
    auto observe = ObserveOp::create(builder, value.getLoc(), type,
                                     getProbeId(name, isLast), value);
    value.replaceAllUsesExcept(observe.getResult(), observe);
  };
  SmallVector<NodeOp> nodes(main.getBody().front().getOps<NodeOp>());
  for (NodeOp node : nodes) {
    if (node.isOnnx("Conv")) {
      probe(node.getInputs()[0], /*isLast=*/false);
      probe(node.getResult(0), /*isLast=*/false);
    } else if (node.isOnnx("MatMul") ||
               (node.isOnnx("Gemm") && node.getInt("transA", 0) == 0)) {
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
    range.magnitude.push_back(
        static_cast<float>(channel.magnitudes / channel.count));
  }
  return range;
}

FailureOr<ActivationRanges>
nibble::measureActivations(ModuleOp module, const CalibrationData &data,
                           unsigned threads) {
  module.getContext()->loadDialect<NibbleDialect>();
  OwningOpRef<ModuleOp> copy = module.clone();
  auto main = copy->lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return module.emitError("has no function 'main' to run");
  std::map<unsigned, std::string> measuredInputs;
  insertProbes(main, measuredInputs);
  CompileOptions options;
  options.reference = false;
  options.compute = "f32";
  options.observe = true;
  auto model = CompiledModel::compile(*copy, options);
  if (failed(model))
    return failure();

  std::vector<Channels> samples(data.size());
  auto observe = [&](size_t sample, ArrayRef<HostTensor> inputs) {
    RangeObserver observer((*model)->getProbes(), samples[sample]);
    for (auto &[index, id] : measuredInputs)
      measure(id, inputs[index], samples[sample]);
    return (*model)->run(inputs, &observer).takeError();
  };
  if (llvm::Error error = data.forEachSample(threads, observe))
    return module.emitError() << llvm::toString(std::move(error));
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
