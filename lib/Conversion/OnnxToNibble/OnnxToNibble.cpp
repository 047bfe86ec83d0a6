//===- OnnxToNibble.cpp - ONNX's quantized ops to nibble ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/OnnxToNibble.h"

#include "nibble/Conversion/QuantizedNode.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/SetVector.h"

namespace nibble {
#define GEN_PASS_DEF_CONVERTONNXTONIBBLE
#include "nibble/Conversion/OnnxToNibble.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

struct ToNibble : nibble::impl::ConvertOnnxToNibbleBase<ToNibble> {
  using ConvertOnnxToNibbleBase::ConvertOnnxToNibbleBase;

  void runOnOperation() override;

private:
  struct Parts {
    Value codes, scales, zeros;
  };

  void collect(NodeOp node);
  void convert(NodeOp node);
  void keep(NodeOp node, const Twine &why);
  Parts makeParts(NodeOp node, const QuantizedNode &read);
  Value makePart(Value original, TypedAttr value, StringRef suffix);
  AssembleOp getWeight(NodeOp node, const QuantizedNode &read);
  Value getTranspose(NodeOp node, AssembleOp weight, Value original);

  void convertDequantize(NodeOp node, const QuantizedNode &read);
  void convertQuantize(NodeOp node, const QuantizedNode &read);
  void convertDynamic(NodeOp node, const QuantizedNode &read);
  void convertProduct(NodeOp node, const QuantizedNode &read);
  Value reorderInputs(NodeOp node, const QuantizedNode &read);
  void convertGather(NodeOp node, const QuantizedNode &read);
  void convertQLinear(NodeOp node, const QuantizedNode &read);
  void convertIntegerProduct(IntegerProduct product, Value activations);
  void convertIntegerSums(NodeOp node, const QuantizedNode &read);
  Value getFactor(NodeOp node, const QuantizedNode &read);
  Value getZeroPoints(NodeOp node, const QuantizedNode &read);
  Value makeConstant(NodeOp node, const Twine &name, TypedAttr value);
  void replaceByCodes(NodeOp node, const QuantizedNode &read, Value input);
  Value getOperand(NodeOp node, const QuantizedNode &read);
  /// Erases a node that has been replaced, and its constants that only it read.
  void erase(NodeOp node);

  /// Constants made of (an original, as this type).
  DenseMap<std::pair<Value, Type>, SmallVector<Value, 1>> parts;
  /// The last assembly of (codes, scales, zero points) as a type.
  DenseMap<std::pair<Value, Value>, SmallVector<AssembleOp, 1>> weights;
  DenseMap<AssembleOp, Value> transposes;
  llvm::SmallSetVector<Operation *, 16> orphans;
  std::optional<UniqueNames> names;
  /// What is converted, as it was before the first node changed.
  SmallVector<NodeOp> nodes;
  /// Products by the DynamicQuantizeLinear that they read.
  DenseMap<Operation *, SmallVector<IntegerProduct, 1>> products;
};

} // namespace

//===----------------------------------------------------------------------===//
// Parts
//===----------------------------------------------------------------------===//

static NodeOp makeNode(OpBuilder &builder, Location loc, StringRef opType,
                       StringRef name, StringRef output, ValueRange inputs,
                       ArrayRef<Attribute> attributes, Type type) {
  return NodeOp::create(
      builder, loc, type, builder.getStringAttr(opType), StringAttr(),
      StringAttr(), name.empty() ? StringAttr() : builder.getStringAttr(name),
      builder.getStrArrayAttr({output}), builder.getArrayAttr(attributes),
      DictionaryAttr(), inputs, 0);
}

/// `value` as a value of `type`, by a cast where it has another.
static Value castTo(OpBuilder &builder, Value value, Type type) {
  if (value.getType() == type)
    return value;
  // The other half of a pair.
  if (auto cast = value.getDefiningOp<UnrealizedConversionCastOp>())
    if (cast.getInputs().size() == 1 && cast.getInputs()[0].getType() == type)
      return cast.getInputs()[0];
  return UnrealizedConversionCastOp::create(builder, value.getLoc(), type,
                                            value)
      .getResult(0);
}

Value ToNibble::makePart(Value original, TypedAttr value, StringRef suffix) {
  if (suffix.empty() && getConstantValue(original) == value &&
      original.getType() == value.getType())
    return original;
  // What had to be laid out anew is another attribute each time.
  auto &known = parts[{original, value.getType()}];
  for (Value part : known)
    if (isSameTensor(getConstantValue(part), value))
      return part;
  Operation *op = original.getDefiningOp();
  OpBuilder builder(op->getContext());
  builder.setInsertionPointAfter(op);
  StringRef name;
  if (auto constant = dyn_cast<ConstantOp>(op))
    name = constant.getName();
  else
    name = cast<NodeOp>(op).getOutputName(0);
  auto constant =
      ConstantOp::create(builder, op->getLoc(), value.getType(),
                         builder.getStringAttr(name + suffix), value,
                         TensorField::raw_data, DictionaryAttr());
  known.push_back(constant.getResult());
  return constant.getResult();
}

ToNibble::Parts ToNibble::makeParts(NodeOp node, const QuantizedNode &read) {
  Parts result;
  Value codes = node.getInput(read.codesInput);
  if (read.codes)
    result.codes = makePart(codes, read.codes, "");
  if (read.scales)
    result.scales = makePart(
        node.getInput(read.scalesInput), read.scales,
        read.scalesInput == read.codesInput && read.codes ? ".scales" : "");
  if (read.zerosInput)
    result.zeros = makePart(node.getInput(*read.zerosInput), read.zeros, "");
  else if (read.zeros)
    result.zeros = makePart(codes, read.zeros, ".zeros");
  return result;
}

/// The assembly of a weight that several nodes may read.
AssembleOp ToNibble::getWeight(NodeOp node, const QuantizedNode &read) {
  Parts made = makeParts(node, read);
  auto &known = weights[{made.codes, made.scales}];
  for (AssembleOp weight : known)
    if (weight.getZeros() == made.zeros && weight.getType() == read.type &&
        weight->getBlock()->findAncestorOpInBlock(*node))
      return weight;
  OpBuilder builder(node);
  ++numWeights;
  auto weight =
      AssembleOp::create(builder, node.getLoc(), read.type, made.codes,
                         made.scales, made.zeros, Value(), Value());
  known.push_back(weight);
  return weight;
}

void ToNibble::erase(NodeOp node) {
  for (Value input : node.getInputs())
    if (input.getDefiningOp<ConstantOp>() || input.getDefiningOp<AbsentOp>())
      orphans.insert(input.getDefiningOp());
  node.erase();
}

//===----------------------------------------------------------------------===//
// Nodes
//===----------------------------------------------------------------------===//

/// True where a quantized tensor may stand for the result: only nodes of the
/// graph read it, which state no type.
static bool isReadByNodes(Value value) {
  return !value.use_empty() &&
         llvm::all_of(value.getUsers(), [](Operation *user) {
           auto node = dyn_cast<NodeOp>(user);
           return node && node.getNumRegions() == 0 && !getNodeKind(node);
         });
}

/// The quantized tensor that is an operand of `node`: an assembly of its own,
/// or what nibble.quantize made with the same parameters.
Value ToNibble::getOperand(NodeOp node, const QuantizedNode &read) {
  OpBuilder builder(node);
  Parts made = makeParts(node, read);
  if (!read.codes) {
    made.codes = castTo(builder, node.getInput(read.codesInput),
                        getCodesType(read.type));
    if (auto projection = made.codes.getDefiningOp<CodesOp>())
      if (auto quantize = projection.getInput().getDefiningOp<QuantizeOp>())
        if (quantize.getType() == read.type &&
            quantize.getScales() == made.scales &&
            quantize.getZeros() == made.zeros)
          return quantize.getResult();
  }
  return AssembleOp::create(builder, node.getLoc(), read.type, made.codes,
                            made.scales, made.zeros, Value(), Value())
      .getResult();
}

void ToNibble::convertDequantize(NodeOp node, const QuantizedNode &read) {
  OpBuilder builder(node);
  DictionaryAttr record = recordNode(node);
  Value result = node.getResult(0);
  Value quantized = getOperand(node, read);
  ++(read.codes ? numWeights : numActivations);
  if (read.codes && isReadByNodes(result)) {
    quantized.getDefiningOp()->setAttr(kRecordAttrName, record);
    result.replaceAllUsesWith(quantized);
  } else {
    auto dequantize = DequantizeOp::create(
        builder, node.getLoc(), getExpressedType(read.type), quantized);
    dequantize->setAttr(kRecordAttrName, record);
    result.replaceAllUsesWith(
        castTo(builder, dequantize.getResult(), result.getType()));
  }
  erase(node);
}

/// Puts the codes of `input`, quantized as `node` says, in its place.
void ToNibble::replaceByCodes(NodeOp node, const QuantizedNode &read,
                              Value input) {
  OpBuilder builder(node);
  Parts made = makeParts(node, read);
  auto quantize = QuantizeOp::create(builder, node.getLoc(), read.type, input,
                                     made.scales, made.zeros);
  quantize->setAttr(kRecordAttrName, recordNode(node));
  Value codes = CodesOp::create(builder, node.getLoc(), quantize.getResult());
  Value result = node.getResult(0);
  result.replaceAllUsesWith(castTo(builder, codes, result.getType()));
  ++numActivations;
  erase(node);
}

void ToNibble::convertQuantize(NodeOp node, const QuantizedNode &read) {
  OpBuilder builder(node);
  Value input = castTo(builder, node.getInput(0), getExpressedType(read.type));
  replaceByCodes(node, read, input);
}

void ToNibble::convertDynamic(NodeOp node, const QuantizedNode &read) {
  OpBuilder builder(node);
  Location loc = node.getLoc();
  Value input = castTo(builder, node.getInput(0), getExpressedType(read.type));
  auto quantize = QuantizeDynamicOp::create(builder, loc, read.type, input);
  quantize->setAttr(kRecordAttrName, recordNode(node));
  for (const IntegerProduct &product : products.lookup(node))
    convertIntegerProduct(product, quantize.getResult());
  Value codes = CodesOp::create(builder, loc, quantize.getResult());
  node.getResult(0).replaceAllUsesWith(
      castTo(builder, codes, node.getResult(0).getType()));
  // ONNX's are scalars, the dialect's have the rank of the tensor.
  auto replace = [&](unsigned index, Value part) {
    Value old = node.getResult(index);
    if (old.use_empty())
      return;
    NodeOp squeeze =
        makeNode(builder, loc, "Squeeze", "", node.getOutputName(index), part,
                 {}, old.getType());
    old.replaceAllUsesWith(squeeze.getResult(0));
  };
  replace(1, ScalesOp::create(builder, loc, quantize.getResult()));
  replace(2, ZerosOp::create(builder, loc, quantize.getResult()));
  for (Operation *user : llvm::make_early_inc_range(quantize->getUsers()))
    if (!isa<NodeOp>(user) && user->use_empty())
      user->erase();
  ++numActivations;
  erase(node);
}

/// The transpose of a weight [N, K] beside it.
Value ToNibble::getTranspose(NodeOp node, AssembleOp weight, Value original) {
  Value &transpose = transposes[weight];
  if (transpose)
    return transpose;
  OpBuilder builder(weight->getContext());
  builder.setInsertionPointAfter(weight);
  StringRef name;
  if (auto constant = original.getDefiningOp<ConstantOp>())
    name = constant.getName();
  else
    name = node.getOutputName(0);
  std::string unique = names->make(name + ".transposed");
  auto type = weight.getType();
  SmallVector<int64_t> shape = {type.getDimSize(1), type.getDimSize(0)};
  Attribute order = NodeAttributeAttr::get(
      builder.getContext(), builder.getStringAttr("perm"),
      builder.getDenseI64ArrayAttr({1, 0}));
  return transpose =
             makeNode(builder, weight.getLoc(), "Transpose", "", unique,
                      weight.getResult(), order,
                      RankedTensorType::get(shape, type.getElementType()))
                 .getResult(0);
}

/// The activations in the order of the weight's columns.
Value ToNibble::reorderInputs(NodeOp node, const QuantizedNode &read) {
  Value input = node.getInput(0);
  if (read.order.empty())
    return input;
  OpBuilder builder(node);
  StringRef output = node.getOutputName(0);
  Value order = makeConstant(node, output + ".order",
                             builder.getI64TensorAttr(read.order));
  Attribute last = NodeAttributeAttr::get(builder.getContext(),
                                          builder.getStringAttr("axis"),
                                          builder.getI64IntegerAttr(-1));
  return makeNode(builder, node.getLoc(), "Gather", "",
                  names->make(output + ".reordered"), {input, order}, last,
                  input.getType())
      .getResult(0);
}

void ToNibble::convertProduct(NodeOp node, const QuantizedNode &read) {
  AssembleOp weight = getWeight(node, read);
  Value right = getTranspose(node, weight, node.getInput(read.codesInput));
  OpBuilder builder(node);
  Value bias = node.getInput(5);
  StringRef name = node.getName().value_or("");
  StringRef output = node.getOutputName(0);
  Type type = node.getResult(0).getType();
  NodeOp result =
      makeNode(builder, node.getLoc(), "MatMul", name,
               bias ? names->make(output + ".product") : output.str(),
               {reorderInputs(node, read), right}, {}, type);
  if (bias)
    result = makeNode(builder, node.getLoc(), "Add",
                      name.empty() ? "" : (name + ".bias").str(), output,
                      {result.getResult(0), bias}, {}, type);
  result->setAttr(kRecordAttrName, recordNode(node));
  node.getResult(0).replaceAllUsesWith(result.getResult(0));
  erase(node);
}

void ToNibble::convertGather(NodeOp node, const QuantizedNode &read) {
  AssembleOp weight = getWeight(node, read);
  OpBuilder builder(node);
  SmallVector<Attribute> attributes;
  if (Attribute axis = node.getAttributeValue("gather_axis"))
    attributes.push_back(NodeAttributeAttr::get(
        builder.getContext(), builder.getStringAttr("axis"), axis));
  NodeOp gather =
      makeNode(builder, node.getLoc(), "Gather", node.getName().value_or(""),
               node.getOutputName(0), {weight.getResult(), node.getInput(1)},
               attributes, node.getResult(0).getType());
  gather->setAttr(kRecordAttrName, recordNode(node));
  node.getResult(0).replaceAllUsesWith(gather.getResult(0));
  erase(node);
}

/// The product of what the codes stand for, quantized: what the op computes
/// with integers.
void ToNibble::convertQLinear(NodeOp node, const QuantizedNode &read) {
  OpBuilder builder(node);
  SmallVector<Value> operands;
  for (const QuantizedNode &operand : read.operands) {
    operands.push_back(getOperand(node, operand));
    numWeights += operand.codes ? 1 : 0;
  }
  StringRef output = node.getOutputName(0);
  bool isConv = read.kind == NodeKind::QLinearConv;
  NodeOp product = makeNode(
      builder, node.getLoc(), isConv ? "Conv" : "MatMul",
      node.getName().value_or(""), names->make(output + ".expressed"), operands,
      node.getNodeAttributes().getValue(), getExpressedType(read.type));
  replaceByCodes(node, read, product.getResult(0));
}

/// The product of the numbers themselves: the nodes that scale the sums go.
void ToNibble::convertIntegerProduct(IntegerProduct product,
                                     Value activations) {
  NodeOp sums = product.sums, result = product.result;
  const QuantizedNode &weight = product.weight;
  Value codes = makePart(sums.getInput(1), weight.codes, "");
  Value scales = makePart(product.getWeightScale(), weight.scales, "");
  Value zeros =
      weight.zeros ? makePart(sums.getInput(3), weight.zeros, "") : Value();
  OpBuilder builder(result);
  auto assemble = AssembleOp::create(builder, sums.getLoc(), weight.type, codes,
                                     scales, zeros, Value(), Value());
  NodeOp node = makeNode(
      builder, sums.getLoc(), sums.isOnnx("ConvInteger") ? "Conv" : "MatMul",
      sums.getName().value_or(""), result.getOutputName(0),
      {activations, assemble.getResult()}, sums.getNodeAttributes().getValue(),
      result.getResult(0).getType());
  node->setAttr(kRecordAttrName,
                recordNodes(product.getNodes(), product.dynamic));
  result.getResult(0).replaceAllUsesWith(node.getResult(0));
  ++numWeights;
  for (NodeOp old : {result, product.scale, product.cast, sums})
    erase(old);
}

//===----------------------------------------------------------------------===//
// Sums without scales
//===----------------------------------------------------------------------===//

Value ToNibble::makeConstant(NodeOp node, const Twine &name, TypedAttr value) {
  OpBuilder builder(node);
  return ConstantOp::create(builder, node.getLoc(), value.getType(),
                            builder.getStringAttr(names->make(name)), value,
                            TensorField::raw_data, DictionaryAttr())
      .getResult();
}

/// The zero points of a factor with the rank of its codes, or null.
Value ToNibble::getZeroPoints(NodeOp node, const QuantizedNode &read) {
  if (!read.zerosInput)
    return {};
  Value zeros = node.getInput(*read.zerosInput);
  if (read.zeros)
    return makePart(zeros, read.zeros, "");
  RankedTensorType type = getZerosType(read.type);
  std::string name = names->make(node.getOutputName(0) + ".zeros");
  OpBuilder builder(node);
  Value shape = makeConstant(node, name + ".shape",
                             builder.getI64TensorAttr(type.getShape()));
  return makeNode(builder, node.getLoc(), "Reshape", "", name, {zeros, shape},
                  {}, type)
      .getResult(0);
}

/// The tensor whose integers are multiplied: what DynamicQuantizeLinear made,
/// or one that is assembled with scales of 1.
Value ToNibble::getFactor(NodeOp node, const QuantizedNode &read) {
  Value codes = node.getInput(read.codesInput);
  auto projection = seeThroughCasts(codes).getDefiningOp<CodesOp>();
  if (projection && read.zerosInput &&
      projection.getInput().getType() == read.type) {
    auto squeeze = node.getInput(*read.zerosInput).getDefiningOp<NodeOp>();
    auto zeros = squeeze && squeeze.isOnnx("Squeeze")
                     ? squeeze.getInputs()[0].getDefiningOp<ZerosOp>()
                     : ZerosOp();
    if (zeros && zeros.getInput() == projection.getInput())
      return projection.getInput();
  }
  OpBuilder builder(node);
  if (read.codes)
    codes = makePart(codes, read.codes, "");
  else
    codes = castTo(builder, codes, getCodesType(read.type));
  Value scales =
      makeConstant(node, node.getOutputName(0) + ".ones", read.scales);
  return AssembleOp::create(builder, node.getLoc(), read.type, codes, scales,
                            getZeroPoints(node, read), Value(), Value())
      .getResult();
}

/// The product of integers, modulo 2^32 as the node's own.
void ToNibble::convertIntegerSums(NodeOp node, const QuantizedNode &read) {
  OpBuilder builder(node);
  SmallVector<Value> operands;
  for (const QuantizedNode &factor : read.operands) {
    operands.push_back(
        IntegersOp::create(builder, node.getLoc(), getFactor(node, factor))
            .getResult());
    numWeights += factor.codes ? 1 : 0;
  }
  bool isConv = read.kind == NodeKind::ConvInteger;
  NodeOp product = makeNode(builder, node.getLoc(), isConv ? "Conv" : "MatMul",
                            node.getName().value_or(""), node.getOutputName(0),
                            operands, node.getNodeAttributes().getValue(),
                            node.getResult(0).getType());
  product->setAttr(kRecordAttrName, recordNode(node));
  node.getResult(0).replaceAllUsesWith(product.getResult(0));
  erase(node);
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

void ToNibble::keep(NodeOp node, const Twine &why) {
  ++numKept;
  node->setAttr(kKeptAttrName, StringAttr::get(&getContext(), why));
}

/// Notes what is to be done about `node`.
void ToNibble::collect(NodeOp node) {
  if (!getNodeKind(node))
    return;
  if (isIntegerProduct(node))
    if (Result<IntegerProduct> product = readIntegerProduct(node))
      return products[product->dynamic].push_back(*product);
  nodes.push_back(node);
}

void ToNibble::convert(NodeOp node) {
  Result<QuantizedNode> read = readQuantizedNode(node);
  if (!read)
    return keep(node, read.error());
  switch (read->kind) {
  case NodeKind::DequantizeLinear:
    return convertDequantize(node, *read);
  case NodeKind::QuantizeLinear:
    return convertQuantize(node, *read);
  case NodeKind::DynamicQuantizeLinear:
    return convertDynamic(node, *read);
  case NodeKind::MatMulNBits:
  case NodeKind::MatMulBnb4:
    return convertProduct(node, *read);
  case NodeKind::GatherBlockQuantized:
    return convertGather(node, *read);
  case NodeKind::QLinearMatMul:
  case NodeKind::QLinearConv:
    return convertQLinear(node, *read);
  case NodeKind::MatMulInteger:
  case NodeKind::ConvInteger:
    return convertIntegerSums(node, *read);
  }
}

/// Whether `op` gives the zero point of DynamicQuantizeLinear its shape.
static bool isSqueezedPart(Operation *op) {
  auto node = dyn_cast<NodeOp>(op);
  return node && node.isOnnx("Squeeze") && node.getInputs().size() == 1 &&
         node.getInputs()[0].getDefiningOp<ZerosOp>();
}

/// Removes casts and projections that nothing reads any more.
static void eraseUnused(Operation *root) {
  bool changed = true;
  while (changed) {
    changed = false;
    root->walk([&](Operation *op) {
      if (!op->use_empty() ||
          !(isa<UnrealizedConversionCastOp, CodesOp, ZerosOp>(op) ||
            isSqueezedPart(op)))
        return;
      op->erase();
      changed = true;
    });
  }
}

void ToNibble::runOnOperation() {
  parts.clear();
  weights.clear();
  transposes.clear();
  orphans.clear();
  names.emplace(getOperation());
  nodes.clear();
  products.clear();
  getOperation().walk<WalkOrder::PreOrder>([&](NodeOp node) { collect(node); });
  for (NodeOp node : nodes)
    convert(node);
  for (Operation *orphan : orphans)
    if (orphan->use_empty())
      orphan->erase();
  eraseUnused(getOperation());
}
