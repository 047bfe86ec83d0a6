//===- InputHessian.cpp - Second moments of a matmul's input --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/InputHessian.h"
#include "LinearAlgebra.h"
#include "nibble/Numerics/Parallel.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

using namespace nibble;

InputHessian::InputHessian(std::vector<double> secondMoments, uint64_t rows)
    : extent(0), rowCount(rows), moments(std::move(secondMoments)) {
  while (extent * extent < moments.size())
    ++extent;
  // A list that is no square is a caller's slip; NaN is what the ladder takes.
  moments.resize(extent * extent, std::numeric_limits<double>::quiet_NaN());
}

namespace {

/// Builds a DampedHessian step by step.
class HessianDamper {
public:
  HessianDamper(const InputHessian &hessian, const DampingOptions &options,
                unsigned threads)
      : hessian(hessian), options(options), threads(threads),
        size(hessian.size()) {
    result.size = size;
  }

  DampedHessian run();

private:
  double momentAt(size_t row, size_t col) const {
    return hessian
        .secondMoments()[std::min(row, col) * size + std::max(row, col)];
  }
  bool checkFinite();
  void findDiagonal();
  void chooseOrder();
  bool factorWith(const std::vector<double> &damped);
  bool tryDampings();
  void raiseDiagonal();
  void fillMatrix();

  const InputHessian &hessian;
  const DampingOptions &options;
  unsigned threads;
  size_t size;
  /// The mean of the diagonal of all inputs that are ever other than zero.
  double mean = 1;
  /// Relative to `mean`: as measured, with dead inputs mended, damped.
  std::vector<double> measured, mended, damped;
  DampedHessian result;
};

} // namespace

static std::string printNumber(double x) {
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%.4g", x);
  return digits;
}

/// The first number that is not finite is a note.
bool HessianDamper::checkFinite() {
  for (size_t row = 0; row < size; ++row)
    for (size_t col = row; col < size; ++col)
      if (!std::isfinite(momentAt(row, col))) {
        result.steps.push_back(
            "the second moment of inputs " + std::to_string(row) + " and " +
            std::to_string(col) + " is not finite: the Hessian is not used");
        return false;
      }
  return true;
}

void HessianDamper::findDiagonal() {
  measured.resize(size);
  double sum = 0;
  size_t dead = 0;
  for (size_t i = 0; i < size; ++i) {
    measured[i] = std::max(momentAt(i, i), 0.0);
    sum += measured[i];
    dead += measured[i] == 0;
  }
  if (dead < size)
    mean = sum / static_cast<double>(size - dead);
  for (double &x : measured)
    x /= mean;
  mended = measured;
  std::replace(mended.begin(), mended.end(), 0.0, 1.0);
  if (dead > 0)
    result.steps.push_back(std::to_string(dead) + " of " +
                           std::to_string(size) +
                           " inputs were always zero: their weights are "
                           "rounded as if they had the mean square of the "
                           "others");
}

void HessianDamper::chooseOrder() {
  result.order.resize(size);
  std::iota(result.order.begin(), result.order.end(), 0u);
  if (options.orderByDiagonal)
    std::sort(
        result.order.begin(), result.order.end(), [&](uint32_t a, uint32_t b) {
          return mended[a] > mended[b] || (mended[a] == mended[b] && a < b);
        });
}

/// With R upper triangular and P = R Rᵀ, P⁻¹ = R⁻ᵀ R⁻¹, so U = R⁻¹. R is the
/// Cholesky factor of P with rows and columns reversed, reversed again.
bool HessianDamper::factorWith(const std::vector<double> &damped) {
  std::vector<double> work(size * size);
  auto inputAt = [&](size_t i) { return result.order[size - 1 - i]; };
  parallelFor(size, 16, threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      for (size_t col = 0; col < row; ++col)
        work[row * size + col] = momentAt(inputAt(row), inputAt(col)) / mean;
      work[row * size + row] = damped[inputAt(row)];
    }
  });
  if (!invertCholeskyFactor(size, work.data(), threads))
    return false;
  result.factor.assign(size * size, 0.0f);
  for (size_t row = 0; row < size; ++row)
    for (size_t col = row; col < size; ++col) {
      float x =
          static_cast<float>(work[(size - 1 - row) * size + (size - 1 - col)]);
      if (!std::isfinite(x) || (row == col && x <= 0)) {
        result.factor.clear();
        return false;
      }
      result.factor[row * size + col] = x;
    }
  return true;
}

/// The damping that was asked for, then ten times as much until it works.
bool HessianDamper::tryDampings() {
  const double least = 1e-4, most = 1;
  double meanDiagonal = std::accumulate(mended.begin(), mended.end(), 0.0) /
                        static_cast<double>(size);
  for (double damping = options.damping;;) {
    damped = mended;
    for (double &x : damped)
      x += damping * meanDiagonal;
    result.damping = damping;
    if (factorWith(damped))
      return true;
    double next = std::max(least, damping * 10);
    if (next > most)
      return false;
    result.steps.push_back("the Hessian damped by " + printNumber(damping) +
                           " is not positive definite: damping by " +
                           printNumber(next));
    damping = next;
  }
}

/// Every diagonal at least the sum of its row's magnitudes (Gershgorin).
void HessianDamper::raiseDiagonal() {
  size_t raised = 0;
  for (size_t row = 0; row < size; ++row) {
    double sum = 0;
    for (size_t col = 0; col < size; ++col)
      sum += col == row ? 0 : std::fabs(momentAt(row, col) / mean);
    raised += damped[row] < sum * 1.001;
    damped[row] = std::max(damped[row], sum * 1.001);
  }
  result.steps.push_back("the Hessian is not positive definite with any "
                         "damping: " +
                         std::to_string(raised) +
                         " of its diagonal's entries were raised to the sum "
                         "of their rows");
}

void HessianDamper::fillMatrix() {
  result.matrix.resize(size * size);
  parallelFor(size, 16, threads, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      for (size_t col = 0; col < size; ++col)
        result.matrix[row * size + col] =
            static_cast<float>(momentAt(row, col) / mean);
      result.matrix[row * size + row] = static_cast<float>(damped[row]);
    }
  });
  result.diagonal.assign(damped.begin(), damped.end());
  result.addedDiagonal.resize(size);
  for (size_t i = 0; i < size; ++i)
    result.addedDiagonal[i] = static_cast<float>(damped[i] - measured[i]);
}

DampedHessian HessianDamper::run() {
  if (size == 0 || !checkFinite())
    return std::move(result);
  findDiagonal();
  chooseOrder();
  if (!tryDampings()) {
    raiseDiagonal();
    if (!factorWith(damped))
      result.steps.emplace_back(
          "the Hessian cannot be factored: only its diagonal is used");
  }
  fillMatrix();
  return std::move(result);
}

std::shared_ptr<const DampedHessian>
InputHessian::damped(const DampingOptions &options, unsigned threads) const {
  std::lock_guard<std::mutex> lock(mutex);
  if (!kept || !(keptOptions == options)) {
    kept.reset();
    kept = std::make_shared<const DampedHessian>(
        HessianDamper(*this, options, threads).run());
    keptOptions = options;
  }
  return kept;
}
