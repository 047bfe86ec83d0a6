//===- Dequantize.cpp - The numbers of a quantized constant ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"

#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/Packing.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Codes (or integer zero points) of a constant as numbers.
static std::optional<std::vector<float>> readCodeValues(Value value,
                                                        StorageAttr storage) {
  // Wider than a byte: plain integers.
  if (storage.isInteger() && storage.getBitWidth() > 8) {
    auto integers = getIntegers(getConstantValue(value));
    if (!integers)
      return std::nullopt;
    return std::vector<float>(integers->begin(), integers->end());
  }
  auto type = dyn_cast<RankedTensorType>(value.getType());
  std::optional<TensorBytes> data = getTensorBytes(getConstantValue(value));
  if (!type || !data || data->bytes.size() != getPackedSize(type))
    return std::nullopt;
  StorageFormat format = getStorageFormat(storage);
  std::vector<uint8_t> codes(type.getNumElements());
  unpackLowBitsFirst(reinterpret_cast<const uint8_t *>(data->bytes.data()),
                     codes.size(), storage.getBitWidth(),
                     storage.isInteger() && storage.isSigned(), codes.data());
  float table[256];
  for (unsigned code = 0; code < 256; ++code)
    table[code] = codeValue(format, static_cast<uint8_t>(code));
  std::vector<float> values(codes.size());
  for (size_t i = 0; i < codes.size(); ++i)
    values[i] = table[codes[i]];
  return values;
}

static std::optional<std::vector<float>> readZeros(AssembleOp op,
                                                   QuantizedAttr encoding) {
  if (auto storage = dyn_cast<StorageAttr>(encoding.getZero()))
    return readCodeValues(op.getZeros(), storage);
  return getFloats(getConstantValue(op.getZeros()));
}

/// Index into the grid of each element, in row-major order.
static void
forEachElement(RankedTensorType type, QuantizedAttr encoding,
               llvm::function_ref<void(int64_t element, int64_t block)> body) {
  ArrayRef<int64_t> shape = type.getShape();
  int64_t count = type.getNumElements();
  if (encoding.getFlat()) {
    for (int64_t i = 0; i < count; ++i)
      body(i, i / encoding.getBlock()[0]);
    return;
  }
  SmallVector<int64_t> grid = encoding.getGridShape(shape);
  SmallVector<int64_t> position(shape.size(), 0);
  for (int64_t i = 0; i < count; ++i) {
    int64_t block = 0;
    for (auto [axis, extent] : llvm::enumerate(encoding.getBlock())) {
      int64_t along =
          extent == QuantizedAttr::kWholeExtent ? 0 : position[axis] / extent;
      block = block * grid[axis] + along;
    }
    body(i, block);
    for (size_t axis = shape.size(); axis-- > 0;) {
      if (++position[axis] < shape[axis])
        break;
      position[axis] = 0;
    }
  }
}

static std::optional<std::vector<float>> readScales(AssembleOp op,
                                                    QuantizedAttr encoding) {
  if (!encoding.hasNestedScale())
    return getFloats(getConstantValue(op.getScales()));
  auto nested = op.getScales().getDefiningOp<AssembleOp>();
  return nested ? dequantizeConstant(nested) : std::nullopt;
}

/// Writes sparse outliers over the elements that they stand for (Spec S8).
static LogicalResult insertOutliers(AssembleOp op, RankedTensorType type,
                                    std::vector<float> &elements) {
  if (getQuantization(type).getOutliers().getKind() != OutlierKind::Sparse)
    return failure();
  auto places = getIntegers(getConstantValue(op.getOutlierIndices()));
  auto values = getFloats(getConstantValue(op.getOutlierValues()));
  size_t rank = type.getRank();
  if (!places || !values || places->size() != values->size() * rank)
    return failure();
  for (auto [i, value] : llvm::enumerate(*values)) {
    int64_t element = 0;
    for (size_t axis = 0; axis < rank; ++axis) {
      int64_t place = (*places)[i * rank + axis];
      if (place < 0 || place >= type.getDimSize(axis))
        return failure();
      element = element * type.getDimSize(axis) + place;
    }
    elements[element] = value;
  }
  return success();
}

std::optional<std::vector<float>> nibble::dequantizeConstant(AssembleOp op) {
  auto type = cast<RankedTensorType>(op.getResult().getType());
  QuantizedAttr encoding = getQuantization(type);
  if (encoding.hasNestedZero() || encoding.hasLayout() ||
      !type.hasStaticShape())
    return std::nullopt;
  std::optional<std::vector<float>> values =
      readCodeValues(op.getCodes(), encoding.getStorage());
  std::optional<std::vector<float>> scales = readScales(op, encoding);
  std::optional<std::vector<float>> zeros;
  if (encoding.hasZero())
    zeros = readZeros(op, encoding);
  if (!values || !scales || (encoding.hasZero() && !zeros))
    return std::nullopt;
  forEachElement(type, encoding, [&](int64_t element, int64_t block) {
    float zero = zeros ? (*zeros)[block] : 0;
    (*values)[element] = ((*values)[element] - zero) * (*scales)[block];
  });
  if (encoding.hasOutliers() && failed(insertOutliers(op, type, *values)))
    return std::nullopt;
  return values;
}
