//===- StaticCodes.h - Tensors quantized with constant scales ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_STATICCODES_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_STATICCODES_H

#include "mlir/IR/Builders.h"

#include <optional>
#include <vector>

namespace nibble {

/// A tensor of 8-bit codes with one constant scale and zero point:
/// scale · (code − zero), as calibration chose them.
struct StaticCodes {
  mlir::Value quantized;
  float scale;
  int64_t zero;
  bool isSigned;
};

std::optional<StaticCodes> matchStaticCodes(mlir::Value quantized);

/// The codes as a tensor of i8 that holds signed bytes, or unsigned ones: where
/// the storage is the other, all codes and `zero` move by 128.
mlir::Value buildCodes(mlir::OpBuilder &builder, mlir::Location loc,
                       StaticCodes &codes, bool asSigned);

/// Constant signed codes of 8 bits without a zero point (or with zero points of
/// 0), and their scales: one, or one for each slice along `axis`.
struct SignedWeight {
  /// A constant of i8.
  mlir::Value codes;
  std::vector<int8_t> values;
  /// One for each slice.
  std::vector<float> scales;
};

std::optional<SignedWeight> matchSignedWeight(mlir::Value quantized,
                                              int64_t axis);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_STATICCODES_H
