//===- ChooseBranches.cpp - --onnx-choose-branches ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassManager.h"

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXCHOOSEBRANCHES
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// The branch that an If takes where its condition is `condition`; null where
/// the node is malformed.
static Region *getBranch(NodeOp node, bool condition) {
  unsigned region = 0;
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>()) {
    if (!isa<GraphAttr>(attribute.getValue()))
      continue;
    if (attribute.getName() == (condition ? "then_branch" : "else_branch"))
      return &node->getRegion(region);
    ++region;
  }
  return nullptr;
}

static Operation::operand_range getReturned(Region &branch) {
  return branch.front().getTerminator()->getOperands();
}

/// The condition of an If, where it is constant.
static std::optional<bool> getCondition(NodeOp node) {
  Attribute value = getConstantValue(node.getInput(0));
  auto integers = value ? getIntegers(value) : std::nullopt;
  if (!integers || integers->size() != 1)
    return std::nullopt;
  return integers->front() != 0;
}

/// The condition under which an If gives the results of lower rank, where its
/// branches give different ranks.
static std::optional<bool> getLowerRank(NodeOp node) {
  Region *thenBranch = getBranch(node, true),
         *elseBranch = getBranch(node, false);
  if (!thenBranch || !elseBranch)
    return std::nullopt;
  for (auto [thenValue, elseValue] :
       llvm::zip(getReturned(*thenBranch), getReturned(*elseBranch))) {
    auto thenType = dyn_cast<RankedTensorType>(thenValue.getType());
    auto elseType = dyn_cast<RankedTensorType>(elseValue.getType());
    if (thenType && elseType && thenType.getRank() != elseType.getRank())
      return thenType.getRank() < elseType.getRank();
  }
  return std::nullopt;
}

/// Puts a branch in the place of its If.
static void takeBranch(NodeOp node, Region &branch) {
  SmallVector<Value> returned(getReturned(branch));
  for (Operation &op :
       llvm::make_early_inc_range(branch.front().without_terminator()))
    op.moveBefore(node);
  for (auto [result, value] : llvm::zip(node.getResults(), returned)) {
    // What the model says of the node's result holds for the branch's.
    Type refined = refineTypes(value.getType(), result.getType());
    if (refined && value.getDefiningOp<NodeOp>())
      value.setType(refined);
    result.replaceAllUsesWith(value);
  }
  node->erase();
}

/// Before `node`: ends the run unless its condition is `expected`.
static void insertCheck(NodeOp node, bool expected) {
  OpBuilder builder(node);
  auto attribute = NodeAttributeAttr::get(node.getContext(),
                                          builder.getStringAttr("expected"),
                                          builder.getI64IntegerAttr(expected));
  NodeOp::create(builder, node.getLoc(), TypeRange(),
                 builder.getStringAttr("Check"),
                 builder.getStringAttr("nibble"), /*overload=*/StringAttr(),
                 builder.getStringAttr(node.getDisplayName()),
                 builder.getArrayAttr({}), builder.getArrayAttr(attribute),
                 /*extras=*/DictionaryAttr(), node.getInputs().take_front(1),
                 /*subgraphsCount=*/0);
}

namespace {
struct ChooseBranches : onnx::impl::OnnxChooseBranchesBase<ChooseBranches> {
  using OnnxChooseBranchesBase::OnnxChooseBranchesBase;

  void runOnOperation() override {
    bool hasIf = false;
    getOperation().walk([&](NodeOp node) { hasIf |= node.isOnnx("If"); });
    if (!hasIf)
      return;
    OpPassManager prepare(ModuleOp::getOperationName());
    prepare.addPass(createOnnxInferShapes());
    prepare.addPass(createOnnxFoldConstants());
    do {
      if (failed(runPipeline(prepare, getOperation())))
        return signalPassFailure();
    } while (takeKnown() || takeLower());
    // What followed a branch's rank is found in every function.
    for (auto func : getOperation().getOps<func::FuncOp>())
      if (!func.isExternal())
        setType(func);
  }

private:
  static void setType(func::FuncOp func) {
    Block &block = func.getBody().front();
    func.setType(FunctionType::get(func.getContext(), block.getArgumentTypes(),
                                   block.getTerminator()->getOperandTypes()));
  }

  /// The first If, from the outside in, for which `choose` knows a branch.
  std::pair<NodeOp, bool>
  find(llvm::function_ref<std::optional<bool>(NodeOp)> choose) {
    std::pair<NodeOp, bool> found;
    getOperation().walk<WalkOrder::PreOrder>([&](NodeOp node) {
      if (!node.isOnnx("If"))
        return WalkResult::advance();
      std::optional<bool> choice = choose(node);
      if (!choice || !getBranch(node, *choice))
        return WalkResult::advance();
      found = {node, *choice};
      return WalkResult::interrupt();
    });
    return found;
  }

  /// Takes branches whose condition is constant. True where there was one.
  bool takeKnown() {
    bool changed = false;
    for (auto [node, condition] = find(getCondition); node;
         std::tie(node, condition) = find(getCondition)) {
      take(node, condition);
      changed = true;
    }
    return changed;
  }

  bool takeLower() {
    auto [node, condition] = find(getLowerRank);
    if (!node)
      return false;
    insertCheck(node, condition);
    take(node, condition);
    return true;
  }

  void take(NodeOp node, bool condition) {
    auto func = node->getParentOfType<func::FuncOp>();
    takeBranch(node, *getBranch(node, condition));
    setType(func);
    ++numChosen;
  }
};
} // namespace
