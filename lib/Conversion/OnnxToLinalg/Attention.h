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
/// Part of the last dimension.
TypedTensor sliceLast(NodeContext &context, const TypedTensor &tensor,
                      mlir::OpFoldResult start, onnx::Dimension size,
                      mlir::OpFoldResult extent);

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

/// The softmax over the last dimension, computed in the type of the logits. A
/// row of nothing but -infinity becomes zeros. Where there is a `sink` (a
/// logit of type [heads, 1, 1] or a scalar), its exponential adds to the sum.
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
