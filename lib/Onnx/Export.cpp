//===- Export.cpp - IR to ONNX files --------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/Export.h"

#include "Extras.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Onnx/Schema.h"
#include "nibble/Onnx/TypeCodec.h"
#include "nibble/Support/OutputFile.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// protobuf refuses messages of 2 GiB and more.
constexpr uint64_t kMaxModelSize = (uint64_t(1) << 31) - 1;
/// Tensors smaller than this stay in the model file.
constexpr uint64_t kMinExternalSize = 1024;
/// External tensors start on a page, so that they can be mapped (onnx.proto).
constexpr uint64_t kExternalAlignment = 4096;

/// The external data file of one model, laid out while the model is built.
class DataFile {
public:
  explicit DataFile(StringRef location) : location(location) {}

  StringRef getLocation() const { return location; }
  bool empty() const { return parts.empty(); }

  /// Makes room for `bytes` and returns their offset. The same bytes of a
  /// mapped file are stored once.
  uint64_t add(ArrayRef<char> bytes, bool mapped);
  void write(llvm::raw_ostream &os) const;

private:
  struct Part {
    uint64_t offset;
    ArrayRef<char> bytes;
    bool mapped;
  };
  std::string location;
  std::vector<Part> parts;
  DenseMap<std::pair<const char *, size_t>, uint64_t> offsets;
  uint64_t size = 0;
};

uint64_t DataFile::add(ArrayRef<char> bytes, bool mapped) {
  auto [it, isNew] = offsets.try_emplace({bytes.data(), bytes.size()}, 0);
  if (!isNew)
    return it->second;
  uint64_t offset = llvm::alignTo(size, kExternalAlignment);
  parts.push_back({offset, bytes, mapped});
  size = offset + bytes.size();
  return it->second = offset;
}

void DataFile::write(llvm::raw_ostream &os) const {
  uint64_t written = 0;
  for (const Part &part : parts) {
    os.write_zeros(part.offset - written);
    wire::writeLarge(os, part.bytes, part.mapped);
    written = part.offset + part.bytes.size();
  }
}

class Exporter {
public:
  Exporter(ModuleOp module, DataFile *dataFile)
      : module(module), dataFile(dataFile) {}

  FailureOr<wire::Writer> exportModel();

private:
  LogicalResult exportFunction(func::FuncOp func, wire::Writer &model);
  FailureOr<wire::Writer> exportGraph(GraphAttr graph, Block &block);
  LogicalResult nameArguments(ArrayRef<StringRef> names, Block &block);
  LogicalResult nameOperations(Block &block);
  LogicalResult name(Operation *op, Value value, StringRef string);
  FailureOr<StringRef> getName(Operation *user, Value value);
  LogicalResult exportBody(Block &block, uint32_t nodeField,
                           wire::Writer &writer, bool constantsAllowed);
  LogicalResult exportNode(NodeOp node, uint32_t field, wire::Writer &writer);
  LogicalResult exportAttribute(Operation *node, NodeAttributeAttr attribute,
                                uint32_t field, unsigned &region,
                                wire::Writer &writer);
  LogicalResult exportAttributeValue(Operation *node, Attribute value,
                                     unsigned &region, wire::Writer &writer,
                                     AttributeKind &kind);
  LogicalResult exportConstant(ConstantOp op, wire::Writer &writer);
  LogicalResult exportTensor(Operation *op, StringRef name, Attribute value,
                             TensorField field, DictionaryAttr extras,
                             wire::Writer &tensor);
  LogicalResult exportTensorData(Operation *op, TypedAttr value,
                                 TensorField field, wire::Writer &tensor);
  LogicalResult exportSparse(Operation *op, SparseTensorDataAttr sparse,
                             wire::Writer &writer);
  void exportInfos(ArrayAttr entries, uint32_t field,
                   const llvm::StringMap<Value> &values, wire::Writer &writer);
  void exportOpsets(ArrayAttr opsets, uint32_t field, wire::Writer &writer);

  ModuleOp module;
  /// Where large tensors go; null to keep all in the model.
  DataFile *dataFile;
  DenseMap<Value, StringRef> names;
  /// The names of the graph being written.
  llvm::StringMap<Value> *scope = nullptr;
};

} // namespace

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

LogicalResult Exporter::name(Operation *op, Value value, StringRef string) {
  names[value] = string;
  if (!string.empty() && !scope->try_emplace(string, value).second)
    return op->emitError("two values are called '")
           << string << "'; ONNX wants every value to have one name";
  return success();
}

FailureOr<StringRef> Exporter::getName(Operation *user, Value value) {
  if (value.getDefiningOp<AbsentOp>())
    return StringRef();
  auto it = names.find(value);
  if (it == names.end())
    return user->emitError("uses a value that has no name in ONNX");
  return it->second;
}

static StringRef getEntryName(Attribute entry) {
  if (auto info = dyn_cast<ValueInfoAttr>(entry))
    return info.getName();
  return cast<StringAttr>(entry);
}

LogicalResult Exporter::nameArguments(ArrayRef<StringRef> argumentNames,
                                      Block &block) {
  llvm::StringSet<> constants;
  for (auto constant : block.getOps<ConstantOp>())
    constants.insert(constant.getName());
  unsigned index = 0;
  for (StringRef string : argumentNames) {
    if (constants.contains(string))
      continue;
    if (index == block.getNumArguments())
      return block.getParentOp()->emitError("names more inputs than the graph "
                                            "has arguments: '")
             << string << "' is one too many";
    if (failed(name(block.getParentOp(), block.getArgument(index++), string)))
      return failure();
  }
  if (index != block.getNumArguments())
    return block.getParentOp()->emitError("does not name argument ") << index;
  return success();
}

LogicalResult Exporter::nameOperations(Block &block) {
  for (Operation &op : block) {
    if (auto constant = dyn_cast<ConstantOp>(op)) {
      if (failed(name(constant, constant.getResult(), constant.getName())))
        return failure();
    } else if (auto node = dyn_cast<NodeOp>(op)) {
      for (auto [index, result] : llvm::enumerate(node.getResults()))
        if (failed(name(node, result, node.getOutputName(index))))
          return failure();
    } else if (!isa<AbsentOp>(op) && !op.hasTrait<OpTrait::IsTerminator>()) {
      return op.emitError("has no ONNX form; lower it to the onnx dialect "
                          "first (--convert-nibble-to-onnx)");
    }
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

static uint32_t getFieldNumber(TensorField field) {
  switch (field) {
  case TensorField::float_data:
    return schema::TensorFloatData;
  case TensorField::int32_data:
    return schema::TensorInt32Data;
  case TensorField::int64_data:
    return schema::TensorInt64Data;
  case TensorField::double_data:
    return schema::TensorDoubleData;
  case TensorField::uint64_data:
    return schema::TensorUint64Data;
  default:
    return schema::TensorRawData;
  }
}

static bool isVarintField(TensorField field) {
  return field == TensorField::int32_data || field == TensorField::int64_data ||
         field == TensorField::uint64_data;
}

static void writeData(wire::Writer &tensor, uint32_t field,
                      const TensorBytes &data) {
  StringRef bytes(data.bytes.data(), data.bytes.size());
  // Bytes that the attribute does not own end with this call.
  bool lasts = data.storage.empty();
  if (lasts && bytes.size() >= kMinExternalSize)
    tensor.writeReference(field, data.bytes, data.mapped);
  else
    tensor.writeBytes(field, bytes);
}

static void writeExternal(wire::Writer &tensor, DataFile &dataFile,
                          const TensorBytes &data) {
  auto entry = [&](StringRef key, StringRef value) {
    wire::Writer message;
    message.writeBytes(schema::EntryKey, key);
    message.writeBytes(schema::EntryValue, value);
    tensor.writeMessage(schema::TensorExternalData, std::move(message));
  };
  uint64_t offset = dataFile.add(data.bytes, data.mapped);
  entry("location", dataFile.getLocation());
  entry("offset", std::to_string(offset));
  entry("length", std::to_string(data.bytes.size()));
  tensor.writeVarint(schema::TensorDataLocation, 1);
}

LogicalResult Exporter::exportTensorData(Operation *op, TypedAttr value,
                                         TensorField field,
                                         wire::Writer &tensor) {
  auto type = cast<ShapedType>(value.getType());
  if (auto strings = dyn_cast<StringsAttr>(value)) {
    for (auto string : strings.getElements().getAsRange<StringAttr>())
      tensor.writeBytes(schema::TensorStringData, string);
    return success();
  }
  auto file = dyn_cast<FileElementsAttr>(value);
  if (file && file.getVarint() && isVarintField(field)) {
    TensorBytes data;
    data.bytes = file.getBytes();
    data.mapped = true;
    writeData(tensor, getFieldNumber(field), data);
    return success();
  }
  std::optional<TensorBytes> data = getTensorBytes(value);
  std::optional<uint64_t> expected = getPackedSize(type);
  if (!data || !expected || data->bytes.size() != *expected)
    return op->emitError("has a constant whose data does not fit its type ")
           << type;
  bool external = dataFile && data->storage.empty() &&
                  data->bytes.size() >= kMinExternalSize;
  if (external) {
    writeExternal(tensor, *dataFile, *data);
    return success();
  }
  if (isVarintField(field)) {
    SmallVector<uint64_t> values;
    collectVarints(type, data->bytes, values);
    if (!values.empty())
      tensor.writePackedVarints(getFieldNumber(field), values);
    return success();
  }
  // An empty typed field is no field.
  if (getFieldNumber(field) != schema::TensorRawData && data->bytes.empty())
    return success();
  writeData(tensor, getFieldNumber(field), *data);
  return success();
}

LogicalResult Exporter::exportTensor(Operation *op, StringRef name,
                                     Attribute value, TensorField field,
                                     DictionaryAttr extras,
                                     wire::Writer &tensor) {
  if (auto verbatim = dyn_cast<WireAttr>(value)) {
    tensor.writeEncoded(verbatim.getBytes());
    return success();
  }
  auto typed = dyn_cast<TypedAttr>(value);
  auto type =
      typed ? dyn_cast<RankedTensorType>(typed.getType()) : RankedTensorType();
  std::optional<uint32_t> dataType =
      type ? schema::getDataType(type.getElementType()) : std::nullopt;
  if (!dataType)
    return op->emitError("has a constant that ONNX has no data type for: ")
           << value;
  for (int64_t dim : type.getShape())
    tensor.writeInt(schema::TensorDims, dim);
  tensor.writeVarint(schema::TensorDataType, *dataType);
  if (!name.empty())
    tensor.writeBytes(schema::TensorName, name);
  if (failed(exportTensorData(op, typed, field, tensor)))
    return failure();
  writeExtras(tensor, extras, kTensorExtras);
  return success();
}

LogicalResult Exporter::exportSparse(Operation *op, SparseTensorDataAttr sparse,
                                     wire::Writer &writer) {
  auto part = [&](TensorAttr attr, uint32_t field) -> LogicalResult {
    wire::Writer tensor;
    if (failed(exportTensor(op, "", attr.getValue(), attr.getField(),
                            attr.getExtras(), tensor)))
      return failure();
    writer.writeMessage(field, std::move(tensor));
    return success();
  };
  if (failed(part(sparse.getValues(), schema::SparseTensorValues)) ||
      failed(part(sparse.getIndices(), schema::SparseTensorIndices)))
    return failure();
  for (int64_t dim : sparse.getDims())
    writer.writeInt(schema::SparseTensorDims, dim);
  return success();
}

LogicalResult Exporter::exportConstant(ConstantOp op, wire::Writer &writer) {
  wire::Writer message;
  if (auto sparse = dyn_cast<SparseTensorDataAttr>(op.getValue())) {
    if (failed(exportSparse(op, sparse, message)))
      return failure();
    writer.writeMessage(schema::GraphSparseInitializer, std::move(message));
    return success();
  }
  if (failed(exportTensor(op, op.getName(), op.getValue(), op.getField(),
                          op.getExtrasAttr(), message)))
    return failure();
  writer.writeMessage(schema::GraphInitializer, std::move(message));
  return success();
}

//===----------------------------------------------------------------------===//
// Nodes
//===----------------------------------------------------------------------===//

LogicalResult Exporter::exportAttributeValue(Operation *node, Attribute value,
                                             unsigned &region,
                                             wire::Writer &writer,
                                             AttributeKind &kind) {
  // One message of a kind that may come alone or in a list.
  auto nested = [&](Attribute element, bool inList) -> LogicalResult {
    wire::Writer message;
    uint32_t field = 0;
    if (auto tensor = dyn_cast<TensorAttr>(element)) {
      kind = inList ? AttributeKind::TENSORS : AttributeKind::TENSOR;
      field = inList ? schema::AttributeTensors : schema::AttributeTensor;
      if (failed(exportTensor(node, "", tensor.getValue(), tensor.getField(),
                              tensor.getExtras(), message)))
        return failure();
    } else if (auto graph = dyn_cast<GraphAttr>(element)) {
      kind = inList ? AttributeKind::GRAPHS : AttributeKind::GRAPH;
      field = inList ? schema::AttributeGraphs : schema::AttributeGraph;
      auto written = exportGraph(graph, node->getRegion(region++).front());
      if (failed(written))
        return failure();
      message = std::move(*written);
    } else if (auto sparse = dyn_cast<SparseTensorDataAttr>(element)) {
      kind =
          inList ? AttributeKind::SPARSE_TENSORS : AttributeKind::SPARSE_TENSOR;
      field = inList ? schema::AttributeSparseTensors
                     : schema::AttributeSparseTensor;
      if (failed(exportSparse(node, sparse, message)))
        return failure();
    } else if (auto type = dyn_cast<TypeAttr>(element)) {
      kind = inList ? AttributeKind::TYPE_PROTOS : AttributeKind::TYPE_PROTO;
      field = inList ? schema::AttributeTypeProtos : schema::AttributeTypeProto;
      auto encoded = encodeType(type.getValue());
      if (!encoded)
        return node->emitError("has a type attribute that ONNX lacks: ")
               << type;
      message = std::move(*encoded);
    } else {
      return node->emitError("has an attribute that ONNX lacks: ") << element;
    }
    writer.writeMessage(field, std::move(message));
    return success();
  };

  return llvm::TypeSwitch<Attribute, LogicalResult>(value)
      .Case([&](FloatAttr attr) {
        kind = AttributeKind::FLOAT;
        writer.writeFixed32(schema::AttributeFloat,
                            attr.getValue().bitcastToAPInt().getZExtValue());
        return success();
      })
      .Case([&](IntegerAttr attr) {
        kind = AttributeKind::INT;
        writer.writeInt(schema::AttributeInt, attr.getInt());
        return success();
      })
      .Case([&](StringAttr attr) {
        kind = AttributeKind::STRING;
        writer.writeBytes(schema::AttributeString, attr);
        return success();
      })
      .Case([&](DenseF32ArrayAttr attr) {
        kind = AttributeKind::FLOATS;
        for (float element : attr.asArrayRef())
          writer.writeFloat(schema::AttributeFloats, element);
        return success();
      })
      .Case([&](DenseI64ArrayAttr attr) {
        kind = AttributeKind::INTS;
        for (int64_t element : attr.asArrayRef())
          writer.writeInt(schema::AttributeInts, element);
        return success();
      })
      .Case([&](AttributeReferenceAttr attr) {
        kind = attr.getKind();
        writer.writeBytes(schema::AttributeRefAttrName, attr.getName());
        return success();
      })
      .Case([&](ArrayAttr attr) -> LogicalResult {
        kind = AttributeKind::STRINGS;
        for (Attribute element : attr) {
          if (auto string = dyn_cast<StringAttr>(element))
            writer.writeBytes(schema::AttributeStrings, string);
          else if (failed(nested(element, /*inList=*/true)))
            return failure();
        }
        return success();
      })
      .Default([&](Attribute attr) { return nested(attr, /*inList=*/false); });
}

LogicalResult Exporter::exportAttribute(Operation *node,
                                        NodeAttributeAttr attribute,
                                        uint32_t field, unsigned &region,
                                        wire::Writer &writer) {
  wire::Writer message;
  if (auto verbatim = dyn_cast<WireAttr>(attribute.getValue())) {
    writer.writeBytes(field, verbatim.getBytes());
    return success();
  }
  message.writeBytes(schema::AttributeName, attribute.getName());
  AttributeKind kind = AttributeKind::INT;
  if (failed(exportAttributeValue(node, attribute.getValue(), region, message,
                                  kind)))
    return failure();
  message.writeVarint(schema::AttributeType, static_cast<uint32_t>(kind));
  writer.writeMessage(field, std::move(message));
  return success();
}

static void writeOptional(wire::Writer &writer, uint32_t field,
                          std::optional<StringRef> string) {
  if (string)
    writer.writeBytes(field, *string);
}

LogicalResult Exporter::exportNode(NodeOp node, uint32_t field,
                                   wire::Writer &writer) {
  wire::Writer message;
  for (Value input : node.getInputs()) {
    auto string = getName(node, input);
    if (failed(string))
      return failure();
    message.writeBytes(schema::NodeInput, *string);
  }
  for (auto output : node.getOutputs().getAsRange<StringAttr>())
    message.writeBytes(schema::NodeOutput, output);
  writeOptional(message, schema::NodeName, node.getName());
  message.writeBytes(schema::NodeOpType, node.getOpType());
  unsigned region = 0;
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (failed(exportAttribute(node, attribute, schema::NodeAttribute, region,
                               message)))
      return failure();
  writeOptional(message, schema::NodeDomain, node.getDomain());
  writeOptional(message, schema::NodeOverload, node.getOverload());
  writeExtras(message, node.getExtrasAttr(), kNodeExtras);
  writer.writeMessage(field, std::move(message));
  return success();
}

LogicalResult Exporter::exportBody(Block &block, uint32_t nodeField,
                                   wire::Writer &writer,
                                   bool constantsAllowed) {
  for (auto node : block.getOps<NodeOp>())
    if (failed(exportNode(node, nodeField, writer)))
      return failure();
  for (auto constant : block.getOps<ConstantOp>()) {
    if (!constantsAllowed)
      return constant.emitError("a local function cannot have initializers");
    if (failed(exportConstant(constant, writer)))
      return failure();
  }
  return success();
}

//===----------------------------------------------------------------------===//
// Graphs
//===----------------------------------------------------------------------===//

/// The message of `info` with the type of `value`, if that has changed since.
static wire::Writer refreshInfo(ValueInfoAttr info, Value value) {
  wire::Writer message;
  StringRef old = info.getBytes();
  StringRef oldType;
  wire::Reader reader(old);
  for (wire::Field field; reader.next(field);)
    if (field.number == schema::ValueInfoType)
      oldType = field.bytes;
  bool same = !value || isa<UnknownType>(value.getType()) ||
              decodeType(info.getContext(), oldType).type == value.getType();
  auto encoded = same ? std::nullopt : encodeType(value.getType());
  if (!encoded) {
    message.writeEncoded(old);
    return message;
  }
  wire::Reader again(old);
  for (wire::Field field; again.next(field);)
    if (field.number != schema::ValueInfoType)
      message.writeEncoded(field.whole);
  message.writeMessage(schema::ValueInfoType, std::move(*encoded));
  return message;
}

void Exporter::exportInfos(ArrayAttr entries, uint32_t field,
                           const llvm::StringMap<Value> &values,
                           wire::Writer &writer) {
  for (Attribute entry : entries) {
    StringRef name = getEntryName(entry);
    Value value = values.lookup(name);
    wire::Writer message;
    if (auto info = dyn_cast<ValueInfoAttr>(entry)) {
      message = refreshInfo(info, value);
    } else {
      // A value that a pass has removed.
      if (!value)
        continue;
      message.writeBytes(schema::ValueInfoName, name);
      auto encoded = encodeType(value.getType());
      if (encoded && !isa<UnknownType>(value.getType()))
        message.writeMessage(schema::ValueInfoType, std::move(*encoded));
    }
    writer.writeMessage(field, std::move(message));
  }
}

FailureOr<wire::Writer> Exporter::exportGraph(GraphAttr graph, Block &block) {
  llvm::StringMap<Value> values;
  llvm::StringMap<Value> *outer = scope;
  scope = &values;
  wire::Writer writer;
  SmallVector<StringRef> inputs;
  for (Attribute entry : graph.getInputs())
    inputs.push_back(getEntryName(entry));
  if (failed(nameArguments(inputs, block)) || failed(nameOperations(block)) ||
      failed(exportBody(block, schema::GraphNode, writer,
                        /*constantsAllowed=*/true)))
    return failure();
  if (graph.getName())
    writer.writeBytes(schema::GraphName, graph.getName());
  exportInfos(graph.getInputs(), schema::GraphInput, values, writer);

  // An output keeps its name although a pass may have replaced its value; the
  // name must then be that of the new value.
  Operation *terminator = block.getTerminator();
  if (terminator->getNumOperands() != graph.getOutputs().size())
    return terminator->emitError("returns ")
           << terminator->getNumOperands() << " values, but the graph names "
           << graph.getOutputs().size() << " outputs";
  llvm::StringMap<Value> outputs;
  for (auto [entry, value] :
       llvm::zip(graph.getOutputs(), terminator->getOperands())) {
    auto found = getName(terminator, value);
    if (failed(found))
      return failure();
    if (*found != getEntryName(entry))
      return terminator->emitError("output '")
             << getEntryName(entry) << "' is computed under the name '"
             << *found << "'";
    outputs[*found] = value;
  }
  exportInfos(graph.getOutputs(), schema::GraphOutput, outputs, writer);
  exportInfos(graph.getValueInfo(), schema::GraphValueInfo, values, writer);
  writeExtras(writer, graph.getExtras(), kGraphExtras);
  scope = outer;
  return writer;
}

void Exporter::exportOpsets(ArrayAttr opsets, uint32_t field,
                            wire::Writer &writer) {
  for (auto opset : opsets.getAsRange<OpsetAttr>()) {
    wire::Writer message;
    if (opset.getDomain())
      message.writeBytes(schema::OpsetDomain, opset.getDomain());
    message.writeInt(schema::OpsetVersion, opset.getVersion());
    writer.writeMessage(field, std::move(message));
  }
}

LogicalResult Exporter::exportFunction(func::FuncOp func, wire::Writer &model) {
  auto function = func->getAttrOfType<FunctionAttr>(kFunctionAttrName);
  Block &block = func.getBody().front();
  llvm::StringMap<Value> values;
  scope = &values;
  wire::Writer writer;
  auto strings = [](ArrayAttr array) {
    SmallVector<StringRef> result;
    for (auto string : array.getAsRange<StringAttr>())
      result.push_back(string);
    return result;
  };
  if (function.getName())
    writer.writeBytes(schema::FunctionName, function.getName());
  for (StringRef input : strings(function.getInputs()))
    writer.writeBytes(schema::FunctionInput, input);
  for (StringRef output : strings(function.getOutputs()))
    writer.writeBytes(schema::FunctionOutput, output);
  for (StringRef attribute : strings(function.getAttributes()))
    writer.writeBytes(schema::FunctionAttribute, attribute);
  if (failed(nameArguments(strings(function.getInputs()), block)) ||
      failed(nameOperations(block)) ||
      failed(exportBody(block, schema::FunctionNode, writer,
                        /*constantsAllowed=*/false)))
    return failure();
  exportOpsets(function.getOpsets(), schema::FunctionOpsetImport, writer);
  if (function.getDomain())
    writer.writeBytes(schema::FunctionDomain, function.getDomain());
  unsigned region = 0;
  for (auto attribute : function.getDefaults().getAsRange<NodeAttributeAttr>())
    if (failed(exportAttribute(func, attribute, schema::FunctionAttributeProto,
                               region, writer)))
      return failure();
  exportInfos(function.getValueInfo(), schema::FunctionValueInfo, values,
              writer);
  if (function.getOverload())
    writer.writeBytes(schema::FunctionOverload, function.getOverload());
  writeExtras(writer, function.getExtras(), kFunctionExtras);
  model.writeMessage(schema::ModelFunctions, std::move(writer));
  return success();
}

FailureOr<wire::Writer> Exporter::exportModel() {
  func::FuncOp mainGraph;
  for (auto func : module.getOps<func::FuncOp>())
    if (func->hasAttrOfType<GraphAttr>(kGraphAttrName))
      mainGraph = func;
  auto irVersion = module->getAttrOfType<IntegerAttr>(kIRVersionAttrName);
  auto opsets = module->getAttrOfType<ArrayAttr>(kOpsetsAttrName);
  if (!mainGraph || mainGraph.isExternal() || !irVersion || !opsets)
    return module.emitError("this is no ONNX model: it needs a function with "
                            "onnx.graph, and onnx.ir_version and onnx.opsets "
                            "on the module");
  wire::Writer model;
  model.writeInt(schema::ModelIRVersion, irVersion.getInt());
  auto graph = exportGraph(mainGraph->getAttrOfType<GraphAttr>(kGraphAttrName),
                           mainGraph.getBody().front());
  if (failed(graph))
    return failure();
  model.writeMessage(schema::ModelGraph, std::move(*graph));
  exportOpsets(opsets, schema::ModelOpsetImport, model);
  writeExtras(model, module->getAttrOfType<DictionaryAttr>(kExtrasAttrName),
              kModelExtras);
  for (auto func : module.getOps<func::FuncOp>())
    if (func->hasAttrOfType<FunctionAttr>(kFunctionAttrName) &&
        failed(exportFunction(func, model)))
      return failure();
  return model;
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

static bool hasExternalData(ModuleOp module) {
  return module
      .walk([](ConstantOp op) {
        return op.getField() == TensorField::external ? WalkResult::interrupt()
                                                      : WalkResult::advance();
      })
      .wasInterrupted();
}

static bool isRegularOutput(StringRef path) {
  llvm::sys::fs::file_status status;
  return path != "-" &&
         (llvm::sys::fs::status(path, status) ||
          status.type() == llvm::sys::fs::file_type::regular_file);
}

static LogicalResult writeFiles(ModuleOp module, StringRef path,
                                const wire::Writer &model,
                                const DataFile *dataFile) {
  auto fail = [&](llvm::Error error) {
    return module.emitError(llvm::toString(std::move(error)));
  };
  std::unique_ptr<OutputFile> data;
  if (dataFile && !dataFile->empty()) {
    auto file = OutputFile::create((path + ".data").str());
    if (!file)
      return fail(file.takeError());
    data = std::move(*file);
    dataFile->write(data->getStream());
    if (llvm::Error error = data->finish())
      return fail(std::move(error));
  }
  auto file = OutputFile::create(path);
  if (!file)
    return fail(file.takeError());
  model.write((*file)->getStream());
  if (llvm::Error error = (*file)->finish())
    return fail(std::move(error));
  if (data)
    if (llvm::Error error = data->commit())
      return fail(std::move(error));
  if (llvm::Error error = (*file)->commit())
    return fail(std::move(error));
  return success();
}

LogicalResult nibble::exportOnnx(ModuleOp module, StringRef path,
                                 const ExportOptions &options) {
  DataFile dataFile((llvm::sys::path::filename(path) + ".data").str());
  bool external = options.externalData == ExternalData::Always ||
                  (options.externalData == ExternalData::Auto &&
                   isRegularOutput(path) && hasExternalData(module));
  auto model = Exporter(module, external ? &dataFile : nullptr).exportModel();
  if (failed(model))
    return failure();
  if (!external && model->getSize() > kMaxModelSize) {
    if (options.externalData == ExternalData::Never || !isRegularOutput(path))
      return module.emitError("the model would take ")
             << model->getSize()
             << " bytes, more than protobuf's 2 GiB; let its weights go into a "
                "file of their own (--external-data=auto)";
    external = true;
    model = Exporter(module, &dataFile).exportModel();
    if (failed(model))
      return failure();
  }
  return writeFiles(module, path, *model, external ? &dataFile : nullptr);
}
