//===- LowerChecks.cpp - What must hold at run time, as calls -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

#include "nibble/Runtime/Run.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/ADT/StringMap.h"

namespace nibble {
#define GEN_PASS_DEF_LOWERCHECKS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;

namespace {
struct LowerChecks : nibble::impl::LowerChecksBase<LowerChecks> {
  void runOnOperation() override;

private:
  LLVM::LLVMFuncOp declare(StringRef name, Type result, ArrayRef<Type> types,
                           bool returns = true);
  Value getMessage(OpBuilder &builder, Location loc, StringRef message);
  void lowerAssert(cf::AssertOp check);
  void checkSize(memref::AllocOp allocation);
  void checkInterrupt(scf::WhileOp loop);

  llvm::StringMap<LLVM::GlobalOp> messages;
};
} // namespace

LLVM::LLVMFuncOp LowerChecks::declare(StringRef name, Type result,
                                      ArrayRef<Type> types, bool returns) {
  if (auto known = getOperation().lookupSymbol<LLVM::LLVMFuncOp>(name))
    return known;
  OpBuilder builder = OpBuilder::atBlockBegin(getOperation().getBody());
  auto function =
      LLVM::LLVMFuncOp::create(builder, getOperation().getLoc(), name,
                               LLVM::LLVMFunctionType::get(result, types));
  if (!returns)
    function.setPassthroughAttr(builder.getStrArrayAttr({"noreturn", "cold"}));
  return function;
}

/// The address of `message` as C has it.
Value LowerChecks::getMessage(OpBuilder &builder, Location loc,
                              StringRef message) {
  LLVM::GlobalOp &global = messages[message];
  if (!global) {
    OpBuilder top = OpBuilder::atBlockBegin(getOperation().getBody());
    std::string text = message.str() + '\0';
    auto type = LLVM::LLVMArrayType::get(top.getI8Type(), text.size());
    global = LLVM::GlobalOp::create(top, getOperation().getLoc(), type,
                                    /*isConstant=*/true, LLVM::Linkage::Private,
                                    "nibble_message_" +
                                        std::to_string(messages.size()),
                                    top.getStringAttr(text));
  }
  return LLVM::AddressOfOp::create(builder, loc, global);
}

void LowerChecks::lowerAssert(cf::AssertOp check) {
  OpBuilder builder(check);
  Location loc = check.getLoc();
  Type pointer = LLVM::LLVMPointerType::get(&getContext());
  auto fail =
      declare("nibble_runtime_fail", LLVM::LLVMVoidType::get(&getContext()),
              {builder.getI32Type(), pointer}, /*returns=*/false);
  Value yes =
      arith::ConstantOp::create(builder, loc, builder.getBoolAttr(true));
  Value failed = arith::XOrIOp::create(builder, loc, check.getArg(), yes);
  auto branch =
      scf::IfOp::create(builder, loc, failed, /*withElseRegion=*/false);
  builder.setInsertionPointToStart(branch.thenBlock());
  Value code = arith::ConstantOp::create(
      builder, loc, builder.getI32IntegerAttr(NIBBLE_RUN_CHECK_FAILED));
  Value message = getMessage(builder, loc, check.getMsg());
  LLVM::CallOp::create(builder, loc, fail, {code, message});
  check.erase();
  ++numChecks;
}

static int64_t getElementBytes(Type type) {
  if (auto vector = dyn_cast<VectorType>(type))
    return vector.getNumElements() * getElementBytes(vector.getElementType());
  return type.isIntOrFloat() ? llvm::divideCeil(type.getIntOrFloatBitWidth(), 8)
                             : 8;
}

/// The bytes of a buffer are counted with care before it is allocated.
void LowerChecks::checkSize(memref::AllocOp allocation) {
  // Only the thread that began a run can end it.
  for (Operation *op = allocation; op; op = op->getParentOp())
    if (op->hasTrait<OpTrait::HasParallelRegion>())
      return;
  OpBuilder builder(allocation);
  Location loc = allocation.getLoc();
  Type word = builder.getI64Type();
  auto multiply = declare("nibble_runtime_multiply", word, {word, word});
  MemRefType type = allocation.getType();
  int64_t known = getElementBytes(type.getElementType());
  for (int64_t size : type.getShape())
    known *= ShapedType::isDynamic(size) ? 1 : size;
  Value bytes =
      arith::ConstantOp::create(builder, loc, builder.getI64IntegerAttr(known));
  for (Value size : allocation.getDynamicSizes()) {
    Value count = arith::IndexCastOp::create(builder, loc, word, size);
    bytes = LLVM::CallOp::create(builder, loc, multiply, {bytes, count})
                .getResult();
  }
  ++numSizes;
}

void LowerChecks::checkInterrupt(scf::WhileOp loop) {
  OpBuilder builder = OpBuilder::atBlockBegin(loop.getAfterBody());
  auto check = declare("nibble_runtime_check_interrupt",
                       LLVM::LLVMVoidType::get(&getContext()), {});
  LLVM::CallOp::create(builder, loop.getLoc(), check, ValueRange());
  ++numLoops;
}

void LowerChecks::runOnOperation() {
  getOperation().walk([&](Operation *op) {
    if (auto check = dyn_cast<cf::AssertOp>(op))
      lowerAssert(check);
    else if (auto loop = dyn_cast<scf::WhileOp>(op))
      checkInterrupt(loop);
    else if (auto allocation = dyn_cast<memref::AllocOp>(op);
             allocation && !allocation.getDynamicSizes().empty())
      checkSize(allocation);
  });
  messages.clear();
}
