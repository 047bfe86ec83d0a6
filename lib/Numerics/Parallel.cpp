//===- Parallel.cpp - Deterministic data parallelism ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

using namespace nibble;

void nibble::parallelFor(
    size_t count, size_t grain, unsigned threads,
    const std::function<void(size_t begin, size_t end)> &body) {
  grain = std::max<size_t>(grain, 1);
  size_t ranges = (count + grain - 1) / grain;
  if (threads == 0)
    threads = std::max(1u, std::thread::hardware_concurrency());
  threads = static_cast<unsigned>(std::min<size_t>(threads, ranges));

  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t range; (range = next.fetch_add(1)) < ranges;)
      body(range * grain, std::min(count, (range + 1) * grain));
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i)
    others.emplace_back(work);
  work();
  for (std::thread &thread : others)
    thread.join();
}
