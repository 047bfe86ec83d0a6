//===- NibbleDialect.cpp - The nibble dialect -----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"

using namespace nibble;

#include "nibble/Dialect/Nibble/IR/NibbleDialect.cpp.inc"

void NibbleDialect::initialize() {}
