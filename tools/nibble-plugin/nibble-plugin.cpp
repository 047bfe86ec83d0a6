//===- nibble-plugin.cpp - Nibble inside stock mlir-opt -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
//   mlir-opt --load-dialect-plugin=NibblePlugin.so
//            --pass-pipeline='builtin.module(...)' file.mlir
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/Registration.h"

#include "mlir/IR/DialectRegistry.h"
#include "mlir/Tools/Plugins/DialectPlugin.h"
#include "mlir/Tools/Plugins/PassPlugin.h"
#include "llvm/Config/llvm-config.h"

extern "C" LLVM_ATTRIBUTE_WEAK mlir::DialectPluginLibraryInfo
mlirGetDialectPluginInfo() {
  // mlir-opt reads its pipeline before it asks a pass plugin for passes, so
  // they come with the dialects.
  return {MLIR_PLUGIN_API_VERSION, "Nibble", LLVM_VERSION_STRING,
          [](mlir::DialectRegistry *registry) {
            nibble::registerNibbleDialects(*registry);
            nibble::registerNibblePasses();
          }};
}

extern "C" LLVM_ATTRIBUTE_WEAK mlir::PassPluginLibraryInfo
mlirGetPassPluginInfo() {
  return {MLIR_PLUGIN_API_VERSION, "Nibble", LLVM_VERSION_STRING,
          nibble::registerNibblePasses};
}
