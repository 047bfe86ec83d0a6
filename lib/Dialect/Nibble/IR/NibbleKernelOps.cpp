//===- NibbleKernelOps.cpp - What code generation adds --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include <cmath>

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Panels
//===----------------------------------------------------------------------===//

unsigned nibble::getPanelBits(StorageAttr storage) {
  unsigned width = storage.getCodeType().getIntOrFloatBitWidth();
  if (storage.isCodeBook()) {
    // A table of a kernel has a finite entry for each code.
    SmallVector<float> values = getCodeBookValues(storage);
    bool isTable =
        width >= 2 && width <= 4 && values.size() == size_t(1) << width &&
        llvm::all_of(values, [](float v) { return std::isfinite(v); });
    return isTable ? width : 0;
  }
  if (!storage.isInteger() || width > 8)
    return 0;
  return width <= 4 ? width : 8;
}

std::optional<PanelFormat> nibble::getPanelFormat(RankedTensorType weightType) {
  QuantizedAttr encoding = getQuantization(weightType);
  if (!encoding || !encoding.hasLayout() || weightType.getRank() != 2 ||
      !weightType.hasStaticShape() ||
      encoding.getLayout().getName() != "panel" || encoding.getFlat() ||
      encoding.hasOutliers() || encoding.hasNestedScale() ||
      encoding.getBlock()[1] != 1)
    return std::nullopt;
  auto group = encoding.getLayout().getParameters().getAs<IntegerAttr>("group");
  Type scale = cast<TypeAttr>(encoding.getScale()).getValue();
  PanelFormat format;
  format.bits = getPanelBits(encoding.getStorage());
  if (!group || format.bits == 0 || !isa<Float16Type, Float32Type>(scale) ||
      (encoding.hasZero() && encoding.getZero() != encoding.getStorage()))
    return std::nullopt;
  format.K = weightType.getDimSize(0);
  format.N = weightType.getDimSize(1);
  format.scaleBytes = scale.getIntOrFloatBitWidth() / 8;
  format.hasZeros = encoding.hasZero();
  int64_t extent = encoding.getBlock()[0], size = group.getInt();
  bool wholeK = extent == QuantizedAttr::kWholeExtent ||
                extent >= weightType.getDimSize(0);
  if (size <= 0 || (!wholeK && extent % size != 0))
    return std::nullopt;
  format.group = size;
  if (format.group % format.groupMultiple() != 0)
    return std::nullopt;
  return format;
}

//===----------------------------------------------------------------------===//
// Fragments
//===----------------------------------------------------------------------===//

/// Integers of 4 and 8 bits, code books of 4, and floats: what they are, not
/// what each code stands for.
static std::optional<StorageFormat> getFragmentStorage(StorageAttr storage) {
  StorageFormat format;
  format.bits = storage.getCodeType().getIntOrFloatBitWidth();
  if (storage.isCodeBook())
    format.kind = StorageKind::CodeBook;
  else if (!storage.isInteger())
    format.kind = StorageKind::Float;
  else if (storage.getMinimumCode() < 0)
    format.kind = StorageKind::Signed;
  bool isKnown = format.bits == 4 ||
                 (format.bits == 8 && format.kind != StorageKind::CodeBook);
  return isKnown ? std::optional(format) : std::nullopt;
}

std::optional<FragmentFormat>
nibble::getFragmentFormat(RankedTensorType weightType) {
  QuantizedAttr encoding = getQuantization(weightType);
  if (!encoding || !encoding.hasLayout() || weightType.getRank() != 2 ||
      !weightType.hasStaticShape() ||
      encoding.getLayout().getName() != "fragment" || encoding.getFlat() ||
      encoding.hasOutliers() || encoding.hasNestedScale() ||
      encoding.getBlock()[1] != 1)
    return std::nullopt;
  auto group = encoding.getLayout().getParameters().getAs<IntegerAttr>("group");
  std::optional<StorageFormat> storage =
      getFragmentStorage(encoding.getStorage());
  if (!group || !storage ||
      !cast<TypeAttr>(encoding.getScale()).getValue().isF16() ||
      (storage->kind == StorageKind::Unsigned) != encoding.hasZero() ||
      (encoding.hasZero() && encoding.getZero() != encoding.getStorage()))
    return std::nullopt;
  FragmentFormat format;
  format.K = weightType.getDimSize(0);
  format.N = weightType.getDimSize(1);
  format.group = group.getInt();
  format.storage = *storage;
  int64_t extent = encoding.getBlock()[0], size = group.getInt();
  bool wholeK = extent == QuantizedAttr::kWholeExtent ||
                extent >= weightType.getDimSize(0);
  bool isKnown = size == 0 ? wholeK
                           : size == extent && (size == 32 || size == 64 ||
                                                (size > 0 && size % 128 == 0));
  return isKnown ? std::optional(format) : std::nullopt;
}

//===----------------------------------------------------------------------===//
// PackedMatmulOp
//===----------------------------------------------------------------------===//

/// Elements of the packed vector of `weight`; -1 where its type is none.
static int64_t getPackedElements(RankedTensorType weight) {
  if (std::optional<PanelFormat> format = getPanelFormat(weight))
    return format->bytes();
  if (weight.getEncoding())
    return -1;
  int64_t columns = PanelFormat::kColumns;
  return llvm::divideCeil(weight.getDimSize(1), columns) * columns *
         weight.getDimSize(0);
}

static bool agree(int64_t size, int64_t expected) {
  return ShapedType::isDynamic(size) || ShapedType::isDynamic(expected) ||
         size == expected;
}

LogicalResult PackedMatmulOp::verify() {
  auto weight = dyn_cast<RankedTensorType>(getWeightType());
  if (!weight || weight.getRank() != 2 || !weight.hasStaticShape() ||
      !isa<Float32Type, Float16Type, BFloat16Type>(weight.getElementType()) ||
      (weight.getEncoding() && !weight.getElementType().isF32()))
    return emitOpError("needs a static weight type [K, N] of f32, or of f16 or "
                       "bf16 without an encoding (Spec C28)");
  int64_t elements = getPackedElements(weight);
  if (elements < 0)
    return emitOpError("has a weight type without a layout 'panel' that fits "
                       "its encoding (Spec C28)");
  auto packed = cast<ShapedType>(getWeight().getType());
  Type element = weight.getEncoding() ? IntegerType::get(getContext(), 8)
                                      : weight.getElementType();
  if (packed.getElementType() != element ||
      !agree(packed.getDimSize(0), elements)) {
    InFlightDiagnostic error = emitOpError("needs a packed weight of ");
    if (weight.getEncoding())
      return error << elements << " bytes (Spec C28)";
    return error << elements << " " << element << " numbers (Spec C28)";
  }
  auto activations = cast<ShapedType>(getActivations().getType());
  bool isCodes = activations.getElementType().isInteger(8);
  if (isCodes != getActivationScale().has_value() ||
      (isCodes && (!weight.getEncoding() || !getComputeType().isInteger(8))))
    return emitOpError("takes activations of i8 with their scale, a quantized "
                       "weight and compute i8 (Spec C28)");
  auto result = cast<ShapedType>(getInit().getType());
  if (!agree(activations.getDimSize(1), weight.getDimSize(0)) ||
      !agree(result.getDimSize(1), weight.getDimSize(1)) ||
      !agree(activations.getDimSize(0), result.getDimSize(0)))
    return emitOpError("has activations and a result that do not fit the "
                       "weight (Spec C28)");
  if (getBias() && !agree(cast<ShapedType>(getBias().getType()).getDimSize(0),
                          weight.getDimSize(1)))
    return emitOpError("has a bias that does not fit the weight (Spec C28)");
  return success();
}

/// Of an op on buffers that overwrites its `init` and reads the others.
template <typename Op>
static void getKernelEffects(
    Op op, SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
               &effects) {
  for (OpOperand &operand : op->getOpOperands()) {
    if (!isa<MemRefType>(operand.get().getType()))
      continue;
    bool isInit = op.isDpsInit(&operand);
    effects.emplace_back(isInit ? static_cast<MemoryEffects::Effect *>(
                                      MemoryEffects::Write::get())
                                : MemoryEffects::Read::get(),
                         &operand, SideEffects::DefaultResource::get());
  }
}

void PackedMatmulOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  getKernelEffects(*this, effects);
}

//===----------------------------------------------------------------------===//
// FragmentMatmulOp
//===----------------------------------------------------------------------===//

LogicalResult FragmentMatmulOp::verify() {
  auto weight = dyn_cast<RankedTensorType>(getWeightType());
  std::optional<FragmentFormat> format =
      weight ? getFragmentFormat(weight) : std::nullopt;
  if (!format)
    return emitOpError("needs a static weight type [K, N] with a layout "
                       "'fragment' that fits its encoding (Spec C32)");
  int64_t bytes = format->codeBytes() + format->scaleBytes();
  if (!agree(cast<ShapedType>(getWeight().getType()).getDimSize(0), bytes))
    return emitOpError("needs a packed weight of ")
           << bytes << " bytes (Spec C32)";
  auto activations = cast<ShapedType>(getActivations().getType());
  auto result = cast<ShapedType>(getInit().getType());
  constexpr size_t multiple = 8;
  if (!agree(activations.getDimSize(1),
             FragmentFormat::roundUp(format->K, multiple)) ||
      !agree(result.getDimSize(1),
             FragmentFormat::roundUp(format->N, multiple)) ||
      !agree(activations.getDimSize(0), result.getDimSize(0)))
    return emitOpError("has activations and a result that do not fit the "
                       "weight, padded to multiples of 8 columns (Spec C32)");
  return success();
}

void FragmentMatmulOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  getKernelEffects(*this, effects);
}

//===----------------------------------------------------------------------===//
// Dot4Op
//===----------------------------------------------------------------------===//

LogicalResult Dot4Op::verify() {
  if (cast<VectorType>(getWeights().getType()).getDimSize(0) !=
      4 * cast<VectorType>(getSums().getType()).getDimSize(0))
    return emitOpError("takes four bytes for each sum (Spec C29)");
  return success();
}

//===----------------------------------------------------------------------===//
// LookupOp
//===----------------------------------------------------------------------===//

LogicalResult LookupOp::verify() {
  auto table = cast<VectorType>(getTable().getType());
  auto indices = cast<VectorType>(getIndices().getType());
  auto result = cast<VectorType>(getResult().getType());
  if (table.getElementType() != result.getElementType() ||
      table.getElementTypeBitWidth() != indices.getElementTypeBitWidth() ||
      indices.getShape() != result.getShape())
    return emitOpError("takes an index as wide as an entry for each entry that "
                       "it gives (Spec C30)");
  return success();
}
