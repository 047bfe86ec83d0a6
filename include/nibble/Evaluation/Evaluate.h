//===- Evaluate.h - What quantization did to a model ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_EVALUATION_EVALUATE_H
#define NIBBLE_EVALUATION_EVALUATE_H

#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Numerics/OutputQuality.h"

#include <map>

namespace nibble {

/// A quantized model beside the float model, on samples that calibration has
/// not seen (or has: the caller knows).
struct Evaluation {
  struct Output {
    std::string name;
    OutputQuality quality;
  };
  size_t samples = 0;
  /// Outputs of floats, in the order of the model.
  std::vector<Output> outputs;
  /// ‖X (W − Ŵ)‖² / ‖X W‖² of each quantized matrix by its name, X what it
  /// reads in the float model.
  std::map<std::string, double> layerErrors;
};

/// Which samples calibration takes, and which the result is judged on.
struct SampleSplit {
  /// The first ones.
  size_t calibration = 0;
  std::vector<size_t> judges;
  /// Whether calibration has not seen the judges.
  bool isHeldOut = false;
};

/// Splits `total` samples, of which calibration may take `limit` (0: all). Up
/// to 4 of the others judge. Where there are no others, one of 16 is held out,
/// at least 1 and at most 4; of less than 8 samples none is, and calibration's
/// own judge.
SampleSplit splitSamples(size_t total, size_t limit);

/// Runs both models in Nibble's own execution, in f32, on the samples `indices`
/// of `data`. `original` has its weights in float and their encodings
/// (nibble.encoding) chosen; in `quantized` they are nibble.assemble. An output
/// counts as logits where it comes straight from a product with a constant
/// matrix, as probabilities where it comes from a softmax; where an integer
/// input has the shape of the logits' positions, each position's target is the
/// input at the next one. Of each output of a sample up to 128 rows are
/// compared, evenly spaced. Neither module is changed; `threads`: 0 for one a
/// core, never changes the result. Errors are reported to the context.
mlir::FailureOr<Evaluation> evaluate(mlir::ModuleOp original,
                                     mlir::ModuleOp quantized,
                                     const CalibrationData &data,
                                     llvm::ArrayRef<size_t> indices,
                                     unsigned threads);

} // namespace nibble

#endif // NIBBLE_EVALUATION_EVALUATE_H
