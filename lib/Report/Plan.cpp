//===- Plan.cpp - What will be quantized, or was --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Report/ModelReport.h"

#include "Describe.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/SplitSparseOutliers.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Bytes of the codes, scales and zero points of a type, densely packed.
static uint64_t countBytes(RankedTensorType type) {
  auto bytes = [](RankedTensorType part) -> uint64_t {
    if (part && getQuantization(part)) // Nested scales.
      return countBytes(part);
    return part ? getPackedSize(part).value_or(0) : 0;
  };
  return bytes(getCodesType(type)) + bytes(getScalesType(type)) +
         bytes(getZerosType(type));
}

static PlannedWeight planWeight(Value value, StringRef name,
                                RankedTensorType quantizedType) {
  PlannedWeight weight;
  weight.name = name.str();
  weight.readers = describeReaders(value);
  weight.scheme = describeEncoding(getQuantization(quantizedType));
  weight.shape = describeShape(quantizedType);
  weight.parameters = quantizedType.getNumElements();
  weight.bytesBefore =
      getPackedSize(getExpressedType(quantizedType)).value_or(0);
  weight.bytesAfter = countBytes(quantizedType);
  QuantizedAttr encoding = getQuantization(quantizedType);
  weight.bits = encoding.getStorage().getBitWidth();
  weight.isMatrix = quantizedType.getRank() == 2;
  for (int64_t extent : encoding.getBlock())
    if (extent > 1)
      weight.groupSize = std::max<int64_t>(weight.groupSize, 1) * extent;
  return weight;
}

/// What its algorithm noted on a weight.
static void readNotes(AssembleOp assemble, PlannedWeight &weight) {
  auto read = [&](StringRef name) -> std::optional<double> {
    if (auto value = assemble->getAttrOfType<FloatAttr>(name))
      return value.getValueAsDouble();
    return std::nullopt;
  };
  weight.sqnr = read(kSqnrAttrName);
  weight.outputError = read(kOutputErrorAttrName);
  weight.damping = read(kDampingAttrName);
  weight.seconds = read(kSecondsAttrName);
  auto losses = assemble->getAttrOfType<DenseF64ArrayAttr>(kLossesAttrName);
  if (losses && losses.size() == 2 && losses[0] > 0)
    weight.gain = losses[1] / losses[0];
  if (auto notes = assemble->getAttrOfType<ArrayAttr>(kNotesAttrName))
    for (auto note : notes.getAsRange<StringAttr>())
      weight.notes.push_back(note.str());
}

QuantizationPlan nibble::collectPlan(ModuleOp module) {
  QuantizationPlan plan;
  module.walk([&](Operation *op) {
    if (auto constant = dyn_cast<ConstantOp>(op)) {
      auto encoding = constant->getAttrOfType<QuantizedAttr>(kEncodingAttrName);
      auto type = dyn_cast<RankedTensorType>(constant.getType());
      if (encoding && type)
        plan.weights.push_back(
            planWeight(constant.getResult(), constant.getName(),
                       RankedTensorType::get(type.getShape(),
                                             type.getElementType(), encoding)));
    } else if (auto assemble = dyn_cast<AssembleOp>(op)) {
      auto codes = assemble.getCodes().getDefiningOp<ConstantOp>();
      bool isPart = llvm::any_of(op->getUsers(), llvm::IsaPred<AssembleOp>);
      if (!codes || isPart)
        return;
      StringRef name = codes.getName();
      name.consume_back(".codes");
      PlannedWeight weight =
          planWeight(assemble.getResult(), name,
                     cast<RankedTensorType>(assemble.getResult().getType()));
      weight.bytesAfter += countOutlierBytes(assemble);
      readNotes(assemble, weight);
      plan.weights.push_back(std::move(weight));
    } else if (auto node = dyn_cast<NodeOp>(op)) {
      if (auto why = node->getAttrOfType<StringAttr>(kKeptAttrName))
        plan.kept.push_back(
            {node.getDisplayName(), node.getOpType().str(), why.str()});
    }
  });
  return plan;
}

llvm::json::Object nibble::toJSON(const QuantizationPlan &plan) {
  llvm::json::Array weights, kept;
  for (const PlannedWeight &weight : plan.weights) {
    llvm::json::Object entry{{"name", weight.name},
                             {"readers", weight.readers},
                             {"scheme", weight.scheme},
                             {"shape", weight.shape},
                             {"parameters", weight.parameters},
                             {"bytes_before", weight.bytesBefore},
                             {"bytes_after", weight.bytesAfter}};
    auto add = [&](StringRef key, std::optional<double> value) {
      if (value && std::isfinite(*value))
        entry[key] = *value;
    };
    add("sqnr_db", weight.sqnr);
    add("output_error", weight.outputError);
    add("output_error_held_out", weight.heldOutError);
    add("loss_relative_to_rounding", weight.gain);
    add("damping", weight.damping);
    add("seconds", weight.seconds);
    if (!weight.notes.empty())
      entry["notes"] = llvm::json::Array(weight.notes);
    weights.push_back(std::move(entry));
  }
  for (const KeptNode &node : plan.kept)
    kept.push_back(llvm::json::Object{
        {"node", node.node}, {"op_type", node.opType}, {"why", node.why}});
  return llvm::json::Object{{"weights", std::move(weights)},
                            {"kept", std::move(kept)}};
}
