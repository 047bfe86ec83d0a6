//===- QuantizeActivations.cpp - --nibble-quantize-activations ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Utils/Affine.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"

#include "mlir/IR/BuiltinOps.h"

#include <algorithm>
#include <cmath>

namespace nibble {
#define GEN_PASS_DEF_NIBBLEQUANTIZEACTIVATIONS
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// number = (code - zero) * scale, codes u8.
struct Levels {
  float scale = 1;
  uint8_t zero = 0;
};

struct QuantizeActivations
    : nibble::impl::NibbleQuantizeActivationsBase<QuantizeActivations> {
  using NibbleQuantizeActivationsBase::NibbleQuantizeActivationsBase;

  void runOnOperation() override;

private:
  void quantize(NodeOp node);
  void quantizeDynamically(NodeOp node);
  void correctBias(NodeOp node, AssembleOp weight);
  void quantizeOutput(NodeOp node);

  /// Inputs that are quantized already, with their ranges.
  DenseMap<std::pair<Value, Attribute>, Value> quantized;
};

} // namespace

static Levels getLevels(Attribute range) {
  auto bounds = cast<ArrayAttr>(range).getAsRange<FloatAttr>();
  double low = (*bounds.begin()).getValueAsDouble();
  double high = (*std::next(bounds.begin())).getValueAsDouble();
  Levels levels;
  if (high > low)
    levels.scale = static_cast<float>((high - low) / 255);
  levels.zero = static_cast<uint8_t>(
      std::clamp(std::nearbyint(-low / levels.scale), 0.0, 255.0));
  return levels;
}

/// Quantizes and dequantizes `value`.
static NodeOp makePair(OpBuilder &builder, Value value, StringRef name,
                       const Levels &levels) {
  auto type = getFloatTensor(value);
  Type byte = builder.getIntegerType(8, /*isSigned=*/false);
  Value scale = makeFloats(builder, (name + "_scale").str(), {}, levels.scale);
  std::string zeroName = (name + "_zero_point").str();
  auto zeroType = RankedTensorType::get({}, byte);
  auto zero = ConstantOp::create(
      builder, NameLoc::get(builder.getStringAttr(zeroName)), zeroType,
      builder.getStringAttr(zeroName),
      makeTensorValue(zeroType, zeroName, {static_cast<char>(levels.zero)}),
      TensorField::raw_data, DictionaryAttr());
  NodeOp codes = makeNode(
      builder, "QuantizeLinear", (name + "_codes").str(), {value, scale, zero},
      RankedTensorType::get(type.getShape(), byte, type.getEncoding()));
  return makeNode(builder, "DequantizeLinear", (name + "_dequantized").str(),
                  {codes.getResult(0), scale, zero}, type);
}

/// Moves the outputs' mean on the calibration data back to where it was before
/// the weights were rounded, as in Nagel et al., Data-Free Quantization (2019,
/// arXiv:1906.04721), section 4.2, with measured means.
void QuantizeActivations::correctBias(NodeOp node, AssembleOp weight) {
  auto means = node->getAttrOfType<DenseF32ArrayAttr>(kInputMeansAttrName);
  auto sums = node->getAttrOfType<DenseF32ArrayAttr>(kMeanProductsAttrName);
  auto numbers = dequantizeConstant(weight);
  auto bias = node.getInput(2) ? readFactors(node.getInput(2)) : std::nullopt;
  if (!means || !sums || !numbers || !bias)
    return;
  ArrayRef<int64_t> shape = weight.getType().getShape();
  int64_t groups = node.getInt("group", 1);
  size_t inner = numbers->size() / (shape[0] * shape[1]);
  for (int64_t output = 0; output < shape[0]; ++output) {
    double sum = 0;
    int64_t first = output / (shape[0] / groups) * shape[1];
    for (int64_t input = 0; input < shape[1]; ++input)
      for (size_t i = 0; i < inner; ++i)
        sum += (*numbers)[(output * shape[1] + input) * inner + i] *
               double(means[first + input]);
    (*bias)[output] += sums[output] - sum;
  }
  OpBuilder builder(node);
  Value old = node.getInput(2);
  std::vector<float> corrected(bias->begin(), bias->end());
  std::string name = node.getOutputName(0).str() + "_bias_corrected";
  node.getInputsMutable()[2].set(makeFloats(
      builder, name, {static_cast<int64_t>(corrected.size())}, corrected));
  if (old.use_empty())
    old.getDefiningOp()->erase();
}

void QuantizeActivations::quantizeOutput(NodeOp node) {
  Attribute range = node->getAttr(kOutputRangeAttrName);
  if (!range)
    return;
  OpBuilder builder(node.getContext());
  builder.setInsertionPointAfter(node);
  Value result = node.getResult(0);
  std::string name = node.getOutputName(0).str();
  // The dequantized tensor is what is called so from here on.
  node.setOutputsAttr(builder.getStrArrayAttr({name + "_float"}));
  NodeOp pair = makePair(builder, result, name, getLevels(range));
  pair.setOutputsAttr(builder.getStrArrayAttr({name}));
  auto codes = pair.getInputs()[0].getDefiningOp<NodeOp>();
  result.replaceAllUsesExcept(pair.getResult(0), codes);
  ++numOutputs;
}

void QuantizeActivations::quantize(NodeOp node) {
  if (node.getInputs().size() < 2)
    return;
  auto weight = node.getInputs()[1].getDefiningOp<AssembleOp>();
  if (!weight)
    return;
  // ONNX Runtime multiplies codes of 8 bits without a zero point.
  QuantizedAttr encoding = getQuantization(weight.getType());
  if (encoding.getStorage().getBitWidth() != 8 ||
      !encoding.getStorage().isInteger() || encoding.hasZero())
    return;
  if (node.isOnnx("Conv"))
    correctBias(node, weight);
  Attribute range = node->getAttr(kInputRangeAttrName);
  if (!range)
    return;
  Value input = node.getInputs()[0];
  Value &codes = quantized[{input, range}];
  if (!codes) {
    OpBuilder builder(node);
    if (Operation *producer = input.getDefiningOp())
      builder.setInsertionPointAfter(producer);
    else
      builder.setInsertionPointToStart(cast<BlockArgument>(input).getOwner());
    codes = makePair(builder, input, node.getOutputName(0).str() + "_input",
                     getLevels(range))
                .getResult(0);
    ++numInputs;
  }
  node.getInputsMutable()[0].set(codes);
  if (node.isOnnx("Conv"))
    quantizeOutput(node);
}

/// True for products with 8-bit weights that MatMulInteger can compute.
static bool isIntegerProduct(NodeOp node) {
  if (!isProduct(node) || !getFloatTensor(node.getInputs()[0]) ||
      node.getInt("transA", 0) != 0 || node.getFloat("alpha", 1) != 1 ||
      node.getFloat("beta", 1) != 1)
    return false;
  MatrixSource source = getMatrixSource(node.getInputs()[1]);
  auto weight = source.value.getDefiningOp<AssembleOp>();
  if (!weight || weight.getType().getRank() != 2)
    return false;
  QuantizedAttr encoding = getQuantization(weight.getType());
  StorageAttr storage = encoding.getStorage();
  unsigned axis = getReductionAxis(node, source.transposed);
  return storage.isInteger() && storage.getBitWidth() == 8 &&
         !encoding.hasZero() && !encoding.hasNestedScale() &&
         !encoding.getFlat() &&
         encoding.getGridShape(weight.getType().getShape())[axis] == 1;
}

void QuantizeActivations::quantizeDynamically(NodeOp node) {
  if (!isIntegerProduct(node))
    return;
  Value input = node.getInputs()[0];
  Value &codes = quantized[{input, Attribute()}];
  if (!codes) {
    OpBuilder builder(node.getContext());
    builder.setInsertionPointAfterValue(input);
    auto type = getFloatTensor(input);
    auto plain = RankedTensorType::get(type.getShape(), type.getElementType());
    SmallVector<int64_t> whole(type.getRank(), QuantizedAttr::kWholeExtent);
    auto byte = StorageAttr::getInteger(node.getContext(), 8,
                                        /*isSigned=*/false);
    auto encoding = QuantizedAttr::get(
        byte, whole, TypeAttr::get(type.getElementType()), byte);
    // Names of dimensions have no place in a quantized type.
    Value expressed = input;
    if (plain != type)
      expressed = UnrealizedConversionCastOp::create(builder, node.getLoc(),
                                                     plain, input)
                      .getResult(0);
    codes = QuantizeDynamicOp::create(
        builder, node.getLoc(),
        RankedTensorType::get(type.getShape(), type.getElementType(), encoding),
        expressed);
    ++numInputs;
  }
  node.getInputsMutable()[0].set(codes);
}

void QuantizeActivations::runOnOperation() {
  if (mode != "static" && mode != "dynamic") {
    emitError(UnknownLoc::get(&getContext()))
        << "'" << mode << "' is no mode; use static or dynamic";
    return signalPassFailure();
  }
  SmallVector<NodeOp> nodes;
  getOperation().walk([&](NodeOp node) { nodes.push_back(node); });
  for (NodeOp node : nodes) {
    mode == "static" ? quantize(node) : quantizeDynamically(node);
    for (StringRef name : {kInputRangeAttrName, kOutputRangeAttrName,
                           kInputMeansAttrName, kMeanProductsAttrName})
      node->removeAttr(name);
  }
  quantized.clear();
}
