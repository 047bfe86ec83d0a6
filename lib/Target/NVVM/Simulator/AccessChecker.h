//===- AccessChecker.h - Mistakes with memory -------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Each byte of shared memory has a shadow: whether it was written, by whom and
// when, and who has read it since. "When" is a clock of the thread; a vector
// clock of each thread says up to which time it has seen the others, and
// barriers join them (Flanagan and Freund, "FastTrack: Efficient and Precise
// Dynamic Race Detection", PLDI 2009, sections 2 and 3). Two accesses of which
// neither has seen the other race, whatever the order in which they ran.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_TARGET_NVVM_SIMULATOR_ACCESSCHECKER_H
#define NIBBLE_LIB_TARGET_NVVM_SIMULATOR_ACCESSCHECKER_H

#include "Program.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"

#include <deque>
#include <vector>

namespace nibble::simulator {

class Machine;
struct AsyncCopy;
struct DeviceThread;

enum class AccessKind : uint8_t {
  Read,
  Write,
  /// Atomic or volatile: no part of a race.
  AtomicRead,
  AtomicWrite,
};

class AccessChecker {
public:
  AccessChecker(Machine &machine, const Program &program)
      : machine(machine), program(program) {}

  /// Forgets all; `sharedBytes` with the dynamic ones.
  void startBlock(unsigned threads, uint32_t dynamicSharedBytes);

  void access(DeviceThread &thread, uint64_t address, uint32_t bytes,
              uint32_t alignment, AccessKind kind, Site site);

  /// cp.async: at its start the bytes may no longer be touched, at its end
  /// `thread` has written them.
  void startCopy(DeviceThread &thread, const AsyncCopy &copy);
  void finishCopy(DeviceThread &thread, const AsyncCopy &copy);

  /// `threads` have met: each has seen what all did before.
  void synchronize(llvm::ArrayRef<DeviceThread *> threads);

  /// What `thread` wrote may be read by the async proxy (PTX ISA, "Proxies").
  void fenceProxy(const DeviceThread &thread);

  /// wgmma reads bytes until its group is waited for. `thread` stands for its
  /// warpgroup.
  void startProduct(DeviceThread &thread, uint64_t address, uint32_t bytes);
  void commitProducts(const DeviceThread &thread);
  void waitForProducts(const DeviceThread &thread, size_t pending);

  /// Whether `thread` started products that it did not wait for.
  bool hasProducts(const DeviceThread &thread) const;

private:
  enum class State : uint8_t { Unwritten, Written, Copying };

  struct Reader {
    uint32_t clock;
    Site site;
    uint16_t thread;
  };

  struct SharedByte {
    uint32_t clock = 0;
    Site site = 0;
    uint16_t writer = 0;
    /// Products under way that read it.
    uint16_t products = 0;
    State state = State::Unwritten;
    /// Written, and the writer has not fenced since.
    bool needsFence = false;
    std::vector<Reader> readers;
  };

  struct Range {
    uint32_t offset, bytes;
    Site site;
  };

  struct ThreadRecord {
    std::vector<uint32_t> clock;
    /// Written since the last fence.
    std::vector<Range> written;
    std::vector<Range> openProducts;
    std::deque<std::vector<Range>> productGroups;
  };

  bool isOrdered(const DeviceThread &thread, uint16_t other,
                 uint32_t clock) const;
  void verifyShared(DeviceThread &thread, uint32_t offset, uint32_t bytes,
                    bool isWrite, Site site);
  void verifyGlobal(DeviceThread &thread, uint64_t address, uint32_t bytes,
                    bool isWrite, Site site);
  /// Each returns false after a finding.
  bool readByte(DeviceThread &thread, SharedByte &byte, Site site);
  bool writeByte(DeviceThread &thread, SharedByte &byte, Site site);
  void addReader(DeviceThread &thread, SharedByte &byte, Site site);
  bool race(llvm::StringRef what, DeviceThread &thread, Site site,
            llvm::StringRef deed, uint16_t other, Site otherSite);
  bool report(llvm::StringRef what, DeviceThread &thread, Site site);
  void endProducts(const DeviceThread &thread, std::vector<Range> &group);

  Machine &machine;
  const Program &program;
  std::vector<SharedByte> shadow;
  std::vector<SharedVariable> variables;
  std::vector<ThreadRecord> records;
};

} // namespace nibble::simulator

#endif // NIBBLE_LIB_TARGET_NVVM_SIMULATOR_ACCESSCHECKER_H
