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
#include "llvm/ADT/StringMap.h"

namespace nibble {
#define GEN_PASS_DEF_OUTLINELOOPS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;

/// A loop, or a choice between loops of which one is parallel, without results.
static bool isOutlined(Operation &op) {
  if (op.getNumResults() > 0)
    return false;
  return isa<scf::ForOp, scf::ParallelOp>(op) ||
         (isa<scf::IfOp>(op) && op.walk([](scf::ParallelOp) {
                                    return WalkResult::interrupt();
                                  }).wasInterrupted());
}

/// What a loop reads from outside, in order of its first use.
static SetVector<Value> getCaptures(Operation *loop) {
  SetVector<Value> captures(loop->operand_begin(), loop->operand_end());
  getUsedValuesDefinedAbove(loop->getRegions(), captures);
  return captures;
}

static bool isCheapConstant(Value value) {
  Operation *op = value.getDefiningOp();
  return op && (op->hasTrait<OpTrait::ConstantLike>() ||
                isa<memref::GetGlobalOp>(op));
}

/// A function of what `loop` does, which moves into it: of its captures, those
/// in `arguments`; copies of `constants` are inside.
static func::FuncOp moveIntoFunction(Operation *loop, ArrayRef<Value> arguments,
                                     ArrayRef<Value> constants) {
  Location loc = loop->getLoc();
  OpBuilder builder(loop->getContext());
  auto type =
      builder.getFunctionType(ValueRange(arguments).getTypes(), TypeRange());
  auto function = func::FuncOp::create(loc, "main_loop", type);
  function.setPrivate();
  function->setAttr("passthrough", builder.getStrArrayAttr({"noinline"}));
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
  return function;
}

namespace {
struct OutlineLoops : nibble::impl::OutlineLoopsBase<OutlineLoops> {
  void runOnOperation() override {
    auto main = getOperation().lookupSymbol<func::FuncOp>("main");
    if (!main || main.isExternal())
      return;
    SmallVector<Operation *> loops;
    for (Block &block : main.getBody())
      for (Operation &op : block)
        if (isOutlined(op))
          loops.push_back(&op);
    SymbolTable symbols(getOperation());
    // By their text, in which they all have the same name.
    llvm::StringMap<func::FuncOp> functions;
    for (Operation *loop : loops) {
      SmallVector<Value> arguments, constants;
      for (Value value : getCaptures(loop))
        (isCheapConstant(value) ? constants : arguments).push_back(value);
      OpBuilder builder(loop->getNextNode());
      Location loc = loop->getLoc();
      func::FuncOp function = moveIntoFunction(loop, arguments, constants);
      std::string text;
      llvm::raw_string_ostream os(text);
      function->print(os, OpPrintingFlags().useLocalScope());
      auto [known, isNew] = functions.try_emplace(text, function);
      if (isNew) {
        symbols.insert(function);
        ++numFunctions;
      } else {
        function->erase();
      }
      func::CallOp::create(builder, loc, known->second, arguments);
      ++numLoops;
    }
  }
};
} // namespace
