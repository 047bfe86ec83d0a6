//===- Half.h - Numbers of 16 bits ------------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_HALF_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_HALF_H

#include <cstdint>

namespace nibble::simulator {

/// The number that an f16 or a bf16 stands for.
float decodeHalf(uint16_t bits);
float decodeBrainFloat(uint16_t bits);

/// a · b + c, rounded once to f16.
uint16_t fuseHalf(uint16_t a, uint16_t b, uint16_t c);

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_HALF_H
