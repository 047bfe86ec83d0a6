//===- Calibrate.cpp - Run a model part by part and measure ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/Calibrate.h"

#include "nibble/Calibration/PartRun.h"
#include "nibble/Calibration/UnitFiles.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;
using llvm::Error;
using llvm::Expected;

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
      : module(module), options(options), events(events),
        journal(options.journal),
        parts(planSegments(module.lookupSymbol<func::FuncOp>("main")), data,
              options.threads, options.journal) {}
  LogicalResult run();

private:
  LogicalResult runPart();
  LogicalResult observe(ArrayRef<CalibratedWeight> weights,
                        SegmentStatistics &statistics, bool keepOutputs);
  LogicalResult rewrite(ArrayRef<CalibratedWeight> weights,
                        const SegmentStatistics &statistics);
  LogicalResult restoreWeights(ArrayRef<CalibratedWeight> weights);

  LogicalResult runSamples(bool observe, SegmentStatistics &statistics,
                           bool keepOutputs);

  std::string getUnit(StringRef what) const {
    return (what + " " + Twine(part)).str();
  }
  bool isDone(StringRef what) const {
    return journal && journal->isDone(getUnit(what));
  }
  /// Does a unit of work, which writes `files`, and notes that it is done.
  LogicalResult doUnit(StringRef what, ArrayRef<std::string> files,
                       llvm::function_ref<LogicalResult()> work);
  LogicalResult fail(Error error) {
    return module.emitError() << llvm::toString(std::move(error));
  }

  ModuleOp module;
  const CalibrationOptions &options;
  const CalibrationEvents &events;
  Journal *journal;
  CodeCache code;
  PartRun parts;
  size_t part = 0;
};

} // namespace

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

/// Runs all samples through the part with its weights as they are now.
LogicalResult Calibration::runSamples(bool observe,
                                      SegmentStatistics &statistics,
                                      bool keepOutputs) {
  auto model = compileSegment(module, parts.getSegment(part), observe, code);
  if (failed(model))
    return failure();
  auto runSample =
      [&](size_t,
          ArrayRef<HostTensor> inputs) -> Expected<std::vector<HostTensor>> {
    StatisticsObserver observer((*model)->getProbes(), statistics);
    auto results = (*model)->run(inputs, &observer);
    if (results && !observer.badProbe.empty())
      return llvm::createStringError(
          "the model computes NaN, infinity or a number above 2^17 for '" +
          observer.badProbe + "'");
    return results;
  };
  Error error = parts.run(part, keepOutputs, runSample);
  return error ? fail(std::move(error)) : success();
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

//===----------------------------------------------------------------------===//
// Units of work
//===----------------------------------------------------------------------===//

LogicalResult Calibration::doUnit(StringRef what, ArrayRef<std::string> files,
                                  llvm::function_ref<LogicalResult()> work) {
  if (!journal)
    return work();
  if (Error error = journal->begin(getUnit(what)))
    return fail(std::move(error));
  if (failed(work()))
    return failure();
  if (Error error = journal->finish(getUnit(what), files))
    return fail(std::move(error));
  return success();
}

LogicalResult Calibration::observe(ArrayRef<CalibratedWeight> weights,
                                   SegmentStatistics &statistics,
                                   bool keepOutputs) {
  for (const CalibratedWeight &weight : weights)
    if (weight.isMeasured)
      statistics.try_emplace(weight.probe, countChannels(weight.constant));
  std::string file = getPartFile(part, "statistics");
  if (isDone("observe")) {
    Error error = journal->check(file);
    if (!error)
      error = readStatistics(journal->getPath(file), statistics);
    return error ? fail(std::move(error)) : success();
  }
  std::vector<std::string> written = {file};
  if (keepOutputs)
    written.push_back(PartRun::getValuesFile(part));
  return doUnit("observe", written, [&]() -> LogicalResult {
    if (failed(runSamples(/*observe=*/true, statistics, keepOutputs)))
      return failure();
    if (journal)
      if (Error error = writeStatistics(journal->getPath(file), statistics))
        return fail(std::move(error));
    return success();
  });
}

LogicalResult Calibration::rewrite(ArrayRef<CalibratedWeight> weights,
                                   const SegmentStatistics &statistics) {
  if (!journal)
    return events.rewrite(weights, statistics);
  // Their readers will see what they become.
  SmallVector<OpOperand *> readers;
  for (const CalibratedWeight &weight : weights)
    readers.push_back(
        &*onnx::ConstantOp(weight.constant).getResult().use_begin());
  std::string file = getPartFile(part, "weights.mlirbc");
  return doUnit("rewrite", file, [&]() -> LogicalResult {
    if (failed(events.rewrite(weights, statistics)))
      return failure();
    SmallVector<AssembleOp> rewritten;
    for (OpOperand *reader : readers)
      rewritten.push_back(reader->get().getDefiningOp<AssembleOp>());
    if (Error error = writeWeights(journal->getPath(file), rewritten))
      return fail(std::move(error));
    return success();
  });
}

LogicalResult Calibration::restoreWeights(ArrayRef<CalibratedWeight> weights) {
  std::string file = getPartFile(part, "weights.mlirbc");
  if (events.restored)
    events.restored(weights);
  Error error = journal->check(file);
  if (!error)
    error = readWeights(journal->getPath(file), weights);
  return error ? fail(std::move(error)) : success();
}

LogicalResult Calibration::runPart() {
  const Segment &segment = parts.getSegment(part);
  // What observed it has run it too, unless its weights change what it
  // computes.
  bool runsAgain = options.sequential || !segment.hasWeights;
  if (segment.hasWeights) {
    std::vector<CalibratedWeight> weights = collectWeights(segment);
    SegmentStatistics statistics;
    if (isDone("rewrite")) {
      if (failed(restoreWeights(weights)))
        return failure();
    } else if (failed(observe(weights, statistics, !runsAgain)) ||
               failed(rewrite(weights, statistics))) {
      return failure();
    }
  }
  if (!runsAgain || isDone("run"))
    return success();
  return doUnit("run", PartRun::getValuesFile(part), [&] {
    SegmentStatistics none;
    return runSamples(/*observe=*/false, none, /*keepOutputs=*/true);
  });
}

LogicalResult Calibration::run() {
  for (; part < parts.size(); ++part) {
    if (failed(runPart()))
      return failure();
    parts.dropAfter(part);
    if (journal)
      journal->drop(getPartFile(part, "statistics"));
  }
  return success();
}

LogicalResult nibble::calibrate(ModuleOp module, const CalibrationData &data,
                                const CalibrationOptions &options,
                                const CalibrationEvents &events) {
  return Calibration(module, data, options, events).run();
}
