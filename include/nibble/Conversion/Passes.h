//===- Passes.h - Conversions between dialects ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_PASSES_H
#define NIBBLE_CONVERSION_PASSES_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

#include <vector>

namespace nibble {

/// The attribute of an argument of `main` that was a constant, with its value.
inline constexpr llvm::StringLiteral kWeightAttrName = "nibble.weight";

#define GEN_PASS_DECL
#include "nibble/Conversion/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "nibble/Conversion/Passes.h.inc"

/// The nodes of a model, without local functions, that --convert-onnx-to-linalg
/// has no conversion for.
std::vector<onnx::NodeOp> findUnsupportedNodes(mlir::ModuleOp module);

} // namespace nibble

#endif // NIBBLE_CONVERSION_PASSES_H
