//===- GraphInputs.cpp - What a graph lists as its inputs -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/GraphInputs.h"

#include "nibble/Dialect/Onnx/IR/ValueNames.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

void onnx::removeFromInputs(ConstantOp constant) {
  Operation *function = constant->getParentOp();
  auto graph = function->getAttrOfType<GraphAttr>(kGraphAttrName);
  if (!graph)
    return;
  SmallVector<Attribute> inputs;
  llvm::copy_if(graph.getInputs(), std::back_inserter(inputs),
                [&](Attribute entry) {
                  return getEntryName(entry) != constant.getName();
                });
  if (inputs.size() == graph.getInputs().size())
    return;
  MLIRContext *context = constant.getContext();
  function->setAttr(kGraphAttrName,
                    GraphAttr::get(context, graph.getName(),
                                   ArrayAttr::get(context, inputs),
                                   graph.getOutputs(), graph.getValueInfo(),
                                   graph.getExtras()));
}
