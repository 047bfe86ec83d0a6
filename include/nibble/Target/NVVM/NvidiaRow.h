//===- NvidiaRow.h - The NVIDIA GPUs that code is emitted for ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_NVVM_NVIDIAROW_H
#define NIBBLE_TARGET_NVVM_NVIDIAROW_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <string>

namespace nibble {

/// A kind of NVIDIA GPU; NvidiaRows.inl has them all.
struct NvidiaRow {
  /// "nvidia-sm80", and "sm_80" as LLVM and ptxas call it.
  llvm::StringRef name, chip;
  /// The version of PTX: "+ptx70".
  llvm::StringRef features;
  /// Shared memory that a block may have, in bytes.
  int64_t sharedBytes;
  /// Whether a kernel may start while the one before ends.
  bool canOverlap;
  /// Whether there is wgmma.
  bool hasWarpgroups;
};

llvm::ArrayRef<NvidiaRow> getNvidiaRows();

/// The row called `name`; null where there is none.
const NvidiaRow *findNvidiaRow(llvm::StringRef name);

/// The names that findNvidiaRow takes: "nvidia-sm80, …".
std::string listNvidiaRows();

} // namespace nibble

#endif // NIBBLE_TARGET_NVVM_NVIDIAROW_H
