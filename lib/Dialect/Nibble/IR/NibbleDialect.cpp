//===- NibbleDialect.cpp - The nibble dialect -----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

using namespace nibble;

#include "nibble/Dialect/Nibble/IR/NibbleDialect.cpp.inc"

void NibbleDialect::initialize() {
  registerAttributes();
  addOperations<
#define GET_OP_LIST
#include "nibble/Dialect/Nibble/IR/NibbleOps.cpp.inc"
      >();
}
