//===- InlineFunctions.cpp - --onnx-inline-functions ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/IRMapping.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"

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

static std::string getKey(NodeOp call) {
  return getKey(call.getDomain().value_or(""), call.getOpType(),
                call.getOverload().value_or(""));
}

namespace {
/// New names for what the copies of one call compute, in the graph and in the
/// graphs inside it.
class CallNames {
public:
  CallNames(NodeOp call, UniqueNames &taken)
      : prefix(call.getDisplayName()), taken(taken) {}

  void rename(NodeOp node);
  void rename(ConstantOp constant) {
    constant.setNameAttr(cast<StringAttr>(get(constant.getNameAttr())));
  }

private:
  Attribute get(Attribute entry);
  ArrayAttr get(ArrayAttr entries);

  std::string prefix;
  UniqueNames &taken;
  llvm::StringMap<std::string> known;
};
} // namespace

Attribute CallNames::get(Attribute entry) {
  StringRef old = getEntryName(entry);
  if (old.empty())
    return entry;
  auto [it, isNew] = known.try_emplace(old);
  if (isNew)
    it->second = taken.make(prefix + "/" + old);
  return StringAttr::get(entry.getContext(), it->second);
}

ArrayAttr CallNames::get(ArrayAttr entries) {
  SmallVector<Attribute> renamed;
  for (Attribute entry : entries)
    renamed.push_back(get(entry));
  return ArrayAttr::get(entries.getContext(), renamed);
}

void CallNames::rename(NodeOp node) {
  MLIRContext *context = node.getContext();
  node.setNameAttr(
      StringAttr::get(context, prefix + "/" + node.getDisplayName()));
  node.setOutputsAttr(get(node.getOutputs()));
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (auto graph = dyn_cast<GraphAttr>(attribute.getValue()))
      node.setAttributeValue(
          attribute.getName(),
          GraphAttr::get(context, graph.getName(), get(graph.getInputs()),
                         get(graph.getOutputs()), get(graph.getValueInfo()),
                         graph.getExtras()));
}

/// The version of `domain` that a function imports differs from the model's.
static std::optional<std::string> findOtherVersion(ModuleOp module,
                                                   FunctionAttr function) {
  for (auto opset : function.getOpsets().getAsRange<OpsetAttr>()) {
    StringRef domain = toString(opset.getDomain());
    int64_t version = getOpsetVersion(module, domain);
    if (version != 0 && version != opset.getVersion())
      return "imports version " + std::to_string(opset.getVersion()) +
             " of domain '" + domain.str() + "', and the model version " +
             std::to_string(version);
  }
  return std::nullopt;
}

namespace {
struct InlineFunctions : onnx::impl::OnnxInlineFunctionsBase<InlineFunctions> {
  using OnnxInlineFunctionsBase::OnnxInlineFunctionsBase;

  void runOnOperation() override;

private:
  /// A node and how many calls it lies in.
  struct Candidate {
    NodeOp node;
    unsigned depth;
  };

  void choose();
  bool holdsChosenType(func::FuncOp func, llvm::StringSet<> &visited);
  LogicalResult inlineCalls(func::FuncOp func);
  LogicalResult inlineCall(NodeOp call, func::FuncOp func, unsigned depth,
                           SmallVectorImpl<Candidate> &candidates);
  void nameResults(NodeOp call, ValueRange results);
  void keepVersion(NodeOp original, NodeOp copy);
  void eraseUncalled();

  /// All functions, and those whose calls are replaced.
  llvm::StringMap<func::FuncOp> functions, chosen;
  std::optional<UniqueNames> names;
};
} // namespace

/// Whether a function, or one that it calls, has a node of the types that were
/// asked for.
bool InlineFunctions::holdsChosenType(func::FuncOp func,
                                      llvm::StringSet<> &visited) {
  return func
      .walk([&](NodeOp node) {
        if (llvm::is_contained(opTypes, node.getOpType()))
          return WalkResult::interrupt();
        std::string key = getKey(node);
        auto callee = functions.find(key);
        bool holds = callee != functions.end() && visited.insert(key).second &&
                     holdsChosenType(callee->second, visited);
        return holds ? WalkResult::interrupt() : WalkResult::advance();
      })
      .wasInterrupted();
}

void InlineFunctions::choose() {
  for (auto &[key, func] : functions) {
    llvm::StringSet<> visited;
    if (!opTypes.empty() && !holdsChosenType(func, visited))
      continue;
    auto function = func->getAttrOfType<FunctionAttr>(kFunctionAttrName);
    std::optional<std::string> other =
        keepsVersions ? findOtherVersion(getOperation(), function)
                      : std::nullopt;
    if (other)
      func.emitWarning("the local function '")
          << toString(function.getName()) << "' stays as it is: it " << *other;
    else
      chosen[key] = func;
  }
}

void InlineFunctions::runOnOperation() {
  functions.clear();
  chosen.clear();
  for (auto func : getOperation().getOps<func::FuncOp>()) {
    auto function = func->getAttrOfType<FunctionAttr>(kFunctionAttrName);
    if (function && !func.isExternal())
      functions[getKey(toString(function.getDomain()),
                       toString(function.getName()),
                       toString(function.getOverload()))] = func;
  }
  choose();
  if (chosen.empty())
    return;
  names.emplace(getOperation());
  for (auto func : getOperation().getOps<func::FuncOp>())
    if (!func->hasAttr(kFunctionAttrName) && failed(inlineCalls(func)))
      return signalPassFailure();
  eraseUncalled();
}

/// Removes the functions whose calls were replaced, and what only they call.
void InlineFunctions::eraseUncalled() {
  bool all = chosen.size() == functions.size();
  bool changed = true;
  while (changed) {
    changed = false;
    llvm::StringSet<> called;
    getOperation().walk([&](NodeOp node) { called.insert(getKey(node)); });
    for (auto &[key, func] : chosen)
      if (func && (all || !called.contains(key))) {
        func.erase();
        func = {};
        changed = true;
      }
  }
}

LogicalResult InlineFunctions::inlineCalls(func::FuncOp func) {
  SmallVector<Candidate> candidates;
  func.walk([&](NodeOp node) { candidates.push_back({node, 0}); });
  while (!candidates.empty()) {
    auto [node, depth] = candidates.pop_back_val();
    auto callee = chosen.find(getKey(node));
    if (callee == chosen.end())
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

LogicalResult
InlineFunctions::inlineCall(NodeOp call, func::FuncOp func, unsigned depth,
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
  for (auto opset : function.getOpsets().getAsRange<OpsetAttr>())
    requireDomain(getOperation(), toString(opset.getDomain()),
                  opset.getVersion());
  CallNames renamed(call, *names);
  for (Operation &op : body.without_terminator()) {
    Operation *copy = builder.clone(op, mapping);
    copy->walk([&](ConstantOp constant) { renamed.rename(constant); });
    // The copy's nodes are visited in the order of the originals.
    SmallVector<NodeOp> originals, copies;
    op.walk([&](NodeOp node) { originals.push_back(node); });
    copy->walk([&](NodeOp node) { copies.push_back(node); });
    for (auto [original, node] : llvm::zip(originals, copies)) {
      resolveReferences(node, call, function);
      renamed.rename(node);
      keepVersion(original, node);
      candidates.push_back({node, depth});
    }
  }
  SmallVector<Value> values;
  for (Value result : results.take_front(call->getNumResults()))
    values.push_back(
        isa<BlockArgument>(result) ||
                llvm::is_contained(values, mapping.lookupOrDefault(result))
            ? Value()
            : mapping.lookupOrDefault(result));
  for (auto [index, value] : llvm::enumerate(values))
    if (!value) {
      // A value that has another name already.
      Value source = mapping.lookupOrDefault(results[index]);
      auto identity = NodeOp::create(
          builder, call.getLoc(), source.getType(),
          builder.getStringAttr("Identity"), StringAttr(), StringAttr(),
          builder.getStringAttr(call.getDisplayName() + "/identity"),
          builder.getStrArrayAttr({""}), builder.getArrayAttr({}),
          DictionaryAttr(), source, 0);
      value = identity.getResult(0);
    }
  nameResults(call, values);
  call.erase();
  ++numInlined;
  return success();
}

/// Puts `values` in the place of the call's results, with their names.
void InlineFunctions::nameResults(NodeOp call, ValueRange values) {
  for (auto [index, value] : llvm::enumerate(values)) {
    auto name = cast<StringAttr>(call.getOutputs()[index]);
    auto node = value.getDefiningOp<NodeOp>();
    if (node && !name.empty()) {
      SmallVector<Attribute> outputs(node.getOutputs().getValue());
      outputs[cast<OpResult>(value).getResultNumber()] = name;
      node.setOutputsAttr(ArrayAttr::get(&getContext(), outputs));
    }
    // What the model says of the call's result holds for the copy's.
    Type refined =
        refineTypes(value.getType(), call.getResult(index).getType());
    if (refined && node)
      value.setType(refined);
    call.getResult(index).replaceAllUsesWith(value);
  }
}

/// A function may import other versions than the model.
void InlineFunctions::keepVersion(NodeOp original, NodeOp copy) {
  StringRef domain = original.getDomain().value_or("");
  int64_t version = getOpsetVersion(original, domain);
  if (version == 0 || version == getOpsetVersion(copy, domain))
    return;
  MLIRContext *context = &getContext();
  copy->setAttr(
      kOpsetsAttrName,
      ArrayAttr::get(
          context,
          OpsetAttr::get(context, StringAttr::get(context, domain), version)));
}
