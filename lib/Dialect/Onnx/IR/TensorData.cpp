//===- TensorData.cpp - The numbers of a constant -------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/IR/DialectResourceBlobManager.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/Support/MathExtras.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Elements as bits
//===----------------------------------------------------------------------===//

/// Bits of element `index` in packed `bytes`; `width` is at most 64.
static uint64_t getBits(ArrayRef<char> bytes, uint64_t index, unsigned width) {
  if (width % 8 == 0) {
    uint64_t bits = 0;
    std::memcpy(&bits, bytes.data() + index * (width / 8), width / 8);
    return bits;
  }
  uint64_t bits = 0;
  for (unsigned i = 0; i < width; ++i) {
    uint64_t position = index * width + i;
    bits |= uint64_t((bytes[position / 8] >> (position % 8)) & 1) << i;
  }
  return bits;
}

/// Packs elements of `width` < 8 bits, low bits first.
static std::vector<char> packBits(ArrayRef<uint64_t> elements, unsigned width) {
  std::vector<char> bytes((elements.size() * width + 7) / 8);
  for (auto [index, element] : llvm::enumerate(elements))
    for (unsigned i = 0; i < width; ++i) {
      uint64_t position = index * width + i;
      bytes[position / 8] |=
          static_cast<char>(((element >> i) & 1) << (position % 8));
    }
  return bytes;
}

static bool isPacked(Type elementType) {
  return getBitWidth(elementType) % 8 != 0;
}

//===----------------------------------------------------------------------===//
// Dense attributes
//===----------------------------------------------------------------------===//

static std::vector<char> getDenseBytes(DenseElementsAttr dense) {
  Type elementType = dense.getElementType();
  if (elementType.isInteger(1)) {
    auto values = dense.getValues<bool>();
    return std::vector<char>(values.begin(), values.end());
  }
  if (isPacked(elementType)) {
    SmallVector<uint64_t> elements;
    if (isa<FloatType>(elementType))
      for (const APFloat &value : dense.getValues<APFloat>())
        elements.push_back(value.bitcastToAPInt().getZExtValue());
    else
      for (const APInt &value : dense.getValues<APInt>())
        elements.push_back(value.getZExtValue());
    return packBits(elements, getBitWidth(elementType));
  }
  ArrayRef<char> raw = dense.getRawData();
  if (!dense.isSplat())
    return std::vector<char>(raw.begin(), raw.end());
  std::vector<char> bytes;
  for (int64_t i = 0; i < dense.getNumElements(); ++i)
    bytes.insert(bytes.end(), raw.begin(), raw.end());
  return bytes;
}

DenseElementsAttr onnx::getDenseElements(ShapedType type,
                                         ArrayRef<char> bytes) {
  Type elementType = type.getElementType();
  unsigned width = getBitWidth(elementType);
  int64_t count = type.getNumElements();
  DenseElementsAttr dense;
  if (elementType.isInteger(1)) {
    if (llvm::any_of(bytes, [](char byte) { return byte != 0 && byte != 1; }))
      return {};
    SmallVector<bool> values(bytes.begin(), bytes.end());
    return DenseElementsAttr::get(type, values);
  }
  if (!isPacked(elementType))
    return count == 0 ? DenseElementsAttr::get(type, ArrayRef<Attribute>())
                      : DenseElementsAttr::getFromRawBuffer(type, bytes);
  if (auto floatType = dyn_cast<FloatType>(elementType)) {
    SmallVector<APFloat> values;
    for (int64_t i = 0; i < count; ++i)
      values.emplace_back(floatType.getFloatSemantics(),
                          APInt(width, getBits(bytes, i, width)));
    dense = DenseElementsAttr::get(type, values);
  } else {
    SmallVector<APInt> values;
    for (int64_t i = 0; i < count; ++i)
      values.emplace_back(width, getBits(bytes, i, width));
    dense = DenseElementsAttr::get(type, values);
  }
  // The padding of the last byte may hold something.
  std::vector<char> again = getDenseBytes(dense);
  return ArrayRef<char>(again) == bytes ? dense : DenseElementsAttr();
}

//===----------------------------------------------------------------------===//
// Varint fields
//===----------------------------------------------------------------------===//

/// Sub-byte integers and f4 go into `int32_data` by the packed byte; everything
/// else, f6 too, by the element (onnx.proto, TensorProto.int32_data).
static bool isVarintPerByte(Type elementType) {
  unsigned width = getBitWidth(elementType);
  return width == 2 || width == 4;
}

uint64_t onnx::getVarintCount(ShapedType type) {
  return isVarintPerByte(type.getElementType()) ? *getPackedSize(type)
                                                : type.getNumElements();
}

/// The varint of an element: negative integers are extended to 64 bits.
static uint64_t toVarint(Type elementType, uint64_t bits) {
  auto integer = dyn_cast<IntegerType>(elementType);
  if (!integer || !integer.isSignless() || integer.getWidth() < 8)
    return bits;
  return static_cast<uint64_t>(llvm::SignExtend64(bits, integer.getWidth()));
}

void onnx::collectVarints(ShapedType type, ArrayRef<char> bytes,
                          SmallVectorImpl<uint64_t> &values) {
  Type elementType = type.getElementType();
  unsigned width = isVarintPerByte(elementType) ? 8 : getBitWidth(elementType);
  for (uint64_t i = 0, count = getVarintCount(type); i < count; ++i)
    values.push_back(toVarint(elementType, getBits(bytes, i, width)));
}

bool onnx::expandVarints(ShapedType type, StringRef varints,
                         std::vector<char> &bytes) {
  Type elementType = type.getElementType();
  unsigned width = isVarintPerByte(elementType) ? 8 : getBitWidth(elementType);
  uint64_t count = getVarintCount(type);
  SmallVector<uint64_t> elements;
  const char *data = varints.data(), *end = varints.end();
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t value = 0;
    unsigned shift = 0;
    do {
      if (data == end || shift > 63)
        return false;
      value |= uint64_t(*data & 0x7f) << shift;
      shift += 7;
    } while (*data++ & 0x80);
    uint64_t bits = width == 64 ? value : value & ((uint64_t(1) << width) - 1);
    if (toVarint(elementType, bits) != value)
      return false;
    if (width % 8 != 0)
      elements.push_back(bits);
    else
      bytes.insert(bytes.end(), reinterpret_cast<char *>(&bits),
                   reinterpret_cast<char *>(&bits) + width / 8);
  }
  if (width % 8 != 0)
    bytes = packBits(elements, width);
  return data == end;
}

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

std::optional<TensorBytes> onnx::getTensorBytes(Attribute value) {
  TensorBytes result;
  if (auto file = dyn_cast_if_present<FileElementsAttr>(value)) {
    ArrayRef<char> bytes = file.getBytes();
    if (!file.getVarint()) {
      result.bytes = bytes;
      result.mapped = true;
      return result;
    }
    if (!expandVarints(file.getType(), StringRef(bytes.data(), bytes.size()),
                       result.storage))
      return std::nullopt;
  } else if (auto dense = dyn_cast_if_present<DenseElementsAttr>(value)) {
    result.storage = getDenseBytes(dense);
  } else if (auto resource =
                 dyn_cast_if_present<DenseResourceElementsAttr>(value)) {
    AsmResourceBlob *blob = resource.getRawHandle().getBlob();
    if (!blob)
      return std::nullopt;
    result.bytes = blob->getData();
    return result;
  } else {
    return std::nullopt;
  }
  result.bytes = result.storage;
  return result;
}

static std::optional<TensorBytes> getCheckedBytes(Attribute value) {
  auto typed = dyn_cast_if_present<TypedAttr>(value);
  if (!typed)
    return std::nullopt;
  std::optional<TensorBytes> data = getTensorBytes(value);
  if (!data ||
      data->bytes.size() != getPackedSize(cast<ShapedType>(typed.getType())))
    return std::nullopt;
  return data;
}

std::optional<SmallVector<int64_t>> onnx::getIntegers(Attribute value) {
  std::optional<TensorBytes> data = getCheckedBytes(value);
  if (!data)
    return std::nullopt;
  auto type = cast<ShapedType>(cast<TypedAttr>(value).getType());
  auto integer = dyn_cast<IntegerType>(type.getElementType());
  if (!integer)
    return std::nullopt;
  unsigned width = getBitWidth(integer);
  SmallVector<int64_t> integers;
  for (int64_t i = 0, count = type.getNumElements(); i < count; ++i) {
    uint64_t bits = getBits(data->bytes, i, width);
    bool isSigned = integer.isSignless() && integer.getWidth() > 1;
    integers.push_back(isSigned ? llvm::SignExtend64(bits, width)
                                : static_cast<int64_t>(bits));
  }
  return integers;
}

std::optional<std::vector<float>> onnx::getFloats(Attribute value) {
  std::optional<TensorBytes> data = getCheckedBytes(value);
  if (!data)
    return std::nullopt;
  auto type = cast<ShapedType>(cast<TypedAttr>(value).getType());
  auto floatType = dyn_cast<FloatType>(type.getElementType());
  if (!floatType || floatType.getWidth() < 16 || floatType.getWidth() > 64)
    return std::nullopt;
  std::vector<float> floats(type.getNumElements());
  if (floatType.isF32()) {
    std::memcpy(floats.data(), data->bytes.data(), data->bytes.size());
    return floats;
  }
  unsigned width = floatType.getWidth();
  for (size_t i = 0; i < floats.size(); ++i) {
    APFloat element(floatType.getFloatSemantics(),
                    APInt(width, getBits(data->bytes, i, width)));
    bool losesInfo;
    element.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven,
                    &losesInfo);
    floats[i] = element.convertToFloat();
  }
  return floats;
}

TypedAttr onnx::makeTensorValue(RankedTensorType type, StringRef name,
                                std::vector<char> bytes) {
  if (type.getNumElements() <= kMaxDenseElements)
    if (DenseElementsAttr dense = getDenseElements(type, bytes))
      return dense;
  auto owned = std::make_unique<std::vector<char>>(std::move(bytes));
  ArrayRef<char> data(*owned);
  AsmResourceBlob blob(
      data, /*dataAlignment=*/alignof(std::max_align_t),
      [owner = owned.release()](void *, size_t, size_t) { delete owner; },
      /*dataIsMutable=*/false);
  return DenseResourceElementsAttr::get(type, name, std::move(blob));
}
