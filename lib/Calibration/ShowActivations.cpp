//===- ShowActivations.cpp - What a running model computes ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShowActivations.h"

#include "nibble/Calibration/PartRun.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/StringSet.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// A probe's id: where the channels are (in the last dimension: "-", in the
/// second: "1"), and the name of the value.
static std::string getProbeId(StringRef name, bool isLast) {
  return ((isLast ? "-" : "1") + name).str();
}

static SeenActivation describe(StringRef id, ArrayRef<int64_t> shape,
                               ArrayRef<float> values) {
  return {id.drop_front(), shape, values, id.front() == '-'};
}

namespace {

/// A part with probes behind what it is to show.
class ProbedPart {
public:
  /// Names in `shown` have no probe; those that get one are added.
  ProbedPart(ModuleOp part, MeasuredLayers layers, llvm::StringSet<> &shown);

  using Callback = llvm::function_ref<void(const SeenActivation &)>;
  llvm::Expected<std::vector<HostTensor>> run(const CompiledModel &model,
                                              ArrayRef<HostTensor> inputs,
                                              Callback see) const;

private:
  void insert(Value value, StringRef name, bool isLast);

  ModuleOp part;
  /// Ids of its inputs, which are shown as they are given.
  std::map<unsigned, std::string> inputIds;
};

class CallingObserver final : public RunObserver {
public:
  CallingObserver(ArrayRef<std::string> probes, ProbedPart::Callback see)
      : probes(probes), see(see) {}

  void observe(size_t probe, const ObservedTensor &tensor) override {
    see(describe(probes[probe], tensor.shape, tensor.values));
  }

private:
  ArrayRef<std::string> probes;
  ProbedPart::Callback see;
};

} // namespace

ProbedPart::ProbedPart(ModuleOp part, MeasuredLayers layers,
                       llvm::StringSet<> &shown)
    : part(part) {
  auto main = part.lookupSymbol<func::FuncOp>("main");
  ValueNames names(main);
  auto probe = [&](Value value, bool isLast) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    // Another probe may have seen it.
    if (value.getDefiningOp<ObserveOp>())
      return;
    StringRef name = names.lookup(value);
    if (type && type.getElementType().isF32() && !name.empty() &&
        !getConstantValue(value) && shown.insert(name).second)
      insert(value, name, isLast);
  };
  SmallVector<NodeOp> nodes(main.getBody().front().getOps<NodeOp>());
  for (NodeOp node : nodes) {
    if (layers == MeasuredLayers::Chosen && !getChosenWeight(node))
      continue;
    if (node.isOnnx("Conv")) {
      probe(node.getInputs()[0], /*isLast=*/false);
      probe(node.getResult(0), /*isLast=*/false);
    } else if (node.isOnnx("MatMul") ||
               (node.isOnnx("Gemm") && node.getInt("transA", 0) == 0)) {
      probe(node.getInputs()[0], /*isLast=*/true);
    }
  }
}

void ProbedPart::insert(Value value, StringRef name, bool isLast) {
  if (auto argument = dyn_cast<BlockArgument>(value)) {
    inputIds[argument.getArgNumber()] = getProbeId(name, isLast);
    return;
  }
  OpBuilder builder(part.getContext());
  builder.setInsertionPointAfterValue(value);
  auto observe = ObserveOp::create(builder, value.getLoc(), value.getType(),
                                   getProbeId(name, isLast), value);
  value.replaceAllUsesExcept(observe.getResult(), observe);
}

llvm::Expected<std::vector<HostTensor>>
ProbedPart::run(const CompiledModel &model, ArrayRef<HostTensor> inputs,
                Callback see) const {
  for (auto &[index, id] : inputIds) {
    const HostTensor &tensor = inputs[index];
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(),
                values.size() * sizeof(float));
    see(describe(id, tensor.shape, values));
  }
  CallingObserver observer(model.getProbes(), see);
  return model.run(inputs, &observer);
}

LogicalResult nibble::showActivations(
    ModuleOp module, const CalibrationData &data, MeasuredLayers layers,
    unsigned threads,
    llvm::function_ref<void(size_t, const SeenActivation &)> see) {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return module.emitError("has no function 'main' to run");
  module.getContext()->loadDialect<NibbleDialect>();
  // What comes after the last weight shows nothing.
  PartRun parts(layers == MeasuredLayers::Chosen ? planSegments(main)
                                                 : planWholeRun(main),
                data, threads);
  CodeCache code;
  llvm::StringSet<> shown;
  for (size_t part = 0; part < parts.size(); ++part) {
    OwningOpRef<ModuleOp> copy = buildSegment(module, parts.getSegment(part));
    ProbedPart probed(*copy, layers, shown);
    auto model = compileSegment(*copy, code);
    if (failed(model))
      return failure();
    dropWeightPages(parts.getSegment(part));
    auto runSample = [&](size_t sample, ArrayRef<HostTensor> inputs) {
      return probed.run(**model, inputs,
                        [&](const SeenActivation &seen) { see(sample, seen); });
    };
    if (llvm::Error error = parts.run(part, parts.isRead(part), runSample))
      return module.emitError() << llvm::toString(std::move(error));
    parts.dropAfter(part);
  }
  return success();
}
