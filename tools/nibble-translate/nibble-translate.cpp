//===- nibble-translate.cpp - ONNX to and from MLIR -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/Import.h"
#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/InitLLVM.h"

using namespace nibble;
namespace cl = llvm::cl;

static cl::OptionCategory category("nibble-translate options");
static cl::opt<std::string> input(cl::Positional, cl::Required,
                                  cl::desc("<input file>"), cl::cat(category));
static cl::opt<std::string>
    output("o", cl::init("-"), cl::desc("Output file ('-': standard output)"),
           cl::value_desc("file"), cl::cat(category));
enum class Direction { Import, Export };
static cl::opt<Direction> direction(
    cl::desc("What to do:"), cl::Required, cl::cat(category),
    cl::values(clEnumValN(Direction::Import, "import-onnx",
                          "an ONNX model to MLIR (.mlirbc: bytecode)"),
               clEnumValN(Direction::Export, "export-onnx",
                          "MLIR, text or bytecode, to an ONNX model")));
static cl::opt<ExternalData> externalData(
    "external-data", cl::init(ExternalData::Auto), cl::cat(category),
    cl::desc("Where the weights of an ONNX model go:"),
    cl::values(clEnumValN(ExternalData::Never, "never", "into the model"),
               clEnumValN(ExternalData::Auto, "auto",
                          "beside it where they were, or past 2 GiB (default)"),
               clEnumValN(ExternalData::Always, "always",
                          "beside it, in <model>.data")));

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(argc, argv, "ONNX to and from MLIR\n");

  mlir::DialectRegistry registry;
  registerNibbleDialects(registry);
  mlir::MLIRContext context(registry, mlir::MLIRContext::Threading::DISABLED);
  printDiagnostics(context);
  bool imports = direction == Direction::Import;
  auto module =
      imports ? importOnnx(input, &context) : loadModel(input, &context);
  if (!module)
    return 1;
  ExportOptions options;
  options.externalData = externalData;
  mlir::LogicalResult saved = imports ? saveModel(*module, output)
                                      : exportOnnx(*module, output, options);
  return mlir::failed(saved);
}
