//===- LoopBuilder.cpp - Tensors computed element by element --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/LoopBuilder.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using Body = llvm::function_ref<Value(ScalarBuilder &, ValueRange)>;

OpFoldResult nibble::getSize(OpBuilder &builder, Location loc, Value tensor,
                             int64_t dimension) {
  return tensor::getMixedSize(builder, loc, tensor, dimension);
}

Sizes nibble::getSizes(OpBuilder &builder, Location loc, Value tensor) {
  return tensor::getMixedSizes(builder, loc, tensor);
}

Value nibble::toValue(OpBuilder &builder, Location loc, OpFoldResult size) {
  return getValueOrCreateConstantIndexOp(builder, loc, size);
}

Value nibble::buildTensor(OpBuilder &builder, Location loc,
                          ArrayRef<OpFoldResult> sizes, Type elementType,
                          Body body) {
  return buildElementwise(builder, loc, {}, {}, sizes, elementType,
                          [&](ScalarBuilder &scalar, ValueRange) {
                            SmallVector<Value> indices;
                            for (size_t i = 0; i < sizes.size(); ++i)
                              indices.push_back(linalg::IndexOp::create(
                                  scalar.builder, scalar.loc, i));
                            return body(scalar, indices);
                          });
}

Value nibble::buildElementwise(OpBuilder &builder, Location loc,
                               ValueRange inputs, ArrayRef<AffineMap> maps,
                               ArrayRef<OpFoldResult> sizes, Type elementType,
                               Body body) {
  Value empty = tensor::EmptyOp::create(builder, loc, sizes, elementType);
  SmallVector<AffineMap> allMaps(maps);
  allMaps.push_back(builder.getMultiDimIdentityMap(sizes.size()));
  SmallVector<utils::IteratorType> iterators(sizes.size(),
                                             utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             builder, loc, empty.getType(), inputs, empty, allMaps, iterators,
             [&](OpBuilder &nested, Location nestedLoc, ValueRange arguments) {
               ScalarBuilder scalar(nested, nestedLoc);
               Value result = body(scalar, arguments.drop_back());
               linalg::YieldOp::create(nested, nestedLoc, result);
             })
      .getResult(0);
}

Value nibble::buildReduction(OpBuilder &builder, Location loc,
                             ValueRange inputs, ArrayRef<AffineMap> maps,
                             ArrayRef<utils::IteratorType> iterators,
                             ArrayRef<OpFoldResult> sizes, Value initial,
                             Body body) {
  Value empty = tensor::EmptyOp::create(builder, loc, sizes, initial.getType());
  Value filled =
      linalg::FillOp::create(builder, loc, initial, empty).getResult(0);
  return linalg::GenericOp::create(
             builder, loc, filled.getType(), inputs, filled, maps, iterators,
             [&](OpBuilder &nested, Location nestedLoc, ValueRange arguments) {
               ScalarBuilder scalar(nested, nestedLoc);
               Value result = body(scalar, arguments);
               linalg::YieldOp::create(nested, nestedLoc, result);
             })
      .getResult(0);
}
