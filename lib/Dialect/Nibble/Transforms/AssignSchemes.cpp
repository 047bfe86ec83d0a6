//===- AssignSchemes.cpp - Decide which weight gets which storage ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/Utils/GraphInputs.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/Support/GlobPattern.h"

namespace nibble {
#define GEN_PASS_DEF_NIBBLEASSIGNSCHEMES
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// A rule of the option `rules`: one of the conditions, and what follows.
struct Rule {
  std::string opType;                     // of an `op:` rule
  std::optional<llvm::GlobPattern> names; // of a rule over names
  std::optional<int64_t> larger, smaller; // than so many elements
  std::optional<Scheme> scheme;           // nothing: keep
};

/// A constant and the nodes that read it as a weight.
struct Weight {
  enum Kind { Matrix, Stack, Filter };
  SmallVector<NodeOp> readers;
  Kind kind = Matrix;
  /// The dimension that products are summed over (matrices and stacks), or that
  /// of the output channels (filters).
  unsigned axis = 0;
  bool hasOneAxis = true;
};

struct AssignSchemes : nibble::impl::NibbleAssignSchemesBase<AssignSchemes> {
  using NibbleAssignSchemesBase::NibbleAssignSchemesBase;

  void runOnOperation() override;

private:
  LogicalResult parseRules();
  LogicalResult parseRule(StringRef text);
  FailureOr<std::optional<Scheme>> parseSchemeOrKeep(StringRef name);
  void collectWeights();
  void addReader(NodeOp node, Value weight, Weight::Kind kind, unsigned axis);
  const Rule *findRule(ConstantOp constant, const Weight &weight) const;
  void assign(ConstantOp constant, const Weight &weight);
  void keep(ConstantOp constant, const Weight &weight, const Twine &why);

  std::optional<Scheme> defaultScheme;
  std::vector<Rule> parsedRules;
  llvm::MapVector<ConstantOp, Weight> weights;
};

} // namespace

FailureOr<std::optional<Scheme>>
AssignSchemes::parseSchemeOrKeep(StringRef name) {
  if (name == "keep")
    return std::optional<Scheme>();
  Result<Scheme> parsed = parseScheme(std::string_view(name));
  if (!parsed)
    return emitError(UnknownLoc::get(&getContext())) << parsed.error();
  return std::optional<Scheme>(*parsed);
}

LogicalResult AssignSchemes::parseRule(StringRef text) {
  // The last '=': a name may hold others.
  auto [pattern, name] = text.rsplit('=');
  if (pattern.empty() || name.empty())
    return emitError(UnknownLoc::get(&getContext()))
           << "'" << text
           << "' is no rule; write PATTERN=SCHEME, for example op:Gather=w8c "
              "or *lm_head*=keep";
  Rule rule;
  auto ruleScheme = parseSchemeOrKeep(name);
  if (failed(ruleScheme))
    return failure();
  rule.scheme = *ruleScheme;
  bool isLarger = pattern.consume_front("larger:");
  if (isLarger || pattern.consume_front("smaller:")) {
    int64_t elements = 0;
    if (pattern.getAsInteger(10, elements) || elements < 0)
      return emitError(UnknownLoc::get(&getContext()))
             << "'" << text
             << "' is no rule: behind larger: and smaller: stands a number of "
                "elements, for example larger:1000000=w4g32";
    (isLarger ? rule.larger : rule.smaller) = elements;
  } else if (pattern.consume_front("op:")) {
    rule.opType = pattern.str();
  } else {
    auto glob = llvm::GlobPattern::create(pattern, /*MaxSubPatterns=*/1024);
    if (!glob)
      return emitError(UnknownLoc::get(&getContext()))
             << "'" << pattern
             << "' is no glob: " << llvm::toString(glob.takeError());
    rule.names = std::move(*glob);
  }
  parsedRules.push_back(std::move(rule));
  return success();
}

LogicalResult AssignSchemes::parseRules() {
  parsedRules.clear();
  auto parsed = parseSchemeOrKeep(scheme);
  if (failed(parsed))
    return failure();
  defaultScheme = *parsed;
  for (const std::string &rule : rules)
    if (failed(parseRule(rule)))
      return failure();
  return success();
}

void AssignSchemes::addReader(NodeOp node, Value value, Weight::Kind kind,
                              unsigned axis) {
  auto constant = value.getDefiningOp<ConstantOp>();
  if (!constant) {
    if (!node.isOnnx("Gather") && !node->hasAttr(kKeptAttrName))
      node->setAttr(kKeptAttrName,
                    StringAttr::get(&getContext(), "its weight is computed"));
    return;
  }
  auto [it, isNew] = weights.try_emplace(constant);
  Weight &weight = it->second;
  if (isNew) {
    weight.kind = kind;
    weight.axis = axis;
  }
  weight.hasOneAxis &= weight.kind == kind && weight.axis == axis;
  weight.readers.push_back(node);
}

void AssignSchemes::collectWeights() {
  weights.clear();
  getOperation().walk([&](NodeOp node) {
    if (std::optional<unsigned> axis = getFilterChannelAxis(node))
      return addReader(node, node.getInputs()[1], Weight::Filter, *axis);
    SmallVector<MatrixStack> stacks = getMatrixStacks(node);
    for (MatrixStack stack : stacks)
      addReader(node, node.getInputs()[stack.operand], Weight::Stack,
                stack.axis);
    if (!stacks.empty())
      return;
    std::optional<unsigned> operand = getWeightOperand(node);
    if (!operand)
      return;
    MatrixSource source = getMatrixSource(node.getInputs()[*operand]);
    addReader(node, source.value, Weight::Matrix,
              getReductionAxis(node, source.transposed));
  });
}

static bool matches(const Rule &rule, ConstantOp constant,
                    ArrayRef<NodeOp> readers) {
  if (rule.larger || rule.smaller) {
    auto type = dyn_cast<ShapedType>(constant.getType());
    if (!type || !type.hasStaticShape())
      return false;
    return rule.larger ? type.getNumElements() > *rule.larger
                       : type.getNumElements() < *rule.smaller;
  }
  if (rule.names && rule.names->match(constant.getName()))
    return true;
  return llvm::any_of(readers, [&](NodeOp reader) {
    return rule.names ? rule.names->match(reader.getDisplayName())
                      : reader.getOpType() == rule.opType;
  });
}

const Rule *AssignSchemes::findRule(ConstantOp constant,
                                    const Weight &weight) const {
  auto rule = llvm::find_if(parsedRules, [&](const Rule &rule) {
    return matches(rule, constant, weight.readers);
  });
  return rule == parsedRules.end() ? nullptr : &*rule;
}

void AssignSchemes::keep(ConstantOp constant, const Weight &weight,
                         const Twine &why) {
  ++numKept;
  for (NodeOp reader : weight.readers)
    reader->setAttr(
        kKeptAttrName,
        StringAttr::get(&getContext(),
                        "weight '" + constant.getName() + "' " + why));
}

void AssignSchemes::assign(ConstantOp constant, const Weight &weight) {
  bool isTable = llvm::any_of(
      weight.readers, [](NodeOp node) { return node.isOnnx("Gather"); });
  std::optional<Scheme> chosen = isTable ? std::nullopt : defaultScheme;
  const Rule *rule = findRule(constant, weight);
  if (rule)
    chosen = rule->scheme;

  auto type = dyn_cast<RankedTensorType>(constant.getType());
  bool isFloat =
      type && (type.getElementType().isF32() || type.getElementType().isF16() ||
               type.getElementType().isBF16());
  // Indices and shapes are gathered too: they are no weights.
  if (!isFloat && isTable)
    return;
  bool isFilter = weight.kind == Weight::Filter;
  if (!isFloat || (weight.kind == Weight::Matrix ? type.getRank() != 2
                                                 : type.getRank() < 3))
    return keep(constant, weight,
                isFilter ? "is no filter of f32, f16 or bf16"
                         : "is no matrix of f32, f16 or bf16");
  if (!llvm::all_of(constant->getUsers(), llvm::IsaPred<NodeOp>))
    return keep(constant, weight, "is an output of the graph");
  if (!getConstantValue(constant.getResult()))
    return keep(constant, weight, "has a form that cannot be read");
  if (!weight.hasOneAxis)
    return keep(constant, weight,
                "is read along both of its dimensions; one scheme cannot "
                "serve both");
  if (type.getNumElements() == 0)
    return keep(constant, weight, "has no elements");
  if (!chosen)
    return keep(constant, weight,
                rule      ? "is kept by a rule"
                : isTable ? "is an embedding, which only a rule quantizes"
                          : "has the default scheme 'keep'");
  // A filter has no groups of inputs. Without a rule it gets what costs little
  // anywhere: 8 bits and a scale for each channel.
  bool isGroupedFilter = isFilter && chosen->granularity == Granularity::Group;
  if (isGroupedFilter && !rule)
    chosen = *parseScheme("w8cs");
  else if (isGroupedFilter)
    return keep(constant, weight,
                "is a filter, which has no groups of inputs; give it a scale "
                "for each channel, for example by the rule op:" +
                    NodeOp(weight.readers.front()).getOpType() + "=w8cs");
  if (weight.kind == Weight::Stack && !chosen->storage.isInteger())
    return keep(constant, weight,
                "is a stack of matrices, for which ONNX has integers only");
  chosen = withScalesFor(*chosen, type.getElementType());
  constant->setAttr(kEncodingAttrName,
                    isFilter ? getFilterEncoding(&getContext(), *chosen,
                                                 type.getRank(), weight.axis)
                             : getStackEncoding(&getContext(), *chosen,
                                                type.getRank(), weight.axis));
  removeFromInputs(constant);
  ++numAssigned;
}

void AssignSchemes::runOnOperation() {
  if (failed(parseRules()))
    return signalPassFailure();
  collectWeights();
  for (auto &[constant, weight] : weights)
    assign(constant, weight);
}
