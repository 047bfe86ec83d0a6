//===- LowerMicroOps.cpp - Steps of kernels as a target does them ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Target/TargetDescription.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"

namespace nibble {
#define GEN_PASS_DEF_LOWERMICROOPS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

namespace {
/// Emits the products of one nibble.dot4.
class DotBuilder {
public:
  DotBuilder(OpBuilder &builder, Dot4Op op)
      : builder(builder), loc(op.getLoc()), op(op),
        sumType(cast<VectorType>(op.getSums().getType())),
        byteType(cast<VectorType>(op.getWeights().getType())) {}

  /// Null where the target's instruction does not fit the vectors.
  Value build(DotStep step);

private:
  Value spellOut();
  /// Pairs of bytes whose products fit 16 bits.
  Value addPairs(StringRef bytesIntrinsic, StringRef pairsIntrinsic);
  /// Even and odd bytes apart, for weights of 8 bits.
  Value addWidened(StringRef pairsIntrinsic);
  Value dotSigned();

  VectorType pairType() {
    return VectorType::get({2 * sumType.getDimSize(0)}, builder.getI16Type());
  }
  Value call(StringRef intrinsic, Type type, ValueRange arguments) {
    return LLVM::CallIntrinsicOp::create(
               builder, loc, type, builder.getStringAttr(intrinsic), arguments)
        .getResult(0);
  }
  Value toType(Value value, VectorType type) {
    return vector::BitCastOp::create(builder, loc, type, value);
  }
  Value splat(VectorType type, int64_t value) {
    return arith::ConstantOp::create(
        builder, loc,
        DenseElementsAttr::get(
            type, builder.getIntegerAttr(type.getElementType(), value)));
  }
  Value add(Value a, Value b) {
    return arith::AddIOp::create(builder, loc, a, b);
  }

  OpBuilder &builder;
  Location loc;
  Dot4Op op;
  VectorType sumType, byteType;
};
} // namespace

Value DotBuilder::spellOut() {
  Value weights = toType(op.getWeights(), sumType);
  Value activations = toType(op.getActivations(), sumType);
  Value sum = op.getSums();
  for (int64_t j = 0; j < 4; ++j) {
    Value w =
        arith::ShRUIOp::create(builder, loc, weights, splat(sumType, 8 * j));
    w = arith::AndIOp::create(builder, loc, w, splat(sumType, 255));
    Value a = arith::ShLIOp::create(builder, loc, activations,
                                    splat(sumType, 24 - 8 * j));
    a = arith::ShRSIOp::create(builder, loc, a, splat(sumType, 24));
    sum = add(sum, arith::MulIOp::create(builder, loc, w, a));
  }
  return sum;
}

Value DotBuilder::addPairs(StringRef bytesIntrinsic, StringRef pairsIntrinsic) {
  Value pairs =
      call(bytesIntrinsic, pairType(), {op.getWeights(), op.getActivations()});
  return add(op.getSums(),
             call(pairsIntrinsic, sumType, {pairs, splat(pairType(), 1)}));
}

Value DotBuilder::addWidened(StringRef pairsIntrinsic) {
  Value weights = toType(op.getWeights(), pairType());
  Value activations = toType(op.getActivations(), pairType());
  Value eight = splat(pairType(), 8);
  Value evenWeights =
      arith::AndIOp::create(builder, loc, weights, splat(pairType(), 255));
  Value oddWeights = arith::ShRUIOp::create(builder, loc, weights, eight);
  Value even = arith::ShLIOp::create(builder, loc, activations, eight);
  even = arith::ShRSIOp::create(builder, loc, even, eight);
  Value odd = arith::ShRSIOp::create(builder, loc, activations, eight);
  Value sum =
      add(op.getSums(), call(pairsIntrinsic, sumType, {evenWeights, even}));
  return add(sum, call(pairsIntrinsic, sumType, {oddWeights, odd}));
}

/// With instructions for signed bytes: w = (w - 128) + 2 · 64.
Value DotBuilder::dotSigned() {
  auto dot = [&](Value sums, Value weights) {
    return call("llvm.aarch64.neon.sdot.v4i32.v16i8", sumType,
                {sums, weights, op.getActivations()});
  };
  if (op.getMaxWeight() <= 127)
    return dot(op.getSums(), op.getWeights());
  Value lowered = arith::XOrIOp::create(builder, loc, op.getWeights(),
                                        splat(byteType, -128));
  Value half = splat(byteType, 64);
  return dot(dot(dot(op.getSums(), lowered), half), half);
}

Value DotBuilder::build(DotStep step) {
  int64_t lanes = sumType.getDimSize(0);
  // Two products of the largest factors have to fit 16 signed bits.
  bool pairsFit = op.getMaxWeight() * 128 * 2 < 32768;
  switch (step) {
  case DotStep::None:
    return spellOut();
  case DotStep::PairsOf16Bits:
    if (lanes == 8)
      return pairsFit ? addPairs("llvm.x86.avx2.pmadd.ub.sw",
                                 "llvm.x86.avx2.pmadd.wd")
                      : addWidened("llvm.x86.avx2.pmadd.wd");
    if (lanes == 16)
      return pairsFit ? addPairs("llvm.x86.avx512.pmaddubs.w.512",
                                 "llvm.x86.avx512.pmaddw.d.512")
                      : addWidened("llvm.x86.avx512.pmaddw.d.512");
    return {};
  case DotStep::AvxVnni:
    return lanes == 8
               ? call("llvm.x86.avx512.vpdpbusd.256", sumType, op.getOperands())
               : Value();
  case DotStep::Avx512Vnni:
    return lanes == 16
               ? call("llvm.x86.avx512.vpdpbusd.512", sumType, op.getOperands())
               : Value();
  case DotStep::ArmDot:
    return lanes == 4 ? dotSigned() : Value();
  case DotStep::ArmMatrix:
    return lanes == 4 ? call("llvm.aarch64.neon.usdot.v4i32.v16i8", sumType,
                             op.getOperands())
                      : Value();
  }
  return {};
}

/// arith.maximumf would be spelled out in comparisons, in which LLVM sees no
/// reduction to vectorize.
static void lowerExtremum(Operation *op) {
  Type type = getElementTypeOrSelf(op->getResult(0));
  if (!type.isF32() && !type.isF64())
    return;
  OpBuilder builder(op);
  Value a = op->getOperand(0), b = op->getOperand(1), result;
  if (isa<arith::MaximumFOp>(op))
    result = LLVM::MaximumOp::create(builder, op->getLoc(), a, b);
  else
    result = LLVM::MinimumOp::create(builder, op->getLoc(), a, b);
  op->getResult(0).replaceAllUsesWith(result);
  op->erase();
}

namespace {
struct LowerMicroOps : nibble::impl::LowerMicroOpsBase<LowerMicroOps> {
  using LowerMicroOpsBase::LowerMicroOpsBase;

  void runOnOperation() override {
    const TargetRow *row = findTarget(target);
    if (!row) {
      getOperation()->emitError("no target '")
          << target << "'; there are " << listTargetNames();
      return signalPassFailure();
    }
    // Without the instruction, llvm.fma is a call for each lane.
    bool hasFma = row->vectorBits > 128 || row->numVectorRegisters == 32;
    getOperation()->walk([&](Operation *op) {
      OpBuilder builder(op);
      if (auto dot = dyn_cast<Dot4Op>(op)) {
        Value sum = DotBuilder(builder, dot).build(row->dotStep);
        if (!sum)
          sum = DotBuilder(builder, dot).build(DotStep::None);
        dot.replaceAllUsesWith(sum);
        dot.erase();
        ++numDots;
      } else if (auto fma = dyn_cast<math::FmaOp>(op); fma && !hasFma) {
        Value product = arith::MulFOp::create(builder, fma.getLoc(), fma.getA(),
                                              fma.getB());
        fma.replaceAllUsesWith(
            arith::AddFOp::create(builder, fma.getLoc(), product, fma.getC())
                .getResult());
        fma.erase();
      } else if (isa<arith::MaximumFOp, arith::MinimumFOp>(op)) {
        lowerExtremum(op);
      }
    });
  }
};
} // namespace
