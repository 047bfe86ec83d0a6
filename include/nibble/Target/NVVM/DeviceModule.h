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

#include "nibble/Target/NVVM/NvidiaRow.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"

namespace nibble {

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
