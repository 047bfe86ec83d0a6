//===- Program.h - What the runtime knows of a module -----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_PROGRAM_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_PROGRAM_H

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace nibble::simulator {

/// Shared memory of a block: the most that a chip has, and as aligned as the
/// descriptors of wgmma can say.
constexpr uint32_t kMaxSharedBytes = 256 << 10;

/// A variable in shared memory.
struct SharedVariable {
  std::string name;
  uint32_t offset = 0;
  /// 0: what a launch gives dynamically.
  uint32_t bytes = 0;
};

/// A kernel as compiled code: takes its arguments in words of eight bytes.
using KernelEntry = void (*)(const uint64_t *arguments);

struct ProgramKernel {
  KernelEntry entry = nullptr;
  unsigned arguments = 0;
};

/// An instruction that may wait or fail, by its number.
using Site = uint32_t;

struct Program {
  bool checks = false;
  std::map<std::string, ProgramKernel> kernels;
  /// The text of each site.
  std::vector<std::string> sites;
  std::vector<SharedVariable> shared;
  /// Where dynamic shared memory starts.
  uint32_t staticSharedBytes = 0;
  /// Names of the operations that the module has.
  std::set<std::string> operations;
};

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_PROGRAM_H
