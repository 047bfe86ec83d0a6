//===- FoldConstants.cpp - --onnx-fold-constants --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Transforms/Passes.h"

#include "ConstantEvaluation.h"
#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/MathExtras.h"

#include <cstring>

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXFOLDCONSTANTS
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Initializers belong to models of this version on without being inputs.
static constexpr int64_t kMinIRVersion = 4;

namespace {

/// A result's value and the field to write it to.
struct Folded {
  TypedAttr value;
  TensorField field = TensorField::raw_data;
  DictionaryAttr extras;
};

class Folder {
public:
  explicit Folder(int64_t maxElements)
      : maxElements(maxElements), inference(/*refine=*/false) {}

  LogicalResult fold(Block &block, GraphAttr graph);
  unsigned getNumFolded() const { return numFolded; }
  unsigned getNumRemoved() const { return numRemoved; }
  const llvm::StringSet<> &getRemovedNames() const { return removedNames; }

private:
  LogicalResult foldSubgraphs(NodeOp node);
  /// Replaces the node where all its results are known.
  void fold(NodeOp node);
  /// Lets readers of an Identity of a constant read the constant itself.
  bool forwardConstant(NodeOp node);
  /// The largest operand or result that `node` is computed with: more than
  /// `maxElements` where the results only take the place of an operand.
  int64_t getLimit(NodeOp node, ArrayRef<Type> types) const;
  std::optional<SmallVector<Folded>> compute(NodeOp node);
  std::optional<Folded> foldConstantNode(NodeOp node);
  /// An integer result of rank 0 or 1 whose elements the types tell.
  std::optional<Folded> foldShapeValue(NodeOp node, unsigned index,
                                       ArrayRef<Type> types);
  std::optional<SmallVector<Folded>> foldOperation(NodeOp node,
                                                   ArrayRef<Type> types);
  std::optional<Tensor> load(Value value, int64_t limit);
  /// Removes what only served a node that is gone.
  void removeDead(SmallVector<Operation *> candidates);
  void erase(Operation *op);

  int64_t maxElements;
  ShapeInference inference;
  unsigned numFolded = 0, numRemoved = 0;
  llvm::StringSet<> removedNames;
  /// Constants that a caller may override: they are also inputs.
  llvm::DenseSet<Value> overridable;
};

} // namespace

static StringRef getEntryName(Attribute entry) {
  auto info = dyn_cast<ValueInfoAttr>(entry);
  return info ? info.getName().getValue() : cast<StringAttr>(entry).getValue();
}

/// True for a static shape of at most `limit` elements.
static bool isSmall(RankedTensorType type, int64_t limit) {
  int64_t count = 1;
  for (int64_t size : type.getShape())
    if (ShapedType::isDynamic(size) || llvm::MulOverflow(count, size, count))
      return false;
  return count <= limit;
}

static Folded makeFolded(const Tensor &tensor, StringRef name) {
  return {makeTensorValue(tensor.type, name, tensor.bytes),
          TensorField::raw_data,
          {}};
}

template <typename T>
static Folded makeFolded(RankedTensorType type, ArrayRef<T> elements,
                         StringRef name) {
  Tensor tensor{type, std::vector<char>(elements.size() * sizeof(T))};
  if (!elements.empty())
    std::memcpy(tensor.bytes.data(), elements.data(), tensor.bytes.size());
  return makeFolded(tensor, name);
}

//===----------------------------------------------------------------------===//
// What a result is
//===----------------------------------------------------------------------===//

/// The tensor's own name gives way to that of the result.
static DictionaryAttr dropName(DictionaryAttr extras) {
  if (!extras || !extras.contains("name"))
    return extras;
  NamedAttrList rest(extras);
  rest.erase("name");
  return rest.empty() ? DictionaryAttr()
                      : rest.getDictionary(extras.getContext());
}

std::optional<Folded> Folder::foldConstantNode(NodeOp node) {
  MLIRContext *context = node.getContext();
  Builder builder(context);
  StringRef name = node.getOutputName(0);
  auto list = [&](size_t size, Type type) {
    return RankedTensorType::get({static_cast<int64_t>(size)}, type);
  };
  if (node.getNodeAttributes().size() != 1)
    return std::nullopt;
  if (auto tensor =
          dyn_cast_if_present<TensorAttr>(node.getAttributeValue("value"))) {
    auto value = dyn_cast<TypedAttr>(tensor.getValue());
    if (!value || !isa<RankedTensorType>(value.getType()))
      return std::nullopt;
    return Folded{value, tensor.getField(), dropName(tensor.getExtras())};
  }
  if (auto value =
          dyn_cast_if_present<IntegerAttr>(node.getAttributeValue("value_int")))
    return makeFolded<int64_t>(RankedTensorType::get({}, builder.getI64Type()),
                               value.getInt(), name);
  if (auto values = node.getInts("value_ints"))
    return makeFolded<int64_t>(list(values->size(), builder.getI64Type()),
                               *values, name);
  if (auto value =
          dyn_cast_if_present<FloatAttr>(node.getAttributeValue("value_float")))
    return makeFolded<float>(RankedTensorType::get({}, builder.getF32Type()),
                             value.getValue().convertToFloat(), name);
  if (auto values = dyn_cast_if_present<DenseF32ArrayAttr>(
          node.getAttributeValue("value_floats")))
    return makeFolded<float>(list(values.size(), builder.getF32Type()),
                             values.asArrayRef(), name);
  auto stringType = onnx::StringType::get(context);
  if (auto value = dyn_cast_if_present<StringAttr>(
          node.getAttributeValue("value_string")))
    return Folded{StringsAttr::get(context,
                                   RankedTensorType::get({}, stringType),
                                   builder.getArrayAttr({value})),
                  TensorField::string_data,
                  {}};
  return std::nullopt;
}

std::optional<Folded> Folder::foldShapeValue(NodeOp node, unsigned index,
                                             ArrayRef<Type> types) {
  std::optional<Shape> elements = inference.getValue(node->getResult(index));
  auto type = dyn_cast_if_present<RankedTensorType>(types[index]);
  if (!elements || !type || type.getRank() > 1 || !isSmall(type, maxElements) ||
      type.getNumElements() != static_cast<int64_t>(elements->size()))
    return std::nullopt;
  auto integer = dyn_cast<IntegerType>(type.getElementType());
  unsigned width = integer ? getBitWidth(integer) : 0;
  if (width == 0 || width % 8 != 0)
    return std::nullopt;
  Tensor tensor{type, {}};
  for (const Dimension &element : *elements) {
    if (!element.isStatic())
      return std::nullopt;
    auto *bytes = reinterpret_cast<const char *>(&element.size);
    tensor.bytes.insert(tensor.bytes.end(), bytes, bytes + width / 8);
  }
  return makeFolded(tensor, node.getOutputName(index));
}

std::optional<Tensor> Folder::load(Value value, int64_t limit) {
  auto constant = dyn_cast_if_present<TypedAttr>(getConstantValue(value));
  auto type = constant ? dyn_cast<RankedTensorType>(constant.getType())
                       : RankedTensorType();
  if (!type || !isSmall(type, limit) || overridable.contains(value))
    return std::nullopt;
  std::optional<TensorBytes> data = getTensorBytes(constant);
  if (!data || data->bytes.size() != getPackedSize(type))
    return std::nullopt;
  return Tensor{type,
                std::vector<char>(data->bytes.begin(), data->bytes.end())};
}

int64_t Folder::getLimit(NodeOp node, ArrayRef<Type> types) const {
  // Readers of weights look through a Transpose, and the weight stays in its
  // file.
  if (node.isOnnx("Transpose"))
    return maxElements;
  int64_t results = 0;
  for (Type type : types) {
    auto ranked = dyn_cast_if_present<RankedTensorType>(type);
    if (!ranked || !ranked.hasStaticShape() ||
        llvm::AddOverflow(results, ranked.getNumElements(), results))
      return maxElements;
  }
  for (Value input : node.getInputs()) {
    auto type = dyn_cast<RankedTensorType>(input.getType());
    if (input.getDefiningOp<ConstantOp>() && input.hasOneUse() && type &&
        type.hasStaticShape() && type.getNumElements() >= results)
      return std::max(maxElements, type.getNumElements());
  }
  return maxElements;
}

std::optional<SmallVector<Folded>> Folder::foldOperation(NodeOp node,
                                                         ArrayRef<Type> types) {
  int64_t limit = getLimit(node, types);
  SmallVector<RankedTensorType> resultTypes;
  for (Type type : types) {
    auto ranked = dyn_cast_if_present<RankedTensorType>(type);
    if (!ranked || !isSmall(ranked, limit))
      return std::nullopt;
    resultTypes.push_back(ranked);
  }
  SmallVector<Tensor> tensors;
  tensors.reserve(node.getInputs().size());
  SmallVector<const Tensor *> operands;
  for (unsigned i = 0; i < node.getInputs().size(); ++i) {
    Value input = node.getInput(i);
    if (!input) {
      operands.push_back(nullptr);
      continue;
    }
    std::optional<Tensor> tensor = load(input, limit);
    if (!tensor)
      return std::nullopt;
    tensors.push_back(std::move(*tensor));
    operands.push_back(&tensors.back());
  }
  if (operands.empty() || !operands[0])
    return std::nullopt;
  auto results = evaluate(node, getNodeVersion(node), operands, resultTypes);
  if (!results || results->size() != types.size())
    return std::nullopt;
  SmallVector<Folded> folded;
  for (auto [index, tensor] : llvm::enumerate(*results))
    folded.push_back(makeFolded(tensor, node.getOutputName(index)));
  return folded;
}

std::optional<SmallVector<Folded>> Folder::compute(NodeOp node) {
  if (node->getNumResults() == 0 || node->getNumRegions() != 0)
    return std::nullopt;
  if (node.isOnnx("Constant")) {
    auto value = node->getNumResults() == 1 ? foldConstantNode(node)
                                            : std::optional<Folded>();
    return value ? std::optional(SmallVector<Folded>{*value}) : std::nullopt;
  }
  SmallVector<Type> types = inference.getResultTypes(node);
  SmallVector<Folded> folded;
  for (unsigned i = 0; i < node->getNumResults(); ++i) {
    auto value = foldShapeValue(node, i, types);
    if (!value)
      return foldOperation(node, types);
    folded.push_back(*value);
  }
  return folded;
}

//===----------------------------------------------------------------------===//
// The graph
//===----------------------------------------------------------------------===//

void Folder::erase(Operation *op) {
  for (Value result : op->getResults())
    inference.forget(result);
  op->erase();
}

/// Nodes without effects: ONNX's own.
static bool isRemovable(Operation *op) {
  if (isa<ConstantOp, AbsentOp>(op))
    return true;
  auto node = dyn_cast<NodeOp>(op);
  if (!node || node->getNumRegions() != 0)
    return false;
  StringRef domain = node.getDomain().value_or("");
  return domain.empty() || domain == "ai.onnx";
}

void Folder::removeDead(SmallVector<Operation *> candidates) {
  SetVector<Operation *> worklist(candidates.begin(), candidates.end());
  while (!worklist.empty()) {
    Operation *op = worklist.pop_back_val();
    if (!op->use_empty() || !isRemovable(op) ||
        llvm::any_of(op->getResults(),
                     [&](Value v) { return overridable.contains(v); }))
      continue;
    if (auto constant = dyn_cast<ConstantOp>(op))
      removedNames.insert(constant.getName());
    if (auto node = dyn_cast<NodeOp>(op))
      for (unsigned i = 0; i < node->getNumResults(); ++i)
        removedNames.insert(node.getOutputName(i));
    for (Value operand : op->getOperands())
      if (Operation *definition = operand.getDefiningOp())
        worklist.insert(definition);
    erase(op);
    ++numRemoved;
  }
}

bool Folder::forwardConstant(NodeOp node) {
  if (!node.isOnnx("Identity") || node.getInputs().size() != 1 ||
      node->getNumResults() != 1)
    return false;
  Value result = node->getResult(0), source = node.getInputs()[0];
  // A graph's output keeps its name.
  bool isReturned = llvm::any_of(result.getUsers(), [](Operation *user) {
    return user->hasTrait<OpTrait::IsTerminator>();
  });
  if (isReturned || !source.getDefiningOp<ConstantOp>() ||
      overridable.contains(source))
    return false;
  result.replaceAllUsesWith(source);
  removedNames.insert(node.getOutputName(0));
  erase(node);
  ++numFolded;
  removeDead({source.getDefiningOp()});
  return true;
}

void Folder::fold(NodeOp node) {
  if (forwardConstant(node))
    return;
  std::optional<SmallVector<Folded>> folded = compute(node);
  if (!folded)
    return;
  OpBuilder builder(node);
  for (auto [index, value] : llvm::enumerate(*folded)) {
    Value result = node->getResult(index);
    StringRef name = node.getOutputName(index);
    if (name.empty() && result.use_empty())
      continue;
    auto constant = ConstantOp::create(
        builder, node.getLoc(), value.value.getType(),
        builder.getStringAttr(name), value.value, value.field, value.extras);
    result.replaceAllUsesWith(constant.getResult());
  }
  SmallVector<Operation *> definitions;
  for (Value operand : node->getOperands())
    if (Operation *definition = operand.getDefiningOp())
      if (!llvm::is_contained(definitions, definition))
        definitions.push_back(definition);
  erase(node);
  ++numFolded;
  removeDead(std::move(definitions));
}

LogicalResult Folder::foldSubgraphs(NodeOp node) {
  unsigned region = 0;
  for (auto attribute :
       node.getNodeAttributes().getAsRange<NodeAttributeAttr>())
    if (auto graph = dyn_cast<GraphAttr>(attribute.getValue()))
      if (failed(fold(node->getRegion(region++).front(), graph)))
        return failure();
  return success();
}

LogicalResult Folder::fold(Block &block, GraphAttr graph) {
  llvm::StringSet<> inputs;
  for (Attribute entry : graph.getInputs())
    inputs.insert(getEntryName(entry));
  for (auto constant : block.getOps<ConstantOp>())
    if (inputs.contains(constant.getName())) {
      overridable.insert(constant.getResult());
      inference.setValue(constant.getResult(), std::nullopt);
    }
  // Folding a node erases it and operations before it, never one after it.
  for (NodeOp node : llvm::make_early_inc_range(block.getOps<NodeOp>())) {
    if (failed(foldSubgraphs(node)) || failed(inference.visit(node)))
      return failure();
    fold(node);
  }
  return success();
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

/// `graph` without the value_info of what is gone.
static GraphAttr dropNames(GraphAttr graph, const llvm::StringSet<> &names) {
  SmallVector<Attribute> entries(graph.getValueInfo().getValue());
  llvm::erase_if(entries, [&](Attribute entry) {
    return names.contains(getEntryName(entry));
  });
  MLIRContext *context = graph.getContext();
  return GraphAttr::get(context, graph.getName(), graph.getInputs(),
                        graph.getOutputs(), ArrayAttr::get(context, entries),
                        graph.getExtras());
}

namespace {
struct FoldConstants : onnx::impl::OnnxFoldConstantsBase<FoldConstants> {
  using OnnxFoldConstantsBase::OnnxFoldConstantsBase;

  void runOnOperation() override {
    auto version =
        getOperation()->getAttrOfType<IntegerAttr>(kIRVersionAttrName);
    if (version && version.getInt() < kMinIRVersion)
      return;
    for (auto func : getOperation().getOps<func::FuncOp>()) {
      auto graph = func->getAttrOfType<GraphAttr>(kGraphAttrName);
      if (!graph || func.isExternal())
        continue;
      Block &block = func.getBody().front();
      Folder folder(maxElements);
      if (failed(folder.fold(block, graph)))
        return signalPassFailure();
      numFolded += folder.getNumFolded();
      numRemoved += folder.getNumRemoved();
      func->setAttr(kGraphAttrName, dropNames(graph, folder.getRemovedNames()));
      func.setType(FunctionType::get(&getContext(), block.getArgumentTypes(),
                                     block.getTerminator()->getOperandTypes()));
    }
  }
};
} // namespace
