//===- nibble-reduce.cpp - The smallest program that still fails ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/Registration.h"

#include "mlir/IR/DialectRegistry.h"
#include "mlir/IR/MLIRContext.h"
#include "mlir/Tools/mlir-reduce/MlirReduceMain.h"

int main(int argc, char **argv) {
  mlir::DialectRegistry registry;
  nibble::registerAllDialects(registry);
  nibble::registerAllPasses();
  mlir::MLIRContext context(registry);
  return failed(mlir::mlirReduceMain(argc, argv, context));
}
