//===- RelaxMath.cpp - Functions as polynomials, sums in any order --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace nibble {
#define GEN_PASS_DEF_RELAXMATH
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;

/// Upstream's sine and cosine lose all digits of large angles; these do not.
static bool isAccurate(StringRef name) {
  return llvm::is_contained(
      {math::ExpOp::getOperationName(), math::ExpM1Op::getOperationName(),
       math::LogOp::getOperationName(), math::Log1pOp::getOperationName(),
       math::TanhOp::getOperationName(), math::ErfOp::getOperationName()},
      name);
}

/// Lets what is added to or multiplied into an output be taken in any order.
static void relaxReduction(linalg::GenericOp op) {
  if (op.getNumReductionLoops() == 0)
    return;
  Block &body = op.getRegion().front();
  auto flags = arith::FastMathFlags::reassoc | arith::FastMathFlags::contract;
  for (Value output : body.getArguments().take_back(op.getNumDpsInits()))
    for (Operation *user : output.getUsers())
      if (auto math = dyn_cast<arith::ArithFastMathInterface>(user);
          math && isa<arith::AddFOp, arith::MulFOp>(user))
        user->setAttr(math.getFastMathAttrName(),
                      arith::FastMathFlagsAttr::get(op.getContext(), flags));
}

namespace {
struct RelaxMath : nibble::impl::RelaxMathBase<RelaxMath> {
  void runOnOperation() override {
    getOperation()->walk(relaxReduction);
    RewritePatternSet patterns(&getContext());
    populateMathPolynomialApproximationPatterns(patterns, isAccurate);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
