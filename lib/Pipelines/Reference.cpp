//===- Reference.cpp - The executable truth, as a pipeline ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Reference.h"

#include "nibble/Conversion/OnnxToNibble.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Bufferization/Pipelines/Passes.h"
#include "mlir/Dialect/Bufferization/Transforms/Passes.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/Transforms/Passes.h"
#include "mlir/Dialect/Linalg/Passes.h"
#include "mlir/Dialect/MemRef/Transforms/Passes.h"
#include "mlir/Pass/PassRegistry.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;
using namespace nibble;

void nibble::buildShapesPipeline(OpPassManager &passes, bool updateCaches) {
  passes.addPass(onnx::createOnnxInlineFunctions());
  passes.addPass(onnx::createOnnxChooseBranches());
  passes.addPass(onnx::createOnnxInferShapes());
  if (updateCaches)
    passes.addPass(onnx::createOnnxUpdateCaches());
  // {func, onnx}
}

void nibble::buildGraphPipeline(OpPassManager &passes) {
  buildShapesPipeline(passes);
  passes.addPass(onnx::createOnnxFoldConstants());
  // Shapes that were known only after folding.
  passes.addPass(onnx::createOnnxInferShapes());
  passes.addPass(createConvertOnnxToNibble());
  // {func, onnx, nibble}
}

void nibble::buildReferenceTensorPipeline(OpPassManager &passes,
                                          const ReferenceOptions &options) {
  buildGraphPipeline(passes);
  passes.addPass(createConvertOnnxToLinalg());
  // {func, linalg, math, scf, tensor, arith, nibble}
  if (options.observe)
    passes.addPass(createNibbleCallObservers());
  passes.addPass(createLowerNibbleToReference());
  passes.addPass(createReconcileUnrealizedCastsPass());
  // {func, linalg, math, scf, tensor, arith}
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  if (options.externalizeWeights)
    passes.addPass(createExternalizeWeights());
}

void nibble::buildFusionPipeline(OpPassManager &passes) {
  passes.addPass(createLowerNibbleToReference());
  passes.addPass(createReconcileUnrealizedCastsPass());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  passes.addNestedPass<func::FuncOp>(createFuseElementwise());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
}

void nibble::buildBufferPipeline(OpPassManager &passes) {
  passes.addPass(createSeparateDestinations());
  bufferization::OneShotBufferizePassOptions bufferize;
  bufferize.bufferizeFunctionBoundaries = true;
  // What a loop carries may change its size.
  bufferize.allowReturnAllocsFromLoops = true;
  bufferize.functionBoundaryTypeConversion =
      bufferization::LayoutMapOption::IdentityLayoutMap;
  passes.addPass(bufferization::createOneShotBufferizePass(bufferize));
  passes.addPass(createCanonicalizerPass());
  // Results never share a buffer with arguments, constants or each other.
  bufferization::BufferDeallocationPipelineOptions deallocation;
  bufferization::buildBufferDeallocationPipeline(passes, deallocation);
  passes.addPass(createConvertBufferizationToMemRefPass());
  // A buffer is freed after its last use, not at the end of the function.
  passes.addNestedPass<func::FuncOp>(
      bufferization::createOptimizeAllocationLivenessPass());
  passes.addNestedPass<func::FuncOp>(LLVM::createLLVMRequestCWrappersPass());
  // {func, linalg, math, scf, memref, arith}
}

void nibble::buildLoopPipeline(OpPassManager &passes) {
  passes.addPass(createLowerCopies());
  passes.addNestedPass<func::FuncOp>(createConvertLinalgToLoopsPass());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  // {func, math, scf, memref, arith}
  passes.addPass(createOutlineLoops());
  passes.addPass(createLowerChecks());
}

void nibble::buildLLVMPipeline(OpPassManager &passes) {
  passes.addPass(createReturnByAddress());
  passes.addPass(memref::createExpandStridedMetadataPass());
  passes.addPass(createLowerAffinePass());
  passes.addPass(createConvertVectorToSCFPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertVectorToLLVMPass());
  // The host's libm has what is no LLVM intrinsic.
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createConvertMathToLibmPass());
  passes.addPass(memref::createExpandOpsPass());
  passes.addPass(arith::createArithExpandOpsPass());
  passes.addPass(createConvertFuncToLLVMPass());
  passes.addPass(createConvertIndexToLLVMPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  FinalizeMemRefToLLVMConversionPassOptions buffers;
  buffers.useGenericFunctions = true;
  passes.addPass(createFinalizeMemRefToLLVMConversionPass(buffers));
  passes.addPass(createConvertOpenMPToLLVMPass());
  passes.addPass(createUBToLLVMConversionPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  // {llvm}
}

void nibble::buildReferenceLoopPipeline(OpPassManager &passes) {
  buildBufferPipeline(passes);
  buildLoopPipeline(passes);
  buildLLVMPipeline(passes);
}

void nibble::configureVerifier(PassManager &passes) {
#ifdef NDEBUG
  passes.enableVerifier(false);
#else
  (void)passes;
#endif
}

void nibble::registerReferencePipeline() {
  PassPipelineRegistration<ReferenceOptions>(
      "nibble-reference",
      "ONNX and nibble to plain loops in LLVM: the executable truth",
      [](OpPassManager &passes, const ReferenceOptions &options) {
        buildReferenceTensorPipeline(passes, options);
        buildReferenceLoopPipeline(passes);
      });
}
