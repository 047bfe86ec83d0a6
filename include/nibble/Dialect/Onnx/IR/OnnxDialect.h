//===- OnnxDialect.h - The onnx dialect -------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_ONNXDIALECT_H
#define NIBBLE_DIALECT_ONNX_IR_ONNXDIALECT_H

#include "nibble/Support/MappedFile.h"

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/TensorEncoding.h"
#include "mlir/Interfaces/ControlFlowInterfaces.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h.inc"
#include "nibble/Dialect/Onnx/IR/OnnxEnums.h.inc"
#define GET_TYPEDEF_CLASSES
#include "nibble/Dialect/Onnx/IR/OnnxTypes.h.inc"
#define GET_ATTRDEF_CLASSES
#include "nibble/Dialect/Onnx/IR/OnnxAttrs.h.inc"
#define GET_OP_CLASSES
#include "nibble/Dialect/Onnx/IR/OnnxOps.h.inc"

namespace nibble::onnx {

/// Names of the attributes of a module and a function that hold a model.
inline constexpr llvm::StringLiteral kGraphAttrName = "onnx.graph";
inline constexpr llvm::StringLiteral kFunctionAttrName = "onnx.function";
inline constexpr llvm::StringLiteral kIRVersionAttrName = "onnx.ir_version";
inline constexpr llvm::StringLiteral kOpsetsAttrName = "onnx.opsets";
inline constexpr llvm::StringLiteral kExtrasAttrName = "onnx.extras";
/// Of an argument of main: a buffer that a run changes (--onnx-update-caches).
inline constexpr llvm::StringLiteral kUpdatedAttrName = "onnx.updated";

/// One dimension of a shape: a size, or unknown with or without a name.
struct Dimension {
  int64_t size = mlir::ShapedType::kDynamic;
  mlir::StringAttr symbol;

  bool isStatic() const { return !mlir::ShapedType::isDynamic(size); }
  bool operator==(const Dimension &other) const {
    return size == other.size && symbol == other.symbol;
  }
  /// True where both are known to be the same size. The name "?", which some
  /// exporters write, tells nothing.
  bool isKnownEqual(const Dimension &other) const {
    return isStatic() ? size == other.size
                      : symbol && symbol != "?" && symbol == other.symbol;
  }
};

/// The dimensions of a ranked tensor, with their names.
llvm::SmallVector<Dimension> getDimensions(mlir::RankedTensorType type);

/// The ranked tensor of these dimensions.
mlir::RankedTensorType getTensorType(llvm::ArrayRef<Dimension> dimensions,
                                     mlir::Type elementType);

/// The version of `domain` that `op`, a node from a local function, has, or
/// that the function or model around it imports; or 0.
int64_t getOpsetVersion(mlir::Operation *op, llvm::StringRef domain = "");

/// The constant behind `value` (an onnx.constant's value or the `value` of a
/// Constant node), or null. It is a DenseElementsAttr, a
/// DenseResourceElementsAttr, a FileElementsAttr or a StringsAttr.
mlir::Attribute getConstantValue(mlir::Value value);

/// Number of bits that an element takes in a packed tensor; 0 for types without
/// a fixed width (strings).
unsigned getBitWidth(mlir::Type elementType);

/// Bytes that the elements of a statically shaped tensor take in `raw_data`
/// (sub-byte elements are packed), or std::nullopt on overflow.
std::optional<uint64_t> getPackedSize(mlir::ShapedType type);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_IR_ONNXDIALECT_H
