//===- ModelFile.cpp - Models from and to files ---------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/ModelFile.h"

#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Onnx/Import.h"
#include "nibble/Support/OutputFile.h"

#include "mlir/Bytecode/BytecodeWriter.h"
#include "mlir/IR/AsmState.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"

using namespace mlir;
using namespace nibble;

bool nibble::isOnnxFile(StringRef path) { return path.ends_with(".onnx"); }

/// Whether a file of another name than .onnx seems to hold such a model: it
/// begins with the tag of a field, where text and bytecode have a letter.
static bool beginsLikeOnnx(StringRef path) {
  if (path == "-" || path.ends_with(".mlir") || path.ends_with(".mlirbc"))
    return false;
  auto start = llvm::MemoryBuffer::getFileSlice(path, /*MapSize=*/1, 0);
  return start && !(*start)->getBuffer().empty() &&
         !llvm::isPrint((*start)->getBuffer()[0]) &&
         !llvm::isSpace((*start)->getBuffer()[0]);
}

OwningOpRef<ModuleOp> nibble::loadModel(StringRef path, MLIRContext *context) {
  if (isOnnxFile(path) || beginsLikeOnnx(path))
    return importOnnx(path, context);
  // Bytecode is mapped: its blobs stay in the file.
  auto buffer =
      path == "-"
          ? llvm::MemoryBuffer::getSTDIN()
          : llvm::MemoryBuffer::getFile(path, /*IsText=*/false,
                                        /*RequiresNullTerminator=*/true);
  if (!buffer) {
    emitError(UnknownLoc::get(context))
        << "cannot read '" << path << "': " << buffer.getError().message();
    return nullptr;
  }
  auto sources = std::make_shared<llvm::SourceMgr>();
  sources->AddNewSourceBuffer(std::move(*buffer), llvm::SMLoc());
  return parseSourceFile<ModuleOp>(sources, ParserConfig(context));
}

LogicalResult nibble::saveModel(ModuleOp module, StringRef path,
                                const ExportOptions &options, bool bytecode) {
  if (isOnnxFile(path)) {
    // What is still in the nibble dialect has no form in the file.
    PassManager passes(module.getContext(), ModuleOp::getOperationName());
    passes.addPass(createConvertNibbleToOnnx());
    if (failed(passes.run(module)))
      return failure();
    return exportOnnx(module, path, options);
  }
  auto fail = [&](llvm::Error error) {
    return module.emitError(llvm::toString(std::move(error)));
  };
  auto file = OutputFile::create(path);
  if (!file)
    return fail(file.takeError());
  llvm::raw_ostream &os = (*file)->getStream();
  if (bytecode || path.ends_with(".mlirbc")) {
    if (failed(writeBytecodeToFile(module, os)))
      return module.emitError("cannot be written as bytecode");
  } else {
    module->print(os);
    os << "\n";
  }
  if (llvm::Error error = (*file)->commit())
    return fail(std::move(error));
  return success();
}

/// "m.onnx: error: node 'fc1': …"
static void printDiagnostic(const Diagnostic &diagnostic,
                            llvm::raw_ostream &os) {
  Location loc = diagnostic.getLocation();
  std::string name;
  while (auto named = dyn_cast<NameLoc>(loc)) {
    if (name.empty())
      name = named.getName().str();
    loc = named.getChildLoc();
  }
  if (auto file = dyn_cast<FileLineColLoc>(loc)) {
    os << file.getFilename().getValue();
    if (file.getLine() != 0)
      os << ":" << file.getLine() << ":" << file.getColumn();
    os << ": ";
  } else if (!isa<UnknownLoc>(loc)) {
    os << loc << ": ";
  }
  switch (diagnostic.getSeverity()) {
  case DiagnosticSeverity::Error:
    os << "error: ";
    break;
  case DiagnosticSeverity::Warning:
    os << "warning: ";
    break;
  case DiagnosticSeverity::Remark:
    os << "remark: ";
    break;
  case DiagnosticSeverity::Note:
    os << "note: ";
    break;
  }
  if (!name.empty())
    os << "'" << name << "': ";
  os << diagnostic << "\n";
  for (const Diagnostic &note : diagnostic.getNotes())
    printDiagnostic(note, os);
}

void nibble::printDiagnostics(MLIRContext &context) {
  context.printOpOnDiagnostic(false);
  context.getDiagEngine().registerHandler([](Diagnostic &diagnostic) {
    printDiagnostic(diagnostic, llvm::errs());
    return success();
  });
}
