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

struct RecipeOptions {
  DampingOptions damping;
  ScaleObjective scales = ScaleObjective::Diagonal;
  /// Rounds of coordinate descent over the codes and closed-form refit of the
  /// scales after GPTQ; 0 is plain GPTQ.
  unsigned rounds = 3;
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
  /// "auto", or "gptq" without rounds.
  std::string_view name() const override {
    return options.rounds == 0 ? "gptq" : "auto";
  }
  Result<QuantizedWeight> quantize(const MatrixView &weight,
                                   const WeightStatistics &statistics,
                                   const Scheme &scheme,
                                   unsigned threads) const override;

private:
  RecipeOptions options;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_RECIPEQUANTIZER_H
