//===- LoopBuilder.h - Tensors computed element by element ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_LOOPBUILDER_H
#define NIBBLE_CONVERSION_LOOPBUILDER_H

#include "nibble/Conversion/ScalarBuilder.h"

#include "mlir/Dialect/Utils/StructuredOpsUtils.h"

namespace nibble {

using Sizes = llvm::SmallVector<mlir::OpFoldResult>;

/// The size of each dimension: a constant where it is static.
Sizes getSizes(mlir::OpBuilder &builder, mlir::Location loc,
               mlir::Value tensor);
mlir::OpFoldResult getSize(mlir::OpBuilder &builder, mlir::Location loc,
                           mlir::Value tensor, int64_t dimension);

/// An index value of a size.
mlir::Value toValue(mlir::OpBuilder &builder, mlir::Location loc,
                    mlir::OpFoldResult size);

/// A tensor whose element at `indices` is what `body` gives for them:
///
///   linalg.generic outs(tensor.empty(sizes)) { …; linalg.yield body(indices) }
mlir::Value buildTensor(
    mlir::OpBuilder &builder, mlir::Location loc,
    llvm::ArrayRef<mlir::OpFoldResult> sizes, mlir::Type elementType,
    llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::ValueRange)> body);

/// A tensor whose elements `body` makes from those of `inputs`, each read
/// through its map.
mlir::Value buildElementwise(
    mlir::OpBuilder &builder, mlir::Location loc, mlir::ValueRange inputs,
    llvm::ArrayRef<mlir::AffineMap> maps,
    llvm::ArrayRef<mlir::OpFoldResult> sizes, mlir::Type elementType,
    llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::ValueRange)> body);

/// Folds the elements of `inputs` into `initial`, with the loops in the order
/// of `iterators`: a reduction adds in ascending order. `body` gets the
/// elements and, last, the value so far. The last map is the result's.
mlir::Value buildReduction(
    mlir::OpBuilder &builder, mlir::Location loc, mlir::ValueRange inputs,
    llvm::ArrayRef<mlir::AffineMap> maps,
    llvm::ArrayRef<mlir::utils::IteratorType> iterators,
    llvm::ArrayRef<mlir::OpFoldResult> sizes, mlir::Value initial,
    llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::ValueRange)> body);

} // namespace nibble

#endif // NIBBLE_CONVERSION_LOOPBUILDER_H
