//===- OutputQuality.h - How two models' outputs differ ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_OUTPUTQUALITY_H
#define NIBBLE_NUMERICS_OUTPUTQUALITY_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace nibble {

/// What the numbers of an output stand for.
enum class OutputKind : uint8_t {
  Numbers,
  /// Each row becomes a distribution by softmax.
  Logits,
  /// Each row is a distribution.
  Probabilities,
};

/// A mean over rows and its standard error, as if rows were independent.
struct MeanWithError {
  double mean = 0, error = 0;
};

/// Kullback-Leibler divergence from the reference's distributions, in nats a
/// row.
struct DivergenceSummary {
  MeanWithError mean;
  double percentile99 = 0, max = 0;
  /// The share of rows whose largest number is in the same place.
  double topAgreement = 0;
};

/// exp of the mean negative log-likelihood of the targets; the error is that of
/// the mean, times the perplexity.
struct PerplexitySummary {
  MeanWithError reference, other;
};

struct OutputQuality {
  OutputKind kind = OutputKind::Numbers;
  uint64_t rows = 0;
  /// Of all numbers as one vector each: the cosine of their angle, and
  /// |reference|² / |other - reference|² in dB.
  double cosine = 0, sqnr = 0;
  /// Not for OutputKind::Numbers.
  std::optional<DivergenceSummary> divergence;
  /// Where rows have targets.
  std::optional<PerplexitySummary> perplexity;
};

/// Compares an output of two models row by row. The order of rows decides the
/// last bits of the sums.
class OutputComparison {
public:
  explicit OutputComparison(OutputKind kind) : kind(kind) {}

  /// A row of `width` numbers each. `target`: the place of the right answer;
  /// negative: unknown.
  void addRow(const float *reference, const float *other, size_t width,
              int64_t target = -1);
  OutputQuality summarize() const;

private:
  OutputKind kind;
  uint64_t rows = 0, agreements = 0;
  double referenceSquares = 0, otherSquares = 0, product = 0, errorSquares = 0;
  std::vector<double> divergences, referenceLosses, otherLosses;
  /// Log-probabilities of the row at hand.
  std::vector<double> referenceLogs, otherLogs;
};

/// ‖X (W − V)‖² / ‖X W‖², the relative squared error of a product: X [rows, K],
/// W and V [K, N], all row-major. 0 where nothing is computed at all.
double relativeProductError(const float *inputs, size_t rows,
                            const float *weight, const float *other, size_t K,
                            size_t N);

} // namespace nibble

#endif // NIBBLE_NUMERICS_OUTPUTQUALITY_H
