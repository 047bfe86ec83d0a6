//===- OutlinedOps.h - Ops on buffers as functions of their own -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_OUTLINEDOPS_H
#define NIBBLE_CONVERSION_OUTLINEDOPS_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/PatternMatch.h"
#include "llvm/ADT/StringMap.h"

namespace nibble {

/// `op` as a linalg.generic, which replaces it; null where it has no such form.
mlir::linalg::GenericOp generalize(mlir::RewriterBase &rewriter,
                                   mlir::linalg::LinalgOp op);

/// What an op and the ops in it read from outside.
struct OutsideValues {
  llvm::SmallVector<mlir::Value> arguments;
  /// Those whose ops are repeated in a function.
  llvm::SmallVector<mlir::Value> constants;
};

/// `repeatsGlobals`: buffers of constants count as constants too.
OutsideValues collectOutsideValues(mlir::Operation *op, bool repeatsGlobals);

/// A private function that is not inlined, with an end and no results.
mlir::func::FuncOp createOutlinedFunction(mlir::Location loc,
                                          llvm::StringRef name,
                                          mlir::TypeRange arguments);

/// Functions that do what one op does, each once.
class OutlinedFunctions {
public:
  struct Outlined {
    mlir::func::FuncOp function;
    /// The copy of the op in a new function, which is in no module yet; null
    /// where the function was known.
    mlir::Operation *copy;
  };
  /// The function (arguments…) with a copy of `op`.
  Outlined outline(mlir::Operation *op, const OutsideValues &outside,
                   llvm::StringRef name);
  void clear() { known.clear(); }

private:
  /// By their text.
  llvm::StringMap<mlir::func::FuncOp> known;
};

/// Copies what `op` computes for one round of its loops, where `mapping` has
/// the arguments of its body and `positions` the numbers of its loops. Returns
/// the results.
llvm::SmallVector<mlir::Value> copyBody(mlir::OpBuilder &builder,
                                        mlir::linalg::GenericOp op,
                                        mlir::IRMapping &mapping,
                                        llvm::ArrayRef<mlir::Value> positions);

} // namespace nibble

#endif // NIBBLE_CONVERSION_OUTLINEDOPS_H
