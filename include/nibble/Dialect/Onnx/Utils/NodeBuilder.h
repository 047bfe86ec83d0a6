//===- NodeBuilder.h - New constants and nodes of a graph -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_UTILS_NODEBUILDER_H
#define NIBBLE_DIALECT_ONNX_UTILS_NODEBUILDER_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"

namespace nibble::onnx {

/// An initializer of f32 numbers.
mlir::Value makeFloats(mlir::OpBuilder &builder, llvm::StringRef name,
                       llvm::ArrayRef<int64_t> shape,
                       llvm::ArrayRef<float> numbers);

/// A node of ONNX's own domain with one result, called `output` like the node.
NodeOp makeNode(mlir::OpBuilder &builder, llvm::StringRef opType,
                llvm::StringRef output, mlir::ValueRange inputs,
                mlir::Type resultType,
                llvm::ArrayRef<std::pair<llvm::StringRef, mlir::Attribute>>
                    attributes = {});

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_UTILS_NODEBUILDER_H
