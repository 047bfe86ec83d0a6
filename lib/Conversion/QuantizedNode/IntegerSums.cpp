//===- IntegerSums.cpp - MatMulInteger and ConvInteger --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Sums of products of codes less their zero points, which no scale makes
// numbers.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/QuantizedNode.h"

#include "ConstantInput.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The block of a tensor of `type` whose zero points have the shape `zeros`: a
/// number, a vector along dimension `axis`, or (`broadcasts`) a tensor of the
/// same rank. std::nullopt where it is none of them, or that is not known.
static std::optional<SmallVector<int64_t>> getZeroBlock(RankedTensorType type,
                                                        ArrayRef<int64_t> zeros,
                                                        int64_t axis,
                                                        bool broadcasts) {
  int64_t rank = type.getRank();
  SmallVector<int64_t> block(rank, QuantizedAttr::kWholeExtent);
  auto setExtent = [&](int64_t dimension, int64_t size) {
    if (size == 1)
      return true;
    block[dimension] = 1;
    return ShapedType::isStatic(size) && type.getDimSize(dimension) == size;
  };
  if (zeros.size() <= 1 && (zeros.empty() || zeros[0] == 1))
    return block;
  if (zeros.size() == 1) {
    axis += axis < 0 ? rank : 0;
    return axis >= 0 && axis < rank && setExtent(axis, zeros[0])
               ? std::optional(block)
               : std::nullopt;
  }
  if (!broadcasts || static_cast<int64_t>(zeros.size()) != rank)
    return std::nullopt;
  for (auto [dimension, size] : llvm::enumerate(zeros))
    if (!setExtent(static_cast<int64_t>(dimension), size))
      return std::nullopt;
  return block;
}

/// The factor whose codes are input `input` and whose zero points are the input
/// two places later.
static Result<QuantizedNode> readFactor(NodeOp node, unsigned input,
                                        int64_t axis, bool broadcasts) {
  RankedTensorType data = getPlainType(node.getInput(input));
  if (!data)
    return Failure{"the shape of its input " + std::to_string(input) +
                   " is not known"};
  StorageAttr storage = getStorage(data.getElementType());
  if (!storage || !storage.isInteger() || storage.getBitWidth() != 8)
    return Failure{"its operands are not of 8 bits"};
  QuantizedNode result;
  result.codesInput = result.scalesInput = input;
  SmallVector<int64_t> block(data.getRank(), QuantizedAttr::kWholeExtent);
  ConstantInput zero;
  if (Value value = node.getInput(input + 2)) {
    zero = getConstantTensor(value);
    RankedTensorType type = zero ? zero.type : getPlainType(value);
    if (!type || type.getElementType() != data.getElementType())
      return Failure{"a zero point is not of the type of its codes, or of a "
                     "shape that is not known"};
    auto found = getZeroBlock(data, type.getShape(), axis, broadcasts);
    if (!found)
      return Failure{"a zero point is neither one number nor one for each row, "
                     "column or channel, as far as the shapes are known"};
    block = *found;
    result.zerosInput = input + 2;
  }
  Type f32 = Float32Type::get(node.getContext());
  result.type = RankedTensorType::get(
      data.getShape(), f32,
      QuantizedAttr::get(storage, block, TypeAttr::get(f32),
                         result.zerosInput ? Attribute(storage) : Attribute()));
  result.scales = DenseElementsAttr::get(getScalesType(result.type), 1.0f);
  if (zero) {
    result.zeros = viewTensor(zero.value, getZerosType(result.type));
    if (!result.zeros)
      return Failure{"its zero point has no data"};
  }
  if (ConstantInput codes = getConstantTensor(node.getInput(input)))
    result.codes = codes.value;
  return result;
}

Result<QuantizedNode> nibble::readIntegerSums(NodeOp node) {
  if (node.getInputs().size() < 2 || node.getInputs().size() > 4 ||
      node.getNumResults() != 1 || !node.getInput(0) || !node.getInput(1))
    return Failure{"it does not have 2 to 4 inputs and 1 output"};
  bool isConv = node.isOnnx("ConvInteger");
  constexpr int64_t none = std::numeric_limits<int32_t>::max();
  auto left = readFactor(node, 0, isConv ? none : -2, !isConv);
  auto right = readFactor(node, 1, isConv ? 0 : -1, !isConv);
  if (!left || !right)
    return Failure{left ? right.error() : left.error()};
  QuantizedNode result;
  result.kind = isConv ? NodeKind::ConvInteger : NodeKind::MatMulInteger;
  result.operands = {*left, *right};
  return result;
}
