//===- Opset.h - What a model imports ---------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_UTILS_OPSET_H
#define NIBBLE_DIALECT_ONNX_UTILS_OPSET_H

#include "mlir/IR/BuiltinOps.h"

namespace nibble::onnx {

/// Makes the model import `domain`, at `version` if it did not before.
void requireDomain(mlir::ModuleOp module, llvm::StringRef domain,
                   int64_t version);

/// Makes the model import `version` of ONNX's own domain, and have the IR
/// version that came with it.
void setOpset(mlir::ModuleOp module, int64_t version);

/// Raises the opset of ONNX's own domain to at least `version`, and the IR
/// version with it. Nodes of another form in the new opset (a Clip with
/// attributes, an Upsample) are rewritten; a node whose meaning would change
/// otherwise is an error that names it, and then the model is left as it was.
mlir::LogicalResult raiseOpset(mlir::ModuleOp module, int64_t version);

/// Raises the IR version to 4, from which on an initializer need not be an
/// input of the graph.
void requireFreeInitializers(mlir::ModuleOp module);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_UTILS_OPSET_H
