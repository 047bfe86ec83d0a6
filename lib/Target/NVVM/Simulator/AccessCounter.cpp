//===- AccessCounter.cpp - What accesses to memory cost -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "AccessCounter.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

#include <algorithm>
#include <set>

using namespace nibble;
using namespace nibble::simulator;

void AccessCounter::startLaunch() {
  costs.assign(program.sites.size(), AccessCost());
}

void AccessCounter::startBlock(unsigned threads) {
  visits.assign(threads, std::vector<uint32_t>(program.sites.size()));
  requests.clear();
}

void AccessCounter::add(unsigned thread, uint64_t address, uint32_t bytes,
                        bool isShared, Site site) {
  uint64_t visit = visits[thread][site]++;
  Key key{site, visit << 8 | thread / kLanes};
  Request &request = requests[key];
  request.addresses[thread % kLanes] = address;
  request.lanes |= 1U << thread % kLanes;
  request.bytes = std::max(request.bytes, bytes);
  costs[site].isShared = isShared;
  if (request.lanes != ~0U)
    return;
  count(request, costs[site]);
  requests.erase(key);
}

void AccessCounter::endBlock() {
  for (const auto &[key, request] : requests)
    count(request, costs[key.first]);
  requests.clear();
}

std::vector<AccessCost> AccessCounter::getCosts() const {
  std::vector<AccessCost> result;
  for (auto [site, cost] : llvm::enumerate(costs)) {
    if (cost.requests == 0)
      continue;
    result.push_back(cost);
    result.back().instruction = program.sites[site];
  }
  return result;
}

using Bytes = std::set<uint64_t>;

/// As many rounds as the busiest bank has words to give.
static uint64_t countRounds(const Bytes &bytes) {
  constexpr uint64_t banks = 32, wordBytes = 4;
  std::array<std::set<uint64_t>, banks> words;
  for (uint64_t byte : bytes)
    words[byte / wordBytes % banks].insert(byte / wordBytes);
  size_t rounds = 0;
  for (const std::set<uint64_t> &wanted : words)
    rounds = std::max(rounds, wanted.size());
  return rounds;
}

static uint64_t countSectors(const Bytes &bytes) {
  constexpr uint64_t sectorBytes = 32;
  std::set<uint64_t> sectors;
  for (uint64_t byte : bytes)
    sectors.insert(byte / sectorBytes);
  return sectors.size();
}

/// Shared memory serves at most 128 bytes at a time, so a part of the warp.
void AccessCounter::count(const Request &request, AccessCost &cost) {
  constexpr unsigned roundBytes = 128, sectorBytes = 32, wordBytes = 4;
  unsigned lanesAtOnce =
      cost.isShared ? roundBytes / std::max(request.bytes, wordBytes) : kLanes;
  lanesAtOnce = std::clamp(lanesAtOnce, 1U, kLanes);
  ++cost.requests;
  for (unsigned first = 0; first < kLanes; first += lanesAtOnce) {
    Bytes bytes;
    unsigned last = std::min(first + lanesAtOnce, kLanes);
    for (unsigned lane = first; lane < last; ++lane)
      if (request.lanes >> lane & 1)
        for (uint32_t i = 0; i < request.bytes; ++i)
          bytes.insert(request.addresses[lane] + i);
    cost.bytes += bytes.size();
    cost.rounds += cost.isShared ? countRounds(bytes) : countSectors(bytes);
    cost.leastRounds += llvm::divideCeil(
        bytes.size(), cost.isShared ? roundBytes : sectorBytes);
  }
}
