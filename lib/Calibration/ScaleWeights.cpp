//===- ScaleWeights.cpp - AWQ on what a model computes --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/ScaleWeights.h"

#include "nibble/Calibration/MeasureActivations.h"
#include "nibble/Calibration/UnitFiles.h"

using namespace mlir;
using namespace nibble;
using llvm::Error;

static constexpr const char *kUnit = "scale", *kRangesFile = "ranges.json",
                            *kFactorsFile = "factors.json";

/// What an earlier run has measured and found.
static Error readUnit(const Journal &journal, ActivationRanges &ranges,
                      FactorRecord &record) {
  for (const char *file : {kRangesFile, kFactorsFile})
    if (Error error = journal.check(file))
      return error;
  auto seen = readActivationRanges(journal.getPath(kRangesFile));
  if (!seen)
    return seen.takeError();
  auto found = readFactors(journal.getPath(kFactorsFile));
  if (!found)
    return found.takeError();
  ranges = std::move(*seen);
  record = std::move(*found);
  return Error::success();
}

static Error writeUnit(Journal &journal, const ActivationRanges &ranges,
                       const FactorRecord &record) {
  if (Error error = writeActivationRanges(journal.getPath(kRangesFile), ranges))
    return error;
  if (Error error = writeFactors(journal.getPath(kFactorsFile), record))
    return error;
  return journal.finish(kUnit, {kRangesFile, kFactorsFile});
}

FailureOr<RescaleCounts> nibble::scaleWeights(ModuleOp module,
                                              const CalibrationData &data,
                                              const AwqOptions &options,
                                              Journal *journal) {
  auto report = [&](Error error) {
    return module.emitError() << llvm::toString(std::move(error));
  };
  ActivationRanges ranges;
  FactorRecord record;
  if (journal && journal->isDone(kUnit)) {
    if (Error error = readUnit(*journal, ranges, record))
      return report(std::move(error));
    return applyAwq(module, ranges, options, record);
  }
  if (journal)
    if (Error error = journal->begin(kUnit))
      return report(std::move(error));
  auto measured =
      measureActivations(module, data, MeasuredLayers::Chosen, options.threads);
  if (failed(measured))
    return failure();
  ranges = *measured;
  auto counts = applyAwq(module, ranges, options, record);
  if (succeeded(counts) && journal)
    if (Error error = writeUnit(*journal, *measured, record))
      return report(std::move(error));
  return counts;
}
