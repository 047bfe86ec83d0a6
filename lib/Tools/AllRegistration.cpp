//===- AllRegistration.cpp - Upstream's dialects and passes too -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The one file that includes upstream's InitAll headers: they take twenty
// seconds to compile.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/BufferizableOpInterfaceImpl.h"
#include "nibble/Tools/Registration.h"

#include "mlir/InitAllDialects.h"
#include "mlir/InitAllExtensions.h"
#include "mlir/InitAllPasses.h"
#include "mlir/Target/LLVMIR/Dialect/All.h"

void nibble::registerAllDialects(mlir::DialectRegistry &registry) {
  mlir::registerAllDialects(registry);
  mlir::registerAllExtensions(registry);
  mlir::registerAllToLLVMIRTranslations(registry);
  registerNibbleDialects(registry);
  nibble::registerBufferizableOpInterfaceExternalModels(registry);
}

void nibble::registerAllPasses() {
  mlir::registerAllPasses();
  registerNibblePasses();
}
