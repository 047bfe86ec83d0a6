//===- MatrixRows.h - Activations of any rank as a matrix -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_MATRIXROWS_H
#define NIBBLE_CONVERSION_MATRIXROWS_H

#include "mlir/IR/Builders.h"
#include "mlir/IR/Value.h"

namespace nibble {

/// A tensor [..., K] as a matrix [rows, K].
mlir::Value collapseRows(mlir::OpBuilder &builder, mlir::Location loc,
                         mlir::Value tensor);

/// The number of rows of a matrix, constant where it is known.
mlir::OpFoldResult getRowCount(mlir::OpBuilder &builder, mlir::Location loc,
                               mlir::Value matrix);

/// A matrix [rows, N] as a tensor [..., N] with the leading dimensions of
/// `like`.
mlir::Value expandRows(mlir::OpBuilder &builder, mlir::Location loc,
                       mlir::Value matrix, mlir::Value like);

} // namespace nibble

#endif // NIBBLE_CONVERSION_MATRIXROWS_H
