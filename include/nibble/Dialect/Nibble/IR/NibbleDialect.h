//===- NibbleDialect.h - The nibble dialect ---------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_H
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_H

#include "mlir/IR/Dialect.h"

#include "nibble/Dialect/Nibble/IR/NibbleDialect.h.inc"

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_H
