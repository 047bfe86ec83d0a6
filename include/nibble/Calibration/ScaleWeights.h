//===- ScaleWeights.h - AWQ on what a model computes ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_SCALEWEIGHTS_H
#define NIBBLE_CALIBRATION_SCALEWEIGHTS_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Calibration/Journal.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"

namespace nibble {

/// Measures the inputs of products on all samples (MeasureActivations.h) and
/// does what --nibble-awq does: weights that meet large inputs become large
/// themselves. A unit of work of the journal, "scale", which may be null. The
/// number of threads never changes the result. Errors are reported to the
/// context.
mlir::FailureOr<RescaleCounts> scaleWeights(mlir::ModuleOp module,
                                            const CalibrationData &data,
                                            const AwqOptions &options,
                                            Journal *journal);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_SCALEWEIGHTS_H
