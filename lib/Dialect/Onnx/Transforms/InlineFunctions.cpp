//===- InlineFunctions.cpp - --onnx-inline-functions ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/StringMap.h"

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXINLINEFUNCTIONS
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static StringRef toString(StringAttr text) {
  return text ? text.getValue() : StringRef();
}

/// What a call names a function by.
static std::string getKey(StringRef domain, StringRef name,
                          StringRef overload) {
  if (domain == "ai.onnx")
    domain = "";
  return (domain + ":" + name + ":" + overload).str();
}

/// The attribute called `name` among NodeAttributeAttrs, or null.
static NodeAttributeAttr findAttribute(ArrayAttr attributes, StringRef name) {
  for (auto attribute : attributes.getAsRange<NodeAttributeAttr>())
    if (attribute.getName() == name)
      return attribute;
  return {};
}

/// Puts what the call or else the function says in the place of references to
/// the function's attributes; one that neither gives is left out.
static void resolveReferences(NodeOp node, NodeOp call, FunctionAttr function) {
  SmallVector<Attribute> resolved;
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>()) {
    auto reference = dyn_cast<AttributeReferenceAttr>(attribute.getValue());
    if (!reference) {
      resolved.push_back(attribute);
      continue;
    }
    NodeAttributeAttr given =
        findAttribute(call.getNodeAttributes(), reference.getName());
    if (!given)
      given = findAttribute(function.getDefaults(), reference.getName());
    if (given)
      resolved.push_back(NodeAttributeAttr::get(
          node.getContext(), attribute.getName(), given.getValue()));
  }
  node.setNodeAttributesAttr(ArrayAttr::get(node.getContext(), resolved));
}

/// Names a copied node, and its outputs, after the call.
static void prefixNames(NodeOp node, StringRef prefix) {
  auto add = [&](StringRef name) {
    return StringAttr::get(node.getContext(), prefix + "/" + name);
  };
  node.setNameAttr(add(node.getDisplayName()));
  SmallVector<Attribute> outputs;
  for (auto output : node.getOutputs().getAsRange<StringAttr>())
    outputs.push_back(output.empty() ? output : add(output.getValue()));
  node.setOutputsAttr(ArrayAttr::get(node.getContext(), outputs));
}

/// Gives `value`, a result of an inlined node, the name of the call's output.
static void renameOutput(Value value, StringAttr name) {
  auto node = value.getDefiningOp<NodeOp>();
  if (!node || name.empty())
    return;
  SmallVector<Attribute> outputs(node.getOutputs().getValue());
  outputs[cast<OpResult>(value).getResultNumber()] = name;
  node.setOutputsAttr(ArrayAttr::get(node.getContext(), outputs));
}

namespace {
struct InlineFunctions : onnx::impl::OnnxInlineFunctionsBase<InlineFunctions> {
  using OnnxInlineFunctionsBase::OnnxInlineFunctionsBase;

  void runOnOperation() override {
    llvm::StringMap<func::FuncOp> functions;
    SmallVector<func::FuncOp> definitions;
    for (auto func : getOperation().getOps<func::FuncOp>()) {
      auto function = func->getAttrOfType<FunctionAttr>(kFunctionAttrName);
      if (!function || func.isExternal())
        continue;
      definitions.push_back(func);
      functions[getKey(toString(function.getDomain()),
                       toString(function.getName()),
                       toString(function.getOverload()))] = func;
    }
    if (definitions.empty())
      return;
    for (auto func : getOperation().getOps<func::FuncOp>())
      if (!func->hasAttr(kFunctionAttrName) &&
          failed(inlineCalls(func, functions)))
        return signalPassFailure();
    for (func::FuncOp func : definitions)
      func.erase();
  }

private:
  /// A node and how many calls it lies in.
  struct Candidate {
    NodeOp node;
    unsigned depth;
  };

  LogicalResult inlineCalls(func::FuncOp func,
                            const llvm::StringMap<func::FuncOp> &functions) {
    SmallVector<Candidate> candidates;
    func.walk([&](NodeOp node) { candidates.push_back({node, 0}); });
    while (!candidates.empty()) {
      auto [node, depth] = candidates.pop_back_val();
      auto callee =
          functions.find(getKey(node.getDomain().value_or(""), node.getOpType(),
                                node.getOverload().value_or("")));
      if (callee == functions.end())
        continue;
      if (depth == functions.size())
        return node.emitError("node '")
               << node.getDisplayName() << "': the local function '"
               << node.getOpType() << "' calls itself";
      if (failed(inlineCall(node, callee->second, depth + 1, candidates)))
        return failure();
    }
    Block &block = func.getBody().front();
    func.setType(FunctionType::get(&getContext(), block.getArgumentTypes(),
                                   block.getTerminator()->getOperandTypes()));
    return success();
  }

  LogicalResult inlineCall(NodeOp call, func::FuncOp func, unsigned depth,
                           SmallVectorImpl<Candidate> &candidates) {
    auto function = func->getAttrOfType<FunctionAttr>(kFunctionAttrName);
    Block &body = func.getBody().front();
    auto fail = [&](const Twine &why) {
      return call.emitError("node '")
             << call.getDisplayName() << "': the call of the local function '"
             << call.getOpType() << "' " << why;
    };
    if (call->getNumRegions() != 0)
      return fail("has an attribute that is a graph; inline the function "
                  "before (onnx.inliner)");
    if (call.getInputs().size() > body.getNumArguments())
      return fail("has more inputs than the function");
    ValueRange results = body.getTerminator()->getOperands();
    if (call->getNumResults() > results.size())
      return fail("has more outputs than the function");

    OpBuilder builder(call);
    IRMapping mapping;
    for (BlockArgument argument : body.getArguments()) {
      unsigned index = argument.getArgNumber();
      mapping.map(argument, index < call.getInputs().size()
                                ? call.getInputs()[index]
                                : AbsentOp::create(builder, call.getLoc(),
                                                   builder.getNoneType())
                                      .getResult());
    }
    std::string prefix = call.getDisplayName();
    for (Operation &op : body.without_terminator()) {
      Operation *copy = builder.clone(op, mapping);
      // The copy's nodes are visited in the order of the originals.
      SmallVector<NodeOp> originals, copies;
      op.walk([&](NodeOp node) { originals.push_back(node); });
      copy->walk([&](NodeOp node) { copies.push_back(node); });
      for (auto [original, node] : llvm::zip(originals, copies)) {
        resolveReferences(node, call, function);
        prefixNames(node, prefix);
        keepVersion(original, node);
        candidates.push_back({node, depth});
      }
    }
    for (auto [index, result] : llvm::enumerate(call.getResults())) {
      Value value = mapping.lookupOrDefault(results[index]);
      renameOutput(value, cast<StringAttr>(call.getOutputs()[index]));
      // What the model says of the call's result holds for the copy's.
      Type refined = refineTypes(value.getType(), result.getType());
      if (refined && value.getDefiningOp<NodeOp>())
        value.setType(refined);
      result.replaceAllUsesWith(value);
    }
    call.erase();
    ++numInlined;
    return success();
  }

  /// A function may import other versions than the model.
  void keepVersion(NodeOp original, NodeOp copy) {
    StringRef domain = original.getDomain().value_or("");
    int64_t version = getOpsetVersion(original, domain);
    if (version == 0 || version == getOpsetVersion(copy, domain))
      return;
    MLIRContext *context = &getContext();
    copy->setAttr(
        kOpsetsAttrName,
        ArrayAttr::get(context,
                       OpsetAttr::get(context, StringAttr::get(context, domain),
                                      version)));
  }
};
} // namespace
