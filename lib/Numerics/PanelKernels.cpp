//===- PanelKernels.cpp - Inner loops of second-order rounding ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "PanelKernels.h"
#include "Coders.h"

using namespace nibble;

namespace {

NIBBLE_INLINE void load(const float *from, Floats &to) {
  std::memcpy(&to, from, sizeof(to));
}

NIBBLE_INLINE void store(const Floats &from, float *to) {
  std::memcpy(to, &from, sizeof(from));
}

/// Subtracts row[j] * factor from the rows j in (i, size).
NIBBLE_INLINE void eliminate(const float *row, size_t i, size_t size,
                             const Floats &factor, size_t stride,
                             float *target) {
  for (size_t j = i + 1; j < size; ++j) {
    Floats x;
    load(target + j * stride, x);
    x -= row[j] * factor;
    store(x, target + j * stride);
  }
}

template <typename Coder>
NIBBLE_INLINE void propagateWith(const Coding &coding, const Grid *const *grids,
                                 const DiagonalBlock &factor, size_t stride,
                                 float *work, float *values, float *errors) {
  for (size_t i = 0; i < factor.size; ++i) {
    Coder coder(coding, *grids[i]);
    const float *row = factor.data + i * factor.stride;
    Floats scale, w, value;
    load(grids[i]->scale, scale);
    load(work + i * stride, w);
    coder.round(w / scale, value);
    Floats error = (w - value * scale) / row[i];
    store(value, values + i * stride);
    store(error, errors + i * stride);
    eliminate(row, i, factor.size, error, stride, work);
  }
}

/// Takes the outliers of one row out of what was rounded.
NIBBLE_INLINE void keepOutliers(float pivot, float threshold, const Floats &w,
                                Floats &value, Floats &error, Floats &kept) {
  for (size_t lane = 0; lane < lanes; ++lane) {
    kept[lane] = 0;
    if (!(error[lane] * error[lane] > threshold))
      continue;
    float half = decodeF16(encodeF16(w[lane], 0x7bff));
    if (half == 0)
      continue;
    kept[lane] = half;
    value[lane] = 0;
    error[lane] = (w[lane] - half) / pivot;
  }
}

template <typename Coder>
NIBBLE_INLINE void
propagateKeepingWith(const Coding &coding, const Grid *const *grids,
                     const DiagonalBlock &factor, size_t stride,
                     float threshold, float *work, float *values, float *errors,
                     float *outliers) {
  for (size_t i = 0; i < factor.size; ++i) {
    Coder coder(coding, *grids[i]);
    const float *row = factor.data + i * factor.stride;
    Floats scale, w, value, kept;
    load(grids[i]->scale, scale);
    load(work + i * stride, w);
    coder.round(w / scale, value);
    Floats error = (w - value * scale) / row[i];
    keepOutliers(row[i], threshold, w, value, error, kept);
    store(value, values + i * stride);
    store(error, errors + i * stride);
    store(kept, outliers + i * stride);
    eliminate(row, i, factor.size, error, stride, work);
  }
}

template <typename Coder>
NIBBLE_INLINE void descendWith(const Coding &coding, const Grid *const *grids,
                               const DiagonalBlock &hessian, size_t stride,
                               const float *outliers, float *gradient,
                               float *values, float *changes) {
  for (size_t i = 0; i < hessian.size; ++i) {
    Coder coder(coding, *grids[i]);
    const float *row = hessian.data + i * hessian.stride;
    Floats scale, slope, old, value;
    load(grids[i]->scale, scale);
    load(gradient + i * stride, slope);
    load(values + i * stride, old);
    coder.round(old + slope / (row[i] * scale), value);
    if (outliers) {
      Floats kept;
      load(outliers + i * stride, kept);
      value = kept != 0 ? old : value;
    }
    Floats change = (value - old) * scale;
    store(value, values + i * stride);
    store(change, changes + i * stride);
    eliminate(row, i, hessian.size, change, stride, gradient);
  }
}

} // namespace

namespace nibble {

NIBBLE_EACH_ISA
void propagateRounding(const Coding &coding, const Grid *const *grids,
                       const DiagonalBlock &factor, size_t stride, float *work,
                       float *values, float *errors) {
  if (coding.kind == StorageKind::Float)
    propagateWith<FloatCoder>(coding, grids, factor, stride, work, values,
                              errors);
  else if (coding.kind == StorageKind::CodeBook)
    propagateWith<CodeBookCoder>(coding, grids, factor, stride, work, values,
                                 errors);
  else
    propagateWith<IntegerCoder>(coding, grids, factor, stride, work, values,
                                errors);
}

NIBBLE_EACH_ISA
void propagateWithOutliers(const Coding &coding, const Grid *const *grids,
                           const DiagonalBlock &factor, size_t stride,
                           float threshold, float *work, float *values,
                           float *errors, float *kept) {
  if (coding.kind == StorageKind::Float)
    propagateKeepingWith<FloatCoder>(coding, grids, factor, stride, threshold,
                                     work, values, errors, kept);
  else if (coding.kind == StorageKind::CodeBook)
    propagateKeepingWith<CodeBookCoder>(coding, grids, factor, stride,
                                        threshold, work, values, errors, kept);
  else
    propagateKeepingWith<IntegerCoder>(coding, grids, factor, stride, threshold,
                                       work, values, errors, kept);
}

NIBBLE_EACH_ISA
void descendCoordinates(const Coding &coding, const Grid *const *grids,
                        const DiagonalBlock &hessian, size_t stride,
                        const float *outliers, float *gradient, float *values,
                        float *changes) {
  if (coding.kind == StorageKind::Float)
    descendWith<FloatCoder>(coding, grids, hessian, stride, outliers, gradient,
                            values, changes);
  else if (coding.kind == StorageKind::CodeBook)
    descendWith<CodeBookCoder>(coding, grids, hessian, stride, outliers,
                               gradient, values, changes);
  else
    descendWith<IntegerCoder>(coding, grids, hessian, stride, outliers,
                              gradient, values, changes);
}

NIBBLE_EACH_ISA
void subtractDequantized(const Grid &grid, size_t rows, size_t stride,
                         const float *weight, const float *values,
                         float *residual) {
  Floats scale;
  load(grid.scale, scale);
  for (size_t row = 0; row < rows; ++row) {
    Floats w, value;
    load(weight + row * stride, w);
    load(values + row * stride, value);
    store(w - value * scale, residual + row * stride);
  }
}

NIBBLE_EACH_ISA
void addColumnProducts(size_t rows, size_t stride, const float *a,
                       const float *b, double *sums) {
  Doubles sum;
  std::memcpy(&sum, sums, sizeof(sum));
  for (size_t row = 0; row < rows; ++row) {
    Floats x, y;
    load(a + row * stride, x);
    load(b + row * stride, y);
    sum += __builtin_convertvector(x, Doubles) *
           __builtin_convertvector(y, Doubles);
  }
  std::memcpy(sums, &sum, sizeof(sum));
}

NIBBLE_EACH_ISA
void addWeightedSquares(size_t rows, size_t stride, const float *rowWeights,
                        const float *a, double *sums) {
  Doubles sum;
  std::memcpy(&sum, sums, sizeof(sum));
  for (size_t row = 0; row < rows; ++row) {
    Floats x;
    load(a + row * stride, x);
    Doubles wide = __builtin_convertvector(x, Doubles);
    sum += wide * wide * static_cast<double>(rowWeights[row]);
  }
  std::memcpy(sums, &sum, sizeof(sum));
}

} // namespace nibble
