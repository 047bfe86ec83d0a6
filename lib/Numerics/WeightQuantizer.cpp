//===- WeightQuantizer.cpp - An algorithm that quantizes a weight ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/WeightQuantizer.h"

using namespace nibble;

WeightQuantizer::~WeightQuantizer() = default;

Result<QuantizedWeight>
RoundingQuantizer::quantize(const MatrixView &weight,
                            const WeightStatistics &statistics,
                            const Scheme &scheme, unsigned threads) const {
  std::vector<float> squares = statistics.inputSquares;
  if (statistics.hessian) {
    squares.resize(statistics.hessian->size());
    for (size_t i = 0; i < squares.size(); ++i)
      squares[i] = static_cast<float>(statistics.hessian->diagonal(i));
  }
  if (!squares.empty() && squares.size() != weight.rows)
    return Failure{"the statistics are of " + std::to_string(squares.size()) +
                   " inputs, but the weight has " +
                   std::to_string(weight.rows)};
  BlockQuantizerOptions options;
  options.storage = scheme.storage;
  options.block = scheme.blockShape();
  options.symmetric = scheme.symmetric;
  options.scaleFormat = scheme.scaleFormat;
  options.search = search;
  options.rowWeights = squares.empty() ? nullptr : squares.data();
  options.weighByMagnitude = squares.empty();
  options.threads = threads;
  Result<QuantizedMatrix> matrix = quantizeBlocks(weight, options);
  if (!matrix)
    return Failure{matrix.error()};
  QuantizedWeight result;
  result.matrix = std::move(*matrix);
  return result;
}
