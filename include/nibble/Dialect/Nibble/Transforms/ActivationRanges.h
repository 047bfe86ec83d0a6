//===- ActivationRanges.h - What calibration saw of values ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_ACTIVATIONRANGES_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_ACTIVATIONRANGES_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/Error.h"

#include <vector>

namespace nibble {

/// The numbers that a value of the graph took on the calibration data; one
/// entry for each channel: dimension 1 of what a convolution reads or gives,
/// the last dimension of what a matrix product reads.
struct ActivationRange {
  std::vector<float> min, max, mean;
  /// May be empty: unknown. `magnitude` is the mean of |x|.
  std::vector<float> variance, magnitude;
};

/// By the ONNX name of the value.
using ActivationRanges = llvm::StringMap<ActivationRange>;

/// Reads {"values": {NAME: {"min": […], "max": […], "mean": […],
/// "variance": […], "magnitude": […]}, …}}; the last two may be left out.
/// Errors name the file, and the value that is malformed: a number that is not
/// finite, lists of different lengths, a minimum above the maximum.
llvm::Expected<ActivationRanges> readActivationRanges(llvm::StringRef path);

/// Writes what readActivationRanges reads, with all digits.
llvm::Error writeActivationRanges(llvm::StringRef path,
                                  const ActivationRanges &ranges);

/// The same for a pass: an error is reported to `context`.
mlir::FailureOr<ActivationRanges>
readActivationRanges(llvm::StringRef path, mlir::MLIRContext *context);

/// How many inputs and outputs were changed.
struct EqualizedCounts {
  unsigned inputs = 0, outputs = 0;
};

/// Does what --nibble-equalize-activations does.
EqualizedCounts equalizeActivations(mlir::ModuleOp module,
                                    const ActivationRanges &ranges);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_ACTIVATIONRANGES_H
