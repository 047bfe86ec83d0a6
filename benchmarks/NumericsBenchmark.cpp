//===- NumericsBenchmark.cpp ----------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Bytes per second are those of the f32 weight that goes in, on one thread; the
// time includes codes, scales, zero points, the loss and all allocations.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Packing.h"
#include "nibble/Numerics/WeightQuantizer.h"

#include <benchmark/benchmark.h>

#include <random>

using namespace nibble;

static constexpr size_t K = 2048, N = 2048;

static std::vector<float> makeWeight() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> weight(K * N);
  for (float &w : weight)
    w = normal(random);
  return weight;
}

static void setInputBytes(benchmark::State &state) {
  state.SetBytesProcessed(state.iterations() *
                          static_cast<int64_t>(K * N * sizeof(float)));
}

static void quantize(benchmark::State &state, const char *scheme,
                     ScaleSearch search, bool isColumnMajor) {
  std::vector<float> weight = makeWeight();
  MatrixView view = isColumnMajor ? MatrixView::columnMajor(weight.data(), K, N)
                                  : MatrixView::rowMajor(weight.data(), K, N);
  RoundingQuantizer quantizer(search);
  Scheme parsed = *parseScheme(scheme);
  for (auto _ : state)
    benchmark::DoNotOptimize(quantizer.quantize(view, {}, parsed, 1));
  setInputBytes(state);
}

#define QUANTIZE(scheme)                                                       \
  BENCHMARK_CAPTURE(quantize, scheme##_minmax, #scheme, ScaleSearch::MinMax,   \
                    false)                                                     \
      ->Unit(benchmark::kMillisecond);                                         \
  BENCHMARK_CAPTURE(quantize, scheme##_minmax_transposed, #scheme,             \
                    ScaleSearch::MinMax, true)                                 \
      ->Unit(benchmark::kMillisecond);                                         \
  BENCHMARK_CAPTURE(quantize, scheme##_search, #scheme,                        \
                    ScaleSearch::LeastSquares, false)                          \
      ->Unit(benchmark::kMillisecond)

QUANTIZE(w4g32);
QUANTIZE(w4g32s);
QUANTIZE(w4g128);
QUANTIZE(w4c);
QUANTIZE(w4t);
QUANTIZE(nf4g64);

static void packMatMulNBits(benchmark::State &state) {
  std::vector<uint8_t> codes(K * N);
  std::mt19937 random(1);
  for (uint8_t &code : codes)
    code = random() & 15;
  MatMulNBitsShape shape{K, N, 32, 4};
  std::vector<uint8_t> packed(shape.weightBytes());
  for (auto _ : state) {
    packMatMulNBits(shape, codes.data(), N, 1, 0, packed.data(), 1);
    benchmark::ClobberMemory();
  }
  setInputBytes(state);
}
BENCHMARK(packMatMulNBits)->Unit(benchmark::kMillisecond);

static void encodeHalf(benchmark::State &state) {
  std::vector<float> weight = makeWeight();
  std::vector<uint16_t> codes(weight.size());
  for (auto _ : state) {
    encodeArray(FloatFormat::F16, weight.data(), weight.size(), codes.data());
    benchmark::ClobberMemory();
  }
  setInputBytes(state);
}
BENCHMARK(encodeHalf)->Unit(benchmark::kMillisecond);
