//===- InputScaling.h - Equivalent rescaling and outlier inputs -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What can be done to the inputs of matmuls before their weights are quantized.
// A rescaling by s leaves x W = (x / s) (s W) as it is and moves range between
// the activations and the weights. All functions here are pure: a pass decides
// where the factors go. Weights are [K, N], and several that read the same
// input are treated as one, with their columns side by side.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_INPUTSCALING_H
#define NIBBLE_NUMERICS_INPUTSCALING_H

#include "nibble/Numerics/WeightQuantizer.h"

namespace nibble {

/// LLM.int8() (https://arxiv.org/abs/2208.07339, section 3.2): the inputs whose
/// largest magnitude, `inputMaxima` [K], is at least `threshold`, ascending;
/// NaN counts as large. They and their rows of the weight stay in 16 bits.
std::vector<uint32_t> findOutlierInputs(const std::vector<float> &inputMaxima,
                                        float threshold = 6.0f);

/// SmoothQuant (https://arxiv.org/abs/2211.10438, section 4, equation 4):
/// s[k] = max |x[k]|^strength / max |W[k, :]|^(1 - strength), [K]. x / s and
/// s W are then quantized. 1 for an input or a row that is all zero.
/// `inputMaxima` is the largest |x[k]| that calibration saw; of another length
/// than K it is an error, as is a number in it that is not finite.
Result<std::vector<float>>
findSmoothQuantScales(const std::vector<float> &inputMaxima,
                      const std::vector<MatrixView> &weights,
                      double strength = 0.5);

/// AWQ's scales for one exponent (https://arxiv.org/abs/2306.00978,
/// section 3.2): s[k] = max(m[k]^exponent, 1e-4), divided by sqrt(max s * min
/// s), where m = `inputMagnitudes` is the mean |x[k]|.
std::vector<float> makeAwqScales(const std::vector<float> &inputMagnitudes,
                                 double exponent);

/// A weight, [K, N], and how it will be stored.
struct AwqWeight {
  MatrixView matrix;
  Scheme scheme;
};

struct AwqScales {
  std::vector<float> scales; ///< [K]: s W is quantized, x is divided by s
  double exponent = 0;
  /// Expected squared errors of the outputs relative to Σ h w², without scales
  /// and with these.
  double lossBefore = 0, lossAfter = 0;
};

/// The best of `steps` exponents 0, 1 / steps, 2 / steps …: the one with the
/// least Σ h[k] e[k, n]², where e = W - s⁻¹ Q(s W), Q rounding with min/max
/// scales, and h = `inputSquares` is the mean square of each input. That is the
/// squared error of the outputs as far as errors of rounding to nearest are
/// independent. Never worse than no scales, exponent 0.
Result<AwqScales> searchAwqScales(const std::vector<AwqWeight> &weights,
                                  const std::vector<float> &inputMagnitudes,
                                  const std::vector<float> &inputSquares,
                                  unsigned threads = 1, unsigned steps = 20);

/// AWQ's clipping (the authors' code, auto_clip): for each block the magnitude,
/// among (1 - i / 20) times the largest, i < 10, to which its weights are
/// clamped before min/max rounding, so that eᵀ H e over the block's inputs is
/// least. [K / group, N], row-major; only for blocks of one column.
Result<std::vector<float>> searchAwqClips(const MatrixView &weight,
                                          const DampedHessian &hessian,
                                          const Scheme &scheme,
                                          unsigned threads = 1);

/// The weight, row-major, with each block clamped to its magnitude.
std::vector<float> clampBlocks(const MatrixView &weight, size_t blockRows,
                               const std::vector<float> &magnitudes);

/// The weight, row-major, with row k multiplied by scales[k].
std::vector<float> scaleRows(const MatrixView &weight,
                             const std::vector<float> &scales);

} // namespace nibble

#endif // NIBBLE_NUMERICS_INPUTSCALING_H
