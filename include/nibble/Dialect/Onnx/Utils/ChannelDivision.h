//===- ChannelDivision.h - Divide a value by changing constants -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// An equivalent rescaling (SmoothQuant, AWQ) divides the channels of what
// products read. At run time that costs nothing where a constant before it can
// take the division: the gain of a normalisation, the columns of an earlier
// product, a factor. This file finds such constants by the meaning of the ops
// in between, without names.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_UTILS_CHANNELDIVISION_H
#define NIBBLE_DIALECT_ONNX_UTILS_CHANNELDIVISION_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"

namespace nibble::onnx {

/// A number for each channel of a tensor, wherever in its shape channels are:
/// extents are 1 where all elements share a channel, and dimensions are aligned
/// with the tensor's at the end.
struct ChannelMap {
  llvm::SmallVector<int64_t> shape;
  /// Row-major over `shape`: the channel.
  std::vector<uint32_t> channels;
};

/// A way to divide the channels (last dimension) of a value by positive
/// numbers.
class ChannelDivision {
public:
  /// Finds the constants; std::nullopt, and `why` in words, where there are
  /// none that nobody else reads. `value` itself may have any readers: all see
  /// the quotient.
  static std::optional<ChannelDivision> plan(mlir::Value value,
                                             std::string &why);

  /// [channels]: channels with one number here must be divided by one factor,
  /// since they come from one constant (heads that share their values).
  llvm::ArrayRef<uint32_t> getTies() const { return ties; }

  /// Divides channel i by factors[i] > 0, rounding each constant to f32 once.
  void apply(llvm::ArrayRef<double> factors) const;

private:
  friend class DivisionPlanner;

  /// A constant operand that is divided (or multiplied: a divisor).
  struct Edit {
    NodeOp node;
    unsigned operand;
    ChannelMap map;
    bool multiply;
  };
  std::vector<Edit> edits;
  std::vector<uint32_t> ties;
};

/// Multiplies the f32 constant that is operand `operand` of `node` by
/// `factors`, a tensor of `shape` that is broadcast with it as in ONNX. A
/// constant that nobody else reads keeps its name and its attributes; otherwise
/// `node` gets one of its own.
void multiplyConstant(NodeOp node, unsigned operand,
                      llvm::ArrayRef<int64_t> shape,
                      llvm::ArrayRef<double> factors);

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_UTILS_CHANNELDIVISION_H
