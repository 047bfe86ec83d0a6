//===- ParallelTest.cpp ---------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

using namespace nibble;

TEST(Parallel, VisitsEveryIndexOnce) {
  for (size_t count : {0, 1, 7, 64, 1001})
    for (unsigned threads : {1u, 2u, 5u}) {
      std::vector<std::atomic<int>> visits(count);
      parallelFor(count, 8, threads, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i)
          ++visits[i];
      });
      for (auto &visit : visits)
        EXPECT_EQ(visit, 1);
    }
}

TEST(Parallel, RangesDoNotDependOnTheNumberOfThreads) {
  parallelFor(100, 32, 3, [&](size_t begin, size_t end) {
    EXPECT_EQ(begin % 32, 0u);
    EXPECT_EQ(end, std::min<size_t>(100, begin + 32));
  });
}
