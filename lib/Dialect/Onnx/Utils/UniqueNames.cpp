//===- UniqueNames.cpp - Names that a model does not have yet -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include "nibble/Dialect/Onnx/IR/ValueNames.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static void addInterface(GraphAttr graph, llvm::StringSet<> &names) {
  for (ArrayAttr entries : {graph.getInputs(), graph.getOutputs()})
    for (Attribute entry : entries)
      names.insert(getEntryName(entry));
}

UniqueNames::UniqueNames(ModuleOp module) {
  module.walk([&](Operation *op) {
    if (auto graph = op->getAttrOfType<GraphAttr>(kGraphAttrName))
      addInterface(graph, taken);
    if (auto constant = dyn_cast<ConstantOp>(op))
      taken.insert(constant.getName());
    auto node = dyn_cast<NodeOp>(op);
    if (!node)
      return;
    for (Attribute output : node.getOutputs())
      taken.insert(cast<StringAttr>(output).getValue());
    for (auto attribute :
         node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
      if (auto graph = dyn_cast<GraphAttr>(attribute.getValue()))
        addInterface(graph, taken);
  });
}

std::string UniqueNames::make(const Twine &wanted) {
  std::string base = wanted.str(), name = base;
  for (unsigned number = 1; !taken.insert(name).second; ++number)
    name = base + "_" + std::to_string(number);
  return name;
}
