//===- AccessCounter.h - What accesses to memory cost -----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The n-th time that each lane of a warp executes an instruction is taken as
// one request of the warp.
//
//  - Shared memory has 32 banks, of which each gives one word of four bytes at
//    a time (CUDA C++ Programming Guide, "Shared Memory" of compute capability
//    5.x and newer). A request for 8 or 16 bytes a lane is served a half or a
//    quarter of the warp at a time.
//  - Global memory moves in sectors of 32 bytes (CUDA C++ Best Practices Guide,
//    "Coalesced Access to Global Memory").
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_ACCESSCOUNTER_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_ACCESSCOUNTER_H

#include "Program.h"

#include "nibble/Target/NVVM/Simulator.h"

#include "llvm/ADT/DenseMap.h"

#include <array>
#include <vector>

namespace nibble::simulator {

class AccessCounter {
public:
  explicit AccessCounter(const Program &program) : program(program) {}

  void startLaunch();
  void startBlock(unsigned threads);

  /// `address` of shared memory is an offset.
  void add(unsigned thread, uint64_t address, uint32_t bytes, bool isShared,
           Site site);

  /// Counts what not all lanes have executed.
  void endBlock();

  /// Those of all blocks since startLaunch.
  std::vector<AccessCost> getCosts() const;

private:
  static constexpr unsigned kLanes = 32;

  struct Request {
    std::array<uint64_t, kLanes> addresses;
    uint32_t lanes = 0, bytes = 0;
  };
  /// Site, warp and how often the lane was there before.
  using Key = std::pair<Site, uint64_t>;

  void count(const Request &request, AccessCost &cost);

  const Program &program;
  std::vector<AccessCost> costs;
  /// How often each thread was at each site.
  std::vector<std::vector<uint32_t>> visits;
  llvm::DenseMap<Key, Request> requests;
};

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_ACCESSCOUNTER_H
