//===- MixedPrecision.h - Schemes within a budget ---------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_MIXEDPRECISION_H
#define NIBBLE_LIB_DRIVER_MIXEDPRECISION_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Report/QuantizationReport.h"

namespace nibble {

/// Measures what each matrix that --nibble-assign-schemes gave `scheme` costs
/// the model (Sensitivity.h) and gives it the encoding that is best within the
/// budget; other weights keep theirs. `fileBytes` is the size of the float
/// model's files. Errors have been printed.
mlir::FailureOr<BudgetReport> assignWithinBudget(mlir::ModuleOp module,
                                                 const CalibrationData &data,
                                                 const QuantizeCommand &command,
                                                 const Scheme &scheme,
                                                 uint64_t fileBytes);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_MIXEDPRECISION_H
