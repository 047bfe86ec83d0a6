//===- PassRegistration.cpp - Nibble's passes -----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Apart from the dialects, so that a program that links MLIR statically does
// not carry every pass.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Conversion/OnnxToNibble.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Pipelines/Cpu.h"
#include "nibble/Pipelines/Gpu.h"
#include "nibble/Pipelines/Reference.h"
#include "nibble/Tools/Registration.h"

void nibble::registerNibblePasses() {
  registerConversionPasses();
  registerNibbleToOnnxPasses();
  registerOnnxToNibblePasses();
  registerNibbleTransformsPasses();
  onnx::registerOnnxTransformsPasses();
  registerCpuPipeline();
  registerGpuPipeline();
  registerReferencePipeline();
}
