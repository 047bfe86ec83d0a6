//===- Raise.cpp - From quantized ops to quantized tensors ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Pipelines/Pipelines.h"

void nibble::buildRaisePipeline(mlir::OpPassManager &passes) {}
