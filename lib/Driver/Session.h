//===- Session.h - What the verbs share -------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_SESSION_H
#define NIBBLE_LIB_DRIVER_SESSION_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/MLIRContext.h"

#include <optional>
#include <string>

namespace nibble {

/// A context with Nibble's dialects whose diagnostics go to standard error.
class Session {
public:
  Session();
  mlir::MLIRContext &getContext() { return context; }

private:
  mlir::MLIRContext context;
};

/// Prints "error: …" and returns ExitFailure.
int fail(const llvm::Twine &message);

/// The Python that runs what only Python has: that of NIBBLE_PYTHON, or
/// `python3`, or none.
std::optional<std::string> findPython();

/// Size of the file at `path` and of the other files that `module`, which was
/// read from it, keeps its weights in.
uint64_t getFileSize(llvm::StringRef path, mlir::ModuleOp module);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_SESSION_H
