//===- Passes.h - Passes that decide how weights are stored -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_PASSES_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_PASSES_H

#include "nibble/Dialect/Nibble/IR/NibbleDialect.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/Pass.h"

namespace nibble {

/// Attribute of an onnx.constant: the encoding that it will be rounded to.
inline constexpr llvm::StringLiteral kEncodingAttrName = "nibble.encoding";
/// Attribute of an onnx.node: why its weight stays as it is.
inline constexpr llvm::StringLiteral kKeptAttrName = "nibble.kept";
/// Attribute of a nibble.assemble: signal-to-noise ratio of the weight in dB.
inline constexpr llvm::StringLiteral kSqnrAttrName = "nibble.sqnr";

/// Attributes of an onnx.node, a product with a constant weight: the least and
/// largest number of its input and of its result; the mean of each channel of
/// its input, and what its float weights make of them.
inline constexpr llvm::StringLiteral kInputRangeAttrName = "nibble.input_range";
inline constexpr llvm::StringLiteral kOutputRangeAttrName =
    "nibble.output_range";
inline constexpr llvm::StringLiteral kInputMeansAttrName = "nibble.input_means";
inline constexpr llvm::StringLiteral kMeanProductsAttrName =
    "nibble.mean_products";

#define GEN_PASS_DECL
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_PASSES_H
