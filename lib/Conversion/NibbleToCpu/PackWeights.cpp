//===- PackWeights.cpp - Constant weights in the layout of kernels --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "StaticCodes.h"

#include "nibble/Conversion/ConstantData.h"
#include "nibble/Conversion/MatrixRows.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Numerics/FloatFormats.h"

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
  if (!result.value || result.value.getShapedType().getRank() != 2 ||
      !isa<Float32Type, Float16Type, BFloat16Type>(
          result.value.getElementType()))
    return std::nullopt;
  return result;
}

//===----------------------------------------------------------------------===//
// Quantized weights
//===----------------------------------------------------------------------===//

/// Inputs of a packed group; 0 where there is none that kernels take.
static int64_t chooseGroup(int64_t extent, int64_t K, PanelFormat format) {
  // Rows of activations are quantized 16 inputs at a time.
  constexpr int64_t usual = 128, together = 16;
  int64_t multiple = std::max<int64_t>(format.groupMultiple(), together);
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
      encoding.hasLayout() || getPanelBits(encoding.getStorage()) == 0 ||
      type.getRank() != 2 || !type.hasStaticShape())
    return {};
  int64_t K = type.getDimSize(transposed ? 1 : 0);
  int64_t N = type.getDimSize(transposed ? 0 : 1);
  PanelFormat format;
  format.bits = getPanelBits(encoding.getStorage());
  int64_t extent = encoding.getBlock()[transposed ? 1 : 0];
  int64_t group = chooseGroup(extent, K, format);
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
                      const PackedWeight &weight, Value bias, Type compute,
                      FloatAttr activationScale = {});
  bool convertCodes(MatmulOp op, AssembleOp weight);

  std::map<std::pair<const void *, bool>, PackedWeight> packed;
};
} // namespace

/// The panels of a constant matrix [K, N] of floats that `T` holds.
template <typename T>
static Value createPanels(OpBuilder &builder, Location loc,
                          const ConstantMatrix &matrix, RankedTensorType type) {
  int64_t K = type.getDimSize(0), N = type.getDimSize(1);
  std::vector<char> storage;
  ArrayRef<char> bytes = getBytes(matrix.value, storage);
  // Bytes of a file need not be aligned.
  std::vector<T> aligned;
  const T *values = reinterpret_cast<const T *>(bytes.data());
  if (reinterpret_cast<uintptr_t>(values) % alignof(T) != 0) {
    aligned.resize(bytes.size() / sizeof(T));
    std::memcpy(aligned.data(), bytes.data(), bytes.size());
    values = aligned.data();
  }
  constexpr int64_t columns = PanelFormat::kColumns;
  return createPacked<T>(
      builder, loc, type.getElementType(),
      llvm::divideCeil(N, columns) * columns * K, [&](T *out) {
        packFloatPanels(K, N, values, matrix.transposed ? 1 : N,
                        matrix.transposed ? K : 1, out);
      });
}

PackedWeight PackWeights::packFloats(const ConstantMatrix &matrix,
                                     Operation *reader) {
  PackedWeight &result =
      packed[{matrix.value.getAsOpaquePointer(), matrix.transposed}];
  if (result.value)
    return result;
  ShapedType type = matrix.value.getShapedType();
  int64_t K = type.getDimSize(matrix.transposed ? 1 : 0);
  int64_t N = type.getDimSize(matrix.transposed ? 0 : 1);
  Type element = type.getElementType();
  auto function = reader->getParentOfType<FunctionOpInterface>();
  OpBuilder builder(&function.getFunctionBody().front(),
                    function.getFunctionBody().front().begin());
  result.type = RankedTensorType::get({K, N}, element);
  result.value =
      element.isF32()
          ? createPanels<float>(builder, reader->getLoc(), matrix, result.type)
          : createPanels<uint16_t>(builder, reader->getLoc(), matrix,
                                   result.type);
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

Value PackWeights::createProduct(OpBuilder &builder, Location loc,
                                 Value activations, const PackedWeight &weight,
                                 Value bias, Type compute,
                                 FloatAttr activationScale) {
  if (isQuantized(weight.type)) {
    if (this->compute == "i8")
      compute = builder.getI8Type();
    else if (this->compute == "f32")
      compute = builder.getF32Type();
  }
  Value matrix = collapseRows(builder, loc, activations);
  SmallVector<OpFoldResult> size{
      getRowCount(builder, loc, matrix),
      builder.getIndexAttr(weight.type.getDimSize(1))};
  Value empty =
      tensor::EmptyOp::create(builder, loc, size, builder.getF32Type());
  Value result =
      PackedMatmulOp::create(builder, loc, TypeRange{empty.getType()}, matrix,
                             weight.value, bias, empty, weight.type, compute,
                             activationScale)
          .getResult(0);
  return expandRows(builder, loc, result, activations);
}

static Value buildWidened(OpBuilder &builder, Location loc, Value tensor) {
  auto type = cast<RankedTensorType>(tensor.getType());
  Type f32 = builder.getF32Type();
  Value empty = tensor::EmptyOp::create(
      builder, loc, tensor::getMixedSizes(builder, loc, tensor), f32);
  SmallVector<AffineMap> maps(2,
                              builder.getMultiDimIdentityMap(type.getRank()));
  SmallVector<utils::IteratorType> loops(type.getRank(),
                                         utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             builder, loc, TypeRange{empty.getType()}, ValueRange{tensor},
             ValueRange{empty}, maps, loops,
             [&](OpBuilder &body, Location at, ValueRange args) {
               Value wide = arith::ExtFOp::create(body, at, f32, args[0]);
               linalg::YieldOp::create(body, at, wide);
             })
      .getResult(0);
}

/// Makes a product of f16 or bf16 whose sums are f32 one of f32. Returns its
/// second factor as it was.
static Value widenFactors(linalg::GenericOp op) {
  Value weight = op.getNumDpsInputs() == 2 ? op.getDpsInputs()[1] : Value();
  Block &body = op.getRegion().front();
  if (!weight || !op.hasPureTensorSemantics() || op.getNumDpsInits() != 1 ||
      body.getOperations().size() != 5)
    return weight;
  // What codes stand for is rounded to the narrow type.
  std::optional<ConstantMatrix> matrix = getConstantMatrix(weight);
  if (!matrix || matrix->quantized)
    return weight;
  SmallVector<arith::ExtFOp> casts;
  for (BlockArgument argument : body.getArguments().take_front(2)) {
    if (!argument.hasOneUse())
      return weight;
    auto cast = dyn_cast<arith::ExtFOp>(*argument.user_begin());
    if (!cast || !cast.getType().isF32())
      return weight;
    casts.push_back(cast);
  }
  OpBuilder builder(op);
  for (auto [operand, cast] : llvm::zip(op.getDpsInputOperands(), casts)) {
    operand->set(buildWidened(builder, op.getLoc(), operand->get()));
    BlockArgument argument = op.getMatchingBlockArgument(operand);
    argument.setType(builder.getF32Type());
    cast.getResult().replaceAllUsesWith(argument);
    cast.erase();
  }
  return weight;
}

void PackWeights::convert(linalg::GenericOp op) {
  Value constant = widenFactors(op);
  std::optional<Contraction> loops = matchContraction(op);
  if (!loops || !op.hasPureTensorSemantics() || !loops->batch.empty() ||
      loops->n.size() != 1 || loops->k.size() != 1 || loops->m.empty())
    return;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  std::optional<ConstantMatrix> matrix =
      constant ? getConstantMatrix(constant) : std::nullopt;
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

/// −s · z · Σ_k weight[k, n] for each n: what the zero point of activations
/// s · (q − z) adds to a product of their codes.
static Value buildZeroPointBias(OpBuilder &builder, Location loc,
                                const StaticCodes &codes,
                                const SignedWeight &weight, bool transposed) {
  size_t N = weight.scales.size(), K = weight.values.size() / N;
  std::vector<float> bias(N);
  for (size_t n = 0; n < N; ++n) {
    int64_t sum = 0;
    for (size_t k = 0; k < K; ++k)
      sum += weight.values[transposed ? n * K + k : k * N + n];
    double zero = static_cast<double>(-codes.zero) * codes.scale;
    bias[n] =
        static_cast<float>(zero * weight.scales[n] * static_cast<double>(sum));
  }
  auto type =
      RankedTensorType::get({static_cast<int64_t>(N)}, builder.getF32Type());
  return arith::ConstantOp::create(
      builder, loc, DenseElementsAttr::get(type, ArrayRef<float>(bias)));
}

/// Activations that are quantized with constants are multiplied as they are.
bool PackWeights::convertCodes(MatmulOp op, AssembleOp assemble) {
  Value activations = op.getActivations();
  if (auto dequantize = activations.getDefiningOp<DequantizeOp>())
    activations = dequantize.getInput();
  auto type = cast<RankedTensorType>(activations.getType());
  bool transposed = op.getTransposeWeight();
  std::optional<StaticCodes> codes = matchStaticCodes(activations);
  std::optional<SignedWeight> constant =
      matchSignedWeight(assemble, transposed ? 0 : 1);
  if (!codes || !constant || op.getBias() || compute == "f32" ||
      type.getRank() < 2)
    return false;
  std::optional<PackedWeight> weight = packQuantized(assemble, transposed);
  if (!weight)
    return false;
  OpBuilder builder(op);
  Location loc = op.getLoc();
  Value bytes = buildCodes(builder, loc, *codes, /*asSigned=*/true);
  Value bias;
  if (codes->zero != 0)
    bias = buildZeroPointBias(builder, loc, *codes, *constant, transposed);
  Value product =
      createProduct(builder, loc, bytes, *weight, bias, builder.getI8Type(),
                    builder.getF32FloatAttr(codes->scale));
  op.getResult().replaceAllUsesWith(product);
  op.erase();
  return true;
}

void PackWeights::convert(MatmulOp op) {
  auto assemble = op.getWeight().getDefiningOp<AssembleOp>();
  auto type = dyn_cast<RankedTensorType>(op.getActivations().getType());
  if (assemble && type && convertCodes(op, assemble))
    return;
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
