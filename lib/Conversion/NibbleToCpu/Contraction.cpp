//===- Contraction.cpp - Sums of products of two tensors ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "llvm/ADT/SmallBitVector.h"

using namespace mlir;
using namespace nibble;

bool nibble::addsProducts(linalg::GenericOp op) {
  for (Value operand : op->getOperands())
    if (!cast<ShapedType>(operand.getType()).getElementType().isF32())
      return false;
  Block &body = op.getRegion().front();
  auto yield = cast<linalg::YieldOp>(body.getTerminator());
  auto sum = yield.getValues()[0].getDefiningOp<arith::AddFOp>();
  if (!sum || body.getOperations().size() != 3)
    return false;
  Value accumulator = body.getArgument(2);
  Value other = sum.getLhs() == accumulator   ? sum.getRhs()
                : sum.getRhs() == accumulator ? sum.getLhs()
                                              : Value();
  auto product = other ? other.getDefiningOp<arith::MulFOp>() : arith::MulFOp();
  if (!product)
    return false;
  Value a = body.getArgument(0), b = body.getArgument(1);
  return (product.getLhs() == a && product.getRhs() == b) ||
         (product.getLhs() == b && product.getRhs() == a);
}

int64_t nibble::getDimension(AffineMap map, unsigned loop) {
  for (auto [dimension, result] : llvm::enumerate(map.getResults()))
    if (result == getAffineDimExpr(loop, map.getContext()))
      return static_cast<int64_t>(dimension);
  return -1;
}

/// Each dimension runs along a loop of its own, or is 1 and read at 0.
static bool isSimple(AffineMap map) {
  llvm::SmallBitVector seen(map.getNumDims());
  for (AffineExpr result : map.getResults()) {
    if (auto constant = dyn_cast<AffineConstantExpr>(result)) {
      if (constant.getValue() != 0)
        return false;
      continue;
    }
    auto loop = dyn_cast<AffineDimExpr>(result);
    if (!loop || seen.test(loop.getPosition()))
      return false;
    seen.set(loop.getPosition());
  }
  return true;
}

std::optional<Contraction> nibble::matchContraction(linalg::GenericOp op) {
  if (op.getNumDpsInputs() != 2 || op.getNumDpsInits() != 1)
    return std::nullopt;
  SmallVector<AffineMap> maps = op.getIndexingMapsArray();
  if (!llvm::all_of(maps, isSimple) || !addsProducts(op))
    return std::nullopt;

  Contraction result;
  auto classify = [&](unsigned loop) {
    bool inLhs = getDimension(maps[0], loop) >= 0;
    bool inRhs = getDimension(maps[1], loop) >= 0;
    bool inOut = getDimension(maps[2], loop) >= 0;
    if (inLhs && inRhs)
      (inOut ? result.batch : result.k).push_back(loop);
    else if (inLhs && inOut)
      result.m.push_back(loop);
    else if (inRhs && inOut)
      result.n.push_back(loop);
    else
      return false;
    return true;
  };
  for (AffineExpr dimension : maps[2].getResults()) {
    auto loop = dyn_cast<AffineDimExpr>(dimension);
    if (!loop || !classify(loop.getPosition()))
      return std::nullopt;
  }
  for (AffineExpr dimension : maps[0].getResults()) {
    auto loop = dyn_cast<AffineDimExpr>(dimension);
    if (loop && getDimension(maps[2], loop.getPosition()) < 0 &&
        !classify(loop.getPosition()))
      return std::nullopt;
  }
  size_t loops =
      result.m.size() + result.n.size() + result.k.size() + result.batch.size();
  if (loops != op.getNumLoops())
    return std::nullopt;
  return result;
}
