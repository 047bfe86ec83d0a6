//===- OnnxOps.cpp - Operations of the onnx dialect -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Assembly
//===----------------------------------------------------------------------===//

/// `{axis = 1 : i64, …}`, in the order of the file; nothing when empty.
static ParseResult parseNodeAttributes(OpAsmParser &parser,
                                       ArrayAttr &attributes) {
  SmallVector<Attribute> parsed;
  auto parseOne = [&]() -> ParseResult {
    std::string name;
    Attribute value;
    if (parser.parseKeywordOrString(&name) || parser.parseEqual() ||
        parser.parseAttribute(value))
      return failure();
    parsed.push_back(NodeAttributeAttr::get(
        parser.getContext(), parser.getBuilder().getStringAttr(name), value));
    return success();
  };
  if (parser.parseCommaSeparatedList(OpAsmParser::Delimiter::OptionalBraces,
                                     parseOne))
    return failure();
  attributes = parser.getBuilder().getArrayAttr(parsed);
  return success();
}

static void printNodeAttributes(OpAsmPrinter &printer, NodeOp node,
                                ArrayAttr attributes) {
  // Empty braces tell the discardable attributes that follow from the node's.
  if (attributes.empty() && node->getDiscardableAttrs().empty())
    return;
  printer << "{";
  llvm::interleaveComma(attributes.getAsRange<NodeAttributeAttr>(), printer,
                        [&](NodeAttributeAttr attribute) {
                          printer.printKeywordOrString(attribute.getName());
                          printer << " = " << attribute.getValue();
                        });
  printer << "}";
}

/// `: type = value`; the type comes first so that the value need not repeat it.
static ParseResult parseTypedValue(OpAsmParser &parser, Attribute &value,
                                   Type &type) {
  return failure(parser.parseColonType(type) || parser.parseEqual() ||
                 parser.parseAttribute(value, type));
}

static void printTypedValue(OpAsmPrinter &printer, ConstantOp, Attribute value,
                            Type type) {
  printer << ": " << type << " = ";
  printer.printAttributeWithoutType(value);
}

#define GET_OP_CLASSES
#include "nibble/Dialect/Onnx/IR/OnnxOps.cpp.inc"

/// The last part of an ONNX name says most: "…/q_proj/MatMul" becomes "MatMul".
static StringRef getShortName(StringRef name) {
  name = name.rtrim('/');
  size_t slash = name.rfind('/');
  return slash == StringRef::npos ? name : name.substr(slash + 1);
}

//===----------------------------------------------------------------------===//
// ConstantOp
//===----------------------------------------------------------------------===//

void ConstantOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getResult(), getName());
}

LogicalResult ConstantOp::verify() {
  if (isa<WireAttr, SparseTensorDataAttr>(getValue()))
    return success();
  auto typed = dyn_cast<TypedAttr>(getValue());
  if (!typed || !isa<DenseElementsAttr, DenseResourceElementsAttr,
                     FileElementsAttr, StringsAttr>(getValue()))
    return emitOpError("'") << getName()
                            << "' needs a dense, dense_resource, onnx.file, "
                               "onnx.strings, onnx.sparse or onnx.wire value";
  if (typed.getType() != getType())
    return emitOpError("'") << getName() << "' has a value of type "
                            << typed.getType() << ", not " << getType();
  return success();
}

//===----------------------------------------------------------------------===//
// NodeOp
//===----------------------------------------------------------------------===//

void NodeOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  for (auto [result, name] : llvm::zip(getResults(), getOutputs()))
    if (auto string = dyn_cast<StringAttr>(name); string && !string.empty())
      setName(result, getShortName(string));
}

/// Number of regions that the value of an attribute needs.
static unsigned countGraphs(Attribute value) {
  if (isa<GraphAttr>(value))
    return 1;
  auto array = dyn_cast<ArrayAttr>(value);
  return array ? llvm::count_if(array, llvm::IsaPred<GraphAttr>) : 0;
}

LogicalResult NodeOp::verify() {
  if (getOutputs().size() != getNumResults())
    return emitOpError() << "names " << getOutputs().size()
                         << " outputs but has " << getNumResults()
                         << " results";
  llvm::StringSet<> names;
  unsigned graphs = 0;
  for (auto attribute : getNodeAttributes().getAsRange<NodeAttributeAttr>()) {
    if (!names.insert(attribute.getName()).second)
      return emitOpError() << "has two attributes called '"
                           << attribute.getName().getValue() << "'";
    graphs += countGraphs(attribute.getValue());
  }
  if (graphs != getNumRegions())
    return emitOpError() << "has " << graphs << " graph attributes but "
                         << getNumRegions() << " regions";
  for (Region &region : getSubgraphs())
    if (!isa_and_present<ReturnOp>(region.front().getTerminator()))
      return emitOpError("a subgraph must end with onnx.return");
  return success();
}

Attribute NodeOp::getAttributeValue(StringRef name) {
  for (auto attribute : getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (attribute.getName() == name)
      return attribute.getValue();
  return {};
}

void NodeOp::setAttributeValue(StringRef name, Attribute value) {
  auto entry = NodeAttributeAttr::get(
      getContext(), StringAttr::get(getContext(), name), value);
  SmallVector<Attribute> entries(getNodeAttributes().getValue());
  auto it = llvm::find_if(entries, [&](Attribute attribute) {
    return cast<NodeAttributeAttr>(attribute).getName() == name;
  });
  if (it == entries.end())
    entries.push_back(entry);
  else
    *it = entry;
  setNodeAttributesAttr(ArrayAttr::get(getContext(), entries));
}

void NodeOp::removeAttributeValue(StringRef name) {
  SmallVector<Attribute> entries(getNodeAttributes().getValue());
  llvm::erase_if(entries, [&](Attribute attribute) {
    return cast<NodeAttributeAttr>(attribute).getName() == name;
  });
  setNodeAttributesAttr(ArrayAttr::get(getContext(), entries));
}

int64_t NodeOp::getInt(StringRef name, int64_t defaultValue) {
  auto value = dyn_cast_if_present<IntegerAttr>(getAttributeValue(name));
  return value ? value.getInt() : defaultValue;
}

float NodeOp::getFloat(StringRef name, float defaultValue) {
  auto value = dyn_cast_if_present<FloatAttr>(getAttributeValue(name));
  return value ? static_cast<float>(value.getValueAsDouble()) : defaultValue;
}

StringRef NodeOp::getString(StringRef name, StringRef defaultValue) {
  auto value = dyn_cast_if_present<StringAttr>(getAttributeValue(name));
  return value ? value.getValue() : defaultValue;
}

std::optional<ArrayRef<int64_t>> NodeOp::getInts(StringRef name) {
  auto value = dyn_cast_if_present<DenseI64ArrayAttr>(getAttributeValue(name));
  return value ? std::optional(value.asArrayRef()) : std::nullopt;
}

bool NodeOp::isOnnx(StringRef opType) {
  StringRef domain = getDomain().value_or("");
  return getOpType() == opType && (domain.empty() || domain == "ai.onnx");
}

bool NodeOp::isMicrosoft(StringRef opType) {
  return getOpType() == opType && getDomain() == "com.microsoft";
}

Value NodeOp::getInput(unsigned index) {
  if (index >= getInputs().size())
    return {};
  Value input = getInputs()[index];
  return input.getDefiningOp<AbsentOp>() ? Value() : input;
}

StringRef NodeOp::getOutputName(unsigned index) {
  return cast<StringAttr>(getOutputs()[index]).getValue();
}

std::string NodeOp::getDisplayName() {
  if (getName() && !getName()->empty())
    return getName()->str();
  for (unsigned i = 0; i < getNumResults(); ++i)
    if (!getOutputName(i).empty())
      return getOutputName(i).str();
  return getOpType().str();
}
