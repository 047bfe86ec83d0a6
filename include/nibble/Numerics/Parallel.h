//===- Parallel.h - Deterministic data parallelism --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_PARALLEL_H
#define NIBBLE_NUMERICS_PARALLEL_H

#include <cstddef>
#include <functional>

namespace nibble {

/// Calls `body(begin, end)` over disjoint ranges that cover [0, count), on up
/// to `threads` threads (0: one for each core). The ranges are at least `grain`
/// long and do not depend on the number of threads, so a body that writes only
/// its own range gives the same bits for any number of threads.
void parallelFor(size_t count, size_t grain, unsigned threads,
                 const std::function<void(size_t begin, size_t end)> &body);

} // namespace nibble

#endif // NIBBLE_NUMERICS_PARALLEL_H
