//===- LowRank.h - A low-rank correction of quantized weights ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_LOWRANK_H
#define NIBBLE_NUMERICS_LOWRANK_H

#include "nibble/Numerics/WeightQuantizer.h"

namespace nibble {

/// left * right is added to the dequantized weight.
struct LowRankCorrection {
  size_t rank = 0;
  std::vector<float> left;  ///< [K, rank]
  std::vector<float> right; ///< [rank, N]
  /// ‖E - left right‖² / ‖E‖² in the norm of the damped Hessian; 0 for E = 0.
  double remaining = 1;
};

/// The correction of rank `rank` that takes most of `error` [K, N], row-major,
/// the weight less the dequantized one, in the norm of the damped Hessian. The
/// idea is LoRC's (ZeroQuant-V2, https://arxiv.org/abs/2303.08302, section 4);
/// under a Hessian with H⁻¹ = Uᵀ U the best is that of the plain problem for
/// U⁻ᵀ E. Found by subspace iteration with a fixed start: bit-identical for any
/// number of threads.
Result<LowRankCorrection> correctLowRank(const std::vector<float> &error,
                                         size_t cols,
                                         const DampedHessian &hessian,
                                         size_t rank, unsigned threads = 1);

} // namespace nibble

#endif // NIBBLE_NUMERICS_LOWRANK_H
