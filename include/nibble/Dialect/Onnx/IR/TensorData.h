//===- TensorData.h - The numbers of a constant -----------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_TENSORDATA_H
#define NIBBLE_DIALECT_ONNX_IR_TENSORDATA_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

namespace nibble::onnx {

/// The elements of a tensor in the layout of ONNX's `raw_data`: row-major,
/// little-endian, a byte for a bool, narrower elements packed low bits first.
struct TensorBytes {
  llvm::ArrayRef<char> bytes;
  /// Holds `bytes` where they are no part of the attribute or of a mapped file.
  std::vector<char> storage;
  /// True where `bytes` lie in a mapped file.
  bool mapped = false;
};

/// The bytes of `value`, the value of a constant (see getConstantValue);
/// std::nullopt for strings and for varints that do not fit the type. A
/// dense_resource holds the layout of `raw_data` too.
std::optional<TensorBytes> getTensorBytes(mlir::Attribute value);

/// A dense attribute of `bytes` (in the layout of `raw_data`), or null where
/// that would not keep every bit (a bool that is neither 0 nor 1, padding).
mlir::DenseElementsAttr getDenseElements(mlir::ShapedType type,
                                         llvm::ArrayRef<char> bytes);

/// Expands the varints of `int32_data`, `int64_data` or `uint64_data` (packed)
/// to the layout of `raw_data`. False where they are malformed, have the wrong
/// number or do not fit the element type.
bool expandVarints(mlir::ShapedType type, llvm::StringRef varints,
                   std::vector<char> &bytes);

/// The values that `int32_data`, `int64_data` or `uint64_data` hold for
/// `bytes`.
void collectVarints(mlir::ShapedType type, llvm::ArrayRef<char> bytes,
                    llvm::SmallVectorImpl<uint64_t> &values);

/// Number of varints that hold a tensor of this type.
uint64_t getVarintCount(mlir::ShapedType type);

/// The elements of an integer or bool tensor; std::nullopt for other types and
/// values that are no constant.
std::optional<llvm::SmallVector<int64_t>> getIntegers(mlir::Attribute value);

/// The elements of a float tensor (f64, f32, f16, bf16) as f32; std::nullopt
/// for other types and values that are no constant.
std::optional<std::vector<float>> getFloats(mlir::Attribute value);

/// A constant's value that holds `bytes` (in the layout of `raw_data`): dense
/// for a few elements, else a dense_resource that owns them.
mlir::TypedAttr makeTensorValue(mlir::RankedTensorType type,
                                llvm::StringRef name, std::vector<char> bytes);

/// Tensors of at most this many elements are kept as dense attributes, which a
/// reader of the text sees.
inline constexpr int64_t kMaxDenseElements = 32;

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_IR_TENSORDATA_H
