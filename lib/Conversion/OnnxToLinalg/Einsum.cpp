//===- Einsum.cpp - Sums of products by a formula -------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Two factors at a time, from the left, are one contraction: a linalg.generic
// over the labels of both. A label that neither the result nor a later factor
// has is summed over.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

#include <map>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
/// A dimension of a term: a letter, or a dimension of the ellipsis counted from
/// its end.
using Label = int;
using Labels = SmallVector<Label>;

struct Equation {
  SmallVector<Labels> factors;
  Labels result;
};

/// A factor with the sizes of its labels.
struct Factor {
  Value tensor;
  Labels labels;
  Type element;
};
} // namespace

static constexpr Label kEllipsis = 256;

/// The labels of one term of `rank` dimensions; std::nullopt where it is
/// malformed or has another number of them.
static std::optional<Labels> parseTerm(StringRef term, int64_t rank) {
  int64_t letters = llvm::count_if(term, llvm::isAlpha);
  Labels labels;
  bool hasEllipsis = false;
  while (!term.empty()) {
    if (term.consume_front("...")) {
      if (hasEllipsis || letters > rank)
        return std::nullopt;
      hasEllipsis = true;
      for (int64_t left = rank - letters; left > 0; --left)
        labels.push_back(kEllipsis + left - 1);
    } else if (llvm::isAlpha(term.front())) {
      labels.push_back(static_cast<unsigned char>(term.front()));
      term = term.drop_front();
    } else {
      return std::nullopt;
    }
  }
  if (static_cast<int64_t>(labels.size()) != rank)
    return std::nullopt;
  return labels;
}

/// Without `->` the result has the ellipsis and, in alphabetical order, the
/// letters that occur once.
static Labels getImplicitResult(ArrayRef<Labels> factors) {
  std::map<Label, int> counts;
  Label widest = kEllipsis - 1;
  for (const Labels &labels : factors)
    for (Label label : labels) {
      ++counts[label];
      widest = std::max(widest, label);
    }
  Labels result;
  for (Label label = widest; label >= kEllipsis; --label)
    result.push_back(label);
  for (auto [label, count] : counts)
    if (label < kEllipsis && count == 1)
      result.push_back(label);
  return result;
}

static FailureOr<Equation> parseEquation(NodeContext &context) {
  std::string text;
  for (char c : context.node.getString("equation", ""))
    if (c != ' ')
      text += c;
  auto [left, right] = StringRef(text).split("->");
  SmallVector<StringRef> terms;
  left.split(terms, ',');
  if (terms.size() != context.getNumInputs())
    return context.fail("the equation has not a term for each input");
  Equation equation;
  int64_t widest = 0;
  for (auto [index, term] : llvm::enumerate(terms)) {
    int64_t rank = context.getInputType(index).getRank();
    auto labels = parseTerm(term, rank);
    if (!labels)
      return context.fail("the equation's term '" + term +
                          "' does not name the dimensions of input " +
                          Twine(index));
    widest = std::max<int64_t>(widest, llvm::count_if(*labels, [](Label label) {
                                 return label >= kEllipsis;
                               }));
    equation.factors.push_back(*labels);
  }
  if (StringRef(text).contains("->")) {
    int64_t letters = llvm::count_if(right, llvm::isAlpha);
    auto labels =
        parseTerm(right, right.contains("...") ? letters + widest : letters);
    if (!labels)
      return context.fail("the equation's result '" + right + "' is malformed");
    equation.result = *labels;
  } else {
    equation.result = getImplicitResult(equation.factors);
  }
  for (auto [i, label] : llvm::enumerate(equation.result)) {
    bool isKnown = false;
    for (const Labels &labels : equation.factors)
      isKnown |= llvm::is_contained(labels, label);
    if (!isKnown ||
        llvm::is_contained(ArrayRef(equation.result).take_front(i), label))
      return context.fail("the equation's result names a dimension that is not "
                          "there, or one twice");
  }
  return equation;
}

/// The size of each label, checked to be the same wherever it occurs. A
/// dimension of 1 is stretched.
static std::map<Label, OpFoldResult> collectSizes(NodeContext &context,
                                                  ArrayRef<Factor> factors) {
  ScalarBuilder scalar = context.scalar();
  std::map<Label, OpFoldResult> sizes;
  std::map<Label, Dimension> dimensions;
  for (auto [index, factor] : llvm::enumerate(factors)) {
    for (auto [label, size, dimension] :
         llvm::zip(factor.labels, context.getSizes(factor.tensor),
                   getDimensions(context.getInputType(index)))) {
      auto [entry, isNew] = sizes.try_emplace(label, size);
      OpFoldResult &known = entry->second;
      Dimension &knownDimension = dimensions[label];
      if (!isNew && dimension.size == 1)
        continue;
      if (!isNew && knownDimension.size != 1 &&
          !knownDimension.isKnownEqual(dimension))
        context.check(
            scalar.equal(context.toValue(known), context.toValue(size)),
            "two dimensions that the equation gives one name differ");
      if (isNew || !knownDimension.isStatic() || knownDimension.size == 1) {
        known = size;
        knownDimension = dimension;
      }
    }
  }
  return sizes;
}

/// Labels in the order of their loops: those of the result with, before its
/// last one, the ones that are summed over.
static Labels orderLoops(ArrayRef<Label> result, ArrayRef<Factor> factors) {
  Labels summed;
  for (const Factor &factor : factors)
    for (Label label : factor.labels)
      if (!llvm::is_contained(result, label) &&
          !llvm::is_contained(summed, label))
        summed.push_back(label);
  Labels loops(result);
  loops.insert(loops.empty() ? loops.end() : std::prev(loops.end()),
               summed.begin(), summed.end());
  return loops;
}

/// Σ of the product of factors over the labels that `result` has not.
static Factor contract(NodeContext &context, ArrayRef<Factor> factors,
                       const Labels &result,
                       const std::map<Label, OpFoldResult> &sizes,
                       Type computed) {
  MLIRContext *mlirContext = context.rewriter.getContext();
  Labels loops = orderLoops(result, factors);
  auto getLoop = [&](Label label) {
    return getAffineDimExpr(llvm::find(loops, label) - loops.begin(),
                            mlirContext);
  };
  SmallVector<AffineMap> maps;
  SmallVector<Value> tensors;
  for (const Factor &factor : factors) {
    SmallVector<AffineExpr> exprs;
    for (auto [label, size] :
         llvm::zip(factor.labels, context.getSizes(factor.tensor))) {
      bool isStretched = getConstantIntValue(size) == 1 &&
                         getConstantIntValue(sizes.at(label)) != 1;
      exprs.push_back(isStretched ? getAffineConstantExpr(0, mlirContext)
                                  : getLoop(label));
    }
    maps.push_back(AffineMap::get(loops.size(), 0, exprs, mlirContext));
    tensors.push_back(factor.tensor);
  }
  SmallVector<AffineExpr> exprs;
  Sizes resultSizes;
  for (Label label : result) {
    exprs.push_back(getLoop(label));
    resultSizes.push_back(sizes.at(label));
  }
  maps.push_back(AffineMap::get(loops.size(), 0, exprs, mlirContext));
  SmallVector<utils::IteratorType> iterators;
  for (Label label : loops)
    iterators.push_back(llvm::is_contained(result, label)
                            ? utils::IteratorType::parallel
                            : utils::IteratorType::reduction);
  ScalarBuilder outer = context.scalar();
  Value sums = buildReduction(
      context.rewriter, context.loc, tensors, maps, iterators, resultSizes,
      outer.constant(computed, 0), [&](ScalarBuilder &scalar, ValueRange args) {
        Value product;
        for (auto [factor, arg] : llvm::zip(factors, args)) {
          Value number = scalar.decode(arg, factor.element);
          product = product ? scalar.mul(product, number) : number;
        }
        return scalar.add(args.back(), product);
      });
  return {sums, result, computed};
}

static LogicalResult convertEinsum(NodeContext &context) {
  FailureOr<Equation> equation = parseEquation(context);
  if (failed(equation))
    return failure();
  Type element = context.getElementType(0), computed = getComputedType(element);
  SmallVector<Factor> factors;
  for (auto [index, labels] : llvm::enumerate(equation->factors))
    factors.push_back({context.getInput(index), labels, element});
  std::map<Label, OpFoldResult> sizes = collectSizes(context, factors);
  Factor product = factors.front();
  if (factors.size() == 1)
    product = contract(context, factors, equation->result, sizes, computed);
  for (size_t next = 1; next < factors.size(); ++next) {
    Labels kept;
    if (next + 1 == factors.size()) {
      kept = equation->result;
    } else {
      Labels needed(equation->result);
      for (const Factor &factor : ArrayRef(factors).drop_front(next + 1))
        needed.append(factor.labels);
      for (const Labels *labels : {&product.labels, &factors[next].labels})
        for (Label label : *labels)
          if (llvm::is_contained(needed, label) &&
              !llvm::is_contained(kept, label))
            kept.push_back(label);
    }
    product =
        contract(context, {product, factors[next]}, kept, sizes, computed);
  }
  int64_t rank = equation->result.size();
  return context.replace(
      buildElementwise(context.rewriter, context.loc, product.tensor,
                       context.rewriter.getMultiDimIdentityMap(rank),
                       context.getSizes(product.tensor), getStoredType(element),
                       [&](ScalarBuilder &scalar, ValueRange args) {
                         return scalar.encode(args[0], element);
                       }));
}

void nibble::addEinsumConversions(NodeConversions &conversions) {
  conversions.add("Einsum", 12, convertEinsum);
}
