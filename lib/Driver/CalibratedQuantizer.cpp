//===- CalibratedQuantizer.cpp - Codes chosen by calibration --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "CalibratedQuantizer.h"

#include "Method.h"
#include "nibble/Calibration/Calibrate.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/QuantizeConstant.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"
#include "nibble/Dialect/Nibble/Transforms/SplitSparseOutliers.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/RecipeQuantizer.h"
#include "nibble/Support/MappedFile.h"
#include "nibble/Support/Progress.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <chrono>

using namespace mlir;
using namespace nibble;

static RecipeOptions getRecipe(const QuantizeCommand &command) {
  RecipeOptions recipe;
  recipe.damping.damping = command.damping;
  Method method = getMethod(command);
  if (method.keepsOutliers)
    recipe.outlierShare = command.outlierShare / 100;
  switch (method.rounding) {
  case Method::Rounding::Nearest:
  case Method::Rounding::Calibrated:
    recipe.rounding = SecondOrderRounding::Nearest;
    recipe.rounds = 0;
    break;
  case Method::Rounding::Gptq:
    recipe.scales = ScaleObjective::MinMax;
    recipe.rounds = 0;
    break;
  case Method::Rounding::Obq:
    recipe.scales = ScaleObjective::MinMax;
    recipe.rounding = SecondOrderRounding::ObqGreedy;
    recipe.rounds = 0;
    break;
  case Method::Rounding::Recipe:
    break;
  }
  return recipe;
}

static RecipeOptions getPlainRecipe(const QuantizeCommand &command) {
  RecipeOptions recipe = getRecipe(command);
  recipe.outlierShare = 0;
  return recipe;
}

/// Why a weight has no outliers; empty where it may have some.
static std::string whyNoOutliers(onnx::ConstantOp constant) {
  auto encoding = constant->getAttrOfType<QuantizedAttr>(kEncodingAttrName);
  if (!isReadByProducts(constant.getResult()))
    return "no outliers are kept apart: not only MatMul and Gemm (without "
           "transA and alpha) read it";
  if (getScheme(encoding).granularity == Granularity::Tensor)
    return "no outliers are kept apart: it has one scale for the tensor";
  return "";
}

namespace {
/// Quantizes the weights of one part of the model after the other.
class PartQuantizer {
public:
  PartQuantizer(const QuantizeCommand &command, size_t weights)
      : command(command), quantizer(getRecipe(command)),
        plainQuantizer(getPlainRecipe(command)),
        progress("quantizing", static_cast<int64_t>(weights), command.quiet) {}

  LogicalResult quantize(ArrayRef<CalibratedWeight> weights,
                         const SegmentStatistics &statistics);
  /// The weights have been quantized before.
  void skip(ArrayRef<CalibratedWeight> weights) {
    for (CalibratedWeight weight : weights)
      progress.begin(weight.constant.getName(), 1);
  }

private:
  LogicalResult quantize(onnx::ConstantOp constant,
                         const WeightStatistics &statistics);

  const QuantizeCommand &command;
  RecipeQuantizer quantizer;
  /// For weights that cannot have outliers, where the method keeps some.
  RecipeQuantizer plainQuantizer;
  Progress progress;
};
} // namespace

LogicalResult PartQuantizer::quantize(onnx::ConstantOp constant,
                                      const WeightStatistics &statistics) {
  using Clock = std::chrono::steady_clock;
  progress.begin(constant.getName(), 1);
  OpOperand &reader = *constant.getResult().use_begin();
  const RecipeQuantizer *chosen = &quantizer;
  if (getMethod(command).keepsOutliers)
    if (std::string why = whyNoOutliers(constant); !why.empty()) {
      addNote(constant, why);
      chosen = &plainQuantizer;
    }
  Clock::time_point begin = Clock::now();
  if (failed(quantizeConstant(constant, *chosen, statistics, command.threads)))
    return failure();
  std::chrono::duration<double> seconds = Clock::now() - begin;
  reader.get().getDefiningOp()->setAttr(
      kSecondsAttrName,
      Builder(reader.getOwner()).getF64FloatAttr(seconds.count()));
  return success();
}

LogicalResult PartQuantizer::quantize(ArrayRef<CalibratedWeight> weights,
                                      const SegmentStatistics &statistics) {
  // Weights that read the same input share what is made of its statistics.
  std::map<std::string, std::shared_ptr<const InputHessian>> hessians;
  for (const CalibratedWeight &weight : weights) {
    WeightStatistics known;
    if (auto it = statistics.find(weight.probe); it != statistics.end()) {
      auto &hessian = hessians[weight.probe];
      if (!hessian)
        hessian = std::make_shared<InputHessian>(it->second.mean(),
                                                 it->second.rows());
      known.hessian = hessian;
    }
    if (failed(quantize(weight.constant, known)))
      return failure();
  }
  return success();
}

//===----------------------------------------------------------------------===//
// The journal
//===----------------------------------------------------------------------===//

static std::string showHash(uint64_t hash) {
  return llvm::utohexstr(hash, /*LowerCase=*/true);
}

/// A hash of the contents of all constants.
static std::string hashWeights(ModuleOp module) {
  std::vector<uint64_t> hashes;
  module.walk([&](onnx::ConstantOp constant) {
    if (auto bytes = onnx::getTensorBytes(constant.getValue()))
      hashes.push_back(hashBytes(bytes->bytes, bytes->mapped));
  });
  return showHash(hashBytes({reinterpret_cast<const char *>(hashes.data()),
                             hashes.size() * sizeof(uint64_t)},
                            /*mapped=*/false));
}

/// A hash of the graph with what its weights are to become.
static std::string hashGraph(ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream os(text);
  module->print(os, OpPrintingFlags().elideLargeResourceString(0));
  return showHash(hashBytes({text.data(), text.size()}, /*mapped=*/false));
}

llvm::Expected<std::unique_ptr<Journal>>
nibble::openJournal(ModuleOp module, const CalibrationData &data,
                    const QuantizeCommand &command) {
  llvm::Expected<uint64_t> dataHash = data.hash();
  if (!dataHash)
    return dataHash.takeError();
  std::string options =
      llvm::formatv("--method {0} --damping {1}{2}", getMethodName(command),
                    command.damping, command.sequential ? " --sequential" : "")
          .str();
  if (getMethod(command).keepsOutliers)
    options += llvm::formatv(" --outlier-share {0}", command.outlierShare);
  JournalFact facts[] = {
      {"program", "nibble " NIBBLE_VERSION, "", "its version is another one"},
      {"weights", hashWeights(module), command.input,
       "its model has other weights"},
      {"graph", hashGraph(module), command.input + ", " + command.scheme,
       "its model or schemes are others"},
      {"data", showHash(*dataHash), command.calibration,
       "its calibration data are others"},
      {"options", options, "", "its options are others"},
  };
  return Journal::open(command.output + ".journal", facts, command.resume);
}

//===----------------------------------------------------------------------===//
// The run
//===----------------------------------------------------------------------===//

static size_t countChosen(ModuleOp module) {
  size_t count = 0;
  module.walk([&](onnx::ConstantOp constant) {
    count += constant->hasAttr(kEncodingAttrName);
  });
  return count;
}

LogicalResult nibble::quantizeCalibrated(ModuleOp module,
                                         const CalibrationData &data,
                                         const QuantizeCommand &command,
                                         Journal &journal) {
  PartQuantizer quantizer(command, countChosen(module));
  auto rewrite = [&](ArrayRef<CalibratedWeight> weights,
                     const SegmentStatistics &statistics) {
    return quantizer.quantize(weights, statistics);
  };
  auto skip = [&](ArrayRef<CalibratedWeight> weights) {
    quantizer.skip(weights);
  };
  CalibrationOptions options;
  options.sequential = command.sequential;
  options.threads = command.threads;
  options.journal = &journal;
  CalibrationEvents events;
  events.restored = skip;
  events.rewrite = rewrite;
  return calibrate(module, data, options, events);
}
