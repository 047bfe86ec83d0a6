//===- WeightPanel.cpp - Columns of a weight and their codes --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "WeightPanel.h"
#include "LinearAlgebra.h"
#include "PanelKernels.h"

#include <algorithm>

using namespace nibble;

size_t nibble::panelWidth(size_t cols) { return cols >= 2048 ? 128 : 64; }

WeightPanel::WeightPanel(const PanelContext &context, const MatrixView &matrix,
                         const QuantizedMatrix &start, size_t firstCol,
                         size_t cols)
    : context(context), firstCol(firstCol), rowCount(matrix.rows),
      colCount(cols), chunks((cols + lanes - 1) / lanes),
      groupRows(start.block.rows), groups(start.blockRows()) {
  size_t elements = rows() * stride();
  weight.resize(elements);
  residual.resize(elements);
  gradient.resize(elements);
  losses.resize(stride());
  for (size_t row = 0; row < rows(); ++row)
    for (size_t col = 0; col < cols; ++col)
      weight[row * stride() + col] = matrix.at(row, firstCol + col);
  loadGrids(start);
  loadValues(start);
}

void WeightPanel::loadGrids(const QuantizedMatrix &start) {
  // Lanes that hold nothing have scale 1 and no code but 0.
  Grid idle = {};
  std::fill_n(idle.scale, lanes, 1.0f);
  solution.grids.assign(groups * chunks, idle);
  for (size_t group = 0; group < groups; ++group)
    for (size_t col = 0; col < colCount; ++col) {
      Grid &grid = solution.grids[group * chunks + col / lanes];
      size_t lane = col % lanes;
      size_t block =
          group * start.blockCols() + (firstCol + col) / start.block.cols;
      grid.scale[lane] = start.scales[block];
      if (!start.zeroPoints.empty())
        grid.zero[lane] = codeValue(start.storage, start.zeroPoints[block]);
      grid.low[lane] =
          static_cast<float>(context.coding.qmin) - grid.zero[lane];
      grid.high[lane] =
          static_cast<float>(context.coding.qmax) - grid.zero[lane];
    }
}

void WeightPanel::loadValues(const QuantizedMatrix &start) {
  std::array<float, 256> table;
  for (unsigned code = 0; code < table.size(); ++code)
    table[code] = codeValue(start.storage, static_cast<uint8_t>(code));
  solution.values.assign(rows() * stride(), 0.0f);
  for (size_t row = 0; row < rows(); ++row)
    for (size_t col = 0; col < colCount; ++col)
      solution.values[row * stride() + col] =
          table[start.codes[row * start.cols + firstCol + col]] -
          gridOf(row, col / lanes).zero[col % lanes];
}

static void sumColumnProducts(size_t rows, size_t stride,
                              const std::vector<float> &a,
                              const std::vector<float> &b,
                              std::vector<double> &sums) {
  sums.assign(stride, 0.0);
  for (size_t col = 0; col < stride; col += lanes)
    addColumnProducts(rows, stride, &a[col], &b[col], &sums[col]);
}

void WeightPanel::evaluate() {
  for (size_t group = 0; group < groups; ++group)
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      size_t begin = groupBegin(group);
      size_t first = begin * stride() + chunk * lanes;
      subtractDequantized(solution.grids[group * chunks + chunk],
                          groupEnd(group) - begin, stride(), &weight[first],
                          &solution.values[first], &residual[first]);
    }
  multiply(rows(), stride(), rows(), 1, context.hessian.matrix.data(), rows(),
           residual.data(), stride(), 0, gradient.data(), stride());
  sumColumnProducts(rows(), stride(), residual, gradient, losses);
}

std::vector<double> WeightPanel::normsOf(const std::vector<float> &x) {
  std::vector<float> product(rows() * stride());
  multiply(rows(), stride(), rows(), 1, context.hessian.matrix.data(), rows(),
           x.data(), stride(), 0, product.data(), stride());
  std::vector<double> norms;
  sumColumnProducts(rows(), stride(), x, product, norms);
  return norms;
}

void WeightPanel::keepOutliers(std::vector<float> values) {
  outliers = std::move(values);
  for (size_t i = 0; i < weight.size(); ++i)
    weight[i] -= outliers[i];
}

void WeightPanel::restoreWorse(const PanelSolution &oldSolution,
                               const std::vector<float> &oldResidual,
                               const std::vector<float> &oldGradient,
                               const std::vector<double> &oldLosses) {
  for (size_t col = 0; col < stride(); ++col) {
    if (losses[col] <= oldLosses[col])
      continue;
    losses[col] = oldLosses[col];
    for (size_t i = col; i < weight.size(); i += stride()) {
      solution.values[i] = oldSolution.values[i];
      residual[i] = oldResidual[i];
      gradient[i] = oldGradient[i];
    }
    for (size_t group = 0; group < groups; ++group) {
      size_t index = group * chunks + col / lanes, lane = col % lanes;
      const Grid &from = oldSolution.grids[index];
      Grid &to = solution.grids[index];
      to.scale[lane] = from.scale[lane];
      to.zero[lane] = from.zero[lane];
      to.low[lane] = from.low[lane];
      to.high[lane] = from.high[lane];
    }
  }
}

void WeightPanel::store(QuantizedMatrix &result) const {
  std::vector<float> tile(groupRows * lanes);
  std::vector<uint8_t> codes(groupRows * lanes);
  std::array<double, lanes> ignored;
  for (size_t group = 0; group < groups; ++group)
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      // Values over a scale of 1 are their own codes.
      Grid grid = solution.grids[group * chunks + chunk];
      size_t used = std::min(lanes, colCount - chunk * lanes);
      for (size_t lane = 0; lane < used; ++lane)
        if (result.block.cols == 1)
          result.scales[group * result.blockCols() + firstCol + chunk * lanes +
                        lane] = grid.scale[lane];
      std::fill_n(grid.scale, lanes, 1.0f);
      size_t begin = groupBegin(group), steps = groupEnd(group) - begin;
      for (size_t step = 0; step < steps; ++step)
        std::copy_n(&solution.values[(begin + step) * stride() + chunk * lanes],
                    lanes, &tile[step * lanes]);
      encodeTile(context.coding, grid, tile.data(), nullptr, steps,
                 codes.data(), ignored.data(), ignored.data());
      for (size_t step = 0; step < steps; ++step)
        std::copy_n(&codes[step * lanes], used,
                    &result.codes[(begin + step) * result.cols + firstCol +
                                  chunk * lanes]);
    }
}
