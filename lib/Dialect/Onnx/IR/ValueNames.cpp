//===- ValueNames.cpp - The names of values in a graph --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/ValueNames.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

StringRef onnx::getEntryName(Attribute entry) {
  auto info = dyn_cast<ValueInfoAttr>(entry);
  return (info ? info.getName() : cast<StringAttr>(entry)).getValue();
}

std::vector<std::string> onnx::getInputNames(GraphAttr graph, Block &block) {
  // An initializer may be listed as an input too.
  llvm::StringSet<> constants;
  for (auto constant : block.getOps<ConstantOp>())
    constants.insert(constant.getName());
  std::vector<std::string> names;
  for (Attribute entry : graph.getInputs())
    if (StringRef name = getEntryName(entry); !constants.contains(name))
      names.push_back(name.str());
  return names;
}

std::vector<std::string> onnx::getOutputNames(GraphAttr graph) {
  std::vector<std::string> names;
  for (Attribute entry : graph.getOutputs())
    names.push_back(getEntryName(entry).str());
  return names;
}

std::string onnx::getValueName(Value value) {
  if (auto node = value.getDefiningOp<NodeOp>())
    return node.getOutputName(cast<OpResult>(value).getResultNumber()).str();
  if (auto constant = value.getDefiningOp<ConstantOp>())
    return constant.getName().str();
  auto argument = dyn_cast<BlockArgument>(value);
  if (!argument)
    return "";
  Block &block = *argument.getOwner();
  auto graph = block.getParentOp()->getAttrOfType<GraphAttr>(kGraphAttrName);
  if (!graph)
    return "";
  std::vector<std::string> names = getInputNames(graph, block);
  unsigned index = argument.getArgNumber();
  return index < names.size() ? names[index] : "";
}
