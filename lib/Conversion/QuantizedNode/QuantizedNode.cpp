//===- QuantizedNode.cpp - Quantized tensors in ONNX nodes ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The forms are those of the ONNX operator documentation (QuantizeLinear,
// DequantizeLinear, DynamicQuantizeLinear) and of ONNX Runtime's contrib ops.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/QuantizedNode.h"
#include "ConstantInput.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/Packing.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "llvm/Support/MathExtras.h"

#include <cstring>
#include <numeric>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

TypedAttr nibble::viewTensor(TypedAttr value, RankedTensorType type) {
  auto old = dyn_cast<RankedTensorType>(value.getType());
  if (!old || getPackedSize(old) != getPackedSize(type))
    return {};
  if (old == type)
    return value;
  bool sameElements = old.getElementType() == type.getElementType();
  if (auto file = dyn_cast<FileElementsAttr>(value);
      file && (sameElements || !file.getVarint()))
    return FileElementsAttr::get(type.getContext(), type, file.getPath(),
                                 file.getOffset(), file.getLength(),
                                 file.getVarint());
  if (auto resource = dyn_cast<DenseResourceElementsAttr>(value))
    return DenseResourceElementsAttr::get(type, resource.getRawHandle());
  if (auto dense = dyn_cast<DenseElementsAttr>(value); dense && sameElements)
    return dense.reshape(type);
  std::optional<TensorBytes> data = getTensorBytes(value);
  if (!data || data->bytes.size() != getPackedSize(type))
    return {};
  return makeTensorValue(
      type, "view", std::vector<char>(data->bytes.begin(), data->bytes.end()));
}

bool nibble::isSameTensor(Attribute left, Attribute right) {
  if (left == right)
    return true;
  auto leftTyped = dyn_cast_if_present<TypedAttr>(left);
  auto rightTyped = dyn_cast_if_present<TypedAttr>(right);
  if (!leftTyped || !rightTyped || leftTyped.getType() != rightTyped.getType())
    return false;
  std::optional<TensorBytes> leftData = getTensorBytes(left);
  std::optional<TensorBytes> rightData = getTensorBytes(right);
  return leftData && rightData && leftData->bytes == rightData->bytes;
}

RankedTensorType nibble::getPlainType(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  // A Constant node of a function may state no type.
  if (auto constant = dyn_cast_if_present<TypedAttr>(getConstantValue(value));
      constant && !type)
    type = dyn_cast<RankedTensorType>(constant.getType());
  if (!type) {
    auto cast = value.getDefiningOp<UnrealizedConversionCastOp>();
    if (!cast || cast.getInputs().size() != 1)
      return {};
    type = dyn_cast<RankedTensorType>(cast.getInputs()[0].getType());
  }
  return type ? RankedTensorType::get(type.getShape(), type.getElementType())
              : type;
}

static TypedAttr makeCodes(RankedTensorType type, ArrayRef<uint8_t> codes) {
  unsigned bits = getBitWidth(type.getElementType());
  std::vector<char> packed(packedBytes(codes.size(), bits));
  packLowBitsFirst(codes.data(), codes.size(), bits,
                   reinterpret_cast<uint8_t *>(packed.data()));
  return makeTensorValue(type, "codes", std::move(packed));
}

static TypedAttr makeSplat(RankedTensorType type, uint64_t code) {
  return DenseElementsAttr::get(
      type, APInt(getBitWidth(type.getElementType()), code));
}

ConstantInput nibble::getConstantTensor(Value value) {
  ConstantInput input;
  if (!value)
    return input;
  auto constant = dyn_cast_if_present<TypedAttr>(getConstantValue(value));
  if (!constant)
    return input;
  auto type = dyn_cast<RankedTensorType>(constant.getType());
  if (!type || isa<StringsAttr>(constant) ||
      getBitWidth(type.getElementType()) == 0)
    return input;
  input.value = constant;
  input.type = type;
  return input;
}

static ConstantInput getConstantInput(NodeOp node, unsigned index) {
  return getConstantTensor(node.getInput(index));
}

bool nibble::isScaleType(Type type) {
  return isa<Float32Type, Float16Type, BFloat16Type>(type);
}

StorageAttr nibble::getStorage(Type codeType) {
  MLIRContext *context = codeType.getContext();
  if (auto integer = dyn_cast<IntegerType>(codeType)) {
    unsigned width = integer.getWidth();
    bool isSigned = integer.isSignless();
    bool known = width == 2 || width == 4 || width == 8 || width == 16 ||
                 (width == 32 && isSigned);
    return known && !integer.isSigned()
               ? StorageAttr::getInteger(context, width, isSigned)
               : StorageAttr();
  }
  if (isa<Float8E4M3FNType>(codeType))
    return StorageAttr::get(context, CodeKind::F8E4M3FN);
  if (isa<Float8E5M2Type>(codeType))
    return StorageAttr::get(context, CodeKind::F8E5M2);
  if (isa<Float4E2M1FNType>(codeType))
    return StorageAttr::get(context, CodeKind::F4E2M1FN);
  return {};
}

/// The first attribute of `node` that is not in `known`.
static std::optional<StringRef> findUnknown(NodeOp node,
                                            ArrayRef<StringRef> known) {
  for (auto entry : node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (!llvm::is_contained(known, entry.getName().getValue()))
      return entry.getName().getValue();
  return std::nullopt;
}

/// What every kind of node needs.
static std::optional<std::string> whyNotNode(NodeOp node, unsigned leastInputs,
                                             unsigned mostInputs,
                                             unsigned results,
                                             ArrayRef<StringRef> known) {
  size_t inputs = node.getInputs().size();
  if (inputs < leastInputs || inputs > mostInputs ||
      node.getNumResults() != results || node.getNumRegions() != 0)
    return node.getOpType().str() + " does not have " +
           std::to_string(leastInputs) + " to " + std::to_string(mostInputs) +
           " inputs and " + std::to_string(results) + " outputs";
  for (unsigned i = 0; i < leastInputs; ++i)
    if (!node.getInput(i))
      return "input " + std::to_string(i) + " is left out";
  if (auto unknown = findUnknown(node, known))
    return "attribute '" + unknown->str() + "' has no meaning here";
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// QuantizeLinear, DequantizeLinear
//===----------------------------------------------------------------------===//

/// The blocks that scales of this shape make of a tensor of `shape`.
static Result<SmallVector<int64_t>>
getBlocks(NodeOp node, ArrayRef<int64_t> shape, ArrayRef<int64_t> scaleShape) {
  constexpr int64_t whole = QuantizedAttr::kWholeExtent;
  int64_t rank = shape.size();
  int64_t blockSize = node.getInt("block_size", 0);
  bool isScalar = llvm::all_of(scaleShape, [](int64_t d) { return d == 1; }) &&
                  scaleShape.size() <= 1;
  if (blockSize == 0 && isScalar)
    return SmallVector<int64_t>(rank, whole);
  int64_t axis = node.getInt("axis", 1);
  if (axis < 0)
    axis += rank;
  if (axis < 0 || axis >= rank || blockSize < 0)
    return Failure{"axis or block_size does not fit the shape"};
  if (blockSize == 0) {
    if (scaleShape.size() != 1 || scaleShape[0] != shape[axis])
      return Failure{"the scale does not have one value for each of axis " +
                     std::to_string(axis)};
    SmallVector<int64_t> block(rank, whole);
    block[axis] = 1;
    return block;
  }
  SmallVector<int64_t> block(rank, 1);
  block[axis] = blockSize;
  SmallVector<int64_t> grid(shape);
  if (ShapedType::isDynamic(shape[axis]))
    return Failure{"the blocked dimension is dynamic"};
  grid[axis] = llvm::divideCeil(shape[axis], blockSize);
  if (scaleShape != ArrayRef<int64_t>(grid))
    return Failure{"the scale does not have one value for each block"};
  return block;
}

/// The expressed element type; null with a reason where S3 and S9 compute
/// otherwise than the node.
static Result<Type> getExpressedElement(NodeOp node, RankedTensorType data,
                                        Type scale, bool quantizes) {
  MLIRContext *context = node.getContext();
  bool isE8M0 = isa<Float8E8M0FNUType>(scale);
  if (!isScaleType(scale) && !isE8M0)
    return Failure{"the scale is not of f32, f16, bf16 or f8E8M0"};
  if (quantizes) {
    Type type = data.getElementType();
    if (!isScaleType(type) || type != scale)
      return Failure{"the input does not have the type of the scale"};
    if (node.getInt("precision", 0) != 0)
      return Failure{"precision is given"};
    return type;
  }
  int64_t stated = node.getInt("output_dtype", 0);
  // TensorProto.DataType.
  Type type = stated == 0    ? scale
              : stated == 1  ? Type(Float32Type::get(context))
              : stated == 10 ? Type(Float16Type::get(context))
              : stated == 16 ? Type(BFloat16Type::get(context))
                             : Type();
  if (!type || !isScaleType(type) || (type != scale && !isE8M0))
    return Failure{"output_dtype is not the type of the scale"};
  return type;
}

static Result<Type> getCodeType(NodeOp node, RankedTensorType data,
                                const ConstantInput &zero, bool quantizes) {
  MLIRContext *context = node.getContext();
  if (!quantizes)
    return data.getElementType();
  if (zero)
    return zero.elementType();
  auto integer = [&](unsigned width, bool isSigned) -> Type {
    return IntegerType::get(context, width,
                            isSigned ? IntegerType::Signless
                                     : IntegerType::Unsigned);
  };
  switch (node.getInt("output_dtype", 0)) { // TensorProto.DataType
  case 0:
  case 2:
    return integer(8, false);
  case 3:
    return integer(8, true);
  case 4:
    return integer(16, false);
  case 5:
    return integer(16, true);
  case 17:
    return Type(Float8E4M3FNType::get(context));
  case 19:
    return Type(Float8E5M2Type::get(context));
  case 21:
    return integer(4, false);
  case 22:
    return integer(4, true);
  case 23:
    return Type(Float4E2M1FNType::get(context));
  case 25:
    return integer(2, false);
  case 26:
    return integer(2, true);
  default:
    return Failure{"output_dtype names a type without a storage"};
  }
}

/// Zero points of a storage that has none must be 0; they are then left out.
static bool isZero(TypedAttr value) {
  std::optional<TensorBytes> data = getTensorBytes(value);
  return data && llvm::all_of(data->bytes, [](char byte) { return byte == 0; });
}

static Result<QuantizedNode> readLinear(NodeOp node, NodeKind kind) {
  bool quantizes = kind == NodeKind::QuantizeLinear;
  if (auto why = whyNotNode(
          node, 2, 3, 1,
          {"axis", "block_size", "output_dtype", "saturate", "precision"}))
    return Failure{*why};
  RankedTensorType data = getPlainType(node.getInput(0));
  if (!data)
    return Failure{"the shape of its input is not known"};
  ConstantInput scale = getConstantInput(node, 1);
  ConstantInput zero = getConstantInput(node, 2);
  if (!scale || (node.getInput(2) && !zero))
    return Failure{"the scale or the zero point is computed"};
  if (node.getInt("saturate", 1) != 1)
    return Failure{"saturate is 0"};
  auto element =
      getExpressedElement(node, data, scale.elementType(), quantizes);
  if (!element)
    return Failure{element.error()};
  auto codeType = getCodeType(node, data, zero, quantizes);
  if (!codeType)
    return Failure{codeType.error()};
  StorageAttr storage = getStorage(*codeType);
  if (!storage)
    return Failure{"the codes have a type without a storage (Spec C1)"};
  if (zero && (zero.elementType() != *codeType ||
               zero.type.getNumElements() != scale.type.getNumElements()))
    return Failure{"the zero point does not have the codes' type and the "
                   "scale's shape"};
  auto block = getBlocks(node, data.getShape(), scale.type.getShape());
  if (!block)
    return Failure{block.error()};
  bool hasZero = storage.isInteger() && storage.getBitWidth() <= 16;
  if (zero && !hasZero && !isZero(zero.value))
    return Failure{"the zero point of such codes is not 0"};
  if (quantizes && storage.isInteger() && !hasZero)
    return Failure{"it quantizes to 32 bits (Spec C20)"};

  QuantizedNode result;
  result.kind = kind;
  Attribute zeroAttr = zero && hasZero ? Attribute(storage) : Attribute();
  auto encoding = QuantizedAttr::get(
      storage, *block, TypeAttr::get(scale.elementType()), zeroAttr);
  result.type = RankedTensorType::get(data.getShape(), *element, encoding);
  result.scales = viewTensor(scale.value, getScalesType(result.type));
  if (zeroAttr) {
    result.zeros = viewTensor(zero.value, getZerosType(result.type));
    result.zerosInput = 2;
  }
  if (!result.scales || (zeroAttr && !result.zeros))
    return Failure{"the scale or the zero point does not fit the shape"};
  if (!quantizes)
    if (ConstantInput codes = getConstantInput(node, 0))
      result.codes = codes.value;
  return result;
}

static Result<QuantizedNode> readDynamic(NodeOp node) {
  if (auto why = whyNotNode(node, 1, 1, 3, {}))
    return Failure{*why};
  RankedTensorType data = getPlainType(node.getInput(0));
  if (!data || !data.getElementType().isF32())
    return Failure{"its input is not known to be a tensor of f32"};
  StorageAttr storage =
      StorageAttr::getInteger(node.getContext(), 8, /*isSigned=*/false);
  SmallVector<int64_t> block(data.getRank(), QuantizedAttr::kWholeExtent);
  auto encoding = QuantizedAttr::get(
      storage, block, TypeAttr::get(data.getElementType()), storage);
  QuantizedNode result;
  result.kind = NodeKind::DynamicQuantizeLinear;
  result.type =
      RankedTensorType::get(data.getShape(), data.getElementType(), encoding);
  return result;
}

//===----------------------------------------------------------------------===//
// MatMulNBits
//===----------------------------------------------------------------------===//

/// No dimension may make a product of three overflow.
static constexpr int64_t kMaxExtent = int64_t(1) << 31;

static bool isByte(Type type) { return type.isUnsignedInteger(8); }

/// Codes of MatMulNBits as [N, K]: the same bytes where K fills its blocks.
static TypedAttr getRowCodes(const ConstantInput &packed,
                             const MatMulNBitsShape &shape,
                             RankedTensorType type) {
  if (shape.K % shape.blockSize == 0)
    return viewTensor(packed.value, type);
  std::optional<TensorBytes> data = getTensorBytes(packed.value);
  if (!data || data->bytes.size() != shape.weightBytes())
    return {};
  std::vector<uint8_t> codes(shape.N * shape.K);
  unpackMatMulNBits(shape,
                    reinterpret_cast<const uint8_t *>(data->bytes.data()), 1,
                    shape.K, 0, /*isSigned=*/false, codes.data());
  return makeCodes(type, codes);
}

/// The inputs, those of the first group first; empty where they stand so. Each
/// group must have as many as a block.
static Result<std::vector<int64_t>> readOrder(const ConstantInput &groups,
                                              const MatMulNBitsShape &shape) {
  std::optional<SmallVector<int64_t>> indices;
  if (groups)
    indices = getIntegers(groups.value);
  if (!indices || indices->size() != shape.K)
    return Failure{"its g_idx is computed, or does not have K numbers"};
  std::vector<int64_t> order(shape.K);
  std::iota(order.begin(), order.end(), 0);
  if (llvm::is_sorted(*indices))
    order.clear();
  else
    llvm::sort(order, [&](int64_t a, int64_t b) {
      return std::make_pair((*indices)[a], a) <
             std::make_pair((*indices)[b], b);
    });
  for (size_t column = 0; column < shape.K; ++column)
    if ((*indices)[order.empty() ? column : order[column]] !=
        static_cast<int64_t>(column / shape.blockSize))
      return Failure{"its g_idx makes groups of other sizes than block_size"};
  return order;
}

/// Row codes with their columns in another order.
static TypedAttr reorderColumns(TypedAttr codes, const MatMulNBitsShape &shape,
                                RankedTensorType type,
                                ArrayRef<int64_t> order) {
  std::optional<TensorBytes> data = getTensorBytes(codes);
  if (!data || data->bytes.size() != packedBytes(shape.N * shape.K, shape.bits))
    return {};
  std::vector<uint8_t> old(shape.N * shape.K), reordered(old.size());
  unpackLowBitsFirst(reinterpret_cast<const uint8_t *>(data->bytes.data()),
                     old.size(), shape.bits, /*isSigned=*/false, old.data());
  for (size_t row = 0; row < old.size(); row += shape.K)
    for (size_t column = 0; column < shape.K; ++column)
      reordered[row + column] = old[row + order[column]];
  return makeCodes(type, reordered);
}

/// Packed zero points as [N, blocks], likewise.
static TypedAttr getRowZeroPoints(const ConstantInput &packed,
                                  const MatMulNBitsShape &shape,
                                  RankedTensorType type) {
  if (shape.blocks() * shape.bits % 8 == 0)
    return viewTensor(packed.value, type);
  std::optional<TensorBytes> data = getTensorBytes(packed.value);
  if (!data || data->bytes.size() != shape.zeroPointBytes())
    return {};
  std::vector<uint8_t> zeros(shape.N * shape.blocks());
  unpackMatMulNBitsZeroPoints(
      shape, reinterpret_cast<const uint8_t *>(data->bytes.data()), 1,
      shape.blocks(), 0, /*isSigned=*/false, zeros.data());
  return makeCodes(type, zeros);
}

/// The zero point of packed codes with `bits` where a node gives none.
static uint64_t getImpliedZeroPoint(unsigned bits) {
  return uint64_t(1) << (bits - 1);
}

static Result<QuantizedNode> readMatMulNBits(NodeOp node) {
  if (auto why = whyNotNode(node, 3, 6, 1,
                            {"K", "N", "bits", "block_size", "accuracy_level",
                             "weight_prepacked"}))
    return Failure{*why};
  int64_t K = node.getInt("K", 0), N = node.getInt("N", 0);
  int64_t bits = node.getInt("bits", 4), size = node.getInt("block_size", 0);
  if (K < 1 || N < 1 || K > kMaxExtent || N > kMaxExtent ||
      (bits != 2 && bits != 4 && bits != 8) || size < 16 || size > kMaxExtent ||
      !llvm::isPowerOf2_64(size))
    return Failure{"K, N, bits or block_size is out of range"};
  if (node.getInt("weight_prepacked", 0) != 0)
    return Failure{"its weight is packed for one machine (weight_prepacked)"};
  MatMulNBitsShape shape{size_t(K), size_t(N), size_t(size), unsigned(bits)};
  int64_t blocks = shape.blocks();
  ConstantInput packed = getConstantInput(node, 1);
  ConstantInput scales = getConstantInput(node, 2);
  ConstantInput zeros = getConstantInput(node, 3);
  if (!packed || !scales || (node.getInput(3) && !zeros))
    return Failure{"its weight, scales or zero points are computed"};
  if (!isByte(packed.elementType()) ||
      packed.type.getNumElements() != int64_t(shape.weightBytes()) ||
      !isScaleType(scales.elementType()) ||
      scales.type.getNumElements() != N * blocks)
    return Failure{"its weight or scales do not have the shape that K, N and "
                   "block_size say"};
  bool floatZeros = zeros && zeros.elementType() == scales.elementType();
  int64_t zeroCount = floatZeros ? N * blocks : shape.zeroPointBytes();
  if (zeros && ((!floatZeros && !isByte(zeros.elementType())) ||
                zeros.type.getNumElements() != zeroCount))
    return Failure{"its zero points do not have the shape or type that K, N "
                   "and block_size say"};

  QuantizedNode result;
  result.kind = NodeKind::MatMulNBits;
  result.codesInput = 1;
  result.scalesInput = 2;
  StorageAttr storage =
      StorageAttr::getInteger(node.getContext(), bits, /*isSigned=*/false);
  Attribute zero = floatZeros ? Attribute(TypeAttr::get(zeros.elementType()))
                              : Attribute(storage);
  auto encoding = QuantizedAttr::get(storage, {1, size},
                                     TypeAttr::get(scales.elementType()), zero);
  result.type = RankedTensorType::get({N, K}, scales.elementType(), encoding);
  result.codes = getRowCodes(packed, shape, getCodesType(result.type));
  if (node.getInput(4)) {
    auto order = readOrder(getConstantInput(node, 4), shape);
    if (!order)
      return Failure{order.error()};
    result.order = *order;
    if (result.codes && !order->empty())
      result.codes = reorderColumns(result.codes, shape,
                                    getCodesType(result.type), *order);
  }
  result.scales = viewTensor(scales.value, getScalesType(result.type));
  RankedTensorType zerosType = getZerosType(result.type);
  if (!zeros)
    result.zeros = makeSplat(zerosType, getImpliedZeroPoint(bits));
  else if (floatZeros)
    result.zeros = viewTensor(zeros.value, zerosType);
  else
    result.zeros = getRowZeroPoints(zeros, shape, zerosType);
  if (zeros)
    result.zerosInput = 3;
  if (!result.codes || !result.scales || !result.zeros)
    return Failure{"the data of its weight, scales or zero points has another "
                   "length than its shape"};
  return result;
}

//===----------------------------------------------------------------------===//
// GatherBlockQuantized
//===----------------------------------------------------------------------===//

/// Zero points packed in bytes along the last dimension, a code for each block.
static TypedAttr unpackLastDimension(const ConstantInput &packed,
                                     RankedTensorType type) {
  unsigned bits = getBitWidth(type.getElementType());
  int64_t count = type.getShape().back();
  int64_t rowBytes = llvm::divideCeil(count * bits, 8);
  int64_t rows = count == 0 ? 0 : type.getNumElements() / count;
  if (packed.type.getNumElements() != rows * rowBytes)
    return {};
  if (count * bits % 8 == 0)
    return viewTensor(packed.value, type);
  std::optional<TensorBytes> data = getTensorBytes(packed.value);
  if (!data || int64_t(data->bytes.size()) != rows * rowBytes)
    return {};
  std::vector<uint8_t> codes(type.getNumElements());
  for (int64_t row = 0; row < rows; ++row)
    unpackLowBitsFirst(
        reinterpret_cast<const uint8_t *>(data->bytes.data()) + row * rowBytes,
        count, bits, /*isSigned=*/false, codes.data() + row * count);
  return makeCodes(type, codes);
}

static Result<QuantizedNode> readGather(NodeOp node) {
  if (auto why =
          whyNotNode(node, 3, 4, 1,
                     {"bits", "block_size", "gather_axis", "quantize_axis"}))
    return Failure{*why};
  ConstantInput table = getConstantInput(node, 0);
  ConstantInput scales = getConstantInput(node, 2);
  ConstantInput zeros = getConstantInput(node, 3);
  if (!table || !scales || (node.getInput(3) && !zeros))
    return Failure{"its table, scales or zero points are computed"};
  int64_t rank = table.type.getRank();
  int64_t bits = node.getInt("bits", 4), size = node.getInt("block_size", 128);
  int64_t gather = node.getInt("gather_axis", 0);
  int64_t axis = node.getInt("quantize_axis", 1);
  gather += gather < 0 ? rank : 0;
  axis += axis < 0 ? rank : 0;
  if (axis < 0 || axis >= rank || gather < 0 || gather >= rank || size < 1 ||
      (bits != 2 && bits != 4 && bits != 8))
    return Failure{"bits, block_size or an axis is out of range"};
  bool packed = isByte(table.elementType());
  SmallVector<int64_t> shape(table.type.getShape());
  if (packed && bits != 8) {
    if (axis != rank - 1)
      return Failure{"its packed table is quantized along another dimension "
                     "than the last"};
    shape.back() *= 8 / bits;
  }
  StorageAttr storage =
      packed ? StorageAttr::getInteger(node.getContext(), bits, false)
             : getStorage(table.elementType());
  if (!storage || !storage.isInteger() || storage.getBitWidth() != bits ||
      !isScaleType(scales.elementType()))
    return Failure{"its table or scales have a type that the op lacks"};
  SmallVector<int64_t> block(rank, 1);
  block[axis] = size;

  QuantizedNode result;
  result.kind = NodeKind::GatherBlockQuantized;
  result.codesInput = 0;
  result.scalesInput = 2;
  // Without one it is 0 for i4 and u4, but not for bytes.
  Attribute zero = zeros || packed ? Attribute(storage) : Attribute();
  auto encoding = QuantizedAttr::get(storage, block,
                                     TypeAttr::get(scales.elementType()), zero);
  result.type = RankedTensorType::get(shape, scales.elementType(), encoding);
  RankedTensorType scalesType = getScalesType(result.type);
  if (scales.type.getShape() != scalesType.getShape())
    return Failure{"its scales do not have one value for each block"};
  result.codes = viewTensor(table.value, getCodesType(result.type));
  result.scales = scales.value;
  if (zero) {
    RankedTensorType zerosType = getZerosType(result.type);
    if (!zeros)
      result.zeros = makeSplat(zerosType, getImpliedZeroPoint(bits));
    else if (zeros.elementType() != table.elementType())
      return Failure{"its zero points do not have the type of its table"};
    else if (packed)
      result.zeros = unpackLastDimension(zeros, zerosType);
    else
      result.zeros = viewTensor(zeros.value, zerosType);
  }
  if (zeros)
    result.zerosInput = 3;
  if (!result.codes || (zero && !result.zeros))
    return Failure{"its table or zero points do not have the shape that "
                   "block_size says"};
  return result;
}

//===----------------------------------------------------------------------===//
// MatMulBnb4
//===----------------------------------------------------------------------===//

static Result<QuantizedNode> readBnb4(NodeOp node) {
  if (auto why = whyNotNode(
          node, 3, 3, 1,
          {"K", "N", "block_size", "quant_type", "training_mode", "transB"}))
    return Failure{*why};
  int64_t K = node.getInt("K", 0), N = node.getInt("N", 0);
  int64_t size = node.getInt("block_size", 0);
  int64_t type = node.getInt("quant_type", -1);
  if (K < 1 || N < 1 || K > kMaxExtent || N > kMaxExtent || size < 1 ||
      size > kMaxExtent || (type != 0 && type != 1))
    return Failure{"K, N, block_size or quant_type is out of range"};
  if (node.getInt("transB", 1) != 1 || node.getInt("training_mode", 0) != 0)
    return Failure{"transB is 0, or it is for training"};
  ConstantInput packed = getConstantInput(node, 1);
  ConstantInput absmax = getConstantInput(node, 2);
  if (!packed || !absmax)
    return Failure{"its weight or absmax is computed"};
  size_t count = size_t(K) * size_t(N);
  if (!isByte(packed.elementType()) || !isScaleType(absmax.elementType()) ||
      packed.type.getNumElements() != int64_t((count + 1) / 2) ||
      absmax.type.getNumElements() != int64_t((count + size - 1) / size))
    return Failure{"its weight or absmax does not have the shape that K, N and "
                   "block_size say"};
  std::optional<TensorBytes> data = getTensorBytes(packed.value);
  if (!data || data->bytes.size() != (count + 1) / 2)
    return Failure{"the data of its weight has another length than its shape"};

  QuantizedNode result;
  result.kind = NodeKind::MatMulBnb4;
  result.codesInput = 1;
  result.scalesInput = 2;
  StorageAttr storage = StorageAttr::get(
      node.getContext(), type == 1 ? CodeKind::NF4 : CodeKind::FP4);
  auto scale = TypeAttr::get(absmax.elementType());
  auto encoding =
      K % size == 0
          ? QuantizedAttr::get(storage, {1, size}, scale)
          : QuantizedAttr::get(storage, {size}, /*flat=*/true, scale,
                               Attribute(), OutliersAttr(), LayoutAttr());
  result.type = RankedTensorType::get({N, K}, absmax.elementType(), encoding);
  std::vector<uint8_t> codes(count);
  unpackHighNibbleFirst(reinterpret_cast<const uint8_t *>(data->bytes.data()),
                        count, codes.data());
  result.codes = makeCodes(getCodesType(result.type), codes);
  result.scales = viewTensor(absmax.value, getScalesType(result.type));
  if (!result.scales)
    return Failure{"the data of its absmax has another length than its shape"};
  return result;
}

//===----------------------------------------------------------------------===//
// QLinearMatMul, QLinearConv
//===----------------------------------------------------------------------===//

/// A tensor whose codes, scale and zero point are the inputs from `first` on.
/// `axis` is the dimension that a vector of scales runs along.
static Result<QuantizedNode> readOperand(NodeOp node, unsigned first,
                                         int64_t axis) {
  RankedTensorType data = getPlainType(node.getInput(first));
  ConstantInput scale = getConstantInput(node, first + 1);
  ConstantInput zero = getConstantInput(node, first + 2);
  if (!data)
    return Failure{"the shape of its input is not known"};
  if (!scale || !zero)
    return Failure{"a scale or a zero point is computed"};
  StorageAttr storage = getStorage(data.getElementType());
  if (!storage || !storage.isInteger() || storage.getBitWidth() != 8 ||
      zero.elementType() != data.getElementType() ||
      !isScaleType(scale.elementType()))
    return Failure{"its operands are not of 8 bits, or have other zero points"};
  SmallVector<int64_t> block(data.getRank(), QuantizedAttr::kWholeExtent);
  if (scale.type.getNumElements() != 1) {
    axis += axis < 0 ? data.getRank() : 0;
    if (scale.type.getRank() != 1 || axis < 0 || axis >= data.getRank() ||
        scale.type.getDimSize(0) != data.getDimSize(axis))
      return Failure{"a scale has neither one value nor one for each channel"};
    block[axis] = 1;
  }
  QuantizedNode result;
  result.type = RankedTensorType::get(
      data.getShape(), scale.elementType(),
      QuantizedAttr::get(storage, block, TypeAttr::get(scale.elementType()),
                         storage));
  result.codesInput = first;
  result.scalesInput = first + 1;
  result.zerosInput = first + 2;
  result.scales = viewTensor(scale.value, getScalesType(result.type));
  result.zeros = viewTensor(zero.value, getZerosType(result.type));
  if (!result.scales || !result.zeros)
    return Failure{"a zero point does not have the shape of its scale"};
  if (ConstantInput codes = getConstantInput(node, first))
    result.codes = codes.value;
  return result;
}

/// The bias of a QLinearConv: 32 bits, with the product of both scales.
static Result<QuantizedNode> readBias(NodeOp node, const QuantizedNode &data,
                                      const QuantizedNode &weight) {
  ConstantInput codes = getConstantInput(node, 8);
  std::optional<std::vector<float>> left = getFloats(data.scales);
  std::optional<std::vector<float>> right = getFloats(weight.scales);
  Type f32 = Float32Type::get(node.getContext());
  if (!codes || !codes.elementType().isInteger(32) ||
      codes.type.getRank() != 1 || !left || !right || left->size() != 1 ||
      (right->size() != 1 &&
       int64_t(right->size()) != codes.type.getDimSize(0)) ||
      data.type.getElementType() != f32 || weight.type.getElementType() != f32)
    return Failure{"its bias is computed or does not fit"};
  int64_t extent = right->size() == 1 ? QuantizedAttr::kWholeExtent : 1;
  QuantizedNode result;
  StorageAttr storage = StorageAttr::getInteger(node.getContext(), 32, true);
  result.type = RankedTensorType::get(
      codes.type.getShape(), f32,
      QuantizedAttr::get(storage, {extent}, TypeAttr::get(f32)));
  result.codesInput = result.scalesInput = 8;
  result.codes = codes.value;
  RankedTensorType scalesType = getScalesType(result.type);
  std::vector<char> bytes(scalesType.getNumElements() * sizeof(float));
  for (auto [index, scale] : llvm::enumerate(*right)) {
    float product = left->front() * scale;
    std::memcpy(bytes.data() + index * sizeof(float), &product, sizeof(float));
  }
  result.scales = makeTensorValue(scalesType, "scales", std::move(bytes));
  return result;
}

static Result<QuantizedNode> readQLinear(NodeOp node, NodeKind kind) {
  bool isConv = kind == NodeKind::QLinearConv;
  std::optional<std::string> why =
      isConv ? whyNotNode(node, 8, 9, 1,
                          {"auto_pad", "dilations", "group", "kernel_shape",
                           "pads", "strides"})
             : whyNotNode(node, 8, 8, 1, {});
  if (why)
    return Failure{*why};
  QuantizedNode result;
  result.kind = kind;
  auto left = readOperand(node, 0, isConv ? 1 : -2);
  auto right = readOperand(node, 3, isConv ? 0 : -1);
  if (!left || !right)
    return Failure{left ? right.error() : left.error()};
  if (left->type.getElementType() != right->type.getElementType() ||
      (isConv && getQuantization(left->type).getBlock()[0] !=
                     QuantizedAttr::kWholeExtent))
    return Failure{"its scales have several types"};
  int64_t leftRank = left->type.getRank(), rightRank = right->type.getRank();
  if (std::min(leftRank, rightRank) < 2)
    return Failure{"an operand has fewer than two dimensions"};
  if (isConv && leftRank != rightRank)
    return Failure{"its operands differ in rank"};
  int64_t rank = std::max(leftRank, rightRank);
  result.operands = {*left, *right};
  if (node.getInput(8)) {
    auto bias = readBias(node, *left, *right);
    if (!bias)
      return Failure{bias.error()};
    result.operands.push_back(*bias);
  }

  ConstantInput scale = getConstantInput(node, 6);
  ConstantInput zero = getConstantInput(node, 7);
  if (!scale || !zero || scale.type.getNumElements() != 1 ||
      zero.type.getNumElements() != 1 ||
      scale.elementType() != left->type.getElementType())
    return Failure{"the scale or the zero point of its result is computed, or "
                   "is no single number"};
  StorageAttr storage = getStorage(zero.elementType());
  if (!storage || !storage.isInteger() || storage.getBitWidth() != 8)
    return Failure{"its result is not of 8 bits"};
  SmallVector<int64_t> block(rank, QuantizedAttr::kWholeExtent);
  RankedTensorType stated = getPlainType(node.getResult(0));
  SmallVector<int64_t> shape(rank, ShapedType::kDynamic);
  if (stated && stated.getRank() == rank)
    shape.assign(stated.getShape().begin(), stated.getShape().end());
  result.type = RankedTensorType::get(
      shape, scale.elementType(),
      QuantizedAttr::get(storage, block, TypeAttr::get(scale.elementType()),
                         storage));
  result.scalesInput = 6;
  result.zerosInput = 7;
  result.scales = viewTensor(scale.value, getScalesType(result.type));
  result.zeros = viewTensor(zero.value, getZerosType(result.type));
  if (!result.scales || !result.zeros)
    return Failure{"the scale of its result has no data"};
  return result;
}

//===----------------------------------------------------------------------===//
// All kinds
//===----------------------------------------------------------------------===//

std::optional<NodeKind> nibble::getNodeKind(NodeOp node) {
  constexpr std::pair<const char *, NodeKind> standard[] = {
      {"QuantizeLinear", NodeKind::QuantizeLinear},
      {"DequantizeLinear", NodeKind::DequantizeLinear},
      {"DynamicQuantizeLinear", NodeKind::DynamicQuantizeLinear},
      {"QLinearMatMul", NodeKind::QLinearMatMul},
      {"QLinearConv", NodeKind::QLinearConv},
      {"MatMulInteger", NodeKind::MatMulInteger},
      {"ConvInteger", NodeKind::ConvInteger}};
  constexpr std::pair<const char *, NodeKind> microsoft[] = {
      // The same ops, from before ONNX had 16 and 4 bits.
      {"QuantizeLinear", NodeKind::QuantizeLinear},
      {"DequantizeLinear", NodeKind::DequantizeLinear},
      {"MatMulNBits", NodeKind::MatMulNBits},
      {"GatherBlockQuantized", NodeKind::GatherBlockQuantized},
      {"MatMulBnb4", NodeKind::MatMulBnb4}};
  for (auto [opType, kind] : standard)
    if (node.isOnnx(opType))
      return kind;
  for (auto [opType, kind] : microsoft)
    if (node.isMicrosoft(opType))
      return kind;
  return std::nullopt;
}

Result<QuantizedNode> nibble::readQuantizedNode(NodeOp node) {
  std::optional<NodeKind> kind = getNodeKind(node);
  if (!kind)
    return Failure{"it is no quantized node"};
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (isa<AttributeReferenceAttr>(attribute.getValue()))
      return Failure{"its attribute '" + attribute.getName().getValue().str() +
                     "' is given by the callers of its function"};
  switch (*kind) {
  case NodeKind::QuantizeLinear:
  case NodeKind::DequantizeLinear:
    return readLinear(node, *kind);
  case NodeKind::DynamicQuantizeLinear:
    return readDynamic(node);
  case NodeKind::MatMulNBits:
    return readMatMulNBits(node);
  case NodeKind::GatherBlockQuantized:
    return readGather(node);
  case NodeKind::MatMulBnb4:
    return readBnb4(node);
  case NodeKind::QLinearMatMul:
  case NodeKind::QLinearConv:
    return readQLinear(node, *kind);
  case NodeKind::MatMulInteger:
  case NodeKind::ConvInteger:
    return readIntegerSums(node);
  }
  return Failure{"it is no quantized node"};
}
