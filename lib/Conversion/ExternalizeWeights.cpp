//===- ExternalizeWeights.cpp - Constants become arguments ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace nibble {
#define GEN_PASS_DEF_EXTERNALIZEWEIGHTS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

namespace {
struct ExternalizeWeights
    : nibble::impl::ExternalizeWeightsBase<ExternalizeWeights> {
  void runOnOperation() override {
    auto main = getOperation().lookupSymbol<func::FuncOp>("main");
    if (!main || main.isExternal())
      return;
    DenseMap<Attribute, Value> arguments;
    main.walk([&](arith::ConstantOp constant) {
      auto weight = dyn_cast<DenseResourceElementsAttr>(constant.getValue());
      if (!weight)
        return;
      Value &argument = arguments[weight];
      if (!argument) {
        auto attributes = DictionaryAttr::get(
            &getContext(),
            NamedAttribute(StringAttr::get(&getContext(), kWeightAttrName),
                           weight));
        unsigned position = main.getNumArguments();
        if (failed(main.insertArgument(position, weight.getType(), attributes,
                                       constant.getLoc())))
          return signalPassFailure();
        argument = main.getArgument(position);
        ++numWeights;
      }
      constant.replaceAllUsesWith(argument);
      constant.erase();
    });
  }
};
} // namespace
