//===- SecondOrderBenchmark.cpp - GPTQ beside the library's own times -----===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A K x K layer by GPTQ and by the whole recipe, and what the linear algebra
// library takes for the least that any such method needs: the second moments of
// 262,144 rows (measured over 4,096, times 64) and Cholesky factor and inverse
// of them. Process time, so that the number of threads hardly matters.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/RecipeQuantizer.h"

#include <benchmark/benchmark.h>
#include <cblas.h>

#include <random>

using namespace nibble;

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {
void dpotrf_(const char *triangle, const int *size, double *matrix,
             const int *stride, int *info);
void dpotri_(const char *triangle, const int *size, double *matrix,
             const int *stride, int *info);
}
// NOLINTEND(readability-identifier-naming)

static std::vector<float> makeNormal(size_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float &x : values)
    x = normal(random);
  return values;
}

static std::vector<double> makeMoments(size_t K) {
  std::vector<float> inputs = makeNormal(2 * K * K), product(K * K);
  cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, static_cast<int>(K),
              static_cast<int>(2 * K), 1.0f / static_cast<float>(2 * K),
              inputs.data(), static_cast<int>(K), 0, product.data(),
              static_cast<int>(K));
  std::vector<double> moments(product.begin(), product.end());
  for (size_t i = 0; i < K; ++i)
    for (size_t j = 0; j < i; ++j)
      moments[i * K + j] = moments[j * K + i];
  return moments;
}

static void librarySyrk(benchmark::State &state) {
  int K = static_cast<int>(state.range(0)), rows = 4096;
  std::vector<float> inputs = makeNormal(size_t(rows) * K);
  std::vector<float> product(size_t(K) * K);
  openblas_set_num_threads(1);
  for (auto _ : state)
    cblas_ssyrk(CblasRowMajor, CblasUpper, CblasTrans, K, rows, 1,
                inputs.data(), K, 0, product.data(), K);
}

static void libraryFactorization(benchmark::State &state) {
  int K = static_cast<int>(state.range(0)), info = 0;
  std::vector<double> moments = makeMoments(K);
  openblas_set_num_threads(1);
  for (auto _ : state) {
    std::vector<double> work = moments;
    dpotrf_("U", &K, work.data(), &K, &info);
    dpotri_("U", &K, work.data(), &K, &info);
    dpotrf_("U", &K, work.data(), &K, &info);
  }
}

static void factorization(benchmark::State &state) {
  size_t K = state.range(0);
  InputHessian hessian(makeMoments(K), 262144);
  DampingOptions options;
  for (auto _ : state) {
    options.damping += 1e-6; // not the one that is kept
    benchmark::DoNotOptimize(hessian.damped(options, 2));
  }
}

static void quantize(benchmark::State &state, unsigned rounds) {
  size_t K = state.range(0);
  std::vector<float> weight = makeNormal(K * K);
  WeightStatistics statistics;
  statistics.hessian =
      std::make_shared<InputHessian>(makeMoments(K), uint64_t(262144));
  RecipeOptions options;
  options.rounds = rounds;
  statistics.hessian->damped(options.damping, 2);
  for (auto _ : state)
    benchmark::DoNotOptimize(RecipeQuantizer(options).quantize(
        MatrixView::rowMajor(weight.data(), K, K), statistics,
        *parseScheme("w4g128"), 2));
}

#define SIZES                                                                  \
  ->Arg(1024)->Arg(4096)->Unit(benchmark::kMillisecond)->MeasureProcessCPUTime()

BENCHMARK(librarySyrk) SIZES;
BENCHMARK(libraryFactorization) SIZES;
BENCHMARK(factorization) SIZES;
BENCHMARK_CAPTURE(quantize, gptq, 0u) SIZES;
BENCHMARK_CAPTURE(quantize, recipe, 3u) SIZES;
