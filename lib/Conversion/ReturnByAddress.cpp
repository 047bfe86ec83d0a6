//===- ReturnByAddress.cpp - Results of main by their address -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

#include "mlir/Conversion/LLVMCommon/TypeConverter.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"

namespace nibble {
#define GEN_PASS_DEF_RETURNBYADDRESS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;

/// Stores the descriptor of each operand, one after the other.
static void storeResults(func::ReturnOp end, Value address) {
  OpBuilder builder(end);
  Location loc = end.getLoc();
  LLVMTypeConverter types(end.getContext());
  int32_t position = 0;
  for (Value result : end.getOperands()) {
    auto type = cast<MemRefType>(result.getType());
    auto descriptor = UnrealizedConversionCastOp::create(
                          builder, loc, types.convertType(type), result)
                          .getResult(0);
    Value place = LLVM::GEPOp::create(builder, loc, address.getType(),
                                      builder.getI64Type(), address,
                                      ArrayRef<LLVM::GEPArg>{position});
    LLVM::StoreOp::create(builder, loc, descriptor, place, /*alignment=*/8);
    position += static_cast<int32_t>(3 + 2 * type.getRank());
  }
  end->setOperands({});
}

namespace {
struct ReturnByAddress : nibble::impl::ReturnByAddressBase<ReturnByAddress> {
  void runOnOperation() override {
    // What bufferization asked of functions of the runtime says nothing to
    // LLVM.
    for (auto function : getOperation().getOps<func::FuncOp>())
      if (function.isExternal())
        for (unsigned i = 0; i < function.getNumArguments(); ++i)
          function.removeArgAttr(i, "bufferization.access");
    auto main = getOperation().lookupSymbol<func::FuncOp>("main");
    if (!main || main.isExternal() || main.getNumResults() == 0)
      return;
    for (Type type : main.getResultTypes())
      if (!isa<MemRefType>(type))
        return;
    Type pointer = LLVM::LLVMPointerType::get(&getContext());
    if (failed(main.insertArgument(0, pointer, {}, main.getLoc())))
      return signalPassFailure();
    numResults += main.getNumResults();
    main.walk(
        [&](func::ReturnOp end) { storeResults(end, main.getArgument(0)); });
    BitVector all(main.getNumResults(), true);
    if (failed(main.eraseResults(all)))
      return signalPassFailure();
  }
};
} // namespace
