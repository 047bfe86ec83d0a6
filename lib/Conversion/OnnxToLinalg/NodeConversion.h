//===- NodeConversion.h - One node to plain IR ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A conversion is a function that is registered for an op type, its domain and
// the version since which it holds. Each file beside this one registers those
// of a family of ops.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_ONNXTOLINALG_NODECONVERSION_H
#define NIBBLE_LIB_CONVERSION_ONNXTOLINALG_NODECONVERSION_H

#include "nibble/Conversion/LoopBuilder.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/Transforms/DialectConversion.h"
#include "llvm/ADT/StringMap.h"

#include <functional>
#include <map>

namespace nibble {

/// A node that is being converted, with its inputs in plain IR.
class NodeContext {
public:
  /// `reason` gets the message of the first `fail`.
  NodeContext(onnx::NodeOp node, mlir::ValueRange inputs, int64_t version,
              mlir::ConversionPatternRewriter &rewriter, std::string &reason)
      : node(node), version(version), rewriter(rewriter), loc(node.getLoc()),
        inputs(inputs), reason(reason) {}

  onnx::NodeOp node;
  /// The version of the domain that the model imports.
  int64_t version;
  mlir::ConversionPatternRewriter &rewriter;
  mlir::Location loc;

  unsigned getNumInputs() { return node.getInputs().size(); }
  /// The plain tensor that input `index` is, null where it is left out. A
  /// quantized tensor is dequantized.
  mlir::Value getInput(unsigned index);
  /// The type of an input in the onnx dialect, which says what its elements are
  /// and how its dimensions are called. Null where it is left out.
  mlir::RankedTensorType getInputType(unsigned index);
  mlir::Type getElementType(unsigned index) {
    return getInputType(index).getElementType();
  }
  /// The declared type of a result; null where it is none or not ranked.
  mlir::RankedTensorType getResultType(unsigned index = 0);

  /// The integers of a constant input, or of the attribute that held them in
  /// earlier versions; std::nullopt where neither is there.
  std::optional<llvm::SmallVector<int64_t>> getConstantInts(unsigned input);
  bool isAbsent(unsigned input) { return !node.getInput(input); }

  /// Element `position` of a one-dimensional integer tensor, as an index.
  mlir::Value extractIndex(mlir::Value tensor, int64_t position);

  Sizes getSizes(mlir::Value tensor) {
    return nibble::getSizes(rewriter, loc, tensor);
  }
  mlir::Value toValue(mlir::OpFoldResult size) {
    return nibble::toValue(rewriter, loc, size);
  }
  ScalarBuilder scalar(bool isUnsigned = false) {
    return ScalarBuilder(rewriter, loc, isUnsigned);
  }

  /// Code that ends the run with an error that names the node where
  /// `condition` is false at run time: "node 'x': index is out of range".
  void check(mlir::Value condition, const llvm::Twine &message);

  /// Replaces the node. Each result is cast to the declared shape.
  mlir::LogicalResult replace(mlir::ValueRange results);
  mlir::LogicalResult fail(const llvm::Twine &why) {
    if (reason.empty())
      reason = why.str();
    return rewriter.notifyMatchFailure(node, why);
  }

private:
  void checkSize(mlir::OpFoldResult size, int64_t declared, unsigned result);

  mlir::ValueRange inputs;
  std::string &reason;
};

using NodeConversion = std::function<mlir::LogicalResult(NodeContext &context)>;

/// All conversions, by domain, op type and version.
class NodeConversions {
public:
  /// `conversion` holds from version `since` on, until one with a later
  /// version.
  void add(llvm::StringRef domain, llvm::StringRef opType, int64_t since,
           NodeConversion conversion);
  void add(llvm::StringRef opType, int64_t since, NodeConversion conversion) {
    add("", opType, since, std::move(conversion));
  }
  /// Null where there is none.
  const NodeConversion *find(llvm::StringRef domain, llvm::StringRef opType,
                             int64_t version) const;

private:
  llvm::StringMap<std::map<int64_t, NodeConversion>> byName;
};

void addActivationConversions(NodeConversions &conversions);
void addAttentionConversions(NodeConversions &conversions);
void addControlConversions(NodeConversions &conversions);
void addConvolutionConversions(NodeConversions &conversions);
void addDetectionConversions(NodeConversions &conversions);
void addEinsumConversions(NodeConversions &conversions);
void addElementwiseConversions(NodeConversions &conversions);
void addIndexingConversions(NodeConversions &conversions);
void addLossConversions(NodeConversions &conversions);
void addMatMulConversions(NodeConversions &conversions);
void addMicrosoftAttentionConversions(NodeConversions &conversions);
void addMicrosoftMatMulConversions(NodeConversions &conversions);
void addNormalizationConversions(NodeConversions &conversions);
void addPadConversions(NodeConversions &conversions);
void addPoolingConversions(NodeConversions &conversions);
void addQLinearConversions(NodeConversions &conversions);
void addQuantizationConversions(NodeConversions &conversions);
void addRecurrentConversions(NodeConversions &conversions);
void addReductionConversions(NodeConversions &conversions);
void addResizeConversions(NodeConversions &conversions);
void addSamplingConversions(NodeConversions &conversions);
void addShapeConversions(NodeConversions &conversions);
void addSignalConversions(NodeConversions &conversions);
void addSortingConversions(NodeConversions &conversions);
void addSparseProductConversions(NodeConversions &conversions);
void addStateSpaceConversions(NodeConversions &conversions);

//===----------------------------------------------------------------------===//
// What several files use
//===----------------------------------------------------------------------===//

/// Tensors made to agree by ONNX's rule of broadcasting.
struct Broadcast {
  /// Sizes of the common shape, then those of the trailing dimensions.
  Sizes sizes;
  /// How each tensor is read in loops over the common shape; without results
  /// for the trailing dimensions.
  llvm::SmallVector<llvm::SmallVector<mlir::AffineExpr>> maps;
  /// The tensors. One that may or may not have to be stretched at run time is
  /// a stretched copy.
  llvm::SmallVector<mlir::Value> tensors;
};

/// Broadcasts all but the last `trailing` dimensions of tensors. `types` are
/// theirs in the onnx dialect: dimensions of the same name are equal.
Broadcast broadcast(NodeContext &context, mlir::ValueRange tensors,
                    llvm::ArrayRef<mlir::RankedTensorType> types,
                    unsigned trailing = 0);

using ScalarFunction =
    llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::ValueRange)>;

/// Applies `body` to the numbers of broadcast tensors and stores what it gives,
/// a number computed as `element`, in a new tensor.
mlir::Value buildBroadcast(NodeContext &context, mlir::ValueRange tensors,
                           llvm::ArrayRef<mlir::RankedTensorType> types,
                           mlir::Type element, ScalarFunction body);

/// The elements of `tensor`, of type `from`, converted to `to`.
mlir::Value buildCast(NodeContext &context, mlir::Value tensor, mlir::Type from,
                      mlir::Type to,
                      OutOfRange overflow = OutOfRange::Propagate);

/// `axis` counted from the front; std::nullopt where it is out of range.
std::optional<int64_t> normalizeAxis(int64_t axis, int64_t rank);

/// MatMul on tensors of any rank from 1: a vector is a row or a column.
mlir::FailureOr<mlir::Value>
buildAnyMatMul(NodeContext &context, mlir::Value lhs,
               mlir::RankedTensorType lhsType, mlir::Value rhs,
               mlir::RankedTensorType rhsType, mlir::Type element);

/// An integer factor of a matrix product less its zero point (the input
/// `zeroInput`, which may be left out), in i32. A zero point is a scalar or one
/// for each row (`rows`) or column.
mlir::FailureOr<mlir::Value> subtractZeroPoint(NodeContext &context,
                                               unsigned input,
                                               unsigned zeroInput, bool rows);

/// The code of a quotient `x / scale`, which is a float: rounded half to even,
/// `zero` (of type `zeroType`, or null) added, saturated.
mlir::Value buildLinearCode(ScalarBuilder &scalar, mlir::Value quotient,
                            mlir::Value zero, mlir::Type zeroType,
                            mlir::Type element, OutOfRange overflow);

/// What DynamicQuantizeLinear gives: codes, one scale and one zero point.
struct DynamicCodes {
  mlir::Value codes, scale, zero;
  mlir::Type codeType;
};
DynamicCodes buildDynamicCodes(NodeContext &context, mlir::Value x,
                               mlir::RankedTensorType type);

/// What a subgraph with one input makes of a plain tensor; its nodes are
/// converted later.
mlir::FailureOr<mlir::Value>
inlineFunction(NodeContext &context, mlir::Region &body, mlir::Value argument);

/// The matrix product over the last two dimensions of tensors of rank at least
/// 2 of computed numbers, the others broadcast. Sums go in ascending order.
mlir::Value buildMatMul(NodeContext &context, mlir::Value lhs,
                        mlir::RankedTensorType lhsType, mlir::Value rhs,
                        mlir::RankedTensorType rhsType, mlir::Type element);

/// A tensor whose elements are not set yet.
mlir::Value buildEmpty(NodeContext &context,
                       llvm::ArrayRef<mlir::OpFoldResult> sizes,
                       mlir::Type element);
/// A tensor of `sizes` that holds `stored` everywhere.
mlir::Value buildFilled(NodeContext &context,
                        llvm::ArrayRef<mlir::OpFoldResult> sizes,
                        mlir::Value stored);

/// `tensor` with its dimensions in another order: dimension i of the result is
/// dimension order[i].
mlir::Value buildTranspose(NodeContext &context, mlir::Value tensor,
                           llvm::ArrayRef<int64_t> order);

/// `tensor` with another shape of the same number of elements.
mlir::Value buildReshape(NodeContext &context, mlir::Value tensor,
                         llvm::ArrayRef<mlir::OpFoldResult> sizes);

/// Tensors of one rank one after another along `axis`, each inserted into a new
/// tensor. The other dimensions must agree.
mlir::Value buildConcat(NodeContext &context, mlir::ValueRange inputs,
                        int64_t axis);

/// Sizes of `tensor` without the dimensions `axes`, or with 1 in their place.
Sizes dropAxes(NodeContext &context, mlir::Value tensor,
               llvm::ArrayRef<int64_t> axes, bool keep);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_ONNXTOLINALG_NODECONVERSION_H
