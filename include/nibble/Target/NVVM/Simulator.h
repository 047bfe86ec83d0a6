//===- Simulator.h - GPU kernels on a CPU -----------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Runs the LLVM module that PTX is made of on this machine, an x86-64: blocks
// one after the other, each thread a fiber. docs/Simulator.md has the rules
// and what it cannot see.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_NVVM_SIMULATOR_H
#define NIBBLE_TARGET_NVVM_SIMULATOR_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace nibble {

/// The sizes of a grid or of a block.
struct LaunchExtent {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t(x) * y * z; }
};

/// Memory of the device that a kernel may touch.
struct DeviceBuffer {
  /// For findings.
  std::string name;
  llvm::MutableArrayRef<uint8_t> bytes;
};

/// In which order things happen that may happen in several.
struct Schedule {
  /// 0: threads and blocks run in order, each as far as it can go; else in an
  /// order drawn with this seed.
  uint32_t seed = 0;
  /// When cp.async moves its data: as late as it may, or at once.
  bool lateCopies = true;
};

struct KernelLaunch {
  std::string kernel;
  LaunchExtent grid, block;
  /// Dynamic shared memory of a block.
  uint32_t sharedBytes = 0;
  /// Of each argument its bits, or the address of its first byte.
  std::vector<uint64_t> arguments;
  std::vector<DeviceBuffer> buffers;
  Schedule schedule;
  /// Rounds of loops that the threads of a block may run, together.
  uint64_t stepLimit = uint64_t(1) << 32;
};

/// A mistake of a kernel.
struct Finding {
  /// "race: read of what another thread writes".
  std::string what;
  /// "@kernel: %5 = load i32, ptr addrspace(3) %4, align 4"; empty where it is
  /// no one's.
  std::string instruction;
  /// Who met it first: "thread 3 of block 0, 0, 0; written by …".
  std::string details;
  /// How often it was met.
  uint64_t count = 0;
};

/// What an instruction asked of memory. A request is that of a warp.
struct AccessCost {
  std::string instruction;
  bool isShared = false;
  uint64_t requests = 0;
  /// Bytes that were read or written, each counted once a request.
  uint64_t bytes = 0;
  /// Rounds in which shared memory served the requests, or sectors of 32 bytes
  /// of global memory; and how few there could have been.
  uint64_t rounds = 0, leastRounds = 0;
};

struct SimulationReport {
  std::vector<Finding> findings;
  /// Of each instruction that touched memory, in checked programs.
  std::vector<AccessCost> costs;

  bool isClean() const { return findings.empty(); }
};

/// A loaded module. One launch at a time.
class SimulatedProgram {
public:
  /// Compiles `module` for this machine. With `checks`, every access to memory
  /// is checked, at two to ten times the cost. An error names each operation
  /// that the simulator does not know.
  static llvm::Expected<std::unique_ptr<SimulatedProgram>>
  load(std::unique_ptr<llvm::Module> module,
       std::unique_ptr<llvm::LLVMContext> context, bool checks);
  ~SimulatedProgram();

  /// Runs a kernel to its end, or to the finding that it cannot go on from.
  /// An error is a launch that cannot be made.
  llvm::Expected<SimulationReport> launch(const KernelLaunch &launch);

  /// The operations that the module has, out of getSimulatedOperations().
  llvm::ArrayRef<std::string> getOperations() const;

private:
  SimulatedProgram();
  struct Implementation;
  std::unique_ptr<Implementation> implementation;
};

/// What the simulator knows beside plain LLVM IR: the names of intrinsics and
/// the texts of inline assembly.
std::vector<std::string> getSimulatedOperations();

} // namespace nibble

#endif // NIBBLE_TARGET_NVVM_SIMULATOR_H
