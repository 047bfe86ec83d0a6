//===- Cpu.cpp - Models as fast code for a processor ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Cpu.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Pipelines/Reference.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace nibble;

void nibble::buildCpuTensorPipeline(OpPassManager &passes,
                                    const CpuOptions &options) {
  passes.addPass(createNibbleSplitSparseOutliers());
  buildGraphPipeline(passes);
  passes.addPass(onnx::createOnnxFuseSparseProducts());
  passes.addPass(createConvertOnnxToLinalg());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  // {func, linalg, math, scf, tensor, arith, nibble}
  if (options.compute == "i8")
    passes.addPass(createSumIntegers());
  PackWeightsOptions pack;
  pack.compute = options.compute;
  passes.addPass(createPackWeights(pack));
  if (options.observe)
    passes.addPass(createNibbleCallObservers());
  buildFusionPipeline(passes);
  // {func, linalg, math, scf, tensor, arith, nibble.packed_matmul}
  if (options.externalizeWeights)
    passes.addPass(createExternalizeWeights());
}

void nibble::buildCpuLoopPipeline(OpPassManager &passes,
                                  const CpuOptions &options) {
  buildBufferPipeline(passes);
  // {func, linalg, math, scf, memref, arith, nibble.packed_matmul}
  LowerKernelsOptions kernels;
  kernels.target = options.target;
  passes.addPass(createLowerKernels(kernels));
  passes.addPass(createRelaxMath());
  passes.addPass(createLowerCopies());
  passes.addPass(createLowerLoops());
  buildLoopPipeline(passes);
  // {func, math, scf, memref, arith, vector, nibble micro-ops}
  LowerMicroOpsOptions microOps;
  microOps.target = options.target;
  passes.addPass(createLowerMicroOps(microOps));
  if (options.threads)
    passes.addPass(createConvertSCFToOpenMPPass());
  buildLLVMPipeline(passes);
  // {llvm}
}

LogicalResult nibble::lowerToTensors(ModuleOp module, const CpuOptions &options,
                                     bool reference) {
  PassManager passes(module.getContext());
  configureVerifier(passes);
  ReferenceOptions slow;
  slow.observe = options.observe;
  if (reference)
    buildReferenceTensorPipeline(passes, slow);
  else
    buildCpuTensorPipeline(passes, options);
  return passes.run(module);
}

LogicalResult nibble::lowerToLLVM(ModuleOp module, const CpuOptions &options,
                                  bool reference) {
  PassManager passes(module.getContext());
  configureVerifier(passes);
  if (reference)
    buildReferenceLoopPipeline(passes);
  else
    buildCpuLoopPipeline(passes, options);
  return passes.run(module);
}

void nibble::registerCpuPipeline() {
  PassPipelineRegistration<CpuOptions>(
      "nibble-cpu", "ONNX and nibble to fast code for a CPU in LLVM",
      [](OpPassManager &passes, const CpuOptions &options) {
        buildCpuTensorPipeline(passes, options);
        buildCpuLoopPipeline(passes, options);
      });
}
