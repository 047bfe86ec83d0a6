//===- MatrixRows.cpp - Activations of any rank as a matrix ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/MatrixRows.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;

/// All dimensions but the last are one.
static SmallVector<ReassociationIndices> getRowsReassociation(int64_t rank) {
  ReassociationIndices leading(
      llvm::to_vector(llvm::seq<int64_t>(0, rank - 1)));
  return {leading, {rank - 1}};
}

Value nibble::collapseRows(OpBuilder &builder, Location loc, Value tensor) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  if (rank <= 2)
    return tensor;
  return tensor::CollapseShapeOp::create(builder, loc, tensor,
                                         getRowsReassociation(rank));
}

OpFoldResult nibble::getRowCount(OpBuilder &builder, Location loc,
                                 Value matrix) {
  int64_t known = cast<RankedTensorType>(matrix.getType()).getDimSize(0);
  if (!ShapedType::isDynamic(known))
    return builder.getIndexAttr(known);
  return tensor::DimOp::create(builder, loc, matrix, 0).getResult();
}

Value nibble::expandRows(OpBuilder &builder, Location loc, Value matrix,
                         Value like) {
  auto type = cast<RankedTensorType>(like.getType());
  auto rows = cast<RankedTensorType>(matrix.getType());
  int64_t rank = type.getRank(), N = rows.getDimSize(1);
  if (rank == 2)
    return matrix;
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(builder, loc, like);
  sizes.back() = builder.getIndexAttr(N);
  SmallVector<int64_t> shape(type.getShape());
  shape.back() = N;
  auto resultType = RankedTensorType::get(shape, rows.getElementType());
  // Upstream expands no group with two dynamic dimensions in buffers.
  if (resultType.getNumDynamicDims() > 1) {
    Value shapeTensor = tensor::FromElementsOp::create(
        builder, loc, getValueOrCreateConstantIndexOp(builder, loc, sizes));
    return tensor::ReshapeOp::create(builder, loc, resultType, matrix,
                                     shapeTensor);
  }
  return tensor::ExpandShapeOp::create(builder, loc, resultType, matrix,
                                       getRowsReassociation(rank), sizes);
}
