//===- InferShapes.cpp - --onnx-infer-shapes ------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringSet.h"

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXINFERSHAPES
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// `graph` with every typed result of the block listed in value_info.
static GraphAttr listTypes(GraphAttr graph, Block &block) {
  llvm::StringSet<> listed;
  for (ArrayAttr entries : {graph.getOutputs(), graph.getValueInfo()})
    for (Attribute entry : entries) {
      auto info = dyn_cast<ValueInfoAttr>(entry);
      listed.insert(info ? info.getName().getValue()
                         : cast<StringAttr>(entry).getValue());
    }
  SmallVector<Attribute> entries(graph.getValueInfo().getValue());
  for (auto node : block.getOps<NodeOp>())
    for (auto [name, result] : llvm::zip(
             node.getOutputs().getAsRange<StringAttr>(), node.getResults()))
      if (!name.empty() && !isa<UnknownType>(result.getType()) &&
          listed.insert(name.getValue()).second)
        entries.push_back(name);
  MLIRContext *context = graph.getContext();
  return GraphAttr::get(context, graph.getName(), graph.getInputs(),
                        graph.getOutputs(), ArrayAttr::get(context, entries),
                        graph.getExtras());
}

/// Lists the types in the graphs that are attributes of a node.
static void listTypes(NodeOp node) {
  unsigned region = 0;
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (auto graph = dyn_cast<GraphAttr>(attribute.getValue()))
      node.setAttributeValue(
          attribute.getName(),
          listTypes(graph, node->getRegion(region++).front()));
    else if (isa<ArrayAttr>(attribute.getValue()) &&
             llvm::any_of(cast<ArrayAttr>(attribute.getValue()),
                          llvm::IsaPred<GraphAttr>))
      return; // no op of ONNX has a list of graphs
}

namespace {
struct InferShapes : onnx::impl::OnnxInferShapesBase<InferShapes> {
  using OnnxInferShapesBase::OnnxInferShapesBase;

  LogicalResult inferFunction(func::FuncOp func) {
    Block &block = func.getBody().front();
    ShapeInference inference;
    if (failed(inference.visit(block)))
      return failure();
    numRefined += inference.getNumRefined();
    func.setType(FunctionType::get(&getContext(), block.getArgumentTypes(),
                                   block.getTerminator()->getOperandTypes()));
    auto graph = func->getAttrOfType<GraphAttr>(kGraphAttrName);
    if (record && graph) {
      func->setAttr(kGraphAttrName, listTypes(graph, block));
      func.walk([](NodeOp node) { listTypes(node); });
    }
    return success();
  }

  void runOnOperation() override {
    for (auto func : getOperation().getOps<func::FuncOp>())
      if (!func.isExternal() && failed(inferFunction(func)))
        return signalPassFailure();
    getOperation().walk([&](NodeOp node) {
      for (Type type : node.getResultTypes())
        numUnknown += isa<UnknownType, UnrankedTensorType>(type);
    });
  }
};
} // namespace
