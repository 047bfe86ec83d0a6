//===- RecipeQuantizer.cpp - Second-order weight quantization -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/RecipeQuantizer.h"

using namespace nibble;

Result<QuantizedWeight>
RecipeQuantizer::quantize(const MatrixView &weight,
                          const WeightStatistics &statistics,
                          const Scheme &scheme, unsigned threads) const {
  RoundingQuantizer rounding(ScaleSearch::LeastSquares);
  Result<QuantizedWeight> result =
      rounding.quantize(weight, statistics, scheme, threads);
  if (result && !statistics.hessian)
    result->notes.emplace_back("no Hessian: rounded to nearest");
  return result;
}
