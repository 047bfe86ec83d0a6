//===- Round.h - Round weights to the nearest codes -------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_ROUND_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_ROUND_H

#include "nibble/Numerics/BlockQuantizer.h"

#include "mlir/IR/BuiltinOps.h"

namespace nibble {

/// Called before each weight is rounded: its name and its number of elements.
using RoundProgress =
    llvm::function_ref<void(llvm::StringRef name, int64_t elements)>;

/// What --nibble-round does, for callers who show progress. Returns the number
/// of weights that were rounded.
mlir::FailureOr<unsigned> roundWeights(mlir::ModuleOp module,
                                       ScaleSearch search, unsigned threads,
                                       RoundProgress progress = nullptr);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_ROUND_H
