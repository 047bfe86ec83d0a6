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
#include "nibble/Numerics/RecipeQuantizer.h"
#include "nibble/Support/Progress.h"

#include <chrono>

using namespace mlir;
using namespace nibble;

static RecipeOptions getRecipe(const QuantizeCommand &command) {
  RecipeOptions recipe;
  recipe.damping.damping = command.damping;
  switch (getMethod(command).rounding) {
  case Method::Rounding::Nearest:
  case Method::Rounding::Calibrated:
    recipe.rounding = SecondOrderRounding::Nearest;
    recipe.rounds = 0;
    break;
  case Method::Rounding::Gptq:
    recipe.scales = ScaleObjective::MinMax;
    recipe.rounds = 0;
    break;
  case Method::Rounding::Recipe:
    break;
  }
  return recipe;
}

namespace {
/// Quantizes the weights of one part of the model after the other.
class PartQuantizer {
public:
  PartQuantizer(const QuantizeCommand &command, size_t weights,
                std::map<std::string, double> &seconds)
      : command(command), quantizer(getRecipe(command)),
        progress("quantizing", static_cast<int64_t>(weights), command.quiet),
        seconds(seconds) {}

  LogicalResult quantize(ArrayRef<CalibratedWeight> weights,
                         const SegmentStatistics &statistics);

private:
  LogicalResult quantize(onnx::ConstantOp constant,
                         const WeightStatistics &statistics);

  const QuantizeCommand &command;
  RecipeQuantizer quantizer;
  Progress progress;
  std::map<std::string, double> &seconds;
};
} // namespace

LogicalResult PartQuantizer::quantize(onnx::ConstantOp constant,
                                      const WeightStatistics &statistics) {
  using Clock = std::chrono::steady_clock;
  std::string name = constant.getName().str();
  progress.begin(name, 1);
  Clock::time_point begin = Clock::now();
  if (failed(
          quantizeConstant(constant, quantizer, statistics, command.threads)))
    return failure();
  seconds[name] = std::chrono::duration<double>(Clock::now() - begin).count();
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

static size_t countChosen(ModuleOp module) {
  size_t count = 0;
  module.walk([&](onnx::ConstantOp constant) {
    count += constant->hasAttr(kEncodingAttrName);
  });
  return count;
}

LogicalResult
nibble::quantizeCalibrated(ModuleOp module, const CalibrationData &data,
                           const QuantizeCommand &command,
                           std::map<std::string, double> &seconds) {
  PartQuantizer quantizer(command, countChosen(module), seconds);
  auto rewrite = [&](ArrayRef<CalibratedWeight> weights,
                     const SegmentStatistics &statistics) {
    return quantizer.quantize(weights, statistics);
  };
  CalibrationOptions options;
  options.sequential = command.sequential;
  options.threads = command.threads;
  CalibrationEvents events;
  events.rewrite = rewrite;
  return calibrate(module, data, options, events);
}
