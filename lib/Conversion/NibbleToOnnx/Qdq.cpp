//===- Qdq.cpp - DequantizeLinear
//------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// ONNX DequantizeLinear: per tensor (a scalar scale), per axis (a vector) or
// blocked along one axis (opset 21; the scale has the weight's rank).
// Containers: int4 and uint4 from opset 21, int2 and uint2 from 25, f8 from 19,
// f4 from 23.
//
//===----------------------------------------------------------------------===//

#include "StoredWeight.h"

#include "nibble/Numerics/Packing.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
/// How DequantizeLinear walks the scales.
struct Granularity {
  enum Kind { Tensor, Axis, Blocked };
  Kind kind;
  int64_t axis = 0;
  int64_t blockSize = 0;
};
} // namespace

static std::optional<Granularity> getGranularity(const StoredWeight &weight) {
  if (weight.encoding.getFlat())
    return std::nullopt;
  ArrayRef<int64_t> shape = weight.type.getShape();
  SmallVector<int64_t> blockedAxes, channelAxes;
  for (auto [axis, extent] : llvm::enumerate(weight.encoding.getBlock())) {
    bool whole = extent == QuantizedAttr::kWholeExtent || extent >= shape[axis];
    if (whole)
      continue;
    (extent == 1 ? channelAxes : blockedAxes).push_back(axis);
  }
  if (blockedAxes.empty() && channelAxes.empty())
    return Granularity{Granularity::Tensor};
  if (blockedAxes.empty() && channelAxes.size() == 1)
    return Granularity{Granularity::Axis, channelAxes[0]};
  // A scale for each output of each matrix of a stack: one block along the
  // rest.
  if (blockedAxes.empty())
    for (auto [axis, size] : llvm::enumerate(shape))
      if (!llvm::is_contained(channelAxes, axis) && size != 1)
        blockedAxes.push_back(axis);
  // Every other dimension must have a scale of its own.
  bool blocked = blockedAxes.size() == 1;
  for (int64_t axis = 0; blocked && axis < int64_t(shape.size()); ++axis)
    blocked &= axis == blockedAxes[0] || weight.gridShape[axis] == shape[axis];
  if (!blocked)
    return std::nullopt;
  int64_t extent = weight.encoding.getBlock()[blockedAxes[0]];
  return Granularity{
      Granularity::Blocked, blockedAxes[0],
      extent == QuantizedAttr::kWholeExtent ? shape[blockedAxes[0]] : extent};
}

std::optional<std::string> nibble::whyNotQdq(const StoredWeight &weight) {
  if (weight.encoding.getStorage().isCodeBook())
    return "has a code book, which DequantizeLinear lacks";
  if (!getGranularity(weight))
    return "has blocks along more than one dimension, which DequantizeLinear "
           "lacks";
  return std::nullopt;
}

/// The bits of a code in ONNX's container. ONNX Runtime 1.32 fuses 2-bit
/// weights into wrong products where rows do not fill their bytes.
static unsigned getQdqContainerBits(const StoredWeight &weight) {
  unsigned bits = getContainerBits(weight.encoding.getStorage().getBitWidth());
  ArrayRef<int64_t> shape = weight.type.getShape();
  bool fillsBytes = shape.empty() || shape.back() % 4 == 0;
  return bits == 2 && !fillsBytes ? 4 : bits;
}

int64_t nibble::getQdqOpset(const StoredWeight &weight) {
  StorageAttr storage = weight.encoding.getStorage();
  Granularity granularity = *getGranularity(weight);
  int64_t opset = granularity.kind == Granularity::Blocked ? 21
                  : granularity.kind == Granularity::Axis  ? 13
                                                           : 10;
  // f16 scales came with f8.
  if (!weight.type.getElementType().isF32())
    opset = std::max<int64_t>(opset, 19);
  if (storage.isFloat())
    return std::max<int64_t>(opset, storage.getBitWidth() == 4 ? 23 : 19);
  unsigned container = getQdqContainerBits(weight);
  return std::max<int64_t>(opset, container == 2   ? 25
                                  : container == 4 ? 21
                                                   : 10);
}

/// Codes in the container that ONNX has for them, of `bits` where they are
/// integers.
static std::pair<Type, std::vector<char>>
packContainer(MLIRContext *context, StorageAttr storage, unsigned bits,
              const std::vector<uint8_t> &codes) {
  if (storage.isFloat()) {
    std::vector<char> packed(packedBytes(codes.size(), storage.getBitWidth()));
    packLowBitsFirst(codes.data(), codes.size(), storage.getBitWidth(),
                     reinterpret_cast<uint8_t *>(packed.data()));
    return {storage.getCodeType(), std::move(packed)};
  }
  Type type = IntegerType::get(context, bits,
                               storage.isSigned() ? IntegerType::Signless
                                                  : IntegerType::Unsigned);
  std::vector<char> packed(packedBytes(codes.size(), bits));
  packLowBitsFirst(codes.data(), codes.size(), bits,
                   reinterpret_cast<uint8_t *>(packed.data()));
  return {type, std::move(packed)};
}

void nibble::writeQdq(const StoredWeight &weight, OnnxBuilder &builder) {
  MLIRContext *context = weight.type.getContext();
  StorageAttr storage = weight.encoding.getStorage();
  Granularity granularity = *getGranularity(weight);
  SmallVector<int64_t> gridShape;
  if (granularity.kind == Granularity::Blocked)
    gridShape = weight.gridShape;
  else if (granularity.kind == Granularity::Axis)
    gridShape = {weight.type.getDimSize(granularity.axis)};

  unsigned bits = getQdqContainerBits(weight);
  auto [codeType, codes] = packContainer(context, storage, bits, weight.codes);
  SmallVector<Value> inputs;
  inputs.push_back(builder.makeConstant(weight.name + "_quantized",
                                        weight.type.getShape(), codeType,
                                        std::move(codes)));
  inputs.push_back(builder.makeScales(weight, gridShape));
  if (!weight.zeroPoints.empty()) {
    auto [zeroType, zeros] =
        packContainer(context, storage, bits, weight.zeroPoints);
    inputs.push_back(builder.makeConstant(
        weight.name + "_zero_point", gridShape, zeroType, std::move(zeros)));
  }
  SmallVector<std::pair<StringRef, int64_t>> attributes;
  if (granularity.kind != Granularity::Tensor)
    attributes.push_back({"axis", granularity.axis});
  if (granularity.kind == Granularity::Blocked)
    attributes.push_back({"block_size", granularity.blockSize});
  NodeOp dequantize = builder.makeNode(
      "DequantizeLinear", "", weight.name + "_DequantizeLinear",
      builder.names.make(weight.name), inputs, attributes,
      getExpressedType(weight.type));
  AssembleOp op = weight.op;
  op.getResult().replaceAllUsesWith(dequantize.getResult(0));
}
