//===- PairedSegments.cpp - Two models part by part -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "PairedSegments.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The node of the quantized model for each of the float one.
using Twins = llvm::DenseMap<Operation *, Operation *>;

/// Empty where the nodes differ.
static Twins findTwins(func::FuncOp original, func::FuncOp quantized) {
  auto list = [](func::FuncOp main) {
    SmallVector<NodeOp> nodes(main.getBody().front().getOps<NodeOp>());
    return nodes;
  };
  SmallVector<NodeOp> left = list(original), right = list(quantized);
  if (left.size() != right.size())
    return Twins();
  Twins twins;
  for (auto [node, twin] : llvm::zip(left, right)) {
    if (node.getOpType() != twin.getOpType() ||
        node.getDisplayName() != twin.getDisplayName())
      return Twins();
    twins[node] = twin;
  }
  return twins;
}

static std::optional<Segment>
findTwin(const Segment &segment, const Twins &twins, func::FuncOp quantized) {
  Segment twin;
  twin.hasWeights = segment.hasWeights;
  for (Operation *node : segment.nodes) {
    Operation *other = twins.lookup(node);
    if (!other)
      return std::nullopt;
    twin.nodes.push_back(other);
  }
  auto map = [&](ArrayRef<Value> values, std::vector<Value> &mapped) {
    for (Value value : values) {
      if (auto argument = dyn_cast<BlockArgument>(value)) {
        mapped.push_back(quantized.getArgument(argument.getArgNumber()));
        continue;
      }
      auto result = cast<OpResult>(value);
      Operation *other = twins.lookup(result.getOwner());
      if (!other)
        return false;
      mapped.push_back(other->getResult(result.getResultNumber()));
    }
    return true;
  };
  if (!map(segment.inputs, twin.inputs) || !map(segment.outputs, twin.outputs))
    return std::nullopt;
  return twin;
}

/// All of a model.
static Segment makeWhole(func::FuncOp main) {
  Segment segment;
  for (Operation &op : main.getBody().front().without_terminator())
    if (!isa<ConstantOp, AbsentOp>(op))
      segment.nodes.push_back(&op);
  segment.hasWeights = true;
  segment.inputs.assign(main.getArguments().begin(), main.getArguments().end());
  Operation *end = main.getBody().front().getTerminator();
  // An output may be a constant, or be returned twice.
  for (Value value : end->getOperands())
    if (!isa_and_nonnull<ConstantOp, AbsentOp>(value.getDefiningOp()) &&
        !llvm::is_contained(segment.outputs, value))
      segment.outputs.push_back(value);
  return segment;
}

std::vector<PairedSegment> nibble::pairSegments(func::FuncOp original,
                                                func::FuncOp quantized) {
  Twins twins = findTwins(original, quantized);
  std::vector<PairedSegment> pairs;
  for (const Segment &segment : planWholeRun(original)) {
    std::optional<Segment> twin = findTwin(segment, twins, quantized);
    if (!twin)
      return {{makeWhole(original), makeWhole(quantized)}};
    pairs.push_back({segment, std::move(*twin)});
  }
  return pairs;
}
