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
/// channel has outer · inner inputs. Either outer or inner is 1 in a matrix, of
/// which a stack has several behind each other.
struct WeightShape {
  size_t outer = 1, channels = 1, inner = 1, matrices = 1;
  size_t inputs() const { return outer * inner; }
};

/// A matrix has its channels across its blocks, in the second dimension where
/// they cover everything; a filter where its blocks have one element, else in
/// the first dimension. std::nullopt where blocks are neither.
std::optional<WeightShape> findShape(QuantizedAttr encoding,
                                     ArrayRef<int64_t> shape) {
  ArrayRef<int64_t> block = encoding.getBlock();
  size_t axis = 0;
  WeightShape result;
  if (isStackEncoding(encoding)) {
    for (int64_t extent : shape.drop_back(2))
      result.matrices *= extent;
    if (llvm::any_of(block.drop_back(2), [](int64_t e) { return e != 1; }))
      return std::nullopt;
    block = block.take_back(2);
    shape = shape.take_back(2);
  }
  if (shape.size() == 2)
    axis = block[0] == 1 ? 0 : 1;
  else if (llvm::is_contained(block, 1))
    axis = llvm::find(block, 1) - block.begin();
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

/// Codes and scales in the order of the weight's own elements.
struct CodedWeight {
  std::vector<uint8_t> codes, zeroPoints;
  std::vector<float> scales;
  double squaredNorm = 0, squaredError = 0;

  /// Adds the next matrix of a stack, [K, N], perhaps stored as [N, K].
  void append(QuantizedMatrix &matrix, size_t K, size_t N, bool transpose) {
    size_t rows = matrix.blockRows(), cols = matrix.blockCols();
    squaredNorm += matrix.squaredNorm;
    squaredError += matrix.squaredError;
    add(codes, orient(std::move(matrix.codes), K, N, transpose));
    add(scales, orient(std::move(matrix.scales), rows, cols, transpose));
    add(zeroPoints,
        orient(std::move(matrix.zeroPoints), rows, cols, transpose));
  }

private:
  template <typename T>
  static void add(std::vector<T> &all, std::vector<T> next) {
    if (all.empty())
      all = std::move(next);
    else
      llvm::append_range(all, next);
  }
};

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

/// Sparse outliers as parts of a nibble.assemble: [n, 2] places in the tensor,
/// in its row-major order, and [n] values.
struct OutlierParts {
  std::vector<int32_t> places;
  std::vector<float> values;

  OutlierParts(const SparseOutliers &outliers, bool transpose) {
    std::vector<std::tuple<uint32_t, uint32_t, float>> sorted;
    for (auto [row, col, value] :
         llvm::zip(outliers.rows, outliers.cols, outliers.values))
      sorted.emplace_back(transpose ? col : row, transpose ? row : col, value);
    llvm::sort(sorted);
    for (auto [first, second, value] : sorted) {
      places.push_back(static_cast<int32_t>(first));
      places.push_back(static_cast<int32_t>(second));
      values.push_back(value);
    }
  }
  std::vector<char> packPlaces() const {
    std::vector<char> bytes(places.size() * sizeof(int32_t));
    std::memcpy(bytes.data(), places.data(), bytes.size());
    return bytes;
  }
};

/// `encoding` with single elements kept apart in f16.
QuantizedAttr addSparseOutliers(QuantizedAttr encoding) {
  MLIRContext *context = encoding.getContext();
  auto outliers = OutliersAttr::get(context, OutlierKind::Sparse, /*axis=*/0,
                                    Float16Type::get(context));
  return QuantizedAttr::get(encoding.getStorage(), encoding.getBlock(),
                            encoding.getFlat(), encoding.getScale(),
                            encoding.getZero(), outliers, LayoutAttr());
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
  bool rowMajor = shape->inner == 1 && shape->outer > 1;
  Scheme scheme = getScheme(encoding);
  CodedWeight coded;
  QuantizedWeight last;
  for (size_t i = 0; i < shape->matrices; ++i) {
    const float *numbers = floats->data() + i * K * N;
    std::vector<float> moved;
    if (scattered)
      moved = moveChannels<float>({numbers, K * N}, *shape, false);
    MatrixView view =
        rowMajor
            ? MatrixView::rowMajor(numbers, K, N)
            : MatrixView::columnMajor(scattered ? moved.data() : numbers, K, N);
    Result<QuantizedWeight> result =
        quantizer.quantize(view, statistics, scheme, threads);
    if (!result)
      return constant.emitError("tensor '")
             << constant.getName() << "': " << result.error();
    last = std::move(*result);
    coded.append(last.matrix, K, N, /*transpose=*/!rowMajor);
  }
  if (scattered)
    coded.codes = moveChannels<uint8_t>(coded.codes, *shape, true);
  floats->release();

  OutlierParts outliers(last.outliers, /*transpose=*/!rowMajor);
  assert((outliers.values.empty() || type.getRank() == 2) &&
         "only matrices have outliers");
  if (!outliers.values.empty())
    encoding = addSparseOutliers(encoding);
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
  unsigned bits = scheme.storage.bits;
  Value codes = makePart(".codes", getCodesType(quantizedType),
                         packCodes(coded.codes, bits));
  Value scales = makePart(".scales", getScalesType(quantizedType),
                          packScales(coded.scales, scheme.scaleFormat));
  Value zeros;
  if (encoding.hasZero())
    zeros = makePart(".zeros", getZerosType(quantizedType),
                     packCodes(coded.zeroPoints, bits));
  Value places, values;
  if (size_t count = outliers.values.size()) {
    places = makePart(
        ".outlier_places",
        getOutlierIndicesType(quantizedType, count, builder.getI32Type()),
        outliers.packPlaces());
    values =
        makePart(".outlier_values", getOutlierValuesType(quantizedType, count),
                 packScales(outliers.values, FloatFormat::F16));
  }
  auto assemble = AssembleOp::create(builder, constant.getLoc(), quantizedType,
                                     codes, scales, zeros, places, values);
  double sqnr =
      10 * std::log10(coded.squaredNorm / std::max(coded.squaredError, 1e-300));
  assemble->setAttr(kSqnrAttrName, builder.getF64FloatAttr(sqnr));
  describe(last, constant, assemble);
  constant.getResult().replaceAllUsesWith(assemble.getResult());
  constant.erase();
  return success();
}
