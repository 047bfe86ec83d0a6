//===- MatMul.cpp - Shapes of matrix products -----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ShapeRules.h"

#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

std::optional<Shape> onnx::multiplyShapes(std::optional<Shape> left,
                                          std::optional<Shape> right) {
  if (!left || !right || left->empty() || right->empty())
    return std::nullopt;
  bool isRow = left->size() == 1, isColumn = right->size() == 1;
  if (isRow)
    left->insert(left->begin(), fixed(1));
  if (isColumn)
    right->push_back(fixed(1));
  const Dimension &inner = left->back();
  const Dimension &other = (*right)[right->size() - 2];
  if (inner.isStatic() && other.isStatic() && inner.size != other.size)
    return std::nullopt;
  auto result =
      broadcast(ArrayRef(*left).drop_back(2), ArrayRef(*right).drop_back(2));
  if (!result)
    return std::nullopt;
  if (!isRow)
    result->push_back((*left)[left->size() - 2]);
  if (!isColumn)
    result->push_back(right->back());
  return result;
}

static void inferMatMul(RuleContext &context) {
  Type type = context.getElementType(0);
  if (!type)
    type = context.getElementType(1);
  context.set(0, type,
              multiplyShapes(context.getShape(0), context.getShape(1)));
}

static void transpose(std::optional<Shape> &shape) {
  if (shape && shape->size() >= 2)
    std::swap(shape->back(), (*shape)[shape->size() - 2]);
}

static void inferFusedMatMul(RuleContext &context) {
  auto left = context.getShape(0), right = context.getShape(1);
  if (context.getInt("transBatchA", 0) || context.getInt("transBatchB", 0))
    return context.set(0, context.getElementType(0));
  if (context.getInt("transA", 0))
    transpose(left);
  if (context.getInt("transB", 0))
    transpose(right);
  context.set(0, context.getElementType(0), multiplyShapes(left, right));
}

static void inferGemm(RuleContext &context) {
  auto left = context.getShape(0), right = context.getShape(1);
  if ((left && left->size() != 2) || (right && right->size() != 2))
    return context.reject();
  Shape result(2);
  if (left)
    result[0] = (*left)[context.getInt("transA", 0) ? 1 : 0];
  if (right)
    result[1] = (*right)[context.getInt("transB", 0) ? 0 : 1];
  Type type = context.getElementType(0);
  context.set(0, type ? type : context.getElementType(1), result);
}

/// The shape of A with its last dimension replaced by the attribute N.
static void inferPackedMatMul(RuleContext &context) {
  auto shape = context.getShape(0);
  int64_t columns = context.getInt("N", -1);
  Type type = context.getElementType(0);
  if (!shape || shape->empty() || columns < 0)
    return context.set(0, type);
  shape->back() = fixed(columns);
  context.set(0, type, shape);
}

//===----------------------------------------------------------------------===//
// Einsum
//===----------------------------------------------------------------------===//

/// Notes the sizes of one operand's letters; false for what the rule leaves.
static bool bindLetters(StringRef letters, const Shape &shape,
                        llvm::MapVector<char, Dimension> &sizes) {
  if (letters.size() != shape.size())
    return false;
  for (auto [letter, dimension] : llvm::zip(letters, shape)) {
    auto [it, isNew] = sizes.insert({letter, dimension});
    if (isNew)
      continue;
    auto both = broadcast({it->second}, {dimension});
    if (!both)
      return false;
    it->second = both->front();
  }
  return true;
}

/// Equations without "...".
static void inferEinsum(RuleContext &context) {
  Type type = context.getElementType(0);
  std::string equation = context.getString("equation", "").str();
  llvm::erase(equation, ' ');
  if (StringRef(equation).contains('.'))
    return context.set(0, type);
  auto [left, right] = StringRef(equation).split("->");
  SmallVector<StringRef> terms;
  left.split(terms, ',');
  if (terms.size() != context.getNumInputs())
    return context.reject();
  llvm::MapVector<char, Dimension> sizes;
  for (auto [index, term] : llvm::enumerate(terms)) {
    auto shape = context.getShape(index);
    if (!shape)
      return context.set(0, type);
    if (!bindLetters(term, *shape, sizes))
      return context.reject();
  }
  std::string output = right.str();
  if (!StringRef(equation).contains("->")) {
    // Without an arrow: the letters that occur once, sorted.
    for (auto &[letter, size] : sizes)
      if (left.count(letter) == 1)
        output.push_back(letter);
    llvm::sort(output);
  }
  Shape result;
  for (char letter : output) {
    auto it = sizes.find(letter);
    if (it == sizes.end())
      return context.reject();
    result.push_back(it->second);
  }
  context.set(0, type, result);
}

static void inferDeterminant(RuleContext &context) {
  auto shape = context.getShape(0);
  if (shape && shape->size() < 2)
    return context.reject();
  if (shape)
    shape->truncate(shape->size() - 2);
  context.set(0, context.getElementType(0), shape);
}

void onnx::addMatMulRules(ShapeRules &rules) {
  rules.add({"MatMul"}, inferMatMul);
  rules.add({"Gemm"}, inferGemm);
  rules.add({"Einsum"}, inferEinsum);
  rules.add({"Det"}, inferDeterminant);
  for (StringRef opType : {"MatMulNBits", "MatMulBnb4", "MatMulFpQ4"})
    rules.add("com.microsoft", opType, 1, inferPackedMatMul);
  for (StringRef opType : {"FusedMatMul", "TransposeMatMul"})
    rules.add("com.microsoft", opType, 1, inferFusedMatMul);
  rules.add("com.microsoft", "FusedGemm", 1, inferGemm);
}
