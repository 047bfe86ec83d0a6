//===- BlockHessianEvaluator.h - Scales under a block's Hessian -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_BLOCKHESSIANEVALUATOR_H
#define NIBBLE_LIB_NUMERICS_BLOCKHESSIANEVALUATOR_H

#include "ScaleSearch.h"

namespace nibble {

/// The error of a block is eᵀ H e, with H the Hessian of the block's inputs.
class BlockHessianEvaluator final : public Evaluator {
public:
  /// `tile` is [steps, lanes]; `hessian` [steps, steps] with rows
  /// `hessianStride` apart.
  BlockHessianEvaluator(const Coding &coding, const std::vector<float> &tile,
                        const float *hessian, size_t hessianStride)
      : coding(coding), tile(tile), steps(tile.size() / lanes),
        hessian(hessian), hessianStride(hessianStride) {}

  void errors(const std::vector<Grid> &grids,
              std::vector<double> &errors) override;
  void moments(const Grid &grid, double *numerators,
               double *denominators) override;

private:
  /// images = H * columns, both [steps, width].
  void applyHessian(size_t width);

  const Coding &coding;
  const std::vector<float> &tile;
  size_t steps;
  const float *hessian;
  size_t hessianStride;
  std::vector<float> columns, images;
};

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_BLOCKHESSIANEVALUATOR_H
