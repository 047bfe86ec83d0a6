//===- Sensitivity.h - What each weight costs the model ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_EVALUATION_SENSITIVITY_H
#define NIBBLE_EVALUATION_SENSITIVITY_H

#include "nibble/Calibration/Calibrate.h"
#include "nibble/Numerics/Scheme.h"

namespace nibble {

/// What schemes would cost, for one weight.
struct WeightSensitivity {
  onnx::ConstantOp constant;
  /// By candidate: the predicted loss of the model's output if only this weight
  /// is quantized, and the bytes that the ONNX op takes for it.
  std::vector<double> losses;
  std::vector<uint64_t> bytes;
};

struct SensitivityOptions {
  std::vector<Scheme> candidates;
  /// 0: one for each core. Never changes the result.
  unsigned threads = 0;
  /// Is told what is measured next: `step` of `steps`.
  llvm::function_ref<void(llvm::StringRef item, size_t step, size_t steps)>
      progress;
};

/// Predicts what quantizing each matrix costs the model in `module`, whose
/// weights have a `nibble.encoding`:
///
///     loss(w, s) = error(w, s) · loss(group) / error(group)
///
/// error(w, s) is the relative squared error of what w computes on up to 8
/// calibration samples if GPTQ stores it by scheme s (in up to 128 columns).
/// loss(group) is how far the model's output moves if all weights that read the
/// same input as w are rounded to `w3g128`, and error(group) the sum of their
/// errors then. A loss is the Kullback-Leibler divergence from the float
/// model's distributions (in nats) where an output is logits or probabilities,
/// else the relative squared error of the first output of floats. Weights whose
/// input is not measured (Gather's tables, Gemm's transA, filters) are left
/// out. Errors are reported to the context.
mlir::FailureOr<std::vector<WeightSensitivity>>
measureSensitivities(mlir::ModuleOp module, const CalibrationData &data,
                     const SensitivityOptions &options);

/// Whether losses of `module` are divergences.
bool hasDistributions(mlir::ModuleOp module);

} // namespace nibble

#endif // NIBBLE_EVALUATION_SENSITIVITY_H
