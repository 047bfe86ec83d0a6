//===- ProbedModel.cpp - A model that shows its activations ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ProbedModel.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

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

static void insertProbes(func::FuncOp main,
                         std::map<unsigned, std::string> &inputIds) {
  ValueNames names(main);
  auto probe = [&](Value value, bool isLast) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    // Another probe may have seen it.
    if (value.getDefiningOp<ObserveOp>())
      return;
    StringRef name = names.lookup(value);
    if (!type || !type.getElementType().isF32() || name.empty() ||
        getConstantValue(value))
      return;
    if (auto argument = dyn_cast<BlockArgument>(value)) {
      inputIds[argument.getArgNumber()] = getProbeId(name, isLast);
      return;
    }
    OpBuilder builder(main.getContext());
    builder.setInsertionPointAfterValue(value);
    auto observe = ObserveOp::create(builder, value.getLoc(), type,
                                     getProbeId(name, isLast), value);
    value.replaceAllUsesExcept(observe.getResult(), observe);
  };
  SmallVector<NodeOp> nodes(main.getBody().front().getOps<NodeOp>());
  for (NodeOp node : nodes) {
    if (node.isOnnx("Conv")) {
      probe(node.getInputs()[0], /*isLast=*/false);
      probe(node.getResult(0), /*isLast=*/false);
    } else if (node.isOnnx("MatMul") ||
               (node.isOnnx("Gemm") && node.getInt("transA", 0) == 0)) {
      probe(node.getInputs()[0], /*isLast=*/true);
    }
  }
}

FailureOr<ProbedModel> ProbedModel::compile(ModuleOp module) {
  module.getContext()->loadDialect<NibbleDialect>();
  OwningOpRef<ModuleOp> copy = module.clone();
  auto main = copy->lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return module.emitError("has no function 'main' to run");
  ProbedModel result;
  insertProbes(main, result.inputIds);
  CompileOptions options;
  options.reference = false;
  options.compute = "f32";
  options.observe = true;
  auto model = CompiledModel::compile(*copy, options);
  if (failed(model))
    return failure();
  result.model = std::move(*model);
  return result;
}

namespace {
class CallingObserver final : public RunObserver {
public:
  CallingObserver(ArrayRef<std::string> probes, ProbedModel::Callback see)
      : probes(probes), see(see) {}

  void observe(size_t probe, const ObservedTensor &tensor) override {
    see(describe(probes[probe], tensor.shape, tensor.values));
  }

private:
  ArrayRef<std::string> probes;
  ProbedModel::Callback see;
};
} // namespace

llvm::Error ProbedModel::run(ArrayRef<HostTensor> inputs, Callback see) const {
  for (auto &[index, id] : inputIds) {
    const HostTensor &tensor = inputs[index];
    std::vector<float> values(tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data(), tensor.bytes.data(),
                values.size() * sizeof(float));
    see(describe(id, tensor.shape, values));
  }
  CallingObserver observer(model->getProbes(), see);
  return model->run(inputs, &observer).takeError();
}
