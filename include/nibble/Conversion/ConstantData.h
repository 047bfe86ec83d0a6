//===- ConstantData.h - The numbers of constants ----------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_CONSTANTDATA_H
#define NIBBLE_CONVERSION_CONSTANTDATA_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/Value.h"

#include <vector>

namespace nibble {

/// The constant behind casts of its type, or null.
mlir::ElementsAttr getConstant(mlir::Value value);

/// The bytes of a constant, one element after the other; `storage` holds them
/// where the attribute does not.
llvm::ArrayRef<char> getBytes(mlir::ElementsAttr value,
                              std::vector<char> &storage);

/// f32 numbers of a constant of f32, f16 or bf16; empty for other elements.
std::vector<float> getFloats(mlir::ElementsAttr value);

/// The parts of a constant weight [K, N] as they are packed for kernels.
struct WeightParts {
  mlir::RankedTensorType type;
  std::vector<uint8_t> codes;
  /// [groups, N]
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
};

/// A constant of packed numbers, whose bytes `fill` writes.
template <typename T>
mlir::Value createPacked(mlir::OpBuilder &builder, mlir::Location loc,
                         mlir::Type element, size_t count,
                         llvm::function_ref<void(T *)> fill) {
  auto type =
      mlir::RankedTensorType::get({static_cast<int64_t>(count)}, element);
  constexpr size_t cacheLine = 64;
  mlir::AsmResourceBlob blob =
      mlir::HeapAsmResourceBlob::allocate(count * sizeof(T), cacheLine);
  fill(reinterpret_cast<T *>(blob.getMutableData().data()));
  return mlir::arith::ConstantOp::create(
      builder, loc,
      mlir::DenseResourceElementsAttr::get(type, "packed", std::move(blob)));
}

} // namespace nibble

#endif // NIBBLE_CONVERSION_CONSTANTDATA_H
