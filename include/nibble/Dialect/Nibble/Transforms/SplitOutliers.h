//===- SplitOutliers.h - Outliers leave the dense product -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_SPLITOUTLIERS_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_SPLITOUTLIERS_H

#include "nibble/Dialect/Nibble/Transforms/ActivationRanges.h"

namespace nibble {

struct SplitCounts {
  /// Values with outliers, their outlier channels, and values with too many.
  unsigned values = 0, inputs = 0, left = 0;
};

/// What is behind the name of a value without its outliers.
inline constexpr llvm::StringLiteral kRestSuffix = "_rest";

/// What --nibble-split-outliers does. `ranges` gets those of the values without
/// their outliers.
SplitCounts splitOutliers(mlir::ModuleOp module, ActivationRanges &ranges,
                          float threshold = 6.0f);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_SPLITOUTLIERS_H
