//===- Weights.h - Constants that are weights -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_WEIGHTS_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_WEIGHTS_H

#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/Scheme.h"

namespace nibble {

/// The operand of `node` that holds its matrix: B of MatMul and Gemm, the table
/// of Gather; std::nullopt for other nodes.
std::optional<unsigned> getWeightOperand(onnx::NodeOp node);

/// Whether the weight of `node` is multiplied with its first input, rather than
/// read by index.
bool isProduct(onnx::NodeOp node);

/// The constant behind the weight of `node` if it will be quantized
/// (nibble.encoding), or null.
onnx::ConstantOp getChosenWeight(onnx::NodeOp node);

/// The id of the probe that sees what the weight of `node` is multiplied with.
std::string getProbeId(onnx::NodeOp node);

/// The dimension of a convolution's weight (operand 1) that is its output
/// channels; std::nullopt for nodes that are no Conv or ConvTranspose.
std::optional<unsigned> getFilterChannelAxis(onnx::NodeOp node);

/// An input that is multiplied as several matrices, those of its last two
/// dimensions.
struct MatrixStack {
  unsigned operand;
  /// The dimension that products are summed over: one of the last two.
  unsigned axis;
};

/// The stacks of matrices that `node` reads: B of a MatMul with more than two
/// dimensions (the experts of a layer), and W and R of LSTM, GRU and RNN.
llvm::SmallVector<MatrixStack> getMatrixStacks(onnx::NodeOp node);

/// A value read as a matrix, perhaps through a Transpose.
struct MatrixSource {
  mlir::Value value;
  /// True where the reader sees the transpose of `value`.
  bool transposed = false;
};

/// What is behind `value`, seen through a Transpose of the last two of two
/// dimensions.
MatrixSource getMatrixSource(mlir::Value value);

/// The dimension of the matrix in `value` that the products of `node` are
/// summed over (MatMul, Gemm), or that a row of a table runs along (Gather).
unsigned getReductionAxis(onnx::NodeOp node, bool transposed);

/// The dimension of a matrix that will be quantized (nibble.encoding) along
/// which its blocks run: that which products are summed over.
unsigned getChosenAxis(onnx::ConstantOp constant);

/// `scheme` with scales of the type that the ops which hold weights of
/// `element` want.
Scheme withScalesFor(Scheme scheme, mlir::Type element);

/// The encoding of a matrix by `scheme` with its groups along `reductionAxis`.
QuantizedAttr getEncoding(mlir::MLIRContext *context, const Scheme &scheme,
                          unsigned reductionAxis);

/// The encoding of a filter of `rank` dimensions by `scheme`, which has no
/// groups: a scale for each output channel or one for the tensor.
QuantizedAttr getFilterEncoding(mlir::MLIRContext *context,
                                const Scheme &scheme, unsigned rank,
                                unsigned channelAxis);

/// The encoding of a stack of matrices, `rank` dimensions in all, by `scheme`
/// with its groups along `reductionAxis`.
QuantizedAttr getStackEncoding(mlir::MLIRContext *context, const Scheme &scheme,
                               unsigned rank, unsigned reductionAxis);

/// Whether an encoding of more than two dimensions is that of a stack whose
/// matrices have scales of their own.
bool isStackEncoding(QuantizedAttr encoding);

/// The scheme that an encoding of a matrix, stack or filter stands for.
Scheme getScheme(QuantizedAttr encoding);

/// The storage of Numerics as an attribute, and back.
StorageAttr getStorageAttr(mlir::MLIRContext *context,
                           const StorageFormat &storage);
StorageFormat getStorageFormat(StorageAttr storage);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_WEIGHTS_H
