//===- DataTypes.h - TensorProto.DataType and MLIR types --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_DATATYPES_H
#define NIBBLE_DIALECT_ONNX_IR_DATATYPES_H

#include "mlir/IR/Types.h"

#include <cstdint>
#include <optional>

namespace nibble::onnx {

/// The MLIR type of a `TensorProto.DataType`: signed integers are signless
/// (`i8`), unsigned ones `ui8`, bool is `i1`, UNDEFINED `!onnx.unknown`. Null
/// for a number that onnx.proto does not define.
mlir::Type getElementType(mlir::MLIRContext *context, uint64_t dataType);

/// The inverse of getElementType; std::nullopt for a type that ONNX lacks.
std::optional<uint32_t> getDataType(mlir::Type elementType);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_IR_DATATYPES_H
