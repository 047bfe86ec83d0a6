//===- Reference.h - The executable truth, as a pipeline --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_PIPELINES_REFERENCE_H
#define NIBBLE_PIPELINES_REFERENCE_H

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace nibble {

struct ReferenceOptions : mlir::PassPipelineOptions<ReferenceOptions> {
  Option<bool> externalizeWeights{
      *this, "externalize-weights",
      llvm::cl::desc("Make large constants arguments of the main function"),
      llvm::cl::init(true)};
  Option<bool> observe{
      *this, "observe",
      llvm::cl::desc("Let calibration probes call the runtime"),
      llvm::cl::init(false)};
};

/// {func, onnx} ⇒ {func, onnx}: a graph whose types are known, without local
/// functions and choices that are known; with `updateCaches`, the caches that
/// grow are buffers that a run changes.
void buildShapesPipeline(mlir::OpPassManager &passes,
                         bool updateCaches = false);

/// {func, onnx} ⇒ {func, onnx, nibble}: a graph whose types are known, with
/// quantized ops in the nibble dialect and no local functions.
void buildGraphPipeline(mlir::OpPassManager &passes);

/// {func, onnx, nibble} ⇒ {func, linalg, math, scf, tensor, arith}: the meaning
/// of a model, as tensors. Arguments of `main` that hold weights have the
/// attribute `nibble.weight`.
void buildReferenceTensorPipeline(mlir::OpPassManager &passes,
                                  const ReferenceOptions &options);

/// What buildReferenceTensorPipeline gives ⇒ {llvm}: plain loops over buffers,
/// with a C interface for `main`. Results are fresh buffers of the runtime,
/// which errors go through too (nibble/Runtime/Run.h).
void buildReferenceLoopPipeline(mlir::OpPassManager &passes);

//===--- Parts that other pipelines share ----------------------------------===

/// Ops of the nibble dialect that have no kernels ⇒ loops on tensors, fused.
void buildFusionPipeline(mlir::OpPassManager &passes);
/// Tensors ⇒ buffers, each freed after its last use.
void buildBufferPipeline(mlir::OpPassManager &passes);
/// linalg ⇒ loops, each nest of `main` a function; checks ⇒ calls.
void buildLoopPipeline(mlir::OpPassManager &passes);
/// ⇒ {llvm}
void buildLLVMPipeline(mlir::OpPassManager &passes);

/// Verifies after each pass only where assertions are, which is where a pass
/// that breaks the IR is found: it takes a tenth of the time of a large model.
void configureVerifier(mlir::PassManager &passes);

/// Registers both, one after the other, as `nibble-reference`.
void registerReferencePipeline();

} // namespace nibble

#endif // NIBBLE_PIPELINES_REFERENCE_H
