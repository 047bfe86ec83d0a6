//===- WeightPanel.h - Columns of a weight and their codes ------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Under one Hessian the columns of a weight are independent problems. A panel
// holds as many as make matrix products fast; it is the unit of work of all
// second-order algorithms and does not depend on the number of threads.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_WEIGHTPANEL_H
#define NIBBLE_LIB_NUMERICS_WEIGHTPANEL_H

#include "ScaleSearch.h"
#include "nibble/Numerics/InputHessian.h"

namespace nibble {

/// How many columns the panels of an N columns wide weight have.
size_t panelWidth(size_t cols);

/// What panels of one weight share.
struct PanelContext {
  const DampedHessian &hessian;
  const Coding &coding;
  const ScaleRules &rules;
};

/// The part of a weight's solution that steps change: the values of the codes
/// less the zero points, [K, stride], and scales and zero points, [groups,
/// stride / lanes].
struct PanelSolution {
  std::vector<float> values;
  std::vector<Grid> grids;
};

class WeightPanel {
public:
  /// Columns [firstCol, firstCol + cols) of `weight`, with the codes, scales
  /// and zero points of `start`.
  WeightPanel(const PanelContext &context, const MatrixView &weight,
              const QuantizedMatrix &start, size_t firstCol, size_t cols);

  size_t rows() const { return rowCount; }
  /// The columns, and zeros up to a multiple of `lanes`.
  size_t stride() const { return chunks * lanes; }
  size_t cols() const { return colCount; }
  size_t chunkCount() const { return chunks; }
  size_t groupCount() const { return groups; }
  size_t groupBegin(size_t group) const { return group * groupRows; }
  size_t groupEnd(size_t group) const {
    return std::min(rowCount, (group + 1) * groupRows);
  }
  const Grid &gridOf(size_t row, size_t chunk) const {
    return solution.grids[row / groupRows * chunks + chunk];
  }

  /// residual = W - Ŵ, gradient = H (W - Ŵ) and losses, by column, of the
  /// solution.
  void evaluate();

  /// Sums over columns of `x`ᵀ H `x`, for the weight or any [K, stride] matrix.
  std::vector<double> normsOf(const std::vector<float> &x);

  /// Gives the columns whose loss is larger than before (or NaN) what they had.
  /// The panel has been evaluated before and after.
  void restoreWorse(const PanelSolution &oldSolution,
                    const std::vector<float> &oldResidual,
                    const std::vector<float> &oldGradient,
                    const std::vector<double> &oldLosses);

  /// Keeps what is not 0 in `values`, [K, stride], apart: from now on the
  /// weight of these elements is what remains, and their code is 0.
  void keepOutliers(std::vector<float> values);

  /// Writes codes, and scales where the panel owns them.
  void store(QuantizedMatrix &result) const;

  const PanelContext &context;
  size_t firstCol;
  std::vector<float> weight; ///< [K, stride]
  PanelSolution solution;
  std::vector<float> outliers;           ///< [K, stride], or empty
  std::vector<float> residual, gradient; ///< [K, stride]
  std::vector<double> losses;            ///< [stride]

private:
  void loadGrids(const QuantizedMatrix &start);
  void loadValues(const QuantizedMatrix &start);

  size_t rowCount, colCount, chunks, groupRows, groups;
};

/// Codes by GPTQ in the Hessian's order with the panel's grids
/// (https://arxiv.org/abs/2210.17323, section 3 and algorithm 1; the grids are
/// those of all groups before the first column is rounded, so that any order
/// goes with any groups). Where `outlierThreshold` > 0, weights whose error²
/// is above it, in units of the factor, become the panel's outliers. Does not
/// evaluate.
void roundByGptq(WeightPanel &panel, double outlierThreshold);

/// Codes by optimal brain quantization (https://arxiv.org/abs/2208.11580,
/// section 5): one weight of a column after the other, each error shared by
/// all that remain, with the inverse Hessian updated exactly. Greedily the
/// cheapest next, else in the Hessian's order. K³ steps a column. Does not
/// evaluate.
void roundByObq(WeightPanel &panel, bool greedy);

/// One sweep of coordinate descent over all codes: each becomes the best with
/// the others fixed. The panel has been evaluated; does not evaluate.
void descendOverCodes(WeightPanel &panel);

/// The scales of all groups of a column at once, in closed form for the codes
/// as they are: with c_g the values of group g and e the residual, the change d
/// of the scales solves (c_gᵀ H c_h) d = c_gᵀ H e. Made representable then. The
/// panel has been evaluated; does not evaluate.
void refitScales(WeightPanel &panel);

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_WEIGHTPANEL_H
