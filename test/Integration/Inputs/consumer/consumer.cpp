//===- consumer.cpp - A program outside of Nibble that builds on it -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Tools/Registration.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/Support/raw_ostream.h"

int main() {
  mlir::DialectRegistry registry;
  nibble::registerNibbleDialects(registry);
  mlir::MLIRContext context(registry);
  context.loadAllAvailableDialects();
  auto storage =
      nibble::StorageAttr::getInteger(&context, 4, /*isSigned=*/false);
  auto encoding = nibble::QuantizedAttr::get(
      storage, {32, 1}, mlir::TypeAttr::get(mlir::Float16Type::get(&context)),
      storage);
  auto type = mlir::RankedTensorType::get(
      {100, 64}, mlir::Float32Type::get(&context), encoding);
  llvm::outs() << type << "\n" << nibble::getScalesType(type) << "\n";
  return 0;
}
