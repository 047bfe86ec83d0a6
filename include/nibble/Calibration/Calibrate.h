//===- Calibrate.h - Run a model part by part and measure -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_CALIBRATE_H
#define NIBBLE_CALIBRATION_CALIBRATE_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Calibration/Journal.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/SecondMoments.h"

#include <map>

namespace nibble {

/// What was measured of the inputs of the weights of a segment, by probe.
using SegmentStatistics = std::map<std::string, SecondMoments>;

/// A weight that will be quantized, and the probe that sees its input.
struct CalibratedWeight {
  onnx::ConstantOp constant;
  std::string probe;
  /// False where the input lies in a way that is not measured (Gemm's transA).
  bool isMeasured = true;
};

struct CalibrationOptions {
  /// Run each part on what the parts before it compute with their weights
  /// quantized, rather than on what the float model computes.
  bool sequential = false;
  /// 0: one for each core. Never changes a bit of the result.
  unsigned threads = 0;
  /// Keeps what is done, and has what was done before; null: nothing is kept.
  Journal *journal = nullptr;
};

/// What a calibration tells its caller, in this order for each part.
struct CalibrationEvents {
  /// All samples have been run through the part that reads these weights; the
  /// caller quantizes them.
  llvm::function_ref<mlir::LogicalResult(
      llvm::ArrayRef<CalibratedWeight> weights,
      const SegmentStatistics &statistics)>
      rewrite;
  /// The journal has what these weights become.
  llvm::function_ref<void(llvm::ArrayRef<CalibratedWeight> weights)> restored;
};

/// Runs the model in `module`, whose weights have been assigned their
/// encodings, on all samples, one part after the other (Segments.h). In memory
/// are the values of the samples that are under way, one a thread, inside of
/// one part; what later parts read is in files (ActivationFile.h). Errors are
/// reported to the context.
///
/// With a journal the units of work are, for each part: "observe", which
/// measures; "rewrite", which `events.rewrite` does and which must leave a
/// nibble.assemble for each weight; and "run", which computes what later parts
/// read, where "observe" has not.
mlir::LogicalResult calibrate(mlir::ModuleOp module,
                              const CalibrationData &data,
                              const CalibrationOptions &options,
                              const CalibrationEvents &events);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_CALIBRATE_H
