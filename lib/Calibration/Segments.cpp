//===- Segments.cpp - A graph in parts that run one by one ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/Segments.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Support/MappedFile.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// What an unknown dimension counts for where sizes are compared.
static constexpr double kUnknownSize = 64;
/// How many times the fewest numbers may cross the end of a segment.
static constexpr double kSlack = 1.25;

//===----------------------------------------------------------------------===//
// What nodes read
//===----------------------------------------------------------------------===//

/// Calls `visit` with each value from outside of `op` that it or a subgraph of
/// it reads.
static void forEachInput(Operation *op, llvm::function_ref<void(Value)> visit) {
  op->walk([&](Operation *inner) {
    for (Value operand : inner->getOperands())
      if (!op->isAncestor(operand.getParentBlock()->getParentOp()))
        visit(operand);
  });
}

namespace {
/// The nodes of a graph by position, without what is constant.
class Graph {
public:
  explicit Graph(Block &block);

  ArrayRef<Operation *> getNodes() const { return nodes; }
  bool isConstant(Operation *op) const { return constants.contains(op); }
  bool isConstant(Value value) const {
    Operation *op = value.getDefiningOp();
    return op && isConstant(op);
  }
  /// Numbers that are kept between node `i - 1` and node `i`, for each i.
  std::vector<double> countCrossing() const;

private:
  bool dependsOnConstantsOnly(Operation *op) const;

  std::vector<Operation *> nodes;
  llvm::SmallPtrSet<Operation *, 32> constants;
};
} // namespace

bool Graph::dependsOnConstantsOnly(Operation *op) const {
  if (isa<ConstantOp, AbsentOp>(op))
    return true;
  // Without operands: a source of random numbers, perhaps.
  return op->getNumOperands() != 0 && op->getNumRegions() == 0 &&
         llvm::all_of(op->getOperands(),
                      [&](Value value) { return isConstant(value); });
}

Graph::Graph(Block &block) {
  for (Operation &op : block.without_terminator()) {
    if (dependsOnConstantsOnly(&op))
      constants.insert(&op);
    else
      nodes.push_back(&op);
  }
}

static double countNumbers(Type type) {
  auto tensor = dyn_cast<RankedTensorType>(type);
  double count = 1;
  if (tensor)
    for (int64_t size : tensor.getShape())
      count *= ShapedType::isDynamic(size) ? kUnknownSize : double(size);
  return count;
}

std::vector<double> Graph::countCrossing() const {
  llvm::DenseMap<Operation *, size_t> positions;
  for (auto [position, node] : llvm::enumerate(nodes))
    positions[node] = position;
  llvm::MapVector<Value, size_t> lastReaders;
  for (size_t position = 0; position < nodes.size(); ++position)
    forEachInput(nodes[position], [&](Value value) {
      if (Operation *op = value.getDefiningOp(); op && !isConstant(op))
        lastReaders[value] = position;
    });
  // Of what stands between its definition and its last reader.
  std::vector<double> changes(nodes.size() + 2, 0);
  for (auto &[value, last] : lastReaders) {
    changes[positions.lookup(value.getDefiningOp()) + 1] +=
        countNumbers(value.getType());
    changes[last + 1] -= countNumbers(value.getType());
  }
  for (size_t i = 1; i < changes.size(); ++i)
    changes[i] += changes[i - 1];
  return changes;
}

//===----------------------------------------------------------------------===//
// Where to cut
//===----------------------------------------------------------------------===//

/// Says whether a node is a product with a weight that counts.
using IsLayer = bool (*)(NodeOp node);

static bool readsChosenWeight(NodeOp node) {
  return isProduct(node) && getChosenWeight(node);
}

static bool readsConstantMatrix(NodeOp node) {
  if (!isProduct(node))
    return false;
  Value weight = getMatrixSource(node.getInputs()[1]).value;
  auto type = dyn_cast<RankedTensorType>(weight.getType());
  return weight.getDefiningOp<ConstantOp>() && type && type.getRank() == 2;
}

/// Whether `op`, or a node in a subgraph of it, is a layer. `input` becomes
/// what its weight is multiplied with.
static bool hasLayer(Operation *op, IsLayer isLayer, Value &input) {
  bool found = false;
  op->walk([&](NodeOp node) {
    if (!isLayer(node))
      return;
    found = true;
    input = node.getInputs()[0];
  });
  return found;
}

static bool hasLayer(ArrayRef<Operation *> nodes, IsLayer isLayer) {
  Value input;
  return llvm::any_of(
      nodes, [&](Operation *node) { return hasLayer(node, isLayer, input); });
}

namespace {
/// A place between two nodes where a segment may end.
struct Cut {
  size_t position;
  double crossing;
};
} // namespace

static std::vector<Cut> findCuts(const Graph &graph, IsLayer isLayer,
                                 size_t &end) {
  std::vector<double> crossing = graph.countCrossing();
  std::vector<Cut> cuts;
  Value last;
  end = 0;
  for (auto [position, node] : llvm::enumerate(graph.getNodes())) {
    Value input;
    if (!hasLayer(node, isLayer, input))
      continue;
    if (last && input != last) {
      auto from = crossing.begin() + end, to = crossing.begin() + position + 1;
      auto least = std::min_element(from, to);
      cuts.push_back({static_cast<size_t>(least - crossing.begin()), *least});
    }
    last = input;
    end = position + 1;
  }
  return cuts;
}

/// `keepResults`: what the model returns is read.
static void findEnds(const Graph &graph, Segment &segment, bool keepResults) {
  llvm::SmallPtrSet<Operation *, 32> inside(segment.nodes.begin(),
                                            segment.nodes.end());
  llvm::SetVector<Value> inputs;
  for (Operation *node : segment.nodes)
    forEachInput(node, [&](Value value) {
      if (!graph.isConstant(value) && !inside.contains(value.getDefiningOp()))
        inputs.insert(value);
    });
  segment.inputs.assign(inputs.begin(), inputs.end());
  Block *block = segment.nodes.front()->getBlock();
  for (Operation *node : segment.nodes)
    for (Value result : node->getResults()) {
      bool isRead = llvm::any_of(result.getUsers(), [&](Operation *user) {
        Operation *reader = block->findAncestorOpInBlock(*user);
        return reader == block->getTerminator() ? keepResults
                                                : !inside.contains(reader);
      });
      if (isRead)
        segment.outputs.push_back(result);
    }
}

static std::vector<Segment> plan(func::FuncOp main, bool isWhole) {
  Graph graph(main.getBody().front());
  bool cutsAnywhere = isWhole && !hasLayer(graph.getNodes(), readsChosenWeight);
  size_t end = 0;
  std::vector<Cut> cuts = findCuts(
      graph, cutsAnywhere ? readsConstantMatrix : readsChosenWeight, end);
  double fewest = std::numeric_limits<double>::infinity();
  for (const Cut &cut : cuts)
    fewest = std::min(fewest, cut.crossing);
  std::vector<size_t> ends;
  for (const Cut &cut : cuts)
    if (cut.crossing <= kSlack * fewest)
      ends.push_back(cut.position);
  if (end != 0)
    ends.push_back(end);
  if (isWhole && end != graph.getNodes().size())
    ends.push_back(graph.getNodes().size());

  std::vector<Segment> segments;
  size_t begin = 0;
  for (size_t stop : ends) {
    ArrayRef<Operation *> nodes = graph.getNodes().slice(begin, stop - begin);
    Segment &segment = segments.emplace_back();
    segment.nodes.assign(nodes.begin(), nodes.end());
    segment.hasWeights = hasLayer(nodes, readsChosenWeight);
    findEnds(graph, segment, isWhole);
    begin = stop;
  }
  return segments;
}

std::vector<Segment> nibble::planSegments(func::FuncOp main) {
  return plan(main, /*isWhole=*/false);
}

std::vector<Segment> nibble::planWholeRun(func::FuncOp main) {
  return plan(main, /*isWhole=*/true);
}

//===----------------------------------------------------------------------===//
// A segment as a model
//===----------------------------------------------------------------------===//

/// Copies `op` and the constants that it reads.
static void copyWithConstants(Operation *op, OpBuilder &builder,
                              IRMapping &copies) {
  forEachInput(op, [&](Value value) {
    if (!copies.contains(value))
      copyWithConstants(value.getDefiningOp(), builder, copies);
  });
  builder.clone(*op, copies);
}

static ArrayAttr getNames(Builder &builder, ArrayRef<Value> values) {
  std::vector<std::string> names;
  for (Value value : values)
    names.push_back(getValueName(value));
  SmallVector<StringRef> texts(names.begin(), names.end());
  return builder.getStrArrayAttr(texts);
}

OwningOpRef<ModuleOp> nibble::buildSegment(ModuleOp module,
                                           const Segment &segment) {
  OpBuilder builder(module.getContext());
  OwningOpRef<ModuleOp> result = ModuleOp::create(module.getLoc());
  result.get()->setAttrs(module->getAttrDictionary());
  builder.setInsertionPointToStart(result->getBody());
  // Local functions.
  for (auto function : module.getOps<func::FuncOp>())
    if (function.getSymName() != "main")
      builder.clone(*function);

  auto type = builder.getFunctionType(ValueRange(segment.inputs).getTypes(),
                                      ValueRange(segment.outputs).getTypes());
  auto main = func::FuncOp::create(builder, module.getLoc(), "main", type);
  main->setAttr(kGraphAttrName,
                GraphAttr::get(module.getContext(), StringAttr(),
                               getNames(builder, segment.inputs),
                               getNames(builder, segment.outputs),
                               builder.getArrayAttr({}), DictionaryAttr()));
  builder.setInsertionPointToStart(main.addEntryBlock());
  IRMapping copies;
  copies.map(segment.inputs, main.getArguments());
  for (Operation *node : segment.nodes)
    copyWithConstants(node, builder, copies);
  SmallVector<Value> outputs;
  for (Value output : segment.outputs)
    outputs.push_back(copies.lookup(output));
  func::ReturnOp::create(builder, module.getLoc(), outputs);
  return result;
}

FailureOr<std::unique_ptr<CompiledModel>>
nibble::compileSegment(ModuleOp model, CodeCache &code) {
  CompileOptions options;
  options.reference = false;
  options.compute = "f32";
  options.observe = true;
  options.cache = &code;
  return CompiledModel::compile(model, options);
}

void nibble::dropWeightPages(const Segment &segment) {
  for (Operation *node : segment.nodes)
    for (Value operand : node->getOperands()) {
      Attribute value = getConstantValue(operand);
      std::optional<TensorBytes> bytes =
          value ? getTensorBytes(value) : std::nullopt;
      if (bytes && bytes->mapped)
        dropPages(bytes->bytes);
    }
}

FailureOr<std::unique_ptr<CompiledModel>>
nibble::compileSegment(ModuleOp module, const Segment &segment, bool observe,
                       CodeCache &code) {
  OwningOpRef<ModuleOp> copy = buildSegment(module, segment);
  if (observe) {
    PassManager passes(copy->getContext());
    passes.addPass(createNibbleInsertObservers());
    if (failed(passes.run(*copy)))
      return failure();
  }
  auto model = compileSegment(*copy, code);
  dropWeightPages(segment);
  return model;
}
