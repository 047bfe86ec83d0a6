//===- Spatial.h - Windows, sizes and operands of loops ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What the conversions of convolutions, pools, normalizations and resampling
// share.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_ONNXTOLINALG_SPATIAL_H
#define NIBBLE_LIB_CONVERSION_ONNXTOLINALG_SPATIAL_H

#include "NodeConversion.h"

namespace nibble {

//===----------------------------------------------------------------------===//
// Sizes
//===----------------------------------------------------------------------===//

/// Arithmetic on sizes, which is done at once where they are constant.
struct SizeMath {
  explicit SizeMath(NodeContext &context) : context(context) {}
  NodeContext &context;

  mlir::OpFoldResult constant(int64_t value) {
    return context.rewriter.getIndexAttr(value);
  }
  mlir::OpFoldResult add(mlir::OpFoldResult a, mlir::OpFoldResult b);
  mlir::OpFoldResult sub(mlir::OpFoldResult a, mlir::OpFoldResult b);
  mlir::OpFoldResult mul(mlir::OpFoldResult a, mlir::OpFoldResult b);
  /// Rounds down. The divisor is positive.
  mlir::OpFoldResult floorDiv(mlir::OpFoldResult a, mlir::OpFoldResult b);
  mlir::OpFoldResult max(mlir::OpFoldResult a, mlir::OpFoldResult b);
  mlir::OpFoldResult min(mlir::OpFoldResult a, mlir::OpFoldResult b);
  mlir::OpFoldResult product(llvm::ArrayRef<mlir::OpFoldResult> sizes);

  /// States that a <= b: fails where they are constant and it is not so, else
  /// checks it when the code runs. `what` is the message where it is not so.
  mlir::LogicalResult requireLessEqual(mlir::OpFoldResult a,
                                       mlir::OpFoldResult b,
                                       const llvm::Twine &what);
  mlir::LogicalResult requireEqual(mlir::OpFoldResult a, mlir::OpFoldResult b,
                                   const llvm::Twine &what);
};

/// The `count` integers of input `input`, constant where they are. Fails, or
/// checks when the code runs, that it has so many.
mlir::FailureOr<Sizes> getIntegerInput(NodeContext &context, unsigned input,
                                       int64_t count);

/// Splits dimension `axis` of a tensor into `sizes`.
mlir::Value splitDimension(NodeContext &context, mlir::Value tensor,
                           int64_t axis,
                           llvm::ArrayRef<mlir::OpFoldResult> sizes);
/// Merges the dimensions `axis` to `axis` + `count` - 1.
mlir::Value mergeDimensions(NodeContext &context, mlir::Value tensor,
                            int64_t axis, int64_t count);

/// `tensor` with `before` and `after` (not negative) elements `value`, which is
/// stored, around each dimension.
mlir::Value buildPadded(NodeContext &context, mlir::Value tensor,
                        llvm::ArrayRef<mlir::OpFoldResult> before,
                        llvm::ArrayRef<mlir::OpFoldResult> after,
                        mlir::Value value);

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

/// A tensor that loops read at `indices`, expressions of the loops.
struct Operand {
  mlir::Value tensor;
  /// What its stored elements are.
  mlir::Type element;
  llvm::SmallVector<mlir::AffineExpr> indices;
};

/// An operand with one loop for each of its dimensions.
Operand makeOperand(NodeContext &context, mlir::Value tensor,
                    mlir::Type element);
/// An operand whose dimensions are the loops `loops`.
Operand makeOperand(NodeContext &context, mlir::Value tensor,
                    mlir::Type element, llvm::ArrayRef<int64_t> loops);

/// A tensor of `sizes` and `element`: what `body` makes of the operands'
/// numbers.
mlir::Value buildMapped(NodeContext &context, llvm::ArrayRef<Operand> operands,
                        llvm::ArrayRef<mlir::OpFoldResult> sizes,
                        mlir::Type element, ScalarFunction body);

/// Folds numbers into `initial`, a tensor of computed numbers that is read and
/// written at the loops `kept`; all other loops are folded, in the order of
/// the loops. The last argument of `body` is the number so far.
mlir::Value buildFolded(NodeContext &context, llvm::ArrayRef<Operand> operands,
                        int64_t numLoops, llvm::ArrayRef<int64_t> kept,
                        mlir::Value initial, ScalarFunction body);

/// The mean over the loops `axes` of what `body` makes of the operands, a
/// number of type `computed`. The loops are of `sizes`; the axes are gone from
/// the result.
mlir::Value buildMeanOver(NodeContext &context,
                          llvm::ArrayRef<Operand> operands,
                          llvm::ArrayRef<mlir::OpFoldResult> sizes,
                          llvm::ArrayRef<int64_t> axes, mlir::Type computed,
                          ScalarFunction body);

/// The loops that are not in `axes`, of `rank`.
llvm::SmallVector<int64_t> getOtherAxes(int64_t rank,
                                        llvm::ArrayRef<int64_t> axes);

/// An index as a number computed as `type`.
mlir::Value indexToNumber(ScalarBuilder &scalar, mlir::Value index,
                          mlir::Type type);

/// Moves dimension `from` to position `to`.
mlir::Value moveDimension(NodeContext &context, mlir::Value tensor,
                          int64_t from, int64_t to);

/// Checks, when the code runs, that all of `indices`, a tensor of integers, lie
/// in [0, limit).
void checkPositions(NodeContext &context, mlir::Value indices,
                    mlir::Type element, mlir::OpFoldResult limit);

/// Element `indices` of a tensor, as a number.
mlir::Value extractNumber(ScalarBuilder &scalar, mlir::Value tensor,
                          mlir::Type element, mlir::ValueRange indices);

//===----------------------------------------------------------------------===//
// Linear codes
//===----------------------------------------------------------------------===//

/// Codes of a tensor that share one scale: number = (code - zero) · scale.
struct LinearCode {
  mlir::Type element;
  /// f32, and a code or null.
  mlir::Value scale, zero;

  /// code - zero, in i32.
  mlir::Value center(ScalarBuilder &scalar, mlir::Value code) const;
  /// The f32 number that a code stands for.
  mlir::Value dequantize(ScalarBuilder &scalar, mlir::Value code) const;
  /// The nearest code of an f32 number, saturated.
  mlir::Value quantize(ScalarBuilder &scalar, mlir::Value number) const;
};

/// The codes that inputs `scale` and `zero` describe, one number each. The zero
/// point may be left out.
mlir::FailureOr<LinearCode> getLinearCode(NodeContext &context,
                                          mlir::Type element, unsigned scale,
                                          unsigned zero);

//===----------------------------------------------------------------------===//
// Windows
//===----------------------------------------------------------------------===//

/// How a window moves along one spatial dimension.
struct Window {
  /// Size of the input and of the window.
  mlir::OpFoldResult size, kernel;
  int64_t stride = 1, dilation = 1;
  /// Padding as the node declares it, and with what the last window needs.
  mlir::OpFoldResult before, declaredAfter, after;
  /// Number of positions.
  mlir::OpFoldResult count;
};

/// Windows of a node with the attributes strides, dilations, pads, auto_pad and
/// ceil_mode, over spatial dimensions of `sizes`.
mlir::FailureOr<llvm::SmallVector<Window>>
getWindows(NodeContext &context, llvm::ArrayRef<mlir::OpFoldResult> sizes,
           llvm::ArrayRef<mlir::OpFoldResult> kernel);

/// Pads the spatial dimensions, from `firstSpatial` on, with a stored value.
mlir::Value padForWindows(NodeContext &context, mlir::Value tensor,
                          llvm::ArrayRef<Window> windows, int64_t firstSpatial,
                          mlir::Value value);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_ONNXTOLINALG_SPATIAL_H
