//===- InsertObservers.cpp - Probes before nodes that get quantized -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"

#include "llvm/ADT/MapVector.h"

namespace nibble {
#define GEN_PASS_DEF_NIBBLEINSERTOBSERVERS
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
struct InsertObservers
    : nibble::impl::NibbleInsertObserversBase<InsertObservers> {
  using NibbleInsertObserversBase::NibbleInsertObserversBase;

  void runOnOperation() override {
    SmallVector<StringRef> names(kinds.begin(), kinds.end());
    if (names.empty())
      names.push_back("moments");
    for (StringRef name : names)
      if (name != "moments" && name != "magnitudes" && name != "range") {
        emitError(UnknownLoc::get(&getContext()))
            << "'" << name
            << "' is no statistic; use moments, magnitudes or range";
        return signalPassFailure();
      }
    Attribute statistics = Builder(&getContext()).getStrArrayAttr(names);

    // Tables are read by index: nothing is multiplied with their rows.
    llvm::MapVector<Value, SmallVector<NodeOp>> readers;
    getOperation().walk([&](NodeOp node) {
      if (isProduct(node) && getChosenWeight(node))
        readers[node.getInputs()[0]].push_back(node);
    });
    for (auto &[value, nodes] : readers)
      observe(value, nodes, statistics);
    numObservers += readers.size();
  }

private:
  void observe(Value value, MutableArrayRef<NodeOp> nodes,
               Attribute statistics) {
    OpBuilder builder(&getContext());
    builder.setInsertionPointAfterValue(value);
    auto probe =
        ObserveOp::create(builder, nodes.front().getLoc(), value.getType(),
                          getProbeId(nodes.front()), value);
    probe->setAttr(kStatisticsAttrName, statistics);
    for (NodeOp node : nodes)
      node->setOperand(0, probe.getResult());
  }
};
} // namespace
