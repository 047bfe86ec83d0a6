//===- IntegerProduct.cpp - Products of codes and their scaling -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/QuantizedNode.h"

#include "ConstantInput.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

bool nibble::isIntegerProduct(NodeOp node) {
  return node.isOnnx("MatMulInteger") || node.isOnnx("ConvInteger");
}

/// The only node that reads `value`, if it is an `opType` of two inputs (one
/// for Cast) and one result.
static NodeOp getOnlyReader(Value value, StringRef opType) {
  if (!value.hasOneUse())
    return {};
  auto node = dyn_cast<NodeOp>(*value.getUsers().begin());
  bool fits = node && node.isOnnx(opType) && node.getNumResults() == 1 &&
              node.getInputs().size() == (opType == "Cast" ? 1 : 2);
  return fits ? node : NodeOp();
}

/// The input of a node of two that is not `value`.
static Value getOtherInput(NodeOp node, Value value) {
  return node.getInputs()[node.getInputs()[0] == value ? 1 : 0];
}

/// The extent that `shape` spreads over dimension `axis` of a tensor of `type`
/// (counted from the last, as broadcasting does): the whole of it or 1.
static std::optional<int64_t> getChannelExtent(ArrayRef<int64_t> shape,
                                               RankedTensorType type,
                                               int64_t axis, int64_t fromLast) {
  int64_t count = ShapedType::getNumElements(shape);
  if (count == 1)
    return QuantizedAttr::kWholeExtent;
  int64_t position = static_cast<int64_t>(shape.size()) - 1 - fromLast;
  bool perChannel = position >= 0 && count == type.getDimSize(axis) &&
                    shape[position] == count;
  return perChannel ? std::optional<int64_t>(1) : std::nullopt;
}

/// A zero point for each of `type`'s blocks; one may stand for all.
static TypedAttr spreadZeroPoint(const ConstantInput &zero,
                                 RankedTensorType type) {
  if (zero.type.getNumElements() != 1)
    return viewTensor(zero.value, type);
  std::optional<SmallVector<int64_t>> integers = getIntegers(zero.value);
  if (!integers || type.getNumElements() == 1)
    return viewTensor(zero.value, type);
  return DenseElementsAttr::get(
      type, APInt(type.getElementTypeBitWidth(), integers->front(),
                  /*isSigned=*/true, /*implicitTrunc=*/true));
}

/// The weight: codes and zero point are inputs of `sums`, the scale is `scale`.
static Result<QuantizedNode> readWeight(NodeOp sums, Value scale) {
  ConstantInput codes = getConstantTensor(sums.getInput(1));
  ConstantInput zeros = getConstantTensor(sums.getInput(3));
  ConstantInput scales = getConstantTensor(scale);
  if (!codes || (sums.getInput(3) && !zeros))
    return Failure{"its weight or zero point is computed"};
  if (!scales || !scales.elementType().isF32())
    return Failure{"its sums are not scaled by a constant of f32"};
  StorageAttr storage = getStorage(codes.elementType());
  if (!storage || !storage.isInteger() || storage.getBitWidth() != 8 ||
      (zeros && zeros.elementType() != codes.elementType()))
    return Failure{"its weight is not of 8 bits, or has another zero point"};
  bool isConv = sums.isOnnx("ConvInteger");
  int64_t rank = codes.type.getRank();
  if (rank < (isConv ? 3 : 2))
    return Failure{"its weight has too few dimensions"};
  int64_t axis = isConv ? 0 : rank - 1;
  // Channels are the second dimension of what a convolution gives.
  std::optional<int64_t> extent =
      scales.type.getRank() > (isConv ? rank : 1)
          ? std::nullopt
          : getChannelExtent(scales.type.getShape(), codes.type, axis,
                             isConv ? rank - 2 : 0);
  if (!extent)
    return Failure{"a scale has neither one value nor one for each channel"};
  if (zeros && zeros.type.getNumElements() != 1 &&
      (*extent != 1 || zeros.type.getRank() != 1 ||
       zeros.type.getNumElements() != codes.type.getDimSize(axis)))
    return Failure{"its zero points are not as many as its scales"};

  SmallVector<int64_t> block(rank, QuantizedAttr::kWholeExtent);
  block[axis] = *extent;
  Type f32 = scales.elementType();
  QuantizedNode result;
  result.type = RankedTensorType::get(
      codes.type.getShape(), f32,
      QuantizedAttr::get(storage, block, TypeAttr::get(f32),
                         zeros ? Attribute(storage) : Attribute()));
  result.codes = codes.value;
  result.scales = viewTensor(scales.value, getScalesType(result.type));
  if (zeros)
    result.zeros = spreadZeroPoint(zeros, getZerosType(result.type));
  if (!result.scales || (zeros && !result.zeros))
    return Failure{"its scale or zero point has no data"};
  return result;
}

/// Finds the nodes between the sums and the numbers.
static Result<IntegerProduct> matchNodes(NodeOp sums) {
  if (sums.getInputs().size() < 2 || sums.getNumResults() != 1)
    return Failure{"it does not have 2 to 4 inputs and 1 output"};
  IntegerProduct product;
  product.sums = sums;
  product.dynamic = sums.getInputs()[0].getDefiningOp<NodeOp>();
  if (!product.dynamic || !product.dynamic.isOnnx("DynamicQuantizeLinear") ||
      product.dynamic.getNumResults() != 3 ||
      sums.getInput(0) != product.dynamic.getResult(0) ||
      sums.getInput(2) != product.dynamic.getResult(2))
    return Failure{"its activations and their zero point do not come from one "
                   "DynamicQuantizeLinear"};
  const char *bare = "its result is a sum of codes without a scale";
  product.cast = getOnlyReader(sums.getResult(0), "Cast");
  constexpr int64_t kFloat = 1; // TensorProto.DataType
  if (!product.cast || product.cast.getInt("to", 0) != kFloat)
    return Failure{bare};
  product.result = getOnlyReader(product.cast.getResult(0), "Mul");
  if (!product.result)
    return Failure{bare};
  Value factor = getOtherInput(product.result, product.cast.getResult(0));
  product.scale = factor.getDefiningOp<NodeOp>();
  if (!product.scale || getOnlyReader(factor, "Mul") != product.result ||
      !product.scale.isOnnx("Mul") || product.scale.getInputs().size() != 2 ||
      !llvm::is_contained(product.scale.getInputs(),
                          product.dynamic.getResult(1)))
    return Failure{"its sums are not scaled by the product of the scales of "
                   "its activations and its weight"};
  return product;
}

Result<IntegerProduct> nibble::readIntegerProduct(NodeOp sums) {
  Result<IntegerProduct> product = matchNodes(sums);
  if (!product)
    return product;
  Result<QuantizedNode> activations = readQuantizedNode(product->dynamic);
  if (!activations)
    return Failure{activations.error()};
  product->activations = *activations;
  Result<QuantizedNode> weight = readWeight(sums, product->getWeightScale());
  if (!weight)
    return Failure{weight.error()};
  product->weight = *weight;
  if (sums.isOnnx("ConvInteger") &&
      activations->type.getRank() != weight->type.getRank())
    return Failure{"its operands differ in rank"};
  return product;
}

Value IntegerProduct::getWeightScale() {
  return getOtherInput(scale, dynamic.getResult(1));
}
