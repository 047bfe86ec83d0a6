//===- Control.cpp - Types of If, Loop, Scan and containers ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/Diagnostics.h"
#include "llvm/ADT/ScopeExit.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The types that a body returns; null for one that is unknown.
static SmallVector<Type> getBodyTypes(Region &body) {
  SmallVector<Type> types;
  for (Value value : body.front().getTerminator()->getOperands())
    types.push_back(isa<UnknownType>(value.getType()) ? Type()
                                                      : value.getType());
  return types;
}

static Region *getBody(NodeOp node) {
  return node->getNumRegions() == 1 ? &node->getRegion(0) : nullptr;
}

static void inferIf(RuleContext &context) {
  NodeOp node = context.getNode();
  if (node->getNumRegions() != 2)
    return context.reject();
  SmallVector<Type> left = getBodyTypes(node->getRegion(0));
  SmallVector<Type> right = getBodyTypes(node->getRegion(1));
  if (left.size() != context.getNumOutputs() || right.size() != left.size())
    return context.reject();
  for (auto [index, types] : llvm::enumerate(llvm::zip(left, right)))
    context.setType(index, joinTypes(std::get<0>(types), std::get<1>(types)));
}

//===----------------------------------------------------------------------===//
// Loop
//===----------------------------------------------------------------------===//

/// The types that the values which a Loop carries have in every iteration:
/// those that go in, less what the body changes about them. Tried on a copy of
/// the body, until nothing changes. Null where a type is not known.
static SmallVector<Type> findCarriedTypes(RuleContext &context) {
  NodeOp node = context.getNode();
  SmallVector<Type> types;
  for (unsigned i = 2; i < context.getNumInputs(); ++i)
    types.push_back(context.getType(i));
  // What a guess contradicts is no error of the model.
  ScopedDiagnosticHandler silence(context.getContext(),
                                  [](Diagnostic &) { return success(); });
  constexpr unsigned maxTries = 16;
  for (unsigned tries = 0; tries < maxTries; ++tries) {
    auto trial = cast<NodeOp>(OpBuilder(node).clone(*node));
    llvm::scope_exit erase([&] { trial->erase(); });
    Block &body = trial->getRegion(0).front();
    for (auto [i, type] : llvm::enumerate(types)) {
      Value argument = body.getArgument(i + 2);
      Type refined = type ? refineTypes(argument.getType(), type) : Type();
      if (refined)
        argument.setType(refined);
    }
    ShapeInference inference(context.getInference());
    if (failed(inference.visit(body)))
      return SmallVector<Type>(types.size());
    SmallVector<Type> joined;
    auto returned = getBodyTypes(trial->getRegion(0));
    for (auto [i, type] : llvm::enumerate(types))
      joined.push_back(type && i + 1 < returned.size()
                           ? joinTypes(type, returned[i + 1])
                           : Type());
    if (joined == types)
      return types;
    types = std::move(joined);
  }
  return SmallVector<Type>(types.size());
}

/// Inputs: trip count, condition, carried values. Arguments of the body:
/// iteration, condition, carried values. It returns the condition, the carried
/// values, and one element for each output that is collected.
static LogicalResult bindLoop(RuleContext &context) {
  NodeOp node = context.getNode();
  Region *body = getBody(node);
  unsigned arguments = body ? body->getNumArguments() : 0;
  if (arguments < 2 || arguments != context.getNumInputs())
    return success();
  Builder builder(context.getContext());
  ShapeInference &inference = context.getInference();
  auto bind = [&](unsigned index, Type type) {
    return inference.refineType(
        node, body->getArgument(index),
        "argument " + std::to_string(index) + " of the body", type);
  };
  // Models write the scalars as [1] too.
  auto scalar = [&](unsigned index, Type elementType) -> Type {
    if (isa<RankedTensorType>(body->getArgument(index).getType()))
      return UnrankedTensorType::get(elementType);
    return RankedTensorType::get({}, elementType);
  };
  if (failed(bind(0, scalar(0, builder.getI64Type()))) ||
      failed(bind(1, scalar(1, builder.getI1Type()))))
    return failure();
  SmallVector<Type> carried = findCarriedTypes(context);
  for (unsigned i = 2; i < arguments; ++i) {
    // The shape may change from one iteration to the next.
    Type elementType = context.getElementType(i), type = carried[i - 2];
    if (!type && elementType)
      type = UnrankedTensorType::get(elementType);
    if (failed(bind(i, type)))
      return failure();
  }
  return success();
}

static Type addLeadingDimension(Type type, const Dimension &size) {
  auto tensor = dyn_cast_if_present<TensorType>(type);
  if (!tensor)
    return {};
  auto ranked = dyn_cast<RankedTensorType>(type);
  if (!ranked)
    return tensor;
  Shape shape = getDimensions(ranked);
  shape.insert(shape.begin(), size);
  return getTensorType(shape, ranked.getElementType());
}

static void inferLoop(RuleContext &context) {
  NodeOp node = context.getNode();
  Region *body = getBody(node);
  if (!body || context.getNumInputs() < 2)
    return context.reject();
  SmallVector<Type> types = getBodyTypes(*body);
  unsigned carried = context.getNumInputs() - 2;
  if (types.size() != context.getNumOutputs() + 1 ||
      carried > context.getNumOutputs())
    return context.reject();
  for (unsigned i = 0; i < context.getNumOutputs(); ++i) {
    Type type = types[i + 1];
    // After no iteration, a carried value is what went in.
    context.setType(i, i < carried ? joinTypes(type, context.getType(i + 2))
                                   : addLeadingDimension(type, {}));
  }
}

//===----------------------------------------------------------------------===//
// Scan
//===----------------------------------------------------------------------===//

namespace {
struct ScanLayout {
  unsigned states, scanned;
  SmallVector<int64_t> inputAxes, outputAxes;
};
} // namespace

static std::optional<ScanLayout> getScanLayout(RuleContext &context) {
  int64_t scanned = context.getInt("num_scan_inputs", 0);
  if (scanned <= 0 || scanned > context.getNumInputs() || context.isRejected())
    return std::nullopt;
  ScanLayout layout;
  layout.scanned = scanned;
  layout.states = context.getNumInputs() - layout.scanned;
  if (layout.states > context.getNumOutputs())
    return std::nullopt;
  unsigned outputs = context.getNumOutputs() - layout.states;
  layout.inputAxes = context.getInts("scan_input_axes")
                         .value_or(SmallVector<int64_t>(layout.scanned, 0));
  layout.outputAxes = context.getInts("scan_output_axes")
                          .value_or(SmallVector<int64_t>(outputs, 0));
  if (layout.inputAxes.size() != layout.scanned ||
      layout.outputAxes.size() != outputs)
    return std::nullopt;
  return layout;
}

/// Input `index` without the axis that is scanned, whose size goes to `length`.
static Type getScannedElement(RuleContext &context, unsigned index,
                              int64_t axis, Dimension &length) {
  auto shape = context.getShape(index);
  if (!shape)
    return {};
  auto position = normalizeAxis(axis, shape->size());
  if (!position || !context.getElementType(index))
    return {};
  length = (*shape)[*position];
  shape->erase(shape->begin() + *position);
  return getTensorType(*shape, context.getElementType(index));
}

static LogicalResult bindScan(RuleContext &context) {
  NodeOp node = context.getNode();
  Region *body = getBody(node);
  auto layout = getScanLayout(context);
  if (!body || !layout || body->getNumArguments() != context.getNumInputs())
    return success();
  for (unsigned i = 0; i < body->getNumArguments(); ++i) {
    // A state keeps its shape, unlike a value that a Loop carries.
    Dimension length;
    Type type =
        i < layout->states
            ? context.getType(i)
            : getScannedElement(context, i,
                                layout->inputAxes[i - layout->states], length);
    if (failed(context.getInference().refineType(
            node, body->getArgument(i),
            "argument " + std::to_string(i) + " of the body", type)))
      return failure();
  }
  return success();
}

static void inferScan(RuleContext &context) {
  Region *body = getBody(context.getNode());
  auto layout = getScanLayout(context);
  if (!body || !layout)
    return context.reject();
  SmallVector<Type> types = getBodyTypes(*body);
  if (types.size() != context.getNumOutputs())
    return context.reject();
  Dimension length;
  for (unsigned i = 0; i < layout->scanned; ++i) {
    Dimension found;
    getScannedElement(context, layout->states + i, layout->inputAxes[i], found);
    if (found.isStatic() || !length.symbol)
      length = found.isStatic() || found.symbol ? found : length;
  }
  for (unsigned i = 0; i < types.size(); ++i) {
    if (i < layout->states) {
      context.setType(i, types[i] ? types[i] : context.getType(i));
      continue;
    }
    auto element = dyn_cast_if_present<RankedTensorType>(types[i]);
    if (!element) {
      context.setType(i, types[i]);
      continue;
    }
    Shape shape = getDimensions(element);
    auto axis =
        normalizeAxis(layout->outputAxes[i - layout->states], shape.size() + 1);
    if (!axis)
      return context.reject();
    shape.insert(shape.begin() + *axis, length);
    context.setType(i, getTensorType(shape, element.getElementType()));
  }
}

LogicalResult onnx::bindBodyArguments(RuleContext &context) {
  NodeOp node = context.getNode();
  if (node.isOnnx("Loop"))
    return bindLoop(context);
  // Scan of opset 8 has a batch dimension and no rule.
  if (node.isOnnx("Scan") && context.getVersion() >= 9)
    return bindScan(context);
  return success();
}

//===----------------------------------------------------------------------===//
// Sequences and optionals
//===----------------------------------------------------------------------===//

static void inferSequenceLength(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI64Type(), Shape());
}

static void inferSequenceConstruct(RuleContext &context) {
  Type element = context.getNumInputs() ? context.getType(0) : Type();
  for (unsigned i = 1; i < context.getNumInputs() && element; ++i)
    element = joinTypes(element, context.getType(i));
  if (element)
    context.setType(0, SequenceType::get(context.getContext(), element));
}

static void inferSequenceEmpty(RuleContext &context) {
  Type type = context.getDataType("dtype");
  if (!type)
    type = Builder(context.getContext()).getF32Type();
  context.setType(0, SequenceType::get(context.getContext(),
                                       UnrankedTensorType::get(type)));
}

static void inferSequenceAt(RuleContext &context) {
  if (auto sequence = dyn_cast_if_present<SequenceType>(context.getType(0)))
    context.setType(0, sequence.getElementType());
}

static void inferSequenceInsert(RuleContext &context) {
  auto sequence = dyn_cast_if_present<SequenceType>(context.getType(0));
  if (!sequence)
    return;
  Type element = joinTypes(sequence.getElementType(), context.getType(1));
  if (element)
    context.setType(0, SequenceType::get(context.getContext(), element));
}

static void inferHasElement(RuleContext &context) {
  context.set(0, Builder(context.getContext()).getI1Type(), Shape());
}

static void inferGetElement(RuleContext &context) {
  Type type = context.getType(0);
  if (auto optional = dyn_cast_if_present<OptionalType>(type))
    type = optional.getElementType();
  context.setType(0, type);
}

static void inferOptional(RuleContext &context) {
  if (Type type = context.getType(0))
    context.setType(0, OptionalType::get(context.getContext(), type));
}

void onnx::addControlRules(ShapeRules &rules) {
  rules.add({"If"}, inferIf);
  rules.add({"Loop"}, inferLoop);
  rules.add({"Scan"}, inferScan, 9);
  rules.add({"SequenceLength"}, inferSequenceLength);
  rules.add({"SequenceConstruct"}, inferSequenceConstruct);
  rules.add({"SequenceEmpty"}, inferSequenceEmpty);
  rules.add({"SequenceAt"}, inferSequenceAt);
  rules.add({"SequenceErase"}, inferSameAsFirst);
  rules.add({"SequenceInsert"}, inferSequenceInsert);
  rules.add({"Optional"}, inferOptional);
  rules.add({"OptionalHasElement"}, inferHasElement);
  rules.add({"OptionalGetElement"}, inferGetElement);
}
