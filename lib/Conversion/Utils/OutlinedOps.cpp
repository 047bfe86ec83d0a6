//===- OutlinedOps.cpp - Ops on buffers as functions of their own ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/OutlinedOps.h"

#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace nibble;

linalg::GenericOp nibble::generalize(RewriterBase &rewriter,
                                     linalg::LinalgOp op) {
  if (auto generic = dyn_cast<linalg::GenericOp>(op.getOperation()))
    return generic;
  FailureOr<linalg::GenericOp> general =
      linalg::generalizeNamedOp(rewriter, op);
  return succeeded(general) ? *general : linalg::GenericOp();
}

OutsideValues nibble::collectOutsideValues(Operation *op, bool repeatsGlobals) {
  SetVector<Value> values(op->operand_begin(), op->operand_end());
  getUsedValuesDefinedAbove(op->getRegions(), values);
  OutsideValues outside;
  for (Value value : values) {
    Operation *definition = value.getDefiningOp();
    bool isConstant =
        definition &&
        (definition->hasTrait<OpTrait::ConstantLike>() ||
         (repeatsGlobals && isa<memref::GetGlobalOp>(definition)));
    (isConstant ? outside.constants : outside.arguments).push_back(value);
  }
  return outside;
}

func::FuncOp nibble::createOutlinedFunction(Location loc, StringRef name,
                                            TypeRange arguments) {
  OpBuilder builder(loc.getContext());
  auto function = func::FuncOp::create(
      loc, name, builder.getFunctionType(arguments, TypeRange()));
  function.setPrivate();
  function->setAttr("passthrough", builder.getStrArrayAttr({"noinline"}));
  builder.setInsertionPointToStart(function.addEntryBlock());
  func::ReturnOp::create(builder, loc);
  return function;
}

OutlinedFunctions::Outlined
OutlinedFunctions::outline(Operation *op, const OutsideValues &outside,
                           StringRef name) {
  func::FuncOp function = createOutlinedFunction(
      op->getLoc(), name, ValueRange(outside.arguments).getTypes());
  OpBuilder builder(op->getContext());
  builder.setInsertionPointToStart(&function.front());
  IRMapping mapping;
  mapping.map(outside.arguments, function.getArguments());
  for (Value constant : outside.constants)
    mapping.map(constant,
                builder.clone(*constant.getDefiningOp())->getResult(0));
  Operation *copy = builder.clone(*op, mapping);
  std::string text;
  llvm::raw_string_ostream os(text);
  function->print(os, OpPrintingFlags().useLocalScope());
  auto [it, isNew] = known.try_emplace(text, function);
  if (isNew)
    return {function, copy};
  function->erase();
  return {it->second, nullptr};
}

SmallVector<Value> nibble::copyBody(OpBuilder &builder, linalg::GenericOp op,
                                    IRMapping &mapping,
                                    ArrayRef<Value> positions) {
  Block &body = op.getRegion().front();
  for (Operation &inside : body.without_terminator()) {
    if (auto index = dyn_cast<linalg::IndexOp>(inside))
      mapping.map(index.getResult(), positions[index.getDim()]);
    else
      builder.clone(inside, mapping);
  }
  SmallVector<Value> results;
  for (Value value : body.getTerminator()->getOperands())
    results.push_back(mapping.lookupOrDefault(value));
  return results;
}
