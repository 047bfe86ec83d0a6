//===- Quantize.cpp - nibble quantize -------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"
#include "Session.h"
#include "StageFolder.h"
#include "Verify.h"
#include "nibble/Calibration/Calibrate.h"
#include "nibble/Calibration/MeasureActivations.h"
#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/QuantizeConstant.h"
#include "nibble/Dialect/Nibble/Transforms/Round.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Numerics/RecipeQuantizer.h"
#include "nibble/Pipelines/Pipelines.h"
#include "nibble/Report/ModelReport.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Pass/PassManager.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace nibble;

namespace {

/// One run of `nibble quantize`.
class Quantizer {
public:
  explicit Quantizer(const QuantizeCommand &command) : command(command) {}
  int run();

private:
  LogicalResult prepareActivations(ModuleOp module);
  LogicalResult assign(ModuleOp module);
  LogicalResult quantizeWeights(ModuleOp module);
  LogicalResult round(ModuleOp module);
  LogicalResult calibrateAndQuantize(ModuleOp module);
  int checkMethod();
  int writeChecked(ModuleOp module);
  int check(StringRef path, ModuleOp meant);
  void printPlan();
  void printResult();
  void printJSON(StringRef status);
  int reportNothing();

  const QuantizeCommand &command;
  Session session;
  QuantizationPlan plan;
  std::string runtimeNote;
  uint64_t bytesBefore = 0, bytesAfter = 0;
  /// All weights, quantized or not, as the files hold them.
  ModelReport weightsBefore, weightsAfter;
};

} // namespace

/// Globs first: what a user keeps, no rule quantizes.
static std::vector<std::string> collectRules(const QuantizeCommand &command) {
  std::vector<std::string> rules;
  rules.reserve(command.keep.size() + command.rules.size() + 1);
  for (const std::string &glob : command.keep)
    rules.push_back(glob + "=keep");
  rules.insert(rules.end(), command.rules.begin(), command.rules.end());
  if (command.embedding != "keep")
    rules.push_back("op:Gather=" + command.embedding);
  return rules;
}

/// Measures what products read and give, and makes their channels share codes.
LogicalResult Quantizer::prepareActivations(ModuleOp module) {
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  buildFoldPipeline(passes);
  if (failed(passes.run(module)))
    return failure();
  FailureOr<ModelInterface> interface = readInterface(module);
  if (failed(interface))
    return failure();
  auto data =
      CalibrationData::open(command.calibration, *interface, command.samples);
  if (!data) {
    fail(llvm::toString(data.takeError()));
    return failure();
  }
  addPipelineDialects(session.getContext());
  auto ranges = measureActivations(module, *data, command.threads);
  if (failed(ranges))
    return failure();
  equalizeActivations(module, *ranges);
  return success();
}

LogicalResult Quantizer::assign(ModuleOp module) {
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  AssignOptions options;
  options.scheme = command.scheme;
  options.rules = collectRules(command);
  buildAssignPipeline(passes, options);
  if (failed(passes.run(module)))
    return failure();
  plan = collectPlan(module);
  return success();
}

LogicalResult Quantizer::round(ModuleOp module) {
  int64_t parameters = 0;
  module.walk([&](onnx::ConstantOp constant) {
    if (constant->hasAttr(kEncodingAttrName))
      parameters += cast<ShapedType>(constant.getType()).getNumElements();
  });
  Progress progress("rounding", parameters, command.quiet || parameters == 0);
  auto show = [&](StringRef name, int64_t elements) {
    progress.begin(name, elements);
  };
  return failure(
      failed(roundWeights(module, command.search, command.threads, show)));
}

/// `method` with its defaults.
static std::string getMethod(const QuantizeCommand &command) {
  if (!command.method.empty())
    return command.method;
  return command.calibration.empty() || command.activations != "float" ? "round"
                                                                       : "auto";
}

static RecipeOptions getRecipe(const QuantizeCommand &command) {
  RecipeOptions recipe;
  recipe.damping.damping = command.damping;
  if (getMethod(command) == "gptq") {
    recipe.scales = ScaleObjective::MinMax;
    recipe.rounds = 0;
  }
  return recipe;
}

LogicalResult Quantizer::calibrateAndQuantize(ModuleOp module) {
  FailureOr<ModelInterface> interface = readInterface(module);
  if (failed(interface))
    return failure();
  auto data =
      CalibrationData::open(command.calibration, *interface, command.samples);
  if (!data) {
    fail(llvm::toString(data.takeError()));
    return failure();
  }
  addPipelineDialects(session.getContext());
  RecipeQuantizer quantizer(getRecipe(command));
  // A sample of a part and a weight count alike; the parts are not known yet.
  Progress progress("quantizing", plan.weights.size(), command.quiet);
  auto rewrite = [&](ArrayRef<CalibratedWeight> weights,
                     const SegmentStatistics &statistics) -> LogicalResult {
    std::map<std::string, std::shared_ptr<const InputHessian>> hessians;
    for (CalibratedWeight weight : weights) {
      WeightStatistics known;
      if (auto it = statistics.find(weight.probe); it != statistics.end()) {
        auto &hessian = hessians[weight.probe];
        if (!hessian)
          hessian = std::make_shared<InputHessian>(it->second.mean(),
                                                   it->second.rows());
        known.hessian = hessian;
      }
      progress.begin(weight.constant.getName(), 1);
      if (failed(quantizeConstant(weight.constant, quantizer, known,
                                  command.threads)))
        return failure();
    }
    return success();
  };
  CalibrationOptions options;
  options.sequential = command.sequential;
  options.threads = command.threads;
  CalibrationEvents events;
  events.rewrite = rewrite;
  return calibrate(module, *data, options, events);
}

LogicalResult Quantizer::quantizeWeights(ModuleOp module) {
  if (getMethod(command) != "round" && failed(calibrateAndQuantize(module)))
    return failure();
  if (failed(round(module)))
    return failure();
  plan = collectPlan(module);
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  ConvertNibbleToOnnxOptions options;
  options.format = command.format;
  if (command.activations != "float") {
    passes.addPass(createNibbleQuantizeActivations());
    options.format = "qdq";
  }
  options.accuracyLevel = command.accuracyLevel;
  passes.addPass(createConvertNibbleToOnnx(options));
  if (failed(passes.run(module)))
    return failure();
  weightsAfter = describeModel(module);
  return success();
}

int Quantizer::check(StringRef path, ModuleOp meant) {
  OwningOpRef<ModuleOp> written = loadModel(path, &session.getContext());
  if (!written)
    return ExitFailure;
  bytesAfter = getFileSize(path, *written);
  if (auto difference = findDifference(meant, *written))
    return fail("the file that was written differs from what was meant in " +
                *difference + "; this is a bug in Nibble, nothing was kept");
  RuntimeCheck runtime = checkInRuntime(path, command.input);
  switch (runtime.outcome) {
  case RuntimeCheck::Passed:
    runtimeNote = "read back, loaded and run by ONNX Runtime";
    return ExitSuccess;
  case RuntimeCheck::LoadedOnly:
    runtimeNote = "read back and loaded by ONNX Runtime; " + runtime.message;
    return ExitSuccess;
  case RuntimeCheck::Skipped:
    runtimeNote = "read back; not run: " + runtime.message;
    return ExitSuccess;
  case RuntimeCheck::Failed:
    break;
  }
  return fail("ONNX Runtime does not run the quantized model, so nothing was "
              "kept: " +
              runtime.message);
}

int Quantizer::writeChecked(ModuleOp module) {
  auto stage = StageFolder::create(command.output);
  if (!stage)
    return fail(llvm::toString(stage.takeError()));
  ExportOptions options;
  options.externalData = command.externalData;
  if (failed(exportOnnx(module, (*stage)->getPath(), options)))
    return ExitFailure;
  if (int code = check((*stage)->getPath(), module))
    return code;
  if (llvm::Error error = (*stage)->publish())
    return fail(llvm::toString(std::move(error)));
  return ExitSuccess;
}

//===----------------------------------------------------------------------===//
// What the user sees
//===----------------------------------------------------------------------===//

void Quantizer::printPlan() {
  llvm::raw_ostream &os = llvm::outs();
  os << llvm::formatv("{0,-52} {1,-14} {2,-34} {3,10} {4,10}\n", "weight",
                      "shape", "stored as", "before", "after");
  for (const PlannedWeight &weight : plan.weights)
    os << llvm::formatv("{0,-52} {1,-14} {2,-34} {3,10} {4,10}\n", weight.name,
                        weight.shape, weight.scheme,
                        formatBytes(weight.bytesBefore),
                        formatBytes(weight.bytesAfter));
  for (const KeptNode &kept : plan.kept)
    os << "kept: " << kept.node << " (" << kept.opType << "): " << kept.why
       << "\n";
}

void Quantizer::printResult() {
  llvm::raw_ostream &os = llvm::outs();
  uint64_t parameters = 0;
  double total = 0, worst = std::numeric_limits<double>::infinity();
  StringRef worstName;
  for (const PlannedWeight &weight : plan.weights) {
    parameters += weight.parameters;
    double sqnr = weight.sqnr.value_or(0);
    total += sqnr * double(weight.parameters);
    if (sqnr < worst) {
      worst = sqnr;
      worstName = weight.name;
    }
  }
  os << llvm::formatv("{0} weights quantized, {1} of {2} parameters\n",
                      plan.weights.size(), parameters,
                      weightsBefore.parameters);
  os << llvm::formatv("all weights: {0} -> {1}, {2:f2} -> {3:f2} bits each\n",
                      formatBytes(weightsBefore.weightBytes),
                      formatBytes(weightsAfter.weightBytes),
                      weightsBefore.bitsPerWeight(),
                      8.0 * double(weightsAfter.weightBytes) /
                          double(weightsBefore.parameters));
  os << llvm::formatv("signal to noise: {0:f1} dB on average, least {1:f1} dB "
                      "in {2}\n",
                      total / parameters, worst, worstName);
  // One line for each reason, not for each node.
  std::map<std::string, unsigned> reasons;
  for (const KeptNode &kept : plan.kept)
    ++reasons[kept.opType + ": " + kept.why];
  for (auto &[reason, count] : reasons)
    os << "kept in float: " << count << " " << reason << "\n";
  os << llvm::formatv("{0}: {1} -> {2}: {3} ({4:P1})\n", command.input,
                      formatBytes(bytesBefore), command.output,
                      formatBytes(bytesAfter),
                      double(bytesAfter) / double(bytesBefore));
  if (bytesAfter >= bytesBefore)
    llvm::errs() << "warning: the quantized file is no smaller than the "
                    "original\n";
  os << "checked: " << runtimeNote << "\n";
}

void Quantizer::printJSON(StringRef status) {
  llvm::json::Object object = toJSON(plan);
  object["status"] = status;
  object["input"] = command.input;
  object["output"] = command.output;
  object["bytes_before"] = bytesBefore;
  object["parameters"] = weightsBefore.parameters;
  object["weight_bytes_before"] = weightsBefore.weightBytes;
  if (weightsAfter.weightBytes)
    object["weight_bytes_after"] = weightsAfter.weightBytes;
  if (bytesAfter)
    object["bytes_after"] = bytesAfter;
  if (!runtimeNote.empty())
    object["checked"] = runtimeNote;
  llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
               << "\n";
}

int Quantizer::reportNothing() {
  llvm::errs() << "warning: nothing was quantized, and '" << command.output
               << "' was not written: ";
  bool quantized = llvm::any_of(weightsBefore.weights, [](auto &weight) {
    return StringRef(weight.storage).contains("(");
  });
  if (quantized) {
    llvm::errs() << "its weights are quantized already (nibble inspect shows "
                    "how; nibble convert changes their format)\n";
  } else if (plan.kept.empty()) {
    llvm::errs() << "the model has no product with a constant weight\n";
  } else {
    llvm::errs() << "\n";
    for (const KeptNode &kept : plan.kept)
      llvm::errs() << "  " << kept.node << " (" << kept.opType
                   << "): " << kept.why << "\n";
  }
  if (command.json)
    printJSON("nothing quantized");
  return ExitNothingQuantized;
}

//===----------------------------------------------------------------------===//
// The run
//===----------------------------------------------------------------------===//

int Quantizer::checkMethod() {
  if (command.activations != "float" && command.calibration.empty())
    return fail("--activations " + command.activations +
                " needs the ranges of what layers compute; give --calib "
                "DATA.npz, whose arrays are called as the model's inputs");
  if (command.activations != "float" && command.format != "auto" &&
      command.format != "qdq")
    return fail("--activations " + command.activations +
                " is written as QuantizeLinear and DequantizeLinear; leave out "
                "--format " +
                command.format);
  if (command.activations != "float") {
    Result<Scheme> scheme = parseScheme(command.scheme);
    if (!scheme || scheme->storage.bits != 8 || !scheme->symmetric ||
        scheme->granularity == Granularity::Group)
      return fail("--activations " + command.activations +
                  " is for weights of 8 bits with a scale for each channel and "
                  "no zero point, not " +
                  command.scheme + "; add --scheme w8cs");
  }
  if (getMethod(command) == "round" || !command.calibration.empty())
    return ExitSuccess;
  return fail("--method " + getMethod(command) +
              " looks at what the layers compute; give --calib DATA.npz, whose "
              "arrays are called as the model's inputs");
}

int Quantizer::run() {
  bool same = false;
  if (!llvm::sys::fs::equivalent(command.input, command.output, same) && same)
    return fail("'" + command.output +
                "' is the input; choose another name for the output");
  if (int code = checkMethod())
    return code;
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  bytesBefore = getFileSize(command.input, *module);
  weightsBefore = describeModel(*module);
  if (command.activations != "float" && failed(prepareActivations(*module)))
    return ExitFailure;
  if (failed(assign(*module)))
    return ExitFailure;
  if (plan.weights.empty())
    return reportNothing();
  if (command.dryRun) {
    command.json ? printJSON("dry run") : printPlan();
    return ExitSuccess;
  }
  if (failed(quantizeWeights(*module)))
    return ExitFailure;
  if (int code = writeChecked(*module))
    return code;
  command.json ? printJSON("quantized") : printResult();
  return ExitSuccess;
}

int nibble::quantize(const QuantizeCommand &command) {
  return Quantizer(command).run();
}
