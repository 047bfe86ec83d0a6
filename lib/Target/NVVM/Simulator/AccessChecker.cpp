//===- AccessChecker.cpp - Mistakes with memory ---------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "AccessChecker.h"

#include "Machine.h"

#include "llvm/Support/FormatVariadic.h"

#include <algorithm>

using namespace nibble;
using namespace nibble::simulator;

void AccessChecker::startBlock(unsigned threads, uint32_t dynamicSharedBytes) {
  variables = program.shared;
  for (SharedVariable &variable : variables)
    if (variable.bytes == 0)
      variable.bytes = dynamicSharedBytes;
  shadow.assign(program.staticSharedBytes + dynamicSharedBytes, SharedByte());
  records.assign(threads, ThreadRecord());
  for (auto [index, record] : llvm::enumerate(records)) {
    record.clock.assign(threads, 0);
    record.clock[index] = 1;
  }
}

//===----------------------------------------------------------------------===//
// Findings
//===----------------------------------------------------------------------===//

bool AccessChecker::report(llvm::StringRef what, DeviceThread &thread,
                           Site site) {
  machine.report(what, site, machine.describe(thread));
  return false;
}

bool AccessChecker::race(llvm::StringRef what, DeviceThread &thread, Site site,
                         llvm::StringRef deed, uint16_t other, Site otherSite) {
  machine.report(what, site,
                 llvm::formatv("{0}; {1} by thread {2} at {3}",
                               machine.describe(thread), deed, other,
                               machine.getText(otherSite))
                     .str());
  return false;
}

//===----------------------------------------------------------------------===//
// Accesses
//===----------------------------------------------------------------------===//

bool AccessChecker::isOrdered(const DeviceThread &thread, uint16_t other,
                              uint32_t clock) const {
  return other == thread.index || clock <= records[thread.index].clock[other];
}

void AccessChecker::access(DeviceThread &thread, uint64_t address,
                           uint32_t bytes, uint32_t alignment, AccessKind kind,
                           Site site) {
  bool isWrite = kind == AccessKind::Write || kind == AccessKind::AtomicWrite;
  if (address % alignment != 0)
    report(isWrite ? "misaligned write" : "misaligned read", thread, site);
  uint64_t offset = address - machine.sharedAddress();
  if (offset >= kMaxSharedBytes)
    return verifyGlobal(thread, address, bytes, isWrite, site);
  verifyShared(thread, offset, bytes, isWrite, site);
  for (SharedByte &byte :
       llvm::MutableArrayRef<SharedByte>(shadow).slice(offset, bytes)) {
    switch (kind) {
    case AccessKind::Read:
      if (!readByte(thread, byte, site))
        return;
      addReader(thread, byte, site);
      break;
    case AccessKind::Write:
      if (!writeByte(thread, byte, site))
        return;
      break;
    case AccessKind::AtomicRead:
      break;
    case AccessKind::AtomicWrite:
      byte.state = State::Written;
      break;
    }
  }
  if (kind == AccessKind::Write)
    records[thread.index].written.push_back({uint32_t(offset), bytes, site});
}

/// Accesses beyond a variable cannot go on: they would hit something else.
void AccessChecker::verifyShared(DeviceThread &thread, uint32_t offset,
                                 uint32_t bytes, bool isWrite, Site site) {
  for (const SharedVariable &variable : variables)
    if (offset >= variable.offset &&
        offset + bytes <= variable.offset + variable.bytes)
      return;
  std::string details = llvm::formatv("{0}; {1} bytes at offset {2}",
                                      machine.describe(thread), bytes, offset)
                            .str();
  machine.stop(isWrite ? "write out of bounds of shared memory"
                       : "read out of bounds of shared memory",
               site, std::move(details));
}

void AccessChecker::verifyGlobal(DeviceThread &thread, uint64_t address,
                                 uint32_t bytes, bool isWrite, Site site) {
  if (machine.findBuffer(address, bytes))
    return;
  std::string details =
      llvm::formatv("{0}; {1} bytes {2}", machine.describe(thread), bytes,
                    machine.describeAddress(address))
          .str();
  machine.stop(isWrite ? "write out of bounds of global memory"
                       : "read out of bounds of global memory",
               site, std::move(details));
}

bool AccessChecker::readByte(DeviceThread &thread, SharedByte &byte,
                             Site site) {
  if (byte.state == State::Copying)
    return race("read of shared memory that a copy is filling", thread, site,
                "copied", byte.writer, byte.site);
  if (byte.state == State::Unwritten)
    return report("read of shared memory that was never written", thread, site);
  if (!isOrdered(thread, byte.writer, byte.clock))
    return race("race: read of what another thread writes", thread, site,
                "written", byte.writer, byte.site);
  return true;
}

bool AccessChecker::writeByte(DeviceThread &thread, SharedByte &byte,
                              Site site) {
  if (byte.state == State::Copying)
    return race("write to shared memory that a copy is filling", thread, site,
                "copied", byte.writer, byte.site);
  if (byte.products != 0)
    return report("write to shared memory that wgmma is reading", thread, site);
  if (byte.state == State::Written &&
      !isOrdered(thread, byte.writer, byte.clock))
    return race("race: write over what another thread writes", thread, site,
                "written", byte.writer, byte.site);
  for (const Reader &reader : byte.readers)
    if (!isOrdered(thread, reader.thread, reader.clock))
      return race("race: write over what another thread reads", thread, site,
                  "read", reader.thread, reader.site);
  byte.readers.clear();
  byte.state = State::Written;
  byte.needsFence = true;
  byte.writer = thread.index;
  byte.clock = records[thread.index].clock[thread.index];
  byte.site = site;
  return true;
}

void AccessChecker::addReader(DeviceThread &thread, SharedByte &byte,
                              Site site) {
  uint32_t clock = records[thread.index].clock[thread.index];
  for (Reader &reader : byte.readers)
    if (reader.thread == thread.index) {
      reader.clock = clock;
      reader.site = site;
      return;
    }
  byte.readers.push_back({clock, site, uint16_t(thread.index)});
}

//===----------------------------------------------------------------------===//
// Copies and barriers
//===----------------------------------------------------------------------===//

void AccessChecker::startCopy(DeviceThread &thread, const AsyncCopy &copy) {
  if (copy.sourceBytes != 0)
    access(thread, copy.source, copy.sourceBytes, 1, AccessKind::Read,
           copy.site);
  access(thread, copy.target, copy.bytes, 1, AccessKind::Write, copy.site);
  uint32_t offset = copy.target - machine.sharedAddress();
  for (uint32_t i = 0; i < copy.bytes; ++i)
    shadow[offset + i].state = State::Copying;
}

void AccessChecker::finishCopy(DeviceThread &thread, const AsyncCopy &copy) {
  uint32_t offset = copy.target - machine.sharedAddress();
  for (uint32_t i = 0; i < copy.bytes; ++i) {
    SharedByte &byte = shadow[offset + i];
    byte.state = State::Written;
    byte.clock = records[thread.index].clock[thread.index];
    byte.needsFence = true;
  }
  records[thread.index].written.push_back({offset, copy.bytes, copy.site});
}

void AccessChecker::synchronize(llvm::ArrayRef<DeviceThread *> threads) {
  std::vector<uint32_t> joined = records[threads.front()->index].clock;
  for (const DeviceThread *thread : threads.drop_front())
    for (auto [mine, theirs] : llvm::zip(joined, records[thread->index].clock))
      mine = std::max(mine, theirs);
  for (const DeviceThread *thread : threads) {
    std::vector<uint32_t> &clock = records[thread->index].clock;
    clock = joined;
    ++clock[thread->index];
  }
}

//===----------------------------------------------------------------------===//
// Products of warpgroups
//===----------------------------------------------------------------------===//

void AccessChecker::fenceProxy(const DeviceThread &thread) {
  ThreadRecord &record = records[thread.index];
  for (const Range &range : record.written)
    for (uint32_t i = 0; i < range.bytes; ++i) {
      SharedByte &byte = shadow[range.offset + i];
      if (byte.writer == thread.index && byte.state == State::Written)
        byte.needsFence = false;
    }
  record.written.clear();
}

void AccessChecker::startProduct(DeviceThread &thread, uint64_t address,
                                 uint32_t bytes) {
  uint32_t offset = address - machine.sharedAddress();
  verifyShared(thread, offset, bytes, /*isWrite=*/false, thread.site);
  for (uint32_t i = 0; i < bytes; ++i) {
    SharedByte &byte = shadow[offset + i];
    bool isRight = readByte(thread, byte, thread.site);
    if (isRight && byte.needsFence)
      isRight = race("wgmma reads what was written before no fence.proxy.async",
                     thread, thread.site, "written", byte.writer, byte.site);
    ++byte.products;
  }
  records[thread.index].openProducts.push_back({offset, bytes, thread.site});
}

void AccessChecker::commitProducts(const DeviceThread &thread) {
  ThreadRecord &record = records[thread.index];
  record.productGroups.push_back(std::move(record.openProducts));
  record.openProducts.clear();
}

void AccessChecker::waitForProducts(const DeviceThread &thread,
                                    size_t pending) {
  auto &groups = records[thread.index].productGroups;
  while (groups.size() > pending) {
    endProducts(thread, groups.front());
    groups.pop_front();
  }
}

void AccessChecker::endProducts(const DeviceThread &thread,
                                std::vector<Range> &group) {
  uint32_t clock = records[thread.index].clock[thread.index];
  for (const Range &range : group)
    for (uint32_t i = 0; i < range.bytes; ++i) {
      SharedByte &byte = shadow[range.offset + i];
      --byte.products;
      llvm::erase_if(byte.readers, [&](const Reader &reader) {
        return reader.thread == thread.index;
      });
      byte.readers.push_back({clock, range.site, uint16_t(thread.index)});
    }
}

bool AccessChecker::hasProducts(const DeviceThread &thread) const {
  const ThreadRecord &record = records[thread.index];
  return !record.openProducts.empty() || !record.productGroups.empty();
}
