//===- SimulatedModel.cpp - A model on a simulated GPU --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "SimulatedModel.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Pipelines/Reference.h"
#include "nibble/Target/NVVM/NvidiaRow.h"

#include "mlir/Pass/PassManager.h"

using namespace mlir;
using namespace nibble;
using llvm::Expected;

Expected<std::string> nibble::getDeviceTarget(StringRef target) {
  std::string name = target == "native" ? "nvidia-sm80" : target.str();
  if (!findNvidiaRow(name))
    return llvm::createStringError(
        llvm::inconvertibleErrorCode(),
        "--target " + name + ": no such GPU; there are " + listNvidiaRows());
  return name;
}

void SimulatedModel::describeInputs() {
  shapes.resize(interface.inputs.size());
  dimensions.resize(interface.inputs.size());
  for (auto [i, input] : llvm::enumerate(interface.inputs)) {
    for (const onnx::Dimension &dimension : onnx::getDimensions(input.type)) {
      shapes[i].push_back(dimension.isStatic() ? dimension.size : -1);
      dimensions[i].push_back(dimension.symbol && dimension.symbol != "?"
                                  ? dimension.symbol.data()
                                  : nullptr);
    }
    DataType type = getDataType(input.type.getElementType());
    inputs.push_back({input.name.c_str(),
                      {type.code, type.bits, 1},
                      static_cast<int32_t>(shapes[i].size()),
                      shapes[i].data(),
                      dimensions[i].data(),
                      0});
  }
}

FailureOr<std::unique_ptr<SimulatedModel>>
SimulatedModel::compile(ModuleOp module, const std::string &target) {
  PassManager passes(module.getContext());
  buildShapesPipeline(passes);
  if (failed(passes.run(module)))
    return failure();
  FailureOr<ModelInterface> interface = readInterface(module);
  if (failed(interface))
    return failure();
  CompileOptions options;
  options.reference = false;
  options.device = target;
  auto model = CompiledModel::compile(module, options);
  if (failed(model))
    return failure();
  std::unique_ptr<SimulatedModel> simulated(new SimulatedModel());
  simulated->interface = std::move(*interface);
  simulated->model = std::move(*model);
  simulated->describeInputs();
  return simulated;
}

Expected<std::vector<NpyArray>>
SimulatedModel::run(ArrayRef<NpyArray> arrays) const {
  std::vector<HostTensor> tensors;
  for (auto [input, array] : llvm::zip_equal(interface.inputs, arrays))
    tensors.push_back({input.type.getElementType(), array.shape, array.bytes});
  auto results = model->run(tensors);
  if (!results)
    return results.takeError();
  std::vector<NpyArray> outputs;
  for (auto [output, result] : llvm::zip_equal(interface.outputs, *results)) {
    DataType type = getDataType(output.type.getElementType());
    outputs.push_back({output.name, getNumpyKind(type.code, type.bits),
                       result.shape, std::move(result.bytes)});
  }
  return outputs;
}
