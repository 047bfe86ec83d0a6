//===- Round.cpp - Round weights to the nearest codes ---------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "QuantizeConstant.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"

namespace nibble {
#define GEN_PASS_DEF_NIBBLEROUND
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
struct Round : nibble::impl::NibbleRoundBase<Round> {
  using NibbleRoundBase::NibbleRoundBase;

  void runOnOperation() override {
    if (scale != "minmax" && scale != "search") {
      emitError(UnknownLoc::get(&getContext()))
          << "'" << scale << "' is no source of scales; use minmax or search";
      return signalPassFailure();
    }
    RoundingQuantizer quantizer(scale == "minmax" ? ScaleSearch::MinMax
                                                  : ScaleSearch::LeastSquares);
    SmallVector<ConstantOp> constants;
    getOperation().walk([&](ConstantOp constant) {
      if (constant->hasAttr(kEncodingAttrName))
        constants.push_back(constant);
    });
    for (ConstantOp constant : constants) {
      if (failed(quantizeConstant(constant, quantizer, {}, threads)))
        return signalPassFailure();
      ++numRounded;
    }
  }
};
} // namespace
