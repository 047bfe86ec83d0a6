//===- SizeOrigin.h - Where the size of a dimension comes from --*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_ONNXTOLINALG_SIZEORIGIN_H
#define NIBBLE_LIB_CONVERSION_ONNXTOLINALG_SIZEORIGIN_H

#include "mlir/IR/Value.h"

namespace nibble {

/// True where two dimensions are known to be of one size: both come from the
/// same dimension of the same tensor through ops that keep it or change it by
/// a constant, as a padded convolution does. Names of dimensions say less:
/// what is computed in between has none.
bool haveSameSize(mlir::Value tensor, int64_t axis, mlir::Value otherTensor,
                  int64_t otherAxis);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_ONNXTOLINALG_SIZEORIGIN_H
