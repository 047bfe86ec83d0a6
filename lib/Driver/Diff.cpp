//===- Diff.cpp - nibble diff ---------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Session.h"
#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Pipelines/Pipelines.h"
#include "nibble/Report/ModelReport.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Pass/PassManager.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <cmath>
#include <map>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// A weight as the node of some name reads it.
struct ReadWeight {
  Value source;
  /// The node sees the transpose of the source.
  bool transposed;
};

struct WeightDifference {
  std::string node;
  double sqnr = 0, largest = 0;
};

struct Differences {
  std::vector<WeightDifference> weights;
  std::vector<std::string> onlyBefore, onlyAfter, incomparable;
  unsigned equal = 0;
};

} // namespace

/// The weights of a model by the names of the nodes that read them: those names
/// survive quantization, those of the weights need not.
static std::map<std::string, ReadWeight> collectWeights(ModuleOp module) {
  std::map<std::string, ReadWeight> weights;
  module.walk([&](NodeOp node) {
    std::optional<unsigned> operand = getWeightOperand(node);
    if (!operand)
      return;
    MatrixSource source = getMatrixSource(node.getInputs()[*operand]);
    auto type = dyn_cast<RankedTensorType>(source.value.getType());
    if (!type || !isa<FloatType>(type.getElementType()) ||
        (!getConstantValue(source.value) &&
         !source.value.getDefiningOp<AssembleOp>()))
      return;
    weights[node.getDisplayName()] = {
        source.value, getReductionAxis(node, source.transposed) == 1};
  });
  return weights;
}

static std::optional<std::vector<float>> readValues(const ReadWeight &weight) {
  Value source = weight.source;
  auto values = source.getDefiningOp<AssembleOp>()
                    ? dequantizeConstant(source.getDefiningOp<AssembleOp>())
                    : getFloats(getConstantValue(source));
  auto type = cast<RankedTensorType>(source.getType());
  if (!values || !weight.transposed || type.getRank() != 2)
    return values;
  int64_t rows = type.getDimSize(0), cols = type.getDimSize(1);
  std::vector<float> transposed(values->size());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < cols; ++col)
      transposed[col * rows + row] = (*values)[row * cols + col];
  return transposed;
}

static WeightDifference compare(StringRef node, ArrayRef<float> before,
                                ArrayRef<float> after) {
  WeightDifference difference;
  difference.node = node.str();
  double signal = 0, noise = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    double error = double(before[i]) - double(after[i]);
    signal += double(before[i]) * double(before[i]);
    noise += error * error;
    difference.largest = std::max(difference.largest, std::fabs(error));
  }
  difference.sqnr = 10 * std::log10(signal / std::max(noise, 1e-300));
  return difference;
}

static Differences compareWeights(ModuleOp before, ModuleOp after) {
  Differences differences;
  auto weightsBefore = collectWeights(before);
  auto weightsAfter = collectWeights(after);
  for (auto &[node, weight] : weightsBefore) {
    auto it = weightsAfter.find(node);
    if (it == weightsAfter.end()) {
      differences.onlyBefore.push_back(node);
      continue;
    }
    auto left = readValues(weight), right = readValues(it->second);
    if (!left || !right || left->size() != right->size()) {
      differences.incomparable.push_back(node);
      continue;
    }
    WeightDifference difference = compare(node, *left, *right);
    if (difference.largest == 0)
      ++differences.equal;
    else
      differences.weights.push_back(std::move(difference));
  }
  for (auto &[node, weight] : weightsAfter)
    if (!weightsBefore.count(node))
      differences.onlyAfter.push_back(node);
  // The worst first.
  llvm::sort(differences.weights, [](const auto &a, const auto &b) {
    return std::tie(a.sqnr, a.node) < std::tie(b.sqnr, b.node);
  });
  return differences;
}

static LogicalResult raise(ModuleOp module, Session &session) {
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  buildRaisePipeline(passes);
  return passes.run(module);
}

//===----------------------------------------------------------------------===//
// Output
//===----------------------------------------------------------------------===//

/// "MatMul 211 -> 1" for each op type whose number differs.
static std::vector<std::pair<std::string, std::pair<unsigned, unsigned>>>
compareOps(const ModelReport &before, const ModelReport &after) {
  std::map<std::string, std::pair<unsigned, unsigned>> counts;
  for (auto &[op, count] : before.ops)
    counts[op].first = count;
  for (auto &[op, count] : after.ops)
    counts[op].second = count;
  std::vector<std::pair<std::string, std::pair<unsigned, unsigned>>> changed;
  for (auto &entry : counts)
    if (entry.second.first != entry.second.second)
      changed.push_back(entry);
  return changed;
}

static void printText(const DiffCommand &command, const ModelReport &before,
                      const ModelReport &after,
                      const Differences &differences) {
  llvm::raw_ostream &os = llvm::outs();
  os << llvm::formatv("{0}: {1} of weights, {2:f2} bits a weight\n",
                      command.before, formatBytes(before.weightBytes),
                      before.bitsPerWeight());
  os << llvm::formatv("{0}: {1} of weights, {2:f2} bits a weight\n",
                      command.after, formatBytes(after.weightBytes),
                      after.bitsPerWeight());
  for (auto &[op, counts] : compareOps(before, after))
    os << llvm::formatv("  {0}: {1} -> {2} nodes\n", op, counts.first,
                        counts.second);
  os << llvm::formatv("{0} weights are equal, {1} differ\n", differences.equal,
                      differences.weights.size());
  if (!differences.weights.empty())
    os << llvm::formatv("  {0,-56} {1,10} {2,14}\n", "node", "SQNR dB",
                        "largest error");
  for (const WeightDifference &weight : differences.weights)
    os << llvm::formatv("  {0,-56} {1,10:f2} {2,14:e3}\n", weight.node,
                        weight.sqnr, weight.largest);
  auto list = [&](StringRef what, const std::vector<std::string> &nodes) {
    for (const std::string &node : nodes)
      os << "  " << what << ": " << node << "\n";
  };
  list("only in the first", differences.onlyBefore);
  list("only in the second", differences.onlyAfter);
  list("of different shapes or unreadable", differences.incomparable);
}

static void printJSON(const ModelReport &before, const ModelReport &after,
                      const Differences &differences) {
  using llvm::json::Array;
  using llvm::json::Object;
  Array weights;
  for (const WeightDifference &weight : differences.weights)
    weights.push_back(Object{{"node", weight.node},
                             {"sqnr_db", weight.sqnr},
                             {"largest_error", weight.largest}});
  Object ops;
  for (auto &[op, counts] : compareOps(before, after))
    ops[op] = Object{{"before", counts.first}, {"after", counts.second}};
  Object object{{"weights", std::move(weights)},
                {"equal", differences.equal},
                {"only_before", Array(differences.onlyBefore)},
                {"only_after", Array(differences.onlyAfter)},
                {"incomparable", Array(differences.incomparable)},
                {"ops", std::move(ops)},
                {"weight_bytes_before", before.weightBytes},
                {"weight_bytes_after", after.weightBytes}};
  llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
               << "\n";
}

int nibble::diff(const DiffCommand &command) {
  Session session;
  OwningOpRef<ModuleOp> before =
      loadModel(command.before, &session.getContext());
  if (!before)
    return ExitFailure;
  OwningOpRef<ModuleOp> after = loadModel(command.after, &session.getContext());
  if (!after)
    return ExitFailure;
  ModelReport reportBefore = describeModel(*before);
  ModelReport reportAfter = describeModel(*after);
  if (failed(raise(*before, session)) || failed(raise(*after, session)))
    return ExitFailure;
  Differences differences = compareWeights(*before, *after);
  if (command.json)
    printJSON(reportBefore, reportAfter, differences);
  else
    printText(command, reportBefore, reportAfter, differences);
  return ExitSuccess;
}
