//===- OptimizeModule.h - LLVM's optimizations ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_OPTIMIZEMODULE_H
#define NIBBLE_TARGET_OPTIMIZEMODULE_H

#include "llvm/IR/Module.h"
#include "llvm/Passes/OptimizationLevel.h"
#include "llvm/Target/TargetMachine.h"

namespace nibble {

/// Runs LLVM's default pipeline of `level` on `module`, for `machine`.
void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine,
                    llvm::OptimizationLevel level);

/// Leaves long functions without loops as they are: what calls the loops of a
/// whole model one after the other is one long block, on which instructions are
/// selected and scheduled in quadratic time for nothing.
void hurryStraightCode(llvm::Module &module);

} // namespace nibble

#endif // NIBBLE_TARGET_OPTIMIZEMODULE_H
