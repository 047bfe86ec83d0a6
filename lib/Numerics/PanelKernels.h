//===- PanelKernels.h - Inner loops of second-order rounding ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The loops see `lanes` neighbouring columns of a panel; consecutive rows are
// `stride` floats apart. Columns never mix here.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_PANELKERNELS_H
#define NIBBLE_LIB_NUMERICS_PANELKERNELS_H

#include "BlockKernels.h"

namespace nibble {

/// A square block of a larger row-major matrix, on its diagonal.
struct DiagonalBlock {
  const float *data;
  size_t stride;
  size_t size;
};

/// GPTQ within one block of rows. Row after row: value = round(work / scale),
/// error = (work - value * scale) / U[i, i], and work[j] -= U[i, j] * error for
/// the rows j > i of the block. `grids` has one for each row.
void propagateRounding(const Coding &coding, const Grid *const *grids,
                       const DiagonalBlock &factor, size_t stride, float *work,
                       float *values, float *errors);

/// The same with outliers: where error² is above `threshold`, kept = work
/// rounded to f16, value = 0 and error = (work - kept) / U[i, i]; else kept =
/// 0.
void propagateWithOutliers(const Coding &coding, const Grid *const *grids,
                           const DiagonalBlock &factor, size_t stride,
                           float threshold, float *work, float *values,
                           float *errors, float *kept);

/// Coordinate descent within one block of rows. Row after row: the value that
/// makes the loss least with all others fixed, the nearest to
/// value + gradient / (H[i, i] * scale); change = (new - old) * scale, and
/// gradient[j] -= H[i, j] * change for the rows j > i of the block. Where
/// `outliers` (null: none) is not 0, the value stays.
void descendCoordinates(const Coding &coding, const Grid *const *grids,
                        const DiagonalBlock &hessian, size_t stride,
                        const float *outliers, float *gradient, float *values,
                        float *changes);

/// residual = weight - value * scale for `rows` rows of one grid.
void subtractDequantized(const Grid &grid, size_t rows, size_t stride,
                         const float *weight, const float *values,
                         float *residual);

/// sums[lane] += sum of a * b over the rows.
void addColumnProducts(size_t rows, size_t stride, const float *a,
                       const float *b, double *sums);

/// sums[lane] += sum of rowWeights[row] * a * a over the rows.
void addWeightedSquares(size_t rows, size_t stride, const float *rowWeights,
                        const float *a, double *sums);

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_PANELKERNELS_H
