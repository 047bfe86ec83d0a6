//===- QuantizeConstant.h - A weight to codes and scales --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_QUANTIZECONSTANT_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_QUANTIZECONSTANT_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/WeightQuantizer.h"

namespace nibble {

/// Quantizes a constant that has a `nibble.encoding` with any algorithm and
/// replaces it by a nibble.assemble of its parts. The reader of the constant
/// sees a value of the same shape with the encoding. Errors name the tensor.
mlir::LogicalResult quantizeConstant(onnx::ConstantOp constant,
                                     const WeightQuantizer &quantizer,
                                     const WeightStatistics &statistics,
                                     unsigned threads);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_QUANTIZECONSTANT_H
