//===- Dequantize.h - The numbers of a quantized constant -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_DEQUANTIZE_H
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_DEQUANTIZE_H

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include <optional>
#include <vector>

namespace nibble {

/// The elements of `op`, row-major, as f32: (code value - zero point) * scale
/// (Spec S3, S7). std::nullopt where a part is no constant, or the encoding has
/// nested zero points, outliers or a layout.
std::optional<std::vector<float>> dequantizeConstant(AssembleOp op);

} // namespace nibble

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_DEQUANTIZE_H
