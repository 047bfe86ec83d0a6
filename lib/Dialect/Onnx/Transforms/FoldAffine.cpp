//===- FoldAffine.cpp - --onnx-fold-affine --------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/Affine.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "mlir/IR/BuiltinOps.h"

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXFOLDAFFINE
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

struct FoldAffine : onnx::impl::OnnxFoldAffineBase<FoldAffine> {
  using OnnxFoldAffineBase::OnnxFoldAffineBase;

  void runOnOperation() override;

private:
  bool fold(NodeOp node);
  bool foldIntoProducer(NodeOp node, const Affine &affine);
  bool foldIntoConsumer(NodeOp convolution);
  bool merge(NodeOp node, const Affine &affine);
  bool moveBehindProduct(NodeOp node);
  bool findHardSigmoid(NodeOp node);
  void erase(NodeOp node);
};

} // namespace

static std::optional<float> readNumber(Value value) {
  auto factors = readFactors(value);
  return factors && factors->size() == 1
             ? std::optional(static_cast<float>(factors->front()))
             : std::nullopt;
}

//===----------------------------------------------------------------------===//
// Convolutions
//===----------------------------------------------------------------------===//

/// Puts an affine function of a convolution's result into its constants.
bool FoldAffine::foldIntoProducer(NodeOp node, const Affine &affine) {
  NodeOp producer = getOnlyProducer(affine.data);
  auto filter = producer ? Filter::read(producer) : std::nullopt;
  if (!filter)
    return false;
  filter->forEach([&](size_t output, size_t, double &weight) {
    weight *= getFactor(affine.scale, output);
  });
  for (auto [output, number] : llvm::enumerate(filter->bias))
    number = number * getFactor(affine.scale, output) +
             getFactor(affine.shift, output);
  producer.setOutputsAttr(node.getOutputs());
  node.getResult(0).replaceAllUsesWith(producer.getResult(0));
  erase(node);
  filter->write();
  return true;
}

static bool hasNoPadding(NodeOp node) {
  auto pads = node.getInts("pads");
  StringRef automatic = node.getString("auto_pad", "NOTSET");
  return (automatic == "NOTSET" || automatic == "VALID") &&
         (!pads || llvm::all_of(*pads, [](int64_t pad) { return pad == 0; }));
}

/// Puts an affine function of a convolution's input into its constants; a shift
/// only where no zeros are padded.
bool FoldAffine::foldIntoConsumer(NodeOp node) {
  NodeOp producer = getOnlyProducer(node.getInputs()[0]);
  auto affine = producer ? readAffine(producer) : std::nullopt;
  if (!affine ||
      (!affine->isScale() && (!node.isOnnx("Conv") || !hasNoPadding(node))))
    return false;
  auto filter = Filter::read(node);
  if (!filter)
    return false;
  filter->forEach([&](size_t output, size_t input, double &weight) {
    filter->bias[output] += weight * getFactor(affine->shift, input);
    weight *= getFactor(affine->scale, input);
  });
  node.getInputsMutable()[0].set(affine->data);
  erase(producer);
  filter->write();
  return true;
}

//===----------------------------------------------------------------------===//
// Chains
//===----------------------------------------------------------------------===//

/// Two affine functions in a row become a product and a sum.
bool FoldAffine::merge(NodeOp node, const Affine &outer) {
  NodeOp producer = getOnlyProducer(outer.data);
  auto inner = producer ? readAffine(producer) : std::nullopt;
  // A product and then a sum is what remains of any chain.
  if (!inner || (inner->isScale() && outer.isShift()))
    return false;
  Factors scale = combine(inner->scale, outer.scale, std::multiplies<>());
  Factors shift =
      combine(combine(inner->shift, outer.scale, std::multiplies<>()),
              outer.shift, std::plus<>());
  OpBuilder builder(node);
  auto type = getFloatTensor(inner->data);
  std::string name = node.getOutputName(0).str();
  Value result = inner->data;
  bool shifts = llvm::any_of(shift, [](double number) { return number != 0; });
  // An output of the graph keeps a node of its name.
  bool isInner = llvm::all_of(node->getUsers(), llvm::IsaPred<NodeOp>);
  if (scale != Factors{1} || (!shifts && !isInner)) {
    std::string output = shifts ? name + "_scaled" : name;
    result =
        makeNode(builder, "Mul", output,
                 {result, makeFactors(builder, name + "_scale", type, scale)},
                 node.getResult(0).getType())
            .getResult(0);
  }
  if (shifts)
    result =
        makeNode(builder, "Add", name,
                 {result, makeFactors(builder, name + "_shift", type, shift)},
                 node.getResult(0).getType())
            .getResult(0);
  node.getResult(0).replaceAllUsesWith(result);
  erase(node);
  erase(producer);
  return true;
}

/// (a · c) · b → (a · b) · c for a number c.
bool FoldAffine::moveBehindProduct(NodeOp node) {
  if (!node.isOnnx("Mul") || node.getInputs().size() != 2)
    return false;
  for (unsigned operand : {0u, 1u}) {
    Value factor = node.getInputs()[operand];
    Value other = node.getInputs()[1 - operand];
    NodeOp producer = getOnlyProducer(factor);
    auto affine = producer && producer.isOnnx("Mul") ? readAffine(producer)
                                                     : std::nullopt;
    if (!affine || affine->scale.size() != 1 || getConstantValue(other) ||
        !getFloatTensor(node.getResult(0)))
      continue;
    OpBuilder builder(node);
    std::string name = node.getOutputName(0).str();
    NodeOp product =
        makeNode(builder, "Mul", name + "_product", {affine->data, other},
                 node.getResult(0).getType());
    Value scale = makeFactors(builder, name + "_scale", {}, affine->scale);
    NodeOp scaled =
        makeNode(builder, "Mul", name, {product.getResult(0), scale},
                 node.getResult(0).getType());
    node.getResult(0).replaceAllUsesWith(scaled.getResult(0));
    erase(node);
    erase(producer);
    return true;
  }
  return false;
}

/// Clip(x + a, 0, c) → HardSigmoid(x; 1/c, a/c) · c.
bool FoldAffine::findHardSigmoid(NodeOp node) {
  if (!node.isOnnx("Clip") || node.getNumResults() != 1)
    return false;
  auto low = node.getAttributeValue("min")
                 ? std::optional(node.getFloat("min", 0))
                 : readNumber(node.getInput(1));
  auto high = node.getAttributeValue("max")
                  ? std::optional(node.getFloat("max", 0))
                  : readNumber(node.getInput(2));
  NodeOp producer = getOnlyProducer(node.getInputs()[0]);
  auto sum = producer ? readAffine(producer) : std::nullopt;
  if (!low || !high || *low != 0 || !(*high > 0) || !sum || !sum->isShift() ||
      sum->shift.size() != 1)
    return false;
  OpBuilder builder(node);
  std::string name = node.getOutputName(0).str();
  Type type = node.getResult(0).getType();
  NodeOp sigmoid =
      makeNode(builder, "HardSigmoid", name + "_unit", sum->data, type,
               {{"alpha", builder.getF32FloatAttr(1 / *high)},
                {"beta", builder.getF32FloatAttr(
                             static_cast<float>(sum->shift.front() / *high))}});
  Value scale = makeFactors(builder, name + "_scale", {}, {*high});
  NodeOp scaled =
      makeNode(builder, "Mul", name, {sigmoid.getResult(0), scale}, type);
  node.getResult(0).replaceAllUsesWith(scaled.getResult(0));
  erase(node);
  erase(producer);
  return true;
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

void FoldAffine::erase(NodeOp node) {
  SmallVector<Value> inputs(node.getInputs());
  node.erase();
  for (Value input : inputs) {
    Operation *op = input.getDefiningOp();
    if (op && isa<ConstantOp, AbsentOp>(op) && op->use_empty())
      op->erase();
  }
  ++numFolded;
}

bool FoldAffine::fold(NodeOp node) {
  if ((node.isOnnx("Conv") || node.isOnnx("ConvTranspose")) &&
      node.getInputs().size() >= 2)
    return foldIntoConsumer(node);
  if (findHardSigmoid(node) || moveBehindProduct(node))
    return true;
  auto affine = readAffine(node);
  return affine && (foldIntoProducer(node, *affine) || merge(node, *affine));
}

void FoldAffine::runOnOperation() {
  // Each step removes a node or moves one towards the end or into a constant.
  bool changed = true;
  while (changed) {
    changed = false;
    SmallVector<Block *> blocks;
    getOperation().walk([&](Block *block) { blocks.push_back(block); });
    for (Block *block : blocks)
      // What is erased is the node or stands before it.
      for (NodeOp node : llvm::make_early_inc_range(block->getOps<NodeOp>()))
        changed |= fold(node);
  }
  if (numFolded > 0)
    requireFreeInitializers(getOperation());
}
