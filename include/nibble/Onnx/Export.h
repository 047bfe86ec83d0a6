//===- Export.h - IR to ONNX files ------------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_ONNX_EXPORT_H
#define NIBBLE_ONNX_EXPORT_H

#include "mlir/IR/BuiltinOps.h"

namespace nibble {

/// Where the weights of an exported model go.
enum class ExternalData {
  /// Into the model file; an error where that would pass protobuf's 2 GiB.
  Never,
  /// Beside it, if the model had external data before or would pass 2 GiB.
  Auto,
  /// Beside it, in one file `<model>.data`, each tensor on its own pages.
  Always
};

struct ExportOptions {
  ExternalData externalData = ExternalData::Auto;
};

/// Writes `module`, which holds a model in the onnx dialect, to `path`. Weights
/// go from their mapped file to the new one without being held. The files
/// appear whole or not at all; an error names the node or tensor.
mlir::LogicalResult exportOnnx(mlir::ModuleOp module, llvm::StringRef path,
                               const ExportOptions &options = {});

} // namespace nibble

#endif // NIBBLE_ONNX_EXPORT_H
