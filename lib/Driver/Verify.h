//===- Verify.h - Is the file what was meant? -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_VERIFY_H
#define NIBBLE_LIB_DRIVER_VERIFY_H

#include "mlir/IR/BuiltinOps.h"

#include <optional>
#include <string>

namespace nibble {

/// The first difference between two models in the onnx dialect: nodes,
/// attributes and every byte of the constants. std::nullopt where they are the
/// same.
std::optional<std::string> findDifference(mlir::ModuleOp a, mlir::ModuleOp b);

/// What happened when ONNX Runtime loaded and ran a file.
struct RuntimeCheck {
  enum Outcome { Passed, LoadedOnly, Skipped, Failed } outcome;
  std::string message;
};

/// Loads and runs the model at `path` in ONNX Runtime, through the Python that
/// NIBBLE_PYTHON names or `python3`. Where the run fails, `original` is run the
/// same way: a model that does not take made-up inputs is only loaded.
RuntimeCheck checkInRuntime(llvm::StringRef path, llvm::StringRef original);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_VERIFY_H
