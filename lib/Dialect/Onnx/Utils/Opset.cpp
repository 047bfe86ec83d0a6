//===- Opset.cpp - What a model imports -----------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Imports
//===----------------------------------------------------------------------===//

static bool isDomain(OpsetAttr opset, StringRef domain) {
  StringRef stated = opset.getDomain() ? opset.getDomain().getValue() : "";
  return stated == domain || (domain.empty() && stated == "ai.onnx");
}

static void setOpset(ModuleOp module, StringRef domain, int64_t version) {
  MLIRContext *context = module.getContext();
  SmallVector<Attribute> opsets;
  bool found = false;
  if (auto old = module->getAttrOfType<ArrayAttr>(kOpsetsAttrName))
    for (auto opset : old.getAsRange<OpsetAttr>()) {
      if (isDomain(opset, domain)) {
        found = true;
        opset = OpsetAttr::get(context, opset.getDomain(), version);
      }
      opsets.push_back(opset);
    }
  if (!found)
    opsets.push_back(
        OpsetAttr::get(context, StringAttr::get(context, domain), version));
  module->setAttr(kOpsetsAttrName, ArrayAttr::get(context, opsets));
}

void onnx::requireDomain(ModuleOp module, StringRef domain, int64_t version) {
  if (getOpsetVersion(module, domain) == 0)
    setOpset(module, domain, version);
}

static void requireIRVersion(ModuleOp module, int64_t version) {
  auto old = module->getAttrOfType<IntegerAttr>(kIRVersionAttrName);
  if (!old || old.getInt() < version)
    module->setAttr(kIRVersionAttrName,
                    Builder(module.getContext()).getI64IntegerAttr(version));
}

void onnx::requireFreeInitializers(ModuleOp module) {
  requireIRVersion(module, 4);
}

/// The IR version that an opset of ONNX came with (onnx/docs/Versioning.md).
static int64_t getIRVersion(int64_t opset) {
  struct Row {
    int64_t opset, irVersion;
  };
  constexpr Row rows[] = {{25, 13}, {24, 12}, {23, 11}, {21, 10}, {19, 9},
                          {15, 8},  {12, 7},  {11, 6},  {10, 5},  {9, 4}};
  for (const Row &row : rows)
    if (opset >= row.opset)
      return row.irVersion;
  return 3;
}

//===----------------------------------------------------------------------===//
// Changes of meaning
//===----------------------------------------------------------------------===//

namespace {

/// An opset in which a node of this type has another form or meaning than
/// before. Versions that only allow more types are not listed.
struct Change {
  const char *opType;
  int64_t version;
  /// The attribute that became an input, or null where nothing simple helps.
  const char *movedAttribute = nullptr;
  /// Where it went.
  unsigned input = 0;
};

// From onnx/docs/Changelog.md, opsets 8 to 25.
constexpr Change changes[] = {
    {"BatchNormalization", 9},
    {"Upsample", 9},
    {"Upsample", 10},
    {"Slice", 10},
    {"TopK", 10},
    {"Resize", 11},
    {"Clip", 11},
    {"Pad", 11},
    {"Dropout", 12},
    {"ReduceSum", 13, "axes", 1},
    {"Squeeze", 13, "axes", 1},
    {"Unsqueeze", 13, "axes", 1},
    {"Split", 13, "split", 1},
    {"Softmax", 13},
    {"LogSoftmax", 13},
    {"Hardmax", 13},
    {"BatchNormalization", 14},
    {"RoiAlign", 16},
    {"Split", 18},
    {"ReduceL1", 18, "axes", 1},
    {"ReduceL2", 18, "axes", 1},
    {"ReduceLogSum", 18, "axes", 1},
    {"ReduceLogSumExp", 18, "axes", 1},
    {"ReduceMax", 18, "axes", 1},
    {"ReduceMean", 18, "axes", 1},
    {"ReduceMin", 18, "axes", 1},
    {"ReduceProd", 18, "axes", 1},
    {"ReduceSumSquare", 18, "axes", 1},
    {"GridSample", 20},
    {"GroupNormalization", 21},
};

} // namespace

/// Whether this very node means the same on both sides of the change.
static bool isHarmless(const Change &change, NodeOp node) {
  StringRef opType = node.getOpType();
  if (opType == "BatchNormalization")
    // Inference has one output and is the same in 7, 9 and 14.
    return node.getNumResults() == 1 && node.getInt("spatial", 1) == 1 &&
           node.getInt("training_mode", 0) == 0;
  if (opType == "Dropout" || opType == "Clip")
    return node.getNodeAttributes().empty();
  if (opType == "Softmax" || opType == "LogSoftmax" || opType == "Hardmax") {
    // Before 13 everything from `axis` on was one dimension; the same where
    // that is the last one.
    auto type = dyn_cast<RankedTensorType>(node.getInputs()[0].getType());
    int64_t axis = node.getInt("axis", 1);
    return type && (axis == -1 || axis == type.getRank() - 1);
  }
  if (opType == "Split" && change.version == 18)
    return node.getInputs().size() > 1 || node.getAttributeValue("split");
  if (opType == "RoiAlign")
    return static_cast<bool>(
        node.getAttributeValue("coordinate_transformation_mode"));
  return change.movedAttribute &&
         !node.getAttributeValue(change.movedAttribute);
}

/// Writes the node as the new version wants it: an attribute moves to a
/// constant input, and a Split into equal parts says how many.
static void rewriteNode(const Change &change, NodeOp node, UniqueNames &names) {
  if (!change.movedAttribute) {
    node.setAttributeValue(
        "num_outputs",
        Builder(node.getContext()).getI64IntegerAttr(node.getNumResults()));
    return;
  }
  std::optional<ArrayRef<int64_t>> values = node.getInts(change.movedAttribute);
  if (!values)
    return;
  OpBuilder builder(node);
  auto type = RankedTensorType::get({static_cast<int64_t>(values->size())},
                                    builder.getI64Type());
  std::string name =
      names.make(node.getOutputName(0) + "_" + change.movedAttribute);
  auto constant = ConstantOp::create(builder, node.getLoc(), type,
                                     builder.getStringAttr(name),
                                     DenseElementsAttr::get(type, *values),
                                     TensorField::raw_data, DictionaryAttr());
  node.getInputsMutable().append(constant.getResult());
  node.removeAttributeValue(change.movedAttribute);
}

LogicalResult onnx::raiseOpset(ModuleOp module, int64_t version) {
  int64_t current = getOpsetVersion(module);
  if (current == 0)
    current = getOpsetVersion(module, "ai.onnx");
  if (current >= version)
    return success();
  SmallVector<std::pair<const Change *, NodeOp>> moves;
  WalkResult walked = module.walk([&](NodeOp node) {
    // A local function imports its own opset.
    if (node->getParentOfType<func::FuncOp>()->hasAttr(kFunctionAttrName))
      return WalkResult::advance();
    for (const Change &change : changes) {
      bool crossed = current < change.version && change.version <= version;
      if (!crossed || !node.isOnnx(change.opType) || isHarmless(change, node))
        continue;
      bool isEqualSplit =
          node.isOnnx("Split") && !node.getAttributeValue("split");
      bool canMove =
          change.movedAttribute && node.getInputs().size() == change.input;
      if (!isEqualSplit && !canMove) {
        node.emitError("node '")
            << node.getDisplayName() << "' (" << node.getOpType()
            << ") means something else from opset " << change.version
            << " on, so that the model cannot be raised from opset " << current
            << " to the " << version
            << " that DequantizeLinear needs; use --format matmulnbits, or a "
               "scheme of 8 bits per channel";
        return WalkResult::interrupt();
      }
      moves.push_back({&change, node});
    }
    return WalkResult::advance();
  });
  if (walked.wasInterrupted())
    return failure();
  UniqueNames names(module);
  for (auto [change, node] : moves)
    rewriteNode(*change, node, names);
  setOpset(module, "", version);
  requireIRVersion(module, getIRVersion(version));
  return success();
}
