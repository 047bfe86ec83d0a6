//===- Affine.cpp - Products and sums with constants ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/Affine.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"

#include <cmath>
#include <functional>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

RankedTensorType onnx::getFloatTensor(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.getElementType().isF32() ? type : RankedTensorType();
}

std::optional<Factors> onnx::readFactors(Value constant) {
  if (!constant || !getFloatTensor(constant))
    return std::nullopt;
  auto floats = getFloats(getConstantValue(constant));
  if (!floats || floats->empty())
    return std::nullopt;
  return Factors(floats->begin(), floats->end());
}

/// A constant that is broadcast to data of type `data` without changing its
/// shape: one number, or one a channel.
static std::optional<Factors> readBroadcast(Value constant,
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
  for (unsigned i = 0; i < 4; ++i) {
    parts[i] = readFactors(node.getInput(i + 1));
    if (!parts[i] || parts[i]->size() != parts[0]->size())
      return std::nullopt;
  }
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

std::optional<Affine> onnx::readAffine(NodeOp node) {
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
    auto factors = type ? readBroadcast(constant, type) : std::nullopt;
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

NodeOp onnx::getOnlyProducer(Value value) {
  auto node = value.getDefiningOp<NodeOp>();
  return node && node.getNumResults() == 1 && value.hasOneUse() ? node
                                                                : NodeOp();
}

Value onnx::makeFactors(OpBuilder &builder, StringRef name,
                        RankedTensorType data, const Factors &factors) {
  std::vector<float> numbers(factors.begin(), factors.end());
  SmallVector<int64_t> shape;
  if (factors.size() > 1) {
    shape.assign(data.getRank() - 1, 1);
    shape[0] = factors.size();
  }
  return makeFloats(builder, name, shape, numbers);
}

//===----------------------------------------------------------------------===//
// Filters
//===----------------------------------------------------------------------===//

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
