//===- NibbleRegistration.cpp - Nibble's dialects -------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Tools/Registration.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/DialectRegistry.h"

void nibble::registerNibbleDialects(mlir::DialectRegistry &registry) {
  registry.insert<NibbleDialect, onnx::OnnxDialect, mlir::func::FuncDialect>();
}
