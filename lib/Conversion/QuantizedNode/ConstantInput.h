//===- ConstantInput.h - Constant inputs of quantized nodes -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_QUANTIZEDNODE_CONSTANTINPUT_H
#define NIBBLE_LIB_CONVERSION_QUANTIZEDNODE_CONSTANTINPUT_H

#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

namespace nibble {

/// An input that must be a constant tensor.
struct ConstantInput {
  mlir::TypedAttr value;
  mlir::RankedTensorType type;

  explicit operator bool() const { return static_cast<bool>(value); }
  mlir::Type elementType() const { return type.getElementType(); }
};

/// The constant tensor of numbers that `value` is; false where it is none.
ConstantInput getConstantTensor(mlir::Value value);

/// Whether scales may have this element type.
bool isScaleType(mlir::Type type);

/// The storage whose codes have this type, or null.
StorageAttr getStorage(mlir::Type codeType);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_QUANTIZEDNODE_CONSTANTINPUT_H
