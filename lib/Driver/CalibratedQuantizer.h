//===- CalibratedQuantizer.h - Codes chosen by calibration ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_CALIBRATEDQUANTIZER_H
#define NIBBLE_LIB_DRIVER_CALIBRATEDQUANTIZER_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Driver/Driver.h"

#include <map>

namespace nibble {

/// Runs the model on `data` and quantizes its products' weights by what their
/// inputs are. Other weights with an encoding, such as tables, stay as they
/// are. `seconds` becomes what the algorithm took for each weight, by name.
/// Errors have been printed.
mlir::LogicalResult quantizeCalibrated(mlir::ModuleOp module,
                                       const CalibrationData &data,
                                       const QuantizeCommand &command,
                                       std::map<std::string, double> &seconds);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_CALIBRATEDQUANTIZER_H
