//===- Cpu.cpp - A model as fast code for a CPU, as a pipeline ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Cpu.h"

#include "nibble/Pipelines/Reference.h"

#include "mlir/Pass/PassRegistry.h"

using namespace mlir;
using namespace nibble;

void nibble::buildCpuTensorPipeline(OpPassManager &passes,
                                    const CpuOptions &options) {
  ReferenceOptions reference;
  reference.externalizeWeights = options.externalizeWeights;
  buildReferenceTensorPipeline(passes, reference);
}

void nibble::buildCpuLoopPipeline(OpPassManager &passes,
                                  const CpuOptions &options) {
  buildReferenceLoopPipeline(passes);
}

void nibble::registerCpuPipeline() {
  PassPipelineRegistration<CpuOptions>(
      "nibble-cpu", "ONNX and nibble to fast code for a CPU in LLVM",
      [](OpPassManager &passes, const CpuOptions &options) {
        buildCpuTensorPipeline(passes, options);
        buildCpuLoopPipeline(passes, options);
      });
}
