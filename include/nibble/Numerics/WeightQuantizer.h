//===- WeightQuantizer.h - An algorithm that quantizes a weight -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_WEIGHTQUANTIZER_H
#define NIBBLE_NUMERICS_WEIGHTQUANTIZER_H

#include "nibble/Numerics/BlockQuantizer.h"

namespace nibble {

/// What calibration knows about the K inputs of a weight. Empty: unknown.
struct WeightStatistics {
  /// [K]: the mean square of each input, the diagonal of the Hessian.
  std::vector<float> inputSquares;
};

/// One algorithm: weight, statistics and scheme in; codes, scales, zero points
/// and loss out. A pass finds the weights, feeds them and retypes.
class WeightQuantizer {
public:
  virtual ~WeightQuantizer();

  /// The name on the command line and in reports.
  virtual std::string_view name() const = 0;

  /// Quantizes `weight`, [K, N]. The blocks are scheme.blockShape().
  virtual Result<QuantizedMatrix> quantize(const MatrixView &weight,
                                           const WeightStatistics &statistics,
                                           const Scheme &scheme,
                                           unsigned threads) const = 0;
};

/// Round to nearest. With ScaleSearch::LeastSquares the errors are weighted by
/// `statistics.inputSquares` where there are any.
class RoundingQuantizer final : public WeightQuantizer {
public:
  explicit RoundingQuantizer(ScaleSearch search) : search(search) {}
  std::string_view name() const override { return "round"; }
  Result<QuantizedMatrix> quantize(const MatrixView &weight,
                                   const WeightStatistics &statistics,
                                   const Scheme &scheme,
                                   unsigned threads) const override;

private:
  ScaleSearch search;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_WEIGHTQUANTIZER_H
