//===- FoldAffine.cpp - --onnx-fold-affine --------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "mlir/IR/BuiltinOps.h"

#include <cmath>

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXFOLDAFFINE
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// One number, or one for each channel (dimension 1 of the data).
using Factors = std::vector<double>;

double at(const Factors &factors, size_t channel) {
  return factors[factors.size() == 1 ? 0 : channel];
}

template <typename Function>
Factors combine(const Factors &a, const Factors &b, Function function) {
  Factors result(std::max(a.size(), b.size()));
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = function(at(a, i), at(b, i));
  return result;
}

/// result = scale · data + shift.
struct Affine {
  Value data;
  Factors scale{1}, shift{0};

  bool isScale() const { return shift == Factors{0}; }
  bool isShift() const { return scale == Factors{1}; }
};

struct FoldAffine : onnx::impl::OnnxFoldAffineBase<FoldAffine> {
  using OnnxFoldAffineBase::OnnxFoldAffineBase;

  void runOnOperation() override;

private:
  bool fold(NodeOp node);
  bool foldIntoProducer(NodeOp node, const Affine &affine);
  bool foldIntoConsumer(NodeOp convolution);
  bool merge(NodeOp node, const Affine &affine);
  bool moveBehindProduct(NodeOp node);
  bool findHardSigmoid(NodeOp node);
  void erase(NodeOp node);
};

} // namespace

//===----------------------------------------------------------------------===//
// What a node computes
//===----------------------------------------------------------------------===//

static RankedTensorType getFloatTensor(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.getElementType().isF32() ? type : RankedTensorType();
}

static std::optional<Factors> readFactors(Value constant) {
  if (!constant || !getFloatTensor(constant))
    return std::nullopt;
  auto floats = getFloats(getConstantValue(constant));
  if (!floats || floats->empty())
    return std::nullopt;
  return Factors(floats->begin(), floats->end());
}

/// A constant that is broadcast to data of type `data` without changing its
/// shape: one number, or one a channel.
static std::optional<Factors> readFactors(Value constant,
                                          RankedTensorType data) {
  auto factors = readFactors(constant);
  if (!factors)
    return std::nullopt;
  ArrayRef<int64_t> shape =
      cast<RankedTensorType>(constant.getType()).getShape();
  int64_t rank = shape.size(), channels = factors->size();
  if (rank > data.getRank())
    return std::nullopt;
  if (channels == 1)
    return factors;
  int64_t axis = 1 - (data.getRank() - rank);
  if (data.getRank() < 2 || axis < 0 || axis >= rank ||
      shape[axis] != channels || data.getDimSize(1) != channels)
    return std::nullopt;
  return factors;
}

static std::optional<Affine> readNormalization(NodeOp node) {
  if (node.getNumResults() != 1 || node.getInputs().size() != 5 ||
      !getFloatTensor(node.getInputs()[0]) ||
      node.getInt("training_mode", 0) != 0 || node.getInt("spatial", 1) != 1)
    return std::nullopt;
  std::optional<Factors> parts[4];
  for (unsigned i = 0; i < 4; ++i)
    if (!(parts[i] = readFactors(node.getInput(i + 1))) ||
        parts[i]->size() != parts[0]->size())
      return std::nullopt;
  double epsilon = node.getFloat("epsilon", 1e-5F);
  Affine affine;
  affine.data = node.getInput(0);
  affine.scale = combine(*parts[0], *parts[3], [&](double gain, double square) {
    return gain / std::sqrt(square + epsilon);
  });
  affine.shift =
      combine(*parts[1], combine(*parts[2], affine.scale, std::multiplies<>()),
              std::minus<>());
  return affine;
}

/// Reads `node` as an affine function of one input, the others being constant.
static std::optional<Affine> readAffine(NodeOp node) {
  if (node.isOnnx("BatchNormalization"))
    return readNormalization(node);
  bool isMul = node.isOnnx("Mul"), isDiv = node.isOnnx("Div");
  bool isAdd = node.isOnnx("Add"), isSub = node.isOnnx("Sub");
  if ((!isMul && !isDiv && !isAdd && !isSub) || node.getInputs().size() != 2)
    return std::nullopt;
  for (unsigned operand : {1u, 0u}) {
    Affine affine;
    affine.data = node.getInput(1 - operand);
    Value constant = node.getInput(operand);
    if (!affine.data || !constant || getConstantValue(affine.data))
      continue;
    RankedTensorType type = getFloatTensor(affine.data);
    auto factors = type ? readFactors(constant, type) : std::nullopt;
    // A constant that is divided is no affine function.
    if (!factors || (isDiv && operand == 0))
      continue;
    if (isMul)
      affine.scale = *factors;
    else if (isDiv)
      affine.scale = combine({1}, *factors, std::divides<>());
    else
      affine.shift = *factors;
    if (isSub && operand == 1)
      affine.shift = combine({0}, *factors, std::minus<>());
    else if (isSub)
      affine.scale = {-1};
    return affine;
  }
  return std::nullopt;
}

/// The producer of `value`, which nobody else reads.
static NodeOp getOnlyProducer(Value value) {
  auto node = value.getDefiningOp<NodeOp>();
  return node && node.getNumResults() == 1 && value.hasOneUse() ? node
                                                                : NodeOp();
}

static std::optional<float> readNumber(Value value) {
  auto factors = readFactors(value);
  return factors && factors->size() == 1
             ? std::optional(static_cast<float>(factors->front()))
             : std::nullopt;
}

//===----------------------------------------------------------------------===//
// Convolutions
//===----------------------------------------------------------------------===//

namespace {
/// The constants of a Conv or ConvTranspose, which nobody else reads.
class Filter {
public:
  static std::optional<Filter> read(NodeOp node);

  size_t getOutputs() const { return isTransposed ? shape[1] : shape[0]; }
  size_t getInputs() const {
    return isTransposed ? shape[0] : shape[1] * groups;
  }
  /// Calls back with the output channel, the input channel and the weight.
  template <typename Function> void forEach(Function function) {
    size_t inner = weights.size() / (shape[0] * shape[1]);
    size_t perGroup = shape[0] / groups;
    for (size_t i = 0; i < weights.size(); ++i) {
      size_t first = i / inner / shape[1], second = i / inner % shape[1];
      if (isTransposed)
        function(second, first, weights[i]);
      else
        function(first, first / perGroup * shape[1] + second, weights[i]);
    }
  }
  /// Gives the node new constants, named after its result.
  void write();

  NodeOp node;
  bool isTransposed = false;
  size_t groups = 1;
  SmallVector<int64_t> shape;
  std::vector<double> weights, bias;
};
} // namespace

std::optional<Filter> Filter::read(NodeOp node) {
  Filter filter;
  filter.node = node;
  filter.isTransposed = node.isOnnx("ConvTranspose");
  if ((!filter.isTransposed && !node.isOnnx("Conv")) ||
      node.getNumResults() != 1 || node.getInputs().size() < 2 ||
      !node.getInput(1) || !node.getInput(1).hasOneUse())
    return std::nullopt;
  auto weights = readFactors(node.getInput(1));
  auto type = getFloatTensor(node.getInput(1));
  filter.groups = node.getInt("group", 1);
  if (!weights || type.getRank() < 3 || filter.groups < 1 ||
      (filter.isTransposed && filter.groups != 1) ||
      type.getDimSize(0) % filter.groups != 0)
    return std::nullopt;
  filter.shape.assign(type.getShape().begin(), type.getShape().end());
  filter.weights = std::move(*weights);
  filter.bias.assign(filter.getOutputs(), 0);
  if (Value bias = node.getInput(2)) {
    auto given = readFactors(bias);
    if (!given || given->size() != filter.bias.size())
      return std::nullopt;
    filter.bias = std::move(*given);
  }
  return filter;
}

void Filter::write() {
  OpBuilder builder(node);
  std::string name = node.getOutputName(0).str();
  Value old = node.getInput(1);
  std::string newName = name + "_weight";
  if (auto constant = old.getDefiningOp<ConstantOp>())
    newName = constant.getName().str();
  Value replaced[2] = {old, node.getInput(2)};
  std::vector<float> numbers(weights.begin(), weights.end());
  SmallVector<Value> inputs{node.getInputs()[0],
                            makeFloats(builder, newName, shape, numbers)};
  numbers.assign(bias.begin(), bias.end());
  inputs.push_back(makeFloats(builder, name + "_bias",
                              {static_cast<int64_t>(bias.size())}, numbers));
  node.getInputsMutable().assign(inputs);
  for (Value value : replaced)
    if (value && value.use_empty())
      value.getDefiningOp()->erase();
}

/// Puts an affine function of a convolution's result into its constants.
bool FoldAffine::foldIntoProducer(NodeOp node, const Affine &affine) {
  NodeOp producer = getOnlyProducer(affine.data);
  auto filter = producer ? Filter::read(producer) : std::nullopt;
  if (!filter)
    return false;
  filter->forEach([&](size_t output, size_t, double &weight) {
    weight *= at(affine.scale, output);
  });
  for (auto [output, number] : llvm::enumerate(filter->bias))
    number = number * at(affine.scale, output) + at(affine.shift, output);
  producer.setOutputsAttr(node.getOutputs());
  node.getResult(0).replaceAllUsesWith(producer.getResult(0));
  erase(node);
  filter->write();
  return true;
}

static bool hasNoPadding(NodeOp node) {
  auto pads = node.getInts("pads");
  StringRef automatic = node.getString("auto_pad", "NOTSET");
  return (automatic == "NOTSET" || automatic == "VALID") &&
         (!pads || llvm::all_of(*pads, [](int64_t pad) { return pad == 0; }));
}

/// Puts an affine function of a convolution's input into its constants; a shift
/// only where no zeros are padded.
bool FoldAffine::foldIntoConsumer(NodeOp node) {
  NodeOp producer = getOnlyProducer(node.getInputs()[0]);
  auto affine = producer ? readAffine(producer) : std::nullopt;
  if (!affine ||
      (!affine->isScale() && (!node.isOnnx("Conv") || !hasNoPadding(node))))
    return false;
  auto filter = Filter::read(node);
  if (!filter)
    return false;
  filter->forEach([&](size_t output, size_t input, double &weight) {
    filter->bias[output] += weight * at(affine->shift, input);
    weight *= at(affine->scale, input);
  });
  node.getInputsMutable()[0].set(affine->data);
  erase(producer);
  filter->write();
  return true;
}

//===----------------------------------------------------------------------===//
// Chains
//===----------------------------------------------------------------------===//

/// A constant of `factors` for data of type `data`.
static Value makeFactors(OpBuilder &builder, StringRef name,
                         RankedTensorType data, const Factors &factors) {
  std::vector<float> numbers(factors.begin(), factors.end());
  SmallVector<int64_t> shape;
  if (factors.size() > 1) {
    shape.assign(data.getRank() - 1, 1);
    shape[0] = factors.size();
  }
  return makeFloats(builder, name, shape, numbers);
}

/// Two affine functions in a row become a product and a sum.
bool FoldAffine::merge(NodeOp node, const Affine &outer) {
  NodeOp producer = getOnlyProducer(outer.data);
  auto inner = producer ? readAffine(producer) : std::nullopt;
  // A product and then a sum is what remains of any chain.
  if (!inner || (inner->isScale() && outer.isShift()))
    return false;
  Factors scale = combine(inner->scale, outer.scale, std::multiplies<>());
  Factors shift =
      combine(combine(inner->shift, outer.scale, std::multiplies<>()),
              outer.shift, std::plus<>());
  OpBuilder builder(node);
  auto type = getFloatTensor(inner->data);
  std::string name = node.getOutputName(0).str();
  Value result = inner->data;
  bool shifts = llvm::any_of(shift, [](double number) { return number != 0; });
  // An output of the graph keeps a node of its name.
  bool isInner = llvm::all_of(node->getUsers(), llvm::IsaPred<NodeOp>);
  if (scale != Factors{1} || (!shifts && !isInner)) {
    std::string output = shifts ? name + "_scaled" : name;
    result =
        makeNode(builder, "Mul", output,
                 {result, makeFactors(builder, name + "_scale", type, scale)},
                 node.getResult(0).getType())
            .getResult(0);
  }
  if (shifts)
    result =
        makeNode(builder, "Add", name,
                 {result, makeFactors(builder, name + "_shift", type, shift)},
                 node.getResult(0).getType())
            .getResult(0);
  node.getResult(0).replaceAllUsesWith(result);
  erase(node);
  erase(producer);
  return true;
}

/// (a · c) · b → (a · b) · c for a number c.
bool FoldAffine::moveBehindProduct(NodeOp node) {
  if (!node.isOnnx("Mul") || node.getInputs().size() != 2)
    return false;
  for (unsigned operand : {0u, 1u}) {
    Value factor = node.getInputs()[operand];
    Value other = node.getInputs()[1 - operand];
    NodeOp producer = getOnlyProducer(factor);
    auto affine = producer && producer.isOnnx("Mul") ? readAffine(producer)
                                                     : std::nullopt;
    if (!affine || affine->scale.size() != 1 || getConstantValue(other) ||
        !getFloatTensor(node.getResult(0)))
      continue;
    OpBuilder builder(node);
    std::string name = node.getOutputName(0).str();
    NodeOp product =
        makeNode(builder, "Mul", name + "_product", {affine->data, other},
                 node.getResult(0).getType());
    Value scale = makeFactors(builder, name + "_scale", {}, affine->scale);
    NodeOp scaled =
        makeNode(builder, "Mul", name, {product.getResult(0), scale},
                 node.getResult(0).getType());
    node.getResult(0).replaceAllUsesWith(scaled.getResult(0));
    erase(node);
    erase(producer);
    return true;
  }
  return false;
}

/// Clip(x + a, 0, c) → HardSigmoid(x; 1/c, a/c) · c.
bool FoldAffine::findHardSigmoid(NodeOp node) {
  if (!node.isOnnx("Clip") || node.getNumResults() != 1)
    return false;
  auto low = node.getAttributeValue("min")
                 ? std::optional(node.getFloat("min", 0))
                 : readNumber(node.getInput(1));
  auto high = node.getAttributeValue("max")
                  ? std::optional(node.getFloat("max", 0))
                  : readNumber(node.getInput(2));
  NodeOp producer = getOnlyProducer(node.getInputs()[0]);
  auto sum = producer ? readAffine(producer) : std::nullopt;
  if (!low || !high || *low != 0 || !(*high > 0) || !sum || !sum->isShift() ||
      sum->shift.size() != 1)
    return false;
  OpBuilder builder(node);
  std::string name = node.getOutputName(0).str();
  Type type = node.getResult(0).getType();
  NodeOp sigmoid =
      makeNode(builder, "HardSigmoid", name + "_unit", sum->data, type,
               {{"alpha", builder.getF32FloatAttr(1 / *high)},
                {"beta", builder.getF32FloatAttr(
                             static_cast<float>(sum->shift.front() / *high))}});
  Value scale = makeFactors(builder, name + "_scale", {}, {*high});
  NodeOp scaled =
      makeNode(builder, "Mul", name, {sigmoid.getResult(0), scale}, type);
  node.getResult(0).replaceAllUsesWith(scaled.getResult(0));
  erase(node);
  erase(producer);
  return true;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

void FoldAffine::erase(NodeOp node) {
  SmallVector<Value> inputs(node.getInputs());
  node.erase();
  for (Value input : inputs) {
    Operation *op = input.getDefiningOp();
    if (op && isa<ConstantOp, AbsentOp>(op) && op->use_empty())
      op->erase();
  }
  ++numFolded;
}

bool FoldAffine::fold(NodeOp node) {
  if ((node.isOnnx("Conv") || node.isOnnx("ConvTranspose")) &&
      node.getInputs().size() >= 2)
    return foldIntoConsumer(node);
  if (findHardSigmoid(node) || moveBehindProduct(node))
    return true;
  auto affine = readAffine(node);
  return affine && (foldIntoProducer(node, *affine) || merge(node, *affine));
}

void FoldAffine::runOnOperation() {
  // Each step removes a node or moves one towards the end or into a constant.
  bool changed = true;
  while (changed) {
    changed = false;
    SmallVector<Block *> blocks;
    getOperation().walk([&](Block *block) { blocks.push_back(block); });
    for (Block *block : blocks)
      // What is erased is the node or stands before it.
      for (NodeOp node : llvm::make_early_inc_range(block->getOps<NodeOp>()))
        changed |= fold(node);
  }
  if (numFolded > 0)
    requireFreeInitializers(getOperation());
}
