//===- Machine.cpp - What this machine can do at best ---------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Machine.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace nibble;

/// The work of all threads over the seconds that the slowest one takes, the
/// best of five tries.
static double getBestRate(unsigned threads, double work,
                          const std::function<void(unsigned)> &run) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    Clock::time_point start = Clock::now();
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i)
      others.emplace_back(run, i);
    run(0);
    for (std::thread &thread : others)
      thread.join();
    std::chrono::duration<double> seconds = Clock::now() - start;
    best = std::max(best, work * threads / seconds.count());
  }
  return best;
}

/// Keeps what is stored here from being left out.
static volatile uint64_t sink;

static void readAll(const std::vector<uint64_t> &words) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= words.size(); i += 8)
    for (size_t lane = 0; lane < 8; ++lane)
      sums[lane] ^= words[i + lane];
  uint64_t total = 0;
  for (uint64_t sum : sums)
    total ^= sum;
  sink = total;
}

double nibble::measureReadBandwidth(unsigned threads) {
  // More than the caches of any processor so far.
  constexpr size_t bytes = size_t(768) << 20;
  const size_t words = bytes / threads / sizeof(uint64_t);
  std::vector<std::vector<uint64_t>> buffers(threads,
                                             std::vector<uint64_t>(words, 1));
  const size_t eachBytes = words * sizeof(uint64_t);
  double each = static_cast<double>(eachBytes);
  return getBestRate(threads, each,
                     [&](unsigned index) { readAll(buffers[index]); });
}

static constexpr int kTurns = 4000000;
/// Read at run time, so that nothing is computed before.
static volatile float start = 1.5f;

// Twelve chains of multiply-adds hide the latency on every processor so far.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void multiplyAddWide() {
  __m512 sums[12];
  for (__m512 &sum : sums)
    sum = _mm512_set1_ps(start);
  __m512 factor = _mm512_set1_ps(0.999f), addend = _mm512_set1_ps(0.001f);
  for (int i = 0; i < kTurns; ++i)
    for (__m512 &sum : sums)
      sum = _mm512_fmadd_ps(sum, factor, addend);
  for (int i = 1; i < 12; ++i)
    sums[0] = _mm512_add_ps(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm512_cvtss_f32(sums[0]));
}

__attribute__((target("avx2,fma"))) static void multiplyAdd() {
  __m256 sums[12];
  for (__m256 &sum : sums)
    sum = _mm256_set1_ps(start);
  __m256 factor = _mm256_set1_ps(0.999f), addend = _mm256_set1_ps(0.001f);
  for (int i = 0; i < kTurns; ++i)
    for (__m256 &sum : sums)
      sum = _mm256_fmadd_ps(sum, factor, addend);
  for (int i = 1; i < 12; ++i)
    sums[0] = _mm256_add_ps(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm256_cvtss_f32(sums[0]));
}
#endif

/// The baseline of the architecture: four lanes, which compilers vectorize.
static void multiplyAddNarrow() {
  float sums[12][4];
  for (auto &sum : sums)
    std::fill(sum, sum + 4, start);
  for (int i = 0; i < kTurns; ++i)
    for (auto &sum : sums)
      for (float &lane : sum)
        lane = lane * 0.999f + 0.001f;
  float total = 0;
  for (auto &sum : sums)
    for (float lane : sum)
      total += lane;
  sink = static_cast<uint64_t>(total);
}

double nibble::measureMultiplyAdd(unsigned threads) {
  unsigned lanes = 4;
  std::function<void()> run = multiplyAddNarrow;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    lanes = 16;
    run = multiplyAddWide;
  } else if (__builtin_cpu_supports("fma")) {
    lanes = 8;
    run = multiplyAdd;
  }
#endif
  return getBestRate(threads, 2.0 * 12 * lanes * kTurns,
                     [&](unsigned) { run(); });
}

//===----------------------------------------------------------------------===//
// Products of bytes
//===----------------------------------------------------------------------===//

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) static void addDotsWide() {
  __m512i sums[12];
  for (__m512i &sum : sums)
    sum = _mm512_set1_epi32(static_cast<int>(start));
  __m512i factor = _mm512_set1_epi8(static_cast<char>(start));
  for (int i = 0; i < kTurns; ++i)
    for (__m512i &sum : sums)
      sum = _mm512_dpbusd_epi32(sum, factor, factor);
  for (int i = 1; i < 12; ++i)
    sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm512_reduce_add_epi32(sums[0]));
}

__attribute__((target("avx2"))) static void addPairs() {
  __m256i sums[12];
  __m256i factor = _mm256_set1_epi8(static_cast<char>(start));
  for (__m256i &sum : sums)
    sum = factor;
  for (int i = 0; i < kTurns; ++i)
    for (__m256i &sum : sums)
      sum = _mm256_maddubs_epi16(sum, factor);
  for (int i = 1; i < 12; ++i)
    sums[0] = _mm256_add_epi16(sums[0], sums[i]);
  sink = static_cast<uint64_t>(_mm256_extract_epi32(sums[0], 0));
}
#endif

double nibble::measureByteProducts(unsigned threads) {
#if defined(__x86_64__)
  auto measure = [&](unsigned bytes, void (*run)()) {
    return getBestRate(threads, 2.0 * 12 * bytes * kTurns,
                       [&](unsigned) { run(); });
  };
  if (__builtin_cpu_supports("avx512vnni"))
    return measure(64, addDotsWide);
  if (__builtin_cpu_supports("avx2"))
    return measure(32, addPairs);
#endif
  return 0;
}
