//===- CodeBuilder.cpp - Words that all kernels are written in ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/CodeBuilder.h"

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Integers
//===----------------------------------------------------------------------===//

static constexpr auto kNoWrap = arith::IntegerOverflowFlags::nsw;

Value CodeBuilder::constantLike(Value other, int64_t value) {
  return arith::ConstantOp::create(
      builder, loc, builder.getIntegerAttr(other.getType(), value));
}

Value CodeBuilder::add(Value a, Value b) {
  return arith::AddIOp::create(builder, loc, a, b, kNoWrap);
}

Value CodeBuilder::sub(Value a, Value b) {
  return arith::SubIOp::create(builder, loc, a, b, kNoWrap);
}

Value CodeBuilder::mul(Value a, Value b) {
  return arith::MulIOp::create(builder, loc, a, b, kNoWrap);
}

Value CodeBuilder::divide(Value a, Value b) {
  return arith::DivUIOp::create(builder, loc, a, b);
}

Value CodeBuilder::min(Value a, Value b) {
  return arith::MinSIOp::create(builder, loc, a, b);
}

Value CodeBuilder::max(Value a, Value b) {
  return arith::MaxSIOp::create(builder, loc, a, b);
}

Value CodeBuilder::less(Value a, Value b) {
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::slt, a, b);
}

Value CodeBuilder::equal(Value a, Value b) {
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::eq, a, b);
}

//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

Values CodeBuilder::loop(Value lower, Value upper, Value step,
                         ValueRange initial, LoopBody body) {
  auto op = scf::ForOp::create(
      builder, loc, lower, upper, step, initial,
      [&](OpBuilder &, Location, Value position, ValueRange values) {
        scf::YieldOp::create(builder, loc, body(position, values));
      });
  return Values(op.getResults());
}

void CodeBuilder::loop(Value lower, Value upper, Value step,
                       llvm::function_ref<void(Value)> body) {
  scf::ForOp::create(builder, loc, lower, upper, step, ValueRange(),
                     [&](OpBuilder &, Location, Value position, ValueRange) {
                       body(position);
                       scf::YieldOp::create(builder, loc);
                     });
}

void CodeBuilder::ifThen(Value condition, llvm::function_ref<void()> then,
                         llvm::function_ref<void()> otherwise) {
  auto branch = [&](llvm::function_ref<void()> body) {
    return [&, body](OpBuilder &, Location) {
      body();
      scf::YieldOp::create(builder, loc);
    };
  };
  if (otherwise)
    scf::IfOp::create(builder, loc, condition, branch(then), branch(otherwise));
  else
    scf::IfOp::create(builder, loc, condition, branch(then));
}
