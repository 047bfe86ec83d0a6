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

/// Whose inputs are measured.
enum class MeasuredLayers : uint8_t {
  All,   ///< every Conv, MatMul and Gemm, and what Conv gives too
  Chosen ///< products whose weight will be quantized (nibble.encoding)
};

/// Runs the model in `module` on all samples, as far as is needed, and measures
/// each channel of what layers read. `threads`: 0 for one a core; never changes
/// the result. Errors are reported to the context.
mlir::FailureOr<ActivationRanges>
measureActivations(mlir::ModuleOp module, const CalibrationData &data,
                   MeasuredLayers layers, unsigned threads);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_MEASUREACTIVATIONS_H
