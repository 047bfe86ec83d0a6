//===- Calibrate.cpp - Run a model part by part and measure ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/Calibrate.h"

#include "nibble/Calibration/ActivationFile.h"
#include "nibble/Calibration/Segments.h"
#include "nibble/Calibration/UnitFiles.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Numerics/Parallel.h"

#include "mlir/IR/TypeUtilities.h"

#include <mutex>
#include <set>

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
      : module(module), main(module.lookupSymbol<func::FuncOp>("main")),
        data(data), options(options), events(events), journal(options.journal) {
  }
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
  Error runSample(const CompiledModel &model, SegmentStatistics &statistics,
                  ActivationFile *outputs, size_t sample);
  Expected<std::vector<HostTensor>> readInputs(size_t sample) const;
  Error openInputs();
  void dropUnread();

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
  func::FuncOp main;
  const CalibrationData &data;
  const CalibrationOptions &options;
  const CalibrationEvents &events;
  Journal *journal;
  CodeCache code;
  std::vector<Segment> segments;
  size_t part = 0;
  /// Where a value that crosses the end of a part is.
  struct Place {
    size_t part, index;
  };
  llvm::DenseMap<Value, Place> places;
  /// By part.
  std::map<size_t, std::unique_ptr<ActivationFile>> files;
};

/// The files of a part in the journal.
std::string getFileName(size_t part, StringRef ending) {
  std::string number = std::to_string(part);
  return std::string(number.size() < 4 ? 4 - number.size() : 0, '0') + number +
         "." + ending.str();
}

} // namespace

//===----------------------------------------------------------------------===//
// What parts read
//===----------------------------------------------------------------------===//

/// Opens the files of earlier parts that this one reads.
Error Calibration::openInputs() {
  for (Value input : segments[part].inputs) {
    auto it = places.find(input);
    if (it == places.end() || files.count(it->second.part))
      continue;
    size_t source = it->second.part;
    std::string name = getFileName(source, "values");
    if (Error error = journal->check(name))
      return error;
    auto file = ActivationFile::open(
        journal->getPath(name), segments[source].outputs.size(), data.size());
    if (!file)
      return file.takeError();
    files[source] = std::move(*file);
  }
  return Error::success();
}

Expected<std::vector<HostTensor>> Calibration::readInputs(size_t sample) const {
  std::vector<HostTensor> given, inputs;
  for (Value input : segments[part].inputs) {
    if (auto argument = dyn_cast<BlockArgument>(input)) {
      if (given.empty()) {
        auto read = data.getSample(sample);
        if (!read)
          return read.takeError();
        given = std::move(*read);
      }
      inputs.push_back(given[argument.getArgNumber()]);
      continue;
    }
    Place place = places.lookup(input);
    auto tensor =
        files.at(place.part)
            ->read(place.index, sample, getElementTypeOrSelf(input.getType()));
    if (!tensor)
      return tensor.takeError();
    inputs.push_back(std::move(*tensor));
  }
  return inputs;
}

/// Forgets what no later part reads.
void Calibration::dropUnread() {
  std::set<size_t> read;
  for (const Segment &segment : ArrayRef(segments).drop_front(part + 1))
    for (Value input : segment.inputs)
      if (auto it = places.find(input); it != places.end())
        read.insert(it->second.part);
  for (size_t source = 0; source <= part; ++source) {
    if (read.count(source))
      continue;
    files.erase(source);
    if (journal)
      journal->drop(getFileName(source, "values"));
  }
  if (journal)
    journal->drop(getFileName(part, "statistics"));
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

Error Calibration::runSample(const CompiledModel &model,
                             SegmentStatistics &statistics,
                             ActivationFile *outputs, size_t sample) {
  auto inputs = readInputs(sample);
  if (!inputs)
    return inputs.takeError();
  StatisticsObserver observer(model.getProbes(), statistics);
  auto results = model.run(*inputs, &observer);
  if (!results)
    return results.takeError();
  if (!observer.badProbe.empty())
    return llvm::createStringError(
        llvm::inconvertibleErrorCode(),
        "the model computes NaN, infinity or a number above 2^17 for '%s'",
        observer.badProbe.c_str());
  if (outputs)
    for (auto [index, result] : llvm::enumerate(*results))
      if (Error error = outputs->write(index, sample, result))
        return error;
  return Error::success();
}

/// Runs all samples through the part with its weights as they are now.
LogicalResult Calibration::runSamples(bool observe,
                                      SegmentStatistics &statistics,
                                      bool keepOutputs) {
  const Segment &segment = segments[part];
  auto model = compileSegment(*buildSegment(module, segment), observe, code);
  if (failed(model))
    return failure();
  if (Error error = openInputs())
    return fail(std::move(error));
  std::unique_ptr<ActivationFile> outputs;
  if (keepOutputs) {
    std::string path =
        journal ? journal->getPath(getFileName(part, "values")) : "";
    auto file =
        ActivationFile::create(path, segment.outputs.size(), data.size());
    if (!file)
      return fail(file.takeError());
    outputs = std::move(*file);
  }

  std::mutex mutex;
  std::map<size_t, std::string> failures;
  parallelFor(data.size(), 1, options.threads, [&](size_t begin, size_t end) {
    for (size_t sample = begin; sample < end; ++sample) {
      Error error = runSample(**model, statistics, outputs.get(), sample);
      std::lock_guard<std::mutex> lock(mutex);
      if (error)
        failures[sample] = llvm::toString(std::move(error));
      else if (events.sampleDone)
        events.sampleDone(part, segments.size(), sample);
    }
  });
  if (!failures.empty())
    return module.emitError()
           << "calibration sample " << failures.begin()->first << ": "
           << failures.begin()->second;
  if (!outputs)
    return success();
  if (Error error = outputs->finish())
    return fail(std::move(error));
  files[part] = std::move(outputs);
  return success();
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
  std::string file = getFileName(part, "statistics");
  if (isDone("observe")) {
    Error error = journal->check(file);
    if (!error)
      error = readStatistics(journal->getPath(file), statistics);
    return error ? fail(std::move(error)) : success();
  }
  std::vector<std::string> written = {file};
  if (keepOutputs)
    written.push_back(getFileName(part, "values"));
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
  std::string file = getFileName(part, "weights.mlirbc");
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
  std::string file = getFileName(part, "weights.mlirbc");
  if (events.restored)
    events.restored(weights);
  Error error = journal->check(file);
  if (!error)
    error = readWeights(journal->getPath(file), weights);
  return error ? fail(std::move(error)) : success();
}

LogicalResult Calibration::runPart() {
  const Segment &segment = segments[part];
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
  return doUnit("run", getFileName(part, "values"), [&] {
    SegmentStatistics none;
    return runSamples(/*observe=*/false, none, /*keepOutputs=*/true);
  });
}

LogicalResult Calibration::run() {
  segments = planSegments(main);
  for (auto [source, segment] : llvm::enumerate(segments))
    for (auto [index, output] : llvm::enumerate(segment.outputs))
      places[output] = {source, index};
  for (; part < segments.size(); ++part) {
    if (failed(runPart()))
      return failure();
    dropUnread();
  }
  return success();
}

LogicalResult nibble::calibrate(ModuleOp module, const CalibrationData &data,
                                const CalibrationOptions &options,
                                const CalibrationEvents &events) {
  return Calibration(module, data, options, events).run();
}
