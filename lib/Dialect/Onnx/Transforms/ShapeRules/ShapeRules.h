//===- ShapeRules.h - What the rules share ----------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DIALECT_ONNX_TRANSFORMS_SHAPERULES_H
#define NIBBLE_LIB_DIALECT_ONNX_TRANSFORMS_SHAPERULES_H

#include "nibble/Dialect/Onnx/Transforms/ShapeInference.h"

namespace nibble::onnx {

void addAttentionRules(ShapeRules &rules);
void addControlRules(ShapeRules &rules);
void addConvolutionRules(ShapeRules &rules);
void addElementwiseRules(ShapeRules &rules);
void addIndexingRules(ShapeRules &rules);
void addMatMulRules(ShapeRules &rules);
void addNormalizationRules(ShapeRules &rules);
void addQuantizationRules(ShapeRules &rules);
void addRecurrentRules(ShapeRules &rules);
void addReductionRules(ShapeRules &rules);
void addShapeRules(ShapeRules &rules);
void addSourceRules(ShapeRules &rules);

/// Gives the arguments of a Loop's or Scan's body the types that follow from
/// the node's inputs; does nothing for other nodes.
mlir::LogicalResult bindBodyArguments(RuleContext &context);

/// `axis` counted from the front; std::nullopt where it is out of range.
std::optional<int64_t> normalizeAxis(int64_t axis, int64_t rank);

/// The shape that tensors of these shapes broadcast to; std::nullopt where they
/// do not.
std::optional<Shape> broadcast(llvm::ArrayRef<Dimension> left,
                               llvm::ArrayRef<Dimension> right);
/// The same for inputs of a node; std::nullopt where one has no known rank.
std::optional<Shape> broadcastInputs(RuleContext &context,
                                     llvm::ArrayRef<unsigned> inputs);

Dimension addDimensions(const Dimension &left, const Dimension &right);
Dimension subtractDimensions(const Dimension &left, const Dimension &right);
Dimension multiplyDimensions(const Dimension &left, const Dimension &right);
/// Truncates towards zero, as ONNX's Div of integers.
Dimension divideDimensions(const Dimension &left, const Dimension &right);

inline Dimension fixed(int64_t size) { return {size, {}}; }

/// Result 0 has the type of input 0.
void inferSameAsFirst(RuleContext &context);

/// The shape of a matrix product with broadcast batches (numpy.matmul);
/// std::nullopt where an operand has no known rank or rank 0.
std::optional<Shape> multiplyShapes(std::optional<Shape> left,
                                    std::optional<Shape> right);

/// The output shape of a convolution of input `data` with the filter `weight`.
std::optional<Shape> convolve(RuleContext &context, unsigned data,
                              unsigned weight);

} // namespace nibble::onnx

#endif // NIBBLE_LIB_DIALECT_ONNX_TRANSFORMS_SHAPERULES_H
