//===- QuantizationReport.h - What a quantization did -----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_REPORT_QUANTIZATIONREPORT_H
#define NIBBLE_REPORT_QUANTIZATIONREPORT_H

#include "nibble/Numerics/OutputQuality.h"
#include "nibble/Report/ModelReport.h"

namespace nibble {

/// One output of the model, float and quantized.
struct OutputReport {
  std::string name;
  OutputQuality quality;
};

/// A point of the curve of bits against loss that a budget chose from.
struct BudgetPoint {
  /// Of the weights that the budget is for, as their ops store them.
  double bitsPerWeight = 0;
  /// Predicted (Sensitivity.h): the divergence from the float model in nats, or
  /// the relative squared error of an output that is no distribution.
  double loss = 0;
  /// Of points that are not mixed: "w4g128".
  std::string label;
};

struct BudgetReport {
  /// Best mixtures, fewest bits first.
  std::vector<BudgetPoint> curve;
  /// One scheme for all weights.
  std::vector<BudgetPoint> uniform;
  BudgetPoint chosen;
};

struct QuantizationReport {
  std::string input, output;
  /// As on the command line.
  std::string method, scheme;
  uint64_t bytesBefore = 0, bytesAfter = 0;
  /// All weights, quantized or not, as the files hold them.
  ModelReport weightsBefore, weightsAfter;
  QuantizationPlan plan;
  /// Local functions that were put into the graph, since they read weights.
  std::vector<std::string> inlined;
  double seconds = 0;
  /// How the written file was checked.
  std::string checked;
  /// "32 samples of x.npz"; of made-up samples, how; empty: not calibrated.
  std::string calibratedOn;
  /// "8 samples that calibration has not seen"; empty: not evaluated.
  std::string evaluatedOn;
  std::vector<OutputReport> outputs;
  std::optional<BudgetReport> budget;
};

/// A quantized weight and what may be done about it.
struct HarmedWeight {
  const PlannedWeight *weight = nullptr;
  std::string cure;
};

/// The relative squared error of what a weight computes: on held-out data, else
/// on the calibration data, else of the weight itself.
double getError(const PlannedWeight &weight);

/// The weights of the plan, the one with the largest error first, each with a
/// suggestion.
std::vector<HarmedWeight> rankByHarm(const QuantizationPlan &plan);

/// For a terminal: sums, how outputs changed, the weights that are harmed most
/// and why others were left alone.
void printText(const QuantizationReport &report, llvm::raw_ostream &os);

/// Adds what the report has to `object`, which has the plan.
void addToJSON(const QuantizationReport &report, llvm::json::Object &object);

/// One page with charts and tables that needs no other file.
void printHTML(const QuantizationReport &report, llvm::raw_ostream &os);

} // namespace nibble

#endif // NIBBLE_REPORT_QUANTIZATIONREPORT_H
