//===- PairedSegments.h - Two models part by part ---------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_EVALUATION_PAIREDSEGMENTS_H
#define NIBBLE_LIB_EVALUATION_PAIREDSEGMENTS_H

#include "nibble/Calibration/Segments.h"

namespace nibble {

/// A part of the float model and the same part of the quantized one.
struct PairedSegment {
  Segment original, quantized;
};

/// The parts of a whole run. Where the quantized model has other nodes than the
/// float one (its activations are quantized) there is one part, all of it.
std::vector<PairedSegment> pairSegments(mlir::func::FuncOp original,
                                        mlir::func::FuncOp quantized);

} // namespace nibble

#endif // NIBBLE_LIB_EVALUATION_PAIREDSEGMENTS_H
