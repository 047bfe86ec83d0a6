//===- Operations.cpp - What NVVM operations do ---------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Names in comments are those of instructions in NVIDIA's PTX ISA.
//
//===----------------------------------------------------------------------===//

#include "Operations.h"

#include "Half.h"
#include "Machine.h"

#include <algorithm>

using namespace nibble;
using namespace nibble::simulator;

//===----------------------------------------------------------------------===//
// Barriers and copies
//===----------------------------------------------------------------------===//

/// barrier.sync.aligned of all threads, and of some.
static void waitForAll(const Lanes &lanes) {
  lanes.machine.waitAtBarrier(lanes.argument<uint32_t>(0), 0);
}
static void waitForSome(const Lanes &lanes) {
  lanes.machine.waitAtBarrier(lanes.argument<uint32_t>(0),
                              lanes.argument<uint32_t>(1));
}

/// bar.warp.sync: orders memory too.
static void syncWarp(const Lanes &lanes) {
  AccessChecker *checker = lanes.machine.getChecker();
  if (!checker)
    return;
  std::vector<DeviceThread *> threads;
  for (unsigned lane = 0; lane < lanes.width; ++lane)
    if (lanes.has(lane))
      threads.push_back(&lanes.thread(lane));
  checker->synchronize(threads);
}

/// cp.async: shared address, global address, and how many bytes are read.
static void copyAsync(const Lanes &lanes, uint32_t bytes, uint32_t read) {
  lanes.machine.startCopy({lanes.argument<uint64_t>(0),
                           lanes.argument<uint64_t>(1), bytes, read,
                           lanes.first->site});
}
static void copy16(const Lanes &lanes) { copyAsync(lanes, 16, 16); }
static void copy16Partly(const Lanes &lanes) {
  copyAsync(lanes, 16, lanes.argument<uint32_t>(2));
}
static void commitCopies(const Lanes &lanes) { lanes.machine.commitCopies(); }
static void waitForCopies(const Lanes &lanes) {
  lanes.machine.waitForCopies(lanes.argument<uint32_t>(0));
}
static void waitForAllCopies(const Lanes &lanes) {
  lanes.machine.waitForAllCopies();
}

/// Fences between blocks and kernels: one block runs at a time, and all of it.
static void doNothing(const Lanes &) {}

static void fenceProxy(const Lanes &lanes) {
  if (AccessChecker *checker = lanes.machine.getChecker())
    checker->fenceProxy(*lanes.first);
}

//===----------------------------------------------------------------------===//
// Registers
//===----------------------------------------------------------------------===//

/// shfl.sync: which lane a lane reads, and whether it is in range; mask, value,
/// b and c are the arguments. PTX ISA, "shfl.sync", has the same in its words.
template <typename Source>
static void shuffle(const Lanes &lanes, Source from) {
  std::array<uint32_t, kWarp> values = {};
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (lanes.has(lane))
      values[lane] = lanes.argument<uint32_t>(lane, 1);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!lanes.has(lane))
      continue;
    unsigned b = lanes.argument<uint32_t>(lane, 2) % kWarp;
    unsigned c = lanes.argument<uint32_t>(lane, 3);
    unsigned clamp = c % kWarp, segment = c >> 8 & 31;
    int last = (lane & segment) | (clamp & ~segment);
    int first = lane & segment;
    auto [source, isInRange] = from(int(lane), int(b), first, last, segment);
    unsigned read = isInRange ? source : lane;
    if (!lanes.has(read))
      lanes.machine.report("shfl.sync reads a lane that takes no part",
                           lanes.thread(lane));
    lanes.setResult(lane, 0, values[read]);
  }
}

using LaneSource = std::pair<int, bool>;
static void shuffleUp(const Lanes &lanes) {
  shuffle(lanes, [](int lane, int b, int, int last, unsigned) {
    return LaneSource(lane - b, lane - b >= last);
  });
}
static void shuffleDown(const Lanes &lanes) {
  shuffle(lanes, [](int lane, int b, int, int last, unsigned) {
    return LaneSource(lane + b, lane + b <= last);
  });
}
static void shuffleButterfly(const Lanes &lanes) {
  shuffle(lanes, [](int lane, int b, int, int last, unsigned) {
    return LaneSource(lane ^ b, (lane ^ b) <= last);
  });
}
static void shuffleIndex(const Lanes &lanes) {
  shuffle(lanes, [](int, int b, int first, int last, unsigned segment) {
    int source = first | (b & int(~segment & 31));
    return LaneSource(source, source <= last);
  });
}

/// prmt: each nibble of the selector picks a byte of b:a, or its sign.
static void permuteBytes(const Lanes &lanes) {
  uint64_t bytes =
      uint64_t(lanes.argument<uint32_t>(1)) << 32 | lanes.argument<uint32_t>(0);
  uint32_t selector = lanes.argument<uint32_t>(2), result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    unsigned pick = selector >> (4 * i) & 15;
    uint8_t byte = bytes >> (8 * (pick & 7));
    if (pick & 8)
      byte = byte & 0x80 ? 0xff : 0;
    result |= uint32_t(byte) << (8 * i);
  }
  lanes.setResult(0, 0, result);
}

/// fma.rn.f16, which rounds once; not every CPU has it.
template <unsigned count> static void fuseHalves(const Lanes &lanes) {
  using Halves = std::array<uint16_t, count>;
  auto a = lanes.argument<Halves>(0), b = lanes.argument<Halves>(1),
       c = lanes.argument<Halves>(2);
  Halves result;
  for (unsigned i = 0; i < count; ++i)
    result[i] = fuseHalf(a[i], b[i], c[i]);
  lanes.setResult(0, 0, result);
}

//===----------------------------------------------------------------------===//
// The table
//===----------------------------------------------------------------------===//

static std::vector<Operation> makeTable() {
  constexpr int all = -1;
  std::vector<Operation> table = {
      {"llvm.nvvm.barrier.cta.sync.aligned.all", 1, all, waitForAll},
      {"llvm.nvvm.barrier.cta.sync.aligned.count", 1, all, waitForSome},
      {"llvm.nvvm.bar.warp.sync", kWarp, 0, syncWarp},
      {"llvm.nvvm.cp.async.cg.shared.global.16", 1, all, copy16},
      {"llvm.nvvm.cp.async.cg.shared.global.16.s", 1, all, copy16Partly},
      {"llvm.nvvm.cp.async.commit.group", 1, all, commitCopies},
      {"llvm.nvvm.cp.async.wait.group", 1, all, waitForCopies},
      {"llvm.nvvm.cp.async.wait.all", 1, all, waitForAllCopies},
      {"llvm.nvvm.membar.gl", 1, all, doNothing},
      {"llvm.nvvm.griddepcontrol.launch.dependents", 1, all, doNothing},
      {"llvm.nvvm.griddepcontrol.wait", 1, all, doNothing},
      {"llvm.nvvm.fence.proxy.async.shared_cta", 1, all, fenceProxy},
      {"llvm.nvvm.shfl.sync.up.i32", kWarp, 0, shuffleUp},
      {"llvm.nvvm.shfl.sync.down.i32", kWarp, 0, shuffleDown},
      {"llvm.nvvm.shfl.sync.bfly.i32", kWarp, 0, shuffleButterfly},
      {"llvm.nvvm.shfl.sync.idx.i32", kWarp, 0, shuffleIndex},
      {"llvm.nvvm.prmt", 1, all, permuteBytes},
      {"llvm.fma.f16", 1, all, fuseHalves<1>},
      {"llvm.fma.v2f16", 1, all, fuseHalves<2>},
  };
  addTensorCoreOperations(table);
  llvm::sort(table, [](const Operation &a, const Operation &b) {
    return a.name < b.name;
  });
  return table;
}

const std::vector<Operation> &nibble::simulator::getOperations() {
  static const std::vector<Operation> table = makeTable();
  return table;
}

const Operation *nibble::simulator::findOperation(llvm::StringRef name) {
  const std::vector<Operation> &table = getOperations();
  auto place = llvm::lower_bound(
      table, name,
      [](const Operation &row, llvm::StringRef key) { return row.name < key; });
  return place != table.end() && place->name == name ? &*place : nullptr;
}

std::vector<std::string> nibble::getSimulatedOperations() {
  std::vector<std::string> names;
  for (const Operation &operation : getOperations())
    names.push_back(operation.name);
  return names;
}
