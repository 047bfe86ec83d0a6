//===- Import.h - ONNX files to IR ------------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_ONNX_IMPORT_H
#define NIBBLE_ONNX_IMPORT_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace nibble {

/// Reads the ONNX model at `path` (and its external data) into a module. The
/// files are mapped, not read: weights stay where they are until a pass asks
/// for them. Null after an error, which names the file, the node and the
/// tensor.
mlir::OwningOpRef<mlir::ModuleOp> importOnnx(llvm::StringRef path,
                                             mlir::MLIRContext *context);

} // namespace nibble

#endif // NIBBLE_ONNX_IMPORT_H
