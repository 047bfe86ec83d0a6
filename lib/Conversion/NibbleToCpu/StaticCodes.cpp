//===- StaticCodes.cpp - Tensors quantized with constant scales -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "StaticCodes.h"

#include "nibble/Conversion/ConstantData.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;

namespace {
/// The constants of an encoding.
struct Parts {
  Value codes;
  ElementsAttr scales, zeros;
  bool hasZeros = false;
};
} // namespace

template <typename Op> static Parts readParts(Op op) {
  Parts parts;
  parts.scales = getConstant(op.getScales());
  parts.hasZeros = static_cast<bool>(op.getZeros());
  if (parts.hasZeros)
    parts.zeros = getConstant(op.getZeros());
  return parts;
}

/// 8-bit integers with scales of f32 and at most one scale for each slice along
/// `axis` (-1: one scale).
static bool isSimple(RankedTensorType type, int64_t axis) {
  QuantizedAttr encoding = getQuantization(type);
  if (!encoding || encoding.getFlat() || encoding.hasOutliers() ||
      encoding.hasNestedScale() || encoding.hasNestedZero() ||
      encoding.hasLayout() || !encoding.getStorage().isInteger() ||
      encoding.getStorage().getBitWidth() != 8 ||
      (encoding.hasZero() && encoding.getZero() != encoding.getStorage()))
    return false;
  for (auto [dimension, extent] : llvm::enumerate(encoding.getBlock())) {
    bool isWhole = extent == QuantizedAttr::kWholeExtent ||
                   extent == type.getDimSize(dimension);
    bool isSlice = static_cast<int64_t>(dimension) == axis && extent == 1;
    if (!isWhole && !isSlice)
      return false;
  }
  return true;
}

/// Bytes of zero points; empty where they are no constant.
static std::vector<char> getZeros(const Parts &parts) {
  std::vector<char> storage;
  if (!parts.zeros)
    return storage;
  ArrayRef<char> bytes = getBytes(parts.zeros, storage);
  return {bytes.begin(), bytes.end()};
}

std::optional<StaticCodes> nibble::matchStaticCodes(Value quantized) {
  auto type = dyn_cast<RankedTensorType>(quantized.getType());
  if (!type || !isSimple(type, /*axis=*/-1))
    return std::nullopt;
  Parts parts;
  if (auto quantize = quantized.getDefiningOp<QuantizeOp>())
    parts = readParts(quantize);
  else if (auto assemble = quantized.getDefiningOp<AssembleOp>())
    parts = readParts(assemble);
  if (!parts.scales || (parts.hasZeros && !parts.zeros))
    return std::nullopt;
  std::vector<float> scales = getFloats(parts.scales);
  std::vector<char> zeros = getZeros(parts);
  if (scales.size() != 1 || (parts.hasZeros && zeros.size() != 1))
    return std::nullopt;
  StaticCodes result{quantized, scales[0], 0, false};
  result.isSigned = getQuantization(type).getStorage().getMinimumCode() < 0;
  if (parts.hasZeros)
    result.zero = result.isSigned ? static_cast<int8_t>(zeros[0])
                                  : static_cast<uint8_t>(zeros[0]);
  return result;
}

Value nibble::buildCodes(OpBuilder &builder, Location loc, StaticCodes &codes,
                         bool asSigned) {
  Value stored = CodesOp::create(builder, loc, codes.quantized);
  auto type = RankedTensorType::get(
      cast<RankedTensorType>(stored.getType()).getShape(), builder.getI8Type());
  if (stored.getType() != type)
    stored = UnrealizedConversionCastOp::create(builder, loc, type, stored)
                 .getResult(0);
  if (codes.isSigned == asSigned)
    return stored;
  codes.zero += asSigned ? -128 : 128;
  codes.isSigned = asSigned;
  Value empty = tensor::EmptyOp::create(
      builder, loc, tensor::getMixedSizes(builder, loc, stored),
      builder.getI8Type());
  int64_t rank = type.getRank();
  SmallVector<AffineMap> maps(2, builder.getMultiDimIdentityMap(rank));
  SmallVector<utils::IteratorType> loops(rank, utils::IteratorType::parallel);
  auto moved = linalg::GenericOp::create(
      builder, loc, TypeRange{type}, ValueRange{stored}, ValueRange{empty},
      maps, loops, [](OpBuilder &body, Location at, ValueRange args) {
        Value half =
            arith::ConstantIntOp::create(body, at, body.getI8Type(), -128);
        Value code = arith::XOrIOp::create(body, at, args[0], half);
        linalg::YieldOp::create(body, at, code);
      });
  return moved.getResult(0);
}

std::optional<SignedWeight> nibble::matchSignedWeight(Value quantized,
                                                      int64_t axis) {
  auto type = dyn_cast<RankedTensorType>(quantized.getType());
  auto assemble = quantized.getDefiningOp<AssembleOp>();
  if (!type || !assemble || !type.hasStaticShape() || !isSimple(type, axis) ||
      getQuantization(type).getStorage().getMinimumCode() == 0)
    return std::nullopt;
  Parts parts = readParts(assemble);
  ElementsAttr codes = getConstant(assemble.getCodes());
  if (!codes || !parts.scales || (parts.hasZeros && !parts.zeros) ||
      llvm::any_of(getZeros(parts), [](char zero) { return zero != 0; }))
    return std::nullopt;
  std::vector<char> storage;
  ArrayRef<char> bytes = getBytes(codes, storage);
  SignedWeight weight;
  weight.codes = assemble.getCodes();
  weight.values.assign(bytes.begin(), bytes.end());
  weight.scales = getFloats(parts.scales);
  size_t slices = static_cast<size_t>(type.getDimSize(axis));
  if (weight.scales.size() == 1)
    weight.scales.assign(slices, weight.scales[0]);
  if (weight.scales.size() != slices ||
      weight.values.size() != static_cast<size_t>(type.getNumElements()))
    return std::nullopt;
  return weight;
}
