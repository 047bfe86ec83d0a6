//===- KernelBuilder.cpp - The words that kernels are written in ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "KernelBuilder.h"

using namespace mlir;
using namespace nibble;

MemRefType KernelBuilder::matrix(Type element, bool contiguousRows) {
  int64_t dynamic = ShapedType::kDynamic;
  auto layout =
      StridedLayoutAttr::get(builder.getContext(), dynamic,
                             {dynamic, contiguousRows ? int64_t(1) : dynamic});
  return MemRefType::get({dynamic, dynamic}, element, layout);
}

//===----------------------------------------------------------------------===//
// Addresses
//===----------------------------------------------------------------------===//

static constexpr auto kNoWrap = arith::IntegerOverflowFlags::nsw;

Value KernelBuilder::index(int64_t value) {
  return arith::ConstantIndexOp::create(builder, loc, value);
}

Value KernelBuilder::add(Value a, Value b) {
  return arith::AddIOp::create(builder, loc, a, b, kNoWrap);
}

Value KernelBuilder::sub(Value a, Value b) {
  return arith::SubIOp::create(builder, loc, a, b, kNoWrap);
}

Value KernelBuilder::mul(Value a, Value b) {
  return arith::MulIOp::create(builder, loc, a, b, kNoWrap);
}

Value KernelBuilder::divide(Value a, Value b) {
  return arith::DivUIOp::create(builder, loc, a, b);
}

Value KernelBuilder::divideUp(Value a, int64_t b) {
  return divide(add(a, b - 1), index(b));
}

Value KernelBuilder::min(Value a, Value b) {
  return arith::MinSIOp::create(builder, loc, a, b);
}

Value KernelBuilder::max(Value a, Value b) {
  return arith::MaxSIOp::create(builder, loc, a, b);
}

Value KernelBuilder::less(Value a, Value b) {
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::slt, a, b);
}

Value KernelBuilder::lessEqual(Value a, Value b) {
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::sle, a, b);
}

Value KernelBuilder::equal(Value a, int64_t b) {
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::eq, a,
                               index(b));
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

Value KernelBuilder::scratch(int64_t size, Type element) {
  constexpr int64_t cacheLine = 64;
  return memref::CastOp::create(
      builder, loc, buffer(element),
      memref::AllocaOp::create(builder, loc, MemRefType::get({size}, element),
                               builder.getI64IntegerAttr(cacheLine)));
}

Value KernelBuilder::load(Value buffer, ValueRange indices) {
  return memref::LoadOp::create(builder, loc, buffer, indices);
}

void KernelBuilder::store(Value value, Value buffer, ValueRange indices) {
  memref::StoreOp::create(builder, loc, value, buffer, indices);
}

Value KernelBuilder::loadVector(Value buffer, ValueRange indices,
                                VectorType type) {
  return vector::LoadOp::create(builder, loc, type, buffer, indices);
}

void KernelBuilder::storeVector(Value value, Value buffer, ValueRange indices) {
  vector::StoreOp::create(builder, loc, value, buffer, indices);
}

Value KernelBuilder::loadMasked(Value buffer, ValueRange indices,
                                VectorType type, Value mask) {
  Value zero =
      arith::ConstantOp::create(builder, loc, builder.getZeroAttr(type));
  return vector::MaskedLoadOp::create(builder, loc, type, buffer, indices, mask,
                                      zero);
}

void KernelBuilder::storeMasked(Value value, Value buffer, ValueRange indices,
                                Value mask) {
  vector::MaskedStoreOp::create(builder, loc, buffer, indices, mask, value);
}

void KernelBuilder::prefetch(Value buffer, Value position, unsigned locality) {
  memref::PrefetchOp::create(builder, loc, buffer, position,
                             /*isWrite=*/false, locality,
                             /*isDataCache=*/true);
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

Value KernelBuilder::splat(VectorType type, int64_t value) {
  auto element = builder.getIntegerAttr(type.getElementType(), value);
  return arith::ConstantOp::create(builder, loc,
                                   DenseElementsAttr::get(type, element));
}

Value KernelBuilder::splat(VectorType type, double value) {
  auto element = builder.getFloatAttr(type.getElementType(), value);
  return arith::ConstantOp::create(builder, loc,
                                   DenseElementsAttr::get(type, element));
}

Value KernelBuilder::broadcast(Value scalar, VectorType type) {
  return vector::BroadcastOp::create(builder, loc, type, scalar);
}

Value KernelBuilder::bitcast(Value value, VectorType type) {
  return vector::BitCastOp::create(builder, loc, type, value);
}

Value KernelBuilder::fma(Value a, Value b, Value c) {
  // vector.fma may come apart into a product and a sum.
  return math::FmaOp::create(builder, loc, a, b, c);
}

Value KernelBuilder::mask(Value count, int64_t lanes) {
  return vector::CreateMaskOp::create(
      builder, loc, vector(lanes, builder.getI1Type()), ValueRange{count});
}

//===----------------------------------------------------------------------===//
// Control
//===----------------------------------------------------------------------===//

Values KernelBuilder::loop(Value lower, Value upper, int64_t step,
                           ValueRange initial, LoopBody body) {
  auto op = scf::ForOp::create(
      builder, loc, lower, upper, index(step), initial,
      [&](OpBuilder &, Location, Value position, ValueRange values) {
        scf::YieldOp::create(builder, loc, body(position, values));
      });
  return Values(op.getResults());
}

void KernelBuilder::loop(Value lower, Value upper, Value step,
                         llvm::function_ref<void(Value)> body) {
  scf::ForOp::create(builder, loc, lower, upper, step, ValueRange(),
                     [&](OpBuilder &, Location, Value position, ValueRange) {
                       body(position);
                       scf::YieldOp::create(builder, loc);
                     });
}

void KernelBuilder::ifThen(Value condition, llvm::function_ref<void()> then,
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

func::FuncOp nibble::getOrCreateFunction(
    ModuleOp module, StringRef name, ArrayRef<Type> arguments,
    llvm::function_ref<void(KernelBuilder &, ValueRange)> body) {
  if (auto function = module.lookupSymbol<func::FuncOp>(name))
    return function;
  OpBuilder builder(module.getContext());
  builder.setInsertionPointToEnd(module.getBody());
  Location loc = module.getLoc();
  auto function = func::FuncOp::create(
      builder, loc, name, builder.getFunctionType(arguments, TypeRange()));
  function.setPrivate();
  // Kernels are called, never copied into their callers.
  function->setAttr("passthrough", builder.getStrArrayAttr({"noinline"}));
  builder.setInsertionPointToStart(function.addEntryBlock());
  KernelBuilder kernel(builder, loc);
  body(kernel, function.getArguments());
  func::ReturnOp::create(builder, loc);
  return function;
}
