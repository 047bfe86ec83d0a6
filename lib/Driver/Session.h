//===- Session.h - What the verbs share -------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_SESSION_H
#define NIBBLE_LIB_DRIVER_SESSION_H

#include "mlir/IR/MLIRContext.h"

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

/// Size of an ONNX file and of the external data files that its model refers
/// to.
uint64_t getFileSize(llvm::StringRef path);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_SESSION_H
