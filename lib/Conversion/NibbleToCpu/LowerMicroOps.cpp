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

//===----------------------------------------------------------------------===//
// Tables
//===----------------------------------------------------------------------===//

namespace {
/// Emits one nibble.lookup.
class LookupBuilder {
public:
  LookupBuilder(OpBuilder &builder, LookupOp op)
      : builder(builder), loc(op.getLoc()), table(op.getTable()),
        indices(op.getIndices()), type(cast<VectorType>(op.getType())) {}

  Value build(const TargetRow &row);

private:
  /// A comparison for each entry.
  Value spellOut();
  /// Shuffles of bytes in each part of 16, which all get the table.
  Value shuffleBytes(StringRef intrinsic);
  Value shuffleFloats();

  Value call(StringRef intrinsic, ValueRange arguments) {
    return LLVM::CallIntrinsicOp::create(
               builder, loc, type, builder.getStringAttr(intrinsic), arguments)
        .getResult(0);
  }
  /// The table's entries from `first` on, again from there after `period`.
  Value spread(int64_t first, int64_t period) {
    SmallVector<int64_t> places;
    for (int64_t i = 0; i < type.getDimSize(0); ++i)
      places.push_back(first + i % period);
    return vector::ShuffleOp::create(builder, loc, table, table, places);
  }
  Value splatIndex(int64_t value) {
    auto indexType = cast<VectorType>(indices.getType());
    return arith::ConstantOp::create(
        builder, loc,
        DenseElementsAttr::get(
            indexType,
            builder.getIntegerAttr(indexType.getElementType(), value)));
  }

  OpBuilder &builder;
  Location loc;
  Value table, indices;
  VectorType type;
};
} // namespace

Value LookupBuilder::spellOut() {
  auto getEntry = [&](int64_t i) -> Value {
    Value entry = vector::ExtractOp::create(builder, loc, table, i);
    return vector::BroadcastOp::create(builder, loc, type, entry);
  };
  int64_t last = cast<VectorType>(table.getType()).getDimSize(0) - 1;
  Value result = getEntry(last);
  for (int64_t i = 0; i < last; ++i) {
    Value isEntry = arith::CmpIOp::create(
        builder, loc, arith::CmpIPredicate::eq, indices, splatIndex(i));
    result =
        arith::SelectOp::create(builder, loc, isEntry, getEntry(i), result);
  }
  return result;
}

Value LookupBuilder::shuffleBytes(StringRef intrinsic) {
  return call(intrinsic, {spread(0, 16), indices});
}

Value LookupBuilder::shuffleFloats() {
  if (type.getDimSize(0) == 16)
    return call("llvm.x86.avx512.permvar.sf.512", {table, indices});
  // Only the low three bits of an index count.
  Value low = call("llvm.x86.avx2.permps", {spread(0, 8), indices});
  Value high = call("llvm.x86.avx2.permps", {spread(8, 8), indices});
  Value isHigh = arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::sgt,
                                       indices, splatIndex(7));
  return arith::SelectOp::create(builder, loc, isHigh, high, low);
}

Value LookupBuilder::build(const TargetRow &row) {
  int64_t lanes = type.getDimSize(0);
  bool isArm = row.triple.starts_with("aarch64");
  int64_t width = lanes * type.getElementTypeBitWidth();
  if (type.getElementType().isF32())
    return row.vectorBits >= 256 && width == row.vectorBits ? shuffleFloats()
                                                            : spellOut();
  if (isArm && lanes == 16)
    return call("llvm.aarch64.neon.tbl1.v16i8", {table, indices});
  if (row.vectorBits == 512 && lanes == 64)
    return shuffleBytes("llvm.x86.avx512.pshuf.b.512");
  if (row.vectorBits >= 256 && lanes == 32)
    return shuffleBytes("llvm.x86.avx2.pshuf.b");
  return spellOut();
}

//===----------------------------------------------------------------------===//
// Half precision
//===----------------------------------------------------------------------===//

namespace {
/// Converts between f16 and f32 by integers: without an instruction for it,
/// LLVM calls functions that a C library need not have.
class HalfBuilder {
public:
  HalfBuilder(OpBuilder &builder, Location loc, Type shape)
      : builder(builder), loc(loc), shape(shape) {}

  Value widen(Value half);
  /// Half to even.
  Value narrow(Value number);

private:
  Type like(Type element) {
    auto vector = dyn_cast<VectorType>(shape);
    return vector ? vector.clone(element) : element;
  }
  Value constant(uint32_t bits) {
    Type type = like(builder.getI32Type());
    auto value = builder.getI32IntegerAttr(static_cast<int32_t>(bits));
    if (auto vector = dyn_cast<VectorType>(type))
      return arith::ConstantOp::create(builder, loc,
                                       DenseElementsAttr::get(vector, value));
    return arith::ConstantOp::create(builder, loc, value);
  }
  template <typename Op> Value apply(Value a, Value b) {
    return Op::create(builder, loc, a, b);
  }
  Value asFloat(Value bits) {
    return arith::BitcastOp::create(builder, loc, like(builder.getF32Type()),
                                    bits);
  }
  Value asBits(Value number) {
    return arith::BitcastOp::create(builder, loc, like(builder.getI32Type()),
                                    number);
  }
  Value select(arith::CmpIPredicate predicate, Value a, Value b, Value yes,
               Value no) {
    Value condition = arith::CmpIOp::create(builder, loc, predicate, a, b);
    return arith::SelectOp::create(builder, loc, condition, yes, no);
  }

  OpBuilder &builder;
  Location loc;
  Type shape;
};
} // namespace

Value HalfBuilder::widen(Value half) {
  Value bits =
      arith::BitcastOp::create(builder, loc, like(builder.getI16Type()), half);
  bits = arith::ExtUIOp::create(builder, loc, like(builder.getI32Type()), bits);
  Value magnitude = apply<arith::ShLIOp>(
      apply<arith::AndIOp>(bits, constant(0x7fff)), constant(13));
  // The exponents' biases differ by 112; denormals become normal.
  Value scaled = asBits(
      apply<arith::MulFOp>(asFloat(magnitude), asFloat(constant(0x77800000))));
  Value infinite = apply<arith::OrIOp>(magnitude, constant(0x7f800000));
  Value result = select(arith::CmpIPredicate::uge, magnitude,
                        constant(0x7c00 << 13), infinite, scaled);
  Value sign = apply<arith::ShLIOp>(
      apply<arith::AndIOp>(bits, constant(0x8000)), constant(16));
  return asFloat(apply<arith::OrIOp>(result, sign));
}

Value HalfBuilder::narrow(Value number) {
  Value bits = asBits(number);
  Value magnitude = apply<arith::AndIOp>(bits, constant(0x7fffffff));
  // A sum with 0.5 rounds to the last place of f16's denormals.
  Value small = apply<arith::SubIOp>(
      asBits(apply<arith::AddFOp>(asFloat(magnitude),
                                  asFloat(constant(0x3f000000)))),
      constant(0x3f000000));
  Value isOdd = apply<arith::AndIOp>(
      apply<arith::ShRUIOp>(magnitude, constant(13)), constant(1));
  Value rounded = apply<arith::AddIOp>(
      apply<arith::AddIOp>(magnitude, constant(0xc8000fff)), isOdd);
  Value normal = apply<arith::ShRUIOp>(rounded, constant(13));
  Value result = select(arith::CmpIPredicate::ult, magnitude,
                        constant(0x38800000), small, normal);
  Value special =
      select(arith::CmpIPredicate::ugt, magnitude, constant(0x7f800000),
             constant(0x7e00), constant(0x7c00));
  result = select(arith::CmpIPredicate::uge, magnitude, constant(0x47800000),
                  special, result);
  Value sign = apply<arith::AndIOp>(apply<arith::ShRUIOp>(bits, constant(16)),
                                    constant(0x8000));
  result = apply<arith::OrIOp>(result, sign);
  Value half =
      arith::TruncIOp::create(builder, loc, like(builder.getI16Type()), result);
  return arith::BitcastOp::create(builder, loc, like(builder.getF16Type()),
                                  half);
}

/// Spells out a conversion between f16 and f32; null for another one.
static Value spellOutHalf(Operation *op) {
  OpBuilder builder(op);
  auto isOf = [](Value value, bool half) {
    Type type = getElementTypeOrSelf(value);
    return half ? type.isF16() : type.isF32();
  };
  if (op->getNumOperands() != 1)
    return {};
  Value input = op->getOperand(0), output = op->getResult(0);
  HalfBuilder half(builder, op->getLoc(), output.getType());
  if (isa<arith::ExtFOp>(op) && isOf(input, true) && isOf(output, false))
    return half.widen(input);
  auto narrowing = dyn_cast<arith::TruncFOp>(op);
  bool isNearest = narrowing && narrowing.getRoundingmode().value_or(
                                    arith::RoundingMode::to_nearest_even) ==
                                    arith::RoundingMode::to_nearest_even;
  return isNearest && isOf(input, false) && isOf(output, true)
             ? half.narrow(input)
             : Value();
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
    // Conversions of f16 are part of AArch64 and come with AVX2's processors.
    bool hasHalves =
        row->triple.starts_with("aarch64") || row->vectorBits > 128;
    getOperation()->walk([&](Operation *op) {
      OpBuilder builder(op);
      if (auto dot = dyn_cast<Dot4Op>(op)) {
        Value sum = DotBuilder(builder, dot).build(row->dotStep);
        if (!sum)
          sum = DotBuilder(builder, dot).build(DotStep::None);
        dot.replaceAllUsesWith(sum);
        dot.erase();
        ++numDots;
      } else if (auto lookup = dyn_cast<LookupOp>(op)) {
        lookup.replaceAllUsesWith(LookupBuilder(builder, lookup).build(*row));
        lookup.erase();
        ++numLookups;
      } else if (auto fma = dyn_cast<math::FmaOp>(op); fma && !hasFma) {
        Value product = arith::MulFOp::create(builder, fma.getLoc(), fma.getA(),
                                              fma.getB());
        fma.replaceAllUsesWith(
            arith::AddFOp::create(builder, fma.getLoc(), product, fma.getC())
                .getResult());
        fma.erase();
      } else if (isa<arith::MaximumFOp, arith::MinimumFOp>(op)) {
        lowerExtremum(op);
      } else if (!hasHalves && isa<arith::ExtFOp, arith::TruncFOp>(op)) {
        if (Value converted = spellOutHalf(op)) {
          op->getResult(0).replaceAllUsesWith(converted);
          op->erase();
        }
      }
    });
  }
};
} // namespace
