//===- SeparateDestinations.cpp - An empty tensor for each use ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

namespace nibble {
#define GEN_PASS_DEF_SEPARATEDESTINATIONS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;

namespace {
struct SeparateDestinations
    : nibble::impl::SeparateDestinationsBase<SeparateDestinations> {
  void runOnOperation() override {
    SmallVector<linalg::FillOp> fills;
    getOperation()->walk([&](linalg::FillOp op) {
      if (op.hasPureTensorSemantics())
        fills.push_back(op);
    });
    for (linalg::FillOp op : fills)
      separate(op);
    SmallVector<tensor::EmptyOp> empties;
    getOperation()->walk([&](tensor::EmptyOp op) { empties.push_back(op); });
    for (tensor::EmptyOp op : empties) {
      for (OpOperand &use : llvm::make_early_inc_range(op->getUses())) {
        OpBuilder builder(use.getOwner());
        use.set(builder.clone(*op)->getResult(0));
        ++numCopies;
      }
      op->erase();
    }
  }

private:
  /// Each op that adds to a filled tensor gets a fill of its own.
  void separate(linalg::FillOp op) {
    for (OpOperand &use : llvm::make_early_inc_range(op->getUses())) {
      auto user = dyn_cast<linalg::LinalgOp>(use.getOwner());
      if (!user || !user.isDpsInit(&use))
        continue;
      OpBuilder builder(user);
      use.set(builder.clone(*op)->getResult(0));
      ++numCopies;
    }
    if (op->use_empty())
      op->erase();
  }
};
} // namespace
