//===- Convert.cpp - nibble convert ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Session.h"
#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Pipelines/Pipelines.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Pass/PassManager.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"

using namespace mlir;
using namespace nibble;

/// Reads nodes as quantized tensors, and says which stay as they are.
static LogicalResult readQuantizedNodes(ModuleOp module) {
  PassManager passes(module.getContext(), ModuleOp::getOperationName());
  buildRaisePipeline(passes);
  if (failed(passes.run(module)))
    return failure();
  module.walk([](onnx::NodeOp node) {
    if (auto why = node->getAttrOfType<StringAttr>(kKeptAttrName))
      llvm::errs() << "warning: node '" << node.getDisplayName() << "' ("
                   << node.getOpType() << ") stays as it is: " << why.getValue()
                   << "\n";
  });
  return success();
}

int nibble::convert(const ConvertCommand &command) {
  Session session;
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  if (isOnnxFile(command.output)) {
    // An explicit format rewrites quantized ops; auto leaves them as they are.
    if (command.format != "auto" && failed(readQuantizedNodes(*module)))
      return ExitFailure;
    PassManager passes(&session.getContext(), ModuleOp::getOperationName());
    ConvertNibbleToOnnxOptions options;
    options.format = command.format;
    passes.addPass(createNibbleSplitSparseOutliers());
    passes.addPass(createConvertNibbleToOnnx(options));
    if (failed(passes.run(*module)))
      return ExitFailure;
  }
  ExportOptions options;
  options.externalData = command.externalData;
  if (failed(saveModel(*module, command.output, options)))
    return ExitFailure;
  if (command.json) {
    llvm::json::Object object{{"input", command.input},
                              {"output", command.output}};
    uint64_t bytes = 0;
    if (!llvm::sys::fs::file_size(command.output, bytes))
      object["output_bytes"] = bytes;
    llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
                 << "\n";
  }
  return ExitSuccess;
}
