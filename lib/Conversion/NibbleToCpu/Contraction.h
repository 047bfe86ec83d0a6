//===- Contraction.h - Sums of products of two tensors ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_CONTRACTION_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_CONTRACTION_H

#include "mlir/Dialect/Linalg/IR/Linalg.h"

#include <optional>

namespace nibble {

/// The loops of a linalg.generic that adds products of its two f32 inputs to
/// its output; each dimension of an operand runs along a
/// loop of its own, or is 1 and read at 0.
struct Contraction {
  /// Loops of the first input and the output, of the second input and the
  /// output, of the inputs only, and of all three, in the output's order (the
  /// first input's for `k`).
  llvm::SmallVector<unsigned> m, n, k, batch;
};

std::optional<Contraction> matchContraction(mlir::linalg::GenericOp op);

/// True for `%s = mulf %a, %b; %t = addf %out, %s; yield %t` on f32 with the
/// operands in any order.
bool addsProducts(mlir::linalg::GenericOp op);

/// The dimension of an operand that `loop` runs along, -1 for none.
int64_t getDimension(mlir::AffineMap map, unsigned loop);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_CONTRACTION_H
