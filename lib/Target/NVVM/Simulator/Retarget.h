//===- Retarget.h - Kernels as code of this machine -------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_RETARGET_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_RETARGET_H

#include "Machine.h"

#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"

namespace nibble::simulator {

/// Makes code for this machine of `module`, code for NVPTX:
///
///   %x = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
///   %y = call i32 @llvm.nvvm.prmt(i32 %a, i32 %b, i32 %s)
///   %z = load i32, ptr addrspace(3) @shared
/// ⇒
///   %x = load i32, ptr <the running thread's registers>
///   store %a, %b, %s to arguments
///   call <operate>(machine, prmt, site, arguments, results)
///   %y = load i32, ptr results
///   call <access>(machine, address, 4, 4, read, site)   ; in checked programs
///   %z = load i32, ptr addrspace(3) <address>
///
/// Each kernel gets an entry "nibble.entry.NAME" that takes its arguments in
/// words. `program` gets sites, shared variables, operations and the kernels'
/// names. An error lists the operations that are not known.
llvm::Error retarget(llvm::Module &module, const llvm::Triple &triple,
                     const llvm::DataLayout &layout, Machine &machine,
                     Program &program);

/// The name of a kernel's entry.
std::string getEntryName(llvm::StringRef kernel);

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_RETARGET_H
