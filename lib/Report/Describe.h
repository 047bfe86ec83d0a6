//===- Describe.h - Values in a reader's words ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_REPORT_DESCRIBE_H
#define NIBBLE_LIB_REPORT_DESCRIBE_H

#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

namespace nibble {

/// "Gather, MatMul": the op types that read `value`, also behind a Transpose.
std::string describeReaders(mlir::Value value);

/// "576 x 1536".
std::string describeShape(mlir::ShapedType type);

/// "4 bits, groups of 32, asymmetric".
std::string describeEncoding(QuantizedAttr encoding);

/// "f32[batch, sequence, 576]".
std::string describeType(mlir::Type type);

} // namespace nibble

#endif // NIBBLE_LIB_REPORT_DESCRIBE_H
