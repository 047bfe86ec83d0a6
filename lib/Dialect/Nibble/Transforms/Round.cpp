//===- Round.cpp - Round weights to the nearest codes ---------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/Round.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/QuantizeConstant.h"

namespace nibble {
#define GEN_PASS_DEF_NIBBLEROUND
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

FailureOr<unsigned> nibble::roundWeights(ModuleOp module, ScaleSearch search,
                                         unsigned threads,
                                         RoundProgress progress) {
  RoundingQuantizer quantizer(search);
  SmallVector<ConstantOp> constants;
  module.walk([&](ConstantOp constant) {
    if (constant->hasAttr(kEncodingAttrName))
      constants.push_back(constant);
  });
  for (ConstantOp constant : constants) {
    if (auto type = dyn_cast<ShapedType>(constant.getType()); type && progress)
      progress(constant.getName(), type.getNumElements());
    if (failed(quantizeConstant(constant, quantizer, {}, threads)))
      return failure();
  }
  return constants.size();
}

namespace {
struct Round : nibble::impl::NibbleRoundBase<Round> {
  using NibbleRoundBase::NibbleRoundBase;

  void runOnOperation() override {
    if (scale != "minmax" && scale != "search") {
      emitError(UnknownLoc::get(&getContext()))
          << "'" << scale << "' is no source of scales; use minmax or search";
      return signalPassFailure();
    }
    auto search =
        scale == "minmax" ? ScaleSearch::MinMax : ScaleSearch::LeastSquares;
    auto rounded = roundWeights(getOperation(), search, threads);
    if (failed(rounded))
      return signalPassFailure();
    numRounded += *rounded;
  }
};
} // namespace
