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

/// The scheme that an encoding of a matrix or filter stands for.
Scheme getScheme(QuantizedAttr encoding);

/// The storage of Numerics as an attribute, and back.
StorageAttr getStorageAttr(mlir::MLIRContext *context,
                           const StorageFormat &storage);
StorageFormat getStorageFormat(StorageAttr storage);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_WEIGHTS_H
