//===- Evaluate.cpp - What quantization did to a model --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Evaluation/Evaluate.h"

#include "LayerErrors.h"
#include "Outputs.h"
#include "PairedSegments.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/Parallel.h"

#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/DenseSet.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Samples that judge at most, and the fewest of which some are held out.
static constexpr size_t kJudges = 4, kFewest = 8;
/// Of an output that one run gives.
static constexpr size_t kOutputRows = 128;
/// Of what one probe sees in all runs together.
static constexpr size_t kProbeRows = 256;

SampleSplit nibble::splitSamples(size_t total, size_t limit) {
  SampleSplit split;
  if (limit == 0 || limit >= total)
    split.calibration =
        total - (limit == 0 && total >= kFewest
                     ? std::clamp<size_t>(total / 16, 1, kJudges)
                     : 0);
  else
    split.calibration = limit;
  split.isHeldOut = split.calibration < total;
  size_t first = split.isHeldOut ? split.calibration : 0;
  for (size_t i = first; i < std::min(first + kJudges, total); ++i)
    split.judges.push_back(i);
  return split;
}

namespace {
/// What is kept of one run.
struct RunResult {
  /// By output: empty until it has been computed.
  std::vector<OutputRows> outputs;
  ProbeRows probes;
};

/// One of the two models on all judges, part by part.
class ModelRun {
public:
  ModelRun(ModuleOp module, const CalibrationData &data,
           ArrayRef<size_t> indices, unsigned threads)
      : module(module), main(module.lookupSymbol<func::FuncOp>("main")),
        data(data), indices(indices), threads(threads), values(indices.size()),
        results(indices.size()) {}

  LogicalResult loadInputs();
  /// Runs a part on all samples; `observe`: keeps rows of what probes see.
  /// What no part in `later` reads is forgotten.
  LogicalResult runPart(const Segment &segment, bool observe,
                        ArrayRef<OutputMeaning> meanings,
                        ArrayRef<const Segment *> later, CodeCache &code);
  ArrayRef<RunResult> getResults() const { return results; }

private:
  llvm::Error runSample(const Segment &segment, const CompiledModel &model,
                        ArrayRef<OutputMeaning> meanings,
                        const llvm::DenseSet<Value> &kept, size_t sample);

  ModuleOp module;
  func::FuncOp main;
  const CalibrationData &data;
  ArrayRef<size_t> indices;
  unsigned threads;
  /// By sample.
  std::vector<llvm::DenseMap<Value, HostTensor>> values;
  std::vector<RunResult> results;
};
} // namespace

LogicalResult ModelRun::loadInputs() {
  for (auto [sample, index] : llvm::enumerate(indices)) {
    auto inputs = data.getSample(index);
    if (!inputs)
      return module.emitError() << llvm::toString(inputs.takeError());
    for (auto [argument, tensor] : llvm::zip(main.getArguments(), *inputs))
      values[sample][argument] = std::move(tensor);
  }
  return success();
}

llvm::Error ModelRun::runSample(const Segment &segment,
                                const CompiledModel &model,
                                ArrayRef<OutputMeaning> meanings,
                                const llvm::DenseSet<Value> &kept,
                                size_t sample) {
  auto &known = values[sample];
  std::vector<HostTensor> inputs;
  inputs.reserve(segment.inputs.size());
  for (Value input : segment.inputs)
    inputs.push_back(known.find(input)->second);
  RowObserver observer(model.getProbes(),
                       llvm::divideCeil(kProbeRows, indices.size()));
  auto outputs = model.run(inputs, &observer);
  if (!outputs)
    return outputs.takeError();
  RunResult &result = results[sample];
  for (auto &[probe, rows] : observer.rows)
    result.probes[probe] = std::move(rows);

  std::vector<HostTensor> arguments;
  arguments.reserve(main.getNumArguments());
  for (BlockArgument argument : main.getArguments())
    arguments.push_back(known.find(argument)->second);
  result.outputs.resize(meanings.size());
  Operation *end = main.getBody().front().getTerminator();
  for (auto [value, output] : llvm::zip(segment.outputs, *outputs)) {
    for (auto [i, meaning] : llvm::enumerate(meanings))
      if (end->getOperand(meaning.index) == value)
        result.outputs[i] = takeRows(meaning, output, arguments, kOutputRows);
    if (kept.contains(value))
      known[value] = std::move(output);
  }
  for (Value input : segment.inputs)
    if (!kept.contains(input) && !isa<BlockArgument>(input))
      known.erase(input);
  return llvm::Error::success();
}

LogicalResult ModelRun::runPart(const Segment &segment, bool observe,
                                ArrayRef<OutputMeaning> meanings,
                                ArrayRef<const Segment *> later,
                                CodeCache &code) {
  auto model = compileSegment(module, segment, observe, code);
  if (failed(model))
    return failure();
  llvm::DenseSet<Value> kept;
  for (const Segment *other : later)
    kept.insert(other->inputs.begin(), other->inputs.end());
  std::vector<std::string> failures(indices.size());
  parallelFor(indices.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t sample = begin; sample < end; ++sample)
      if (llvm::Error error =
              runSample(segment, **model, meanings, kept, sample))
        failures[sample] = llvm::toString(std::move(error));
  });
  for (auto [index, failure] : llvm::zip(indices, failures))
    if (!failure.empty())
      return module.emitError()
             << "evaluation on sample " << index << ": " << failure;
  return success();
}

static void addRows(const OutputRows &reference, const OutputRows &other,
                    OutputComparison &comparison) {
  size_t width = reference.width;
  for (auto [row, target] : llvm::enumerate(reference.targets))
    if ((row + 1) * width <= other.values.size())
      comparison.addRow(&reference.values[row * width],
                        &other.values[row * width], width, target);
}

FailureOr<Evaluation> nibble::evaluate(ModuleOp original, ModuleOp quantized,
                                       const CalibrationData &data,
                                       ArrayRef<size_t> indices,
                                       unsigned threads) {
  std::vector<OutputMeaning> meanings = findOutputMeanings(original);
  auto pairs = pairSegments(original.lookupSymbol<func::FuncOp>("main"),
                            quantized.lookupSymbol<func::FuncOp>("main"));
  ModelRun before(original, data, indices, threads);
  ModelRun after(quantized, data, indices, threads);
  if (failed(before.loadInputs()) || failed(after.loadInputs()))
    return failure();
  std::vector<const Segment *> left, right;
  for (const PairedSegment &pair : pairs) {
    left.push_back(&pair.original);
    right.push_back(&pair.quantized);
  }
  CodeCache code;
  for (auto [i, pair] : llvm::enumerate(pairs))
    if (failed(before.runPart(pair.original, pair.original.hasWeights, meanings,
                              ArrayRef(left).drop_front(i + 1), code)) ||
        failed(after.runPart(pair.quantized, /*observe=*/false, meanings,
                             ArrayRef(right).drop_front(i + 1), code)))
      return failure();

  Evaluation evaluation;
  evaluation.samples = indices.size();
  ProbeRows rows;
  for (const RunResult &result : before.getResults())
    for (auto &[probe, values] : result.probes) {
      std::vector<float> &all = rows[probe];
      all.insert(all.end(), values.begin(), values.end());
    }
  for (auto [i, meaning] : llvm::enumerate(meanings)) {
    OutputComparison comparison(meaning.kind);
    for (auto [one, other] : llvm::zip(before.getResults(), after.getResults()))
      addRows(one.outputs[i], other.outputs[i], comparison);
    evaluation.outputs.push_back({meaning.name, comparison.summarize()});
  }
  evaluation.layerErrors =
      measureLayerErrors(original, quantized, rows, threads);
  return evaluation;
}
