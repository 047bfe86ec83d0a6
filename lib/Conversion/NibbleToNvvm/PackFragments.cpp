//===- PackFragments.cpp - Constant weights packed for tensor cores -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/ConstantData.h"
#include "nibble/Conversion/MatrixRows.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Numerics/FloatFormats.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/DialectResourceBlobManager.h"

#include <cmath>
#include <map>

namespace nibble {
#define GEN_PASS_DEF_PACKFRAGMENTS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

/// Elements that a row of activations or of a result is a multiple of.
static constexpr int64_t kRowMultiple = 8;

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

/// `type` as a weight [K, N] with the layout `fragment`, or null. Integers have
/// no zero points where `isSigned`, and are unsigned with zero points
/// elsewhere.
static RankedTensorType getFragmentType(RankedTensorType type, bool transposed,
                                        bool isSigned) {
  QuantizedAttr encoding = getQuantization(type);
  if (encoding.getFlat() || encoding.hasNestedScale() ||
      encoding.hasOutliers() || encoding.hasLayout() || type.getRank() != 2 ||
      !type.hasStaticShape() || encoding.getBlock()[transposed ? 0 : 1] != 1)
    return {};
  int64_t K = type.getDimSize(transposed ? 1 : 0);
  int64_t N = type.getDimSize(transposed ? 0 : 1);
  int64_t extent = encoding.getBlock()[transposed ? 1 : 0];
  bool wholeK = extent == QuantizedAttr::kWholeExtent || extent >= K;
  StorageAttr storage = encoding.getStorage();
  if (encoding.hasZero() && encoding.getZero() != storage)
    return {};
  unsigned bits = storage.getCodeType().getIntOrFloatBitWidth();
  bool hasZero = storage.isInteger() && !isSigned;
  if (storage.isInteger())
    storage = getStorageAttr(type.getContext(),
                             isSigned ? StorageFormat::getSigned(bits)
                                      : StorageFormat::getUnsigned(bits));
  Builder builder(type.getContext());
  auto group = builder.getNamedAttr(
      "group", builder.getI64IntegerAttr(wholeK ? 0 : extent));
  auto layout =
      LayoutAttr::get(type.getContext(), builder.getStringAttr("fragment"),
                      builder.getDictionaryAttr(group));
  auto packed = QuantizedAttr::get(
                    storage, {wholeK ? QuantizedAttr::kWholeExtent : extent, 1},
                    TypeAttr::get(builder.getF16Type()),
                    hasZero ? Attribute(storage) : Attribute())
                    .withLayout(layout);
  auto result = RankedTensorType::get({K, N}, builder.getF32Type(), packed);
  return getFragmentFormat(result) ? result : RankedTensorType();
}

/// True where rounding to f16 costs a scale no more than its half a unit in the
/// last place.
static bool fitF16(ArrayRef<float> scales) {
  return llvm::all_of(scales, [](float scale) {
    float magnitude = std::abs(scale);
    return magnitude == 0 || (magnitude >= 0x1p-14f && magnitude <= 65504);
  });
}

/// A grid [N, groups] as [groups, N].
template <typename T>
static std::vector<T> transposeGrid(ArrayRef<T> grid, size_t N) {
  std::vector<T> result(grid.size());
  size_t groups = grid.size() / N;
  for (size_t n = 0; n < N; ++n)
    for (size_t group = 0; group < groups; ++group)
      result[group * N + n] = grid[n * groups + group];
  return result;
}

/// The codes of a constant, moved by `offset`.
static std::vector<uint8_t> getCodes(ElementsAttr value, uint8_t offset) {
  std::vector<char> storage;
  std::vector<uint8_t> codes;
  for (char code : getBytes(value, storage))
    codes.push_back(static_cast<uint8_t>(code) + offset);
  return codes;
}

/// Signed codes with zero points become unsigned, moved by a half of the range;
/// unsigned codes become signed where all zero points are that half.
static std::optional<WeightParts> getParts(AssembleOp op, bool transposed) {
  auto type = cast<RankedTensorType>(op.getResult().getType());
  StorageAttr storage = getQuantization(type).getStorage();
  ElementsAttr codes = getConstant(op.getCodes());
  ElementsAttr scales = getConstant(op.getScales());
  ElementsAttr zeros = op.getZeros() ? getConstant(op.getZeros()) : nullptr;
  if (!codes || !scales || (op.getZeros() && !zeros))
    return std::nullopt;
  uint8_t offset = zeros ? static_cast<uint8_t>(-storage.getMinimumCode()) : 0;
  WeightParts parts;
  parts.scales = getFloats(scales);
  if (zeros)
    parts.zeros = getCodes(zeros, offset);
  unsigned bits = storage.getCodeType().getIntOrFloatBitWidth();
  auto half = static_cast<uint8_t>(1u << (bits - 1));
  bool isSigned = zeros
                      ? llvm::all_of(parts.zeros,
                                     [&](uint8_t zero) { return zero == half; })
                      : storage.getMinimumCode() < 0;
  if (zeros && isSigned)
    offset -= half;
  parts.codes = getCodes(codes, offset);
  parts.type = getFragmentType(type, transposed, isSigned);
  size_t count = type.getNumElements();
  if (!parts.type || parts.codes.size() != count || parts.scales.empty() ||
      !fitF16(parts.scales))
    return std::nullopt;
  if (getFragmentFormat(parts.type)->hasZeros())
    parts.zeros.resize(parts.scales.size());
  else
    parts.zeros.clear();
  if (transposed) {
    size_t N = parts.type.getDimSize(1);
    parts.scales = transposeGrid<float>(parts.scales, N);
    parts.zeros = transposeGrid<uint8_t>(parts.zeros, N);
  }
  return parts;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
struct PackedFragments {
  Value value;
  RankedTensorType type;
};

struct PackFragments : nibble::impl::PackFragmentsBase<PackFragments> {
  void runOnOperation() override {
    getOperation().walk([&](MatmulOp op) {
      if (failed(convert(op)))
        op.emitWarning("the weight has no kernel for tensor cores: it is "
                       "dequantized and multiplied in f32");
    });
    packed.clear();
  }

private:
  LogicalResult convert(MatmulOp op);
  std::optional<PackedFragments> pack(AssembleOp op, bool transposed);

  std::map<std::pair<const void *, bool>, PackedFragments> packed;
};
} // namespace

std::optional<PackedFragments> PackFragments::pack(AssembleOp op,
                                                   bool transposed) {
  PackedFragments &result = packed[{op.getAsOpaquePointer(), transposed}];
  if (result.value)
    return result;
  std::optional<WeightParts> parts = getParts(op, transposed);
  if (!parts)
    return std::nullopt;
  result.type = parts->type;
  FragmentFormat format = *getFragmentFormat(parts->type);
  format.storage = getStorageFormat(getQuantization(parts->type).getStorage());
  ptrdiff_t K = format.K, N = format.N;
  OpBuilder builder(op);
  result.value = createPacked<uint8_t>(
      builder, op.getLoc(), builder.getI8Type(),
      format.codeBytes() + format.scaleBytes(), [&](uint8_t *out) {
        packFragments(format, parts->codes.data(), transposed ? 1 : N,
                      transposed ? K : 1, parts->scales.data(),
                      parts->zeros.empty() ? nullptr : parts->zeros.data(), out,
                      out + format.codeBytes());
      });
  ++numWeights;
  return result;
}

static Value createEmpty(OpBuilder &builder, Location loc, OpFoldResult rows,
                         int64_t columns, Type element) {
  return tensor::EmptyOp::create(
      builder, loc,
      SmallVector<OpFoldResult>{rows, builder.getIndexAttr(columns)}, element);
}

namespace {
/// The part of a matrix that its first `columns` are.
struct LeadingColumns {
  LeadingColumns(OpBuilder &builder, OpFoldResult rows, int64_t columns)
      : offsets(2, builder.getIndexAttr(0)),
        sizes{rows, builder.getIndexAttr(columns)},
        strides(2, builder.getIndexAttr(1)) {}
  SmallVector<OpFoldResult> offsets, sizes, strides;
};
} // namespace

/// A matrix with columns added, up to a multiple of 8, that hold anything.
static Value padColumns(OpBuilder &builder, Location loc, OpFoldResult rows,
                        Value matrix) {
  auto type = cast<RankedTensorType>(matrix.getType());
  int64_t columns = type.getDimSize(1);
  int64_t padded = llvm::alignTo(columns, kRowMultiple);
  if (padded == columns)
    return matrix;
  LeadingColumns part(builder, rows, columns);
  Value place = createEmpty(builder, loc, rows, padded, type.getElementType());
  return tensor::InsertSliceOp::create(builder, loc, matrix, place,
                                       part.offsets, part.sizes, part.strides);
}

static Value takeColumns(OpBuilder &builder, Location loc, OpFoldResult rows,
                         Value matrix, int64_t columns) {
  if (cast<RankedTensorType>(matrix.getType()).getDimSize(1) == columns)
    return matrix;
  LeadingColumns part(builder, rows, columns);
  return tensor::ExtractSliceOp::create(builder, loc, matrix, part.offsets,
                                        part.sizes, part.strides);
}

/// The numbers of `matrix` in `place`, each as `convert` makes it; the columns
/// of `bias`, if there is one, are the second argument.
static Value convertElements(
    OpBuilder &builder, Location loc, Value matrix, Value bias, Value place,
    llvm::function_ref<Value(OpBuilder &, Location, ValueRange)> convert) {
  AffineMap identity = builder.getMultiDimIdentityMap(2);
  SmallVector<Value> inputs{matrix};
  SmallVector<AffineMap> maps{identity};
  if (bias) {
    inputs.push_back(bias);
    maps.push_back(identity.getMinorIdentityMap(2, 1, builder.getContext()));
  }
  maps.push_back(identity);
  SmallVector<utils::IteratorType> loops(2, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             builder, loc, TypeRange{place.getType()}, inputs,
             ValueRange{place}, maps, loops,
             [&](OpBuilder &body, Location at, ValueRange values) {
               linalg::YieldOp::create(body, at, convert(body, at, values));
             })
      .getResult(0);
}

LogicalResult PackFragments::convert(MatmulOp op) {
  auto assemble = op.getWeight().getDefiningOp<AssembleOp>();
  auto type = dyn_cast<RankedTensorType>(op.getActivations().getType());
  if (!assemble || !type || isQuantized(type) ||
      !type.getElementType().isF32() || type.getRank() < 2)
    return failure();
  std::optional<PackedFragments> weight =
      pack(assemble, op.getTransposeWeight());
  if (!weight)
    return failure();
  OpBuilder builder(op);
  Location loc = op.getLoc();
  Type f16 = builder.getF16Type(), f32 = builder.getF32Type();
  int64_t K = weight->type.getDimSize(0), N = weight->type.getDimSize(1);
  Value matrix = collapseRows(builder, loc, op.getActivations());
  OpFoldResult rows = getRowCount(builder, loc, matrix);
  Value half = convertElements(
      builder, loc, matrix, Value(), createEmpty(builder, loc, rows, K, f16),
      [&](OpBuilder &body, Location at, ValueRange values) -> Value {
        return arith::TruncFOp::create(body, at, f16, values[0]);
      });
  Value place =
      createEmpty(builder, loc, rows, llvm::alignTo(N, kRowMultiple), f16);
  Value product =
      FragmentMatmulOp::create(builder, loc, TypeRange{place.getType()},
                               padColumns(builder, loc, rows, half),
                               weight->value, place, weight->type)
          .getResult(0);
  Value result = convertElements(
      builder, loc, takeColumns(builder, loc, rows, product, N), op.getBias(),
      createEmpty(builder, loc, rows, N, f32),
      [&](OpBuilder &body, Location at, ValueRange values) -> Value {
        Value sum = arith::ExtFOp::create(body, at, f32, values[0]);
        if (op.getBias())
          sum = arith::AddFOp::create(body, at, sum, values[1]);
        return sum;
      });
  op.getResult().replaceAllUsesWith(
      expandRows(builder, loc, result, op.getActivations()));
  op.erase();
  return success();
}
