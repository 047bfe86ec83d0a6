//===- OnnxToNibble.h - ONNX's quantized ops to nibble -----------*- C++
//-*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_ONNXTONIBBLE_H
#define NIBBLE_CONVERSION_ONNXTONIBBLE_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace nibble {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "nibble/Conversion/OnnxToNibble.h.inc"

} // namespace nibble

#endif // NIBBLE_CONVERSION_ONNXTONIBBLE_H
