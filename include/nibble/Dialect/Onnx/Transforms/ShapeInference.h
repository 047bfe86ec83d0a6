//===- ShapeInference.h - Types and shapes of ONNX values -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A walk over the graph, from inputs to outputs, asks one rule for each node. A
// rule knows an op type of a domain from a version on. It sees what is known of
// the node's inputs (their types, and for small integer tensors their elements)
// and says what it can of the results; to say nothing is always right.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_TRANSFORMS_SHAPEINFERENCE_H
#define NIBBLE_DIALECT_ONNX_TRANSFORMS_SHAPEINFERENCE_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringMap.h"

namespace nibble::onnx {

/// A shape; or the elements of an integer tensor of rank 0 or 1, each a number
/// (which may be negative), the name of a dimension, or unknown.
using Shape = llvm::SmallVector<Dimension>;

/// Integer tensors of at most this many elements are followed by value.
inline constexpr int64_t kMaxShapeElements = 256;

class ShapeInference;

/// What a rule sees of one node, and where it leaves what it finds. An accessor
/// that meets something malformed (an attribute of another kind) rejects the
/// node: nothing will be known of its results.
class RuleContext {
public:
  RuleContext(NodeOp node, int64_t version, ShapeInference &inference);

  NodeOp getNode() const { return node; }
  /// The opset version of the node's domain.
  int64_t getVersion() const { return version; }
  mlir::MLIRContext *getContext() const { return node->getContext(); }
  unsigned getNumInputs() const { return getNode().getInputs().size(); }
  unsigned getNumOutputs() const { return node->getNumResults(); }

  /// False where input `index` is left out.
  bool hasInput(unsigned index) const;
  /// The type of an input; null where it is left out or unknown.
  mlir::Type getType(unsigned index) const;
  /// The element type of a tensor input, or null.
  mlir::Type getElementType(unsigned index) const;
  /// The shape of a ranked tensor input.
  std::optional<Shape> getShape(unsigned index) const;
  /// The elements of an integer input of rank 0 or 1, as far as known.
  std::optional<Shape> getValue(unsigned index) const;
  /// The elements of a constant integer input.
  std::optional<llvm::SmallVector<int64_t>> getIntegers(unsigned index) const;
  /// The elements of a small constant float input.
  std::optional<std::vector<float>> getFloats(unsigned index) const;

  int64_t getInt(llvm::StringRef name, int64_t defaultValue);
  llvm::StringRef getString(llvm::StringRef name, llvm::StringRef defaultValue);
  std::optional<llvm::SmallVector<int64_t>> getInts(llvm::StringRef name);
  std::optional<llvm::SmallVector<float>> getFloatList(llvm::StringRef name);
  /// The element type that an attribute names by its number, or null.
  mlir::Type getDataType(llvm::StringRef name);
  /// The integers of input `index` or, where the node has none, of the
  /// attribute `name`; `isGiven` tells an unknown input from none.
  std::optional<llvm::SmallVector<int64_t>>
  getIntegersOrAttribute(unsigned index, llvm::StringRef name, bool &isGiven);

  /// States the type of a result. A null element type states nothing, no shape
  /// an unranked tensor.
  void set(unsigned index, mlir::Type elementType,
           std::optional<Shape> shape = std::nullopt);
  void setType(unsigned index, mlir::Type type);
  /// States the elements of an integer result of rank 0 or 1.
  void setValue(unsigned index, Shape value);
  /// The node is malformed: nothing is known of its results.
  void reject() { rejected = true; }

  bool isRejected() const { return rejected; }
  llvm::ArrayRef<mlir::Type> getResultTypes() const { return types; }
  llvm::ArrayRef<std::optional<Shape>> getResultValues() const {
    return values;
  }
  ShapeInference &getInference() { return inference; }

private:
  NodeOp node;
  int64_t version;
  ShapeInference &inference;
  llvm::SmallVector<mlir::Type> types;
  llvm::SmallVector<std::optional<Shape>> values;
  bool rejected = false;
};

using ShapeRule = void (*)(RuleContext &);

/// The rules, by domain and op type, each from an opset version on.
class ShapeRules {
public:
  /// ONNX's own domain is "".
  void add(llvm::StringRef domain, llvm::StringRef opType, int64_t since,
           ShapeRule rule);
  /// Adds one rule for several op types of ONNX's own domain.
  void add(llvm::ArrayRef<llvm::StringRef> opTypes, ShapeRule rule,
           int64_t since = 1);
  /// The rule of the newest version that is not newer than `version`, or null.
  ShapeRule lookup(llvm::StringRef domain, llvm::StringRef opType,
                   int64_t version) const;
  /// The rules that Nibble has.
  static const ShapeRules &get();

private:
  llvm::StringMap<llvm::SmallVector<std::pair<int64_t, ShapeRule>, 1>> rules;
};

/// Infers types over a graph and remembers the elements of shape tensors.
class ShapeInference {
public:
  /// `refine`: whether to set the types of results to what was found.
  explicit ShapeInference(bool refine = true) : refine(refine) {}

  /// Visits the nodes of a graph in order. Fails, after an error, where the
  /// model contradicts itself.
  mlir::LogicalResult visit(mlir::Block &block);
  mlir::LogicalResult visit(NodeOp node);

  /// The elements of an integer tensor of rank 0 or 1, as far as known.
  std::optional<Shape> getValue(mlir::Value value);
  void setValue(mlir::Value value, std::optional<Shape> elements) {
    values[value] = std::move(elements);
  }
  /// Drops what is known of a value that is going to be erased.
  void forget(mlir::Value value) { values.erase(value); }

  /// What the node's rule alone says of its results: one type each, null where
  /// unknown.
  llvm::SmallVector<mlir::Type> getResultTypes(NodeOp node);

  /// Makes the type of a value (a result or an argument of a body) as precise
  /// as `type` and what it was. Fails, after an error that names `node` and
  /// `name`, where the two contradict.
  mlir::LogicalResult refineType(NodeOp node, mlir::Value value,
                                 llvm::StringRef name, mlir::Type type);

  unsigned getNumRefined() const { return numRefined; }

private:
  /// The rule for the node of `context`, unless an attribute is not known here.
  static ShapeRule getRule(const RuleContext &context);

  bool refine;
  unsigned numRefined = 0;
  llvm::DenseMap<mlir::Value, std::optional<Shape>> values;
};

/// The opset version that a node means: that of its domain.
int64_t getNodeVersion(NodeOp node);

/// The most precise type that two statements about a value allow; null where
/// they contradict. Where both name a dimension, the first name stays.
mlir::Type refineTypes(mlir::Type stated, mlir::Type found);

/// The most precise type that covers both; null where nothing is known.
mlir::Type joinTypes(mlir::Type left, mlir::Type right);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_TRANSFORMS_SHAPEINFERENCE_H
