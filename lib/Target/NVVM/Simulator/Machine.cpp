//===- Machine.cpp - A block of threads, running --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Machine.h"

#include "llvm/Support/FormatVariadic.h"

#include <algorithm>
#include <sys/mman.h>

using namespace nibble;
using namespace nibble::simulator;

/// Twice as much, to cut an aligned piece out of it.
Machine::Machine(const Program &program) : program(program) {
  void *memory =
      mmap(nullptr, 2 * size_t(kMaxSharedBytes), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return;
  arenaMapping = static_cast<uint8_t *>(memory);
  arena = arenaMapping +
          llvm::offsetToAlignedAddr(arenaMapping, llvm::Align(kMaxSharedBytes));
}

Machine::~Machine() {
  if (arenaMapping)
    munmap(arenaMapping, 2 * size_t(kMaxSharedBytes));
}

//===----------------------------------------------------------------------===//
// Findings
//===----------------------------------------------------------------------===//

std::string Machine::describe(const DeviceThread &thread) const {
  return llvm::formatv("thread {0} of block {1}, {2}, {3}", thread.index,
                       block[0], block[1], block[2])
      .str();
}

void Machine::report(llvm::StringRef what, Site site,
                     const std::string &details) {
  llvm::StringRef instruction = getText(site);
  for (Finding &finding : result.findings)
    if (finding.what == what && finding.instruction == instruction) {
      ++finding.count;
      return;
    }
  result.findings.push_back({what.str(), instruction.str(), details, 1});
}

void Machine::report(llvm::StringRef what, const DeviceThread &thread) {
  report(what, thread.site, describe(thread));
}

/// What is on the stacks of the fibers is left behind, so that callers may not
/// have anything there that owns memory.
void Machine::stop(llvm::StringRef what, Site site, std::string details) {
  report(what, site, details);
  std::string().swap(details);
  isStopped = true;
  leaveFiber(home);
}

void Machine::stop(llvm::StringRef what, const DeviceThread &thread) {
  stop(what, thread.site, describe(thread));
}

const DeviceBuffer *Machine::findBuffer(uint64_t address,
                                        uint64_t bytes) const {
  for (const DeviceBuffer &buffer : launch->buffers) {
    auto first = reinterpret_cast<uint64_t>(buffer.bytes.data());
    if (address >= first && address + bytes <= first + buffer.bytes.size())
      return &buffer;
  }
  return nullptr;
}

/// "at offset 20 of x, which has 16 bytes", by the buffer that starts before
/// it or at least ends nearby.
std::string Machine::describeAddress(uint64_t address) const {
  constexpr int64_t nearby = 1 << 16;
  for (const DeviceBuffer &buffer : launch->buffers) {
    int64_t offset = address - reinterpret_cast<uint64_t>(buffer.bytes.data());
    if (offset >= -nearby && offset < int64_t(buffer.bytes.size()) + nearby)
      return llvm::formatv("at offset {0} of {1}, which has {2} bytes", offset,
                           buffer.name, buffer.bytes.size())
          .str();
  }
  return llvm::formatv("at {0:x}, in no buffer", address).str();
}

//===----------------------------------------------------------------------===//
// Blocks
//===----------------------------------------------------------------------===//

/// The indices of all blocks, in the order in which they run.
static std::vector<std::array<uint32_t, 3>> listBlocks(LaunchExtent grid) {
  std::vector<std::array<uint32_t, 3>> blocks;
  for (uint32_t z = 0; z < grid.z; ++z)
    for (uint32_t y = 0; y < grid.y; ++y)
      for (uint32_t x = 0; x < grid.x; ++x)
        blocks.push_back({x, y, z});
  return blocks;
}

/// Like std::shuffle, which is another one in each library.
template <typename T>
static void shuffle(std::vector<T> &values, std::mt19937 &random) {
  for (size_t i = values.size(); i > 1; --i)
    std::swap(values[i - 1], values[random() % i]);
}

SimulationReport Machine::run(const KernelLaunch &newLaunch) {
  launch = &newLaunch;
  entry = program.kernels.at(newLaunch.kernel).entry;
  result = SimulationReport();
  isStopped = false;
  random.seed(newLaunch.schedule.seed);
  if (program.checks) {
    checker.emplace(*this, program);
    counter.emplace(program);
    counter->startLaunch();
  }
  auto blocks = listBlocks(newLaunch.grid);
  if (newLaunch.schedule.seed != 0)
    shuffle(blocks, random);
  for (const auto &index : blocks) {
    runBlock(index);
    if (isStopped)
      break;
  }
  if (counter)
    result.costs = counter->getCosts();
  return std::move(result);
}

void Machine::runBlock(const std::array<uint32_t, 3> &index) {
  block = index;
  unsigned count = launch->block.count();
  // What was never written is NaN, or -1.
  std::memset(arena, 0xff, program.staticSharedBytes + launch->sharedBytes);
  if (checker) {
    checker->startBlock(count, launch->sharedBytes);
    counter->startBlock(count);
  }
  threads.clear();
  threads.resize(count);
  ready.clear();
  barriers.clear();
  running = count;
  steps = 0;
  const LaunchExtent &size = launch->block, &grid = launch->grid;
  for (unsigned i = 0; i < count; ++i) {
    DeviceThread &thread = threads[i];
    thread.index = i;
    thread.registers = {i % size.x,
                        i / size.x % size.y,
                        i / size.x / size.y,
                        size.x,
                        size.y,
                        size.z,
                        index[0],
                        index[1],
                        index[2],
                        grid.x,
                        grid.y,
                        grid.z,
                        i % kWarp};
    prepareFiber(thread.fiber, stacks.get(i), runThread, this);
    makeReady(thread);
  }
  switchFiber(home, takeNext());
  current = nullptr;
  if (counter)
    counter->endBlock();
  if (!isStopped && running != 0)
    reportWaiting();
}

/// The first frame of a fiber.
void Machine::runThread(void *machine) {
  enterFiber();
  auto &self = *static_cast<Machine *>(machine);
  self.entry(self.launch->arguments.data());
  self.endThread();
}

/// Groups without a copy in them need no wait.
static void dropEmptyGroups(std::deque<std::vector<AsyncCopy>> &groups) {
  while (!groups.empty() && groups.front().empty())
    groups.pop_front();
}

void Machine::endThread() {
  DeviceThread &thread = *current;
  dropEmptyGroups(thread.copyGroups);
  if (!thread.openCopies.empty() || !thread.copyGroups.empty())
    report("copies that the thread did not wait for", thread);
  if (checker && checker->hasProducts(thread))
    report("products that the thread did not wait for", thread);
  thread.state = ThreadState::Done;
  --running;
  for (auto &[identifier, barrier] : barriers)
    if (barrier.expected == 0)
      release(barrier);
  leaveFiber(takeNext());
}

void Machine::makeReady(DeviceThread &thread) {
  thread.state = ThreadState::Ready;
  ready.push_back(&thread);
}

DeviceThread &Machine::takeReady() {
  if (launch->schedule.seed != 0)
    std::swap(ready.front(), ready[random() % ready.size()]);
  DeviceThread &thread = *ready.front();
  ready.pop_front();
  return thread;
}

Fiber &Machine::takeNext() {
  if (ready.empty())
    return home;
  current = &takeReady();
  return current->fiber;
}

void Machine::yield() {
  Fiber &from = current->fiber, &to = takeNext();
  if (&to != &from)
    switchFiber(from, to);
}

/// No thread can go on: says who waits where.
void Machine::reportWaiting() {
  isStopped = true;
  std::map<std::string, std::vector<unsigned>> places;
  std::optional<Site> first;
  for (const DeviceThread &thread : threads) {
    if (thread.state == ThreadState::Done) {
      places["have ended"].push_back(thread.index);
      continue;
    }
    first = first.value_or(thread.site);
    std::string place = "wait ";
    if (thread.state == ThreadState::AtBarrier)
      place += "for barrier " + std::to_string(thread.barrier) + " ";
    places[place + "at " + getText(thread.site).str()].push_back(thread.index);
  }
  std::string details =
      llvm::formatv("block {0}, {1}, {2}", block[0], block[1], block[2]).str();
  for (const auto &[place, indices] : places)
    details += llvm::formatv("; {0} threads ({1} to {2}) {3}", indices.size(),
                             indices.front(), indices.back(), place)
                   .str();
  report("no thread can go on", first.value_or(0), details);
}

//===----------------------------------------------------------------------===//
// What compiled code calls
//===----------------------------------------------------------------------===//

DeviceThread &Lanes::thread(unsigned lane) const { return first[lane]; }
const uint64_t *Lanes::arguments(unsigned lane) const {
  return first[lane].arguments;
}
uint64_t *Lanes::results(unsigned lane) const { return first[lane].results; }

void Machine::operate(const Operation &operation, Site site,
                      uint64_t *arguments, uint64_t *results) {
  DeviceThread &thread = *current;
  thread.operation = &operation;
  thread.site = site;
  thread.arguments = arguments;
  thread.results = results;
  if (operation.width == 1) {
    operation.run({*this, &thread, 1, 1});
    return;
  }
  unsigned width = operation.width, first = thread.index / width * width;
  bool isAligned = operation.maskArgument < 0;
  thread.mask = isAligned ? ~0U : uint32_t(arguments[operation.maskArgument]);
  if (first + width > threads.size() && isAligned)
    stop("not all threads of a warp or warpgroup are there", thread);
  if (!(thread.mask >> thread.index % kWarp & 1))
    stop("the mask leaves out the thread itself", thread);
  unsigned last = std::min<unsigned>(first + width, threads.size());
  llvm::MutableArrayRef<DeviceThread> group(&threads[first], last - first);
  thread.state = ThreadState::AtOperation;
  auto takesPart = [&](const DeviceThread &other) {
    return thread.mask >> other.index % kWarp & 1;
  };
  auto isHere = [&](const DeviceThread &other) {
    return other.state == ThreadState::AtOperation &&
           other.operation == &operation && other.mask == thread.mask &&
           (!isAligned || other.site == site);
  };
  for (const DeviceThread &other : group)
    if (takesPart(other) && !isHere(other)) {
      yield();
      return;
    }
  operation.run({*this, group.data(), width, thread.mask});
  thread.state = ThreadState::Ready;
  for (DeviceThread &other : group)
    if (takesPart(other) && &other != &thread)
      makeReady(other);
}

void Machine::access(uint64_t address, uint32_t bytes, uint32_t alignment,
                     AccessKind kind, Site site) {
  checker->access(*current, address, bytes, alignment, kind, site);
  count(*current, address, bytes, site);
}

void Machine::count(const DeviceThread &thread, uint64_t address,
                    uint32_t bytes, Site site) {
  uint64_t offset = address - sharedAddress();
  bool isShared = offset < kMaxSharedBytes;
  counter->add(thread.index, isShared ? offset : address, bytes, isShared,
               site);
}

/// Threads that wait for one another in a loop go on by turns.
void Machine::step(Site site) {
  constexpr uint64_t turn = 1024;
  ++steps;
  if (steps > launch->stepLimit) {
    std::string details = describe(*current) +
                          ", one of those that were running after " +
                          std::to_string(launch->stepLimit) + " rounds";
    stop("loops without an end", site, std::move(details));
  }
  if (steps % turn != 0)
    return;
  makeReady(*current);
  yield();
}

//===----------------------------------------------------------------------===//
// What operations call
//===----------------------------------------------------------------------===//

void Machine::waitAtBarrier(unsigned identifier, unsigned count) {
  DeviceThread &thread = *current;
  constexpr unsigned numBarriers = 16;
  if (identifier >= numBarriers || count % kWarp != 0)
    stop("no barrier of 0 to 15, or no multiple of 32 threads", thread);
  Barrier &barrier = barriers[identifier];
  if (!barrier.arrived.empty() && barrier.expected != count)
    stop("barrier with different numbers of threads", thread);
  barrier.expected = count;
  barrier.arrived.push_back(&thread);
  thread.state = ThreadState::AtBarrier;
  thread.barrier = identifier;
  release(barrier);
  yield();
}

/// PTX ISA, "bar, barrier": with .aligned, all threads of a warp execute the
/// same instruction.
void Machine::verifyAligned(const Barrier &barrier) {
  std::map<unsigned, Site> sites;
  for (const DeviceThread *thread : barrier.arrived) {
    auto [place, isNew] = sites.insert({thread->index / kWarp, thread->site});
    if (!isNew && place->second != thread->site)
      report("a warp waits for an aligned barrier at two places", *thread);
  }
}

void Machine::release(Barrier &barrier) {
  unsigned needed = barrier.expected == 0 ? running : barrier.expected;
  if (barrier.arrived.empty() || barrier.arrived.size() < needed)
    return;
  if (checker) {
    verifyAligned(barrier);
    checker->synchronize(barrier.arrived);
  }
  for (DeviceThread *thread : barrier.arrived)
    makeReady(*thread);
  barrier.arrived.clear();
}

static void move(const AsyncCopy &copy) {
  auto *target = static_cast<uint8_t *>(toPointer(copy.target));
  std::memcpy(target, toPointer(copy.source), copy.sourceBytes);
  std::memset(target + copy.sourceBytes, 0, copy.bytes - copy.sourceBytes);
}

void Machine::startCopy(const AsyncCopy &copy) {
  DeviceThread &thread = *current;
  if (copy.target % copy.bytes != 0 || copy.source % copy.bytes != 0)
    stop("misaligned cp.async", thread);
  if (copy.sourceBytes > copy.bytes)
    stop("cp.async reads more bytes than it writes", thread);
  if (checker) {
    checker->startCopy(thread, copy);
    count(thread, copy.target, copy.bytes, copy.site);
  }
  if (!launch->schedule.lateCopies)
    move(copy);
  thread.openCopies.push_back(copy);
}

void Machine::finishCopies(std::vector<AsyncCopy> &copies) {
  for (const AsyncCopy &copy : copies) {
    if (launch->schedule.lateCopies)
      move(copy);
    if (checker)
      checker->finishCopy(*current, copy);
  }
  copies.clear();
}

void Machine::commitCopies() {
  current->copyGroups.push_back(std::move(current->openCopies));
  current->openCopies.clear();
}

void Machine::waitForCopies(unsigned pending) {
  auto &groups = current->copyGroups;
  while (groups.size() > pending) {
    finishCopies(groups.front());
    groups.pop_front();
  }
}

void Machine::waitForAllCopies() {
  waitForCopies(0);
  finishCopies(current->openCopies);
}

void Machine::accessShared(DeviceThread &thread, uint64_t address,
                           uint32_t bytes, uint32_t alignment,
                           AccessKind kind) {
  if (checker) {
    checker->access(thread, address, bytes, alignment, kind, thread.site);
    count(thread, address, bytes, thread.site);
  } else if (address % alignment != 0) {
    stop("misaligned read", thread);
  }
}
