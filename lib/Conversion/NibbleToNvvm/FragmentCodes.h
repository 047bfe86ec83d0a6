//===- FragmentCodes.h - Packed codes as f16 numbers ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETONVVM_FRAGMENTCODES_H
#define NIBBLE_LIB_CONVERSION_NIBBLETONVVM_FRAGMENTCODES_H

#include "DeviceBuilder.h"

#include "nibble/Numerics/Storage.h"

namespace nibble {

/// The registers of A for a step of 16 inputs, 2 × f16 each: of the outputs g,
/// g + 8, g and g + 8. `words` are a lane's of that step, bits / 4 as
/// FragmentPacking.h has them. `biases`, one for g and one for g + 8, take the
/// zero point from an integer, and are not read for other codes.
Values unpackCodes(DeviceBuilder &device, const StorageFormat &storage,
                   mlir::ValueRange words, mlir::ValueRange biases);

/// The bias of g (i = 0) and of g + 8 (i = 1) for signed integers.
double getSignedBias(const StorageFormat &storage, int64_t i);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETONVVM_FRAGMENTCODES_H
