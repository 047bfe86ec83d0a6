//===- DeviceMath.cpp - Functions that GPUs have no code for --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "DeviceMath.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

using namespace mlir;

namespace {
/// Words for what follows, of one type at a time.
class Formula {
public:
  Formula(OpBuilder &builder, Location loc) : builder(builder), loc(loc) {}

  Value number(Value like, double value) {
    return arith::ConstantOp::create(
        builder, loc, builder.getFloatAttr(like.getType(), value));
  }
  Value mul(Value a, Value b) {
    return arith::MulFOp::create(builder, loc, a, b);
  }
  Value mul(Value a, double b) { return mul(a, number(a, b)); }
  Value add(Value a, double b) {
    return arith::AddFOp::create(builder, loc, a, number(a, b));
  }
  Value sub(Value a, Value b) {
    return arith::SubFOp::create(builder, loc, a, b);
  }
  Value fma(Value a, Value b, Value c) {
    return math::FmaOp::create(builder, loc, a, b, c);
  }
  Value fma(Value a, double b, Value c) { return fma(a, number(a, b), c); }
  Value negate(Value a) { return arith::NegFOp::create(builder, loc, a); }
  Value equal(Value a, double b) {
    return arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::OEQ, a,
                                 number(a, b));
  }
  Value select(Value condition, Value a, Value b) {
    return arith::SelectOp::create(builder, loc, condition, a, b);
  }
  /// coefficients[0] + x · (coefficients[1] + x · …)
  Value polynomial(Value x, ArrayRef<double> coefficients) {
    Value sum = number(x, coefficients.back());
    for (double coefficient : llvm::reverse(coefficients.drop_back()))
      sum = fma(sum, x, number(x, coefficient));
    return sum;
  }

private:
  OpBuilder &builder;
  Location loc;
};

/// sin (quarter = 0) and cos (quarter = 1) of f32. The angle is reduced in f64
/// to at most π / 4, exactly enough up to 2³⁰; what is left by the polynomials
/// of Cephes (Moshier, sinf and cosf).
template <typename Op, int quarter> struct ExpandAngle : OpRewritePattern<Op> {
  using OpRewritePattern<Op>::OpRewritePattern;

  LogicalResult matchAndRewrite(Op op,
                                PatternRewriter &rewriter) const override {
    if (!op.getType().isF32())
      return failure();
    Formula formula(rewriter, op.getLoc());
    constexpr double twoOverPi = 0x1.45f306dc9c883p-1;
    constexpr double halfPi = 0x1.921fb54442d18p0, rest = 0x1.1a62633145c07p-54;
    Value angle = arith::ExtFOp::create(rewriter, op.getLoc(),
                                        rewriter.getF64Type(), op.getOperand());
    Value turns = math::RoundEvenOp::create(rewriter, op.getLoc(),
                                            formula.mul(angle, twoOverPi));
    Value reduced =
        formula.fma(turns, -rest, formula.fma(turns, -halfPi, angle));
    Value x = arith::TruncFOp::create(rewriter, op.getLoc(),
                                      rewriter.getF32Type(), reduced);
    Value square = formula.mul(x, x);
    Value sine = formula.fma(
        formula.mul(square, x),
        formula.polynomial(
            square, {-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4}),
        x);
    Value cosine = formula.polynomial(square, {1, -0.5, 4.166664568298827e-2,
                                               -1.388731625493765e-3,
                                               2.443315711809948e-5});
    // Which quarter of a turn, 0 to 3.
    Value shifted = formula.add(turns, quarter);
    Value whole = math::FloorOp::create(rewriter, op.getLoc(),
                                        formula.mul(shifted, 0.25));
    Value which = formula.fma(whole, -4, shifted);
    Value result =
        formula.select(formula.equal(which, 0), sine,
                       formula.select(formula.equal(which, 1), cosine,
                                      formula.select(formula.equal(which, 2),
                                                     formula.negate(sine),
                                                     formula.negate(cosine))));
    rewriter.replaceOp(op, result);
    return success();
  }
};
} // namespace

LogicalResult nibble::expandDeviceMath(ModuleOp module) {
  MLIRContext *context = module.getContext();
  // Powers with simple exponents first: x² is no logarithm.
  RewritePatternSet simple(context);
  populateMathAlgebraicSimplificationPatterns(simple);
  if (failed(applyPatternsGreedily(module, std::move(simple))))
    return failure();
  RewritePatternSet patterns(context);
  patterns.add<ExpandAngle<math::SinOp, 0>, ExpandAngle<math::CosOp, 1>>(
      context);
  math::populateExpansionPatterns(patterns, {"powf", "exp2", "rsqrt"});
  populateMathPolynomialApproximationPatterns(patterns, [](StringRef name) {
    return !llvm::is_contained({math::FmaOp::getOperationName(),
                                math::SinOp::getOperationName(),
                                math::CosOp::getOperationName()},
                               name);
  });
  arith::populateCeilFloorDivExpandOpsPatterns(patterns);
  arith::populateExpandBFloat16Patterns(patterns);
  return applyPatternsGreedily(module, std::move(patterns));
}
