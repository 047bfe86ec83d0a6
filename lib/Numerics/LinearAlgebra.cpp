//===- LinearAlgebra.cpp - Dense matrices through BLAS --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LinearAlgebra.h"
#include "nibble/Numerics/Parallel.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <vector>

using namespace nibble;

// Of LAPACK, by columns: a row-major lower triangle is an upper one to it.
extern "C" {
void dpotrf_(const char *triangle, const int *size, double *matrix,
             const int *stride, int *info);
void dpotrs_(const char *triangle, const int *size, const int *columns,
             const double *factor, const int *stride, double *right,
             const int *rightStride, int *info);
void dtrtri_(const char *triangle, const char *diagonal, const int *size,
             double *matrix, const int *stride, int *info);
}

/// Keeps the library off its own threads; before its first use.
static void useCallingThreadOnly() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  (void)done;
}

static blasint toInt(size_t x) { return static_cast<blasint>(x); }

void nibble::multiply(size_t m, size_t n, size_t k, float alpha, const float *a,
                      size_t aStride, const float *b, size_t bStride,
                      float beta, float *c, size_t cStride) {
  useCallingThreadOnly();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, toInt(m), toInt(n),
              toInt(k), alpha, a, toInt(aStride), b, toInt(bStride), beta, c,
              toInt(cStride));
}

void nibble::multiplyTransposed(size_t m, size_t n, size_t k, float alpha,
                                const float *a, size_t aStride, const float *b,
                                size_t bStride, float beta, float *c,
                                size_t cStride) {
  useCallingThreadOnly();
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, toInt(m), toInt(n),
              toInt(k), alpha, a, toInt(aStride), b, toInt(bStride), beta, c,
              toInt(cStride));
}

namespace {

/// A square matrix cut into square tiles.
struct Tiles {
  Tiles(size_t size, double *matrix)
      : size(size), edge(size <= 1024 ? 128 : 256), matrix(matrix) {}

  size_t count() const { return (size + edge - 1) / edge; }
  size_t extent(size_t i) const { return std::min(edge, size - i * edge); }
  double *at(size_t row, size_t col) const {
    return matrix + row * edge * size + col * edge;
  }

  size_t size, edge;
  double *matrix;
};

} // namespace

/// Subtracts column `k` of the finished factor from the tiles right of it.
static void updateTrailing(const Tiles &tiles, size_t k, unsigned threads) {
  size_t rest = tiles.count() - k - 1;
  parallelFor(rest * rest, 1, threads, [&](size_t begin, size_t end) {
    for (size_t index = begin; index < end; ++index) {
      size_t i = k + 1 + index / rest, j = k + 1 + index % rest;
      if (j < i)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans,
                    toInt(tiles.extent(i)), toInt(tiles.extent(j)),
                    toInt(tiles.extent(k)), -1, tiles.at(i, k),
                    toInt(tiles.size), tiles.at(j, k), toInt(tiles.size), 1,
                    tiles.at(i, j), toInt(tiles.size));
      else if (j == i)
        cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans,
                    toInt(tiles.extent(i)), toInt(tiles.extent(k)), -1,
                    tiles.at(i, k), toInt(tiles.size), 1, tiles.at(i, i),
                    toInt(tiles.size));
    }
  });
}

/// The lower factor in place, right-looking.
static bool factorCholesky(const Tiles &tiles, unsigned threads) {
  int stride = toInt(tiles.size), info = 0;
  for (size_t k = 0; k < tiles.count(); ++k) {
    int extent = toInt(tiles.extent(k));
    dpotrf_("U", &extent, tiles.at(k, k), &stride, &info);
    if (info != 0)
      return false;
    size_t rest = tiles.count() - k - 1;
    parallelFor(rest, 1, threads, [&](size_t begin, size_t end) {
      for (size_t i = k + 1 + begin; i < k + 1 + end; ++i)
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans,
                    CblasNonUnit, toInt(tiles.extent(i)), extent, 1,
                    tiles.at(k, k), stride, tiles.at(i, k), stride);
    });
    updateTrailing(tiles, k, threads);
  }
  return true;
}

/// The inverse X of a lower triangle L in place, from the last column of tiles
/// to the first: X[>k, k] = -X[>k, >k] L[>k, k] L[k, k]⁻¹.
static bool invertTriangle(const Tiles &tiles, unsigned threads) {
  int stride = toInt(tiles.size), info = 0;
  std::vector<double> panel(tiles.size * tiles.edge);
  for (size_t k = tiles.count(); k-- > 0;) {
    int extent = toInt(tiles.extent(k));
    size_t first = (k + 1) * tiles.edge;
    dtrtri_("U", "N", &extent, tiles.at(k, k), &stride, &info);
    if (info != 0)
      return false;
    for (size_t row = first; row < tiles.size; ++row)
      std::copy_n(tiles.matrix + row * tiles.size + k * tiles.edge, extent,
                  &panel[row * tiles.edge]);
    size_t rest = tiles.count() - k - 1;
    parallelFor(rest, 1, threads, [&](size_t begin, size_t end) {
      for (size_t i = k + 1 + begin; i < k + 1 + end; ++i) {
        // Row i of X ends in a triangle; its upper half is not zero in memory.
        size_t left = i * tiles.edge - first;
        blasint height = toInt(tiles.extent(i));
        double *own = &panel[i * tiles.edge * tiles.edge];
        std::vector<double> product(tiles.extent(i) * tiles.edge);
        for (size_t row = 0; row < tiles.extent(i); ++row)
          std::copy_n(own + row * tiles.edge, extent,
                      &product[row * tiles.edge]);
        cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans,
                    CblasNonUnit, height, extent, 1, tiles.at(i, i), stride,
                    product.data(), toInt(tiles.edge));
        if (left > 0)
          cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, height, extent,
                      toInt(left), 1, tiles.at(i, k + 1), stride,
                      &panel[first * tiles.edge], toInt(tiles.edge), 1,
                      product.data(), toInt(tiles.edge));
        cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans,
                    CblasNonUnit, height, extent, -1, tiles.at(k, k), stride,
                    product.data(), toInt(tiles.edge));
        for (size_t row = 0; row < tiles.extent(i); ++row)
          std::copy_n(&product[row * tiles.edge], extent,
                      tiles.at(i, k) + row * tiles.size);
      }
    });
  }
  return true;
}

bool nibble::invertCholeskyFactor(size_t size, double *matrix,
                                  unsigned threads) {
  useCallingThreadOnly();
  Tiles tiles(size, matrix);
  return factorCholesky(tiles, threads) && invertTriangle(tiles, threads);
}

void nibble::solveTransposedUpper(size_t size, size_t cols, const float *upper,
                                  float *right, size_t rightStride) {
  useCallingThreadOnly();
  cblas_strsm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit,
              toInt(size), toInt(cols), 1, upper, toInt(size), right,
              toInt(rightStride));
}

/// Rotates rows (stride 1) or columns p and q of a square matrix.
static void rotate(size_t size, double *p, double *q, size_t stride,
                   double cosine, double sine) {
  for (size_t i = 0; i < size; ++i) {
    double x = p[i * stride], y = q[i * stride];
    p[i * stride] = cosine * x - sine * y;
    q[i * stride] = sine * x + cosine * y;
  }
}

void nibble::diagonalizeSymmetric(size_t size, double *matrix,
                                  double *vectors) {
  const int sweeps = 30;
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    bool isDiagonal = true;
    for (size_t p = 0; p < size; ++p)
      for (size_t q = p + 1; q < size; ++q) {
        double a = matrix[p * size + p], b = matrix[q * size + q];
        double c = matrix[p * size + q];
        if (std::fabs(c) <= 1e-15 * std::sqrt(std::fabs(a * b)))
          continue;
        isDiagonal = false;
        double ratio = (b - a) / (2 * c);
        double tangent = std::copysign(1.0, ratio) /
                         (std::fabs(ratio) + std::sqrt(1 + ratio * ratio));
        double cosine = 1 / std::sqrt(1 + tangent * tangent);
        double sine = tangent * cosine;
        rotate(size, matrix + p * size, matrix + q * size, 1, cosine, sine);
        rotate(size, matrix + p, matrix + q, size, cosine, sine);
        rotate(size, vectors + p, vectors + q, size, cosine, sine);
      }
    if (isDiagonal)
      return;
  }
}

bool nibble::solvePositiveDefinite(size_t size, double *matrix, double *right) {
  useCallingThreadOnly();
  int extent = toInt(size), columns = 1, info = 0;
  dpotrf_("U", &extent, matrix, &extent, &info);
  if (info != 0)
    return false;
  dpotrs_("U", &extent, &columns, matrix, &extent, right, &extent, &info);
  return info == 0;
}
