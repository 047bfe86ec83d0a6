//===- Passes.h - Passes over the onnx dialect ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_H
#define NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_H

#include "mlir/Pass/Pass.h"

namespace nibble::onnx {

#define GEN_PASS_DECL
#define GEN_PASS_REGISTRATION
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_H
