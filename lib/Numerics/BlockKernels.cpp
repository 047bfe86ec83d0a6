//===- BlockKernels.cpp - The inner loops of block quantization -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "BlockKernels.h"
#include "Coders.h"

using namespace nibble;

namespace {

template <typename Coder>
NIBBLE_INLINE void sumErrorsWith(const Coding &coding, const Grid &grid,
                                 const float *tile, const float *weights,
                                 size_t steps, double *errors) {
  Coder coder(coding, grid);
  Floats scale;
  std::memcpy(&scale, grid.scale, sizeof(scale));
  Doubles sum = {};
  for (size_t step = 0; step < steps; ++step) {
    Floats w, weight, value;
    std::memcpy(&w, tile + step * lanes, sizeof(w));
    std::memcpy(&weight, weights + step * lanes, sizeof(weight));
    coder.round(w / scale, value);
    Doubles error = __builtin_convertvector(w, Doubles) -
                    __builtin_convertvector(value * scale, Doubles);
    sum += error * error * __builtin_convertvector(weight, Doubles);
  }
  std::memcpy(errors, &sum, sizeof(sum));
}

template <typename Coder>
NIBBLE_INLINE void sumMomentsWith(const Coding &coding, const Grid &grid,
                                  const float *tile, const float *weights,
                                  size_t steps, double *numerators,
                                  double *denominators) {
  Coder coder(coding, grid);
  Floats scale;
  std::memcpy(&scale, grid.scale, sizeof(scale));
  Doubles numerator = {}, denominator = {};
  for (size_t step = 0; step < steps; ++step) {
    Floats w, weight, value;
    std::memcpy(&w, tile + step * lanes, sizeof(w));
    std::memcpy(&weight, weights + step * lanes, sizeof(weight));
    coder.round(w / scale, value);
    Doubles c = __builtin_convertvector(value, Doubles);
    Doubles weighted = c * __builtin_convertvector(weight, Doubles);
    numerator += weighted * __builtin_convertvector(w, Doubles);
    denominator += weighted * c;
  }
  std::memcpy(numerators, &numerator, sizeof(numerator));
  std::memcpy(denominators, &denominator, sizeof(denominator));
}

template <typename Coder>
NIBBLE_INLINE void roundTileWith(const Coding &coding, const Grid &grid,
                                 const float *tile, size_t steps, float *values,
                                 size_t stride) {
  Coder coder(coding, grid);
  Floats scale;
  std::memcpy(&scale, grid.scale, sizeof(scale));
  for (size_t step = 0; step < steps; ++step) {
    Floats w, value;
    std::memcpy(&w, tile + step * lanes, sizeof(w));
    coder.round(w / scale, value);
    std::memcpy(values + step * stride, &value, sizeof(value));
  }
}

template <typename Coder>
NIBBLE_INLINE void encodeTileWith(const Coding &coding, const Grid &grid,
                                  const float *tile, const float *valid,
                                  size_t steps, uint8_t *codes, double *errors,
                                  double *norms) {
  Coder coder(coding, grid);
  Floats scale;
  std::memcpy(&scale, grid.scale, sizeof(scale));
  Doubles errorSum = {}, normSum = {};
  for (size_t step = 0; step < steps; ++step) {
    Floats w, value;
    Ints code;
    std::memcpy(&w, tile + step * lanes, sizeof(w));
    coder.encode(w / scale, value, code);
    Bytes bytes = __builtin_convertvector(code, Bytes);
    std::memcpy(codes + step * lanes, &bytes, sizeof(bytes));
    Doubles exact = __builtin_convertvector(w, Doubles);
    Doubles error = exact - __builtin_convertvector(value * scale, Doubles);
    if (valid) {
      Floats mask;
      std::memcpy(&mask, valid + step * lanes, sizeof(mask));
      error *= __builtin_convertvector(mask, Doubles);
    }
    errorSum += error * error;
    normSum += exact * exact;
  }
  std::memcpy(errors, &errorSum, sizeof(errorSum));
  std::memcpy(norms, &normSum, sizeof(normSum));
}

} // namespace

Coding::Coding(const StorageFormat &storage)
    : kind(storage.kind), floatFormat(storage.floatFormat),
      qmin(smallestCode(storage)), qmax(largestCode(storage)), values() {
  if (kind == StorageKind::CodeBook)
    sorted = sortCodeBook(storage);
  if (kind == StorageKind::Float)
    for (unsigned code = 0; code < values.size(); ++code)
      values[code] = codeValue(storage, static_cast<uint8_t>(code));
}

namespace nibble {

NIBBLE_EACH_ISA
void extendRange(const float *tile, size_t steps, Range &range) {
  Floats low, high;
  Unsigneds magnitude;
  std::memcpy(&low, range.low, sizeof(low));
  std::memcpy(&high, range.high, sizeof(high));
  std::memcpy(&magnitude, range.magnitude, sizeof(magnitude));
  for (size_t step = 0; step < steps; ++step) {
    Floats w;
    Unsigneds bits;
    std::memcpy(&w, tile + step * lanes, sizeof(w));
    std::memcpy(&bits, tile + step * lanes, sizeof(bits));
    low = w < low ? w : low;
    high = w > high ? w : high;
    bits &= 0x7fffffff;
    magnitude = bits > magnitude ? bits : magnitude;
  }
  std::memcpy(range.low, &low, sizeof(low));
  std::memcpy(range.high, &high, sizeof(high));
  std::memcpy(range.magnitude, &magnitude, sizeof(magnitude));
}

NIBBLE_EACH_ISA
void sumErrors(const Coding &coding, const Grid &grid, const float *tile,
               const float *weights, size_t steps, double *errors) {
  if (coding.kind == StorageKind::Float)
    sumErrorsWith<FloatCoder>(coding, grid, tile, weights, steps, errors);
  else if (coding.kind == StorageKind::CodeBook)
    sumErrorsWith<CodeBookCoder>(coding, grid, tile, weights, steps, errors);
  else
    sumErrorsWith<IntegerCoder>(coding, grid, tile, weights, steps, errors);
}

NIBBLE_EACH_ISA
void sumMoments(const Coding &coding, const Grid &grid, const float *tile,
                const float *weights, size_t steps, double *numerators,
                double *denominators) {
  if (coding.kind == StorageKind::Float)
    sumMomentsWith<FloatCoder>(coding, grid, tile, weights, steps, numerators,
                               denominators);
  else if (coding.kind == StorageKind::CodeBook)
    sumMomentsWith<CodeBookCoder>(coding, grid, tile, weights, steps,
                                  numerators, denominators);
  else
    sumMomentsWith<IntegerCoder>(coding, grid, tile, weights, steps, numerators,
                                 denominators);
}

NIBBLE_EACH_ISA
void roundTile(const Coding &coding, const Grid &grid, const float *tile,
               size_t steps, float *values, size_t stride) {
  if (coding.kind == StorageKind::Float)
    roundTileWith<FloatCoder>(coding, grid, tile, steps, values, stride);
  else if (coding.kind == StorageKind::CodeBook)
    roundTileWith<CodeBookCoder>(coding, grid, tile, steps, values, stride);
  else
    roundTileWith<IntegerCoder>(coding, grid, tile, steps, values, stride);
}

NIBBLE_EACH_ISA
void encodeTile(const Coding &coding, const Grid &grid, const float *tile,
                const float *valid, size_t steps, uint8_t *codes,
                double *errors, double *norms) {
  if (coding.kind == StorageKind::Float)
    encodeTileWith<FloatCoder>(coding, grid, tile, valid, steps, codes, errors,
                               norms);
  else if (coding.kind == StorageKind::CodeBook)
    encodeTileWith<CodeBookCoder>(coding, grid, tile, valid, steps, codes,
                                  errors, norms);
  else
    encodeTileWith<IntegerCoder>(coding, grid, tile, valid, steps, codes,
                                 errors, norms);
}

} // namespace nibble
