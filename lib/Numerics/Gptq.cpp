//===- Gptq.cpp - Codes by GPTQ -------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LinearAlgebra.h"
#include "PanelKernels.h"
#include "WeightPanel.h"

#include <algorithm>

using namespace nibble;

/// Rows whose errors reach the rows after them in one matrix product.
static constexpr size_t blockRows = 128;

void nibble::roundByGptq(WeightPanel &panel, double outlierThreshold) {
  const DampedHessian &hessian = panel.context.hessian;
  size_t rows = panel.rows(), stride = panel.stride();
  std::vector<float> work(rows * stride), values(rows * stride);
  std::vector<float> errors(blockRows * stride);
  bool keepsOutliers = outlierThreshold > 0;
  std::vector<float> kept(keepsOutliers ? rows * stride : 0);
  for (size_t i = 0; i < rows; ++i)
    std::copy_n(&panel.weight[hessian.order[i] * stride], stride,
                &work[i * stride]);

  std::vector<const Grid *> grids(blockRows);
  for (size_t begin = 0; begin < rows; begin += blockRows) {
    size_t count = std::min(blockRows, rows - begin), end = begin + count;
    const float *factor = &hessian.factor[begin * rows + begin];
    for (size_t chunk = 0; chunk < panel.chunkCount(); ++chunk) {
      for (size_t i = 0; i < count; ++i)
        grids[i] = &panel.gridOf(hessian.order[begin + i], chunk);
      size_t first = begin * stride + chunk * lanes;
      if (keepsOutliers)
        propagateWithOutliers(
            panel.context.coding, grids.data(), {factor, rows, count}, stride,
            static_cast<float>(outlierThreshold), &work[first], &values[first],
            &errors[chunk * lanes], &kept[first]);
      else
        propagateRounding(panel.context.coding, grids.data(),
                          {factor, rows, count}, stride, &work[first],
                          &values[first], &errors[chunk * lanes]);
    }
    if (end < rows)
      multiplyTransposed(rows - end, stride, count, -1, factor + count, rows,
                         errors.data(), stride, 1, &work[end * stride], stride);
  }
  for (size_t i = 0; i < rows; ++i)
    std::copy_n(&values[i * stride], stride,
                &panel.solution.values[hessian.order[i] * stride]);
  if (!keepsOutliers)
    return;
  std::vector<float> outliers(rows * stride);
  for (size_t i = 0; i < rows; ++i)
    std::copy_n(&kept[i * stride], stride,
                &outliers[hessian.order[i] * stride]);
  panel.keepOutliers(std::move(outliers));
}
