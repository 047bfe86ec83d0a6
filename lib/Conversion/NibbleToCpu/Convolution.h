//===- Convolution.h - Sums of products over windows ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_CONVOLUTION_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_CONVOLUTION_H

#include "mlir/Dialect/Linalg/IR/Linalg.h"

#include <optional>

namespace nibble {

/// The dimensions of a linalg.generic that computes
///
///   y[n, g, m, o…] += x[n, g, c, o · stride + k · dilation…] · w[g, m, c, k…]
///
/// with g or without it, and one or more o and k; on f32, or with unsigned
/// bytes x, signed bytes w and i32 y.
struct Convolution {
  bool grouped = false;
  bool hasBytes = false;
  llvm::SmallVector<int64_t> strides, dilations;

  int64_t rank() const { return strides.size(); }
  /// Dimensions of y and x before o, and of w before c.
  int64_t leading() const { return grouped ? 3 : 2; }
};

std::optional<Convolution> matchConvolution(mlir::linalg::GenericOp op);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_CONVOLUTION_H
