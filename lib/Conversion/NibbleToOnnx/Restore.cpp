//===- Restore.cpp - Nodes that come back as they were --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A record is trusted only after the node that it describes has been read again
// and gives the very parts that the program has now: a pass may have rewritten
// a scale since.
//
//===----------------------------------------------------------------------===//

#include "Restore.h"

#include "nibble/Dialect/Nibble/Transforms/Weights.h"

#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static DictionaryAttr getRecord(Operation *op) {
  return op->getAttrOfType<DictionaryAttr>(kRecordAttrName);
}

static Value castTo(OpBuilder &builder, Value value, Type type) {
  if (value.getType() == type)
    return value;
  return UnrealizedConversionCastOp::create(builder, value.getLoc(), type,
                                            value)
      .getResult(0);
}

static bool isReadByNodes(Value value) {
  return llvm::all_of(value.getUsers(), llvm::IsaPred<NodeOp>);
}

//===----------------------------------------------------------------------===//
// Nodes from records
//===----------------------------------------------------------------------===//

static bool saysTheSame(const QuantizedNode &read, RankedTensorType type,
                        Value codes, Value scales, Value zeros) {
  if (read.type != type)
    return false;
  auto same = [](TypedAttr part, Value value) {
    if (!part || !value)
      return !part && !value;
    return isSameTensor(part, getConstantValue(value));
  };
  // Codes that are computed are an input of the node, or its result.
  bool constantCodes = codes && getConstantValue(codes);
  return (constantCodes ? same(read.codes, codes) : !read.codes) &&
         same(read.scales, scales) && same(read.zeros, zeros);
}

bool Restorer::saysTheSame(NodeOp node, RankedTensorType type, Value codes,
                           Value scales, Value zeros) {
  Result<QuantizedNode> read = readQuantizedNode(node);
  return read && ::saysTheSame(*read, type, codes, scales, zeros);
}

NodeOp Restorer::rebuild(Operation *op, ArrayRef<Value> inputs, Value codes,
                         Value scales, Value zeros) {
  DictionaryAttr record = getRecord(op);
  // Each constant comes back where the part stands that was made of it.
  return rebuildNode(record, op, inputs,
                     getAnchors(record, {codes, scales, zeros}), constants);
}

/// Removes a node that turned out not to say the same.
void Restorer::discard(NodeOp node) {
  SmallVector<Value> inputs(node.getInputs());
  node.erase();
  for (Value input : inputs)
    if (input.getDefiningOp<ConstantOp>() || input.getDefiningOp<AbsentOp>())
      candidates.push_back(input.getDefiningOp());
}

bool Restorer::restoreAssemble(AssembleOp op) {
  if (!isReadByNodes(op.getResult()))
    return false;
  NodeOp node = rebuild(op, {}, op.getCodes(), op.getScales(), op.getZeros());
  if (!node)
    return false;
  if (getNodeKind(node) != NodeKind::DequantizeLinear ||
      node.getNumResults() != 1 ||
      !saysTheSame(node, op.getType(), op.getCodes(), op.getScales(),
                   op.getZeros()))
    return discard(node), false;
  op.getResult().replaceAllUsesWith(node.getResult(0));
  candidates.push_back(op);
  return true;
}

Restorer::Parts Restorer::getParts(Value quantized) const {
  if (auto assemble = quantized.getDefiningOp<AssembleOp>())
    return {assemble.getCodes(), assemble.getScales(), assemble.getZeros()};
  if (auto quantize = quantized.getDefiningOp<QuantizeOp>())
    return {quantizedCodes.lookup(quantized), quantize.getScales(),
            quantize.getZeros()};
  return {};
}

bool Restorer::restoreDequantize(DequantizeOp op) {
  Value quantized = op.getInput();
  auto [codes, scales, zeros] = getParts(quantized);
  if (!codes)
    return false;
  OpBuilder builder(op);
  auto type = cast<RankedTensorType>(quantized.getType());
  Value input = castTo(builder, codes, getCodesType(type));
  NodeOp node = rebuild(op, {input}, codes, scales, zeros);
  if (!node)
    return false;
  if (getNodeKind(node) != NodeKind::DequantizeLinear ||
      node.getNumResults() != 1 ||
      !saysTheSame(node, type, codes, scales, zeros))
    return discard(node), false;
  op.getResult().replaceAllUsesWith(
      castTo(builder, node.getResult(0), op.getType()));
  candidates.append({quantized.getDefiningOp(), op});
  return true;
}

void Restorer::replaceCodes(Value quantized, Value codes) {
  quantizedCodes[quantized] = codes;
  for (Operation *user : quantized.getUsers()) {
    auto projection = dyn_cast<CodesOp>(user);
    if (!projection)
      continue;
    OpBuilder builder(projection);
    projection.getResult().replaceAllUsesWith(
        castTo(builder, codes, projection.getType()));
    candidates.push_back(projection);
  }
}

/// A product of quantized tensors whose result is quantized.
bool Restorer::restoreQLinear(QuantizeOp op) {
  auto product = op.getInput().getDefiningOp<NodeOp>();
  if (!product || product.getNumResults() != 1 ||
      product.getInputs().size() < 2 || product.getInputs().size() > 3)
    return false;
  // Codes, scale and zero point of both factors, those of the result, the bias.
  SmallVector<Value> inputs(9), anchors(9);
  SmallVector<Parts> operands;
  OpBuilder builder(op);
  for (auto [index, input] : llvm::enumerate(product.getInputs())) {
    Parts parts = getParts(input);
    if (!parts.codes)
      return false;
    operands.push_back(parts);
    unsigned first = index == 2 ? 8 : index * 3;
    inputs[first] =
        castTo(builder, parts.codes,
               getCodesType(cast<RankedTensorType>(input.getType())));
    anchors[first] = parts.codes;
    if (index < 2) {
      anchors[first + 1] = parts.scales;
      anchors[first + 2] = parts.zeros;
    }
  }
  anchors[6] = op.getScales();
  anchors[7] = op.getZeros();
  NodeOp node = rebuildNode(getRecord(op), op, inputs, anchors, constants);
  if (!node)
    return false;
  Result<QuantizedNode> read = readQuantizedNode(node);
  bool same =
      read && read->operands.size() == operands.size() &&
      product.isOnnx(node.isOnnx("QLinearConv") ? "Conv" : "MatMul") &&
      node.getNodeAttributes() == product.getNodeAttributes() &&
      ::saysTheSame(*read, op.getType(), {}, op.getScales(), op.getZeros());
  for (unsigned i = 0; same && i < operands.size(); ++i)
    same =
        ::saysTheSame(read->operands[i],
                      cast<RankedTensorType>(product.getInputs()[i].getType()),
                      operands[i].codes, operands[i].scales, operands[i].zeros);
  if (!same)
    return discard(node), false;
  replaceCodes(op.getResult(), node.getResult(0));
  for (Value input : product.getInputs())
    candidates.push_back(input.getDefiningOp());
  candidates.append({product, op});
  return true;
}

bool Restorer::restoreQuantize(QuantizeOp op) {
  if (getRecordedOpType(getRecord(op)) != "QuantizeLinear")
    return restoreQLinear(op);
  NodeOp node = rebuild(op, {op.getInput()}, {}, op.getScales(), op.getZeros());
  if (!node)
    return false;
  if (getNodeKind(node) != NodeKind::QuantizeLinear ||
      node.getNumResults() != 1 ||
      !saysTheSame(node, op.getType(), {}, op.getScales(), op.getZeros()))
    return discard(node), false;
  replaceCodes(op.getResult(), node.getResult(0));
  candidates.push_back(op);
  return true;
}

bool Restorer::restoreDynamic(QuantizeDynamicOp op) {
  // The scale and zero point must be read as the node gives them. Products come
  // back by their own records.
  for (Operation *user : op->getUsers()) {
    if (isa<CodesOp, IntegersOp, NodeOp>(user))
      continue;
    if (!isa<ScalesOp, ZerosOp>(user) ||
        !llvm::all_of(user->getUsers(), [](Operation *reader) {
          auto node = dyn_cast<NodeOp>(reader);
          return node && node.isOnnx("Squeeze") &&
                 node.getInputs().size() == 1 && node.getNumResults() == 1;
        }))
      return false;
  }
  NodeOp node = rebuild(op, {op.getInput()}, {}, {}, {});
  if (!node)
    return false;
  if (getNodeKind(node) != NodeKind::DynamicQuantizeLinear ||
      node.getNumResults() != 3 || !saysTheSame(node, op.getType(), {}, {}, {}))
    return discard(node), false;
  replaceCodes(op.getResult(), node.getResult(0));
  candidates.push_back(op);
  for (Operation *user : op->getUsers()) {
    if (isa<CodesOp, IntegersOp, NodeOp>(user))
      continue;
    Value part = node.getResult(isa<ScalesOp>(user) ? 1 : 2);
    candidates.push_back(user);
    for (Operation *reader : user->getUsers()) {
      OpBuilder builder(reader);
      reader->getResult(0).replaceAllUsesWith(
          castTo(builder, part, reader->getResult(0).getType()));
      candidates.push_back(reader);
    }
  }
  return true;
}

/// A MatMul or Conv of activations that are quantized as the model runs.
bool Restorer::restoreIntegerProduct(NodeOp op) {
  if (op.getInputs().size() != 2 || op.getNumResults() != 1)
    return false;
  Value activations = op.getInputs()[0];
  auto weight = op.getInputs()[1].getDefiningOp<AssembleOp>();
  Value codes = quantizedCodes.lookup(activations);
  auto dynamic = codes ? codes.getDefiningOp<NodeOp>() : NodeOp();
  if (!dynamic || !weight)
    return false;
  SmallVector<NodeOp> nodes = rebuildNodes(
      getRecord(op), op, dynamic,
      {weight.getCodes(), weight.getScales(), weight.getZeros()}, constants);
  if (nodes.empty())
    return false;
  NodeOp sums = nodes.front();
  Result<IntegerProduct> read = readIntegerProduct(sums);
  bool same = read && read->dynamic == dynamic &&
              read->result == nodes.back() &&
              read->activations.type == activations.getType() &&
              op.isOnnx(sums.isOnnx("ConvInteger") ? "Conv" : "MatMul") &&
              sums.getNodeAttributes() == op.getNodeAttributes() &&
              ::saysTheSame(read->weight, weight.getType(), weight.getCodes(),
                            weight.getScales(), weight.getZeros());
  if (!same) {
    for (NodeOp node : llvm::reverse(nodes))
      discard(node);
    return false;
  }
  nodes.back().getResult(0).setType(op.getResult(0).getType());
  op.getResult(0).replaceAllUsesWith(nodes.back().getResult(0));
  candidates.append({activations.getDefiningOp(), weight, op});
  return true;
}

/// The zero points of a factor as a node takes them: before the Reshape that
/// gives them the rank of the codes.
static Value getReshaped(Value zeros) {
  auto reshape = zeros.getDefiningOp<NodeOp>();
  return reshape && reshape.isOnnx("Reshape") ? reshape.getInputs()[0] : zeros;
}

/// A MatMul or Conv of integers.
bool Restorer::restoreIntegerSums(NodeOp op) {
  if (op.getInputs().size() != 2 || op.getNumResults() != 1)
    return false;
  SmallVector<Value> inputs(4), anchors(4);
  SmallVector<IntegersOp> factors;
  SmallVector<Parts> parts;
  for (auto [index, input] : llvm::enumerate(op.getInputs())) {
    auto integers = seeThroughCasts(input).getDefiningOp<IntegersOp>();
    if (!integers)
      return false;
    Parts part = getParts(integers.getInput());
    if (Value codes = quantizedCodes.lookup(integers.getInput());
        codes && integers.getInput().getDefiningOp<QuantizeDynamicOp>())
      part = {codes, {}, cast<NodeOp>(codes.getDefiningOp()).getResult(2)};
    if (!part.codes)
      return false;
    inputs[index] = anchors[index] = part.codes;
    anchors[index + 2] = part.zeros;
    inputs[index + 2] = part.zeros ? getReshaped(part.zeros) : Value();
    factors.push_back(integers);
    parts.push_back(part);
  }
  NodeOp node = rebuildNode(getRecord(op), op, inputs, anchors, constants);
  if (!node)
    return false;
  Result<QuantizedNode> read = readQuantizedNode(node);
  bool same = read && read->operands.size() == factors.size() &&
              op.isOnnx(node.isOnnx("ConvInteger") ? "Conv" : "MatMul") &&
              node.getNodeAttributes() == op.getNodeAttributes();
  auto isSame = [](TypedAttr value, Value part) {
    Attribute constant = part ? getConstantValue(part) : Attribute();
    return constant ? isSameTensor(value, constant) : !value;
  };
  for (unsigned i = 0; same && i < factors.size(); ++i) {
    const QuantizedNode &factor = read->operands[i];
    // Scales play no part in integers.
    same = factor.type == factors[i].getInput().getType() &&
           isSame(factor.codes, parts[i].codes) &&
           isSame(factor.zeros, parts[i].zeros);
  }
  if (!same)
    return discard(node), false;
  node.getResult(0).setType(op.getResult(0).getType());
  op.getResult(0).replaceAllUsesWith(node.getResult(0));
  for (auto [factor, part] : llvm::zip(factors, parts)) {
    candidates.append({factor, factor.getInput().getDefiningOp()});
    if (part.zeros)
      candidates.push_back(part.zeros.getDefiningOp());
  }
  candidates.push_back(op);
  return true;
}

/// The Gather along the last axis by `order` that gives `activations`, or null.
static NodeOp getReordering(Value activations, ArrayRef<int64_t> order) {
  auto gather = activations.getDefiningOp<NodeOp>();
  if (!gather || !gather.isOnnx("Gather") || gather.getInputs().size() != 2 ||
      gather.getInt("axis", 0) != -1)
    return {};
  Attribute indices = getConstantValue(gather.getInputs()[1]);
  Builder builder(gather.getContext());
  bool same = indices && isSameTensor(indices, builder.getI64TensorAttr(order));
  return same ? gather : NodeOp();
}

/// A MatMul (with an Add of a bias) or a Gather of a quantized weight.
bool Restorer::restoreReader(NodeOp node) {
  SmallVector<Value> inputs(6);
  NodeOp product = node;
  StringRef opType = getRecordedOpType(getRecord(node));
  bool gathers = opType == "GatherBlockQuantized";
  if (node.isOnnx("Add") && node.getInputs().size() == 2) {
    inputs[5] = node.getInputs()[1];
    product = node.getInputs()[0].getDefiningOp<NodeOp>();
    if (!product || !product->hasOneUse())
      return false;
  }
  bool reads = gathers ? product.isOnnx("Gather") : product.isOnnx("MatMul");
  if (!reads || product.getInputs().size() != 2 ||
      product.getNumResults() != 1 || node.getNumResults() != 1)
    return false;
  inputs[gathers ? 1 : 0] = product.getInputs()[gathers ? 1 : 0];
  MatrixSource source = getMatrixSource(product.getInputs()[gathers ? 0 : 1]);
  auto weight = source.value.getDefiningOp<AssembleOp>();
  if (!weight || source.transposed == gathers)
    return false;
  NodeOp restored = rebuild(node, inputs, weight.getCodes(), weight.getScales(),
                            weight.getZeros());
  if (!restored)
    return false;
  std::optional<NodeKind> kind = getNodeKind(restored);
  bool known =
      gathers
          ? kind == NodeKind::GatherBlockQuantized &&
                restored.getInt("gather_axis", 0) == product.getInt("axis", 0)
          : kind == NodeKind::MatMulNBits || kind == NodeKind::MatMulBnb4;
  // Nobody but the record says whether there was a bias.
  bool sameBias =
      gathers || (product != node) == (static_cast<bool>(restored.getInput(5)));
  if (!known || !sameBias || restored.getNumResults() != 1 ||
      !saysTheSame(restored, weight.getType(), weight.getCodes(),
                   weight.getScales(), weight.getZeros()))
    return discard(restored), false;
  std::vector<int64_t> order = readQuantizedNode(restored)->order;
  if (!order.empty()) {
    NodeOp reordering = getReordering(inputs[0], order);
    if (!reordering)
      return discard(restored), false;
    restored->setOperand(0, reordering.getInputs()[0]);
    candidates.push_back(reordering);
  }
  node.getResult(0).replaceAllUsesWith(restored.getResult(0));
  candidates.push_back(weight);
  if (!gathers)
    candidates.push_back(product.getInputs()[1].getDefiningOp());
  if (product != node)
    candidates.push_back(product);
  candidates.push_back(node);
  return true;
}

bool Restorer::restoreNode(Operation *op) {
  if (auto assemble = dyn_cast<AssembleOp>(op))
    return restoreAssemble(assemble);
  if (auto dequantize = dyn_cast<DequantizeOp>(op))
    return restoreDequantize(dequantize);
  if (auto quantize = dyn_cast<QuantizeOp>(op))
    return restoreQuantize(quantize);
  if (auto dynamic = dyn_cast<QuantizeDynamicOp>(op))
    return restoreDynamic(dynamic);
  auto node = dyn_cast<NodeOp>(op);
  if (!node)
    return false;
  StringRef opType = getRecordedOpType(getRecord(node));
  if (getRecord(node).contains("nodes"))
    return restoreIntegerProduct(node);
  return opType == "MatMulInteger" || opType == "ConvInteger"
             ? restoreIntegerSums(node)
             : restoreReader(node);
}

//===----------------------------------------------------------------------===//
// Whole models
//===----------------------------------------------------------------------===//

static bool isOfFormat(Operation *op, StringRef format) {
  if (format == "auto" || isa<QuantizeOp, DequantizeOp, QuantizeDynamicOp>(op))
    return true;
  StringRef opType = getRecordedOpType(getRecord(op));
  if (opType == "MatMulInteger" || opType == "ConvInteger")
    return true;
  if (format == "qdq")
    return opType == "DequantizeLinear";
  if (format == "bnb4")
    return opType == "MatMulBnb4";
  return opType == "MatMulNBits" || opType == "GatherBlockQuantized";
}

unsigned Restorer::restoreAll(StringRef format) {
  SmallVector<Operation *> ops;
  module.walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (getRecord(op) && isOfFormat(op, format))
      ops.push_back(op);
  });
  unsigned count = 0;
  for (Operation *op : ops)
    count += restoreNode(op);
  cleanUp();
  return count;
}

unsigned Restorer::restore(AssembleOp op) {
  if (getRecord(op) && restoreAssemble(op))
    return 1;
  SmallVector<Operation *> readers;
  for (Operation *user : op->getUsers()) {
    auto node = dyn_cast<NodeOp>(user);
    if (node && node.isOnnx("Transpose"))
      llvm::append_range(readers, node->getUsers());
    else
      readers.push_back(user);
  }
  for (Operation *reader : readers) {
    // The sum with a bias holds the record.
    if (!getRecord(reader) && reader->hasOneUse())
      reader = *reader->getUsers().begin();
    if (!getRecord(reader) || !restoreNode(reader))
      return 0;
  }
  return readers.size();
}

/// Removes conversions that only concern the types that nodes do not check.
static void bypassCasts(ModuleOp module) {
  SmallVector<UnrealizedConversionCastOp> casts;
  module.walk([&](UnrealizedConversionCastOp cast) { casts.push_back(cast); });
  for (UnrealizedConversionCastOp cast : casts) {
    if (cast.getInputs().size() != 1)
      continue;
    Value source = seeThroughCasts(cast.getResult(0));
    cast.getResult(0).replaceUsesWithIf(source, [&](OpOperand &use) {
      return isa<NodeOp>(use.getOwner()) ||
             source.getType() == cast.getResult(0).getType();
    });
  }
  for (UnrealizedConversionCastOp cast : llvm::reverse(casts))
    if (cast->use_empty())
      cast.erase();
}

/// Ops that may go once nothing reads them, apart from nodes that were
/// replaced.
static bool isRemovable(Operation *op) {
  return isa<ConstantOp, AbsentOp, UnrealizedConversionCastOp, AssembleOp,
             QuantizeOp, QuantizeDynamicOp, DequantizeOp, CodesOp, ScalesOp,
             ZerosOp, IntegersOp>(op);
}

void Restorer::cleanUp() {
  bypassCasts(module);
  llvm::SmallSetVector<Operation *, 32> ops;
  for (Operation *op : candidates)
    if (op)
      ops.insert(op);
  candidates.clear();
  while (true) {
    auto it = llvm::find_if(ops, [](Operation *op) { return op->use_empty(); });
    if (it == ops.end())
      break;
    Operation *op = *it;
    ops.remove(op);
    for (Value operand : op->getOperands())
      if (Operation *made = operand.getDefiningOp(); made && isRemovable(made))
        ops.insert(made);
    if (auto constant = dyn_cast<ConstantOp>(op))
      constants.remove(constant.getResult(), constant.getName());
    op->erase();
  }
}
