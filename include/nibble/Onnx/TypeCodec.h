//===- TypeCodec.h - TypeProto to and from types ----------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_ONNX_TYPECODEC_H
#define NIBBLE_ONNX_TYPECODEC_H

#include "nibble/Onnx/Wire.h"

#include "mlir/IR/Types.h"

namespace nibble {

/// A type read from a `TypeProto`.
struct DecodedType {
  /// Null where the message is malformed or has an unknown data type.
  mlir::Type type;
  /// True where encodeType(type) is the same message again, so that nothing is
  /// lost by keeping only the type.
  bool exact = false;
};

DecodedType decodeType(mlir::MLIRContext *context, llvm::StringRef typeProto);

/// The `TypeProto` of a type. std::nullopt for a type that ONNX lacks.
std::optional<wire::Writer> encodeType(mlir::Type type);

} // namespace nibble

#endif // NIBBLE_ONNX_TYPECODEC_H
