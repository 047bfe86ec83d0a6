//===- BlockQuantizer.h - Matrix to codes and scales ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_BLOCKQUANTIZER_H
#define NIBBLE_NUMERICS_BLOCKQUANTIZER_H

#include "nibble/Numerics/Scheme.h"

#include <cstddef>
#include <vector>

namespace nibble {

/// A rows x cols matrix that somebody else owns: element (r, c) is
/// `data[r * rowStride + c * colStride]`. For a weight the rows are the inputs
/// K and the columns the outputs N, however it lies in memory.
struct MatrixView {
  const float *data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  ptrdiff_t rowStride = 0;
  ptrdiff_t colStride = 1;

  /// Contiguous rows.
  static MatrixView rowMajor(const float *data, size_t rows, size_t cols) {
    return {data, rows, cols, static_cast<ptrdiff_t>(cols), 1};
  }
  /// The matrix whose transpose, cols x rows, has contiguous rows at `data`.
  static MatrixView columnMajor(const float *data, size_t rows, size_t cols) {
    return {data, rows, cols, 1, static_cast<ptrdiff_t>(rows)};
  }
  float at(size_t row, size_t col) const {
    return data[static_cast<ptrdiff_t>(row) * rowStride +
                static_cast<ptrdiff_t>(col) * colStride];
  }
};

/// How a block's scale (and zero point) is found. Let lo and hi be the least
/// and greatest value of the block *and 0*, and [qmin, qmax] the integers of
/// the storage.
enum class ScaleSearch : uint8_t {
  /// From the range. The scale is computed in double precision, then made
  /// representable (see BlockQuantizerOptions::scaleFormat).
  ///  - Asymmetric: scale = (hi - lo) / (qmax - qmin); zero point =
  ///    clamp(roundeven(qmin - lo / scale), qmin, qmax) from the final scale.
  ///    So 0 is exact.
  ///  - Symmetric: m is hi or lo, whichever is larger in magnitude (lo if
  ///    equal); scale = -m / 2^(bits-1), so that m lands on qmin exactly. The
  ///    scale is negative where m > 0.
  ///  - Floats and code books: max(hi, -lo) / largestMagnitude(storage).
  MinMax,
  /// Tries candidates and keeps, in this order and only where the error falls,
  /// the one with the least sum of weight * (w - dequantized)^2:
  ///  1. MinMax itself, so that the result is never worse;
  ///  2. symmetric: scale = +-f * max(hi, -lo) / 2^(bits-1) for 20 factors f
  ///     from 1.15 to 0.5; floats and code books likewise, positive only, over
  ///     largestMagnitude(storage);
  ///     asymmetric: scale = f * (hi - lo) / (qmax - qmin) for 11 factors from
  ///     1 to 0.5, each with the zero points roundeven(qmin - lo * (qmax -
  ///     qmin) / (hi - lo)) + {0, -1, 1}, clamped;
  ///  3. twice the closed-form fit for the codes found so far,
  ///     scale = sum(weight * c * w) / sum(weight * c^2), with c = code value -
  ///     zero point.
  LeastSquares,
};

struct BlockQuantizerOptions {
  StorageFormat storage = StorageFormat::getUnsigned(4);
  BlockShape block = {128, 1};
  /// No zero point. Needs signed storage among the integers; always true for
  /// floats and code books.
  bool symmetric = false;
  /// f32, f16, bf16 or f8E8M0FNU. A scale is computed in double precision, then
  ///  - clamped to a largest magnitude: of f16 its largest finite number; of
  ///  the
  ///    others that number over the least power of two that is not less than
  ///    the largest possible |code value - zero point|. So no code dequantizes
  ///    to infinity; codes saturate beyond;
  ///  - rounded to f32 and then to the format, half to even; but in f8E8M0FNU
  ///    up to a power of two, so that the range still covers the block;
  ///  - where that gives zero, made the smallest positive (or negative) number.
  /// f8E8M0FNU has no sign: the symmetric MinMax scale is then max(hi / qmax,
  /// lo / qmin), and only positive scales are searched.
  FloatFormat scaleFormat = FloatFormat::F32;
  ScaleSearch search = ScaleSearch::MinMax;
  /// For LeastSquares: the weight of each row's errors (diag(H) of the inputs),
  /// `rows` finite numbers >= 0, or null for 1.
  const float *rowWeights = nullptr;
  /// For LeastSquares: weigh each error by |w| too. Where nothing is known of
  /// the inputs this is the better guess: large weights tend to meet inputs
  /// that matter, and the plain sum clips them (docs/Rationale.md, "Scale
  /// search").
  bool weighByMagnitude = false;
  /// For LeastSquares: a symmetric [rows, rows] matrix H, row-major, or null.
  /// The error of a block is then eᵀ H e over the inputs of the block, and the
  /// fit scale = cᵀ H w / cᵀ H c; the two weights above do not count. Only for
  /// blocks of one column and at most `largestHessianBlock` rows.
  const float *hessian = nullptr;
  static constexpr size_t largestHessianBlock = 1024;
  /// 0: one for each core. Never changes a bit of the result.
  unsigned threads = 1;
};

/// A matrix as codes, with one scale and zero point a block; a plain copy of
/// everything that dequantization needs.
struct QuantizedMatrix {
  StorageFormat storage;
  size_t rows = 0;
  size_t cols = 0;
  /// Never 0: whole extents are filled in (as 1 for an empty extent).
  BlockShape block = {1, 1};
  FloatFormat scaleFormat = FloatFormat::F32;
  /// [rows, cols], row-major, one byte each.
  std::vector<uint8_t> codes;
  /// [blockRows(), blockCols()], row-major, each representable in scaleFormat,
  /// finite, and not zero.
  std::vector<float> scales;
  /// As the scales; a code of the storage each. Empty: all zero.
  std::vector<uint8_t> zeroPoints;
  /// Sum of (w - dequantized)^2 and of w^2 over the matrix, in double
  /// precision.
  double squaredError = 0;
  double squaredNorm = 0;

  size_t blockRows() const { return (rows + block.rows - 1) / block.rows; }
  size_t blockCols() const { return (cols + block.cols - 1) / block.cols; }
};

/// Quantizes each block on its own: code = clamp(roundeven(w / scale) + zero
/// point), the quotient rounded to f32 as in ONNX QuantizeLinear; floats and
/// code books: encodeNearest(w / scale).
///
/// A block of zeros gets scale 1, the zero point of the formula (qmin) and
/// codes that dequantize to 0. NaN and infinity in the matrix are an error that
/// names the first in row-major order; so is an option that does not fit.
Result<QuantizedMatrix> quantizeBlocks(const MatrixView &matrix,
                                       const BlockQuantizerOptions &options);

/// Rounds `matrix` to scales and zero points that are given, with the rule of
/// quantizeBlocks. `grid` brings storage, block, scaleFormat, scales and zero
/// points; its codes and errors are filled in.
Result<QuantizedMatrix> roundToScales(const MatrixView &matrix,
                                      QuantizedMatrix grid,
                                      unsigned threads = 1);

/// w = (code - zero point) * scale, rounded to f32 once; element (r, c) goes to
/// `values[r * rowStride + c * colStride]`.
void dequantize(const QuantizedMatrix &matrix, float *values,
                ptrdiff_t rowStride, ptrdiff_t colStride, unsigned threads = 1);

/// Row-major.
std::vector<float> dequantize(const QuantizedMatrix &matrix,
                              unsigned threads = 1);

/// Double quantization (QLoRA, https://arxiv.org/abs/2305.14314, section 3):
/// the scales less their mean, in blocks of 256, as 8-bit codes.
struct QuantizedScales {
  /// The mean of the scales, summed in double precision.
  float offset = 0;
  /// A 1 x count matrix.
  QuantizedMatrix deviations;
};

/// The scales that come back differ a little, and may even be zero, so codes
/// must be rounded again to them (roundToScales, which refuses zeros).
Result<QuantizedScales>
quantizeScales(const float *scales, size_t count, size_t blockSize = 256,
               StorageFormat storage = StorageFormat::getSigned(8));

/// offset + deviation, rounded to f32.
std::vector<float> dequantizeScales(const QuantizedScales &scales);

} // namespace nibble

#endif // NIBBLE_NUMERICS_BLOCKQUANTIZER_H
