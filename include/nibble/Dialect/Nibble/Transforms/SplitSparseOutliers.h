//===- SplitSparseOutliers.h - Elements leave the dense weight --*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_SPLITSPARSEOUTLIERS_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_SPLITSPARSEOUTLIERS_H

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

namespace nibble {

/// Whether all that reads the matrix `weight`, perhaps through a Transpose, is
/// MatMul and Gemm with it as their second factor: only they can add what its
/// outliers give.
bool isReadByProducts(mlir::Value weight);

/// The bytes that the sparse outliers of `op` take as
/// --nibble-split-sparse-outliers writes them; 0 without outliers.
uint64_t countOutlierBytes(AssembleOp op);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_SPLITSPARSEOUTLIERS_H
