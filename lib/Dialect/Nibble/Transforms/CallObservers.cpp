//===- CallObservers.cpp - Probes to calls of the runtime -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

namespace nibble {
#define GEN_PASS_DEF_NIBBLECALLOBSERVERS
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

/// The runtime's function for probes of this element type, declared in
/// `module`.
static func::FuncOp getCallee(ModuleOp module, Type element) {
  OpBuilder builder = OpBuilder::atBlockBegin(module.getBody());
  std::string name = "nibble_runtime_observe_";
  llvm::raw_string_ostream(name) << element;
  if (auto known = module.lookupSymbol<func::FuncOp>(name))
    return known;
  Type tensor = UnrankedTensorType::get(element);
  auto type = builder.getFunctionType({builder.getI64Type(), tensor}, {});
  auto callee = func::FuncOp::create(builder, module.getLoc(), name, type);
  callee.setPrivate();
  // What is observed is not written: no copy is needed.
  callee.setArgAttr(1, "bufferization.access", builder.getStringAttr("read"));
  return callee;
}

namespace {
struct CallObservers : nibble::impl::NibbleCallObserversBase<CallObservers> {
  void runOnOperation() override {
    ModuleOp module = getOperation();
    Builder builder(&getContext());
    SmallVector<ObserveOp> probes;
    module.walk([&](ObserveOp probe) { probes.push_back(probe); });
    SmallVector<Attribute> ids;
    for (ObserveOp probe : probes) {
      auto type = dyn_cast<RankedTensorType>(probe.getInput().getType());
      if (type && isa<Float16Type, BFloat16Type, Float32Type, Float64Type>(
                      type.getElementType()))
        call(probe, type, ids.size());
      ids.push_back(probe.getIdAttr());
      probe.getResult().replaceAllUsesWith(probe.getInput());
      probe.erase();
    }
    module->setAttr(kObserversAttrName, builder.getArrayAttr(ids));
  }

private:
  void call(ObserveOp probe, RankedTensorType type, int64_t number) {
    OpBuilder builder(probe);
    Location loc = probe.getLoc();
    Type element = type.getElementType();
    Value input = probe.getInput();
    // Names of dimensions mean nothing below the graph.
    auto plain = RankedTensorType::get(type.getShape(), element);
    if (plain != type)
      input = UnrealizedConversionCastOp::create(builder, loc, plain, input)
                  .getResult(0);
    Value any = tensor::CastOp::create(builder, loc,
                                       UnrankedTensorType::get(element), input);
    Value index = arith::ConstantOp::create(builder, loc,
                                            builder.getI64IntegerAttr(number));
    func::CallOp::create(builder, loc,
                         getCallee(probe->getParentOfType<ModuleOp>(), element),
                         ValueRange{index, any});
  }
};
} // namespace
