//===- Import.cpp - ONNX files to IR --------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/Import.h"

#include "Extras.h"
#include "ImportTensor.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Onnx/Schema.h"
#include "nibble/Onnx/TypeCodec.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/IR/Verifier.h"
#include "llvm/ADT/StringMap.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;
using wire::Field;

namespace {

/// protobuf's own limit on nested messages.
constexpr unsigned kMaxDepth = 100;

/// The names that a graph can see: its own and those of the graphs around it.
struct Scope {
  Scope *parent = nullptr;
  llvm::StringMap<Value> values;
  /// Types that the graph states, by name.
  llvm::StringMap<Type> types;
  /// Every output name of a node to come, to tell a cycle from a missing name.
  llvm::StringMap<std::string> producers;
  Value absent;

  Value lookup(StringRef name) const {
    for (const Scope *scope = this; scope; scope = scope->parent)
      if (auto it = scope->values.find(name); it != scope->values.end())
        return it->second;
    return {};
  }
};

/// A `GraphProto`, cut into its parts; all refer to the mapped file.
struct GraphParts {
  StringAttr name;
  SmallVector<StringRef> nodes, initializers, sparseInitializers, inputs,
      outputs, valueInfo;
  DictionaryAttr extras;
};

/// A `NodeProto`, cut into its parts.
struct NodeParts {
  SmallVector<StringRef> inputs, outputs, attributes;
  StringAttr name, opType, domain, overload;
  DictionaryAttr extras;

  std::string describe() const {
    StringRef type = opType ? opType.getValue() : "?";
    if (name && !name.empty())
      return ("node '" + name.getValue() + "' (" + type + ")").str();
    if (!outputs.empty())
      return ("node of output '" + outputs[0] + "' (" + type + ")").str();
    return ("a node (" + type + ")").str();
  }
};

class Importer {
public:
  Importer(MLIRContext *context, const MappedFile &file)
      : context(context), builder(context), file(file), tensors(context, file),
        loc(FileLineColLoc::get(context, file.getPath(), 0, 0)) {}

  OwningOpRef<ModuleOp> importModel();

private:
  LogicalResult error(const llvm::Twine &what) {
    return emitError(loc) << what;
  }
  LogicalResult error(llvm::Error failure) {
    return error(llvm::toString(std::move(failure)));
  }
  StringAttr str(StringRef string) { return builder.getStringAttr(string); }
  Attribute verbatim(StringRef message) {
    return WireAttr::get(context, str(message));
  }
  /// "file(node)": what a pass's diagnostics point at.
  Location locate(StringRef name) { return NameLoc::get(str(name), loc); }

  LogicalResult cutGraph(StringRef message, GraphParts &parts);
  LogicalResult cutNode(StringRef message, NodeParts &parts);
  LogicalResult importMainGraph(StringRef message, ModuleOp module);
  LogicalResult importFunction(StringRef message, ModuleOp module,
                               SymbolTable &symbols);
  /// Fills `block` with the graph; `outputs` are its results, not yet returned.
  FailureOr<GraphAttr> importGraph(StringRef message, Block *block,
                                   Scope &scope, unsigned depth,
                                   SmallVectorImpl<Value> &outputs);
  LogicalResult noteTypes(ArrayRef<StringRef> infos, Scope &scope);
  LogicalResult importInitializer(StringRef message, Scope &scope);
  LogicalResult importSparseInitializer(StringRef message, Scope &scope);
  FailureOr<SparseTensorDataAttr> importSparse(StringRef message,
                                               std::string &name);
  LogicalResult importNodes(ArrayRef<StringRef> nodes, Scope &scope,
                            unsigned depth);
  LogicalResult importNode(StringRef message, Scope &scope, unsigned depth);
  /// An attribute's value; null for a message that must stay verbatim. Bodies
  /// of graphs become entries of `regions`.
  FailureOr<NodeAttributeAttr>
  importAttribute(StringRef message, Scope *scope, unsigned depth,
                  SmallVectorImpl<std::unique_ptr<Region>> &regions);
  FailureOr<Attribute>
  importAttributeValue(AttributeKind kind, ArrayRef<Field> fields, Scope *scope,
                       unsigned depth,
                       SmallVectorImpl<std::unique_ptr<Region>> &regions);
  FailureOr<Attribute> importTensorAttribute(StringRef message);
  FailureOr<Attribute>
  importSubgraph(StringRef message, Scope *scope, unsigned depth,
                 SmallVectorImpl<std::unique_ptr<Region>> &regions);
  FailureOr<Value> resolve(StringRef name, Scope &scope,
                           const llvm::Twine &reader);
  LogicalResult define(StringRef name, Value value, Scope &scope);
  Value getAbsent(Scope &scope, Block *block);
  FailureOr<OpsetAttr> importOpset(StringRef message);

  /// The name that a ValueInfoProto is about.
  StringRef getInfoName(StringRef message);
  StringRef getInfoType(StringRef message, bool &hasType, bool &hasMore);
  /// An entry of a graph's lists: the name, if that and the type of `value` say
  /// everything, or else the message.
  Attribute makeInfoEntry(StringRef message, Value value);
  ArrayAttr makeInfoEntries(ArrayRef<StringRef> messages, const Scope &scope);

  MLIRContext *context;
  OpBuilder builder;
  const MappedFile &file;
  TensorImporter tensors;
  Location loc;
  /// The node whose attributes are being read, for messages.
  std::string currentNode = "a function";
};

} // namespace

//===----------------------------------------------------------------------===//
// Cutting messages
//===----------------------------------------------------------------------===//

LogicalResult Importer::cutGraph(StringRef message, GraphParts &parts) {
  ExtrasBuilder extras(context, kGraphExtras);
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (!field.isBytes()) {
      extras.add(field);
      continue;
    }
    switch (field.number) {
    case schema::GraphNode:
      parts.nodes.push_back(field.bytes);
      break;
    case schema::GraphName:
      parts.name = str(field.bytes);
      break;
    case schema::GraphInitializer:
      parts.initializers.push_back(field.bytes);
      break;
    case schema::GraphSparseInitializer:
      parts.sparseInitializers.push_back(field.bytes);
      break;
    case schema::GraphInput:
      parts.inputs.push_back(field.bytes);
      break;
    case schema::GraphOutput:
      parts.outputs.push_back(field.bytes);
      break;
    case schema::GraphValueInfo:
      parts.valueInfo.push_back(field.bytes);
      break;
    default:
      extras.add(field);
    }
  }
  parts.extras = extras.get();
  if (reader.getError())
    return error(llvm::Twine("the graph is damaged: ") + reader.getError());
  return success();
}

LogicalResult Importer::cutNode(StringRef message, NodeParts &parts) {
  ExtrasBuilder extras(context, kNodeExtras);
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (!field.isBytes()) {
      extras.add(field);
      continue;
    }
    switch (field.number) {
    case schema::NodeInput:
      parts.inputs.push_back(field.bytes);
      break;
    case schema::NodeOutput:
      parts.outputs.push_back(field.bytes);
      break;
    case schema::NodeName:
      parts.name = str(field.bytes);
      break;
    case schema::NodeOpType:
      parts.opType = str(field.bytes);
      break;
    case schema::NodeDomain:
      parts.domain = str(field.bytes);
      break;
    case schema::NodeOverload:
      parts.overload = str(field.bytes);
      break;
    case schema::NodeAttribute:
      parts.attributes.push_back(field.bytes);
      break;
    default:
      extras.add(field);
    }
  }
  parts.extras = extras.get();
  if (reader.getError())
    return error(parts.describe() + " is damaged: " + reader.getError());
  if (!parts.opType || parts.opType.empty())
    return error(parts.describe() + " has no op_type");
  return success();
}

//===----------------------------------------------------------------------===//
// Value infos
//===----------------------------------------------------------------------===//

StringRef Importer::getInfoName(StringRef message) {
  wire::Reader reader(message);
  for (Field field; reader.next(field);)
    if (field.number == schema::ValueInfoName)
      return field.bytes;
  return {};
}

StringRef Importer::getInfoType(StringRef message, bool &hasType,
                                bool &hasMore) {
  StringRef type;
  wire::Reader reader(message);
  hasType = hasMore = false;
  for (Field field; reader.next(field);) {
    if (field.number == schema::ValueInfoType && field.isBytes()) {
      hasMore |= hasType;
      hasType = true;
      type = field.bytes;
    } else if (field.number != schema::ValueInfoName) {
      hasMore = true;
    }
  }
  hasMore |= reader.getError() != nullptr;
  return type;
}

LogicalResult Importer::noteTypes(ArrayRef<StringRef> infos, Scope &scope) {
  for (StringRef message : infos) {
    bool hasType, hasMore;
    StringRef name = getInfoName(message);
    StringRef typeProto = getInfoType(message, hasType, hasMore);
    if (!hasType)
      continue;
    Type type = decodeType(context, typeProto).type;
    if (!type)
      return error("the type of '" + name +
                   "' is damaged or has an unknown data type");
    scope.types.try_emplace(name, type);
  }
  return success();
}

Attribute Importer::makeInfoEntry(StringRef message, Value value) {
  bool hasType, hasMore;
  StringAttr name = str(getInfoName(message));
  StringRef typeProto = getInfoType(message, hasType, hasMore);
  bool exact = value && !hasMore;
  if (exact && hasType) {
    DecodedType decoded = decodeType(context, typeProto);
    exact = decoded.exact && decoded.type == value.getType();
  } else if (exact) {
    exact = isa<UnknownType>(value.getType());
  }
  if (exact)
    return name;
  return ValueInfoAttr::get(context, name, str(message));
}

ArrayAttr Importer::makeInfoEntries(ArrayRef<StringRef> messages,
                                    const Scope &scope) {
  SmallVector<Attribute> entries;
  for (StringRef message : messages) {
    auto it = scope.values.find(getInfoName(message));
    entries.push_back(makeInfoEntry(
        message, it == scope.values.end() ? Value() : it->second));
  }
  return builder.getArrayAttr(entries);
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

LogicalResult Importer::define(StringRef name, Value value, Scope &scope) {
  if (!scope.values.try_emplace(name, value).second)
    return error("'" + name +
                 "' is defined twice; ONNX wants every value to have one name");
  return success();
}

FailureOr<Value> Importer::resolve(StringRef name, Scope &scope,
                                   const llvm::Twine &reader) {
  if (Value value = scope.lookup(name))
    return value;
  for (Scope *around = &scope; around; around = around->parent) {
    auto it = around->producers.find(name);
    if (it != around->producers.end())
      return error(reader + " reads '" + name + "', which only " + it->second +
                   " further on defines: the graph has a cycle, or its nodes "
                   "are not sorted");
  }
  return error(reader + " reads '" + name + "', which nothing defines");
}

Value Importer::getAbsent(Scope &scope, Block *block) {
  if (!scope.absent) {
    OpBuilder::InsertionGuard guard(builder);
    builder.setInsertionPointToStart(block);
    scope.absent =
        AbsentOp::create(builder, loc, builder.getNoneType()).getResult();
  }
  return scope.absent;
}

//===----------------------------------------------------------------------===//
// Attributes
//===----------------------------------------------------------------------===//

FailureOr<Attribute> Importer::importTensorAttribute(StringRef message) {
  auto tensor = tensors.import(message);
  if (!tensor)
    return error(currentNode + ": " + llvm::toString(tensor.takeError()));
  NamedAttrList extras(tensor->extras);
  if (isa<WireAttr>(tensor->value))
    extras.clear();
  else if (wire::Reader reader(message); true)
    for (Field field; reader.next(field);)
      if (field.number == schema::TensorName)
        extras.set("name", str(field.bytes));
  return TensorAttr::get(context, tensor->value, tensor->field,
                         extras.empty() ? DictionaryAttr()
                                        : extras.getDictionary(context));
}

FailureOr<Attribute>
Importer::importSubgraph(StringRef message, Scope *scope, unsigned depth,
                         SmallVectorImpl<std::unique_ptr<Region>> &regions) {
  auto region = std::make_unique<Region>();
  Block *block = &region->emplaceBlock();
  Scope inner;
  inner.parent = scope;
  SmallVector<Value> outputs;
  OpBuilder::InsertionGuard guard(builder);
  auto graph = importGraph(message, block, inner, depth, outputs);
  if (failed(graph))
    return failure();
  builder.setInsertionPointToEnd(block);
  ReturnOp::create(builder, loc, outputs);
  regions.push_back(std::move(region));
  return Attribute(*graph);
}

static std::optional<uint32_t> getValueField(AttributeKind kind) {
  switch (kind) {
  case AttributeKind::FLOAT:
    return schema::AttributeFloat;
  case AttributeKind::INT:
    return schema::AttributeInt;
  case AttributeKind::STRING:
    return schema::AttributeString;
  case AttributeKind::TENSOR:
    return schema::AttributeTensor;
  case AttributeKind::GRAPH:
    return schema::AttributeGraph;
  case AttributeKind::FLOATS:
    return schema::AttributeFloats;
  case AttributeKind::INTS:
    return schema::AttributeInts;
  case AttributeKind::STRINGS:
    return schema::AttributeStrings;
  case AttributeKind::TENSORS:
    return schema::AttributeTensors;
  case AttributeKind::GRAPHS:
    return schema::AttributeGraphs;
  case AttributeKind::SPARSE_TENSOR:
    return schema::AttributeSparseTensor;
  case AttributeKind::SPARSE_TENSORS:
    return schema::AttributeSparseTensors;
  case AttributeKind::TYPE_PROTO:
    return schema::AttributeTypeProto;
  case AttributeKind::TYPE_PROTOS:
    return schema::AttributeTypeProtos;
  }
  return std::nullopt;
}

static bool isScalarKind(AttributeKind kind) {
  return llvm::is_contained({AttributeKind::FLOAT, AttributeKind::INT,
                             AttributeKind::STRING, AttributeKind::TENSOR,
                             AttributeKind::GRAPH, AttributeKind::SPARSE_TENSOR,
                             AttributeKind::TYPE_PROTO},
                            kind);
}

/// The numbers of a repeated field, packed or not; false if one is neither.
static bool collectFloats(ArrayRef<Field> fields,
                          SmallVectorImpl<float> &values) {
  for (const Field &field : fields) {
    if (field.type == wire::WireType::Fixed32) {
      values.push_back(field.getFloat());
      continue;
    }
    if (!field.isBytes() || field.bytes.size() % 4 != 0)
      return false;
    for (size_t i = 0; i < field.bytes.size(); i += 4) {
      float value;
      memcpy(&value, field.bytes.data() + i, 4);
      values.push_back(value);
    }
  }
  return true;
}

static bool collectInts(ArrayRef<Field> fields,
                        SmallVectorImpl<int64_t> &values) {
  for (const Field &field : fields) {
    if (field.isVarint()) {
      values.push_back(field.getInt());
      continue;
    }
    SmallVector<uint64_t> packed;
    if (!field.isBytes() || !wire::decodeVarints(field.bytes, packed))
      return false;
    values.append(packed.begin(), packed.end());
  }
  return true;
}

FailureOr<Attribute> Importer::importAttributeValue(
    AttributeKind kind, ArrayRef<Field> fields, Scope *scope, unsigned depth,
    SmallVectorImpl<std::unique_ptr<Region>> &regions) {
  if (isScalarKind(kind) && fields.size() != 1)
    return Attribute();
  switch (kind) {
  case AttributeKind::FLOAT: {
    // From the bits: a NaN keeps its payload.
    if (fields[0].type != wire::WireType::Fixed32)
      return Attribute();
    APFloat value(APFloat::IEEEsingle(), APInt(32, fields[0].value));
    return Attribute(FloatAttr::get(builder.getF32Type(), value));
  }
  case AttributeKind::INT:
    if (!fields[0].isVarint())
      return Attribute();
    return Attribute(builder.getI64IntegerAttr(fields[0].getInt()));
  case AttributeKind::FLOATS: {
    SmallVector<float> values;
    if (!collectFloats(fields, values))
      return Attribute();
    return Attribute(builder.getDenseF32ArrayAttr(values));
  }
  case AttributeKind::INTS: {
    SmallVector<int64_t> values;
    if (!collectInts(fields, values))
      return Attribute();
    return Attribute(builder.getDenseI64ArrayAttr(values));
  }
  default:
    break;
  }

  // The rest are messages and strings, one or many.
  if (llvm::any_of(fields, [](const Field &field) { return !field.isBytes(); }))
    return Attribute();
  SmallVector<Attribute> values;
  for (const Field &field : fields) {
    FailureOr<Attribute> value;
    switch (kind) {
    case AttributeKind::STRING:
    case AttributeKind::STRINGS:
      value = Attribute(str(field.bytes));
      break;
    case AttributeKind::TENSOR:
    case AttributeKind::TENSORS:
      value = importTensorAttribute(field.bytes);
      break;
    case AttributeKind::GRAPH:
    case AttributeKind::GRAPHS:
      value = importSubgraph(field.bytes, scope, depth + 1, regions);
      break;
    case AttributeKind::SPARSE_TENSOR:
    case AttributeKind::SPARSE_TENSORS: {
      std::string name;
      auto sparse = importSparse(field.bytes, name);
      value = failed(sparse) ? FailureOr<Attribute>() : Attribute(*sparse);
      break;
    }
    default: {
      DecodedType type = decodeType(context, field.bytes);
      value = type.exact ? Attribute(TypeAttr::get(type.type)) : Attribute();
    }
    }
    if (failed(value) || !*value)
      return value;
    values.push_back(*value);
  }
  if (isScalarKind(kind))
    return values.front();
  // An empty list does not say of what; only STRINGS is read that way.
  if (values.empty() && kind != AttributeKind::STRINGS)
    return Attribute();
  return Attribute(builder.getArrayAttr(values));
}

FailureOr<NodeAttributeAttr>
Importer::importAttribute(StringRef message, Scope *scope, unsigned depth,
                          SmallVectorImpl<std::unique_ptr<Region>> &regions) {
  StringAttr name, reference;
  std::optional<AttributeKind> kind;
  SmallVector<Field> values;
  bool odd = false;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::AttributeName && field.isBytes() && !name)
      name = str(field.bytes);
    else if (field.number == schema::AttributeRefAttrName && field.isBytes())
      reference = str(field.bytes);
    else if (field.number == schema::AttributeType && field.isVarint() &&
             field.value <= 14)
      kind = symbolizeAttributeKind(static_cast<uint32_t>(field.value));
    else
      values.push_back(field);
  }
  if (!name)
    name = str("");
  if (reader.getError())
    return error("attribute '" + name.getValue() +
                 "' is damaged: " + reader.getError());

  FailureOr<Attribute> value = Attribute();
  std::optional<uint32_t> number = kind ? getValueField(*kind) : std::nullopt;
  odd = !number || llvm::any_of(values, [&](const Field &field) {
    return field.number != *number;
  });
  if (reference && kind && values.empty())
    value = Attribute(AttributeReferenceAttr::get(context, reference, *kind));
  else if (!odd && !reference)
    value = importAttributeValue(*kind, values, scope, depth, regions);
  if (failed(value))
    return failure();
  if (!*value)
    value = verbatim(message);
  return NodeAttributeAttr::get(context, name, *value);
}

//===----------------------------------------------------------------------===//
// Initializers
//===----------------------------------------------------------------------===//

LogicalResult Importer::importInitializer(StringRef message, Scope &scope) {
  auto tensor = tensors.import(message);
  if (!tensor)
    return error(tensor.takeError());
  auto op = ConstantOp::create(builder, locate(tensor->name), tensor->type,
                               str(tensor->name), tensor->value, tensor->field,
                               tensor->extras);
  return define(tensor->name, op.getResult(), scope);
}

FailureOr<SparseTensorDataAttr> Importer::importSparse(StringRef message,
                                                       std::string &name) {
  TensorAttr values, indices;
  SmallVector<int64_t> dims;
  SmallVector<Field> dimFields;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::SparseTensorDims) {
      dimFields.push_back(field);
      continue;
    }
    bool isValues = field.number == schema::SparseTensorValues;
    if (!field.isBytes() ||
        (!isValues && field.number != schema::SparseTensorIndices))
      return error("a sparse tensor has a field that nobody knows");
    auto tensor = importTensorAttribute(field.bytes);
    if (failed(tensor))
      return failure();
    (isValues ? values : indices) = cast<TensorAttr>(*tensor);
  }
  if (reader.getError() || !values || !indices || !collectInts(dimFields, dims))
    return error("a sparse tensor is damaged");
  if (auto extras = values.getExtras())
    if (auto attr = extras.getAs<StringAttr>("name"))
      name = attr.str();
  return SparseTensorDataAttr::get(context, values, indices, dims);
}

LogicalResult Importer::importSparseInitializer(StringRef message,
                                                Scope &scope) {
  std::string name;
  auto sparse = importSparse(message, name);
  if (failed(sparse))
    return failure();
  auto values = dyn_cast<TypedAttr>(sparse->getValues().getValue());
  bool negative =
      llvm::any_of(sparse->getDims(), [](int64_t d) { return d < 0; });
  if (!values || negative)
    return error("sparse tensor '" + name + "' is damaged");
  auto type = RankedTensorType::get(
      sparse->getDims(), cast<ShapedType>(values.getType()).getElementType());
  auto op = ConstantOp::create(builder, locate(name), type, str(name), *sparse,
                               TensorField::raw_data, DictionaryAttr());
  return define(name, op.getResult(), scope);
}

//===----------------------------------------------------------------------===//
// Nodes and graphs
//===----------------------------------------------------------------------===//

LogicalResult Importer::importNode(StringRef message, Scope &scope,
                                   unsigned depth) {
  NodeParts parts;
  if (failed(cutNode(message, parts)))
    return failure();
  Block *block = builder.getInsertionBlock();
  SmallVector<Value> inputs;
  for (StringRef name : parts.inputs) {
    if (name.empty()) {
      inputs.push_back(getAbsent(scope, block));
      continue;
    }
    auto value = resolve(name, scope, parts.describe());
    if (failed(value))
      return failure();
    inputs.push_back(*value);
  }
  SmallVector<Type> types;
  for (StringRef name : parts.outputs) {
    Type type = name.empty() ? Type() : scope.types.lookup(name);
    types.push_back(type ? type : UnknownType::get(context));
  }
  SmallVector<Attribute> attributes;
  SmallVector<std::unique_ptr<Region>> regions;
  llvm::StringMap<char> seen;
  currentNode = parts.describe();
  for (StringRef attributeMessage : parts.attributes) {
    auto attribute =
        importAttribute(attributeMessage, &scope, depth + 1, regions);
    if (failed(attribute))
      return failure();
    if (!seen.try_emplace(attribute->getName()).second)
      return error(parts.describe() + " has two attributes called '" +
                   attribute->getName().getValue() + "'");
    attributes.push_back(*attribute);
  }
  StringRef label = parts.name && !parts.name.empty() ? parts.name.getValue()
                    : !parts.outputs.empty()          ? parts.outputs[0]
                                                      : parts.opType.getValue();
  auto op = NodeOp::create(
      builder, locate(label), types, parts.opType, parts.domain, parts.overload,
      parts.name, builder.getStrArrayAttr(parts.outputs),
      builder.getArrayAttr(attributes), parts.extras, inputs, regions.size());
  for (auto [region, body] : llvm::zip(op.getSubgraphs(), regions))
    region.takeBody(*body);
  for (auto [name, result] : llvm::zip(parts.outputs, op.getResults())) {
    if (name.empty())
      continue;
    scope.producers.erase(name);
    if (failed(define(name, result, scope)))
      return failure();
  }
  return success();
}

LogicalResult Importer::importNodes(ArrayRef<StringRef> nodes, Scope &scope,
                                    unsigned depth) {
  for (StringRef message : nodes) {
    NodeParts parts;
    wire::Reader reader(message);
    for (Field field; reader.next(field);) {
      if (field.number == schema::NodeOutput)
        parts.outputs.push_back(field.bytes);
      else if (field.number == schema::NodeName && field.isBytes())
        parts.name = str(field.bytes);
      else if (field.number == schema::NodeOpType && field.isBytes())
        parts.opType = str(field.bytes);
    }
    for (StringRef output : parts.outputs)
      if (!output.empty())
        scope.producers.try_emplace(output, parts.describe());
  }
  for (StringRef message : nodes)
    if (failed(importNode(message, scope, depth)))
      return failure();
  return success();
}

FailureOr<GraphAttr> Importer::importGraph(StringRef message, Block *block,
                                           Scope &scope, unsigned depth,
                                           SmallVectorImpl<Value> &outputs) {
  // A graph in an attribute of a node is three messages deeper.
  if (depth * 3 > kMaxDepth)
    return error("graphs are nested deeper than protobuf's limit of 100 "
                 "messages");
  GraphParts parts;
  if (failed(cutGraph(message, parts)) ||
      failed(noteTypes(parts.inputs, scope)) ||
      failed(noteTypes(parts.outputs, scope)) ||
      failed(noteTypes(parts.valueInfo, scope)))
    return failure();

  builder.setInsertionPointToEnd(block);
  for (StringRef initializer : parts.initializers)
    if (failed(importInitializer(initializer, scope)))
      return failure();
  for (StringRef initializer : parts.sparseInitializers)
    if (failed(importSparseInitializer(initializer, scope)))
      return failure();
  for (StringRef input : parts.inputs) {
    StringRef name = getInfoName(input);
    if (scope.values.contains(name))
      continue; // the default of an initializer
    Type type = scope.types.lookup(name);
    Value argument = block->addArgument(type ? type : UnknownType::get(context),
                                        locate(name));
    if (failed(define(name, argument, scope)))
      return failure();
  }
  if (failed(importNodes(parts.nodes, scope, depth)))
    return failure();
  for (StringRef output : parts.outputs) {
    auto value = resolve(getInfoName(output), scope, "the list of outputs");
    if (failed(value))
      return failure();
    outputs.push_back(*value);
  }
  return GraphAttr::get(context, parts.name,
                        makeInfoEntries(parts.inputs, scope),
                        makeInfoEntries(parts.outputs, scope),
                        makeInfoEntries(parts.valueInfo, scope), parts.extras);
}

/// Closes `func` with its results and sets its type to what the body says.
static void finishFunction(OpBuilder &builder, func::FuncOp func,
                           ArrayRef<Value> outputs) {
  Block &block = func.getBody().front();
  builder.setInsertionPointToEnd(&block);
  func::ReturnOp::create(builder, func.getLoc(), outputs);
  func.setType(builder.getFunctionType(block.getArgumentTypes(),
                                       ValueRange(outputs).getTypes()));
}

LogicalResult Importer::importMainGraph(StringRef message, ModuleOp module) {
  builder.setInsertionPointToEnd(module.getBody());
  auto func = func::FuncOp::create(builder, loc, "main",
                                   builder.getFunctionType({}, {}));
  Scope scope;
  SmallVector<Value> outputs;
  auto graph =
      importGraph(message, func.addEntryBlock(), scope, /*depth=*/1, outputs);
  if (failed(graph))
    return failure();
  finishFunction(builder, func, outputs);
  func->setAttr(kGraphAttrName, *graph);
  return success();
}

FailureOr<OpsetAttr> Importer::importOpset(StringRef message) {
  StringAttr domain;
  int64_t version = 0;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::OpsetDomain && field.isBytes())
      domain = str(field.bytes);
    else if (field.number == schema::OpsetVersion && field.isVarint())
      version = field.getInt();
  }
  if (reader.getError())
    return error(llvm::Twine("an opset_import is damaged: ") +
                 reader.getError());
  return OpsetAttr::get(context, domain, version);
}

LogicalResult Importer::importFunction(StringRef message, ModuleOp module,
                                       SymbolTable &symbols) {
  StringAttr name, domain, overload;
  SmallVector<StringRef> inputs, outputs, nodes, valueInfo;
  SmallVector<Attribute> attributes, defaults, opsets;
  ExtrasBuilder extras(context, kFunctionExtras);
  SmallVector<std::unique_ptr<Region>> regions;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    switch (field.isBytes() ? field.number : 0) {
    case schema::FunctionName:
      name = str(field.bytes);
      break;
    case schema::FunctionDomain:
      domain = str(field.bytes);
      break;
    case schema::FunctionOverload:
      overload = str(field.bytes);
      break;
    case schema::FunctionInput:
      inputs.push_back(field.bytes);
      break;
    case schema::FunctionOutput:
      outputs.push_back(field.bytes);
      break;
    case schema::FunctionNode:
      nodes.push_back(field.bytes);
      break;
    case schema::FunctionValueInfo:
      valueInfo.push_back(field.bytes);
      break;
    case schema::FunctionAttribute:
      attributes.push_back(str(field.bytes));
      break;
    case schema::FunctionOpsetImport: {
      auto opset = importOpset(field.bytes);
      if (failed(opset))
        return failure();
      opsets.push_back(*opset);
      break;
    }
    case schema::FunctionAttributeProto: {
      auto attribute = importAttribute(field.bytes, nullptr, 1, regions);
      if (failed(attribute))
        return failure();
      // A default that is a graph has no node to hold its region.
      defaults.push_back(regions.empty() ? *attribute
                                         : NodeAttributeAttr::get(
                                               context, attribute->getName(),
                                               verbatim(field.bytes)));
      regions.clear();
      break;
    }
    default:
      extras.add(field);
    }
  }
  StringRef label = name ? name.getValue() : "";
  if (reader.getError())
    return error("function '" + label + "' is damaged: " + reader.getError());

  builder.setInsertionPointToEnd(module.getBody());
  auto func = func::FuncOp::create(
      builder, locate(label),
      ((domain ? domain.getValue() : "") + "." + label).str(),
      builder.getFunctionType({}, {}));
  symbols.insert(func);
  Block *block = func.addEntryBlock();
  Scope scope;
  if (failed(noteTypes(valueInfo, scope)))
    return failure();
  for (StringRef input : inputs) {
    Type type = scope.types.lookup(input);
    Value argument = block->addArgument(type ? type : UnknownType::get(context),
                                        locate(input));
    if (failed(define(input, argument, scope)))
      return failure();
  }
  builder.setInsertionPointToEnd(block);
  if (failed(importNodes(nodes, scope, 1)))
    return failure();
  SmallVector<Value> results;
  for (StringRef output : outputs) {
    auto value = resolve(output, scope, "function '" + label + "'");
    if (failed(value))
      return failure();
    results.push_back(*value);
  }
  finishFunction(builder, func, results);
  func->setAttr(
      kFunctionAttrName,
      FunctionAttr::get(
          context, name, domain, overload, builder.getStrArrayAttr(inputs),
          builder.getStrArrayAttr(outputs), builder.getArrayAttr(attributes),
          builder.getArrayAttr(defaults), builder.getArrayAttr(opsets),
          makeInfoEntries(valueInfo, scope), extras.get()));
  return success();
}

//===----------------------------------------------------------------------===//
// Model
//===----------------------------------------------------------------------===//

OwningOpRef<ModuleOp> Importer::importModel() {
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  SymbolTable symbols(*module);
  std::optional<int64_t> irVersion;
  std::optional<StringRef> graph;
  SmallVector<StringRef> functions;
  SmallVector<Attribute> opsets;
  ExtrasBuilder extras(context, kModelExtras);

  StringRef message(file.getBytes().data(), file.getBytes().size());
  if (message.empty())
    return (void)error("the file is empty"), nullptr;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::ModelIRVersion && field.isVarint()) {
      irVersion = field.getInt();
    } else if (field.number == schema::ModelGraph && field.isBytes()) {
      if (graph)
        return (void)error("the model has two graphs"), nullptr;
      graph = field.bytes;
    } else if (field.number == schema::ModelFunctions && field.isBytes()) {
      functions.push_back(field.bytes);
    } else if (field.number == schema::ModelOpsetImport && field.isBytes()) {
      auto opset = importOpset(field.bytes);
      if (failed(opset))
        return nullptr;
      opsets.push_back(*opset);
    } else {
      extras.add(field);
    }
  }
  if (reader.getError())
    return (void)error(
               llvm::Twine("this is no ONNX model, or a damaged one: ") +
               reader.getError()),
           nullptr;
  if (!graph || !irVersion)
    return (void)error("this is no ONNX model, or a truncated one: it has no " +
                       llvm::Twine(graph ? "ir_version" : "graph")),
           nullptr;
  if (opsets.empty() && *irVersion >= 3)
    return (void)error("the model imports no opset; is the file truncated?"),
           nullptr;

  ModuleOp op = *module;
  op->setAttr(kIRVersionAttrName, builder.getI64IntegerAttr(*irVersion));
  op->setAttr(kOpsetsAttrName, builder.getArrayAttr(opsets));
  if (DictionaryAttr attributes = extras.get())
    op->setAttr(kExtrasAttrName, attributes);
  if (failed(importMainGraph(*graph, op)))
    return nullptr;
  for (StringRef function : functions)
    if (failed(importFunction(function, op, symbols)))
      return nullptr;
  if (llvm::Error overlap = tensors.checkOverlaps())
    return (void)error(std::move(overlap)), nullptr;
  if (failed(mlir::verify(op)))
    return nullptr;
  return module;
}

OwningOpRef<ModuleOp> nibble::importOnnx(StringRef path, MLIRContext *context) {
  auto *dialect = context->getOrLoadDialect<OnnxDialect>();
  context->getOrLoadDialect<func::FuncDialect>();
  auto file = dialect->getFiles().get(path);
  if (!file) {
    emitError(UnknownLoc::get(context)) << llvm::toString(file.takeError());
    return nullptr;
  }
  return Importer(context, **file).importModel();
}
