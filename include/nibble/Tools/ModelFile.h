//===- ModelFile.h - Models from and to files -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TOOLS_MODELFILE_H
#define NIBBLE_TOOLS_MODELFILE_H

#include "nibble/Onnx/Export.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace nibble {

/// True where the name of the file says that it is an ONNX model.
bool isOnnxFile(llvm::StringRef path);

/// Reads a model: `.onnx` by import, anything else as MLIR's text or bytecode.
/// Null after an error.
mlir::OwningOpRef<mlir::ModuleOp> loadModel(llvm::StringRef path,
                                            mlir::MLIRContext *context);

/// Writes a model: `.onnx` by export (after --convert-nibble-to-onnx),
/// `.mlirbc` as bytecode, anything else as text ("-" is standard output). The
/// file appears whole or not at all.
mlir::LogicalResult saveModel(mlir::ModuleOp module, llvm::StringRef path,
                              const ExportOptions &options = {},
                              bool bytecode = false);

/// Prints each diagnostic of the context on one line of standard error, with
/// its file and node: "m.onnx: error: node 'fc1': …".
void printDiagnostics(mlir::MLIRContext &context);

} // namespace nibble

#endif // NIBBLE_TOOLS_MODELFILE_H
