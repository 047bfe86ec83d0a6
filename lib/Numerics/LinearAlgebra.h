//===- LinearAlgebra.h - Dense matrices through BLAS ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Row-major matrices; a "stride" is the distance between rows. The library runs
// on the calling thread only, and work is split here over tiles that do not
// depend on the number of threads, so neither do the results.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_NUMERICS_LINEARALGEBRA_H
#define NIBBLE_LIB_NUMERICS_LINEARALGEBRA_H

#include <cstddef>

namespace nibble {

/// c [m, n] = alpha * a [m, k] * b [k, n] + beta * c.
void multiply(size_t m, size_t n, size_t k, float alpha, const float *a,
              size_t aStride, const float *b, size_t bStride, float beta,
              float *c, size_t cStride);

/// The same with a given as its transpose [k, m].
void multiplyTransposed(size_t m, size_t n, size_t k, float alpha,
                        const float *a, size_t aStride, const float *b,
                        size_t bStride, float beta, float *c, size_t cStride);

/// Replaces `right` [size, cols] by x with Uᵀ x = right, U [size, size] upper
/// triangular without gaps between its rows.
void solveTransposedUpper(size_t size, size_t cols, const float *upper,
                          float *right, size_t rightStride);

/// Rotates the symmetric `matrix` [size, size] until it is diagonal (Jacobi's
/// method), and the columns of `vectors` with it. For small matrices.
void diagonalizeSymmetric(size_t size, double *matrix, double *vectors);

/// Replaces the lower triangle of `matrix` [size, size], symmetric and positive
/// definite, by that of L⁻¹ with matrix = L Lᵀ; the rest is left alone. False,
/// and an undefined triangle, if it is not positive definite.
bool invertCholeskyFactor(size_t size, double *matrix, unsigned threads);

/// Solves matrix x = right for a symmetric positive definite matrix [size,
/// size] whose lower triangle is read; both are overwritten, `right` by x.
/// False if it is not positive definite.
bool solvePositiveDefinite(size_t size, double *matrix, double *right);

} // namespace nibble

#endif // NIBBLE_LIB_NUMERICS_LINEARALGEBRA_H
