//===- Assign.cpp - From a graph to a plan --------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Pipelines.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"

using namespace nibble;

void nibble::buildFoldPipeline(mlir::OpPassManager &passes) {
  passes.addPass(onnx::createOnnxInferShapes());
  passes.addPass(onnx::createOnnxFoldConstants());
  passes.addPass(onnx::createOnnxFoldAffine());
  passes.addPass(onnx::createOnnxInferShapes());
}

void nibble::buildAssignPipeline(mlir::OpPassManager &passes,
                                 const AssignOptions &options) {
  passes.addPass(onnx::createOnnxInferShapes());
  passes.addPass(onnx::createOnnxFoldConstants());
  // Shapes that were known only after folding.
  passes.addPass(onnx::createOnnxInferShapes());
  NibbleAssignSchemesOptions assign;
  assign.scheme = options.scheme;
  assign.rules.assign(options.rules.begin(), options.rules.end());
  passes.addPass(createNibbleAssignSchemes(assign));
}
