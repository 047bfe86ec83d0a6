//===- Convert.cpp - nibble convert ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Session.h"
#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Pipelines/Pipelines.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Pass/PassManager.h"

using namespace mlir;
using namespace nibble;

int nibble::convert(const ConvertCommand &command) {
  Session session;
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  if (isOnnxFile(command.output)) {
    // An explicit format rewrites quantized ops; auto leaves them as they are.
    PassManager passes(&session.getContext(), ModuleOp::getOperationName());
    if (command.format != "auto")
      buildRaisePipeline(passes);
    ConvertNibbleToOnnxOptions options;
    options.format = command.format;
    passes.addPass(createConvertNibbleToOnnx(options));
    if (failed(passes.run(*module)))
      return ExitFailure;
  }
  ExportOptions options;
  options.externalData = command.externalData;
  return failed(saveModel(*module, command.output, options)) ? ExitFailure
                                                             : ExitSuccess;
}
