//===- ChooseRanges.h - Ranges of the codes of activations ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_CHOOSERANGES_H
#define NIBBLE_CALIBRATION_CHOOSERANGES_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Numerics/RangeObserver.h"

namespace nibble {

/// Runs the model in `module`, whose products know the least and largest number
/// that they read and give (nibble.input_range, nibble.output_range), on all
/// samples, and replaces these ranges by what `observer` chooses from
/// histograms. `threads`: 0 for one a core; never changes the result. Errors
/// are reported to the context.
mlir::LogicalResult chooseActivationRanges(mlir::ModuleOp module,
                                           const CalibrationData &data,
                                           RangeObserver observer,
                                           unsigned threads);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_CHOOSERANGES_H
