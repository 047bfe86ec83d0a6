//===- ChooseRanges.cpp - Ranges of the codes of activations --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/ChooseRanges.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

#include <cstring>
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
  Value value;
  NumberRange range;
};

/// Counts what the probes of one run see.
class HistogramObserver final : public RunObserver {
public:
  HistogramObserver(ArrayRef<std::string> probes,
                    std::vector<ValueHistogram> &histograms, std::mutex &mutex)
      : probes(probes), histograms(histograms), mutex(mutex) {}

  void observe(size_t probe, const ObservedTensor &tensor) override {
    size_t index;
    if (!StringRef(probes[probe]).getAsInteger(10, index))
      count(index, tensor.values);
  }
  void count(size_t index, ArrayRef<float> values) {
    ValueHistogram seen(histograms[index].getRange());
    seen.add(values.data(), values.size());
    std::lock_guard<std::mutex> lock(mutex);
    histograms[index].merge(seen);
  }

private:
  ArrayRef<std::string> probes;
  std::vector<ValueHistogram> &histograms;
  std::mutex &mutex;
};

} // namespace

static std::vector<Activation> collectActivations(func::FuncOp main) {
  std::vector<Activation> activations;
  for (NodeOp node : main.getBody().front().getOps<NodeOp>()) {
    auto add = [&](StringRef attribute, Value value) {
      auto range = node->getAttrOfType<ArrayAttr>(attribute);
      auto type = dyn_cast<RankedTensorType>(value.getType());
      if (!range || !type || !type.getElementType().isF32())
        return;
      auto bounds = llvm::to_vector(range.getAsRange<FloatAttr>());
      activations.push_back(
          {node,
           attribute,
           value,
           {static_cast<float>(bounds[0].getValueAsDouble()),
            static_cast<float>(bounds[1].getValueAsDouble())}});
    };
    if (!node.getInputs().empty())
      add(kInputRangeAttrName, node.getInputs()[0]);
    if (node->getNumResults() > 0)
      add(kOutputRangeAttrName, node->getResult(0));
  }
  return activations;
}

/// Puts a probe behind each activation, with its number as id. Those that are
/// inputs of the model, which are counted as they are given, go to `inputs`.
static void insertProbes(ArrayRef<Activation> activations,
                         std::vector<std::pair<size_t, unsigned>> &inputs) {
  for (auto [index, activation] : llvm::enumerate(activations)) {
    Value value = activation.value;
    if (auto argument = dyn_cast<BlockArgument>(value)) {
      inputs.push_back({index, argument.getArgNumber()});
      continue;
    }
    OpBuilder builder(value.getContext());
    builder.setInsertionPointAfterValue(value);
    auto observe = ObserveOp::create(builder, value.getLoc(), value.getType(),
                                     std::to_string(index), value);
    value.replaceAllUsesExcept(observe.getResult(), observe);
  }
}

static void countInput(const HostTensor &tensor, size_t index,
                       HistogramObserver &observer) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(),
              values.size() * sizeof(float));
  observer.count(index, values);
}

LogicalResult nibble::chooseActivationRanges(ModuleOp module,
                                             const CalibrationData &data,
                                             RangeObserver observer,
                                             unsigned threads) {
  std::vector<Activation> activations =
      collectActivations(module.lookupSymbol<func::FuncOp>("main"));
  if (activations.empty())
    return success();
  module.getContext()->loadDialect<NibbleDialect>();
  OwningOpRef<ModuleOp> copy = module.clone();
  std::vector<std::pair<size_t, unsigned>> inputs;
  insertProbes(collectActivations(copy->lookupSymbol<func::FuncOp>("main")),
               inputs);
  CompileOptions options;
  options.reference = false;
  options.compute = "f32";
  options.observe = true;
  auto model = CompiledModel::compile(*copy, options);
  if (failed(model))
    return failure();

  std::vector<ValueHistogram> histograms;
  histograms.reserve(activations.size());
  for (const Activation &activation : activations)
    histograms.emplace_back(activation.range);
  std::mutex mutex;
  auto count = [&](size_t, ArrayRef<HostTensor> tensors) {
    HistogramObserver counter((*model)->getProbes(), histograms, mutex);
    for (auto [index, argument] : inputs)
      countInput(tensors[argument], index, counter);
    return (*model)->run(tensors, &counter).takeError();
  };
  if (llvm::Error error = data.forEachSample(threads, count))
    return module.emitError() << llvm::toString(std::move(error));

  Builder builder(module.getContext());
  for (auto [activation, histogram] : llvm::zip(activations, histograms)) {
    NumberRange chosen = chooseRange(histogram, observer);
    activation.node->setAttr(
        activation.attribute,
        builder.getF32ArrayAttr({chosen.low, chosen.high}));
  }
  return success();
}
