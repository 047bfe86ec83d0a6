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
#include "mlir/Dialect/Tensor/IR/Tensor.h"
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

/// True where an op computes nothing that costs more than reading a number.
static bool isCheap(Operation *op) {
  return !op->walk([](Operation *inside) {
              bool isDear =
                  isa<arith::DivFOp, tensor::ExtractOp>(inside) ||
                  isa_and_present<math::MathDialect>(inside->getDialect());
              return isDear ? WalkResult::interrupt() : WalkResult::advance();
            }).wasInterrupted();
}

/// True where fusing would compute a function for the same number many times:
/// the reader has loops that the number does not depend on.
static bool repeatsWork(OpOperand *fused, Operation *producer) {
  auto reader = dyn_cast<linalg::LinalgOp>(fused->getOwner());
  if (!reader || reader.getMatchingIndexingMap(fused).getNumResults() >=
                     reader.getNumLoops())
    return false;
  return !isCheap(producer);
}

/// True where it costs no more to compute an op's result again for each reader
/// than to store and read it: one tensor of its size is read in its place.
static bool isBetterRepeated(linalg::GenericOp op) {
  // Each reader doubles what is in front of it.
  constexpr int64_t fewReaders = 4;
  if (op.getNumResults() != 1 || op->hasOneUse() || op->use_empty() ||
      op.getNumReductionLoops() > 0 || hasKernel(op) || !isCheap(op) ||
      llvm::range_size(op->getUses()) > fewReaders)
    return false;
  auto isWhole = [&](OpOperand *input) {
    return llvm::count_if(op.getMatchingIndexingMap(input).getResults(),
                          llvm::IsaPred<AffineDimExpr>) ==
           static_cast<int64_t>(op.getNumLoops());
  };
  return llvm::count_if(op.getDpsInputOperands(), isWhole) == 1 &&
         llvm::all_of(op->getUsers(), [](Operation *user) {
           return isa<linalg::GenericOp>(user) && !hasKernel(user);
         });
}

/// A copy of `op` for each of its readers but one.
static void repeatForReaders(linalg::GenericOp op) {
  SmallVector<OpOperand *> uses;
  for (OpOperand &use : llvm::drop_begin(op->getUses()))
    uses.push_back(&use);
  for (OpOperand *use : uses) {
    OpBuilder builder(op);
    use->set(builder.clone(*op)->getResult(0));
  }
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
    // Readers come first, which may be repeated themselves.
    SmallVector<linalg::GenericOp> ops;
    getOperation().walk([&](linalg::GenericOp op) { ops.push_back(op); });
    for (linalg::GenericOp op : llvm::reverse(ops))
      if (op.hasPureTensorSemantics() && isBetterRepeated(op))
        repeatForReaders(op);
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
