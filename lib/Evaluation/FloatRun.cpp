//===- FloatRun.cpp - A model in parts, some of them changed --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "FloatRun.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/Parallel.h"

#include "llvm/ADT/ScopeExit.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

FailureOr<std::unique_ptr<CompiledModel>>
FloatRun::compile(const Segment &segment, const ChangedWeights &weights,
                  std::vector<DenseResourceElementsHandle> &temporary) const {
  OwningOpRef<ModuleOp> copy = buildSegment(module, segment);
  copy->walk([&](ConstantOp constant) {
    auto it = weights.find(constant.getName());
    if (it == weights.end())
      return;
    std::vector<char> bytes(it->second.size() * sizeof(float));
    std::memcpy(bytes.data(), it->second.data(), bytes.size());
    TypedAttr value =
        makeTensorValue(cast<RankedTensorType>(constant.getType()),
                        constant.getName(), std::move(bytes));
    constant.setValueAttr(value);
    if (auto resource = dyn_cast<DenseResourceElementsAttr>(value))
      temporary.push_back(resource.getRawHandle());
  });
  return compileSegment(*copy, code);
}

llvm::Error FloatRun::runSegment(const Segment &segment,
                                 const CompiledModel &model,
                                 const Values &known, Values &changed) {
  std::vector<HostTensor> inputs;
  for (Value input : segment.inputs) {
    auto it = changed.find(input);
    inputs.push_back(it != changed.end() ? it->second
                                         : known.find(input)->second);
  }
  auto outputs = model.run(inputs);
  if (!outputs)
    return outputs.takeError();
  for (auto [value, output] : llvm::zip(segment.outputs, *outputs))
    changed[value] = std::move(output);
  return llvm::Error::success();
}

/// Runs `body` `count` times on several threads; the first failure is reported.
static LogicalResult
forEachRun(ModuleOp module, size_t count, unsigned threads,
           llvm::function_ref<llvm::Error(size_t index)> body) {
  std::vector<std::string> failures(count);
  parallelFor(count, 1, threads, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index)
      if (llvm::Error error = body(index))
        failures[index] = llvm::toString(std::move(error));
  });
  for (const std::string &failure : failures)
    if (!failure.empty())
      return module.emitError() << "a calibration sample: " << failure;
  return success();
}

FailureOr<std::unique_ptr<FloatRun>>
FloatRun::create(ModuleOp module, const CalibrationData &data, size_t samples,
                 unsigned threads) {
  std::unique_ptr<FloatRun> run(new FloatRun(module));
  auto main = module.lookupSymbol<func::FuncOp>("main");
  run->segments = planWholeRun(main);
  run->samples = samples;
  run->threads = threads;
  run->values.resize(samples);
  for (size_t sample = 0; sample < samples; ++sample) {
    auto tensors = data.getSample(sample);
    if (!tensors)
      return module.emitError() << llvm::toString(tensors.takeError());
    for (auto [argument, tensor] : llvm::zip(main.getArguments(), *tensors))
      run->values[sample][argument] = std::move(tensor);
  }
  for (const Segment &segment : run->segments) {
    std::vector<DenseResourceElementsHandle> none;
    auto model = run->compile(segment, {}, none);
    if (failed(model))
      return failure();
    run->models.push_back(std::move(*model));
    const CompiledModel &compiled = *run->models.back();
    auto runSample = [&](size_t sample) {
      Values none;
      return runSegment(segment, compiled, none, run->values[sample]);
    };
    if (failed(forEachRun(module, samples, threads, runSample)))
      return failure();
  }
  return run;
}

llvm::Error FloatRun::rerunSample(size_t first, const CompiledModel &changed,
                                  size_t sample, Value result,
                                  HostTensor &output) const {
  Values computed;
  for (size_t i = first; i < segments.size(); ++i)
    if (llvm::Error error =
            runSegment(segments[i], i == first ? changed : *models[i],
                       values[sample], computed))
      return error;
  auto it = computed.find(result);
  if (it != computed.end())
    output = std::move(it->second);
  else
    output = getResult(sample, result);
  return llvm::Error::success();
}

FailureOr<std::vector<std::vector<HostTensor>>>
FloatRun::rerun(ArrayRef<Change> changes, Value result) const {
  std::vector<DenseResourceElementsHandle> temporary;
  auto release = llvm::scope_exit([&] {
    for (DenseResourceElementsHandle &handle : temporary)
      *handle.getBlob() = AsmResourceBlob();
  });
  std::vector<std::unique_ptr<CompiledModel>> changed;
  for (const Change &change : changes) {
    auto model = compile(segments[change.first], change.weights, temporary);
    if (failed(model))
      return failure();
    changed.push_back(std::move(*model));
  }
  std::vector<std::vector<HostTensor>> results(
      changes.size(), std::vector<HostTensor>(samples));
  auto run = [&](size_t index) {
    size_t change = index / samples, sample = index % samples;
    return rerunSample(changes[change].first, *changed[change], sample, result,
                       results[change][sample]);
  };
  if (failed(forEachRun(module, changes.size() * samples, threads, run)))
    return failure();
  return results;
}
