//===- InputHessian.h - Second moments of a matmul's input ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_INPUTHESSIAN_H
#define NIBBLE_NUMERICS_INPUTHESSIAN_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace nibble {

/// How second moments become a matrix that can be inverted.
struct DampingOptions {
  /// What is added to the diagonal, as a fraction of its mean.
  double damping = 0.01;
  /// Quantize the inputs with the largest diagonal first ("act-order"); else
  /// from first to last.
  bool orderByDiagonal = true;

  bool operator==(const DampingOptions &other) const {
    return damping == other.damping && orderByDiagonal == other.orderByDiagonal;
  }
};

/// Second moments made ready for GPTQ and its refinements: damped and factored.
/// Matrices are [K, K], row-major. All numbers are relative to the mean of the
/// second moments' diagonal, which no algorithm here depends on.
struct DampedHessian {
  size_t size = 0;
  /// The damped matrix. Empty where the second moments are not finite.
  std::vector<float> matrix;
  /// order[i] is the input that is quantized i-th.
  std::vector<uint32_t> order;
  /// With P the damped matrix whose row and column i are those of input
  /// order[i]: U of P's inverse = UᵀU, upper triangular with a positive
  /// diagonal, zero below. Empty where there is none.
  std::vector<float> factor;
  /// The damped diagonal, and what was added to reach it.
  std::vector<float> diagonal, addedDiagonal;
  /// The damping that was used in the end, as a fraction of the mean diagonal.
  double damping = 0;
  /// Every departure from the plain method, in words, in the order of events.
  std::vector<std::string> steps;
};

/// What calibration saw of one matmul input: the mean of x xᵀ over its rows x.
/// One object serves all weights that read that input (query, key and value
/// share one), and keeps what they share. Safe to use from several threads.
class InputHessian {
public:
  /// `secondMoments` is [K, K], row-major and symmetric: the mean of x xᵀ over
  /// `rows` rows x of the input. Only its upper triangle is read. Anything may
  /// be in it, NaN too: damped() says what became of it.
  InputHessian(std::vector<double> secondMoments, uint64_t rows);

  /// K.
  size_t size() const { return extent; }
  /// How many rows the mean is over.
  uint64_t rows() const { return rowCount; }
  const std::vector<double> &secondMoments() const { return moments; }
  /// The mean square of input `i`.
  double diagonal(size_t i) const { return moments[i * extent + i]; }

  /// The matrix that the algorithms work with; computed at the first call and
  /// kept until a call with other options. It never fails: where the second
  /// moments cannot be factored it goes down this ladder, and says so in
  /// `steps`:
  ///  1. second moments that are not finite: no matrix at all;
  ///  2. inputs that were always zero get the mean of the other diagonals;
  ///  3. `damping` times the mean diagonal is added to the diagonal;
  ///  4. if that cannot be factored, ten times as much, up to once the mean;
  ///  5. then, each diagonal is raised to the sum of the magnitudes of its row,
  ///     which is always positive definite;
  ///  6. if even that fails: a matrix without a factor.
  /// Bit-identical for any number of threads (0: one for each core).
  std::shared_ptr<const DampedHessian> damped(const DampingOptions &options,
                                              unsigned threads = 1) const;

private:
  size_t extent;
  uint64_t rowCount;
  std::vector<double> moments;
  mutable std::mutex mutex;
  mutable DampingOptions keptOptions;
  mutable std::shared_ptr<const DampedHessian> kept;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_INPUTHESSIAN_H
