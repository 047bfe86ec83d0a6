//===- Affine.h - Products and sums with constants --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_UTILS_AFFINE_H
#define NIBBLE_DIALECT_ONNX_UTILS_AFFINE_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"

#include <algorithm>
#include <vector>

namespace nibble::onnx {

/// One number, or one for each channel (dimension 1 of the data).
using Factors = std::vector<double>;

inline double getFactor(const Factors &factors, size_t channel) {
  return factors[factors.size() == 1 ? 0 : channel];
}

template <typename Function>
Factors combine(const Factors &a, const Factors &b, Function function) {
  Factors result(std::max(a.size(), b.size()));
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = function(getFactor(a, i), getFactor(b, i));
  return result;
}

/// result = scale · data + shift.
struct Affine {
  mlir::Value data;
  Factors scale{1}, shift{0};

  bool isScale() const { return shift == Factors{0}; }
  bool isShift() const { return scale == Factors{1}; }
};

/// The type of an f32 tensor of known rank, or null.
mlir::RankedTensorType getFloatTensor(mlir::Value value);

/// The numbers of an f32 constant.
std::optional<Factors> readFactors(mlir::Value constant);

/// Reads `node` (BatchNormalization, Mul, Div, Add, Sub) as an affine function
/// of one input, the others being constant.
std::optional<Affine> readAffine(NodeOp node);

/// A constant of `factors` for data of type `data`.
mlir::Value makeFactors(mlir::OpBuilder &builder, llvm::StringRef name,
                        mlir::RankedTensorType data, const Factors &factors);

/// The node that gives `value` as its only result, which has one reader.
NodeOp getOnlyProducer(mlir::Value value);

/// The constants of a Conv or ConvTranspose, which nobody else reads.
class Filter {
public:
  static std::optional<Filter> read(NodeOp node);

  size_t getOutputs() const { return isTransposed ? shape[1] : shape[0]; }
  size_t getInputs() const {
    return isTransposed ? shape[0] : shape[1] * groups;
  }
  /// Calls back with the output channel, the input channel and the weight.
  template <typename Function> void forEach(Function function) {
    size_t inner = weights.size() / (shape[0] * shape[1]);
    size_t perGroup = shape[0] / groups;
    for (size_t i = 0; i < weights.size(); ++i) {
      size_t first = i / inner / shape[1], second = i / inner % shape[1];
      if (isTransposed)
        function(second, first, weights[i]);
      else
        function(first, first / perGroup * shape[1] + second, weights[i]);
    }
  }
  /// Gives the node new constants, named after its old filter and its result.
  void write();

  NodeOp node;
  bool isTransposed = false;
  size_t groups = 1;
  llvm::SmallVector<int64_t> shape;
  std::vector<double> weights, bias;
};

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_UTILS_AFFINE_H
