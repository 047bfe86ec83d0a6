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

DictionaryAttr nibble::recordNode(NodeOp node) {
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
  for (Value input : node.getInputs()) {
    Attribute constant = getConstantValue(input);
    inputs.push_back(constant ? Attribute(recordConstant(input, constant))
                     : input.getDefiningOp<AbsentOp>()
                         ? Attribute(builder.getStringAttr("absent"))
                         : Attribute(builder.getStringAttr("value")));
  }
  entries.set("inputs", builder.getArrayAttr(inputs));
  entries.set("types", builder.getTypeArrayAttr(node.getResultTypes()));
  return entries.getDictionary(node.getContext());
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

NodeOp nibble::rebuildNode(DictionaryAttr record, Operation *place,
                           ArrayRef<Value> inputs, ArrayRef<Value> anchors,
                           ConstantTable &constants) {
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
