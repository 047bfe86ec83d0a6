//===- ConstantEvaluation.h - Small constants, computed ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DIALECT_ONNX_TRANSFORMS_CONSTANTEVALUATION_H
#define NIBBLE_LIB_DIALECT_ONNX_TRANSFORMS_CONSTANTEVALUATION_H

#include "nibble/Dialect/Onnx/IR/TensorData.h"

namespace nibble::onnx {

/// A constant: its type and its elements in the layout of `raw_data`.
struct Tensor {
  mlir::RankedTensorType type;
  std::vector<char> bytes;
};

/// The results of a node of ONNX's own domain on constant operands (null: left
/// out), whose types are known to be `types`. std::nullopt for an op that is
/// not folded and for operands on which ONNX leaves the result open (division
/// by zero, a float beyond the integers, NaN).
std::optional<llvm::SmallVector<Tensor>>
evaluate(NodeOp node, int64_t version, llvm::ArrayRef<const Tensor *> operands,
         llvm::ArrayRef<mlir::RankedTensorType> types);

} // namespace nibble::onnx

#endif // NIBBLE_LIB_DIALECT_ONNX_TRANSFORMS_CONSTANTEVALUATION_H
