//===- FuseElementwise.cpp - Chains of elementwise ops as one loop --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Convolution.h"

#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace nibble {
#define GEN_PASS_DEF_FUSEELEMENTWISE
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

static bool isContraction(Operation *op) {
  auto generic = dyn_cast<linalg::GenericOp>(op);
  return generic && matchContraction(generic);
}

static bool hasKernel(Operation *op) {
  auto generic = dyn_cast<linalg::GenericOp>(op);
  return generic && (matchContraction(generic) || matchConvolution(generic));
}

/// True where fusing would compute a function for the same number many times:
/// the reader has loops that the number does not depend on.
static bool repeatsWork(OpOperand *fused, Operation *producer) {
  auto reader = dyn_cast<linalg::LinalgOp>(fused->getOwner());
  if (!reader || reader.getMatchingIndexingMap(fused).getNumResults() >=
                     reader.getNumLoops())
    return false;
  return producer
      ->walk([](Operation *op) {
        bool isDear = isa<arith::DivFOp>(op) ||
                      isa_and_present<math::MathDialect>(op->getDialect());
        return isDear ? WalkResult::interrupt() : WalkResult::advance();
      })
      .wasInterrupted();
}

namespace {
/// contraction(transpose(x)) reads x.
struct FoldTranspose : OpRewritePattern<linalg::GenericOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(linalg::GenericOp op,
                                PatternRewriter &rewriter) const override {
    if (!op.hasPureTensorSemantics() || !isContraction(op))
      return failure();
    for (OpOperand *operand : op.getDpsInputOperands()) {
      auto transpose = operand->get().getDefiningOp<linalg::TransposeOp>();
      if (!transpose)
        continue;
      AffineMap map = op.getMatchingIndexingMap(operand);
      SmallVector<AffineExpr> results(map.getNumResults());
      for (auto [position, source] :
           llvm::enumerate(transpose.getPermutation()))
        results[source] = map.getResult(position);
      SmallVector<AffineMap> maps = op.getIndexingMapsArray();
      maps[operand->getOperandNumber()] =
          AffineMap::get(map.getNumDims(), 0, results, map.getContext());
      rewriter.modifyOpInPlace(op, [&] {
        operand->set(transpose.getInput());
        op.setIndexingMapsAttr(rewriter.getAffineMapArrayAttr(maps));
      });
      return success();
    }
    return failure();
  }
};

struct FuseElementwise : nibble::impl::FuseElementwiseBase<FuseElementwise> {
  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    patterns.add<FoldTranspose>(&getContext());
    linalg::populateElementwiseOpsFusionPatterns(
        patterns, [](OpOperand *fused) {
          Operation *producer = fused->get().getDefiningOp();
          return producer && producer->hasOneUse() &&
                 !hasKernel(fused->getOwner()) && !repeatsWork(fused, producer);
        });
    linalg::GenericOp::getCanonicalizationPatterns(patterns, &getContext());
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
