//===- SeparateDestinations.cpp - An empty tensor for each use ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

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
};
} // namespace
