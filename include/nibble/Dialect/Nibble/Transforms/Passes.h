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
/// Attribute of a nibble.assemble: the squared error of what the weight
/// computes from the calibration data, relative to what the float weight
/// computes.
inline constexpr llvm::StringLiteral kOutputErrorAttrName =
    "nibble.output_error";
/// The same for rounding to nearest, and for what was chosen, with the damping
/// that the algorithm works with.
inline constexpr llvm::StringLiteral kLossesAttrName = "nibble.losses";
/// Attribute of a nibble.assemble: what was added to the Hessian's diagonal, as
/// a fraction of its mean.
inline constexpr llvm::StringLiteral kDampingAttrName = "nibble.damping";
/// Attribute of a nibble.assemble: where its algorithm departed from the plain
/// method, in words.
inline constexpr llvm::StringLiteral kNotesAttrName = "nibble.notes";
/// Attribute of a nibble.assemble: seconds that the algorithm took.
inline constexpr llvm::StringLiteral kSecondsAttrName = "nibble.seconds";
/// Attribute of a nibble.observe: what is to be measured of its operand.
inline constexpr llvm::StringLiteral kStatisticsAttrName = "nibble.statistics";
/// Attribute of a module: the ids of its probes, by their number.
inline constexpr llvm::StringLiteral kObserversAttrName = "nibble.observers";

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
