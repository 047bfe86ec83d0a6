//===- SpqrOutliers.h - Which weights SpQR keeps apart ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_SPQROUTLIERS_H
#define NIBBLE_LIB_NUMERICS_SPQROUTLIERS_H

#include "nibble/Numerics/WeightQuantizer.h"

namespace nibble {

/// `factor` times the mean over the inputs k of var(W[k, :]) / U[k, k]²
/// (https://arxiv.org/abs/2306.03078, section 4, and the authors' code).
double spqrThreshold(const MatrixView &weight, const DampedHessian &hessian,
                     double factor);

/// What the element that `share` of all elements cost more than costs, error² /
/// U[k, k]², where the weight is rounded as in `rounded`. Above 0, so that
/// elements without an error are below it.
double thresholdOfShare(const MatrixView &weight,
                        const QuantizedMatrix &rounded,
                        const DampedHessian &hessian, double share);

/// The weight, row-major, with likely outliers replaced by the mean of their
/// block's other elements, for the search for scales. An element is one if
/// its block, fitted by min/max without it, has an error Σ e² / U² less by more
/// than `threshold` than with it.
Result<std::vector<float>>
replaceLikelyOutliers(const MatrixView &weight, const DampedHessian &hessian,
                      const BlockQuantizerOptions &options, double threshold);

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_SPQROUTLIERS_H
