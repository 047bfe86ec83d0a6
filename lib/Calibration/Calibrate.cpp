//===- Calibrate.cpp - Run a model part by part and measure ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/Calibrate.h"

#include "nibble/Calibration/Segments.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Numerics/Parallel.h"

#include <mutex>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;
using llvm::Error;

namespace {

/// Feeds what the probes of one run see to the statistics.
class StatisticsObserver final : public RunObserver {
public:
  StatisticsObserver(ArrayRef<std::string> probes,
                     SegmentStatistics &statistics)
      : probes(probes), statistics(statistics) {}

  void observe(size_t probe, const ObservedTensor &tensor) override {
    auto it = statistics.find(probes[probe]);
    if (it == statistics.end() || tensor.values.empty())
      return;
    SecondMoments &moments = it->second;
    if (tensor.values.size() % moments.channels() != 0 ||
        !moments.add(tensor.values.data(),
                     tensor.values.size() / moments.channels()))
      badProbe = probes[probe];
  }

  /// A probe that saw what cannot be measured; empty: none.
  std::string badProbe;

private:
  ArrayRef<std::string> probes;
  SegmentStatistics &statistics;
};

class Calibration {
public:
  Calibration(ModuleOp module, const CalibrationData &data,
              const CalibrationOptions &options,
              const CalibrationEvents &events)
      : module(module), main(module.lookupSymbol<func::FuncOp>("main")),
        data(data), options(options), events(events) {}
  LogicalResult run();

private:
  using Model = std::unique_ptr<CompiledModel>;

  FailureOr<Model> compile(const Segment &segment, bool observe);
  LogicalResult runSegment(const Segment &segment, const CompiledModel &model,
                           SegmentStatistics &statistics, bool keepOutputs);
  Error runSample(const Segment &segment, const CompiledModel &model,
                  SegmentStatistics &statistics, bool keepOutputs,
                  size_t sample);
  LogicalResult loadInputs();
  void dropUnread(ArrayRef<Segment> later);

  ModuleOp module;
  func::FuncOp main;
  const CalibrationData &data;
  const CalibrationOptions &options;
  const CalibrationEvents &events;
  CodeCache code;
  /// By value: what each sample computed of it.
  llvm::DenseMap<Value, std::vector<HostTensor>> values;
  std::vector<Segment> segments;
  size_t part = 0;
};

} // namespace

FailureOr<Calibration::Model> Calibration::compile(const Segment &segment,
                                                   bool observe) {
  return compileSegment(*buildSegment(module, segment), observe, code);
}

LogicalResult Calibration::loadInputs() {
  for (BlockArgument argument : main.getArguments())
    values[argument].resize(data.size());
  for (size_t sample = 0; sample < data.size(); ++sample) {
    auto tensors = data.getSample(sample);
    if (!tensors)
      return module.emitError() << llvm::toString(tensors.takeError());
    for (auto [argument, tensor] : llvm::zip(main.getArguments(), *tensors))
      values[argument][sample] = std::move(tensor);
  }
  return success();
}

/// Forgets what no later part reads.
void Calibration::dropUnread(ArrayRef<Segment> later) {
  llvm::DenseSet<Value> read;
  for (const Segment &segment : later)
    read.insert(segment.inputs.begin(), segment.inputs.end());
  SmallVector<Value> unread;
  for (auto &entry : values)
    if (!read.contains(entry.first))
      unread.push_back(entry.first);
  for (Value value : unread)
    values.erase(value);
}

Error Calibration::runSample(const Segment &segment, const CompiledModel &model,
                             SegmentStatistics &statistics, bool keepOutputs,
                             size_t sample) {
  std::vector<HostTensor> inputs;
  inputs.reserve(segment.inputs.size());
  for (Value input : segment.inputs)
    inputs.push_back(values.find(input)->second[sample]);
  StatisticsObserver observer(model.getProbes(), statistics);
  auto outputs = model.run(inputs, &observer);
  if (!outputs)
    return outputs.takeError();
  if (!observer.badProbe.empty())
    return llvm::createStringError(
        llvm::inconvertibleErrorCode(),
        "the model computes NaN, infinity or a number above 2^17 for '%s'",
        observer.badProbe.c_str());
  if (keepOutputs)
    for (auto [value, output] : llvm::zip(segment.outputs, *outputs))
      values.find(value)->second[sample] = std::move(output);
  return Error::success();
}

LogicalResult Calibration::runSegment(const Segment &segment,
                                      const CompiledModel &model,
                                      SegmentStatistics &statistics,
                                      bool keepOutputs) {
  if (keepOutputs)
    for (Value output : segment.outputs)
      values[output].resize(data.size());
  std::mutex mutex;
  std::map<size_t, std::string> failures;
  parallelFor(data.size(), 1, options.threads, [&](size_t begin, size_t end) {
    for (size_t sample = begin; sample < end; ++sample) {
      Error error = runSample(segment, model, statistics, keepOutputs, sample);
      std::lock_guard<std::mutex> lock(mutex);
      if (error)
        failures[sample] = llvm::toString(std::move(error));
      else if (events.sampleDone)
        events.sampleDone(part, segments.size(), sample);
    }
  });
  if (failures.empty())
    return success();
  return module.emitError() << "calibration sample " << failures.begin()->first
                            << ": " << failures.begin()->second;
}

/// The weights of a segment that will be quantized, each once, with the probe
/// of its first reader.
static std::vector<CalibratedWeight> collectWeights(const Segment &segment) {
  std::vector<CalibratedWeight> weights;
  llvm::DenseSet<Operation *> known;
  for (Operation *op : segment.nodes)
    op->walk([&](NodeOp node) {
      ConstantOp constant = getChosenWeight(node);
      if (!constant || !isProduct(node) || !known.insert(constant).second)
        return;
      // The channels must be the last dimension of what is observed.
      bool isMeasured = !node.isOnnx("Gemm") || node.getInt("transA", 0) == 0;
      weights.push_back({constant, getProbeId(node), isMeasured});
    });
  return weights;
}

/// The number of inputs of the product that reads `constant`.
static size_t countChannels(ConstantOp constant) {
  auto type = cast<RankedTensorType>(constant.getType());
  return type.getDimSize(getChosenAxis(constant));
}

LogicalResult Calibration::run() {
  segments = planSegments(main);
  if (failed(loadInputs()))
    return failure();
  for (const Segment &segment : segments) {
    auto weights = collectWeights(segment);
    SegmentStatistics statistics;
    for (const CalibratedWeight &weight : weights)
      if (weight.isMeasured)
        statistics.try_emplace(weight.probe, countChannels(weight.constant));

    bool again = options.sequential && segment.hasWeights;
    FailureOr<Model> model = compile(segment, segment.hasWeights);
    if (failed(model) ||
        failed(runSegment(segment, **model, statistics, !again)) ||
        (segment.hasWeights && failed(events.rewrite(weights, statistics))))
      return failure();
    if (again) {
      SegmentStatistics none;
      model = compile(segment, /*observe=*/false);
      if (failed(model) || failed(runSegment(segment, **model, none, true)))
        return failure();
    }
    ++part;
    dropUnread(ArrayRef(segments).drop_front(part));
  }
  return success();
}

LogicalResult nibble::calibrate(ModuleOp module, const CalibrationData &data,
                                const CalibrationOptions &options,
                                const CalibrationEvents &events) {
  return Calibration(module, data, options, events).run();
}
