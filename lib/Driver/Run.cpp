//===- Run.cpp - nibble run -----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"
#include "LoadedModel.h"
#include "Session.h"
#include "SimulatedModel.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Tools/ModelFile.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace nibble;
using llvm::Expected;

InputOptions nibble::getInputOptions(const InputArguments &arguments) {
  InputOptions options;
  options.path = arguments.inputs;
  options.random = arguments.random;
  options.seed = arguments.seed;
  options.dimensions = arguments.dimensions;
  return options;
}

std::optional<PreparedRun> nibble::prepareRun(StringRef path, ModuleOp module,
                                              const CacheOptions &options,
                                              const InputArguments &arguments) {
  PreparedRun prepared;
  prepared.model = loadCompiled(path, module, options);
  if (!prepared.model)
    return std::nullopt;
  auto inputs =
      makeInputs(prepared.model->getInputs(), getInputOptions(arguments));
  if (!inputs) {
    fail(llvm::toString(inputs.takeError()));
    return std::nullopt;
  }
  prepared.inputs = std::move(*inputs);
  return prepared;
}

/// Writes and shows what a model has made of `inputs`.
static int finishRun(const RunCommand &command, ArrayRef<NpyArray> inputs,
                     Expected<std::vector<NpyArray>> outputs) {
  if (!outputs)
    return fail(command.input + ": " + llvm::toString(outputs.takeError()));
  if (!command.outputs.empty())
    if (llvm::Error error = writeNpz(command.outputs, *outputs))
      return fail(llvm::toString(std::move(error)));
  if (command.json) {
    auto describe = [](ArrayRef<NpyArray> arrays) {
      llvm::json::Array list;
      for (const NpyArray &array : arrays)
        list.push_back(
            llvm::json::Object{{"name", array.name},
                               {"type", describeArray(array.kind, array.shape)},
                               {"shape", llvm::json::Array(array.shape)}});
      return list;
    };
    llvm::outs() << llvm::formatv(
        "{0:2}\n",
        llvm::json::Value(llvm::json::Object{{"inputs", describe(inputs)},
                                             {"outputs", describe(*outputs)}}));
    return ExitSuccess;
  }
  if (command.quiet)
    return ExitSuccess;
  auto show = [](StringRef kind, ArrayRef<NpyArray> arrays) {
    for (const NpyArray &array : arrays)
      llvm::outs() << kind << array.name << "  "
                   << describeArray(array.kind, array.shape) << "\n";
  };
  show("input   ", inputs);
  show("output  ", *outputs);
  return ExitSuccess;
}

int nibble::run(const RunCommand &command) {
  Session session;
  addPipelineDialects(session.getContext());
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  CacheOptions cache;
  cache.target = command.target;
  cache.disabled = command.noCache;
  if (command.device != "cpu") {
    auto target = getDeviceTarget(command.target);
    if (!target)
      return fail(llvm::toString(target.takeError()));
    cache.target = *target;
  }
  if (command.device == "simulator") {
    auto simulated = SimulatedModel::compile(*module, cache.target);
    if (failed(simulated))
      return ExitFailure;
    auto inputs = makeInputs((*simulated)->getInputs(),
                             getInputOptions(command.arguments));
    if (!inputs)
      return fail(llvm::toString(inputs.takeError()));
    return finishRun(command, *inputs, (*simulated)->run(*inputs));
  }
  auto prepared = prepareRun(command.input, *module, cache, command.arguments);
  if (!prepared)
    return ExitFailure;
  return finishRun(command, prepared->inputs,
                   prepared->model->run(prepared->inputs));
}
