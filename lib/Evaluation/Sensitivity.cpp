//===- Sensitivity.cpp - What each weight costs the model -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Evaluation/Sensitivity.h"

#include "FloatRun.h"
#include "Outputs.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/Packing.h"
#include "nibble/Numerics/RecipeQuantizer.h"

#include "llvm/ADT/MapVector.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Samples that errors are measured on, and columns of each weight, which are
/// quantized independently of each other.
static constexpr size_t kErrorSamples = 8, kErrorColumns = 128;
/// Rows of the output that losses are measured on, and samples at most.
static constexpr size_t kLossRows = 512, kLossSamples = 16;
/// Groups whose losses are measured at once.
static constexpr size_t kBatch = 4;
/// Scheme of the perturbation that losses are measured with.
static constexpr const char *kPerturbation = "w3g128";

namespace {
/// A matrix as the algorithms take it, [K, N].
struct Matrix {
  std::vector<float> values;
  MatrixView view;
};

/// Weights that read the same input.
struct Group {
  StringRef probe;
  std::vector<size_t> weights;
  size_t segment = 0;
};

class Sensitivities {
public:
  Sensitivities(ModuleOp module, const CalibrationData &data,
                const SensitivityOptions &options)
      : module(module), data(data), options(options) {}
  FailureOr<std::vector<WeightSensitivity>> measure();

private:
  LogicalResult measureErrors();
  LogicalResult measureErrors(const CalibratedWeight &weight,
                              const InputHessian &hessian);
  LogicalResult measureLosses();
  FailureOr<FloatRun::Change> perturb(const Group &group);
  void scaleLosses(const Group &group, double loss);
  void show(StringRef item) {
    if (options.progress)
      options.progress(item, step, steps);
    ++step;
  }

  ModuleOp module;
  const CalibrationData &data;
  const SensitivityOptions &options;
  std::vector<WeightSensitivity> weights;
  /// By weight: the error of the perturbation.
  std::vector<double> perturbations;
  /// By weight.
  std::vector<std::string> probes;
  size_t step = 0, steps = 0;
};
} // namespace

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

static std::optional<Matrix> readMatrix(ConstantOp constant) {
  auto type = dyn_cast<RankedTensorType>(constant.getType());
  auto values = getFloats(getConstantValue(constant.getResult()));
  if (!type || type.getRank() != 2 || !values)
    return std::nullopt;
  Matrix matrix;
  matrix.values = std::move(*values);
  size_t rows = type.getDimSize(0), cols = type.getDimSize(1);
  matrix.view = getChosenAxis(constant) == 1
                    ? MatrixView::columnMajor(matrix.values.data(), cols, rows)
                    : MatrixView::rowMajor(matrix.values.data(), rows, cols);
  return matrix;
}

/// Up to kErrorColumns of the columns, evenly spaced.
static Matrix takeColumns(const MatrixView &view) {
  Matrix part;
  size_t count = std::min(view.cols, kErrorColumns);
  part.values.resize(view.rows * count);
  for (size_t row = 0; row < view.rows; ++row)
    for (size_t i = 0; i < count; ++i)
      part.values[row * count + i] = view.at(row, i * view.cols / count);
  part.view = MatrixView::rowMajor(part.values.data(), view.rows, count);
  return part;
}

/// Plain rounding: what the perturbation is.
static RecipeOptions getPerturbation() {
  RecipeOptions recipe;
  recipe.rounding = SecondOrderRounding::Nearest;
  recipe.scales = ScaleObjective::MinMax;
  recipe.rounds = 0;
  return recipe;
}

/// Bytes of the codes, scales and zero points of a [K, N] weight as MatMulNBits
/// holds them; the candidates have groups and codes of 2, 4 or 8 bits.
static uint64_t countStoredBytes(const Scheme &scheme, uint64_t K, uint64_t N) {
  MatMulNBitsShape shape;
  shape.K = K;
  shape.N = N;
  shape.blockSize = scheme.groupSize;
  shape.bits = scheme.storage.bits;
  uint64_t scaleBytes = scheme.scaleFormat == FloatFormat::F32 ? 4 : 2;
  return shape.weightBytes() + N * shape.blocks() * scaleBytes +
         (scheme.symmetric ? 0 : shape.zeroPointBytes());
}

//===----------------------------------------------------------------------===//
// Errors of layers
//===----------------------------------------------------------------------===//

LogicalResult Sensitivities::measureErrors(const CalibratedWeight &weight,
                                           const InputHessian &hessian) {
  std::optional<Matrix> matrix = readMatrix(weight.constant);
  // Not ours to report: whoever quantizes it does.
  if (!matrix || matrix->view.rows != hessian.size())
    return success();
  WeightSensitivity sensitivity;
  sensitivity.constant = weight.constant;
  Matrix part = takeColumns(matrix->view);
  WeightStatistics statistics;
  statistics.hessian =
      std::shared_ptr<const InputHessian>(&hessian, [](auto *) {});
  auto getError = [&](const RecipeOptions &recipe,
                      const Scheme &scheme) -> FailureOr<double> {
    Result<QuantizedWeight> result = RecipeQuantizer(recipe).quantize(
        part.view, statistics, scheme, options.threads);
    if (!result)
      return weight.constant->emitError("tensor '")
             << ConstantOp(weight.constant).getName()
             << "': " << result.error();
    // Without a Hessian: of the weight itself.
    if (!result->usesHessian)
      return result->matrix.squaredError /
             std::max(result->matrix.squaredNorm, 1e-300);
    return result->losses.output;
  };
  RecipeOptions gptq;
  gptq.rounds = 0;
  for (const Scheme &candidate : options.candidates) {
    FailureOr<double> error = getError(gptq, candidate);
    if (failed(error))
      return failure();
    sensitivity.losses.push_back(*error);
    sensitivity.bytes.push_back(
        countStoredBytes(candidate, matrix->view.rows, matrix->view.cols));
  }
  FailureOr<double> perturbed =
      getError(getPerturbation(), *parseScheme(kPerturbation));
  if (failed(perturbed))
    return failure();
  perturbations.push_back(*perturbed);
  probes.push_back(weight.probe);
  weights.push_back(std::move(sensitivity));
  return success();
}

LogicalResult Sensitivities::measureErrors() {
  CalibrationData some = data.takeFirst(kErrorSamples);
  auto rewrite = [&](ArrayRef<CalibratedWeight> found,
                     const SegmentStatistics &statistics) -> LogicalResult {
    std::map<std::string, std::unique_ptr<InputHessian>> hessians;
    for (const CalibratedWeight &weight : found) {
      show(ConstantOp(weight.constant).getName());
      auto it = statistics.find(weight.probe);
      if (it == statistics.end())
        continue;
      auto &hessian = hessians[weight.probe];
      if (!hessian)
        hessian = std::make_unique<InputHessian>(it->second.mean(),
                                                 it->second.rows());
      if (failed(measureErrors(weight, *hessian)))
        return failure();
    }
    return success();
  };
  CalibrationOptions calibration;
  calibration.threads = options.threads;
  CalibrationEvents events;
  events.rewrite = rewrite;
  return calibrate(module, some, calibration, events);
}

//===----------------------------------------------------------------------===//
// Losses of the model
//===----------------------------------------------------------------------===//

static const OutputMeaning *
chooseOutput(const std::vector<OutputMeaning> &meanings) {
  for (const OutputMeaning &meaning : meanings)
    if (meaning.kind != OutputKind::Numbers)
      return &meaning;
  return meanings.empty() ? nullptr : &meanings.front();
}

bool nibble::hasDistributions(ModuleOp module) {
  std::vector<OutputMeaning> meanings = findOutputMeanings(module);
  const OutputMeaning *output = chooseOutput(meanings);
  return output && output->kind != OutputKind::Numbers;
}

/// How many samples have kLossRows rows of the output together.
static size_t countLossSamples(const HostTensor &output, size_t available) {
  size_t rows = 1;
  for (int64_t extent : ArrayRef(output.shape).drop_back())
    rows *= extent;
  size_t wanted = llvm::divideCeil(kLossRows, std::max<size_t>(rows, 1));
  return std::min({wanted, kLossSamples, available});
}

static double getLoss(const OutputQuality &quality) {
  return quality.divergence ? quality.divergence->mean.mean
                            : std::pow(10.0, -quality.sqnr / 10);
}

/// All weights of a group, rounded.
FailureOr<FloatRun::Change> Sensitivities::perturb(const Group &group) {
  FloatRun::Change change;
  change.first = group.segment;
  Scheme scheme = *parseScheme(kPerturbation);
  for (size_t index : group.weights) {
    ConstantOp constant = weights[index].constant;
    std::optional<Matrix> matrix = readMatrix(constant);
    Result<QuantizedWeight> rounded =
        RoundingQuantizer(ScaleSearch::MinMax)
            .quantize(matrix->view, {}, scheme, options.threads);
    if (!rounded)
      return constant.emitError("tensor '")
             << constant.getName() << "': " << rounded.error();
    std::vector<float> values(matrix->values.size());
    dequantize(rounded->matrix, values.data(), matrix->view.rowStride,
               matrix->view.colStride, options.threads);
    change.weights[constant.getName()] = std::move(values);
  }
  return change;
}

/// How far outputs, by sample, are from those of the float model.
static double measureLoss(const FloatRun &run, const OutputMeaning &output,
                          Value result, ArrayRef<HostTensor> changed) {
  OutputComparison comparison(output.kind);
  for (auto [sample, after] : llvm::enumerate(changed)) {
    OutputRows left =
        takeRows(output, run.getResult(sample, result), {}, kLossRows);
    OutputRows right = takeRows(output, after, {}, kLossRows);
    for (size_t row = 0; row < left.targets.size(); ++row)
      comparison.addRow(&left.values[row * left.width],
                        &right.values[row * left.width], left.width);
  }
  return getLoss(comparison.summarize());
}

/// The groups, each with the segment that reads its weights.
static std::vector<Group> findGroups(ArrayRef<WeightSensitivity> weights,
                                     ArrayRef<std::string> probes,
                                     ArrayRef<Segment> segments) {
  llvm::DenseMap<Operation *, size_t> places;
  for (size_t i = 0; i < segments.size(); ++i)
    for (Operation *node : segments[i].nodes)
      node->walk([&](NodeOp inner) {
        if (ConstantOp constant = getChosenWeight(inner))
          places.try_emplace(constant, i);
      });
  llvm::MapVector<StringRef, Group> groups;
  for (auto [index, weight] : llvm::enumerate(weights)) {
    Group &group = groups[probes[index]];
    group.probe = probes[index];
    group.weights.push_back(index);
    group.segment = places.lookup(ConstantOp(weight.constant));
  }
  std::vector<Group> list;
  for (auto &entry : groups)
    list.push_back(std::move(entry.second));
  return list;
}

LogicalResult Sensitivities::measureLosses() {
  std::vector<OutputMeaning> meanings = findOutputMeanings(module);
  OutputMeaning output;
  if (const OutputMeaning *chosen = chooseOutput(meanings))
    output = *chosen;
  else
    return module.emitError("the model has no output of floats, so nothing "
                            "says what a weight costs it");
  // Targets do not matter here.
  output.tokens.reset();
  auto main = module.lookupSymbol<func::FuncOp>("main");
  Value result =
      main.getBody().front().getTerminator()->getOperand(output.index);
  auto probe = FloatRun::create(module, data, 1, options.threads);
  if (failed(probe))
    return failure();
  size_t samples =
      countLossSamples((*probe)->getResult(0, result), data.size());
  FailureOr<std::unique_ptr<FloatRun>> run = std::move(probe);
  if (samples > 1)
    run = FloatRun::create(module, data, samples, options.threads);
  if (failed(run))
    return failure();

  std::vector<Group> groups =
      findGroups(weights, probes, (*run)->getSegments());
  steps = step + groups.size();
  for (size_t begin = 0; begin < groups.size(); begin += kBatch) {
    auto batch =
        ArrayRef(groups).slice(begin, std::min(kBatch, groups.size() - begin));
    std::vector<FloatRun::Change> changes;
    for (const Group &group : batch) {
      show(group.probe);
      FailureOr<FloatRun::Change> change = perturb(group);
      if (failed(change))
        return failure();
      changes.push_back(std::move(*change));
    }
    auto results = (*run)->rerun(changes, result);
    if (failed(results))
      return failure();
    for (auto [group, outputs] : llvm::zip(batch, *results))
      scaleLosses(group, measureLoss(**run, output, result, outputs));
  }
  return success();
}

/// Makes losses of the group's errors; `loss` is that of its perturbation.
void Sensitivities::scaleLosses(const Group &group, double loss) {
  double error = 0;
  for (size_t index : group.weights)
    error += perturbations[index];
  for (size_t index : group.weights)
    for (double &value : weights[index].losses)
      value *= error > 0 ? loss / error : 0;
}

FailureOr<std::vector<WeightSensitivity>> Sensitivities::measure() {
  module.walk([&](ConstantOp constant) {
    // Half of the work, roughly, is the groups'.
    steps += constant->hasAttr(kEncodingAttrName) ? 2 : 0;
  });
  if (failed(measureErrors()) || failed(measureLosses()))
    return failure();
  return std::move(weights);
}

FailureOr<std::vector<WeightSensitivity>>
nibble::measureSensitivities(ModuleOp module, const CalibrationData &data,
                             const SensitivityOptions &options) {
  return Sensitivities(module, data, options).measure();
}
