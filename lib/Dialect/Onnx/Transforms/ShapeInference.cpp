//===- ShapeInference.cpp - Types and shapes of ONNX values ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"

#include "ShapeRules/ShapeRules.h"
#include "nibble/Dialect/Onnx/IR/DataTypes.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "llvm/ADT/Twine.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Lattice of types
//===----------------------------------------------------------------------===//

/// Applies `combine` to the element types and dimensions of two tensor types.
static Type refineElementType(Type stated, Type found) {
  if (isa<UnknownType>(stated))
    return found;
  return isa<UnknownType>(found) || stated == found ? stated : Type();
}

static Type refineTensors(TensorType stated, TensorType found) {
  Type elementType =
      refineElementType(stated.getElementType(), found.getElementType());
  if (!elementType)
    return {};
  auto left = dyn_cast<RankedTensorType>(stated);
  auto right = dyn_cast<RankedTensorType>(found);
  if (!left && !right)
    return UnrankedTensorType::get(elementType);
  if (!left || !right)
    return getTensorType(getDimensions(left ? left : right), elementType);
  if (left.getRank() != right.getRank())
    return {};
  Shape dimensions = getDimensions(left);
  for (auto [mine, other] : llvm::zip(dimensions, getDimensions(right))) {
    if (mine.isStatic() && other.isStatic() && mine.size != other.size)
      return {};
    if (!mine.isStatic() && (other.isStatic() || !mine.symbol))
      mine = other;
  }
  return getTensorType(dimensions, elementType);
}

Type onnx::refineTypes(Type stated, Type found) {
  if (!stated || isa<UnknownType>(stated))
    return found;
  if (!found || isa<UnknownType>(found) || stated == found)
    return stated;
  if (auto left = dyn_cast<TensorType>(stated))
    if (auto right = dyn_cast<TensorType>(found))
      return refineTensors(left, right);
  auto wrap = [&](auto left) -> Type {
    using Wrapper = decltype(left);
    auto right = dyn_cast<Wrapper>(found);
    if (!right)
      return {};
    Type element = refineTypes(left.getElementType(), right.getElementType());
    return element ? Wrapper::get(stated.getContext(), element) : Type();
  };
  if (auto sequence = dyn_cast<SequenceType>(stated))
    return wrap(sequence);
  if (auto optional = dyn_cast<OptionalType>(stated))
    return wrap(optional);
  return {};
}

/// The dimensions of a type. Some exporters call every dynamic one "?", which
/// is no name: two of them need not be equal.
static Shape getNamedDimensions(RankedTensorType type) {
  Shape shape = getDimensions(type);
  for (Dimension &dimension : shape)
    if (dimension.symbol && dimension.symbol.getValue() == "?")
      dimension.symbol = {};
  return shape;
}

Type onnx::joinTypes(Type left, Type right) {
  if (!left || !right || left == right)
    return left == right ? left : Type();
  auto leftTensor = dyn_cast<TensorType>(left);
  auto rightTensor = dyn_cast<TensorType>(right);
  if (!leftTensor || !rightTensor ||
      leftTensor.getElementType() != rightTensor.getElementType())
    return {};
  Type elementType = leftTensor.getElementType();
  auto leftRanked = dyn_cast<RankedTensorType>(left);
  auto rightRanked = dyn_cast<RankedTensorType>(right);
  if (!leftRanked || !rightRanked ||
      leftRanked.getRank() != rightRanked.getRank())
    return UnrankedTensorType::get(elementType);
  Shape dimensions = getNamedDimensions(leftRanked);
  for (auto [mine, other] :
       llvm::zip(dimensions, getNamedDimensions(rightRanked)))
    if (!mine.isKnownEqual(other))
      mine = Dimension();
  return getTensorType(dimensions, elementType);
}

//===----------------------------------------------------------------------===//
// RuleContext
//===----------------------------------------------------------------------===//

RuleContext::RuleContext(NodeOp node, int64_t version,
                         ShapeInference &inference)
    : node(node), version(version), inference(inference),
      types(node->getNumResults()), values(node->getNumResults()) {}

bool RuleContext::hasInput(unsigned index) const {
  return getNode().getInput(index) != nullptr;
}

Type RuleContext::getType(unsigned index) const {
  Value input = getNode().getInput(index);
  return input && !isa<UnknownType>(input.getType()) ? input.getType() : Type();
}

Type RuleContext::getElementType(unsigned index) const {
  auto tensor = dyn_cast_if_present<TensorType>(getType(index));
  return tensor && !isa<UnknownType>(tensor.getElementType())
             ? tensor.getElementType()
             : Type();
}

std::optional<Shape> RuleContext::getShape(unsigned index) const {
  auto tensor = dyn_cast_if_present<RankedTensorType>(getType(index));
  return tensor ? std::optional(getNamedDimensions(tensor)) : std::nullopt;
}

std::optional<Shape> RuleContext::getValue(unsigned index) const {
  Value input = getNode().getInput(index);
  return input ? inference.getValue(input) : std::nullopt;
}

std::optional<SmallVector<int64_t>>
RuleContext::getIntegers(unsigned index) const {
  std::optional<Shape> value = getValue(index);
  if (!value)
    return std::nullopt;
  SmallVector<int64_t> integers;
  for (const Dimension &element : *value) {
    if (!element.isStatic())
      return std::nullopt;
    integers.push_back(element.size);
  }
  return integers;
}

std::optional<std::vector<float>> RuleContext::getFloats(unsigned index) const {
  auto constant = dyn_cast_if_present<TypedAttr>(
      getConstantValue(getNode().getInput(index)));
  auto type = constant ? dyn_cast<RankedTensorType>(constant.getType())
                       : RankedTensorType();
  if (!type || !type.hasStaticShape() ||
      type.getNumElements() > kMaxShapeElements)
    return std::nullopt;
  return onnx::getFloats(constant);
}

int64_t RuleContext::getInt(StringRef name, int64_t defaultValue) {
  Attribute value = node.getAttributeValue(name);
  if (value && !isa<IntegerAttr>(value))
    reject();
  return node.getInt(name, defaultValue);
}

StringRef RuleContext::getString(StringRef name, StringRef defaultValue) {
  Attribute value = node.getAttributeValue(name);
  if (value && !isa<StringAttr>(value))
    reject();
  return node.getString(name, defaultValue);
}

std::optional<SmallVector<int64_t>> RuleContext::getInts(StringRef name) {
  Attribute value = node.getAttributeValue(name);
  if (!value)
    return std::nullopt;
  auto array = dyn_cast<DenseI64ArrayAttr>(value);
  if (!array) {
    reject();
    return std::nullopt;
  }
  return SmallVector<int64_t>(array.asArrayRef());
}

std::optional<SmallVector<float>> RuleContext::getFloatList(StringRef name) {
  Attribute value = node.getAttributeValue(name);
  if (!value)
    return std::nullopt;
  auto array = dyn_cast<DenseF32ArrayAttr>(value);
  if (!array) {
    reject();
    return std::nullopt;
  }
  return SmallVector<float>(array.asArrayRef());
}

Type RuleContext::getDataType(StringRef name) {
  int64_t dataType = getInt(name, 0);
  // 0 is UNDEFINED.
  if (isRejected() || dataType <= 0)
    return {};
  return onnx::getElementType(getContext(), dataType);
}

std::optional<SmallVector<int64_t>>
RuleContext::getIntegersOrAttribute(unsigned index, StringRef name,
                                    bool &isGiven) {
  isGiven = hasInput(index);
  if (isGiven)
    return getIntegers(index);
  auto attribute = getInts(name);
  isGiven = attribute.has_value();
  return attribute;
}

void RuleContext::set(unsigned index, Type elementType,
                      std::optional<Shape> shape) {
  if (!elementType)
    return;
  setType(index, shape ? Type(getTensorType(*shape, elementType))
                       : UnrankedTensorType::get(elementType));
}

void RuleContext::setType(unsigned index, Type type) {
  if (index < types.size())
    types[index] = type;
}

void RuleContext::setValue(unsigned index, Shape value) {
  if (index < values.size() &&
      static_cast<int64_t>(value.size()) <= kMaxShapeElements)
    values[index] = std::move(value);
}

//===----------------------------------------------------------------------===//
// ShapeRules
//===----------------------------------------------------------------------===//

static std::string getRuleKey(StringRef domain, StringRef opType) {
  return (domain + ":" + opType).str();
}

void ShapeRules::add(StringRef domain, StringRef opType, int64_t since,
                     ShapeRule rule) {
  auto &versions = rules[getRuleKey(domain, opType)];
  versions.push_back({since, rule});
  llvm::sort(versions, llvm::less_first());
}

void ShapeRules::add(ArrayRef<StringRef> opTypes, ShapeRule rule,
                     int64_t since) {
  for (StringRef opType : opTypes)
    add("", opType, since, rule);
}

ShapeRule ShapeRules::lookup(StringRef domain, StringRef opType,
                             int64_t version) const {
  auto it = rules.find(getRuleKey(domain, opType));
  if (it == rules.end())
    return nullptr;
  ShapeRule found = nullptr;
  for (auto [since, rule] : it->second)
    if (since <= version)
      found = rule;
  return found;
}

const ShapeRules &ShapeRules::get() {
  static const ShapeRules rules = [] {
    ShapeRules all;
    addAttentionRules(all);
    addControlRules(all);
    addConvolutionRules(all);
    addElementwiseRules(all);
    addIndexingRules(all);
    addMatMulRules(all);
    addNormalizationRules(all);
    addQuantizationRules(all);
    addRecurrentRules(all);
    addReductionRules(all);
    addShapeRules(all);
    addSourceRules(all);
    return all;
  }();
  return rules;
}

//===----------------------------------------------------------------------===//
// ShapeInference
//===----------------------------------------------------------------------===//

/// The elements of a small constant integer tensor of rank 0 or 1.
static std::optional<Shape> getConstantElements(Value value) {
  auto constant = dyn_cast_if_present<TypedAttr>(getConstantValue(value));
  auto type = constant ? dyn_cast<RankedTensorType>(constant.getType())
                       : RankedTensorType();
  if (!type || type.getRank() > 1 || !type.hasStaticShape() ||
      type.getNumElements() > kMaxShapeElements)
    return std::nullopt;
  auto integers = getIntegers(constant);
  if (!integers)
    return std::nullopt;
  Shape elements;
  for (int64_t integer : *integers)
    elements.push_back({integer, {}});
  return elements;
}

std::optional<Shape> ShapeInference::getValue(Value value) {
  auto it = values.find(value);
  if (it != values.end())
    return it->second;
  std::optional<Shape> elements = getConstantElements(value);
  values[value] = elements;
  return elements;
}

/// Whether only the shape that a model states for a node's result is wrong:
/// exporters and editors of models leave such shapes behind, which no runtime
/// needs.
static bool isWrongShape(Value value, Type type) {
  auto stated = dyn_cast<TensorType>(value.getType());
  auto found = dyn_cast<TensorType>(type);
  return isa<OpResult>(value) && stated && found &&
         stated.getElementType() == found.getElementType();
}

LogicalResult ShapeInference::refineType(NodeOp node, Value value,
                                         StringRef name, Type type) {
  if (!refine || !type)
    return success();
  Type refined = refineTypes(value.getType(), type);
  if (!refined) {
    bool isOverruled = isWrongShape(value, type);
    InFlightDiagnostic report =
        isOverruled ? node.emitWarning("node '") : node.emitError("node '");
    report << node.getDisplayName() << "' (" << node.getOpType()
           << "): tensor '" << name << "' is stated to be " << value.getType()
           << ", but its inputs and attributes make it " << type
           << (isOverruled ? ", which is taken"
                           : "; correct the model's value_info, or remove it");
    if (!isOverruled)
      return report;
    refined = type;
  }
  // The types of an op of another dialect would no longer fit.
  bool isBound = llvm::any_of(value.getUsers(), [](Operation *user) {
    StringRef dialect = user->getName().getDialectNamespace();
    return dialect != "onnx" && dialect != "func" && dialect != "builtin";
  });
  if (refined != value.getType() && !isBound) {
    ++numRefined;
    value.setType(refined);
  }
  return success();
}

/// True where an attribute's value is not known here: it comes from the call of
/// a local function, or is kept verbatim.
static bool hasUnknownAttribute(NodeOp node) {
  return llvm::any_of(node.getNodeAttributes().getAsRange<NodeAttributeAttr>(),
                      [](NodeAttributeAttr attribute) {
                        return isa<AttributeReferenceAttr, WireAttr>(
                            attribute.getValue());
                      });
}

/// True where `value` can be the elements of a tensor of this type.
static bool fitsType(const Shape &value, Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  if (!tensor)
    return true;
  if (tensor.getRank() > 1)
    return false;
  int64_t size = tensor.getRank() == 0 ? 1 : tensor.getDimSize(0);
  return ShapedType::isDynamic(size) ||
         size == static_cast<int64_t>(value.size());
}

/// ONNX's own domain has two names.
static StringRef getDomain(NodeOp node) {
  StringRef domain = node.getDomain().value_or("");
  return domain == "ai.onnx" ? "" : domain;
}

int64_t onnx::getNodeVersion(NodeOp node) {
  StringRef domain = getDomain(node);
  int64_t version = getOpsetVersion(node, domain);
  if (domain.empty() && version == 0)
    version = getOpsetVersion(node, "ai.onnx");
  // A domain of one version that the model forgot to import.
  return std::max<int64_t>(version, 1);
}

ShapeRule ShapeInference::getRule(const RuleContext &context) {
  NodeOp node = context.getNode();
  if (hasUnknownAttribute(node))
    return nullptr;
  return ShapeRules::get().lookup(getDomain(node), node.getOpType(),
                                  context.getVersion());
}

SmallVector<Type> ShapeInference::getResultTypes(NodeOp node) {
  RuleContext context(node, getNodeVersion(node), *this);
  if (ShapeRule rule = getRule(context))
    rule(context);
  if (context.isRejected())
    return SmallVector<Type>(node->getNumResults());
  return SmallVector<Type>(context.getResultTypes());
}

/// States the last size of `value`, a node's result in `block`, and that of
/// what it has its shape from. Returns how many types became more precise.
static unsigned refineLastSize(Value value, int64_t size, Block *block) {
  auto node = value.getDefiningOp<NodeOp>();
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!node || node->getBlock() != block || !type || type.getRank() == 0 ||
      !type.isDynamicDim(type.getRank() - 1))
    return 0;
  SmallVector<Dimension> dimensions = getDimensions(type);
  dimensions.back() = {size, {}};
  value.setType(getTensorType(dimensions, type.getElementType()));
  bool hasShapeOfInput =
      value == node->getResult(0) &&
      llvm::any_of(ArrayRef<StringRef>{"Cast", "DequantizeLinear",
                                       "DynamicQuantizeLinear", "Identity",
                                       "QuantizeLinear"},
                   [&](StringRef opType) { return node.isOnnx(opType); });
  return 1 + (hasShapeOfInput ? refineLastSize(node.getInputs()[0], size, block)
                              : 0);
}

/// A product with a matrix tells the last size of what is multiplied: exporters
/// of attention leave it to a Reshape to -1.
static unsigned refineFactor(NodeOp node) {
  bool isProduct = node.isOnnx("MatMul") || node.isOnnx("MatMulInteger");
  bool isGemm = node.isOnnx("Gemm") && node.getInt("transA", 0) == 0;
  if ((!isProduct && !isGemm) || node.getInputs().size() < 2)
    return 0;
  auto matrix = dyn_cast<RankedTensorType>(node.getInputs()[1].getType());
  if (!matrix || matrix.getRank() != 2)
    return 0;
  unsigned axis = isGemm && node.getInt("transB", 0) != 0 ? 1 : 0;
  if (matrix.isDynamicDim(axis))
    return 0;
  return refineLastSize(node.getInputs()[0], matrix.getDimSize(axis),
                        node->getBlock());
}

LogicalResult ShapeInference::visit(NodeOp node) {
  RuleContext context(node, getNodeVersion(node), *this);
  ShapeRule rule = getRule(context);
  if (rule && failed(bindBodyArguments(context)))
    return failure();
  for (Region &body : node.getSubgraphs())
    if (failed(visit(body.front())))
      return failure();
  if (!rule)
    return success();
  rule(context);
  if (context.isRejected())
    return success();
  for (auto [index, result] : llvm::enumerate(node.getResults())) {
    if (failed(refineType(node, result, node.getOutputName(index),
                          context.getResultTypes()[index])))
      return failure();
    const std::optional<Shape> &value = context.getResultValues()[index];
    if (value && fitsType(*value, result.getType()))
      setValue(result, value);
  }
  if (refine)
    numRefined += refineFactor(node);
  return success();
}

LogicalResult ShapeInference::visit(Block &block) {
  for (auto node : block.getOps<NodeOp>())
    if (failed(visit(node)))
      return failure();
  return success();
}
