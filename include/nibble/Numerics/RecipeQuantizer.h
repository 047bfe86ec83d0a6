//===- RecipeQuantizer.h - Second-order weight quantization -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_RECIPEQUANTIZER_H
#define NIBBLE_NUMERICS_RECIPEQUANTIZER_H

#include "nibble/Numerics/WeightQuantizer.h"

namespace nibble {

/// What the search for the scales that the codes start from makes small.
enum class ScaleObjective : uint8_t {
  MinMax,   ///< nothing: the scales are those of the range
  Squares,  ///< Σ e²
  Diagonal, ///< Σ h e², h the diagonal of the damped Hessian
  /// eᵀ H e in each block, H the damped Hessian of the block's inputs. Blocks
  /// of more than 1024 inputs count as Diagonal.
  Blocks,
};

/// How codes are chosen for the scales that the search found.
enum class SecondOrderRounding : uint8_t {
  Gptq,
  /// To the nearest: no second-order rounding.
  Nearest,
  /// Optimal brain quantization (https://arxiv.org/abs/2208.11580), each weight
  /// of a column the one that costs least. Takes K times as long as GPTQ, so a
  /// weight of more than 1024 inputs gets GPTQ and a note.
  ObqGreedy,
  /// The same in GPTQ's order, which is GPTQ done the long way: an oracle.
  ObqInOrder,
};

struct RecipeOptions {
  DampingOptions damping;
  SecondOrderRounding rounding = SecondOrderRounding::Gptq;
  ScaleObjective scales = ScaleObjective::Diagonal;
  /// Rounds of coordinate descent over the codes and closed-form refit of the
  /// scales after second-order rounding; 0 leaves them out.
  unsigned rounds = 3;
  /// With rounds, how often GPTQ or OBQ chooses the codes: again with the
  /// scales refitted, and kept in the columns where that is better. Not with
  /// outliers.
  unsigned passes = 1;
  /// SpQR (https://arxiv.org/abs/2306.03078, section 4): a weight whose
  /// rounding costs more than `outliers` times the layer's mean of var(w) / U²,
  /// U the Hessian's factor, is kept in f16, and out of the search for scales.
  /// 0: none; the paper's code takes 0.2. Only for blocks of one column.
  double outliers = 0;
  /// The same with the threshold that about this share of the elements (0 to 1)
  /// is above: those whose error² / U² is largest when the weight is rounded to
  /// the scales that the search finds without them. 0: `outliers` counts.
  double outlierShare = 0;
  bool keepsOutliers() const { return outliers > 0 || outlierShare > 0; }
  /// Where `bits` > 0, scales are quantized again, and the codes are improved
  /// for the scales that remain. {3, 16, F16} is SpQR's, {8, 256, F32} that of
  /// QLoRA (https://arxiv.org/abs/2305.14314, section 3). 1 to 8 bits.
  struct {
    unsigned bits = 0;
    size_t runLength = 16;
    FloatFormat format = FloatFormat::F16;
  } nestedScales;
};

/// Finds scales for all blocks, then codes by GPTQ in one order for all blocks
/// (static groups), then improves codes and scales in turn; every step may only
/// lower the loss in the norm of the damped Hessian. GPTQ:
/// https://arxiv.org/abs/2210.17323, section 3.
///
/// Without a usable Hessian: rounding to nearest with a search for the scales,
/// and a note that says so.
class RecipeQuantizer final : public WeightQuantizer {
public:
  explicit RecipeQuantizer(RecipeOptions options = {}) : options(options) {}
  /// "spqr" with outliers, else "recipe"; without rounds "gptq", "obq" or
  /// "round".
  std::string_view name() const override;
  Result<QuantizedWeight> quantize(const MatrixView &weight,
                                   const WeightStatistics &statistics,
                                   const Scheme &scheme,
                                   unsigned threads) const override;

private:
  RecipeOptions options;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_RECIPEQUANTIZER_H
