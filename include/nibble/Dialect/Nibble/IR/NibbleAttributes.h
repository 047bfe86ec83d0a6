//===- NibbleAttributes.h - How a tensor is stored --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The encoding attribute of quantized tensors, and what follows from it for a
// tensor's parts: the types of its codes, scales, zero points and outliers.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEATTRIBUTES_H
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEATTRIBUTES_H

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/TensorEncoding.h"

namespace nibble {

/// What a code is. The integers come in several widths, an inline code book in
/// several sizes; each other kind is one format.
enum class CodeKind {
  SignedInteger,
  UnsignedInteger,
  F8E4M3FN,
  F8E5M2,
  F4E2M1FN,
  NF4,
  FP4,
  CodeBook,
};

enum class OutlierKind { Columns, Sparse };

} // namespace nibble

#define GET_ATTRDEF_CLASSES
#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h.inc"

namespace nibble {

/// The encoding of a quantized tensor type; null for every other type.
QuantizedAttr getQuantization(mlir::Type type);

inline bool isQuantized(mlir::Type type) {
  return static_cast<bool>(getQuantization(type));
}

/// The type that a quantized tensor dequantizes to: the same shape and element
/// type without the encoding. Other tensor types are returned as they are.
mlir::RankedTensorType getExpressedType(mlir::RankedTensorType type);

/// The types of the parts of a quantized tensor type (Spec C14 to C16):
///
///   tensor<100x64xf32, #nibble.quantized<u4, block = [32, 1], scale = f16,
///   zero = u4>> ⇒ codes tensor<100x64xui4>, scales tensor<4x64xf16>, zeros
///   tensor<4x64xui4>
///
/// A nested scale or zero point gives a quantized tensor of f32. The type must
/// be quantized; getZerosType is null where there is no zero point.
mlir::RankedTensorType getCodesType(mlir::RankedTensorType type);

/// The values of a code book by code (Spec S5).
llvm::SmallVector<float> getCodeBookValues(StorageAttr storage);

/// A code book's values as integers of -127 to 127 times `step` (Spec S13).
struct IntegerCodeBook {
  llvm::SmallVector<int8_t> values;
  float step = 1;
};
IntegerCodeBook getIntegerCodeBook(StorageAttr storage);
mlir::RankedTensorType getScalesType(mlir::RankedTensorType type);
mlir::RankedTensorType getZerosType(mlir::RankedTensorType type);

/// The types of `count` outliers (Spec C17), `count` possibly dynamic: the
/// indices are [count] for columns and [count, rank] for sparse; the values are
/// the tensor's shape with `count` along the axis for columns, and [count] for
/// sparse. `indexType` is i32 or i64. Both null where there are none.
mlir::RankedTensorType getOutlierIndicesType(mlir::RankedTensorType type,
                                             int64_t count,
                                             mlir::Type indexType);
mlir::RankedTensorType getOutlierValuesType(mlir::RankedTensorType type,
                                            int64_t count);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEATTRIBUTES_H
