//===- Session.cpp - What the verbs share ---------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Session.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"

#include "mlir/IR/DialectRegistry.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/raw_ostream.h"

#include <set>

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

std::optional<std::string> nibble::findPython() {
  if (auto chosen = llvm::sys::Process::GetEnv("NIBBLE_PYTHON"))
    return chosen;
  if (auto found = llvm::sys::findProgramByName("python3"))
    return *found;
  return std::nullopt;
}

uint64_t nibble::getFileSize(StringRef path, ModuleOp module) {
  std::set<std::string> files = {path.str()};
  module.walk([&](onnx::ConstantOp constant) {
    if (auto file = dyn_cast<onnx::FileElementsAttr>(constant.getValue()))
      files.insert(file.getPath().str());
  });
  uint64_t total = 0;
  for (const std::string &file : files) {
    uint64_t size = 0;
    if (!llvm::sys::fs::file_size(file, size))
      total += size;
  }
  return total;
}
