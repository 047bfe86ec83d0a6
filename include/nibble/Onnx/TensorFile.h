//===- TensorFile.h - Single tensors from and to files ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_ONNX_TENSORFILE_H
#define NIBBLE_ONNX_TENSORFILE_H

#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/Support/Error.h"

namespace nibble {

/// Reads the `TensorProto` in the file at `path` (ONNX's `input_0.pb`): a
/// constant's value, see onnx::getTensorBytes. The file stays mapped.
llvm::Expected<mlir::TypedAttr> readTensorFile(llvm::StringRef path,
                                               mlir::MLIRContext *context);

/// Writes a `TensorProto` with these elements, in the layout of `raw_data`. The
/// file appears whole or not at all.
llvm::Error writeTensorFile(llvm::StringRef path, llvm::StringRef name,
                            mlir::Type elementType,
                            llvm::ArrayRef<int64_t> shape,
                            llvm::ArrayRef<char> bytes);

} // namespace nibble

#endif // NIBBLE_ONNX_TENSORFILE_H
