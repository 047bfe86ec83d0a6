//===- RaiseOpset.cpp - Nodes in the form of a later opset ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Attributes that became inputs
//===----------------------------------------------------------------------===//

/// Appends an input that holds `value`, named after the output and `suffix`; or
/// leaves its place empty where `value` is null.
static void appendInput(NodeOp node, DenseElementsAttr value, StringRef suffix,
                        UniqueNames &names) {
  OpBuilder builder(node);
  Value input;
  if (value)
    input = ConstantOp::create(
        builder, node.getLoc(), value.getType(),
        builder.getStringAttr(names.make(node.getOutputName(0) + "_" + suffix)),
        value, TensorField::raw_data, DictionaryAttr());
  else
    input = AbsentOp::create(builder, node.getLoc(), builder.getNoneType());
  node.getInputsMutable().append(input);
}

/// The attribute `name`, a number or a list of numbers, as a tensor of rank 1;
/// null where the node has none.
static DenseElementsAttr getList(NodeOp node, StringRef name) {
  Builder builder(node.getContext());
  auto makeType = [&](int64_t count, Type element) {
    return RankedTensorType::get({count}, element);
  };
  Attribute value = node.getAttributeValue(name);
  if (auto ints = dyn_cast_if_present<DenseI64ArrayAttr>(value))
    return DenseElementsAttr::get(makeType(ints.size(), builder.getI64Type()),
                                  ints.asArrayRef());
  if (auto integer = dyn_cast_if_present<IntegerAttr>(value))
    return DenseElementsAttr::get(makeType(1, builder.getI64Type()),
                                  integer.getInt());
  if (auto floats = dyn_cast_if_present<DenseF32ArrayAttr>(value))
    return DenseElementsAttr::get(makeType(floats.size(), builder.getF32Type()),
                                  floats.asArrayRef());
  return {};
}

/// Moves a list, or leaves its place empty.
static void moveList(NodeOp node, StringRef name, UniqueNames &names) {
  appendInput(node, getList(node, name), name, names);
  node.removeAttributeValue(name);
}

static Type getElementType(NodeOp node) {
  auto type = dyn_cast<TensorType>(node.getInputs()[0].getType());
  return type ? type.getElementType() : Type();
}

/// Moves a number, as a scalar of the first input's type, or leaves its place
/// empty.
static void moveNumber(NodeOp node, StringRef name, UniqueNames &names) {
  DenseElementsAttr scalar;
  if (node.getAttributeValue(name)) {
    auto type = cast<FloatType>(getElementType(node));
    scalar = DenseElementsAttr::get(
        RankedTensorType::get({}, type),
        Attribute(
            FloatAttr::get(type, static_cast<double>(node.getFloat(name, 0)))));
  }
  appendInput(node, scalar, name, names);
  node.removeAttributeValue(name);
}

static bool holdsFloats(NodeOp node) {
  return isa_and_present<FloatType>(getElementType(node));
}

//===----------------------------------------------------------------------===//
// Ops with another form
//===----------------------------------------------------------------------===//

static void moveLimits(NodeOp node, UniqueNames &names) {
  moveNumber(node, "min", names);
  moveNumber(node, "max", names);
}

static void movePadding(NodeOp node, UniqueNames &names) {
  moveList(node, "pads", names);
  moveNumber(node, "value", names);
}

static bool hasOnlyData(NodeOp node) { return node.getInputs().size() == 1; }
static void moveAxes(NodeOp node, UniqueNames &names) {
  moveList(node, "axes", names);
}
static void moveSplit(NodeOp node, UniqueNames &names) {
  moveList(node, "split", names);
}
static void moveScales(NodeOp node, UniqueNames &names) {
  moveList(node, "scales", names);
}

static void moveBounds(NodeOp node, UniqueNames &names) {
  for (StringRef name : {"starts", "ends", "axes"})
    moveList(node, name, names);
}

static void moveCount(NodeOp node, UniqueNames &names) {
  moveList(node, "k", names);
}

/// In inference a Dropout drops nothing, whatever the ratio.
static bool hasOneResult(NodeOp node) { return node->getNumResults() == 1; }
static void dropRatio(NodeOp node, UniqueNames &) {
  node.removeAttributeValue("ratio");
}

static void renameScatter(NodeOp node, UniqueNames &) {
  node.setOpType("ScatterElements");
}

static bool isSpatial(NodeOp node) {
  return hasOneResult(node) && node.getInt("spatial", 1) == 1;
}
static void dropSpatial(NodeOp node, UniqueNames &) {
  node.removeAttributeValue("spatial");
}

/// Upsample and the first Resize take the element at ⌊x / scale⌋ where they
/// only enlarge; runtimes differ in how they make less of a tensor.
static bool enlarges(NodeOp node) {
  auto scales =
      dyn_cast_if_present<DenseF32ArrayAttr>(node.getAttributeValue("scales"));
  std::optional<std::vector<float>> values;
  if (scales)
    values.emplace(scales.asArrayRef().begin(), scales.asArrayRef().end());
  else if (node.getInputs().size() == 2)
    values = getFloats(getConstantValue(node.getInputs()[1]));
  return values && llvm::all_of(*values, [](float s) { return s >= 1; });
}

static void makeResize(NodeOp node, UniqueNames &names) {
  Builder builder(node.getContext());
  if (node.getAttributeValue("scales"))
    moveList(node, "scales", names);
  Value scales = node.getInputs()[1];
  node.getInputsMutable().erase(1);
  auto noRegion = DenseElementsAttr::get(
      RankedTensorType::get({0}, builder.getF32Type()), ArrayRef<float>());
  appendInput(node, noRegion, "roi", names);
  node.getInputsMutable().append(scales);
  node.setOpType("Resize");
  node.setAttributeValue("coordinate_transformation_mode",
                         builder.getStringAttr("asymmetric"));
  if (node.getString("mode", "nearest") == "nearest")
    node.setAttributeValue("nearest_mode", builder.getStringAttr("floor"));
}

/// Before 13, Softmax and its like took everything from `axis` on as one
/// dimension.
static bool hasKnownRank(NodeOp node) {
  auto type = dyn_cast<RankedTensorType>(node.getInputs()[0].getType());
  int64_t axis = node.getInt("axis", 1);
  return type && -type.getRank() <= axis && axis < type.getRank();
}

/// softmax(x) ⇒ reshape(softmax(flatten(x)), shape(x))
static void flattenAround(NodeOp node, UniqueNames &names) {
  OpBuilder builder(node);
  Value x = node.getInputs()[0], result = node.getResult(0);
  auto type = cast<RankedTensorType>(x.getType());
  std::string name = node.getOutputName(0).str();
  auto matrix = RankedTensorType::get(
      {ShapedType::kDynamic, ShapedType::kDynamic}, type.getElementType());
  auto sizes = RankedTensorType::get({type.getRank()}, builder.getI64Type());
  int64_t axis = node.getInt("axis", 1);
  NodeOp shape =
      makeNode(builder, "Shape", names.make(name + "_shape"), x, sizes);
  NodeOp flat = makeNode(
      builder, "Flatten", names.make(name + "_flat_input"), x, matrix,
      {{"axis",
        builder.getI64IntegerAttr(axis < 0 ? axis + type.getRank() : axis)}});
  builder.setInsertionPointAfter(node);
  NodeOp reshape = makeNode(builder, "Reshape", name,
                            {result, shape.getResult(0)}, result.getType());
  result.replaceAllUsesExcept(reshape.getResult(0), reshape);
  result.setType(matrix);
  node.getInputsMutable()[0].set(flat.getResult(0));
  node.setOutputsAttr(builder.getStrArrayAttr({names.make(name + "_flat")}));
  node.setAttributeValue("axis", builder.getI64IntegerAttr(1));
}

static bool isEqualSplit(NodeOp node) {
  return node.getInputs().size() == 1 && !node.getAttributeValue("split");
}
static void stateCount(NodeOp node, UniqueNames &) {
  node.setAttributeValue(
      "num_outputs",
      Builder(node.getContext()).getI64IntegerAttr(node->getNumResults()));
}

//===----------------------------------------------------------------------===//
// The list
//===----------------------------------------------------------------------===//

namespace {

/// An opset in which a node of this type has another form or meaning than
/// before. Versions that only allow more types are not listed.
struct Change {
  const char *opType;
  int64_t version;
  /// Whether `rewrite` brings a node that is affected into the new form; null
  /// where nothing simple does.
  bool (*canRewrite)(NodeOp) = nullptr;
  void (*rewrite)(NodeOp, UniqueNames &) = nullptr;
};

} // namespace

// From onnx/docs/Changelog.md, opsets 8 to 25.
constexpr Change changes[] = {
    {"BatchNormalization", 9, isSpatial, dropSpatial},
    {"Upsample", 9, hasOnlyData, moveScales},
    {"Upsample", 10, enlarges, makeResize},
    {"Slice", 10, hasOnlyData, moveBounds},
    {"TopK", 10, hasOnlyData, moveCount},
    {"Resize", 11, enlarges, makeResize},
    {"Clip", 11, holdsFloats, moveLimits},
    {"Pad", 11, holdsFloats, movePadding},
    {"Scatter", 11, hasOneResult, renameScatter},
    {"Dropout", 12, hasOneResult, dropRatio},
    {"ReduceSum", 13, hasOnlyData, moveAxes},
    {"Squeeze", 13, hasOnlyData, moveAxes},
    {"Unsqueeze", 13, hasOnlyData, moveAxes},
    {"Split", 13, hasOnlyData, moveSplit},
    {"Softmax", 13, hasKnownRank, flattenAround},
    {"LogSoftmax", 13, hasKnownRank, flattenAround},
    {"Hardmax", 13, hasKnownRank, flattenAround},
    {"BatchNormalization", 14},
    {"RoiAlign", 16},
    {"Split", 18, isEqualSplit, stateCount},
    {"ReduceL1", 18, hasOnlyData, moveAxes},
    {"ReduceL2", 18, hasOnlyData, moveAxes},
    {"ReduceLogSum", 18, hasOnlyData, moveAxes},
    {"ReduceLogSumExp", 18, hasOnlyData, moveAxes},
    {"ReduceMax", 18, hasOnlyData, moveAxes},
    {"ReduceMean", 18, hasOnlyData, moveAxes},
    {"ReduceMin", 18, hasOnlyData, moveAxes},
    {"ReduceProd", 18, hasOnlyData, moveAxes},
    {"ReduceSumSquare", 18, hasOnlyData, moveAxes},
    {"GridSample", 20},
    {"GroupNormalization", 21},
};

/// Whether this very node means the same on both sides of the change.
static bool isHarmless(const Change &change, NodeOp node) {
  StringRef opType = node.getOpType();
  if (opType == "BatchNormalization") {
    // Inference has one output and is the same in 7, 9 and 14.
    bool dropsSpatial =
        change.version == 9 && node.getAttributeValue("spatial");
    return node.getNumResults() == 1 && !dropsSpatial &&
           node.getInt("training_mode", 0) == 0;
  }
  if (opType == "Dropout" || opType == "Clip")
    return node.getNodeAttributes().empty();
  if (opType == "Softmax" || opType == "LogSoftmax" || opType == "Hardmax") {
    // The same where one dimension follows `axis`.
    auto type = dyn_cast<RankedTensorType>(node.getInputs()[0].getType());
    int64_t axis = node.getInt("axis", 1);
    return type && (axis == -1 || axis == type.getRank() - 1);
  }
  if (opType == "Split" && change.version == 18)
    return node.getInputs().size() > 1 || node.getAttributeValue("split");
  if (opType == "Split")
    return !node.getAttributeValue("split");
  if (opType == "RoiAlign")
    return static_cast<bool>(
        node.getAttributeValue("coordinate_transformation_mode"));
  return change.rewrite == moveAxes && !node.getAttributeValue("axes");
}

LogicalResult onnx::raiseOpset(ModuleOp module, int64_t version) {
  int64_t current = getOpsetVersion(module);
  if (current == 0)
    current = getOpsetVersion(module, "ai.onnx");
  if (current >= version)
    return success();
  SmallVector<std::pair<const Change *, NodeOp>> rewrites;
  WalkResult walked = module.walk([&](NodeOp node) {
    // A local function imports its own opset.
    if (node->getParentOfType<func::FuncOp>()->hasAttr(kFunctionAttrName))
      return WalkResult::advance();
    for (const Change &change : changes) {
      bool crossed = current < change.version && change.version <= version;
      if (!crossed || !node.isOnnx(change.opType) || isHarmless(change, node))
        continue;
      if (!change.rewrite || !change.canRewrite(node)) {
        node.emitError("node '")
            << node.getDisplayName() << "' (" << node.getOpType()
            << ") means something else from opset " << change.version
            << " on, so that the model cannot be raised from opset " << current
            << " to the " << version
            << " that DequantizeLinear needs; use --format matmulnbits, a "
               "scheme of 8 bits per channel, or rules that keep weights which "
               "no other op holds (op:Conv=keep)";
        return WalkResult::interrupt();
      }
      rewrites.push_back({&change, node});
    }
    return WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return failure();
  UniqueNames names(module);
  for (auto [change, node] : rewrites)
    change->rewrite(node, names);
  setOpset(module, version);
  return success();
}
