//===- OptMain.cpp - nibble-opt -------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/OptMain.h"
#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"

#include "mlir/IR/DialectRegistry.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Tools/mlir-opt/MlirOptMain.h"
#include "llvm/Support/InitLLVM.h"

using namespace mlir;

/// Runs the pass pipeline of the command line between ONNX files.
static LogicalResult runOnModels(StringRef input, StringRef output,
                                 const MlirOptMainConfig &config,
                                 const DialectRegistry &registry) {
  MLIRContext context(registry);
  nibble::printDiagnostics(context);
  OwningOpRef<ModuleOp> module = nibble::loadModel(input, &context);
  if (!module)
    return failure();
  PassManager passes(&context, module.get()->getName().getStringRef());
  if (failed(applyPassManagerCLOptions(passes)) ||
      failed(config.setupPassPipeline(passes)) || failed(passes.run(*module)))
    return failure();
  return nibble::saveModel(*module, output, {}, config.shouldEmitBytecode());
}

int nibble::optMain(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  DialectRegistry registry;
  registerAllDialects(registry);
  registerAllPasses();
  auto [input, output] = registerAndParseCLIOptions(
      argc, argv, "Nibble's passes on .mlir, .mlirbc and .onnx files",
      registry);
  if (!isOnnxFile(input) && !isOnnxFile(output))
    return asMainReturnCode(MlirOptMain(argc, argv, input, output, registry));
  return asMainReturnCode(runOnModels(
      input, output, MlirOptMainConfig::createFromCLOptions(), registry));
}
