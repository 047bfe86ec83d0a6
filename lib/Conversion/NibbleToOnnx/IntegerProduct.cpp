//===- IntegerProduct.cpp - MatMulInteger ---------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A product of dynamically quantized activations and 8-bit weights, as ONNX
// Runtime's quantizer writes it: DynamicQuantizeLinear, MatMulInteger, Cast,
// and a Mul by the product of both scales.
//
//===----------------------------------------------------------------------===//

#include "StoredWeight.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static QuantizeDynamicOp getActivations(const WeightReader &reader) {
  NodeOp node = reader.node;
  return node.getInputs()[0].getDefiningOp<QuantizeDynamicOp>();
}

bool nibble::isIntegerProduct(const StoredWeight &weight) {
  StorageAttr storage = weight.encoding.getStorage();
  if (weight.readers.empty() || weight.nestedScales || !storage.isInteger() ||
      storage.getBitWidth() != 8 || weight.encoding.getFlat() ||
      weight.type.getRank() != 2 || !weight.type.getElementType().isF32())
    return false;
  unsigned axis = getReductionAxis(weight.readers.front());
  return weight.gridShape[axis] == 1 &&
         llvm::all_of(weight.readers, [&](const WeightReader &reader) {
           bool isProduct = reader.kind == WeightReader::MatMul ||
                            reader.kind == WeightReader::Gemm;
           return isProduct && reader.operand == 1 && getActivations(reader) &&
                  getReductionAxis(reader) == axis;
         });
}

/// Its results: codes, scale, zero point.
static NodeOp makeDynamicQuantize(QuantizeDynamicOp op, StringRef reader,
                                  UniqueNames &names) {
  OpBuilder builder(op);
  Value input = op.getInput();
  if (auto cast = input.getDefiningOp<UnrealizedConversionCastOp>())
    input = cast.getInputs()[0];
  auto type = cast<RankedTensorType>(input.getType());
  Type byte = builder.getIntegerType(8, /*isSigned=*/false);
  SmallVector<Type> types{
      RankedTensorType::get(type.getShape(), byte, type.getEncoding()),
      RankedTensorType::get({}, builder.getF32Type()),
      RankedTensorType::get({}, byte)};
  SmallVector<std::string> outputs;
  for (const char *part : {"_codes", "_scale", "_zero_point"})
    outputs.push_back(names.make(reader + "_input" + part));
  return NodeOp::create(
      builder, op.getLoc(), types,
      builder.getStringAttr("DynamicQuantizeLinear"), StringAttr(),
      StringAttr(), builder.getStringAttr(outputs[0]),
      builder.getStrArrayAttr({outputs[0], outputs[1], outputs[2]}),
      builder.getArrayAttr({}), DictionaryAttr(), ValueRange{input}, 0);
}

/// The codes as [inputs, outputs].
static std::vector<char> orderCodes(const StoredWeight &weight, unsigned axis) {
  std::vector<char> ordered(weight.codes.begin(), weight.codes.end());
  if (axis == 0)
    return ordered;
  size_t outputs = weight.type.getDimSize(0),
         inputs = weight.type.getDimSize(1);
  for (size_t output = 0; output < outputs; ++output)
    for (size_t input = 0; input < inputs; ++input)
      ordered[input * outputs + output] =
          static_cast<char>(weight.codes[output * inputs + input]);
  return ordered;
}

unsigned nibble::writeIntegerProducts(const StoredWeight &weight,
                                      OnnxBuilder &builder,
                                      DynamicNodes &dynamicNodes) {
  unsigned axis = getReductionAxis(weight.readers.front());
  int64_t inputs = weight.type.getDimSize(axis);
  int64_t outputs = weight.type.getDimSize(1 - axis);
  StorageAttr storage = weight.encoding.getStorage();
  Type codeType = storage.getCodeType();
  bool perChannel = weight.scales.size() > 1;
  SmallVector<int64_t> gridShape;
  if (perChannel)
    gridShape.push_back(outputs);
  Value codes =
      builder.makeConstant(weight.name + "_quantized", {inputs, outputs},
                           codeType, orderCodes(weight, axis));
  Type f32 = weight.type.getElementType();
  Value scales =
      builder.makeScales(weight.name + "_scale", gridShape, f32, weight.scales);
  Value zeros;
  if (!weight.zeroPoints.empty())
    zeros = builder.makeConstant(
        weight.name + "_zero_point", gridShape, codeType,
        {weight.zeroPoints.begin(), weight.zeroPoints.end()});
  for (const WeightReader &reader : weight.readers) {
    NodeOp node = reader.node;
    std::string name = node.getOutputName(0).str();
    NodeOp &dynamic = dynamicNodes[getActivations(reader)];
    if (!dynamic)
      dynamic =
          makeDynamicQuantize(getActivations(reader), name, builder.names);
    builder.setInsertionPoint(node);
    Type result = node.getResult(0).getType(), sumType = result;
    if (auto ranked = dyn_cast<RankedTensorType>(result))
      sumType = RankedTensorType::get(ranked.getShape(),
                                      builder.builder.getIntegerType(32),
                                      ranked.getEncoding());
    SmallVector<Value> operands{dynamic.getResult(0), codes,
                                dynamic.getResult(2)};
    if (zeros)
      operands.push_back(zeros);
    auto make = [&](StringRef opType, StringRef output, ValueRange values,
                    ArrayRef<std::pair<StringRef, int64_t>> attributes,
                    Type type) {
      return builder
          .makeNode(opType, "", output, builder.names.make(output), values,
                    attributes, type)
          .getResult(0);
    };
    Value sums = make("MatMulInteger", name + "_sums", operands, {}, sumType);
    constexpr int64_t kFloat = 1; // TensorProto.DataType
    Value floats =
        make("Cast", name + "_sums_float", sums, {{"to", kFloat}}, result);
    Value scale = make("Mul", name + "_scale", {dynamic.getResult(1), scales},
                       {}, RankedTensorType::get(gridShape, f32));
    NodeOp product = builder.makeNode("Mul", "", node.getDisplayName(), name,
                                      {floats, scale}, {}, result);
    replaceProduct(reader, product, builder);
    NodeOp transpose = reader.transpose;
    if (transpose && transpose->use_empty())
      transpose.erase();
  }
  return weight.readers.size();
}
