//===- DeviceMath.h - Functions that GPUs have no code for ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_DEVICEMATH_H
#define NIBBLE_LIB_TARGET_NVVM_DEVICEMATH_H

#include "mlir/IR/BuiltinOps.h"

namespace nibble {

/// Functions of f32 become polynomials, without a library, that give the same
/// bits on every chip and in the simulator. They err by a few units in the last
/// place; a power by as many more as its result has binary digits before the
/// point.
llvm::LogicalResult expandDeviceMath(mlir::ModuleOp module);

} // namespace nibble

#endif // NIBBLE_LIB_TARGET_NVVM_DEVICEMATH_H
