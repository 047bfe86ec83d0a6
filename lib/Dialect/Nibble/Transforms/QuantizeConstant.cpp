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

/// A weight as a matrix: its dimensions are [outer, channels, inner], and a
/// channel has outer · inner inputs. Either outer or inner is 1 in a matrix.
struct WeightShape {
  size_t outer = 1, channels = 1, inner = 1;
  size_t inputs() const { return outer * inner; }
};

/// A matrix has its channels across its blocks, in the second dimension where
/// they cover everything; a filter where its blocks have one element, else in
/// the first dimension. std::nullopt where blocks are neither.
std::optional<WeightShape> findShape(QuantizedAttr encoding,
                                     ArrayRef<int64_t> shape) {
  ArrayRef<int64_t> block = encoding.getBlock();
  size_t axis = 0;
  if (shape.size() == 2) {
    axis = block[0] == 1 ? 0 : 1;
  } else {
    if (llvm::any_of(block,
                     [](int64_t extent) {
                       return extent != 1 &&
                              extent != QuantizedAttr::kWholeExtent;
                     }) ||
        llvm::count(block, 1) > 1)
      return std::nullopt;
    if (llvm::is_contained(block, 1))
      axis = llvm::find(block, 1) - block.begin();
  }
  WeightShape result;
  result.channels = shape[axis];
  for (auto [i, extent] : llvm::enumerate(shape))
    if (i != axis)
      (i < axis ? result.outer : result.inner) *= extent;
  return result;
}

/// [outer, channels, inner] → [channels, outer, inner], and back.
template <typename T>
std::vector<T> moveChannels(ArrayRef<T> values, const WeightShape &shape,
                            bool back) {
  std::vector<T> result(values.size());
  for (size_t outer = 0; outer < shape.outer; ++outer)
    for (size_t channel = 0; channel < shape.channels; ++channel) {
      size_t apart = (outer * shape.channels + channel) * shape.inner;
      size_t together = (channel * shape.outer + outer) * shape.inner;
      std::copy_n(values.begin() + (back ? together : apart), shape.inner,
                  result.begin() + (back ? apart : together));
    }
  return result;
}

/// Notes on the weight what became of it, behind what passes noted on the
/// constant.
void describe(const QuantizedWeight &weight, ConstantOp constant,
              AssembleOp assemble) {
  Builder builder(assemble->getContext());
  const HessianLosses &losses = weight.losses;
  if (!std::isnan(losses.output))
    assemble->setAttr(kOutputErrorAttrName,
                      builder.getF64FloatAttr(losses.output));
  if (!std::isnan(losses.rounding) && !std::isnan(losses.end))
    assemble->setAttr(kLossesAttrName, builder.getDenseF64ArrayAttr(
                                           {losses.rounding, losses.end}));
  if (weight.usesHessian)
    assemble->setAttr(kDampingAttrName,
                      builder.getF64FloatAttr(weight.damping));
  SmallVector<Attribute> notes;
  if (auto earlier = constant->getAttrOfType<ArrayAttr>(kNotesAttrName))
    notes.assign(earlier.begin(), earlier.end());
  for (const std::string &note : weight.notes)
    notes.push_back(builder.getStringAttr(note));
  if (!notes.empty())
    assemble->setAttr(kNotesAttrName, builder.getArrayAttr(notes));
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
      !encoding.hasOutliers() && type && type.getRank() >= 2 &&
      (!encoding.hasZero() || encoding.getZero() == encoding.getStorage());
  auto shape = simple ? findShape(encoding, type.getShape())
                      : std::optional<WeightShape>();
  if (!shape)
    return constant.emitError("tensor '")
           << constant.getName()
           << "' has an encoding that --nibble-round cannot produce";
  std::optional<WeightFloats> floats = WeightFloats::read(constant);
  if (!floats)
    return constant.emitError("tensor '")
           << constant.getName() << "' has no float data that can be read";

  size_t K = shape->inputs(), N = shape->channels;
  // A channel's inputs lie together, or else channels lie side by side.
  bool scattered = shape->outer > 1 && shape->inner > 1;
  std::vector<float> moved;
  if (scattered)
    moved = moveChannels<float>({floats->data(), K * N}, *shape, false);
  bool rowMajor = shape->inner == 1 && shape->outer > 1;
  MatrixView view = rowMajor
                        ? MatrixView::rowMajor(floats->data(), K, N)
                        : MatrixView::columnMajor(
                              scattered ? moved.data() : floats->data(), K, N);
  Scheme scheme = getScheme(encoding);
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
  bool transpose = !rowMajor;
  unsigned bits = scheme.storage.bits;
  size_t blockRows = quantized->blockRows(), blockCols = quantized->blockCols();
  std::vector<uint8_t> ordered =
      orient(std::move(quantized->codes), K, N, transpose);
  if (scattered)
    ordered = moveChannels<uint8_t>(ordered, *shape, true);
  Value codes =
      makePart(".codes", getCodesType(quantizedType), packCodes(ordered, bits));
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
  describe(*result, constant, assemble);
  constant.getResult().replaceAllUsesWith(assemble.getResult());
  constant.erase();
  return success();
}
