//===- NodeRecord.cpp - ONNX nodes kept as attributes ---------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/QuantizedNode.h"

#include "llvm/ADT/STLExtras.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// A constant input: all that an onnx.constant says, or name and value of a
/// Constant node, which stays where it is.
static DictionaryAttr recordConstant(Value value, Attribute constant) {
  Builder builder(value.getContext());
  NamedAttrList entries;
  entries.set("value", constant);
  if (auto op = value.getDefiningOp<ConstantOp>()) {
    entries.set("name", op.getNameAttr());
    if (op.getField() != TensorField::raw_data)
      entries.set("field", op.getFieldAttr());
    if (op.getExtrasAttr())
      entries.set("extras", op.getExtrasAttr());
  } else {
    auto node = value.getDefiningOp<NodeOp>();
    entries.set("name", builder.getStringAttr(node.getOutputName(0)));
  }
  return entries.getDictionary(value.getContext());
}

/// An input as a record says it: a constant, "absent", the place of the node
/// among `known` and of the result that it reads, or "value".
static Attribute recordInput(Value input, ArrayRef<NodeOp> known) {
  Builder builder(input.getContext());
  if (Attribute constant = getConstantValue(input))
    return recordConstant(input, constant);
  if (input.getDefiningOp<AbsentOp>())
    return builder.getStringAttr("absent");
  auto source = input.getDefiningOp<NodeOp>();
  if (const auto *it = llvm::find(known, source); source && it != known.end())
    return builder.getDenseI64ArrayAttr(
        {it - known.begin(), cast<OpResult>(input).getResultNumber()});
  return builder.getStringAttr("value");
}

static DictionaryAttr recordNode(NodeOp node, ArrayRef<NodeOp> known) {
  Builder builder(node.getContext());
  NamedAttrList entries;
  for (StringRef name : {"op_type", "domain", "overload", "name", "outputs",
                         "node_attributes", "extras"}) {
    Attribute value = node->getAttr(name);
    auto list = dyn_cast_if_present<ArrayAttr>(value);
    if (value && (!list || !list.empty()))
      entries.set(name, value);
  }
  SmallVector<Attribute> inputs;
  for (Value input : node.getInputs())
    inputs.push_back(recordInput(input, known));
  entries.set("inputs", builder.getArrayAttr(inputs));
  entries.set("types", builder.getTypeArrayAttr(node.getResultTypes()));
  return entries.getDictionary(node.getContext());
}

DictionaryAttr nibble::recordNode(NodeOp node) {
  return ::recordNode(node, {});
}

DictionaryAttr nibble::recordNodes(ArrayRef<NodeOp> nodes, NodeOp source) {
  Builder builder(source.getContext());
  SmallVector<NodeOp> known{source};
  llvm::append_range(known, nodes);
  SmallVector<Attribute> records;
  for (NodeOp node : nodes)
    records.push_back(::recordNode(node, known));
  NodeOp first = nodes.front();
  return builder.getDictionaryAttr(
      {builder.getNamedAttr("nodes", builder.getArrayAttr(records)),
       builder.getNamedAttr("op_type", first.getOpTypeAttr())});
}

StringRef nibble::getRecordedOpType(DictionaryAttr record) {
  auto opType = record ? record.getAs<StringAttr>("op_type") : StringAttr();
  return opType ? opType.getValue() : StringRef();
}

//===----------------------------------------------------------------------===//
// ConstantTable
//===----------------------------------------------------------------------===//

ConstantTable::ConstantTable(Operation *root) {
  root->walk([&](Operation *op) {
    if (auto constant = dyn_cast<ConstantOp>(op))
      add(constant.getResult(), constant.getName());
    else if (auto node = dyn_cast<NodeOp>(op);
             node && node.isOnnx("Constant") && node.getNumResults() == 1)
      add(node.getResult(0), node.getOutputName(0));
  });
}

void ConstantTable::add(Value constant, StringRef name) {
  auto key = std::make_pair(constant.getParentBlock(),
                            StringAttr::get(constant.getContext(), name));
  values[key].push_back(constant);
}

void ConstantTable::remove(Value constant, StringRef name) {
  auto key = std::make_pair(constant.getParentBlock(),
                            StringAttr::get(constant.getContext(), name));
  llvm::erase(values[key], constant);
}

Value ConstantTable::lookup(StringRef name, Attribute value,
                            Operation *user) const {
  auto string = StringAttr::get(user->getContext(), name);
  for (Operation *op = user; op && op->getBlock(); op = op->getParentOp()) {
    auto it = values.find({op->getBlock(), string});
    if (it == values.end())
      continue;
    for (Value candidate : it->second)
      if (getConstantValue(candidate) == value &&
          candidate.getDefiningOp()->isBeforeInBlock(op))
        return candidate;
  }
  return {};
}

//===----------------------------------------------------------------------===//
// Writing back
//===----------------------------------------------------------------------===//

/// The recorded constant: one that is there, or a new one beside `anchor`.
static Value rebuildConstant(DictionaryAttr entry, Operation *place,
                             Value anchor, ConstantTable &constants) {
  auto name = entry.getAs<StringAttr>("name");
  auto value = entry.getAs<TypedAttr>("value");
  if (!name || !value)
    return {};
  if (Value found = constants.lookup(name, value, place))
    return found;
  Operation *before = anchor && anchor.getDefiningOp<ConstantOp>()
                          ? anchor.getDefiningOp()
                          : place;
  OpBuilder builder(before);
  auto field = entry.getAs<TensorFieldAttr>("field");
  auto constant = ConstantOp::create(
      builder, before == place ? NameLoc::get(name) : before->getLoc(),
      value.getType(), name, value,
      field ? field.getValue() : TensorField::raw_data,
      entry.getAs<DictionaryAttr>("extras"));
  constants.add(constant.getResult(), name);
  return constant.getResult();
}

/// The result that a recorded input [node, result] refers to, or null.
static Value getKnownResult(DenseI64ArrayAttr reference,
                            ArrayRef<NodeOp> known) {
  if (reference.size() != 2 || reference[0] < 0 ||
      reference[0] >= static_cast<int64_t>(known.size()))
    return {};
  NodeOp node = known[reference[0]];
  return reference[1] >= 0 && reference[1] < node.getNumResults()
             ? node.getResult(reference[1])
             : Value();
}

/// `known` are the nodes that inputs of the record refer to.
static NodeOp rebuildNode(DictionaryAttr record, Operation *place,
                          ArrayRef<Value> inputs, ArrayRef<Value> anchors,
                          ConstantTable &constants, ArrayRef<NodeOp> known) {
  auto opType = record.getAs<StringAttr>("op_type");
  auto outputs = record.getAs<ArrayAttr>("outputs");
  auto entries = record.getAs<ArrayAttr>("inputs");
  auto types = record.getAs<ArrayAttr>("types");
  auto attributes = record.getAs<ArrayAttr>("node_attributes");
  if (!opType || !outputs || !entries || !types ||
      !llvm::all_of(outputs, llvm::IsaPred<StringAttr>) ||
      !llvm::all_of(types, llvm::IsaPred<TypeAttr>) ||
      outputs.size() != types.size() ||
      (attributes &&
       !llvm::all_of(attributes, llvm::IsaPred<NodeAttributeAttr>)))
    return {};
  OpBuilder builder(place);
  SmallVector<Value> operands;
  for (auto [index, entry] : llvm::enumerate(entries)) {
    Value operand = index < inputs.size() ? inputs[index] : Value();
    Value anchor = index < anchors.size() ? anchors[index] : Value();
    auto kind = dyn_cast<StringAttr>(entry);
    if (auto constant = dyn_cast<DictionaryAttr>(entry))
      operand = rebuildConstant(constant, place, anchor, constants);
    else if (auto result = dyn_cast<DenseI64ArrayAttr>(entry))
      operand = getKnownResult(result, known);
    else if (kind && kind == "absent")
      operand =
          AbsentOp::create(builder, place->getLoc(), builder.getNoneType())
              .getResult();
    if (!operand)
      return {};
    operands.push_back(operand);
  }
  SmallVector<Type> resultTypes;
  for (auto type : types.getAsRange<TypeAttr>())
    resultTypes.push_back(type.getValue());
  return NodeOp::create(builder, place->getLoc(), resultTypes, opType,
                        record.getAs<StringAttr>("domain"),
                        record.getAs<StringAttr>("overload"),
                        record.getAs<StringAttr>("name"), outputs,
                        attributes ? attributes : builder.getArrayAttr({}),
                        record.getAs<DictionaryAttr>("extras"), operands, 0);
}

NodeOp nibble::rebuildNode(DictionaryAttr record, Operation *place,
                           ArrayRef<Value> inputs, ArrayRef<Value> anchors,
                           ConstantTable &constants) {
  return ::rebuildNode(record, place, inputs, anchors, constants, {});
}

SmallVector<NodeOp> nibble::rebuildNodes(DictionaryAttr record,
                                         Operation *place, NodeOp source,
                                         ArrayRef<Value> parts,
                                         ConstantTable &constants) {
  SmallVector<NodeOp> known{source};
  if (auto records = record.getAs<ArrayAttr>("nodes"))
    for (Attribute entry : records) {
      auto inner = dyn_cast<DictionaryAttr>(entry);
      NodeOp node =
          inner ? ::rebuildNode(inner, place, {}, getAnchors(inner, parts),
                                constants, known)
                : NodeOp();
      if (!node) {
        for (NodeOp made : llvm::reverse(llvm::drop_begin(known)))
          made.erase();
        return {};
      }
      known.push_back(node);
    }
  known.erase(known.begin());
  return known;
}

SmallVector<Value> nibble::getAnchors(DictionaryAttr record,
                                      ArrayRef<Value> parts) {
  SmallVector<Value> anchors;
  auto entries = record.getAs<ArrayAttr>("inputs");
  if (!entries || parts.empty())
    return anchors;
  for (Attribute entry : entries) {
    auto constant = dyn_cast<DictionaryAttr>(entry);
    auto name = constant ? constant.getAs<StringAttr>("name") : StringAttr();
    Value &anchor = anchors.emplace_back(parts.front());
    for (Value part : parts)
      if (auto op = part ? part.getDefiningOp<ConstantOp>() : ConstantOp())
        if (op.getNameAttr() == name)
          anchor = part;
  }
  return anchors;
}

Value nibble::seeThroughCasts(Value value) {
  while (auto cast = value.getDefiningOp<UnrealizedConversionCastOp>()) {
    if (cast.getInputs().size() != 1)
      break;
    value = cast.getInputs()[0];
  }
  return value;
}
