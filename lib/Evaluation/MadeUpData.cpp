//===- MadeUpData.cpp - Samples for those who have none -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Evaluation/MadeUpData.h"

#include "Outputs.h"
#include "nibble/Calibration/Segments.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Numerics/FloatFormats.h"
#include "nibble/Numerics/Parallel.h"
#include "nibble/Support/Random.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <cmath>
#include <cstring>
#include <limits>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// How many tokens follow the first one without chance.
static constexpr int64_t kLikeliest = 3;
/// As exporters of language models name them.
static constexpr StringRef kMask = "attention_mask",
                           kPositions = "position_ids";

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

static HostTensor makeTensor(Type elementType, std::vector<int64_t> shape) {
  DataType data = getDataType(elementType);
  size_t bytes = data.bits / 8;
  for (int64_t extent : shape)
    bytes *= extent;
  return {elementType, std::move(shape), std::vector<char>(bytes)};
}

static size_t countElements(const HostTensor &tensor) {
  return tensor.bytes.size() / (getDataType(tensor.elementType).bits / 8);
}

/// Little-endian: the low bytes of a 64-bit integer.
static void setInteger(HostTensor &tensor, size_t index, int64_t value) {
  size_t size = getDataType(tensor.elementType).bits / 8;
  std::memcpy(&tensor.bytes[index * size], &value, size);
}

static void setFloat(HostTensor &tensor, size_t index, double value) {
  float single = static_cast<float>(value);
  if (tensor.elementType.isF64()) {
    std::memcpy(&tensor.bytes[index * sizeof(double)], &value, sizeof(double));
  } else if (tensor.elementType.isF32()) {
    std::memcpy(&tensor.bytes[index * sizeof(float)], &single, sizeof(float));
  } else {
    auto format =
        tensor.elementType.isF16() ? FloatFormat::F16 : FloatFormat::BF16;
    uint16_t code;
    encodeArray(format, &single, 1, &code);
    std::memcpy(&tensor.bytes[index * sizeof(code)], &code, sizeof(code));
  }
}

/// Ones for a mask, 0, 1, 2 … along the last dimension for positions. False
/// where `name` is neither.
static bool fillByName(StringRef name, HostTensor &tensor) {
  if ((name != kMask && name != kPositions) || tensor.shape.empty() ||
      !isa<IntegerType>(tensor.elementType))
    return false;
  for (size_t i = 0; i < countElements(tensor); ++i)
    setInteger(tensor, i,
               name == kMask ? 1
                             : static_cast<int64_t>(i % tensor.shape.back()));
  return true;
}

/// Rows of the constant table that `value` chooses from; 0: none.
static int64_t countTableRows(Value value) {
  for (OpOperand &use : value.getUses()) {
    auto node = dyn_cast<NodeOp>(use.getOwner());
    if (!node)
      continue;
    if (node.isOnnx("Cast") || node.isOnnx("Identity")) {
      if (int64_t rows = countTableRows(node.getResult(0)))
        return rows;
    } else if (node.isOnnx("Gather") && use.getOperandNumber() == 1 &&
               getConstantValue(node.getInputs()[0]) &&
               node.getInt("axis", 0) == 0) {
      auto type = cast<RankedTensorType>(node.getInputs()[0].getType());
      return type.getDimSize(0);
    }
  }
  return 0;
}

//===----------------------------------------------------------------------===//
// Random inputs
//===----------------------------------------------------------------------===//

/// Sizes for the dimensions that the model leaves open, by symbol.
static std::vector<int64_t>
chooseShape(RankedTensorType type, llvm::DenseMap<Attribute, int64_t> &sizes) {
  std::vector<int64_t> shape;
  for (auto [axis, dimension] : llvm::enumerate(getDimensions(type))) {
    int64_t open = axis == 0 ? 1 : kMadeUpLength;
    if (dimension.isStatic())
      shape.push_back(dimension.size);
    else if (!dimension.symbol)
      shape.push_back(open);
    else
      shape.push_back(sizes.try_emplace(dimension.symbol, open).first->second);
  }
  return shape;
}

/// A pair of uniform numbers as a normal one (Box and Muller, 1958).
static double drawNormal(Random &random) {
  double radius = std::sqrt(-2 * std::log(1 - random.draw()));
  return radius * std::cos(2 * M_PI * random.draw());
}

static void fillRandom(HostTensor &tensor, int64_t rows, Random &random) {
  bool isFloat = isa<FloatType>(tensor.elementType);
  int64_t choices = rows > 0 ? rows : 2;
  for (size_t i = 0; i < countElements(tensor); ++i) {
    if (isFloat)
      setFloat(tensor, i, drawNormal(random));
    else
      setInteger(tensor, i,
                 static_cast<int64_t>(random.draw() * double(choices)));
  }
}

FailureOr<CalibrationData> nibble::makeRandomData(ModuleOp module,
                                                  const ModelInterface &model,
                                                  size_t samples) {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  Random random(1);
  std::vector<std::vector<HostTensor>> made(samples);
  for (std::vector<HostTensor> &sample : made) {
    llvm::DenseMap<Attribute, int64_t> sizes;
    for (auto [index, input] : llvm::enumerate(model.inputs)) {
      Type element = input.type.getElementType();
      bool isKnown = element.isF64() || element.isF32() || element.isF16() ||
                     element.isBF16() || isa<IntegerType>(element);
      if (!isKnown)
        return module.emitError()
               << "input '" << input.name << "' has elements of type "
               << element << ", which --calib random cannot make up; give "
               << "--calib DATA.npz";
      sample.push_back(makeTensor(element, chooseShape(input.type, sizes)));
      if (!fillByName(input.name, sample.back()))
        fillRandom(sample.back(), countTableRows(main.getArgument(index)),
                   random);
    }
  }
  return CalibrationData::fromSamples(model, std::move(made));
}

//===----------------------------------------------------------------------===//
// Texts of the model's own
//===----------------------------------------------------------------------===//

namespace {

/// Draws texts from a language model.
class TextSampler {
public:
  TextSampler(ModuleOp module, const ModelInterface &model)
      : module(module), model(model) {}

  /// Finds tokens and logits; an error says what the model lacks.
  LogicalResult prepare();
  LogicalResult checkCausal();
  llvm::Expected<std::vector<HostTensor>> draw(uint64_t seed) const;

private:
  InFlightDiagnostic refuse() {
    return module.emitError()
           << "--calib self draws texts from a causal language model: ";
  }
  std::vector<HostTensor> makeInputs(ArrayRef<int64_t> text) const;
  /// Logits of all positions, [length, vocabulary].
  llvm::Expected<OutputRows> run(ArrayRef<int64_t> text) const;

  ModuleOp module;
  const ModelInterface &model;
  OutputMeaning logits;
  size_t tokens = 0;
  int64_t length = kMadeUpLength, vocabulary = 0;
  std::unique_ptr<CompiledModel> compiled;
};

} // namespace

/// Whether an input, beside the tokens, is one that fillByName fills.
static bool isKnownByName(const ModelInterface::Value &input) {
  return (input.name == kMask || input.name == kPositions) &&
         input.type.getRank() == 2 &&
         isa<IntegerType>(input.type.getElementType());
}

LogicalResult TextSampler::prepare() {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  // The largest table is that of the tokens.
  for (auto [index, input] : llvm::enumerate(model.inputs)) {
    int64_t rows = countTableRows(main.getArgument(index));
    bool isText = input.type.getRank() == 2 &&
                  isa<IntegerType>(input.type.getElementType()) &&
                  input.type.getElementTypeBitWidth() >= 32 &&
                  (input.type.isDynamicDim(0) || input.type.getDimSize(0) == 1);
    if (isText && rows > vocabulary) {
      vocabulary = rows;
      tokens = index;
    }
  }
  if (vocabulary == 0)
    return refuse() << "no input of integers, one text long, chooses rows of a "
                       "table; give --calib DATA.npz or --calib random";
  for (const OutputMeaning &meaning : findOutputMeanings(module)) {
    RankedTensorType type = model.outputs[meaning.index].type;
    if (meaning.kind == OutputKind::Logits && type.getRank() == 3 &&
        !type.isDynamicDim(2) && logits.kind != OutputKind::Logits)
      logits = meaning;
  }
  if (logits.kind != OutputKind::Logits)
    return refuse() << "no output has logits for each position of '"
                    << model.inputs[tokens].name
                    << "'; give --calib DATA.npz or --calib random";
  vocabulary =
      std::min(vocabulary, model.outputs[logits.index].type.getDimSize(2));
  for (auto [index, input] : llvm::enumerate(model.inputs))
    if (index != tokens && !isKnownByName(input))
      return refuse() << "what to give to the input '" << input.name
                      << "' is not known; give --calib DATA.npz, or a model "
                         "without it (such as one without a cache)";
  if (!model.inputs[tokens].type.isDynamicDim(1))
    length = model.inputs[tokens].type.getDimSize(1);
  CodeCache code;
  OwningOpRef<ModuleOp> copy = module.clone();
  auto result = compileSegment(*copy, code);
  if (failed(result))
    return failure();
  compiled = std::move(*result);
  return success();
}

std::vector<HostTensor> TextSampler::makeInputs(ArrayRef<int64_t> text) const {
  std::vector<HostTensor> inputs;
  bool isOpen = model.inputs[tokens].type.isDynamicDim(1);
  int64_t width = isOpen ? static_cast<int64_t>(text.size()) : length;
  for (auto [index, input] : llvm::enumerate(model.inputs)) {
    HostTensor tensor = makeTensor(input.type.getElementType(), {1, width});
    if (index == tokens)
      for (auto [position, token] : llvm::enumerate(text))
        setInteger(tensor, position, token);
    else
      fillByName(input.name, tensor);
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

llvm::Expected<OutputRows> TextSampler::run(ArrayRef<int64_t> text) const {
  std::vector<HostTensor> inputs = makeInputs(text);
  auto outputs = compiled->run(inputs);
  if (!outputs)
    return outputs.takeError();
  OutputMeaning plain = logits;
  plain.tokens = std::nullopt;
  OutputRows rows = takeRows(plain, (*outputs)[logits.index], inputs,
                             std::numeric_limits<size_t>::max());
  if (rows.width < static_cast<size_t>(vocabulary) ||
      rows.values.size() < text.size() * rows.width)
    return llvm::createStringError(
        "the model gives logits for fewer positions than it was given tokens");
  return rows;
}

/// Logits of the first positions must not depend on the last token.
LogicalResult TextSampler::checkCausal() {
  std::vector<int64_t> text(std::min<int64_t>(length, 8));
  for (size_t position = 0; position < text.size(); ++position)
    text[position] = static_cast<int64_t>(position) % vocabulary;
  auto before = run(text);
  if (!before)
    return module.emitError() << llvm::toString(before.takeError());
  text.back() = (text.back() + 1) % vocabulary;
  auto after = run(text);
  if (!after)
    return module.emitError() << llvm::toString(after.takeError());
  double difference = 0, size = 0;
  for (size_t i = 0; i < (text.size() - 1) * before->width; ++i) {
    difference += std::pow(before->values[i] - after->values[i], 2);
    size += std::pow(before->values[i], 2);
  }
  if (difference <= 1e-8 * size)
    return success();
  return refuse() << "its logits depend on later tokens; give --calib DATA.npz "
                     "or --calib random";
}

/// A token by the softmax of `logits`.
static int64_t drawToken(ArrayRef<float> logits, Random &random) {
  float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits)
    sum += std::exp(double(logit) - largest);
  double rest = random.draw() * sum;
  for (auto [token, logit] : llvm::enumerate(logits)) {
    rest -= std::exp(double(logit) - largest);
    if (rest < 0)
      return static_cast<int64_t>(token);
  }
  return static_cast<int64_t>(logits.size()) - 1;
}

llvm::Expected<std::vector<HostTensor>> TextSampler::draw(uint64_t seed) const {
  Random random(seed);
  std::vector<int64_t> text = {
      static_cast<int64_t>(random.draw() * double(vocabulary))};
  while (static_cast<int64_t>(text.size()) < length) {
    auto rows = run(text);
    if (!rows)
      return rows.takeError();
    ArrayRef<float> last(&rows->values[(text.size() - 1) * rows->width],
                         vocabulary);
    if (static_cast<int64_t>(text.size()) <= kLikeliest)
      text.push_back(std::max_element(last.begin(), last.end()) - last.begin());
    else
      text.push_back(drawToken(last, random));
  }
  return makeInputs(text);
}

FailureOr<CalibrationData> nibble::sampleFromModel(ModuleOp module,
                                                   const ModelInterface &model,
                                                   size_t samples,
                                                   unsigned threads) {
  TextSampler sampler(module, model);
  if (failed(sampler.prepare()) || failed(sampler.checkCausal()))
    return failure();
  std::vector<std::vector<HostTensor>> made(samples);
  std::vector<std::string> failures(samples);
  parallelFor(samples, 1, threads, [&](size_t begin, size_t end) {
    for (size_t sample = begin; sample < end; ++sample) {
      // Seeds far apart in the generator's one sequence.
      auto drawn = sampler.draw((sample + 1) * 0xd1342543de82ef95);
      if (drawn)
        made[sample] = std::move(*drawn);
      else
        failures[sample] = llvm::toString(drawn.takeError());
    }
  });
  for (const std::string &failure : failures)
    if (!failure.empty())
      return module.emitError() << "drawing a text: " << failure;
  return CalibrationData::fromSamples(model, std::move(made));
}
