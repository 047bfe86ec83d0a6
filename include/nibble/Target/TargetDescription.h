//===- TargetDescription.h - What code is emitted for -----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_TARGETDESCRIPTION_H
#define NIBBLE_TARGET_TARGETDESCRIPTION_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <string>

namespace nibble {

/// The instruction that multiplies and adds up neighbouring 8-bit integers.
enum class DotStep {
  /// There is none: widen, multiply, add.
  None,
  /// AVX2 vpmaddubsw: pairs of u8 × s8 into saturating 16 bits.
  PairsOf16Bits,
  /// AVX-VNNI vpdpbusd: fours of u8 × s8 into 32 bits, 256-bit registers.
  AvxVnni,
  /// AVX-512 VNNI vpdpbusd, 512-bit registers.
  Avx512Vnni,
  /// AArch64 sdot and udot: fours of one signedness into 32 bits.
  ArmDot,
  /// AArch64 smmla: a 2 × 8 by an 8 × 2 matrix into 2 × 2 of 32 bits.
  ArmMatrix
};

/// An instruction set that code is emitted for; TargetRows.inl has them all.
struct TargetRow {
  llvm::StringRef name;
  /// As LLVM takes them. `features` names every feature beyond the baseline of
  /// the architecture that the code may use: "+avx2,+fma,…".
  llvm::StringRef triple, cpu, features;
  /// Width of a vector register in bits.
  unsigned vectorBits;
  DotStep dotStep;
  unsigned numVectorRegisters;
};

/// All rows; of one architecture, the one that can do more comes later.
llvm::ArrayRef<TargetRow> getTargetRows();

/// The row called `name`; "native" is the best one that this machine can run,
/// "generic" the baseline of this machine's architecture. Null where there is
/// none of that name.
const TargetRow *findTarget(llvm::StringRef name);

/// The names that findTarget takes: "native, generic, x86-64, …".
std::string listTargetNames();

/// True where this machine has every feature of the row.
bool canRunHere(const TargetRow &row);

/// True where code for `row` runs on a machine that has the features of
/// `machine` and no others.
bool canRunOn(const TargetRow &row, const TargetRow &machine);

} // namespace nibble

#endif // NIBBLE_TARGET_TARGETDESCRIPTION_H
