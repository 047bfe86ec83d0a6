//===- ValueNames.h - The ONNX names of a graph's values --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_VALUENAMES_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_VALUENAMES_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace nibble {

/// What ONNX calls the inputs of a graph and the results of its nodes.
class ValueNames {
public:
  explicit ValueNames(mlir::func::FuncOp graph);
  /// Empty for other values.
  llvm::StringRef lookup(mlir::Value value) const;

private:
  llvm::DenseMap<mlir::Value, llvm::StringRef> inputs;
};

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_VALUENAMES_H
