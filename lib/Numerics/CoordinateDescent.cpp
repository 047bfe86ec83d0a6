//===- CoordinateDescent.cpp - Better codes one at a time -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LinearAlgebra.h"
#include "PanelKernels.h"
#include "WeightPanel.h"

#include <algorithm>

using namespace nibble;

/// Rows whose changes reach the rows after them in one matrix product.
static constexpr size_t blockRows = 128;

void nibble::descendOverCodes(WeightPanel &panel) {
  const DampedHessian &hessian = panel.context.hessian;
  size_t rows = panel.rows(), stride = panel.stride();
  std::vector<float> changes(blockRows * stride);
  std::vector<const Grid *> grids(blockRows);
  for (size_t begin = 0; begin < rows; begin += blockRows) {
    size_t count = std::min(blockRows, rows - begin), end = begin + count;
    DiagonalBlock block = {&hessian.matrix[begin * rows + begin], rows, count};
    for (size_t chunk = 0; chunk < panel.chunkCount(); ++chunk) {
      for (size_t i = 0; i < count; ++i)
        grids[i] = &panel.gridOf(begin + i, chunk);
      size_t first = begin * stride + chunk * lanes;
      descendCoordinates(panel.context.coding, grids.data(), block, stride,
                         panel.outliers.empty() ? nullptr
                                                : &panel.outliers[first],
                         &panel.gradient[first], &panel.solution.values[first],
                         &changes[chunk * lanes]);
    }
    if (end < rows)
      multiply(rows - end, stride, count, -1,
               &hessian.matrix[end * rows + begin], rows, changes.data(),
               stride, 1, &panel.gradient[end * stride], stride);
  }
}
