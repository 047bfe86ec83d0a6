//===- PackWeights.cpp - Constant weights in the layout of kernels --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Numerics/FloatFormats.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/IR/Matchers.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

namespace nibble {
#define GEN_PASS_DEF_PACKWEIGHTS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

namespace {
/// A constant matrix, read through casts and transposes: `value`, or the
/// numbers that `quantized` stands for.
struct ConstantMatrix {
  ElementsAttr value;
  AssembleOp quantized;
  bool transposed = false;
};
} // namespace

/// The constant behind casts of its type.
static ElementsAttr getConstant(Value value) {
  while (auto cast = value.getDefiningOp<UnrealizedConversionCastOp>()) {
    if (cast.getInputs().size() != 1)
      return {};
    value = cast.getInputs()[0];
  }
  ElementsAttr result;
  matchPattern(value, m_Constant(&result));
  return result;
}

static std::optional<ConstantMatrix> getConstantMatrix(Value value) {
  ConstantMatrix result;
  while (auto transpose = value.getDefiningOp<linalg::TransposeOp>()) {
    if (transpose.getPermutation() != ArrayRef<int64_t>{1, 0})
      return std::nullopt;
    result.transposed = !result.transposed;
    value = transpose.getInput();
  }
  if (auto dequantize = value.getDefiningOp<DequantizeOp>()) {
    result.quantized = dequantize.getInput().getDefiningOp<AssembleOp>();
    return result.quantized ? std::optional(result) : std::nullopt;
  }
  result.value = getConstant(value);
  if (!result.value || result.value.getShapedType().getRank() != 2)
    return std::nullopt;
  return result;
}

/// The bytes of a constant, one element after the other; `storage` holds them
/// where the attribute does not.
static ArrayRef<char> getBytes(ElementsAttr value, std::vector<char> &storage) {
  if (auto resource = dyn_cast<DenseResourceElementsAttr>(value)) {
    AsmResourceBlob *blob = resource.getRawHandle().getBlob();
    return blob ? blob->getData() : ArrayRef<char>();
  }
  auto dense = dyn_cast<DenseElementsAttr>(value);
  if (!dense)
    return {};
  ArrayRef<char> raw = dense.getRawData();
  if (!dense.isSplat())
    return raw;
  for (int64_t i = 0; i < dense.getNumElements(); ++i)
    storage.insert(storage.end(), raw.begin(), raw.end());
  return storage;
}

/// f32 numbers of a constant of floats; empty for other elements.
static std::vector<float> getFloats(ElementsAttr value) {
  std::vector<char> storage;
  ArrayRef<char> bytes = getBytes(value, storage);
  Type type = value.getElementType();
  FloatFormat format = type.isF32()   ? FloatFormat::F32
                       : type.isF16() ? FloatFormat::F16
                                      : FloatFormat::BF16;
  if (!isa<Float32Type, Float16Type, BFloat16Type>(type) ||
      bytes.size() != value.getNumElements() * codeBytes(format))
    return {};
  std::vector<float> result(value.getNumElements());
  decodeArray(format, bytes.data(), result.size(), result.data());
  return result;
}

/// A constant of packed numbers, whose bytes `fill` writes.
template <typename T>
static Value createPacked(OpBuilder &builder, Location loc, Type element,
                          size_t count, llvm::function_ref<void(T *)> fill) {
  auto type = RankedTensorType::get({static_cast<int64_t>(count)}, element);
  constexpr size_t cacheLine = 64;
  AsmResourceBlob blob =
      HeapAsmResourceBlob::allocate(count * sizeof(T), cacheLine);
  fill(reinterpret_cast<T *>(blob.getMutableData().data()));
  return arith::ConstantOp::create(
      builder, loc,
      DenseResourceElementsAttr::get(type, "packed", std::move(blob)));
}

//===----------------------------------------------------------------------===//
// Quantized weights
//===----------------------------------------------------------------------===//

namespace {
/// The parts of a constant weight [K, N] as packPanels takes them.
struct WeightParts {
  RankedTensorType type;
  std::vector<uint8_t> codes;
  /// [groups, N]
  std::vector<float> scales;
  std::vector<uint8_t> zeros;
};
} // namespace

/// Inputs of a packed group; 0 where there is none that kernels take.
static int64_t chooseGroup(int64_t extent, int64_t K, PanelFormat format) {
  constexpr int64_t usual = 128;
  int64_t multiple = format.groupMultiple();
  if (extent == QuantizedAttr::kWholeExtent || extent >= K)
    return K >= usual ? usual : llvm::alignTo(K, multiple);
  if (extent > usual && extent % usual == 0)
    return usual;
  return extent <= 2 * usual && extent % multiple == 0 ? extent : 0;
}

/// `type` of shape [K, N] with the layout that kernels read, or null.
static RankedTensorType getPanelType(RankedTensorType type, bool transposed,
                                     bool scalesInF16) {
  QuantizedAttr encoding = getQuantization(type);
  if (encoding.getFlat() || encoding.hasOutliers() ||
      encoding.hasNestedScale() || encoding.hasNestedZero() ||
      encoding.hasLayout() || !encoding.getStorage().isInteger() ||
      type.getRank() != 2 || !type.hasStaticShape())
    return {};
  int64_t K = type.getDimSize(transposed ? 1 : 0);
  int64_t N = type.getDimSize(transposed ? 0 : 1);
  PanelFormat format;
  unsigned width = encoding.getStorage().getCodeType().getIntOrFloatBitWidth();
  format.bits = width <= 4 ? width : 8;
  int64_t extent = encoding.getBlock()[transposed ? 1 : 0];
  int64_t group = width > 8 ? 0 : chooseGroup(extent, K, format);
  if (group == 0)
    return {};
  MLIRContext *context = type.getContext();
  OpBuilder builder(context);
  auto layout =
      LayoutAttr::get(context, builder.getStringAttr("panel"),
                      builder.getDictionaryAttr(builder.getNamedAttr(
                          "group", builder.getI64IntegerAttr(group))));
  Type scale = scalesInF16 ? builder.getF16Type() : Type(builder.getF32Type());
  auto packed = QuantizedAttr::get(encoding.getStorage(), {extent, 1},
                                   TypeAttr::get(scale), encoding.getZero())
                    .withLayout(layout);
  auto result = RankedTensorType::get({K, N}, builder.getF32Type(), packed);
  return getPanelFormat(result) ? result : RankedTensorType();
}

/// Spreads a grid of blocks to one number for each packed group and column.
template <typename T>
static std::vector<T> spread(ArrayRef<T> grid, RankedTensorType gridType,
                             RankedTensorType weight, bool transposed,
                             const PanelFormat &format) {
  ArrayRef<int64_t> block = getQuantization(weight).getBlock();
  auto getExtent = [&](unsigned dimension) {
    int64_t extent = block[dimension];
    return extent == QuantizedAttr::kWholeExtent ? weight.getDimSize(dimension)
                                                 : extent;
  };
  unsigned kDim = transposed ? 1 : 0;
  int64_t kExtent = getExtent(kDim), nExtent = getExtent(1 - kDim);
  int64_t gridColumns = gridType.getDimSize(1);
  std::vector<T> result(format.groups() * format.N);
  for (size_t group = 0; group < format.groups(); ++group)
    for (size_t n = 0; n < format.N; ++n) {
      int64_t k = group * format.group / kExtent, column = n / nExtent;
      result[group * format.N + n] = transposed
                                         ? grid[column * gridColumns + k]
                                         : grid[k * gridColumns + column];
    }
  return result;
}

/// Zero-extended codes with the least code of the storage at 0.
static std::vector<uint8_t> getCodes(ElementsAttr value, StorageAttr storage) {
  std::vector<char> bytes;
  ArrayRef<char> stored = getBytes(value, bytes);
  if (stored.size() != static_cast<size_t>(value.getNumElements()))
    return {};
  std::vector<uint8_t> codes(stored.size());
  uint8_t offset = static_cast<uint8_t>(-storage.getMinimumCode());
  std::transform(stored.begin(), stored.end(), codes.begin(), [&](char code) {
    return static_cast<uint8_t>(static_cast<uint8_t>(code) + offset);
  });
  return codes;
}

static std::optional<WeightParts> getParts(AssembleOp op, bool transposed) {
  auto type = cast<RankedTensorType>(op.getResult().getType());
  ElementsAttr codes = getConstant(op.getCodes());
  ElementsAttr scales = getConstant(op.getScales());
  ElementsAttr zeros = op.getZeros() ? getConstant(op.getZeros()) : nullptr;
  if (!codes || !scales || (op.getZeros() && !zeros))
    return std::nullopt;
  std::vector<float> grid = getFloats(scales);
  if (grid.empty())
    return std::nullopt;
  WeightParts parts;
  parts.type =
      getPanelType(type, transposed, areExactInF16(grid.data(), grid.size()));
  if (!parts.type)
    return std::nullopt;
  PanelFormat format = *getPanelFormat(parts.type);
  StorageAttr storage = getQuantization(type).getStorage();
  parts.codes = getCodes(codes, storage);
  parts.scales = spread<float>(grid, cast<RankedTensorType>(scales.getType()),
                               type, transposed, format);
  if (zeros) {
    std::vector<uint8_t> points = getCodes(zeros, storage);
    if (points.empty())
      return std::nullopt;
    parts.zeros =
        spread<uint8_t>(points, cast<RankedTensorType>(zeros.getType()), type,
                        transposed, format);
  }
  return parts.codes.empty() ? std::nullopt : std::optional(std::move(parts));
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
/// A weight as it was packed, for all its readers.
struct PackedWeight {
  Value value;
  RankedTensorType type;
};

struct PackWeights : nibble::impl::PackWeightsBase<PackWeights> {
  using PackWeightsBase::PackWeightsBase;

  void runOnOperation() override {
    SmallVector<linalg::GenericOp> contractions;
    SmallVector<MatmulOp> matmuls;
    getOperation().walk([&](Operation *op) {
      if (auto generic = dyn_cast<linalg::GenericOp>(op))
        contractions.push_back(generic);
      else if (auto matmul = dyn_cast<MatmulOp>(op))
        matmuls.push_back(matmul);
    });
    for (linalg::GenericOp op : contractions)
      convert(op);
    for (MatmulOp op : matmuls)
      convert(op);
  }

private:
  void convert(linalg::GenericOp op);
  void convert(MatmulOp op);
  PackedWeight packFloats(const ConstantMatrix &matrix, Operation *reader);
  std::optional<PackedWeight> packQuantized(AssembleOp op, bool transposed);
  /// The product of activations of any rank with a packed weight.
  Value createProduct(OpBuilder &builder, Location loc, Value activations,
                      const PackedWeight &weight, Value bias, Type compute);

  std::map<std::pair<const void *, bool>, PackedWeight> packed;
};
} // namespace

PackedWeight PackWeights::packFloats(const ConstantMatrix &matrix,
                                     Operation *reader) {
  PackedWeight &result =
      packed[{matrix.value.getAsOpaquePointer(), matrix.transposed}];
  if (result.value)
    return result;
  ShapedType type = matrix.value.getShapedType();
  int64_t K = type.getDimSize(matrix.transposed ? 1 : 0);
  int64_t N = type.getDimSize(matrix.transposed ? 0 : 1);
  std::vector<char> storage;
  ArrayRef<char> bytes = getBytes(matrix.value, storage);
  // Bytes of a file need not be aligned.
  std::vector<float> aligned;
  const float *values = reinterpret_cast<const float *>(bytes.data());
  if (reinterpret_cast<uintptr_t>(values) % alignof(float) != 0) {
    aligned.resize(bytes.size() / sizeof(float));
    std::memcpy(aligned.data(), bytes.data(), bytes.size());
    values = aligned.data();
  }
  auto function = reader->getParentOfType<FunctionOpInterface>();
  OpBuilder builder(&function.getFunctionBody().front(),
                    function.getFunctionBody().front().begin());
  constexpr int64_t columns = PanelFormat::kColumns;
  result.type = RankedTensorType::get({K, N}, builder.getF32Type());
  result.value = createPacked<float>(
      builder, reader->getLoc(), builder.getF32Type(),
      llvm::divideCeil(N, columns) * columns * K, [&](float *out) {
        packFloatPanels(K, N, values, matrix.transposed ? 1 : N,
                        matrix.transposed ? K : 1, out);
      });
  ++numWeights;
  return result;
}

std::optional<PackedWeight> PackWeights::packQuantized(AssembleOp op,
                                                       bool transposed) {
  PackedWeight &result = packed[{op.getAsOpaquePointer(), transposed}];
  if (result.value)
    return result;
  std::optional<WeightParts> parts = getParts(op, transposed);
  if (!parts)
    return std::nullopt;
  PanelFormat format = *getPanelFormat(parts->type);
  OpBuilder builder(op);
  result.type = parts->type;
  result.value = createPacked<uint8_t>(
      builder, op.getLoc(), builder.getI8Type(), format.bytes(),
      [&](uint8_t *out) {
        packPanels(format, parts->codes.data(), transposed ? 1 : format.N,
                   transposed ? format.K : 1, parts->scales.data(),
                   parts->zeros.data(), out);
      });
  ++numWeights;
  return result;
}

/// All dimensions but the last are one.
static SmallVector<ReassociationIndices> getRowsReassociation(int64_t rank) {
  ReassociationIndices leading(
      llvm::to_vector(llvm::seq<int64_t>(0, rank - 1)));
  return {leading, {rank - 1}};
}

Value PackWeights::createProduct(OpBuilder &builder, Location loc,
                                 Value activations, const PackedWeight &weight,
                                 Value bias, Type compute) {
  auto type = cast<RankedTensorType>(activations.getType());
  if (isQuantized(weight.type)) {
    if (this->compute == "i8")
      compute = builder.getI8Type();
    else if (this->compute == "f32")
      compute = builder.getF32Type();
  }
  int64_t rank = type.getRank(), N = weight.type.getDimSize(1);
  SmallVector<OpFoldResult> sizes =
      tensor::getMixedSizes(builder, loc, activations);
  Value matrix = activations;
  if (rank > 2)
    matrix = tensor::CollapseShapeOp::create(builder, loc, activations,
                                             getRowsReassociation(rank));
  Value rows = tensor::DimOp::create(builder, loc, matrix, 0);
  SmallVector<OpFoldResult> size{rows, builder.getIndexAttr(N)};
  int64_t known = cast<RankedTensorType>(matrix.getType()).getDimSize(0);
  if (!ShapedType::isDynamic(known))
    size[0] = builder.getIndexAttr(known);
  Value empty =
      tensor::EmptyOp::create(builder, loc, size, builder.getF32Type());
  Value result =
      PackedMatmulOp::create(builder, loc, TypeRange{empty.getType()}, matrix,
                             weight.value, bias, empty, weight.type, compute)
          .getResult(0);
  if (rank == 2)
    return result;
  sizes.back() = builder.getIndexAttr(N);
  SmallVector<int64_t> shape(type.getShape());
  shape.back() = N;
  auto resultType = RankedTensorType::get(shape, builder.getF32Type());
  // Upstream expands no group with two dynamic dimensions in buffers.
  if (resultType.getNumDynamicDims() > 1) {
    Value shapeTensor = tensor::FromElementsOp::create(
        builder, loc, getValueOrCreateConstantIndexOp(builder, loc, sizes));
    return tensor::ReshapeOp::create(builder, loc, resultType, result,
                                     shapeTensor);
  }
  return tensor::ExpandShapeOp::create(builder, loc, resultType, result,
                                       getRowsReassociation(rank), sizes);
}

void PackWeights::convert(linalg::GenericOp op) {
  std::optional<Contraction> loops = matchContraction(op);
  if (!loops || !op.hasPureTensorSemantics() || !loops->batch.empty() ||
      loops->n.size() != 1 || loops->k.size() != 1 || loops->m.empty())
    return;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  std::optional<ConstantMatrix> matrix =
      getConstantMatrix(op.getDpsInputs()[1]);
  auto fill = op.getDpsInits()[0].getDefiningOp<linalg::FillOp>();
  SmallVector<unsigned> left(loops->m), right(loops->m);
  left.push_back(loops->k[0]);
  right.push_back(loops->n[0]);
  auto isOrder = [](AffineMap map, ArrayRef<unsigned> order) {
    for (auto [result, loop] : llvm::zip_equal(map.getResults(), order))
      if (result != getAffineDimExpr(loop, map.getContext()))
        return false;
    return true;
  };
  if (!matrix || !fill ||
      !matchPattern(fill.getInputs()[0], m_AnyZeroFloat()) ||
      !isOrder(maps[0], left) || !isOrder(maps[2], right))
    return;
  if (getDimension(maps[1], loops->k[0]) == 1)
    matrix->transposed = !matrix->transposed;
  OpBuilder builder(op);
  std::optional<PackedWeight> weight;
  if (matrix->quantized)
    weight = packQuantized(matrix->quantized, matrix->transposed);
  else
    weight = packFloats(*matrix, op);
  if (!weight)
    return;
  Value product = createProduct(builder, op.getLoc(), op.getDpsInputs()[0],
                                *weight, Value(), builder.getF32Type());
  op.getResult(0).replaceAllUsesWith(product);
  op.erase();
}

void PackWeights::convert(MatmulOp op) {
  auto assemble = op.getWeight().getDefiningOp<AssembleOp>();
  auto type = dyn_cast<RankedTensorType>(op.getActivations().getType());
  if (!assemble || isQuantized(type) || !type.getElementType().isF32() ||
      type.getRank() < 2 || op.getComputeType().isF16() ||
      op.getComputeType().isBF16())
    return;
  std::optional<PackedWeight> weight =
      packQuantized(assemble, op.getTransposeWeight());
  if (!weight)
    return;
  OpBuilder builder(op);
  Value product = createProduct(builder, op.getLoc(), op.getActivations(),
                                *weight, op.getBias(), op.getComputeType());
  op.getResult().replaceAllUsesWith(product);
  op.erase();
}
