//===- ModelReport.h - What a model is made of ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_REPORT_MODELREPORT_H
#define NIBBLE_REPORT_MODELREPORT_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/JSON.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace nibble {

/// A weight of a model, quantized or not. A quantized weight counts with its
/// codes, scales and zero points.
struct WeightInfo {
  std::string name;
  /// Op types that read it, sorted: "Gather, MatMul".
  std::string readers;
  /// "f32", or how the codes are stored: "4 bits, groups of 32 (MatMulNBits)".
  std::string storage;
  std::string shape;
  uint64_t parameters = 0;
  uint64_t bytes = 0;
};

/// A graph input or output.
struct ValueDescription {
  std::string name, type;
};

struct ModelReport {
  std::string producer;
  int64_t irVersion = 0;
  std::vector<std::pair<std::string, int64_t>> opsets;
  std::vector<ValueDescription> inputs, outputs;
  /// Number of nodes by op type (with the domain, if it is not ONNX's own).
  std::map<std::string, unsigned> ops;
  /// Largest first.
  std::vector<WeightInfo> weights;
  uint64_t parameters = 0;
  uint64_t weightBytes = 0;
  /// Bytes that the key-value cache takes for one token, if the graph has past
  /// inputs.
  std::optional<uint64_t> cacheBytesPerToken;

  double bitsPerWeight() const {
    return parameters ? 8.0 * weightBytes / parameters : 0;
  }
};

ModelReport describeModel(mlir::ModuleOp module);

/// A weight that will be quantized, or was.
struct PlannedWeight {
  std::string name;
  std::string readers;
  std::string scheme;
  std::string shape;
  uint64_t parameters = 0;
  uint64_t bytesBefore = 0;
  uint64_t bytesAfter = 0;
  /// Of a code.
  unsigned bits = 0;
  /// Inputs that share a scale; 0: a channel or the whole tensor.
  int64_t groupSize = 0;
  bool isMatrix = true;
  /// Signal-to-noise ratio in dB, once it is rounded.
  std::optional<double> sqnr;
  /// Relative squared error of what it computes: on the calibration data, and
  /// on samples that calibration has not seen.
  std::optional<double> outputError, heldOutError;
  /// Its squared error relative to that of rounding to nearest with the scales
  /// that the algorithm started from.
  std::optional<double> gain;
  /// What was added to the Hessian's diagonal, as a fraction of its mean.
  std::optional<double> damping;
  /// Where the algorithm departed from the plain method: dead inputs, more
  /// damping, a fallback.
  std::vector<std::string> notes;
  /// That the algorithm took.
  std::optional<double> seconds;
};

struct KeptNode {
  std::string node, opType, why;
};

struct QuantizationPlan {
  std::vector<PlannedWeight> weights;
  std::vector<KeptNode> kept;
};

/// Reads the plan off a module after --nibble-assign-schemes or --nibble-round.
QuantizationPlan collectPlan(mlir::ModuleOp module);

llvm::json::Object toJSON(const ModelReport &report);
llvm::json::Object toJSON(const QuantizationPlan &plan);

} // namespace nibble

#endif // NIBBLE_REPORT_MODELREPORT_H
