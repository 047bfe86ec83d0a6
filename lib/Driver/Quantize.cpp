//===- Quantize.cpp - nibble quantize -------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "CalibratedQuantizer.h"
#include "Compile.h"
#include "Method.h"
#include "MixedPrecision.h"
#include "Session.h"
#include "StageFolder.h"
#include "Verify.h"
#include "nibble/Calibration/ChooseRanges.h"
#include "nibble/Calibration/MeasureActivations.h"
#include "nibble/Calibration/ScaleWeights.h"
#include "nibble/Conversion/NibbleToOnnx.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"
#include "nibble/Dialect/Nibble/Transforms/Round.h"
#include "nibble/Dialect/Nibble/Transforms/SplitOutliers.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Evaluation/Evaluate.h"
#include "nibble/Evaluation/MadeUpData.h"
#include "nibble/Onnx/Import.h"
#include "nibble/Pipelines/Pipelines.h"
#include "nibble/Report/QuantizationReport.h"
#include "nibble/Support/OutputFile.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>
#ifdef __GLIBC__
#include <malloc.h>
#endif

using namespace mlir;
using namespace nibble;

/// How many samples are made up for calibration, unless --samples says it, and
/// how many more for judging.
static constexpr size_t kMadeUpSamples = 32, kMadeUpJudges = 4;

namespace {

/// One run of `nibble quantize`.
class Quantizer {
public:
  explicit Quantizer(const QuantizeCommand &command) : command(command) {}
  int run();

private:
  using Clock = std::chrono::steady_clock;

  int runOnce();
  FailureOr<CalibrationData> obtainSamples(ModuleOp module,
                                           const ModelInterface &interface);
  LogicalResult openData(ModuleOp module);
  LogicalResult inlineFunctions(ModuleOp module);
  LogicalResult prepareModel(ModuleOp module);
  LogicalResult openJournal(ModuleOp module);
  LogicalResult scaleWeights(ModuleOp module);
  void warnIfNothing(unsigned changed, StringRef why);
  LogicalResult assign(ModuleOp module);
  LogicalResult quantizeWeights(ModuleOp module);
  LogicalResult round(ModuleOp module);
  LogicalResult quantizeScales(ModuleOp module);
  LogicalResult applyBudget(ModuleOp module);
  LogicalResult evaluateResult(ModuleOp original, ModuleOp quantized);
  int checkMethod();
  int checkOutliers(const Method &method);
  int checkBudget();
  int writeChecked(ModuleOp module);
  int check(StringRef path, ModuleOp meant);
  void printPlan();
  llvm::Error writePage(std::unique_ptr<OutputFile> &page);
  void printResult();
  void printJSON(StringRef status);
  int reportNothing();

  const QuantizeCommand &command;
  Session session;
  Clock::time_point start = Clock::now();
  /// All samples, and those that are not kept for judging; where there is
  /// --calib.
  std::optional<CalibrationData> data, calibration;
  SampleSplit split;
  QuantizationReport report;
  /// Of what calibration has done; where it chooses codes.
  std::unique_ptr<Journal> journal;
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

/// Whether --calib asks for samples that are made up.
static bool isMadeUp(const QuantizeCommand &command) {
  return command.calibration == "random" || command.calibration == "self";
}

/// Reads the samples that --calib names, or makes them up.
FailureOr<CalibrationData>
Quantizer::obtainSamples(ModuleOp module, const ModelInterface &interface) {
  if (!isMadeUp(command)) {
    auto opened = CalibrationData::open(command.calibration, interface);
    if (opened)
      return std::move(*opened);
    fail(llvm::toString(opened.takeError()));
    return failure();
  }
  size_t count = command.samples ? command.samples : kMadeUpSamples;
  count += kMadeUpJudges;
  if (command.calibration == "random")
    return makeRandomData(module, interface, count);
  Progress progress("drawing texts", 1, command.quiet);
  progress.begin("from the model itself", 1);
  return sampleFromModel(module, interface, count, command.threads);
}

static std::string describeSamples(const QuantizeCommand &command,
                                   size_t count) {
  std::string samples = std::to_string(count) + " samples of ";
  if (command.calibration == "random")
    return samples + "random numbers, made up (--calib random): real data "
                     "lose less";
  if (command.calibration == "self")
    return samples + "texts that the model drew from itself (--calib self)";
  return samples + command.calibration;
}

/// Obtains the calibration data, once.
LogicalResult Quantizer::openData(ModuleOp module) {
  if (data)
    return success();
  FailureOr<ModelInterface> interface = readInterface(module);
  if (failed(interface))
    return failure();
  addPipelineDialects(session.getContext());
  FailureOr<CalibrationData> samples = obtainSamples(module, *interface);
  if (failed(samples))
    return failure();
  size_t limit = command.samples;
  if (isMadeUp(command))
    limit = samples->size() - kMadeUpJudges;
  split = splitSamples(samples->size(), limit);
  calibration = samples->takeFirst(split.calibration);
  data = std::move(*samples);
  if (getMethodName(command) != "round" || command.activations != "float")
    report.calibratedOn = describeSamples(command, calibration->size());
  return success();
}

static std::vector<std::string> getFunctionNames(ModuleOp module) {
  std::vector<std::string> names;
  for (auto func : module.getOps<func::FuncOp>())
    if (auto function =
            func->getAttrOfType<onnx::FunctionAttr>(onnx::kFunctionAttrName))
      names.push_back(function.getName() ? function.getName().str() : "");
  return names;
}

/// A function holds no initializers, and what it reads as a weight is often an
/// input of it: functions with products become part of the graph.
LogicalResult Quantizer::inlineFunctions(ModuleOp module) {
  std::vector<std::string> before = getFunctionNames(module);
  if (before.empty())
    return success();
  onnx::OnnxInlineFunctionsOptions options;
  options.opTypes.assign({"MatMul", "Gemm", "Conv", "ConvTranspose", "Gather"});
  options.keepsVersions = true;
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  passes.addPass(onnx::createOnnxInlineFunctions(options));
  if (failed(passes.run(module)))
    return failure();
  std::vector<std::string> after = getFunctionNames(module);
  llvm::copy_if(before, std::back_inserter(report.inlined),
                [&](const std::string &name) {
                  return !llvm::is_contained(after, name);
                });
  return success();
}

/// Says so where the method that was asked for has changed no product. The
/// first step of auto is not asked for by name.
void Quantizer::warnIfNothing(unsigned changed, StringRef why) {
  bool isNamed = !command.method.empty() && command.method != "auto";
  if (changed == 0 && isNamed)
    llvm::errs() << "warning: the first step of --method " << command.method
                 << " changed no product (it is for MatMul and Gemm with "
                    "matrices of f32 that nothing else reads): "
                 << why << "\n";
}

/// Measures what products read and give, takes outliers out and makes channels
/// share codes.
LogicalResult Quantizer::prepareModel(ModuleOp module) {
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  buildFoldPipeline(passes);
  if (failed(passes.run(module)))
    return failure();
  if (failed(openData(module)))
    return failure();
  auto ranges = measureActivations(module, *calibration, MeasuredLayers::All,
                                   command.threads);
  if (failed(ranges))
    return failure();
  if (getMethod(command).preparation == Method::Preparation::SmoothQuant) {
    auto counts = smoothInputs(module, *ranges);
    if (failed(counts))
      return failure();
    warnIfNothing(counts->folded + counts->inserted, "there was no gain");
  }
  if (getMethod(command).preparation == Method::Preparation::LlmInt8)
    warnIfNothing(
        splitOutliers(module, *ranges, command.outlierThreshold).values,
        "none has a few inputs that reach --outlier-threshold");
  if (command.activations != "u8")
    return success();
  equalizeActivations(module, *ranges);
  if (command.observer == RangeObserver::MinMax)
    return success();
  return chooseActivationRanges(module, *calibration, command.observer,
                                command.threads);
}

/// Opens the journal, where calibration chooses codes.
LogicalResult Quantizer::openJournal(ModuleOp module) {
  if (getMethod(command).rounding == Method::Rounding::Nearest)
    return success();
  if (failed(openData(module)))
    return failure();
  auto opened = nibble::openJournal(module, *calibration, command);
  if (!opened) {
    fail(llvm::toString(opened.takeError()));
    return failure();
  }
  journal = std::move(*opened);
  if (journal->countDone() && !command.quiet)
    llvm::errs() << "going on from '" << journal->getFolder()
                 << "': " << journal->countDone()
                 << " units of work are done\n";
  return success();
}

/// Makes the weights that meet large inputs large themselves.
LogicalResult Quantizer::scaleWeights(ModuleOp module) {
  if (failed(openData(module)))
    return failure();
  Progress progress("scaling weights", 1, command.quiet);
  progress.begin("by what they are multiplied with", 1);
  AwqOptions options;
  options.threads = command.threads;
  options.leastBits = getMethod(command).leastBits;
  auto counts =
      nibble::scaleWeights(module, *calibration, options, journal.get());
  if (failed(counts))
    return failure();
  warnIfNothing(counts->folded + counts->inserted, "there was no gain");
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
  report.plan = collectPlan(module);
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

LogicalResult Quantizer::quantizeScales(ModuleOp module) {
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  passes.addPass(createNibbleQuantizeScales());
  return passes.run(module);
}

LogicalResult Quantizer::applyBudget(ModuleOp module) {
  if (!command.hasBudget())
    return success();
  if (failed(openData(module)))
    return failure();
  auto budget =
      assignWithinBudget(module, *calibration, command,
                         *parseScheme(command.scheme), report.bytesBefore);
  if (failed(budget))
    return failure();
  report.budget = std::move(*budget);
  report.plan = collectPlan(module);
  return success();
}

/// What the model was promised to keep, once it can be measured.
int Quantizer::checkBudget() {
  if (command.targetBytes && report.bytesAfter > command.targetBytes)
    return fail("the file takes " + formatBytes(report.bytesAfter) +
                ", more than --target-size " +
                formatBytes(command.targetBytes) + "; nothing was kept");
  for (const OutputReport &output : report.outputs)
    if (auto &divergence = output.quality.divergence;
        divergence && command.maxDivergence > 0 &&
        divergence->mean.mean > command.maxDivergence)
      return fail(
          llvm::formatv("output '{0}' diverges by {1:f4} on {2}, more than "
                        "--max-kl {3}; nothing was kept. Ask for less, or for "
                        "more than {4:f2} bits by --target-bpw",
                        output.name, divergence->mean.mean, report.evaluatedOn,
                        command.maxDivergence,
                        report.budget->chosen.bitsPerWeight)
              .str());
  return ExitSuccess;
}

/// Runs both models on the judges.
LogicalResult Quantizer::evaluateResult(ModuleOp original, ModuleOp quantized) {
  if (failed(openData(original)))
    return failure();
  Progress progress("evaluating", 1, command.quiet);
  progress.begin("float and quantized outputs", 1);
  FailureOr<Evaluation> evaluation =
      evaluate(original, quantized, *data, split.judges, command.threads);
  if (failed(evaluation))
    return failure();
  report.evaluatedOn =
      std::to_string(evaluation->samples) +
      (isMadeUp(command) ? " samples made up as calibration's are"
       : split.isHeldOut ? " samples that calibration has not seen"
                         : " of calibration's own samples, which flatter");
  for (const Evaluation::Output &output : evaluation->outputs)
    report.outputs.push_back({output.name, output.quality});
  for (PlannedWeight &weight : report.plan.weights)
    if (auto it = evaluation->layerErrors.find(weight.name);
        it != evaluation->layerErrors.end())
      weight.heldOutError = it->second;
  return success();
}

LogicalResult Quantizer::quantizeWeights(ModuleOp module) {
  // A promise about outputs is kept by looking at them.
  bool evaluates = (command.evaluate || command.maxDivergence > 0) &&
                   !command.calibration.empty();
  OwningOpRef<ModuleOp> original;
  if (evaluates)
    original = module.clone();
  if (journal &&
      failed(quantizeCalibrated(module, *calibration, command, *journal)))
    return failure();
  if (failed(round(module)))
    return failure();
  if (command.doubleQuantization && failed(quantizeScales(module)))
    return failure();
  report.plan = collectPlan(module);
  ConvertNibbleToOnnxOptions options;
  options.format = command.doubleQuantization ? "qdq" : command.format;
  if (command.activations != "float") {
    PassManager passes(&session.getContext(), ModuleOp::getOperationName());
    NibbleQuantizeActivationsOptions activations;
    activations.mode = command.activations == "u8" ? "static" : "dynamic";
    passes.addPass(createNibbleQuantizeActivations(activations));
    options.format = "qdq";
    if (failed(passes.run(module)))
      return failure();
  }
  if (evaluates && failed(evaluateResult(*original, module)))
    return failure();
  original = nullptr;
  PassManager passes(&session.getContext(), ModuleOp::getOperationName());
  options.accuracyLevel = command.accuracyLevel;
  passes.addPass(createNibbleSplitSparseOutliers());
  passes.addPass(createConvertNibbleToOnnx(options));
  if (failed(passes.run(module)))
    return failure();
  report.weightsAfter = describeModel(module);
  return success();
}

int Quantizer::check(StringRef path, ModuleOp meant) {
  OwningOpRef<ModuleOp> written = importOnnx(path, &session.getContext());
  if (!written)
    return ExitFailure;
  report.bytesAfter = getFileSize(path, *written);
  if (int code = checkBudget())
    return code;
  if (auto difference = findDifference(meant, *written))
    return fail("the file that was written differs from what was meant in " +
                *difference + "; this is a bug in Nibble, nothing was kept");
  RuntimeCheck runtime = checkInRuntime(path, command.input);
  switch (runtime.outcome) {
  case RuntimeCheck::Passed:
    report.checked = "read back, loaded and run by ONNX Runtime";
    return ExitSuccess;
  case RuntimeCheck::LoadedOnly:
    report.checked = "read back and loaded by ONNX Runtime; " + runtime.message;
    return ExitSuccess;
  case RuntimeCheck::Skipped:
    report.checked = "read back; not run: " + runtime.message;
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
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  std::unique_ptr<OutputFile> page;
  llvm::Error error = writePage(page);
  if (!error)
    error = (*stage)->publish();
  if (!error && page)
    error = page->commit();
  return error ? fail(llvm::toString(std::move(error))) : ExitSuccess;
}

/// Writes the page that was asked for, under a temporary name.
llvm::Error Quantizer::writePage(std::unique_ptr<OutputFile> &page) {
  if (command.report.empty())
    return llvm::Error::success();
  auto file = OutputFile::create(command.report);
  if (!file)
    return file.takeError();
  page = std::move(*file);
  printHTML(report, page->getStream());
  return page->finish();
}

//===----------------------------------------------------------------------===//
// What the user sees
//===----------------------------------------------------------------------===//

void Quantizer::printPlan() {
  llvm::raw_ostream &os = llvm::outs();
  os << llvm::formatv("{0,-52} {1,-14} {2,-34} {3,10} {4,10}\n", "weight",
                      "shape", "stored as", "before", "after");
  for (const PlannedWeight &weight : report.plan.weights)
    os << llvm::formatv("{0,-52} {1,-14} {2,-34} {3,10} {4,10}\n", weight.name,
                        weight.shape, weight.scheme,
                        formatBytes(weight.bytesBefore),
                        formatBytes(weight.bytesAfter));
  for (const KeptNode &kept : report.plan.kept)
    os << "kept: " << kept.node << " (" << kept.opType << "): " << kept.why
       << "\n";
}

void Quantizer::printResult() {
  if (command.json)
    return printJSON("quantized");
  printText(report, llvm::outs());
  if (report.bytesAfter >= report.bytesBefore)
    llvm::errs() << "warning: the quantized file is no smaller than the "
                    "original\n";
  llvm::outs() << "checked: " << report.checked << "\n";
}

void Quantizer::printJSON(StringRef status) {
  llvm::json::Object object = toJSON(report.plan);
  object["status"] = status;
  object["input"] = command.input;
  object["output"] = command.output;
  object["bytes_before"] = report.bytesBefore;
  object["parameters"] = report.weightsBefore.parameters;
  object["weight_bytes_before"] = report.weightsBefore.weightBytes;
  if (report.weightsAfter.weightBytes)
    object["weight_bytes_after"] = report.weightsAfter.weightBytes;
  if (report.bytesAfter)
    object["bytes_after"] = report.bytesAfter;
  if (!report.checked.empty())
    object["checked"] = report.checked;
  if (status == "quantized")
    addToJSON(report, object);
  llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
               << "\n";
}

int Quantizer::reportNothing() {
  llvm::errs() << "warning: nothing was quantized, and '" << command.output
               << "' was not written: ";
  bool quantized = llvm::any_of(report.weightsBefore.weights, [](auto &weight) {
    return StringRef(weight.storage).contains("(");
  });
  if (quantized) {
    llvm::errs() << "its weights are quantized already (nibble inspect shows "
                    "how; nibble convert changes their format)\n";
  } else if (report.plan.kept.empty()) {
    llvm::errs() << "the model has no product with a constant weight\n";
  } else {
    llvm::errs() << "\n";
    for (const KeptNode &kept : report.plan.kept)
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

/// What single weights in 16 bits do not go with.
int Quantizer::checkOutliers(const Method &method) {
  if (!method.keepsOutliers)
    return ExitSuccess;
  std::string name = "--method " + command.method;
  if (command.activations != "float")
    return fail(name +
                " keeps weights in 16 bits, which integer products "
                "lack; leave out --activations " +
                command.activations);
  if (command.hasBudget())
    return fail("a budget (--target-bpw, --target-size, --max-kl) does not "
                "count what " +
                name + " keeps apart; leave out one of them");
  Result<Scheme> scheme = parseScheme(command.scheme);
  if (scheme && scheme->granularity == Granularity::Tensor)
    return fail(name + " is for scales of groups or channels; " +
                command.scheme + " has one for the tensor, take " +
                command.scheme.substr(0, command.scheme.find('t')) +
                "c or add g128");
  return ExitSuccess;
}

int Quantizer::checkMethod() {
  if (command.activations == "u8" && command.calibration.empty())
    return fail("--activations " + command.activations +
                " needs the ranges of what layers compute; give --calib "
                "DATA.npz, whose arrays are called as the model's inputs");
  if (command.activations != "float" && command.format != "auto" &&
      command.format != "qdq")
    return fail("--activations " + command.activations +
                " is written as ops on codes of activations; leave out "
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
  if (command.doubleQuantization && command.format != "auto" &&
      command.format != "qdq")
    return fail("--double-quantization is written as DequantizeLinear, whose "
                "scales may be computed; leave out --format " +
                command.format);
  if (command.hasBudget() && command.calibration.empty())
    return fail("a budget (--target-bpw, --target-size, --max-kl) is spent by "
                "what the layers compute; give --calib DATA.npz, whose arrays "
                "are called as the model's inputs");
  if (command.hasBudget() &&
      (command.activations != "float" || command.doubleQuantization ||
       (command.format != "auto" && command.format != "matmulnbits")))
    return fail("a budget chooses between schemes of MatMulNBits; leave out "
                "--activations, --double-quantization and --format");
  Method method = getMethod(command);
  if (method.preparation == Method::Preparation::SmoothQuant &&
      command.activations == "float")
    return fail("--method " + command.method +
                " makes activations easier to quantize at the weights' "
                "expense; add --activations u8 or dynamic, or take awq");
  if (int code = checkOutliers(method))
    return code;
  if (method.preparation == Method::Preparation::Awq &&
      command.activations == "u8")
    return fail("--method " + command.method +
                " changes inputs after their ranges were taken for "
                "--activations u8; take smoothquant, or --activations dynamic");
  if (!method.needsData() || !command.calibration.empty())
    return ExitSuccess;
  return fail("--method " + getMethodName(command) +
              " looks at what the layers compute; give --calib DATA.npz, whose "
              "arrays are called as the model's inputs");
}

/// Whether `path` may be replaced by a model: no device and no link.
static llvm::Error checkReplaceable(StringRef path) {
  llvm::sys::fs::file_status status;
  if (llvm::sys::fs::status(path, status, /*follow=*/false) ||
      status.type() == llvm::sys::fs::file_type::regular_file)
    return llvm::Error::success();
  return llvm::createStringError("cannot write '" + path +
                                 "': it is there and no regular file; name "
                                 "another one");
}

/// Whether a file may be made where `path` says.
static llvm::Error checkFolder(StringRef path) {
  StringRef folder = llvm::sys::path::parent_path(path);
  if (folder.empty())
    return llvm::Error::success();
  std::error_code error =
      llvm::sys::fs::access(folder, llvm::sys::fs::AccessMode::Write);
  return error ? llvm::createStringError(error, "cannot write '" + path +
                                                    "': " + error.message())
               : llvm::Error::success();
}

int Quantizer::runOnce() {
  bool same = false;
  if (!llvm::sys::fs::equivalent(command.input, command.output, same) && same)
    return fail("'" + command.output +
                "' is the input; choose another name for the output");
  if (int code = checkMethod())
    return code;
  // Before hours of work, not after them.
  if (llvm::Error error = checkReplaceable(command.output))
    return fail(llvm::toString(std::move(error)));
  for (const std::string &path : {command.output, command.report})
    if (llvm::Error error = checkFolder(path))
      return fail(llvm::toString(std::move(error)));
  report.input = command.input;
  report.output = command.output;
  report.scheme = command.scheme;
  report.method = getMethodName(command);
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  report.bytesBefore = getFileSize(command.input, *module);
  // Before IR version 4 a weight that is a Constant node could not become an
  // initializer.
  onnx::requireFreeInitializers(*module);
  if (failed(inlineFunctions(*module)))
    return ExitFailure;
  report.weightsBefore = describeModel(*module);
  bool preparesModel = command.activations == "u8" ||
                       llvm::is_contained({Method::Preparation::SmoothQuant,
                                           Method::Preparation::LlmInt8},
                                          getMethod(command).preparation);
  if (preparesModel && failed(prepareModel(*module)))
    return ExitFailure;
  if (failed(assign(*module)))
    return ExitFailure;
  if (report.plan.weights.empty())
    return reportNothing();
  if (failed(applyBudget(*module)))
    return ExitFailure;
  if (command.dryRun) {
    command.json ? printJSON("dry run") : printPlan();
    return ExitSuccess;
  }
  if (failed(openJournal(*module)))
    return ExitFailure;
  if (getMethod(command).preparation == Method::Preparation::Awq &&
      failed(scaleWeights(*module)))
    return ExitFailure;
  if (failed(quantizeWeights(*module)))
    return ExitFailure;
  if (int code = writeChecked(*module))
    return code;
  printResult();
  return ExitSuccess;
}

/// Has large blocks go back to the system when they are freed: what is kept
/// between the buffers of runs would pin them in the heaps of their threads.
static void boundFreeMemory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

/// Runs, and keeps the journal of a run that does not come to its end.
int Quantizer::run() {
  boundFreeMemory();
  int code = runOnce();
  if (journal && code == ExitSuccess)
    journal->remove();
  else if (journal && journal->countDone())
    llvm::errs() << "note: what is done is kept in '" << journal->getFolder()
                 << "': go on with the same command and --resume, or remove "
                    "it\n";
  return code;
}

int nibble::quantize(const QuantizeCommand &command) {
  return Quantizer(command).run();
}
