//===- WeightQuantizer.h - An algorithm that quantizes a weight -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_WEIGHTQUANTIZER_H
#define NIBBLE_NUMERICS_WEIGHTQUANTIZER_H

#include "nibble/Numerics/BlockQuantizer.h"
#include "nibble/Numerics/InputHessian.h"

#include <limits>
#include <optional>

namespace nibble {

/// What calibration knows about the K inputs of a weight. Empty: unknown.
struct WeightStatistics {
  /// The second moments of the inputs, shared by all weights that read them.
  std::shared_ptr<const InputHessian> hessian;
  /// [K]: the mean square of each input, the diagonal of the Hessian. May be
  /// given without it; where both are, the Hessian counts.
  std::vector<float> inputSquares;
  /// [K]: the mean and the largest magnitude of each input.
  std::vector<float> inputMagnitudes, inputMaxima;
};

/// ‖W - Ŵ‖² / ‖W‖² in the norm of the damped Hessian H, ‖E‖² = tr(EᵀHE), after
/// each step of an algorithm; NaN for a step that was not taken.
struct HessianLosses {
  /// Rounding to nearest with the scales that the algorithm starts from.
  double rounding = std::numeric_limits<double>::quiet_NaN();
  /// GPTQ (or OBQ) with the same scales.
  double gptq = std::numeric_limits<double>::quiet_NaN();
  /// What was returned.
  double end = std::numeric_limits<double>::quiet_NaN();
  /// What was returned, in the norm of the second moments without damping: the
  /// relative squared error of the matmul's output on the calibration data.
  double output = std::numeric_limits<double>::quiet_NaN();
};

/// Elements kept apart from the codes, which say 0 there: element (rows[i],
/// cols[i]) of the weight is values[i], a number of f16. In row-major order.
struct SparseOutliers {
  std::vector<uint32_t> rows, cols;
  std::vector<float> values;
};

/// Inputs whose rows of the weight are kept apart from the codes, which say 0
/// there: row inputs[i] of the weight is row i of `values` [n, N], numbers of
/// f16. Ascending.
struct OutlierInputs {
  std::vector<uint32_t> inputs;
  std::vector<float> values;
};

/// Scales that are quantized again, in runs of `runLength` of them in row-major
/// order: scale i = steps[r] * (codes[i] - zeros[r]) with r = i / runLength,
/// rounded to f32. Codes are unsigned integers of `bits`; steps and zeros are
/// numbers of `format`.
struct NestedScales {
  unsigned bits = 0;
  size_t runLength = 0;
  FloatFormat format = FloatFormat::F32;
  std::vector<uint8_t> codes;
  std::vector<float> steps, zeros;
};

/// A quantized weight and what a report says about it.
struct QuantizedWeight {
  /// Codes, scales and zero points just as the algorithm chose them.
  QuantizedMatrix matrix;
  /// Empty unless the algorithm keeps outliers (SpQR).
  SparseOutliers outliers;
  /// Empty unless the algorithm keeps inputs apart (LLM.int8()).
  OutlierInputs outlierInputs;
  /// Where the scales are quantized again: what matrix.scales was made from.
  std::optional<NestedScales> nestedScales;
  HessianLosses losses;
  /// The damping that was used, as a fraction of the mean diagonal; 0 without a
  /// Hessian.
  double damping = 0;
  /// Whether second-order rounding (GPTQ or OBQ) chose the codes.
  bool usesHessian = false;
  /// Each departure from the plain method, in words: dead inputs, more damping,
  /// a fallback.
  std::vector<std::string> notes;
};

/// One algorithm: weight, statistics and scheme in; codes, scales, zero points
/// and loss out. A pass finds the weights, feeds them and retypes.
class WeightQuantizer {
public:
  virtual ~WeightQuantizer();

  /// The name on the command line and in reports.
  virtual std::string_view name() const = 0;

  /// Quantizes `weight`, [K, N]. The blocks are scheme.blockShape(). NaN and
  /// infinity in the weight, and statistics of another number of inputs, are
  /// errors; statistics that cannot be used are a note and a fallback.
  /// Bit-identical for any number of threads (0: one for each core).
  virtual Result<QuantizedWeight> quantize(const MatrixView &weight,
                                           const WeightStatistics &statistics,
                                           const Scheme &scheme,
                                           unsigned threads) const = 0;
};

/// Round to nearest. With ScaleSearch::LeastSquares the errors are weighted by
/// the mean squares of the inputs where they are known.
class RoundingQuantizer final : public WeightQuantizer {
public:
  explicit RoundingQuantizer(ScaleSearch search) : search(search) {}
  std::string_view name() const override { return "round"; }
  Result<QuantizedWeight> quantize(const MatrixView &weight,
                                   const WeightStatistics &statistics,
                                   const Scheme &scheme,
                                   unsigned threads) const override;

private:
  ScaleSearch search;
};

/// LLM.int8() (https://arxiv.org/abs/2208.07339, section 3.2): the inputs with
/// a magnitude of at least `threshold` are kept apart, and another algorithm
/// quantizes the weights of the others; its losses are of those. Needs
/// `statistics.inputMaxima`; without them nothing is kept, and a note says so.
class OutlierInputsQuantizer final : public WeightQuantizer {
public:
  /// `others` must outlive this.
  explicit OutlierInputsQuantizer(const WeightQuantizer &others,
                                  float threshold = 6.0f)
      : others(others), threshold(threshold) {}
  std::string_view name() const override { return "llm-int8"; }
  Result<QuantizedWeight> quantize(const MatrixView &weight,
                                   const WeightStatistics &statistics,
                                   const Scheme &scheme,
                                   unsigned threads) const override;

private:
  const WeightQuantizer &others;
  float threshold;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_WEIGHTQUANTIZER_H
