//===- NibbleRegistration.cpp - Nibble's dialects and passes --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Tools/Registration.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/DialectRegistry.h"

void nibble::registerNibbleDialects(mlir::DialectRegistry &registry) {
  registry.insert<NibbleDialect, onnx::OnnxDialect, mlir::func::FuncDialect>();
}

void nibble::registerNibblePasses() {
  registerNibbleToOnnxPasses();
  registerNibbleTransformsPasses();
  onnx::registerOnnxTransformsPasses();
}
