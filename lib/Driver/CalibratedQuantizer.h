//===- CalibratedQuantizer.h - Codes chosen by calibration ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_CALIBRATEDQUANTIZER_H
#define NIBBLE_LIB_DRIVER_CALIBRATEDQUANTIZER_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Calibration/Journal.h"
#include "nibble/Driver/Driver.h"

namespace nibble {

/// The journal of quantizeCalibrated, beside the output. A journal of other
/// weights, schemes, data or options is refused.
llvm::Expected<std::unique_ptr<Journal>>
openJournal(mlir::ModuleOp module, const CalibrationData &data,
            const QuantizeCommand &command);

/// Runs the model on `data` and quantizes its products' weights by what their
/// inputs are. Other weights with an encoding, such as tables, stay as they
/// are. Errors have been printed.
mlir::LogicalResult quantizeCalibrated(mlir::ModuleOp module,
                                       const CalibrationData &data,
                                       const QuantizeCommand &command,
                                       Journal &journal);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_CALIBRATEDQUANTIZER_H
