//===- SizeOrigin.cpp - Where the size of a dimension comes from ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "SizeOrigin.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"

using namespace mlir;

namespace {
/// A dimension of a tensor, or an index (`axis` -1), plus a number.
struct SizeOrigin {
  Value value;
  int64_t axis = -1;
  int64_t offset = 0;

  bool operator==(const SizeOrigin &other) const {
    return value == other.value && axis == other.axis && offset == other.offset;
  }
};
} // namespace

/// Steps from a dimension of a reshaped tensor to the one that it was.
static bool stepThroughReshape(SizeOrigin &origin) {
  if (auto collapse = origin.value.getDefiningOp<tensor::CollapseShapeOp>()) {
    ReassociationIndices group =
        collapse.getReassociationIndices()[origin.axis];
    if (group.size() != 1)
      return false;
    origin = {collapse.getSrc(), group[0], origin.offset};
    return true;
  }
  auto expand = origin.value.getDefiningOp<tensor::ExpandShapeOp>();
  if (!expand)
    return false;
  for (auto [axis, group] : llvm::enumerate(expand.getReassociationIndices()))
    if (group.size() == 1 && group[0] == origin.axis) {
      origin = {expand.getSrc(), static_cast<int64_t>(axis), origin.offset};
      return true;
    }
  return false;
}

static bool stepThroughTensor(SizeOrigin &origin) {
  if (auto cast = origin.value.getDefiningOp<tensor::CastOp>()) {
    origin.value = cast.getSource();
    return true;
  }
  if (auto op = origin.value.getDefiningOp<DestinationStyleOpInterface>()) {
    origin.value = op.getTiedOpOperand(cast<OpResult>(origin.value))->get();
    return true;
  }
  auto empty = origin.value.getDefiningOp<tensor::EmptyOp>();
  if (empty && empty.getType().isDynamicDim(origin.axis)) {
    origin = {empty.getDynamicSize(origin.axis), -1, origin.offset};
    return true;
  }
  return stepThroughReshape(origin);
}

static bool stepThroughIndex(SizeOrigin &origin) {
  if (auto dim = origin.value.getDefiningOp<tensor::DimOp>()) {
    std::optional<int64_t> axis = dim.getConstantIndex();
    if (!axis)
      return false;
    origin = {dim.getSource(), *axis, origin.offset};
    return true;
  }
  Operation *op = origin.value.getDefiningOp();
  if (!isa_and_present<arith::AddIOp, arith::SubIOp>(op))
    return false;
  std::optional<int64_t> number = getConstantIntValue(op->getOperand(1));
  if (!number)
    return false;
  origin.value = op->getOperand(0);
  origin.offset += isa<arith::AddIOp>(op) ? *number : -*number;
  return true;
}

static SizeOrigin getSizeOrigin(Value tensor, int64_t axis) {
  SizeOrigin origin{tensor, axis, 0};
  while (origin.axis >= 0 ? stepThroughTensor(origin)
                          : stepThroughIndex(origin))
    ;
  return origin;
}

bool nibble::haveSameSize(Value tensor, int64_t axis, Value otherTensor,
                          int64_t otherAxis) {
  return getSizeOrigin(tensor, axis) == getSizeOrigin(otherTensor, otherAxis);
}
