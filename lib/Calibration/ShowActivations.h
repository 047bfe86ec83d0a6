//===- ShowActivations.h - What a running model computes --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CALIBRATION_SHOWACTIVATIONS_H
#define NIBBLE_LIB_CALIBRATION_SHOWACTIVATIONS_H

#include "nibble/Calibration/MeasureActivations.h"

namespace nibble {

/// Numbers of a value of a running model.
struct SeenActivation {
  llvm::StringRef name;
  llvm::ArrayRef<int64_t> shape;
  llvm::ArrayRef<float> values;
  /// The dimension of the channels is the last one, as of what matrix products
  /// read, not the second, as of what convolutions read and give.
  bool channelsAreLast;
};

/// Runs the model in `module` on all samples, part by part (PartRun.h), and
/// shows what layers read, and what Conv gives, each value once a sample. Calls
/// may come from several threads at once. Errors are reported to the context.
mlir::LogicalResult showActivations(
    mlir::ModuleOp module, const CalibrationData &data, MeasuredLayers layers,
    unsigned threads,
    llvm::function_ref<void(size_t sample, const SeenActivation &)> see);

} // namespace nibble

#endif // NIBBLE_LIB_CALIBRATION_SHOWACTIVATIONS_H
