//===- NibbleToOnnx.h - Quantized tensors to ONNX's ops ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_NIBBLETOONNX_H
#define NIBBLE_CONVERSION_NIBBLETOONNX_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace nibble {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "nibble/Conversion/NibbleToOnnx.h.inc"

} // namespace nibble

#endif // NIBBLE_CONVERSION_NIBBLETOONNX_H
