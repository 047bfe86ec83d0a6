//===- BlockHessianEvaluator.cpp - Scales under a block's Hessian ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "BlockHessianEvaluator.h"
#include "LinearAlgebra.h"
#include "PanelKernels.h"

#include <algorithm>

using namespace nibble;

void BlockHessianEvaluator::applyHessian(size_t width) {
  images.resize(columns.size());
  multiply(steps, width, steps, 1, hessian, hessianStride, columns.data(),
           width, 0, images.data(), width);
}

/// The grids' errors lie side by side, so that one product serves them all.
void BlockHessianEvaluator::errors(const std::vector<Grid> &grids,
                                   std::vector<double> &errors) {
  size_t width = grids.size() * lanes;
  columns.resize(steps * width);
  for (size_t i = 0; i < grids.size(); ++i) {
    roundTile(coding, grids[i], tile.data(), steps, &columns[i * lanes], width);
    for (size_t step = 0; step < steps; ++step)
      for (size_t lane = 0; lane < lanes; ++lane) {
        float &x = columns[step * width + i * lanes + lane];
        x = tile[step * lanes + lane] - x * grids[i].scale[lane];
      }
  }
  applyHessian(width);
  errors.assign(width, 0.0);
  for (size_t i = 0; i < width; i += lanes)
    addColumnProducts(steps, width, &columns[i], &images[i], &errors[i]);
}

void BlockHessianEvaluator::moments(const Grid &grid, double *numerators,
                                    double *denominators) {
  columns.resize(steps * lanes);
  roundTile(coding, grid, tile.data(), steps, columns.data(), lanes);
  applyHessian(lanes);
  std::fill_n(numerators, lanes, 0.0);
  std::fill_n(denominators, lanes, 0.0);
  addColumnProducts(steps, lanes, images.data(), tile.data(), numerators);
  addColumnProducts(steps, lanes, images.data(), columns.data(), denominators);
}
