//===- StoredWeight.cpp - A weight on its way out ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "StoredWeight.h"

#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/Packing.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Unpacks integer or code book codes to a byte each.
static std::optional<std::vector<uint8_t>> readCodes(Value value,
                                                     StorageAttr storage) {
  Attribute constant = getConstantValue(value);
  std::optional<TensorBytes> data = getTensorBytes(constant);
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!data || !type || data->bytes.size() != getPackedSize(type))
    return std::nullopt;
  std::vector<uint8_t> codes(type.getNumElements());
  unpackLowBitsFirst(reinterpret_cast<const uint8_t *>(data->bytes.data()),
                     codes.size(), storage.getBitWidth(),
                     storage.isInteger() && storage.isSigned(), codes.data());
  return codes;
}

static void addReaders(Value value, NodeOp transpose,
                       std::vector<WeightReader> &readers) {
  for (OpOperand &use : value.getUses()) {
    WeightReader reader;
    reader.node = dyn_cast<NodeOp>(use.getOwner());
    reader.operand = use.getOperandNumber();
    reader.transpose = transpose;
    if (reader.node && getWeightOperand(reader.node) == reader.operand) {
      if (reader.node.isOnnx("MatMul"))
        reader.kind = WeightReader::MatMul;
      else if (reader.node.isOnnx("Gemm"))
        reader.kind = WeightReader::Gemm;
      else if (!transpose)
        reader.kind = WeightReader::Gather;
    } else if (reader.node && !transpose && reader.node.getNumResults() == 1 &&
               getMatrixSource(reader.node.getResult(0)).transposed) {
      addReaders(reader.node.getResult(0), reader.node, readers);
      continue;
    }
    readers.push_back(reader);
  }
}

std::string nibble::getWeightName(AssembleOp op) {
  auto codes = op.getCodes().getDefiningOp<ConstantOp>();
  StringRef name = codes ? codes.getName() : "?";
  name.consume_back(".codes");
  return name.str();
}

unsigned nibble::getReductionAxis(const WeightReader &reader) {
  NodeOp node = reader.node;
  bool last =
      reader.kind == WeightReader::Gather ||
      (reader.kind == WeightReader::Gemm && node.getInt("transB", 0) != 0);
  return last != static_cast<bool>(reader.transpose) ? 1 : 0;
}

/// Whether nested scales are as --nibble-quantize-scales makes them.
static bool isRunOfBytes(AssembleOp op) {
  QuantizedAttr encoding = getQuantization(op.getType());
  auto zero = dyn_cast_if_present<TypeAttr>(encoding.getZero());
  auto scale = dyn_cast<TypeAttr>(encoding.getScale());
  return encoding.getFlat() && encoding.getStorage().isInteger() &&
         !encoding.getStorage().isSigned() &&
         encoding.getStorage().getBitWidth() == 8 && scale && zero &&
         scale.getValue().isF32() && zero.getValue().isF32();
}

Result<StoredWeight> nibble::readWeight(AssembleOp op) {
  StoredWeight weight;
  weight.op = op;
  weight.type = cast<RankedTensorType>(op.getResult().getType());
  weight.encoding = getQuantization(weight.type);
  weight.name = getWeightName(op);
  if (!op.getCodes().getDefiningOp<ConstantOp>())
    return Failure{
        "has codes that are no onnx.constant, which ONNX cannot hold"};
  if (weight.encoding.hasOutliers() || weight.encoding.hasNestedZero() ||
      weight.encoding.hasLayout())
    return Failure{
        "has outliers, nested zero points or a layout, which no ONNX op holds"};
  if (weight.encoding.getStorage().getBitWidth() > 8)
    return Failure{"has codes of more than 8 bits"};
  std::optional<std::vector<uint8_t>> unpacked =
      readCodes(op.getCodes(), weight.encoding.getStorage());
  weight.nestedScales = op.getScales().getDefiningOp<AssembleOp>();
  if (weight.nestedScales && !isRunOfBytes(weight.nestedScales))
    return Failure{"has nested scales that are no runs of bytes"};
  std::optional<std::vector<float>> scales =
      weight.nestedScales ? dequantizeConstant(weight.nestedScales)
                          : getFloats(getConstantValue(op.getScales()));
  if (!unpacked || !scales)
    return Failure{"has codes or scales that are no constants"};
  weight.codes = std::move(*unpacked);
  weight.scales = std::move(*scales);
  weight.gridShape = weight.encoding.getGridShape(weight.type.getShape());
  if (weight.encoding.hasZero()) {
    auto zero = dyn_cast<StorageAttr>(weight.encoding.getZero());
    auto zeros = zero && zero == weight.encoding.getStorage()
                     ? readCodes(op.getZeros(), zero)
                     : std::nullopt;
    if (!zeros)
      return Failure{"has zero points that are no constants of its storage"};
    weight.zeroPoints = std::move(*zeros);
  }
  addReaders(op.getResult(), {}, weight.readers);
  return weight;
}

//===----------------------------------------------------------------------===//
// OnnxBuilder
//===----------------------------------------------------------------------===//

Value OnnxBuilder::makeConstant(StringRef wanted, ArrayRef<int64_t> shape,
                                Type elementType, std::vector<char> bytes) {
  std::string name = names.make(wanted);
  auto type = RankedTensorType::get(shape, elementType);
  TypedAttr value = makeTensorValue(type, name, std::move(bytes));
  return ConstantOp::create(builder, NameLoc::get(builder.getStringAttr(name)),
                            type, builder.getStringAttr(name), value,
                            TensorField::raw_data, DictionaryAttr());
}

Value OnnxBuilder::makeScales(StringRef name, ArrayRef<int64_t> shape,
                              Type elementType, ArrayRef<float> scales) {
  FloatFormat format = elementType.isF16()    ? FloatFormat::F16
                       : elementType.isBF16() ? FloatFormat::BF16
                                              : FloatFormat::F32;
  std::vector<char> bytes(scales.size() * elementType.getIntOrFloatBitWidth() /
                          8);
  encodeArray(format, scales.data(), scales.size(), bytes.data());
  return makeConstant(name, shape, elementType, std::move(bytes));
}

/// scale = step * (code - zero), as NestedScales says, in ops that runtimes
/// fold: codes are rows of runs, filled up with zeros.
Value OnnxBuilder::makeScales(const StoredWeight &weight,
                              ArrayRef<int64_t> shape) {
  Type f32 = weight.type.getElementType();
  if (!weight.nestedScales)
    return makeScales(weight.name + "_scale", shape, f32, weight.scales);
  AssembleOp nested = weight.nestedScales;
  QuantizedAttr encoding = getQuantization(nested.getType());
  int64_t run = encoding.getBlock()[0], count = weight.scales.size();
  int64_t runs = (count + run - 1) / run;
  std::string name = weight.name + "_scale";
  auto codes = *readCodes(nested.getCodes(), encoding.getStorage());
  std::vector<char> padded(codes.begin(), codes.end());
  padded.resize(runs * run, 0);
  auto rows = RankedTensorType::get({runs, run}, f32);
  auto make = [&](StringRef opType, StringRef suffix, ValueRange inputs,
                  ArrayRef<std::pair<StringRef, int64_t>> attributes,
                  RankedTensorType type) -> Value {
    std::string output = names.make(name + suffix);
    return makeNode(opType, "", output, output, inputs, attributes, type)
        .getResult(0);
  };
  auto makeInts = [&](StringRef suffix, ArrayRef<int64_t> integers) {
    std::vector<char> bytes(integers.size() * sizeof(int64_t));
    std::memcpy(bytes.data(), integers.data(), bytes.size());
    return makeConstant(name + suffix.str(),
                        {static_cast<int64_t>(integers.size())},
                        builder.getI64Type(), std::move(bytes));
  };
  constexpr int64_t kFloat = 1; // TensorProto.DataType
  Value value = make("Cast", "_floats",
                     makeConstant(name + "_codes", {runs, run},
                                  builder.getIntegerType(8, /*isSigned=*/false),
                                  std::move(padded)),
                     {{"to", kFloat}}, rows);
  for (auto [opType, suffix, part] :
       {std::tuple("Sub", "_zero", Value(nested.getZeros())),
        std::tuple("Mul", "_step", Value(nested.getScales()))}) {
    Value column = makeScales(name + suffix, {runs, 1}, f32,
                              *getFloats(getConstantValue(part)));
    value = make(opType, suffix + std::string("_applied"), {value, column}, {},
                 rows);
  }
  if (runs * run != count) {
    value = make("Reshape", "_flat", {value, makeInts("_flat_shape", {-1})}, {},
                 RankedTensorType::get({runs * run}, f32));
    value = make("Slice", "_whole",
                 {value, makeInts("_begin", {0}), makeInts("_end", {count})},
                 {}, RankedTensorType::get({count}, f32));
  }
  if (shape.empty())
    return make("Squeeze", "", value, {}, RankedTensorType::get({}, f32));
  return make("Reshape", "", {value, makeInts("_shape", shape)}, {},
              RankedTensorType::get(shape, f32));
}

NodeOp OnnxBuilder::makeNode(StringRef opType, StringRef domain, StringRef name,
                             StringRef output, ValueRange inputs,
                             ArrayRef<std::pair<StringRef, int64_t>> attributes,
                             Type resultType) {
  SmallVector<Attribute> entries;
  for (auto [key, value] : attributes)
    entries.push_back(NodeAttributeAttr::get(builder.getContext(),
                                             builder.getStringAttr(key),
                                             builder.getI64IntegerAttr(value)));
  return NodeOp::create(
      builder, NameLoc::get(builder.getStringAttr(name)), resultType,
      builder.getStringAttr(opType),
      domain.empty() ? StringAttr() : builder.getStringAttr(domain),
      StringAttr(), builder.getStringAttr(name),
      builder.getStrArrayAttr({output}), builder.getArrayAttr(entries),
      DictionaryAttr(), inputs, 0);
}

void nibble::replaceProduct(const WeightReader &reader, NodeOp product,
                            OnnxBuilder &builder) {
  NodeOp node = reader.node;
  Value result = product.getResult(0);
  Value addend = reader.kind == WeightReader::Gemm ? node.getInput(2) : Value();
  bool isBias = product.getInputs().size() > 3 && addend &&
                product.getInputs().back() == addend;
  if (addend && !isBias) {
    builder.setInsertionPoint(node);
    std::string inner = builder.names.make(node.getOutputName(0) + "_product");
    product.setOutputsAttr(builder.builder.getStrArrayAttr({inner}));
    NodeOp sum = builder.makeNode("Add", "", node.getDisplayName() + "_bias",
                                  node.getOutputName(0), {result, addend}, {},
                                  result.getType());
    result = sum.getResult(0);
  }
  node.getResult(0).replaceAllUsesWith(result);
  node.erase();
}
