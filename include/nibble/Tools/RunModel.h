//===- RunModel.h - Run a model on tensors from files -----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TOOLS_RUNMODEL_H
#define NIBBLE_TOOLS_RUNMODEL_H

#include "nibble/Target/JIT.h"

namespace nibble {

/// Reads the `TensorProto` at `path`, each element in its stored type.
llvm::Expected<HostTensor> readHostTensor(llvm::StringRef path,
                                          mlir::MLIRContext *context);

/// Writes `tensor` as a `TensorProto` called `name`.
llvm::Error writeHostTensor(const HostTensor &tensor, llvm::StringRef path,
                            llvm::StringRef name);

/// Runs `model` on the tensors `input_0.pb`, `input_1.pb`, … of the folder
/// `inputs`, and writes `output_0.pb`, … into the folder `outputs`, which is
/// made where it does not exist.
llvm::Error runModel(const CompiledModel &model, llvm::StringRef inputs,
                     llvm::StringRef outputs, mlir::MLIRContext *context);

} // namespace nibble

#endif // NIBBLE_TOOLS_RUNMODEL_H
