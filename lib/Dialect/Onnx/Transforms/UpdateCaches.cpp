//===- UpdateCaches.cpp - --onnx-update-caches ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/BitVector.h"

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXUPDATECACHES
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
/// A tensor that comes in, grows along a dimension, and goes out.
struct Cache {
  BlockArgument past;
  NodeOp join;
  unsigned axis, output;
};
} // namespace

static std::optional<Cache> readCache(OpOperand &returned) {
  auto join = returned.get().getDefiningOp<NodeOp>();
  if (!join || !join.isOnnx("Concat") || join.getInputs().size() != 2)
    return std::nullopt;
  auto past = dyn_cast<BlockArgument>(join.getInputs()[0]);
  if (!past || past.getOwner() != returned.getOwner()->getBlock())
    return std::nullopt;
  auto type = dyn_cast<RankedTensorType>(past.getType());
  auto present = dyn_cast<RankedTensorType>(join.getResult(0).getType());
  if (!type || !present || type.getRank() != present.getRank())
    return std::nullopt;
  int64_t axis = join.getInt("axis", 0);
  axis += axis < 0 ? type.getRank() : 0;
  if (axis < 0 || axis >= type.getRank() || !type.isDynamicDim(axis))
    return std::nullopt;
  return Cache{past, join, static_cast<unsigned>(axis),
               returned.getOperandNumber()};
}

/// True where nothing reads what the buffer will hold before the run, and
/// something what it will hold after.
static bool isOnlyJoined(const Cache &cache) {
  for (OpOperand &use : cache.past.getUses()) {
    auto reader = dyn_cast<NodeOp>(use.getOwner());
    if (!reader || (reader != cache.join && !reader.isOnnx("Shape")) ||
        (reader == cache.join && use.getOperandNumber() != 0))
      return false;
  }
  auto isReturn = [](Operation *user) { return isa<func::ReturnOp>(user); };
  NodeOp join = cache.join;
  auto users = join.getResult(0).getUsers();
  return llvm::count_if(users, isReturn) == 1 && !llvm::all_of(users, isReturn);
}

static Dimension getGrowing(const Cache &cache) {
  return getDimensions(
      cast<RankedTensorType>(cache.past.getType()))[cache.axis];
}

static SmallVector<Cache> findCaches(func::FuncOp main) {
  SmallVector<Cache> caches;
  for (OpOperand &returned :
       main.getBody().front().getTerminator()->getOpOperands()) {
    std::optional<Cache> cache = readCache(returned);
    // One length must serve them all.
    if (cache && isOnlyJoined(*cache) &&
        (caches.empty() || getGrowing(*cache) == getGrowing(caches.front())))
      caches.push_back(*cache);
  }
  return caches;
}

/// A node of the domain `nibble` in the place of what `before` stands for.
static NodeOp makeOwnNode(NodeOp before, StringRef opType, StringRef output,
                          ValueRange inputs, unsigned axis, Type type) {
  OpBuilder builder(before);
  NodeOp node = makeNode(builder, opType, output, inputs, type,
                         {{"axis", builder.getI64IntegerAttr(axis)}});
  node.setDomainAttr(builder.getStringAttr("nibble"));
  return node;
}

static void update(const Cache &cache, Value length, UniqueNames &names) {
  auto type = cast<RankedTensorType>(cache.past.getType());
  SmallVector<Dimension> dimensions = getDimensions(type);
  BlockArgument buffer = cache.past;
  for (OpOperand &use : llvm::make_early_inc_range(buffer.getUses())) {
    auto shape = cast<NodeOp>(use.getOwner());
    if (shape == cache.join)
      continue;
    NodeOp prefix = makeOwnNode(shape, "Prefix",
                                names.make(getValueName(buffer) + "_prefix"),
                                {buffer, length}, cache.axis, type);
    use.set(prefix.getResult(0));
  }
  NodeOp join = cache.join;
  NodeOp append = makeOwnNode(join, "Append", join.getOutputName(0),
                              {buffer, join.getInputs()[1], length}, cache.axis,
                              join.getResult(0).getType());
  join.getResult(0).replaceAllUsesWith(append.getResult(0));
  join.erase();
  dimensions[cache.axis].symbol =
      StringAttr::get(type.getContext(), "capacity");
  buffer.setType(getTensorType(dimensions, type.getElementType()));
}

/// Lists the new input and leaves out the outputs that went.
static void updateInterface(func::FuncOp main, StringRef lengthName,
                            const llvm::BitVector &gone) {
  auto graph = main->getAttrOfType<GraphAttr>(kGraphAttrName);
  Builder builder(main.getContext());
  SmallVector<Attribute> inputs(graph.getInputs().getValue()), outputs;
  inputs.push_back(builder.getStringAttr(lengthName));
  for (auto [index, output] : llvm::enumerate(graph.getOutputs()))
    if (!gone.test(index))
      outputs.push_back(output);
  main->setAttr(kGraphAttrName,
                GraphAttr::get(main.getContext(), graph.getName(),
                               builder.getArrayAttr(inputs),
                               builder.getArrayAttr(outputs),
                               graph.getValueInfo(), graph.getExtras()));
}

namespace {
struct UpdateCaches : onnx::impl::OnnxUpdateCachesBase<UpdateCaches> {
  using OnnxUpdateCachesBase::OnnxUpdateCachesBase;

  void runOnOperation() override {
    auto main = getOperation().lookupSymbol<func::FuncOp>("main");
    if (!main || main.isExternal() || !main->hasAttr(kGraphAttrName))
      return;
    SmallVector<Cache> caches = findCaches(main);
    if (caches.empty())
      return;
    UniqueNames names(getOperation());
    Builder builder(&getContext());
    std::string lengthName = names.make("past_length");
    unsigned position = main.getNumArguments();
    auto lengthType = RankedTensorType::get({1}, builder.getI64Type());
    (void)main.insertArgument(position, lengthType, DictionaryAttr(),
                              main.getLoc());
    llvm::BitVector gone(main.getNumResults());
    for (const Cache &cache : caches) {
      update(cache, main.getArgument(position), names);
      main.setArgAttr(cache.past.getArgNumber(), kUpdatedAttrName,
                      builder.getUnitAttr());
      gone.set(cache.output);
      ++numCaches;
    }
    Block &block = main.getBody().front();
    block.getTerminator()->eraseOperands(gone);
    (void)main.eraseResults(gone);
    main.setType(builder.getFunctionType(
        block.getArgumentTypes(), block.getTerminator()->getOperandTypes()));
    updateInterface(main, lengthName, gone);
  }
};
} // namespace
