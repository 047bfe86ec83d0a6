//===- Machine.h - What this machine can do at best -------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_MACHINE_H
#define NIBBLE_LIB_DRIVER_MACHINE_H

namespace nibble {

/// Bytes a second that `threads` threads read from memory, measured now over
/// buffers larger than any cache; the best of a few tries.
double measureReadBandwidth(unsigned threads);

/// Multiplications and additions a second that `threads` threads do on f32 in
/// vector registers, measured now; the best of a few tries.
double measureMultiplyAdd(unsigned threads);

/// Multiplications and additions a second that `threads` threads do on bytes
/// with the best instruction for products of bytes (vpdpbusd, vpmaddubsw),
/// measured now; 0 where no such instruction is known.
double measureByteProducts(unsigned threads);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_MACHINE_H
