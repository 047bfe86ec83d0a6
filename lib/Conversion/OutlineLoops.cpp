//===- OutlineLoops.cpp - Each loop nest becomes a function ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Transforms/RegionUtils.h"

namespace nibble {
#define GEN_PASS_DEF_OUTLINELOOPS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;

/// What a loop reads from outside, in order of its first use.
static SetVector<Value> getCaptures(scf::ForOp loop) {
  SetVector<Value> captures(loop->operand_begin(), loop->operand_end());
  getUsedValuesDefinedAbove(loop->getRegions(), captures);
  return captures;
}

static bool isCheapConstant(Value value) {
  Operation *op = value.getDefiningOp();
  return op && (op->hasTrait<OpTrait::ConstantLike>() ||
                isa<memref::GetGlobalOp>(op));
}

/// Moves `loop` into a new function and calls it instead.
static void outline(scf::ForOp loop, SymbolTable &symbols) {
  SmallVector<Value> arguments, constants;
  for (Value value : getCaptures(loop))
    (isCheapConstant(value) ? constants : arguments).push_back(value);
  Location loc = loop.getLoc();
  OpBuilder builder(loop);
  auto type = builder.getFunctionType(TypeRange(arguments), TypeRange());
  auto function = func::FuncOp::create(loc, "main_loop", type);
  function.setPrivate();
  function->setAttr("passthrough", builder.getStrArrayAttr({"noinline"}));
  symbols.insert(function);
  func::CallOp::create(builder, loc, function, arguments);

  Block *body = function.addEntryBlock();
  builder.setInsertionPointToStart(body);
  IRMapping mapping;
  mapping.map(arguments, body->getArguments());
  for (Value constant : constants)
    mapping.map(constant,
                builder.clone(*constant.getDefiningOp())->getResult(0));
  auto end = func::ReturnOp::create(builder, loc);
  loop->moveBefore(end);
  loop->walk([&](Operation *op) {
    for (OpOperand &operand : op->getOpOperands())
      operand.set(mapping.lookupOrDefault(operand.get()));
  });
}

namespace {
struct OutlineLoops : nibble::impl::OutlineLoopsBase<OutlineLoops> {
  void runOnOperation() override {
    auto main = getOperation().lookupSymbol<func::FuncOp>("main");
    if (!main || main.isExternal())
      return;
    SmallVector<scf::ForOp> loops;
    for (Block &block : main.getBody())
      for (auto loop : block.getOps<scf::ForOp>())
        if (loop->getNumResults() == 0)
          loops.push_back(loop);
    SymbolTable symbols(getOperation());
    for (scf::ForOp loop : loops) {
      outline(loop, symbols);
      ++numLoops;
    }
  }
};
} // namespace
