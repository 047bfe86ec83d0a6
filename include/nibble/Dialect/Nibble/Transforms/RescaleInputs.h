//===- RescaleInputs.h - x W = (x / s) (s W) --------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What SmoothQuant and AWQ share: they find the values that products with
// constant weights read, choose a factor for each channel, divide the value by
// it and multiply the weights. All products that read a value take part, so
// that constants before it can take the division (ChannelDivision.h); where
// there are none, a Mul is inserted if that pays.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_RESCALEINPUTS_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_RESCALEINPUTS_H

#include "nibble/Dialect/Nibble/Transforms/ActivationRanges.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/BlockQuantizer.h"

namespace nibble {

/// How much less noise pays for an op.
inline constexpr double kWorthwhile = 2;

/// A constant matrix that a value is multiplied with.
struct InputWeight {
  onnx::NodeOp product;
  /// Who reads the constant, as which operand: the product, or a Transpose.
  onnx::NodeOp holder;
  unsigned operand = 1;
  /// The dimension of the constant that products are summed over.
  unsigned axis = 0;

  onnx::ConstantOp getConstant() {
    return holder.getInputs()[operand].getDefiningOp<onnx::ConstantOp>();
  }
};

/// The numbers of the constant as [inputs, outputs].
MatrixView viewMatrix(InputWeight &weight, const std::vector<float> &numbers);

/// A value and the products that read it.
struct InputGroup {
  mlir::Value value;
  std::vector<InputWeight> weights;
};

/// All values that products with constant weights read, in their order. A
/// weight of f32 counts that nobody else reads.
std::vector<InputGroup> collectInputGroups(mlir::ModuleOp module);

/// Notes something on a constant (nibble.notes), or on all weights of a group.
void addNote(onnx::ConstantOp constant, llvm::StringRef note);
void addNote(InputGroup &group, llvm::StringRef note);

/// What calibration knows of the channels of an input.
struct ChannelStatistics {
  const ActivationRange &range;
  /// Channels with one number here get one factor (ChannelDivision.h).
  llvm::ArrayRef<uint32_t> ties;

  /// The largest |x|, the mean |x| and the mean x² of each channel; of the
  /// first two the largest and the mean over channels that are tied.
  std::vector<float> getMaxima() const;
  std::vector<float> getMagnitudes() const;
  std::vector<float> getSquares() const;
};

/// What a method wants.
struct FactorChoice {
  /// [channels], > 0 and the same where channels are tied.
  std::vector<float> factors;
  /// The power of the noise of rounding without them and with them.
  double noiseBefore = 0, noiseAfter = 0;
  /// What is noted on the weights.
  std::string note;
};

/// By the ONNX name of the value.
using FactorRecord = llvm::StringMap<FactorChoice>;

/// std::nullopt: the weights of this group are none of the method's business.
/// Errors have been reported.
using ChooseFactors =
    llvm::function_ref<mlir::FailureOr<std::optional<FactorChoice>>(
        InputGroup &group, const ChannelStatistics &statistics)>;

struct RescaleCounts {
  /// Inputs whose division went into constants, for which a Mul was inserted,
  /// and that stayed as they are.
  unsigned folded = 0, inserted = 0, left = 0;
};

/// Rescales each input of products where that makes less noise, and `ranges`
/// with it. What became of it, or why nothing did, is noted on the weights
/// (nibble.notes).
mlir::FailureOr<RescaleCounts> rescaleInputs(mlir::ModuleOp module,
                                             ActivationRanges &ranges,
                                             ChooseFactors choose);

/// What --nibble-smooth does.
mlir::FailureOr<RescaleCounts> smoothInputs(mlir::ModuleOp module,
                                            ActivationRanges &ranges,
                                            double strength = 0.5);

struct AwqOptions {
  /// 0: one for each core.
  unsigned threads = 0;
  /// Inputs of weights with fewer bits are left alone.
  unsigned leastBits = 0;
};

/// What --nibble-awq does. What `record` has is not searched for again; what is
/// found goes there.
mlir::FailureOr<RescaleCounts> applyAwq(mlir::ModuleOp module,
                                        ActivationRanges &ranges,
                                        const AwqOptions &options,
                                        FactorRecord &record);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_RESCALEINPUTS_H
