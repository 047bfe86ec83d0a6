//===- DeviceModule.h - GPU kernels as LLVM IR and as PTX -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// One function makes the LLVM module of the kernels. What runs it on a CPU and
// what makes PTX of it take the same module.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_NVVM_DEVICEMODULE_H
#define NIBBLE_TARGET_NVVM_DEVICEMODULE_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"

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

/// What the LLVM IR of a module needs of an MLIR context.
void registerDeviceDialects(mlir::DialectRegistry &registry);

/// Optimised LLVM IR of `module`, which holds kernels in {llvm, nvvm, arith,
/// math, scf} and is lowered in place.
llvm::Expected<std::unique_ptr<llvm::Module>>
makeDeviceModule(mlir::ModuleOp module, const NvidiaRow &row,
                 llvm::LLVMContext &context);

/// The module as PTX. It is used up.
llvm::Expected<std::string> emitPtx(std::unique_ptr<llvm::Module> module,
                                    const NvidiaRow &row);

} // namespace nibble

#endif // NIBBLE_TARGET_NVVM_DEVICEMODULE_H
