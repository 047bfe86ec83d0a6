//===- Gpu.cpp - Models as code for a GPU and its host --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Gpu.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Pipelines/Reference.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace nibble;

void nibble::buildGpuTensorPipeline(OpPassManager &passes,
                                    const GpuOptions &options) {
  buildGraphPipeline(passes);
  passes.addPass(createConvertOnnxToLinalg());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  // {func, linalg, math, scf, tensor, arith, nibble}
  if (options.tensorCores)
    passes.addPass(createPackFragments());
  buildFusionPipeline(passes);
  passes.addPass(createExternalizeWeights());
  // {func, linalg, math, scf, tensor, arith}
}

void nibble::buildGpuLaunchPipeline(OpPassManager &passes,
                                    const GpuOptions &options) {
  buildBufferPipeline(passes);
  passes.addPass(createLowerCopies());
  // {func, linalg, math, scf, memref, arith}
  LaunchKernelsOptions kernels;
  kernels.target = options.target;
  passes.addPass(createLaunchKernels(kernels));
  passes.addPass(createLowerChecks());
  passes.addPass(createPlaceBuffers());
  // {func, linalg, math, scf, memref, arith, llvm}
}

/// The host's part, without the kernels.
static void buildHostPipeline(OpPassManager &passes,
                              const GpuOptions &options) {
  buildLoopPipeline(passes);
  LowerMicroOpsOptions microOps;
  microOps.target = options.host;
  passes.addPass(createLowerMicroOps(microOps));
  buildLLVMPipeline(passes);
}

LogicalResult nibble::lowerToTensors(ModuleOp module,
                                     const GpuOptions &options) {
  PassManager passes(module.getContext());
  configureVerifier(passes);
  buildGpuTensorPipeline(passes, options);
  return passes.run(module);
}

FailureOr<DeviceProgram> nibble::lowerToLLVM(ModuleOp module,
                                             const GpuOptions &options) {
  PassManager launches(module.getContext());
  configureVerifier(launches);
  buildGpuLaunchPipeline(launches, options);
  if (failed(launches.run(module)))
    return failure();
  DeviceProgram program = takeDeviceProgram(module);
  PassManager host(module.getContext());
  configureVerifier(host);
  buildHostPipeline(host, options);
  if (failed(host.run(module)))
    return failure();
  return program;
}

void nibble::registerGpuPipeline() {
  PassPipelineRegistration<GpuOptions>(
      "nibble-gpu", "ONNX and nibble to launches of kernels for a GPU",
      [](OpPassManager &passes, const GpuOptions &options) {
        buildGpuTensorPipeline(passes, options);
        buildGpuLaunchPipeline(passes, options);
      });
}
