//===- UnitFiles.h - What units of work leave behind ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_UNITFILES_H
#define NIBBLE_CALIBRATION_UNITFILES_H

#include "nibble/Calibration/Calibrate.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"

namespace nibble {

/// Writes what was measured as an archive of NumPy's: for each probe its sums
/// as they are (SecondMoments::sums) and the number of rows.
llvm::Error writeStatistics(llvm::StringRef path,
                            const SegmentStatistics &statistics);
/// Fills `statistics`, whose probes are those that were written.
llvm::Error readStatistics(llvm::StringRef path, SegmentStatistics &statistics);

/// Writes the factors that were chosen for the inputs of products:
/// {"values": {NAME: {"factors": […], "before": …, "after": …, "note": …}}}.
llvm::Error writeFactors(llvm::StringRef path, const FactorRecord &factors);
llvm::Expected<FactorRecord> readFactors(llvm::StringRef path);

/// Writes quantized weights, with the constants that they are made of, as
/// MLIR's bytecode.
llvm::Error writeWeights(llvm::StringRef path,
                         llvm::ArrayRef<AssembleOp> weights);
/// Replaces `constants` by the weights that were written, in their order.
llvm::Error readWeights(llvm::StringRef path,
                        llvm::ArrayRef<CalibratedWeight> weights);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_UNITFILES_H
