//===- TestSupport.cpp - Numerics for Python tests ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A shared library with C functions, so that Python scripts can hold Numerics
// against NumPy, ml_dtypes and ONNX Runtime through ctypes.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Packing.h"
#include "nibble/Numerics/RecipeQuantizer.h"

#include <algorithm>
#include <cstdio>

using namespace nibble;

/// Returns 0, or 1 for an unknown format.
extern "C" int nibbleTestEncode(const char *format, const float *values,
                                size_t count, void *codes, int saturate) {
  auto parsed = parseFloatFormat(format);
  if (!parsed)
    return 1;
  encodeArray(*parsed, values, count, codes,
              saturate ? Overflow::Saturate : Overflow::ByFormat);
  return 0;
}

extern "C" int nibbleTestDecode(const char *format, const void *codes,
                                size_t count, float *values) {
  auto parsed = parseFloatFormat(format);
  if (!parsed)
    return 1;
  decodeArray(*parsed, codes, count, values);
  return 0;
}

/// Quantizes a row-major [K, N] weight by a scheme's name with an f32 scale;
/// `zeroPoints` may be null. Returns 0, or 1 and prints why.
extern "C" int nibbleTestQuantize(const float *weight, size_t K, size_t N,
                                  const char *scheme, int leastSquares,
                                  const float *inputSquares, unsigned threads,
                                  uint8_t *codes, float *scales,
                                  uint8_t *zeroPoints, double *squaredError) {
  auto parsed = parseScheme(scheme);
  if (!parsed) {
    std::fprintf(stderr, "%s\n", parsed.error().c_str());
    return 1;
  }
  WeightStatistics statistics;
  if (inputSquares)
    statistics.inputSquares.assign(inputSquares, inputSquares + K);
  RoundingQuantizer quantizer(leastSquares ? ScaleSearch::LeastSquares
                                           : ScaleSearch::MinMax);
  auto quantized = quantizer.quantize(MatrixView::rowMajor(weight, K, N),
                                      statistics, *parsed, threads);
  if (!quantized) {
    std::fprintf(stderr, "%s\n", quantized.error().c_str());
    return 1;
  }
  const QuantizedMatrix *result = &quantized->matrix;
  std::copy(result->codes.begin(), result->codes.end(), codes);
  std::copy(result->scales.begin(), result->scales.end(), scales);
  if (zeroPoints)
    std::copy(result->zeroPoints.begin(), result->zeroPoints.end(), zeroPoints);
  *squaredError = result->squaredError;
  return 0;
}

/// The [K, K] second moments of an input; freed by nibbleTestFreeHessian.
extern "C" void *nibbleTestMakeHessian(const double *moments, size_t K,
                                       uint64_t rows) {
  return new std::shared_ptr<const InputHessian>(
      std::make_shared<const InputHessian>(
          std::vector<double>(moments, moments + K * K), rows));
}

extern "C" void nibbleTestFreeHessian(void *hessian) {
  delete static_cast<std::shared_ptr<const InputHessian> *>(hessian);
}

/// As nibbleTestQuantize, by RecipeQuantizer. `objective` is a ScaleObjective;
/// `losses` gets those of rounding, GPTQ, the end and the output.
extern "C" int nibbleTestQuantizeByRecipe(
    const float *weight, size_t K, size_t N, const char *scheme, void *hessian,
    double damping, int objective, unsigned rounds, unsigned threads,
    uint8_t *codes, float *scales, uint8_t *zeroPoints, double *losses) {
  auto parsed = parseScheme(scheme);
  if (!parsed) {
    std::fprintf(stderr, "%s\n", parsed.error().c_str());
    return 1;
  }
  WeightStatistics statistics;
  statistics.hessian =
      *static_cast<std::shared_ptr<const InputHessian> *>(hessian);
  RecipeOptions options;
  options.damping.damping = damping;
  options.scales = static_cast<ScaleObjective>(objective);
  options.rounds = rounds;
  auto result = RecipeQuantizer(options).quantize(
      MatrixView::rowMajor(weight, K, N), statistics, *parsed, threads);
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().c_str());
    return 1;
  }
  const QuantizedMatrix &matrix = result->matrix;
  std::copy(matrix.codes.begin(), matrix.codes.end(), codes);
  std::copy(matrix.scales.begin(), matrix.scales.end(), scales);
  if (zeroPoints)
    std::copy(matrix.zeroPoints.begin(), matrix.zeroPoints.end(), zeroPoints);
  losses[0] = result->losses.rounding;
  losses[1] = result->losses.gptq;
  losses[2] = result->losses.end;
  losses[3] = result->losses.output;
  return 0;
}

/// What ONNX Runtime's quantizer makes of a row-major [K, N] weight: B, scales
/// [N, blocks] and (unless null) packed zero points of a 4-bit MatMulNBits.
extern "C" int nibbleTestQuantizeMatMulNBits(const float *weight, size_t K,
                                             size_t N, size_t blockSize,
                                             unsigned threads, uint8_t *packed,
                                             float *scales,
                                             uint8_t *zeroPoints) {
  MatMulNBitsShape shape;
  shape.K = K;
  shape.N = N;
  shape.blockSize = blockSize;
  BlockQuantizerOptions options;
  options.block = {blockSize, 1};
  options.symmetric = !zeroPoints;
  options.storage =
      zeroPoints ? StorageFormat::getUnsigned(4) : StorageFormat::getSigned(4);
  options.threads = threads;
  auto result = quantizeBlocks(MatrixView::rowMajor(weight, K, N), options);
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().c_str());
    return 1;
  }
  ptrdiff_t stride = static_cast<ptrdiff_t>(N);
  packMatMulNBits(shape, result->codes.data(), stride, 1, zeroPoints ? 0 : 8,
                  packed, threads);
  for (size_t block = 0; block < shape.blocks(); ++block)
    for (size_t n = 0; n < N; ++n)
      scales[n * shape.blocks() + block] = result->scales[block * N + n];
  if (zeroPoints)
    packMatMulNBitsZeroPoints(shape, result->zeroPoints.data(), stride, 1, 0,
                              zeroPoints);
  return 0;
}
