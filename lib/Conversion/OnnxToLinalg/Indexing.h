//===- Indexing.h - Positions in tensors ------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What conversions share that read or write at computed positions, or in an
// order.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_ONNXTOLINALG_INDEXING_H
#define NIBBLE_LIB_CONVERSION_ONNXTOLINALG_INDEXING_H

#include "NodeConversion.h"

namespace nibble {

mlir::Type getStoredElement(mlir::Value tensor);

/// The stored element of `tensor` at `indices`.
mlir::Value extract(ScalarBuilder &scalar, mlir::Value tensor,
                    mlir::ValueRange indices);
mlir::Value insert(ScalarBuilder &scalar, mlir::Value element,
                   mlir::Value tensor, mlir::ValueRange indices);

/// An integer as an index, and back as an i64.
mlir::Value toIndex(ScalarBuilder &scalar, mlir::Value integer);
mlir::Value toI64(ScalarBuilder &scalar, mlir::Value index);

mlir::Value buildAnd(ScalarBuilder &scalar, mlir::Value a, mlir::Value b);
mlir::Value buildOr(ScalarBuilder &scalar, mlir::Value a, mlir::Value b);
mlir::Value buildNegation(ScalarBuilder &scalar, mlir::Value condition);

/// The integers of a one-dimensional input as sizes: constants where they are
/// known.
mlir::FailureOr<Sizes> getSizeInput(NodeContext &context, unsigned input);

/// The product of sizes, a constant where all of them are.
mlir::OpFoldResult getProduct(NodeContext &context,
                              llvm::ArrayRef<mlir::OpFoldResult> sizes);

/// An index into a dimension of `size`, which may count from the end.
mlir::Value resolveIndex(ScalarBuilder &scalar, mlir::Value index,
                         mlir::Value size);

/// The one element of input `input` (a scalar, or a tensor of one element).
mlir::Value extractScalar(NodeContext &context, unsigned input);

/// Loops over `sizes`, the last innermost, in ascending order. `body` gets the
/// position and the values that the step before left, and gives the next ones.
llvm::SmallVector<mlir::Value> buildSequence(
    NodeContext &context, llvm::ArrayRef<mlir::OpFoldResult> sizes,
    mlir::ValueRange initial,
    llvm::function_ref<llvm::SmallVector<mlir::Value>(
        ScalarBuilder &, mlir::ValueRange indices, mlir::ValueRange carried)>
        body);

/// Whether `predicate` holds for each element of `tensor`, which it gets with
/// its position.
mlir::Value
buildAllOf(NodeContext &context, mlir::Value tensor,
           llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::Value element,
                                          mlir::ValueRange indices)>
               predicate);

/// Checks when the code runs that the integers of input `input` lie in
/// [-size, size). Nothing is emitted where that is known.
void checkIndices(NodeContext &context, unsigned input,
                  mlir::OpFoldResult size);

/// Checks when the code runs that dimension `axis` of input `a` has the size of
/// dimension `otherAxis` of input `b`, unless that is known.
void checkSameSize(NodeContext &context, unsigned a, int64_t axis, unsigned b,
                   int64_t otherAxis);

/// For each of `rank` axes whether the integers of the input name it; axes
/// count from the end where they are negative. That they are in range is
/// checked when the code runs.
llvm::SmallVector<mlir::Value> flagAxes(NodeContext &context, unsigned input,
                                        int64_t rank);

/// The sizes that are not `dropped`, of which `rank` are left.
Sizes compactSizes(NodeContext &context,
                   llvm::ArrayRef<mlir::OpFoldResult> sizes,
                   llvm::ArrayRef<mlir::Value> dropped, int64_t rank);

/// The positions 0 … count-1 as an i64 tensor, sorted so that `before` holds
/// for no later position and an earlier one; equal ones stay in their order.
mlir::Value buildSortedPositions(
    ScalarBuilder &scalar, mlir::Value count,
    llvm::function_ref<mlir::Value(ScalarBuilder &, mlir::Value, mlir::Value)>
        before);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_ONNXTOLINALG_INDEXING_H
