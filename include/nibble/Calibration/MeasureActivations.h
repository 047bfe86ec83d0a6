//===- MeasureActivations.h - Ranges of what products read ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_MEASUREACTIVATIONS_H
#define NIBBLE_CALIBRATION_MEASUREACTIVATIONS_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Dialect/Nibble/Transforms/ActivationRanges.h"

namespace nibble {

/// Runs the model in `module` on all samples and measures each channel of what
/// Conv, MatMul and Gemm read and of what Conv gives. `threads`: 0 for one a
/// core; never changes the result. Errors are reported to the context.
mlir::FailureOr<ActivationRanges>
measureActivations(mlir::ModuleOp module, const CalibrationData &data,
                   unsigned threads);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_MEASUREACTIVATIONS_H
