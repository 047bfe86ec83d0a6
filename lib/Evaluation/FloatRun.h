//===- FloatRun.h - A model in parts, some of them changed ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_EVALUATION_FLOATRUN_H
#define NIBBLE_LIB_EVALUATION_FLOATRUN_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Calibration/Segments.h"

#include "mlir/IR/DialectResourceBlobManager.h"
#include "llvm/ADT/DenseMap.h"

namespace nibble {

/// Other numbers for constants, by name.
using ChangedWeights = llvm::StringMap<std::vector<float>>;

/// A float model that has been run part by part (Segments.h) on some samples,
/// and can be run again from any part on with other weights in it. What
/// stands between parts is kept; machine code is shared between like parts.
class FloatRun {
public:
  /// Runs the model on the samples 0 to `samples` - 1.
  static mlir::FailureOr<std::unique_ptr<FloatRun>>
  create(mlir::ModuleOp module, const CalibrationData &data, size_t samples,
         unsigned threads);

  llvm::ArrayRef<Segment> getSegments() const { return segments; }
  size_t countSamples() const { return samples; }

  /// What the model returns as `result` for a sample, as it is.
  const HostTensor &getResult(size_t sample, mlir::Value result) const {
    return values[sample].find(result)->second;
  }

  /// A run from segment `first` on, with other weights in it.
  struct Change {
    size_t first = 0;
    ChangedWeights weights;
  };
  /// What the model returns as `result`, by change and sample.
  mlir::FailureOr<std::vector<std::vector<HostTensor>>>
  rerun(llvm::ArrayRef<Change> changes, mlir::Value result) const;

private:
  using Values = llvm::DenseMap<mlir::Value, HostTensor>;

  explicit FloatRun(mlir::ModuleOp module) : module(module) {}
  /// `temporary`: the numbers of changed weights, which the context holds.
  mlir::FailureOr<std::unique_ptr<CompiledModel>>
  compile(const Segment &segment, const ChangedWeights &weights,
          std::vector<mlir::DenseResourceElementsHandle> &temporary) const;
  /// Adds what a segment computes to `changed`, which hides `known`.
  llvm::Error rerunSample(size_t first, const CompiledModel &changed,
                          size_t sample, mlir::Value result,
                          HostTensor &output) const;
  static llvm::Error runSegment(const Segment &segment,
                                const CompiledModel &model, const Values &known,
                                Values &changed);

  mlir::ModuleOp module;
  std::vector<Segment> segments;
  std::vector<std::unique_ptr<CompiledModel>> models;
  size_t samples = 0;
  unsigned threads = 1;
  /// By sample.
  std::vector<Values> values;
  mutable CodeCache code;
};

} // namespace nibble

#endif // NIBBLE_LIB_EVALUATION_FLOATRUN_H
