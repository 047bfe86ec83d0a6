//===- QuantizeConstant.cpp - A weight to codes and scales ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/QuantizeConstant.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/Packing.h"

#include "mlir/IR/Builders.h"

#include <cmath>
#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// The floats of a constant: in the mapped file where they are aligned f32
/// there.
class WeightFloats {
public:
  static std::optional<WeightFloats> read(ConstantOp constant) {
    WeightFloats floats;
    Attribute value = constant.getValue();
    auto type = cast<RankedTensorType>(constant.getType());
    std::optional<TensorBytes> bytes = getTensorBytes(value);
    if (!bytes || bytes->bytes.size() != getPackedSize(type))
      return std::nullopt;
    bool aligned =
        reinterpret_cast<uintptr_t>(bytes->bytes.data()) % alignof(float) == 0;
    if (type.getElementType().isF32() && aligned && bytes->storage.empty()) {
      floats.pointer = reinterpret_cast<const float *>(bytes->bytes.data());
      if (bytes->mapped)
        floats.mapped = bytes->bytes;
      return floats;
    }
    std::optional<std::vector<float>> converted = getFloats(value);
    if (!converted)
      return std::nullopt;
    floats.storage = std::move(*converted);
    return floats;
  }
  const float *data() const { return pointer ? pointer : storage.data(); }
  /// The weight has been read: its pages need not stay in memory.
  void release() const { dropPages(mapped); }

private:
  const float *pointer = nullptr;
  ArrayRef<char> mapped;
  std::vector<float> storage;
};

/// `matrix` [rows, cols] transposed, or as it is.
template <typename T>
std::vector<T> orient(std::vector<T> matrix, size_t rows, size_t cols,
                      bool transpose) {
  if (!transpose || matrix.empty())
    return matrix;
  std::vector<T> result(matrix.size());
  constexpr size_t tile = 32;
  for (size_t row = 0; row < rows; row += tile)
    for (size_t col = 0; col < cols; col += tile)
      for (size_t r = row; r < std::min(rows, row + tile); ++r)
        for (size_t c = col; c < std::min(cols, col + tile); ++c)
          result[c * rows + r] = matrix[r * cols + c];
  return result;
}

std::vector<char> packCodes(const std::vector<uint8_t> &codes, unsigned bits) {
  std::vector<char> packed(packedBytes(codes.size(), bits));
  packLowBitsFirst(codes.data(), codes.size(), bits,
                   reinterpret_cast<uint8_t *>(packed.data()));
  return packed;
}

std::vector<char> packScales(const std::vector<float> &scales,
                             FloatFormat format) {
  if (format == FloatFormat::F32) {
    std::vector<char> bytes(scales.size() * sizeof(float));
    std::memcpy(bytes.data(), scales.data(), bytes.size());
    return bytes;
  }
  std::vector<char> bytes(scales.size() * sizeof(uint16_t));
  encodeArray(format, scales.data(), scales.size(),
              reinterpret_cast<uint16_t *>(bytes.data()));
  return bytes;
}

/// The dimension with blocks of more than one element; the first for blocks
/// that cover everything.
unsigned findReductionAxis(QuantizedAttr encoding) {
  return encoding.getBlock()[0] == 1 ? 1 : 0;
}

/// The scheme that an encoding of a matrix stands for.
Scheme getScheme(QuantizedAttr encoding, unsigned reductionAxis) {
  Scheme scheme;
  scheme.storage = getStorageFormat(encoding.getStorage());
  scheme.symmetric = !encoding.hasZero();
  int64_t extent = encoding.getBlock()[reductionAxis];
  int64_t other = encoding.getBlock()[1 - reductionAxis];
  if (extent != QuantizedAttr::kWholeExtent) {
    scheme.granularity = Granularity::Group;
    scheme.groupSize = static_cast<size_t>(extent);
  } else {
    scheme.granularity = other == QuantizedAttr::kWholeExtent
                             ? Granularity::Tensor
                             : Granularity::Channel;
  }
  Type scale = cast<TypeAttr>(encoding.getScale()).getValue();
  scheme.scaleFormat = scale.isF16()    ? FloatFormat::F16
                       : scale.isBF16() ? FloatFormat::BF16
                                        : FloatFormat::F32;
  return scheme;
}

/// Notes on the weight what became of it.
void describe(const QuantizedWeight &weight, Operation *assemble) {
  Builder builder(assemble->getContext());
  const HessianLosses &losses = weight.losses;
  if (!std::isnan(losses.output))
    assemble->setAttr(kOutputErrorAttrName,
                      builder.getF64FloatAttr(losses.output));
  if (!std::isnan(losses.rounding) && !std::isnan(losses.end))
    assemble->setAttr(kLossesAttrName, builder.getDenseF64ArrayAttr(
                                           {losses.rounding, losses.end}));
  SmallVector<StringRef> notes(weight.notes.begin(), weight.notes.end());
  if (!notes.empty())
    assemble->setAttr(kNotesAttrName, builder.getStrArrayAttr(notes));
}

} // namespace

LogicalResult nibble::quantizeConstant(ConstantOp constant,
                                       const WeightQuantizer &quantizer,
                                       const WeightStatistics &statistics,
                                       unsigned threads) {
  auto encoding = constant->getAttrOfType<QuantizedAttr>(kEncodingAttrName);
  auto type = dyn_cast<RankedTensorType>(constant.getType());
  bool simple =
      encoding && !encoding.getFlat() && !encoding.hasNestedScale() &&
      !encoding.hasOutliers() && type && type.getRank() == 2 &&
      encoding.getBlock().size() == 2 &&
      (!encoding.hasZero() || encoding.getZero() == encoding.getStorage());
  if (!simple)
    return constant.emitError("tensor '")
           << constant.getName()
           << "' has an encoding that --nibble-round cannot produce";
  std::optional<WeightFloats> floats = WeightFloats::read(constant);
  if (!floats)
    return constant.emitError("tensor '")
           << constant.getName() << "' has no float data that can be read";

  unsigned axis = findReductionAxis(encoding);
  size_t K = type.getDimSize(axis), N = type.getDimSize(1 - axis);
  MatrixView view = axis == 0 ? MatrixView::rowMajor(floats->data(), K, N)
                              : MatrixView::columnMajor(floats->data(), K, N);
  Scheme scheme = getScheme(encoding, axis);
  Result<QuantizedWeight> result =
      quantizer.quantize(view, statistics, scheme, threads);
  if (!result)
    return constant.emitError("tensor '")
           << constant.getName() << "': " << result.error();
  QuantizedMatrix *quantized = &result->matrix;
  floats->release();

  auto quantizedType =
      RankedTensorType::get(type.getShape(), type.getElementType(), encoding);
  OpBuilder builder(constant);
  auto makePart = [&](StringRef suffix, RankedTensorType partType,
                      std::vector<char> bytes) -> Value {
    std::string name = (constant.getName() + suffix).str();
    TypedAttr value = makeTensorValue(partType, name, std::move(bytes));
    return ConstantOp::create(builder, constant.getLoc(), partType,
                              builder.getStringAttr(name), value,
                              TensorField::raw_data, DictionaryAttr());
  };
  bool transpose = axis == 1;
  unsigned bits = scheme.storage.bits;
  size_t blockRows = quantized->blockRows(), blockCols = quantized->blockCols();
  Value codes = makePart(
      ".codes", getCodesType(quantizedType),
      packCodes(orient(std::move(quantized->codes), K, N, transpose), bits));
  Value scales = makePart(".scales", getScalesType(quantizedType),
                          packScales(orient(std::move(quantized->scales),
                                            blockRows, blockCols, transpose),
                                     scheme.scaleFormat));
  Value zeros;
  if (encoding.hasZero())
    zeros = makePart(".zeros", getZerosType(quantizedType),
                     packCodes(orient(std::move(quantized->zeroPoints),
                                      blockRows, blockCols, transpose),
                               bits));
  auto assemble = AssembleOp::create(builder, constant.getLoc(), quantizedType,
                                     codes, scales, zeros, Value(), Value());
  double sqnr = 10 * std::log10(quantized->squaredNorm /
                                std::max(quantized->squaredError, 1e-300));
  assemble->setAttr(kSqnrAttrName, builder.getF64FloatAttr(sqnr));
  describe(*result, assemble);
  constant.getResult().replaceAllUsesWith(assemble.getResult());
  constant.erase();
  return success();
}
