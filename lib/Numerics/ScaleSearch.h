//===- ScaleSearch.h - Scales and zero points of blocks ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_SCALESEARCH_H
#define NIBBLE_LIB_NUMERICS_SCALESEARCH_H

#include "BlockKernels.h"
#include "nibble/Numerics/BlockQuantizer.h"

#include <vector>

namespace nibble {

/// What the options say about scales and zero points, worked out once.
struct ScaleRules {
  ScaleRules(const BlockQuantizerOptions &options, const Coding &coding);

  FloatFormat format;
  bool isInteger;
  bool isAsymmetric;
  bool isSigned;
  double qmin, qmax;
  /// What a symmetric block's largest magnitude is divided by: 2^(bits-1) or
  /// the largest value of a float or code book.
  double span;
  double limit;
  float tiny;
};

/// Scales of all lanes before they are made representable.
using RawScales = std::array<double, lanes>;

/// Makes `raw` representable: see BlockQuantizerOptions::scaleFormat.
void finishScales(const ScaleRules &rules, const Range &range,
                  const RawScales &raw, float *scales);

/// The same for one scale of a block that is not zero.
float finishScale(const ScaleRules &rules, double raw);

/// ScaleSearch::MinMax.
Grid minMaxGrid(const ScaleRules &rules, const Range &range);

/// What the search needs to know about the data: for each lane the error of a
/// grid and the sums of the closed-form fit.
class Evaluator {
public:
  virtual ~Evaluator() = default;
  /// errors[i * lanes + lane] for grids[i].
  virtual void errors(const std::vector<Grid> &grids,
                      std::vector<double> &errors) = 0;
  virtual void moments(const Grid &grid, double *numerators,
                       double *denominators) = 0;
};

/// ScaleSearch::LeastSquares, with the error that the evaluator tells.
Grid leastSquaresGrid(const ScaleRules &rules, const Range &range,
                      Evaluator &evaluator);

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_SCALESEARCH_H
