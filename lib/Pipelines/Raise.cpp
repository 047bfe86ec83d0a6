//===- Raise.cpp - From quantized ops to quantized tensors ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Pipelines.h"

#include "nibble/Conversion/OnnxToNibble.h"

#include "mlir/Pass/PassManager.h"

void nibble::buildRaisePipeline(mlir::OpPassManager &passes) {
  passes.addPass(createConvertOnnxToNibble());
}
