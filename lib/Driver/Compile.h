//===- Compile.h - A model as a library -------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_COMPILE_H
#define NIBBLE_LIB_DRIVER_COMPILE_H

#include "nibble/Target/EmittedModel.h"

namespace nibble {

/// Adds to a context what the pipelines need.
void addPipelineDialects(mlir::MLIRContext &context);

/// What code is emitted for.
struct CompileTarget {
  std::vector<const TargetRow *> rows;
  /// The GPU whose host is the only row; null where there is none.
  const NvidiaRow *device = nullptr;
};

/// What a --target names: a row of TargetRows.inl, "multi" for several of this
/// machine's architecture, or a row of NvidiaRows.inl.
llvm::Expected<CompileTarget> parseTarget(llvm::StringRef target);

/// Writes `model` as the library or object file `output` by its ending, and its
/// weights, where they go to a file, to `weights`. Both appear whole or not at
/// all.
llvm::Error writeLibrary(EmittedModel &model, llvm::StringRef output,
                         llvm::StringRef weights);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_COMPILE_H
