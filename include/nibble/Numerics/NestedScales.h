//===- NestedScales.h - Scales quantized again ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_NESTEDSCALES_H
#define NIBBLE_NUMERICS_NESTEDSCALES_H

#include "nibble/Numerics/WeightQuantizer.h"

namespace nibble {

/// Quantizes `scales` by the range of each run, and replaces them by what they
/// are then; none becomes 0 or changes its sign where the run can say so.
NestedScales nestScales(std::vector<float> &scales, unsigned bits,
                        size_t runLength, FloatFormat format);

} // namespace nibble

#endif // NIBBLE_NUMERICS_NESTEDSCALES_H
