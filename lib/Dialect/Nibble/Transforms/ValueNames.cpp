//===- ValueNames.cpp - The ONNX names of a graph's values ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/ValueNames.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

ValueNames::ValueNames(func::FuncOp func) {
  auto graph = func->getAttrOfType<GraphAttr>(kGraphAttrName);
  if (!graph || func.isExternal())
    return;
  llvm::StringSet<> constants;
  for (auto constant : func.getBody().front().getOps<ConstantOp>())
    constants.insert(constant.getName());
  unsigned argument = 0;
  for (Attribute entry : graph.getInputs()) {
    auto info = dyn_cast<ValueInfoAttr>(entry);
    StringRef name =
        info ? info.getName().getValue() : cast<StringAttr>(entry).getValue();
    if (!constants.contains(name) && argument < func.getNumArguments())
      inputs[func.getArgument(argument++)] = name;
  }
}

StringRef ValueNames::lookup(Value value) const {
  if (auto node = value.getDefiningOp<NodeOp>())
    return node.getOutputName(cast<OpResult>(value).getResultNumber());
  return inputs.lookup(value);
}
