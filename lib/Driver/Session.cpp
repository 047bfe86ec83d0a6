//===- Session.cpp - What the verbs share ---------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Session.h"

#include "nibble/Driver/Driver.h"
#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"

#include "mlir/IR/DialectRegistry.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace nibble;

static DialectRegistry makeRegistry() {
  DialectRegistry registry;
  registerNibbleDialects(registry);
  return registry;
}

Session::Session() : context(makeRegistry(), MLIRContext::Threading::DISABLED) {
  printDiagnostics(context);
}

int nibble::fail(const llvm::Twine &message) {
  llvm::errs() << "error: " << message << "\n";
  return ExitFailure;
}

uint64_t nibble::getFileSize(StringRef path) {
  uint64_t size = 0, data = 0;
  (void)llvm::sys::fs::file_size(path, size);
  if (!llvm::sys::fs::file_size(path + ".data", data))
    size += data;
  return size;
}
