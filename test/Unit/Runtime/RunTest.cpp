//===- RunTest.cpp - Tests of a run's buffers and failures ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Runtime/Run.h"

#include "gtest/gtest.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

namespace {

// Runs are large, and a leak of one test must not hide in another.
std::unique_ptr<nibble_run> makeRun() { return std::make_unique<nibble_run>(); }

void *allocate(size_t size) {
  void *buffer = _mlir_memref_to_llvm_alloc(size);
  std::memset(buffer, 0x5a, size);
  return buffer;
}

void failAfterAllocating(void **) {
  for (size_t size : {0, 1, 64, 100000})
    allocate(size);
  _mlir_memref_to_llvm_free(allocate(3));
  nibble_runtime_fail(NIBBLE_RUN_CHECK_FAILED, "node 'x': index is out");
}

} // namespace

TEST(Run, KeepsWhatTheCodeDoesNotFree) {
  auto run = makeRun();
  void *kept = nullptr;
  void *arguments[] = {static_cast<void *>(&kept)};
  auto code = [](void **arguments) {
    void *a = allocate(10), *b = allocate(20), *c = allocate(30);
    _mlir_memref_to_llvm_free(b);
    _mlir_memref_to_llvm_free(nullptr);
    _mlir_memref_to_llvm_free(c);
    *static_cast<void **>(arguments[0]) = a;
  };
  ASSERT_EQ(nibble_run_call(run.get(), code, arguments, nullptr, nullptr),
            NIBBLE_RUN_OK);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(kept) % 64, 0u);
  nibble_run_take(kept);
  EXPECT_EQ(run->allocations, nullptr);
  EXPECT_EQ(static_cast<char *>(kept)[9], 0x5a);
  _mlir_memref_to_llvm_free(kept);
}

TEST(Run, UsesLargeBuffersAgain) {
  auto run = makeRun();
  void *buffers[3];
  auto code = [](void **arguments) {
    constexpr size_t large = 1 << 20;
    for (size_t i = 0; i < 3; ++i) {
      // The last one would waste more than half of the spare one.
      arguments[i] = allocate(i == 2 ? large / 4 : large - 1000 * i);
      if (i < 2)
        _mlir_memref_to_llvm_free(arguments[i]);
    }
    _mlir_memref_to_llvm_free(arguments[2]);
  };
  ASSERT_EQ(nibble_run_call(run.get(), code, buffers, nullptr, nullptr),
            NIBBLE_RUN_OK);
  EXPECT_EQ(buffers[0], buffers[1]);
  EXPECT_NE(buffers[0], buffers[2]);
  EXPECT_EQ(run->live_bytes, 0u);
  EXPECT_EQ(run->peak_bytes, 1u << 20);
  nibble_run_free(run.get());
  EXPECT_EQ(run->spare, nullptr);
}

namespace {
/// A run with a pool that uses one buffer of so many bytes, which it leaves.
void *runWith(nibble_pool &pool, size_t size) {
  auto run = makeRun();
  void *arguments[] = {static_cast<void *>(&size), nullptr};
  auto code = [](void **arguments) {
    arguments[1] = allocate(*static_cast<size_t *>(arguments[0]));
  };
  EXPECT_EQ(nibble_run_call(run.get(), code, arguments, nullptr, &pool),
            NIBBLE_RUN_OK);
  nibble_run_free(run.get());
  return arguments[1];
}
} // namespace

TEST(Run, LeavesBuffersToTheNextOne) {
  nibble_pool pool = {};
  constexpr size_t large = 1 << 20;
  void *first = runWith(pool, large);
  EXPECT_EQ(runWith(pool, large), first);
  EXPECT_EQ(runWith(pool, large - 5), first);
  // A run that fails leaves nothing.
  auto failing = makeRun();
  nibble_run_call(failing.get(), failAfterAllocating, nullptr, nullptr, &pool);
  EXPECT_EQ(pool.spare, nullptr);
  nibble_pool_free(&pool);
}

TEST(Run, LeavesNoMoreThanItNeeded) {
  nibble_pool pool = {};
  runWith(pool, 1 << 24);
  // 16 MiB are more than twice what this one has in use.
  runWith(pool, 1 << 20);
  auto run = makeRun();
  auto nothing = [](void **) {};
  nibble_run_call(run.get(), nothing, nullptr, nullptr, &pool);
  EXPECT_LE(run->owned_bytes, size_t(2) << 20);
  EXPECT_EQ(pool.spare, nullptr) << "a run under way has the pool's buffers";
  nibble_run_free(run.get());
  EXPECT_EQ(pool.spare, nullptr);
  runWith(pool, 10);
  EXPECT_EQ(pool.spare, nullptr) << "a small buffer is not kept";
  nibble_pool_free(&pool);
}

TEST(Run, SharesAPoolBetweenThreads) {
  nibble_pool pool = {};
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (size_t i = 0; i < 4; ++i)
    threads.emplace_back([&pool, i] {
      for (size_t size = 0; size < 200; ++size)
        runWith(pool, (i + 1) << 16);
    });
  for (std::thread &thread : threads)
    thread.join();
  nibble_pool_free(&pool);
  EXPECT_EQ(pool.spare, nullptr);
}

// AddressSanitizer finds what leaks here.
TEST(Run, FreesAllAfterAFailure) {
  auto run = makeRun();
  EXPECT_EQ(nibble_run_call(run.get(), failAfterAllocating, nullptr, nullptr,
                            nullptr),
            NIBBLE_RUN_CHECK_FAILED);
  EXPECT_STREQ(run->message, "node 'x': index is out");
  EXPECT_EQ(run->allocations, nullptr);
}

TEST(Run, NamesWhatDoesNotFit) {
  auto run = makeRun();
  auto code = [](void **) {
    allocate(100);
    _mlir_memref_to_llvm_alloc(std::numeric_limits<size_t>::max() - 8);
  };
  EXPECT_EQ(nibble_run_call(run.get(), code, nullptr, nullptr, nullptr),
            NIBBLE_RUN_OUT_OF_MEMORY);
  EXPECT_STREQ(run->message, "no memory for 18446744073709551607 bytes");
}

TEST(Run, MultipliesSizesWithCare) {
  auto run = makeRun();
  int64_t numbers[3];
  void *arguments[] = {numbers};
  auto code = [](void **arguments) {
    auto *n = static_cast<int64_t *>(arguments[0]);
    n[2] = nibble_runtime_multiply(n[0], n[1]);
  };
  auto multiply = [&](int64_t a, int64_t b) {
    numbers[0] = a;
    numbers[1] = b;
    return nibble_run_call(run.get(), code, arguments, nullptr, nullptr);
  };
  EXPECT_EQ(multiply(int64_t(1) << 31, int64_t(1) << 31), NIBBLE_RUN_OK);
  EXPECT_EQ(numbers[2], int64_t(1) << 62);
  EXPECT_EQ(multiply(0, 7), NIBBLE_RUN_OK);
  EXPECT_EQ(numbers[2], 0);
  EXPECT_EQ(multiply(int64_t(1) << 32, int64_t(1) << 31),
            NIBBLE_RUN_OUT_OF_MEMORY);
  EXPECT_EQ(multiply(-1, 1), NIBBLE_RUN_CHECK_FAILED);
  EXPECT_EQ(multiply(1, -1), NIBBLE_RUN_CHECK_FAILED);
}

TEST(Run, EndsWhenItsCallerWants) {
  auto run = makeRun();
  volatile int stop = 0;
  void *arguments[] = {const_cast<int *>(&stop)};
  auto code = [](void **arguments) {
    allocate(1);
    for (int i = 0;; ++i) {
      nibble_runtime_check_interrupt();
      if (i == 1000)
        *static_cast<volatile int *>(arguments[0]) = 1;
    }
  };
  EXPECT_EQ(nibble_run_call(run.get(), code, arguments, &stop, nullptr),
            NIBBLE_RUN_INTERRUPTED);
}

TEST(Run, CutsALongMessage) {
  auto run = makeRun();
  std::string text(2000, 'x');
  void *arguments[] = {text.data()};
  auto code = [](void **arguments) {
    nibble_runtime_fail(NIBBLE_RUN_CHECK_FAILED,
                        static_cast<const char *>(arguments[0]));
  };
  nibble_run_call(run.get(), code, arguments, nullptr, nullptr);
  EXPECT_EQ(std::string(run->message),
            std::string(sizeof(run->message) - 1, 'x'));
}

TEST(Run, IsApartFromOtherThreadsAndTheRunAround) {
  auto outer = [](void **) {
    auto inner = makeRun();
    EXPECT_EQ(nibble_run_call(inner.get(), failAfterAllocating, nullptr,
                              nullptr, nullptr),
              NIBBLE_RUN_CHECK_FAILED);
    _mlir_memref_to_llvm_free(allocate(5));
  };
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      auto run = makeRun();
      for (int repeat = 0; repeat < 100; ++repeat) {
        EXPECT_EQ(nibble_run_call(run.get(), outer, nullptr, nullptr, nullptr),
                  NIBBLE_RUN_OK);
        EXPECT_EQ(run->allocations, nullptr);
      }
    });
  for (std::thread &thread : threads)
    thread.join();
}
