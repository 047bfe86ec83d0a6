//===- ScaleSearch.cpp - Scales and zero points of blocks -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ScaleSearch.h"
#include "FloatBits.h"

#include <algorithm>
#include <cmath>

using namespace nibble;

/// 1.5 * 2^52: rounds doubles below 2^51 to integers, half to even.
static constexpr double integerConstant = 6755399441055744.0;

static double roundToInteger(double x) {
  return (x + integerConstant) - integerConstant;
}

//===----------------------------------------------------------------------===//
// Scales and zero points
//===----------------------------------------------------------------------===//

/// The least k >= 0 with 2^k >= x.
static int ceilLog2(double x) {
  int k = 0;
  while (std::ldexp(1.0, k) < x)
    ++k;
  return k;
}

ScaleRules::ScaleRules(const BlockQuantizerOptions &options,
                       const Coding &coding)
    : format(options.scaleFormat), isInteger(options.storage.isInteger()),
      isAsymmetric(isInteger && !options.symmetric),
      isSigned(format != FloatFormat::F8E8M0FNU), qmin(coding.qmin),
      qmax(coding.qmax),
      span(static_cast<double>(largestMagnitude(options.storage))),
      limit(static_cast<double>(largestFinite(format))),
      tiny(smallestPositive(format)) {
  if (format != FloatFormat::F16)
    limit = std::ldexp(limit, -ceilLog2(isAsymmetric ? qmax - qmin : span));
}

/// The power of two at or above `x` > 0 that f8E8M0FNU has.
static float roundUpToPowerOfTwo(double x) {
  int exponent;
  if (std::frexp(x, &exponent) == 0.5)
    --exponent;
  return std::ldexp(1.0f, std::max(exponent, -127));
}

void nibble::finishScales(const ScaleRules &rules, const Range &range,
                          const RawScales &raw, float *scales) {
  for (size_t lane = 0; lane < lanes; ++lane)
    scales[lane] = static_cast<float>(
        std::min(std::max(raw[lane], -rules.limit), rules.limit));
  switch (rules.format) {
  case FloatFormat::F16:
    for (size_t lane = 0; lane < lanes; ++lane)
      scales[lane] = decodeF16(encodeF16(scales[lane], 0x7bff));
    break;
  case FloatFormat::BF16:
    for (size_t lane = 0; lane < lanes; ++lane)
      scales[lane] = decodeBF16(encodeBF16(scales[lane], 0x7f7f));
    break;
  case FloatFormat::F8E8M0FNU:
    for (size_t lane = 0; lane < lanes; ++lane)
      scales[lane] = raw[lane] > 0
                         ? roundUpToPowerOfTwo(std::min(raw[lane], rules.limit))
                         : rules.tiny;
    break;
  default:
    break;
  }
  for (size_t lane = 0; lane < lanes; ++lane) {
    float tiny = raw[lane] < 0 ? -rules.tiny : rules.tiny;
    float scale = scales[lane] == 0 ? tiny : scales[lane];
    bool isZero = range.low[lane] == 0 && range.high[lane] == 0;
    scales[lane] = isZero ? 1.0f : scale;
  }
}

float nibble::finishScale(const ScaleRules &rules, double raw) {
  Range range = {};
  RawScales all;
  std::array<float, lanes> scales;
  std::fill_n(range.high, lanes, 1.0f);
  all.fill(raw);
  finishScales(rules, range, all, scales.data());
  return scales[0];
}

/// Fills in the zero points, rounded and clamped, and the clamp that follows.
static void finishZeroPoints(const ScaleRules &rules, const RawScales &zeros,
                             Grid &grid) {
  for (size_t lane = 0; lane < lanes; ++lane) {
    double zero = 0;
    if (rules.isAsymmetric)
      zero = roundToInteger(
          std::min(std::max(zeros[lane], rules.qmin), rules.qmax));
    grid.zero[lane] = static_cast<float>(zero);
    grid.low[lane] = static_cast<float>(rules.qmin - zero);
    grid.high[lane] = static_cast<float>(rules.qmax - zero);
  }
}

Grid nibble::minMaxGrid(const ScaleRules &rules, const Range &range) {
  RawScales raw, zeros = {};
  for (size_t lane = 0; lane < lanes; ++lane) {
    double low = range.low[lane], high = range.high[lane];
    if (rules.isAsymmetric)
      raw[lane] = (high - low) / (rules.qmax - rules.qmin);
    else if (!rules.isInteger)
      raw[lane] = std::max(high, -low) / rules.span;
    else if (rules.isSigned)
      raw[lane] = -(high > -low ? high : low) / rules.span;
    else
      raw[lane] = std::max(high / rules.qmax, low / rules.qmin);
  }
  Grid grid;
  finishScales(rules, range, raw, grid.scale);
  for (size_t lane = 0; lane < lanes; ++lane)
    zeros[lane] = rules.qmin - static_cast<double>(range.low[lane]) /
                                   static_cast<double>(grid.scale[lane]);
  finishZeroPoints(rules, zeros, grid);
  return grid;
}

//===----------------------------------------------------------------------===//
// The search for the least squared error
//===----------------------------------------------------------------------===//

/// The candidates after MinMax: step 2 of ScaleSearch::LeastSquares.
static std::vector<Grid> searchGrids(const ScaleRules &rules,
                                     const Range &range) {
  const int symmetricFactors = 20, asymmetricFactors = 11;
  std::vector<Grid> grids;
  RawScales raw, zeros = {};
  auto add = [&] {
    Grid grid;
    finishScales(rules, range, raw, grid.scale);
    finishZeroPoints(rules, zeros, grid);
    grids.push_back(grid);
  };

  if (!rules.isAsymmetric) {
    for (int i = 0; i < symmetricFactors; ++i)
      for (double sign : {1.0, -1.0}) {
        if (sign < 0 && !(rules.isInteger && rules.isSigned))
          continue;
        double factor = sign * (1.15 - 0.65 * i / (symmetricFactors - 1));
        for (size_t lane = 0; lane < lanes; ++lane)
          raw[lane] = factor *
                      std::max<double>(range.high[lane], -range.low[lane]) /
                      rules.span;
        add();
      }
    return grids;
  }

  double steps = rules.qmax - rules.qmin;
  for (int i = 0; i < asymmetricFactors; ++i)
    for (double shift : {0.0, -1.0, 1.0}) {
      double factor = 1.0 - 0.5 * i / (asymmetricFactors - 1);
      for (size_t lane = 0; lane < lanes; ++lane) {
        double low = range.low[lane], width = range.high[lane] - low;
        raw[lane] = factor * width / steps;
        double zero =
            width == 0 ? rules.qmin : rules.qmin - low * steps / width;
        zeros[lane] = roundToInteger(zero) + shift;
      }
      add();
    }
  return grids;
}

static void copyLane(const Grid &from, Grid &to, size_t lane) {
  to.scale[lane] = from.scale[lane];
  to.zero[lane] = from.zero[lane];
  to.low[lane] = from.low[lane];
  to.high[lane] = from.high[lane];
}

Grid nibble::leastSquaresGrid(const ScaleRules &rules, const Range &range,
                              Evaluator &evaluator) {
  Grid best = minMaxGrid(rules, range);
  std::vector<double> bestErrors, errors;
  evaluator.errors({best}, bestErrors);
  auto keepBetter = [&](const std::vector<Grid> &grids) {
    evaluator.errors(grids, errors);
    for (size_t i = 0; i < grids.size(); ++i)
      for (size_t lane = 0; lane < lanes; ++lane)
        if (errors[i * lanes + lane] < bestErrors[lane]) {
          bestErrors[lane] = errors[i * lanes + lane];
          copyLane(grids[i], best, lane);
        }
  };
  keepBetter(searchGrids(rules, range));

  for (int repeat = 0; repeat < 2; ++repeat) {
    RawScales numerators, denominators, raw;
    evaluator.moments(best, numerators.data(), denominators.data());
    for (size_t lane = 0; lane < lanes; ++lane) {
      double fit = numerators[lane] / denominators[lane];
      // No code but zeros, or all weights zero: there is nothing to fit.
      bool fits = denominators[lane] > 0 && fit != 0 && std::isfinite(fit);
      raw[lane] = fits ? fit : best.scale[lane];
    }
    Grid refit = best;
    finishScales(rules, range, raw, refit.scale);
    keepBetter({refit});
  }
  return best;
}
