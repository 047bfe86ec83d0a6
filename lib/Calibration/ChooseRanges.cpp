//===- ChooseRanges.cpp - Ranges of the codes of activations --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/ChooseRanges.h"

#include "ShowActivations.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

#include <map>
#include <mutex>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// A value that will be codes.
struct Activation {
  NodeOp node;
  /// The attribute of the node that has its range.
  StringRef attribute;
  std::string name;
  ValueHistogram histogram;
};

} // namespace

static std::vector<Activation> collectActivations(func::FuncOp main) {
  std::vector<Activation> activations;
  ValueNames names(main);
  for (NodeOp node : main.getBody().front().getOps<NodeOp>()) {
    auto add = [&](StringRef attribute, Value value) {
      auto range = node->getAttrOfType<ArrayAttr>(attribute);
      auto type = dyn_cast<RankedTensorType>(value.getType());
      if (!range || !type || !type.getElementType().isF32())
        return;
      auto bounds = llvm::to_vector(range.getAsRange<FloatAttr>());
      NumberRange seen{static_cast<float>(bounds[0].getValueAsDouble()),
                       static_cast<float>(bounds[1].getValueAsDouble())};
      activations.push_back(
          {node, attribute, names.lookup(value).str(), ValueHistogram(seen)});
    };
    if (!node.getInputs().empty())
      add(kInputRangeAttrName, node.getInputs()[0]);
    if (node->getNumResults() > 0)
      add(kOutputRangeAttrName, node->getResult(0));
  }
  return activations;
}

LogicalResult nibble::chooseActivationRanges(ModuleOp module,
                                             const CalibrationData &data,
                                             RangeObserver observer,
                                             unsigned threads) {
  std::vector<Activation> activations =
      collectActivations(module.lookupSymbol<func::FuncOp>("main"));
  if (activations.empty())
    return success();
  // What one node gives another one reads.
  std::multimap<StringRef, ValueHistogram *> histograms;
  for (Activation &activation : activations)
    histograms.insert({activation.name, &activation.histogram});

  std::mutex mutex;
  auto count = [&](size_t, const SeenActivation &seen) {
    auto [begin, end] = histograms.equal_range(seen.name);
    for (auto &[name, histogram] : llvm::make_range(begin, end)) {
      ValueHistogram counted(histogram->getRange());
      counted.add(seen.values.data(), seen.values.size());
      std::lock_guard<std::mutex> lock(mutex);
      histogram->merge(counted);
    }
  };
  if (failed(
          showActivations(module, data, MeasuredLayers::All, threads, count)))
    return failure();

  Builder builder(module.getContext());
  for (const Activation &activation : activations) {
    NumberRange chosen = chooseRange(activation.histogram, observer);
    NodeOp node = activation.node;
    node->setAttr(activation.attribute,
                  builder.getF32ArrayAttr({chosen.low, chosen.high}));
  }
  return success();
}
