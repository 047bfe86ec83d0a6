//===- Outputs.cpp - What the outputs of a model stand for ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Outputs.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Numerics/FloatFormats.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Kinds
//===----------------------------------------------------------------------===//

static bool keepsRows(NodeOp node) {
  return node.isOnnx("Cast") || node.isOnnx("Identity") ||
         node.isOnnx("Reshape") || node.isOnnx("Squeeze") ||
         node.isOnnx("Unsqueeze");
}

static bool isConstantMatrix(Value value) {
  value = getMatrixSource(value).value;
  return getConstantValue(value) || value.getDefiningOp<AssembleOp>();
}

/// Whether `value` is a sum or product with constants of what a MatMul or Gemm
/// with a constant matrix gives.
static bool isFromProduct(Value value) {
  auto node = value.getDefiningOp<NodeOp>();
  if (!node || node.getInputs().empty())
    return false;
  if (std::optional<unsigned> operand = getWeightOperand(node))
    return isProduct(node) && isConstantMatrix(node.getInputs()[*operand]);
  if (keepsRows(node))
    return isFromProduct(node.getInputs()[0]);
  if (!node.isOnnx("Add") && !node.isOnnx("Mul") && !node.isOnnx("Div"))
    return false;
  ValueRange inputs = node.getInputs();
  for (size_t i : {0, 1})
    if (getConstantValue(inputs[1 - i]) && isFromProduct(inputs[i]))
      return true;
  return false;
}

static OutputKind getKind(Value value, RankedTensorType type) {
  // One number a row is no choice between answers.
  if (type.getRank() < 2 || type.getShape().back() == 1)
    return OutputKind::Numbers;
  auto node = value.getDefiningOp<NodeOp>();
  while (node && (node.isOnnx("Cast") || node.isOnnx("Identity")))
    node = node.getInputs()[0].getDefiningOp<NodeOp>();
  if (node && node.isOnnx("Softmax")) {
    // The default axis was 1 before opset 13, where later dimensions join it.
    int64_t axis = node.getInt("axis", -1);
    bool isLast = axis == -1 || axis == type.getRank() - 1;
    return isLast ? OutputKind::Probabilities : OutputKind::Numbers;
  }
  return isFromProduct(value) ? OutputKind::Logits : OutputKind::Numbers;
}

/// The integer input whose dimensions are those of the rows of `output`.
static std::optional<size_t> findTokens(func::FuncOp main,
                                        RankedTensorType output) {
  for (BlockArgument argument : main.getArguments()) {
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!type || type.getRank() != 2 || output.getRank() != 3 ||
        !type.getElementType().isInteger() ||
        type.getElementTypeBitWidth() < 32)
      continue;
    auto left = getDimensions(type), right = getDimensions(output);
    bool agree = true;
    for (size_t i = 0; i < 2; ++i)
      agree &= left[i].isStatic()
                   ? right[i].isStatic() && left[i].size == right[i].size
                   : !right[i].isStatic() && left[i].symbol == right[i].symbol;
    if (agree)
      return argument.getArgNumber();
  }
  return std::nullopt;
}

std::vector<OutputMeaning> nibble::findOutputMeanings(ModuleOp module) {
  std::vector<OutputMeaning> meanings;
  auto main = module.lookupSymbol<func::FuncOp>("main");
  auto graph = main->getAttrOfType<GraphAttr>(kGraphAttrName);
  std::vector<std::string> names = getOutputNames(graph);
  Operation *end = main.getBody().front().getTerminator();
  for (auto [index, value] : llvm::enumerate(end->getOperands())) {
    auto type = dyn_cast<RankedTensorType>(value.getType());
    bool isFloat = type && (type.getElementType().isF32() ||
                            type.getElementType().isF16() ||
                            type.getElementType().isBF16());
    if (!isFloat)
      continue;
    OutputMeaning meaning;
    meaning.name = index < names.size() ? names[index] : "";
    meaning.index = index;
    meaning.kind = getKind(value, type);
    if (meaning.kind == OutputKind::Logits)
      meaning.tokens = findTokens(main, type);
    meanings.push_back(std::move(meaning));
  }
  return meanings;
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

/// The numbers `begin`, … of a tensor as f32.
static void readFloats(const HostTensor &tensor, size_t begin, float *values,
                       size_t count) {
  if (tensor.elementType.isF32()) {
    std::memcpy(values, tensor.bytes.data() + begin * sizeof(float),
                count * sizeof(float));
    return;
  }
  std::vector<uint16_t> codes(count);
  std::memcpy(codes.data(), tensor.bytes.data() + begin * sizeof(uint16_t),
              count * sizeof(uint16_t));
  decodeArray(tensor.elementType.isF16() ? FloatFormat::F16 : FloatFormat::BF16,
              codes.data(), count, values);
}

/// The token after position `row` of [batch, positions] tokens.
static int64_t readNextToken(const HostTensor &tokens, size_t row) {
  size_t positions = tokens.shape[1];
  if ((row + 1) % positions == 0)
    return -1;
  size_t size = tokens.elementType.getIntOrFloatBitWidth() / 8;
  int64_t token = 0;
  if (size == sizeof(int32_t)) {
    int32_t narrow;
    std::memcpy(&narrow, tokens.bytes.data() + (row + 1) * size, size);
    token = narrow;
  } else {
    std::memcpy(&token, tokens.bytes.data() + (row + 1) * size, size);
  }
  return token;
}

OutputRows nibble::takeRows(const OutputMeaning &meaning,
                            const HostTensor &output,
                            ArrayRef<HostTensor> inputs, size_t limit) {
  OutputRows rows;
  size_t count = 1;
  for (int64_t extent : output.shape)
    count *= extent;
  rows.width = output.shape.empty() ? 1 : output.shape.back();
  if (count == 0)
    return rows;
  size_t height = count / rows.width, taken = std::min(height, limit);
  // What is one vector to us stays whole.
  if (meaning.kind == OutputKind::Numbers && count <= size_t(1) << 20)
    taken = height;
  rows.values.resize(taken * rows.width);
  for (size_t i = 0; i < taken; ++i) {
    size_t row = i * height / taken;
    readFloats(output, row * rows.width, &rows.values[i * rows.width],
               rows.width);
    bool hasTarget =
        meaning.tokens && inputs[*meaning.tokens].shape.size() == 2;
    rows.targets.push_back(
        hasTarget ? readNextToken(inputs[*meaning.tokens], row) : -1);
  }
  return rows;
}
