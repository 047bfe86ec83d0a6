//===- Attention.h - What attention ops share -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Attention is softmax(scale · Q · Kᵀ, masked) · V
// (https://arxiv.org/abs/1706.03762): two contractions with the loops (batch,
// head, m, k, n) and a softmax between them. Where several heads of the query
// share one of the key (https://arxiv.org/abs/2305.13245), their rows are rows
// of one contraction: the keys are neither repeated nor copied.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_ONNXTOLINALG_ATTENTION_H
#define NIBBLE_LIB_CONVERSION_ONNXTOLINALG_ATTENTION_H

#include "Indexing.h"

namespace nibble {

/// A tensor with the dimensions that it is known to have.
struct TypedTensor {
  mlir::Value tensor;
  llvm::SmallVector<onnx::Dimension> dimensions;
  mlir::Type element;

  explicit operator bool() const { return static_cast<bool>(tensor); }
  mlir::RankedTensorType getType() const {
    return onnx::getTensorType(dimensions, element);
  }
};

/// Input `index` of the node; nothing where it is left out.
TypedTensor getTensor(NodeContext &context, unsigned index);

/// A dimension of several tensors that are checked to agree on it.
onnx::Dimension agree(NodeContext &context, llvm::StringRef name,
                      llvm::ArrayRef<std::pair<TypedTensor *, int64_t>> parts);

/// [batch, sequence, heads × size] ⇒ [batch, heads, sequence, size].
mlir::FailureOr<TypedTensor>
splitHeads(NodeContext &context, const TypedTensor &tensor, int64_t heads);
/// [batch, heads, sequence, size] ⇒ [batch, sequence, heads × size].
mlir::Value mergeHeads(NodeContext &context, const TypedTensor &tensor);

TypedTensor transpose(NodeContext &context, const TypedTensor &tensor,
                      llvm::ArrayRef<int64_t> order);
/// Splits dimension `axis` into `outer` × what is left.
mlir::FailureOr<TypedTensor> splitDimension(NodeContext &context,
                                            const TypedTensor &tensor,
                                            int64_t axis, int64_t outer);
/// The part of dimension `axis` that begins at `start` and has `extent`
/// elements (which `size` says as far as it is known).
TypedTensor slice(NodeContext &context, const TypedTensor &tensor, int64_t axis,
                  mlir::OpFoldResult start, onnx::Dimension size,
                  mlir::OpFoldResult extent);
/// The same with constants.
TypedTensor slice(NodeContext &context, const TypedTensor &tensor, int64_t axis,
                  int64_t start, int64_t size);
/// The elements of `tensor` with dimensions of 1 between its own: those of the
/// result are `dimensions`.
TypedTensor reshape(NodeContext &context, const TypedTensor &tensor,
                    llvm::ArrayRef<onnx::Dimension> dimensions,
                    llvm::ArrayRef<mlir::OpFoldResult> sizes);

/// Tensors one after another along `axis`, in a new tensor.
TypedTensor concatenate(NodeContext &context,
                        llvm::ArrayRef<TypedTensor> tensors, int64_t axis);

/// Query [batch, heads, sequence, size] times transposed key [batch, key heads,
/// total, size], in computed numbers [batch, heads, sequence, total], without a
/// scale. The dimensions must agree; heads are a multiple of the key's.
mlir::FailureOr<TypedTensor> buildScores(NodeContext &context,
                                         const TypedTensor &query,
                                         const TypedTensor &key);

/// Probabilities [batch, heads, sequence, total] times value [batch, key heads,
/// total, size].
mlir::FailureOr<TypedTensor> buildWeightedSum(NodeContext &context,
                                              const TypedTensor &probabilities,
                                              const TypedTensor &value,
                                              mlir::Type element);

/// What the queries of [batch, heads, sequence, total] logits may see.
struct Visibility {
  bool isCausal = false;
  /// Keys in front of a query's own position that it may see, and behind it;
  /// negative where there is no limit.
  int64_t left = -1, right = -1;

  bool usesPositions() const { return isCausal || left >= 0 || right >= 0; }
  /// Whether the query at this position of the loops may see the key, within
  /// those loops. The first query is at position `offset`; `length` (or null)
  /// is the number of keys that are no padding.
  mlir::Value build(ScalarBuilder &scalar, mlir::Value offset,
                    mlir::Value length) const;
};

/// softcap · tanh(scale · score / softcap), or scale · score where there is no
/// softcap, changed by `mask` (which may be null), which gets the numbers of
/// the broadcast operands.
TypedTensor
buildLogits(NodeContext &context, const TypedTensor &scores, double scale,
            double softcap, llvm::ArrayRef<TypedTensor> operands,
            llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::Value logit,
                                           mlir::ValueRange operands)>
                mask,
            mlir::Type element);

/// The attribute `scale`, or 1 / √size of a head where it is not given or 0.
mlir::FailureOr<double> getScale(NodeContext &context,
                                 const TypedTensor &query);

/// The softmax over the last dimension, computed in the type of the logits. A
/// row of nothing but -infinity becomes zeros. Where there is a `sink` (a logit
/// for each head, or one for all), its exponential adds to the sum.
TypedTensor buildProbabilities(NodeContext &context, const TypedTensor &logits,
                               const TypedTensor &sink = {});

/// x · cos − partner · sin for the first half, x · cos + partner · sin for the
/// second half of the first `2 × size of a cache row` numbers of the last
/// dimension (https://arxiv.org/abs/2104.09864). `tensor` is [batch, heads,
/// sequence, size]; the caches are [positions, half] with `positions` a tensor
/// [batch, sequence] of rows, or [batch, sequence, half] without.
mlir::Value buildRotary(NodeContext &context, const TypedTensor &tensor,
                        const TypedTensor &cosines, const TypedTensor &sines,
                        mlir::Value positions, bool isInterleaved);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_ONNXTOLINALG_ATTENTION_H
