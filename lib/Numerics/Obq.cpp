//===- Obq.cpp - Codes by optimal brain quantization ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Coders.h"
#include "WeightPanel.h"

#include <algorithm>

using namespace nibble;

namespace {

/// One column: its weights that have no code yet, and the inverse of their
/// Hessian, both without gaps.
class ObqColumn {
public:
  ObqColumn(WeightPanel &panel, size_t col, const std::vector<double> &inverse);
  void run(bool greedy);

private:
  float nearest(size_t i) const;
  size_t chooseGreedily() const;
  void fix(size_t i);
  void remove(size_t i);

  WeightPanel &panel;
  size_t col, stride, count;
  std::vector<uint32_t> inputs;
  std::vector<double> weights;
  /// [count, count] with rows `stride` apart.
  std::vector<double> inverse;
};

} // namespace

ObqColumn::ObqColumn(WeightPanel &panel, size_t col,
                     const std::vector<double> &inverse)
    : panel(panel), col(col), stride(panel.rows()), count(panel.rows()),
      inputs(panel.context.hessian.order), weights(count), inverse(inverse) {
  for (size_t i = 0; i < count; ++i)
    weights[i] = panel.weight[inputs[i] * panel.stride() + col];
}

float ObqColumn::nearest(size_t i) const {
  const Grid &grid = panel.gridOf(inputs[i], col / lanes);
  size_t lane = col % lanes;
  return roundOne(panel.context.coding,
                  static_cast<float>(weights[i]) / grid.scale[lane],
                  grid.low[lane], grid.high[lane]);
}

/// The weight whose rounding costs least.
size_t ObqColumn::chooseGreedily() const {
  size_t best = 0;
  double least = INFINITY;
  for (size_t i = 0; i < count; ++i) {
    const Grid &grid = panel.gridOf(inputs[i], col / lanes);
    double error =
        weights[i] - static_cast<double>(nearest(i) * grid.scale[col % lanes]);
    double cost = error * error / inverse[i * stride + i];
    if (cost < least) {
      least = cost;
      best = i;
    }
  }
  return best;
}

/// Rounds weight `i`; the others take up its error.
void ObqColumn::fix(size_t i) {
  const Grid &grid = panel.gridOf(inputs[i], col / lanes);
  float value = nearest(i);
  panel.solution.values[inputs[i] * panel.stride() + col] = value;
  double error =
      weights[i] - static_cast<double>(value * grid.scale[col % lanes]);
  double pivot = inverse[i * stride + i];
  std::vector<double> row(inverse.begin() + static_cast<ptrdiff_t>(i * stride),
                          inverse.begin() +
                              static_cast<ptrdiff_t>(i * stride + count));
  for (size_t j = 0; j < count; ++j) {
    double factor = row[j] / pivot;
    weights[j] -= error * factor;
    double *target = &inverse[j * stride];
    for (size_t k = 0; k < count; ++k)
      target[k] -= factor * row[k];
  }
  remove(i);
}

/// Closes the gap that weight `i` leaves, keeping the order.
void ObqColumn::remove(size_t i) {
  for (size_t j = 0; j < count; ++j) {
    double *row = &inverse[j * stride];
    std::copy(row + i + 1, row + count, row + i);
  }
  std::copy(inverse.begin() + static_cast<ptrdiff_t>((i + 1) * stride),
            inverse.begin() + static_cast<ptrdiff_t>(count * stride),
            inverse.begin() + static_cast<ptrdiff_t>(i * stride));
  inputs.erase(inputs.begin() + static_cast<ptrdiff_t>(i));
  weights.erase(weights.begin() + static_cast<ptrdiff_t>(i));
  --count;
}

void ObqColumn::run(bool greedy) {
  while (count > 0)
    fix(greedy ? chooseGreedily() : 0);
}

void nibble::roundByObq(WeightPanel &panel, bool greedy) {
  const DampedHessian &hessian = panel.context.hessian;
  size_t K = hessian.size;
  std::vector<double> inverse(K * K);
  for (size_t m = 0; m < K; ++m)
    for (size_t i = m; i < K; ++i) {
      double u = hessian.factor[m * K + i];
      for (size_t j = m; j < K; ++j)
        inverse[i * K + j] +=
            u * static_cast<double>(hessian.factor[m * K + j]);
    }
  for (size_t col = 0; col < panel.cols(); ++col)
    ObqColumn(panel, col, inverse).run(greedy);
}
