//===- ConstantData.h - The numbers of constants ----------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_CONSTANTDATA_H
#define NIBBLE_CONVERSION_CONSTANTDATA_H

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

} // namespace nibble

#endif // NIBBLE_CONVERSION_CONSTANTDATA_H
