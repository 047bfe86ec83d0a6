//===- SimulatedDevice.h - A GPU for compiled models, simulated -*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What the host's code of a model calls (PlaceBuffers.cpp, LaunchKernels.cpp),
// on the simulator. Kernels run as late as they may, when the host waits for
// them, so that a place where it forgot to shows.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_JIT_SIMULATEDDEVICE_H
#define NIBBLE_LIB_TARGET_JIT_SIMULATEDDEVICE_H

#include "nibble/Conversion/DeviceProgram.h"
#include "nibble/Target/NVVM/NvidiaRow.h"
#include "nibble/Target/NVVM/Simulator.h"

#include "llvm/ExecutionEngine/Orc/Core.h"
#include "llvm/ExecutionEngine/Orc/Mangling.h"

#include <map>
#include <mutex>

namespace nibble {

class SimulatedDevice {
public:
  static llvm::Expected<std::unique_ptr<SimulatedDevice>>
  create(DeviceProgram program, const NvidiaRow &row);

  /// Memory that kernels may read beside what is allocated.
  void addWeight(llvm::ArrayRef<char> bytes);

  /// Makes a device that of this thread for a run; others wait.
  class Scope {
  public:
    explicit Scope(SimulatedDevice *device);
    ~Scope();

  private:
    SimulatedDevice *device, *outer;
  };

  //===--- Called by the host's code -----------------------------------------

  /// What is wrong, or null.
  using Failure = const char *;

  void launch(uint64_t kernel, uint64_t blocks, uint64_t threads,
              llvm::ArrayRef<uint64_t> arguments);
  void multiply(size_t format, int32_t M, int32_t N, int32_t K, uint64_t x,
                int32_t xStride, uint64_t weight, uint64_t y, int32_t yStride);
  /// Runs what was launched.
  Failure synchronize();
  void *allocate(uint64_t bytes);
  /// False for memory that is not the device's.
  bool free(void *memory);

  /// The functions that code finds under their names.
  static llvm::orc::SymbolMap
  getSymbols(llvm::orc::MangleAndInterner &interner);

private:
  SimulatedDevice() = default;
  Failure run(KernelLaunch &launch);

  std::unique_ptr<SimulatedProgram> program;
  std::vector<std::string> kernels;
  std::vector<ProductFormat> products;
  std::vector<KernelLaunch> pending;
  /// By their first byte, with those that were freed after a launch.
  std::map<uint64_t, std::vector<uint8_t>> buffers;
  std::vector<uint64_t> freed;
  std::map<uint64_t, llvm::MutableArrayRef<uint8_t>> memory;
  std::string failure;
  std::mutex inUse;
};

} // namespace nibble

#endif // NIBBLE_LIB_TARGET_JIT_SIMULATEDDEVICE_H
