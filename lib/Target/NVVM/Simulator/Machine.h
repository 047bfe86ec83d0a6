//===- Machine.h - A block of threads, running ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// One block runs at a time, its threads as fibers of which one runs at a time.
// A thread runs until it has to wait: for the lanes of its warp, at a barrier.
// The last to arrive does the work of all and wakes them.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_MACHINE_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_MACHINE_H

#include "AccessChecker.h"
#include "AccessCounter.h"
#include "Fiber.h"
#include "Operations.h"
#include "Program.h"

#include "nibble/Target/NVVM/Simulator.h"

#include <array>
#include <deque>
#include <map>
#include <optional>
#include <random>

namespace nibble::simulator {

/// Addresses of the simulated device are those of this process.
inline void *toPointer(uint64_t address) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr)
  return reinterpret_cast<void *>(address);
}

/// Special registers, in the order of DeviceThread::registers.
enum SpecialRegister : uint8_t {
  ThreadIndex,
  BlockSize = 3,
  BlockIndex = 6,
  GridSize = 9,
  LaneIndex = 12,
  NumSpecialRegisters
};

constexpr unsigned kWarp = 32;

/// A copy by cp.async.
struct AsyncCopy {
  uint64_t target = 0, source = 0;
  /// Bytes to write, and how many of them are read; the others become 0.
  uint32_t bytes = 0, sourceBytes = 0;
  Site site = 0;
};

enum class ThreadState : uint8_t { Ready, AtOperation, AtBarrier, Done };

struct DeviceThread {
  /// Read by compiled code; the first member.
  std::array<uint32_t, NumSpecialRegisters> registers = {};
  unsigned index = 0;
  Fiber fiber;
  ThreadState state = ThreadState::Ready;
  /// The operation that it is at.
  const Operation *operation = nullptr;
  Site site = 0;
  uint64_t *arguments = nullptr, *results = nullptr;
  uint32_t mask = 0;
  unsigned barrier = 0;
  /// Copies since the last commit, and the groups before it.
  std::vector<AsyncCopy> openCopies;
  std::deque<std::vector<AsyncCopy>> copyGroups;
};

class Machine {
public:
  explicit Machine(const Program &program);
  Machine(const Machine &) = delete;
  Machine &operator=(const Machine &) = delete;
  ~Machine();

  /// False where there was no memory for shared memory.
  bool hasSharedMemory() const { return arena; }
  /// Shared memory: at an address of which the low 18 bits are 0.
  uint64_t sharedAddress() const { return reinterpret_cast<uint64_t>(arena); }

  /// Makes room for the threads of a block; false where there is no memory.
  bool reserveThreads(unsigned count) { return stacks.reserve(count); }

  /// Runs all blocks of a launch that has been verified.
  SimulationReport run(const KernelLaunch &launch);

  /// The thread that runs; read by compiled code.
  DeviceThread *current = nullptr;

  //===--- Called by compiled code -------------------------------------------

  void operate(const Operation &operation, Site site, uint64_t *arguments,
               uint64_t *results);
  void access(uint64_t address, uint32_t bytes, uint32_t alignment,
              AccessKind kind, Site site);
  /// A round of a loop.
  void step(Site site);

  //===--- Called by operations ----------------------------------------------

  /// Waits at barrier `identifier` for `threads` threads; 0: for all that have
  /// not ended.
  void waitAtBarrier(unsigned identifier, unsigned threads);
  void startCopy(const AsyncCopy &copy);
  void commitCopies();
  /// Waits until at most `pending` groups of copies are under way.
  void waitForCopies(unsigned pending);
  void waitForAllCopies();
  /// An access by an operation on behalf of `thread`.
  void accessShared(DeviceThread &thread, uint64_t address, uint32_t bytes,
                    uint32_t alignment, AccessKind kind);
  /// Null in plain programs.
  AccessChecker *getChecker() { return checker ? &*checker : nullptr; }

  /// The buffer that holds the bytes; null where there is none.
  const DeviceBuffer *findBuffer(uint64_t address, uint64_t bytes) const;
  std::string describeAddress(uint64_t address) const;

  /// Notes a mistake and goes on.
  void report(llvm::StringRef what, Site site, const std::string &details);
  void report(llvm::StringRef what, const DeviceThread &thread);
  /// Notes a mistake and ends the launch.
  [[noreturn]] void stop(llvm::StringRef what, Site site, std::string details);
  [[noreturn]] void stop(llvm::StringRef what, const DeviceThread &thread);

  /// "thread 3 of block 1, 0, 0".
  std::string describe(const DeviceThread &thread) const;
  llvm::StringRef getText(Site site) const { return program.sites[site]; }

private:
  struct Barrier {
    unsigned expected = 0;
    std::vector<DeviceThread *> arrived;
  };

  void runBlock(const std::array<uint32_t, 3> &index);
  [[noreturn]] static void runThread(void *machine);
  void makeReady(DeviceThread &thread);
  DeviceThread &takeReady();
  /// Makes another thread the running one, or nobody; returns where to go on.
  Fiber &takeNext();
  /// Goes on with another thread, until this one is ready and its turn.
  void yield();
  void release(Barrier &barrier);
  void verifyAligned(const Barrier &barrier);
  void count(const DeviceThread &thread, uint64_t address, uint32_t bytes,
             Site site);
  void finishCopies(std::vector<AsyncCopy> &copies);
  [[noreturn]] void endThread();
  void reportWaiting();

  const Program &program;
  FiberStacks stacks;
  uint8_t *arenaMapping = nullptr, *arena = nullptr;
  // Of checked programs.
  std::optional<AccessChecker> checker;
  std::optional<AccessCounter> counter;

  // Of a launch.
  const KernelLaunch *launch = nullptr;
  KernelEntry entry = nullptr;
  SimulationReport result;
  bool isStopped = false;
  std::mt19937 random;

  // Of a block.
  std::array<uint32_t, 3> block = {};
  Fiber home;
  std::vector<DeviceThread> threads;
  std::deque<DeviceThread *> ready;
  std::map<unsigned, Barrier> barriers;
  unsigned running = 0;
  uint64_t steps = 0;
};

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_MACHINE_H
