//===- Passes.h - Conversions between dialects ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_PASSES_H
#define NIBBLE_CONVERSION_PASSES_H

#include "mlir/Pass/Pass.h"

namespace nibble {

/// The attribute of an argument of `main` that was a constant, with its value.
inline constexpr llvm::StringLiteral kWeightAttrName = "nibble.weight";

#define GEN_PASS_DECL
#include "nibble/Conversion/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "nibble/Conversion/Passes.h.inc"

} // namespace nibble

#endif // NIBBLE_CONVERSION_PASSES_H
