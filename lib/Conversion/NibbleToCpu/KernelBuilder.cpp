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

Value KernelBuilder::index(int64_t value) {
  return arith::ConstantIndexOp::create(builder, loc, value);
}

Value KernelBuilder::lessEqual(Value a, Value b) {
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::sle, a, b);
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
  return vector::MaskedLoadOp::create(builder, loc, type, buffer, indices, mask,
                                      zero(type));
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

Value KernelBuilder::zero(Type type) {
  return arith::ConstantOp::create(builder, loc,
                                   cast<TypedAttr>(builder.getZeroAttr(type)));
}

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
// Functions
//===----------------------------------------------------------------------===//

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
