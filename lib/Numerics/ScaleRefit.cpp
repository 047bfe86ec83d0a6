//===- ScaleRefit.cpp - All scales of a column in closed form -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LinearAlgebra.h"
#include "PanelKernels.h"
#include "WeightPanel.h"

#include <algorithm>
#include <cmath>

using namespace nibble;

/// So many groups are refitted together; those after them see the change.
static constexpr size_t groupsAtOnce = 128;

namespace {

/// The refit of the groups [first, first + count) of a panel.
class RefitStep {
public:
  RefitStep(WeightPanel &panel, size_t first, size_t count)
      : panel(panel), first(first), count(count), stride(panel.stride()) {}
  void run();

private:
  void findProducts();
  void solveColumn(size_t col);

  WeightPanel &panel;
  size_t first, count, stride;
  /// [count, count, stride], the lower triangle: c_gᵀ H c_h; and [count,
  /// stride]: c_gᵀ H e.
  std::vector<double> products, right;
};

} // namespace

void RefitStep::findProducts() {
  const float *hessian = panel.context.hessian.matrix.data();
  const std::vector<float> &values = panel.solution.values;
  size_t rows = panel.rows();
  size_t last = panel.groupEnd(first + count - 1);
  products.assign(count * count * stride, 0.0);
  right.assign(count * stride, 0.0);
  std::vector<float> image(rows * stride);
  for (size_t h = 0; h < count; ++h) {
    size_t begin = panel.groupBegin(first + h);
    size_t size = panel.groupEnd(first + h) - begin;
    // H c_h, in the rows of this group and the later ones.
    multiply(last - begin, stride, size, 1, hessian + begin * rows + begin,
             rows, &values[begin * stride], stride, 0, &image[begin * stride],
             stride);
    for (size_t col = 0; col < stride; col += lanes) {
      addColumnProducts(size, stride, &values[begin * stride + col],
                        &panel.gradient[begin * stride + col],
                        &right[h * stride + col]);
      for (size_t g = h; g < count; ++g) {
        size_t from = panel.groupBegin(first + g);
        addColumnProducts(panel.groupEnd(first + g) - from, stride,
                          &values[from * stride + col],
                          &image[from * stride + col],
                          &products[(g * count + h) * stride + col]);
      }
    }
  }
}

/// The ridge keeps scales near what they are where the codes say little.
void RefitStep::solveColumn(size_t col) {
  std::vector<double> matrix(count * count), change(count);
  double mean = 0;
  for (size_t g = 0; g < count; ++g) {
    for (size_t h = 0; h <= g; ++h)
      matrix[g * count + h] = products[(g * count + h) * stride + col];
    change[g] = right[g * stride + col];
    mean += matrix[g * count + g] / static_cast<double>(count);
  }
  if (!(mean > 0))
    return;
  for (size_t g = 0; g < count; ++g)
    matrix[g * count + g] +=
        1e-6 * std::max(matrix[g * count + g], 1e-3 * mean);
  if (!solvePositiveDefinite(count, matrix.data(), change.data()))
    return;
  size_t chunk = col / lanes, lane = col % lanes;
  for (size_t g = 0; g < count; ++g) {
    Grid &grid = panel.solution.grids[(first + g) * panel.chunkCount() + chunk];
    double scale = static_cast<double>(grid.scale[lane]) + change[g];
    if (std::isfinite(scale) && scale != 0 && change[g] != 0)
      grid.scale[lane] = finishScale(panel.context.rules, scale);
  }
}

void RefitStep::run() {
  findProducts();
  for (size_t col = 0; col < panel.cols(); ++col)
    solveColumn(col);
}

void nibble::refitScales(WeightPanel &panel) {
  for (size_t first = 0; first < panel.groupCount(); first += groupsAtOnce) {
    if (first > 0)
      panel.evaluate();
    RefitStep(panel, first, std::min(groupsAtOnce, panel.groupCount() - first))
        .run();
  }
}
