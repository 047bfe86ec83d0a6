//===- LayerErrors.cpp - What quantization does to each product -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LayerErrors.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/OutputQuality.h"
#include "nibble/Numerics/Parallel.h"
#include "nibble/Support/MappedFile.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

void RowObserver::observe(size_t probe, const ObservedTensor &tensor) {
  if (tensor.shape.empty() || tensor.values.empty())
    return;
  size_t width = tensor.shape.back(), count = tensor.values.size() / width;
  size_t taken = std::min(count, limit);
  std::vector<float> &kept = rows[probes[probe]];
  for (size_t i = 0; i < taken; ++i) {
    ArrayRef<float> row = tensor.values.slice(i * count / taken * width, width);
    kept.insert(kept.end(), row.begin(), row.end());
  }
}

namespace {
/// A product's weight in both models.
struct Layer {
  ConstantOp original;
  AssembleOp quantized;
  ArrayRef<float> rows;
};
} // namespace

/// [cols, rows] of a matrix [rows, cols].
static std::vector<float> transpose(const std::vector<float> &matrix,
                                    size_t rows, size_t cols) {
  std::vector<float> result(matrix.size());
  for (size_t row = 0; row < rows; ++row)
    for (size_t col = 0; col < cols; ++col)
      result[col * rows + row] = matrix[row * cols + col];
  return result;
}

static std::optional<double> measure(Layer layer) {
  auto type = cast<RankedTensorType>(layer.original.getType());
  auto weight = getFloats(getConstantValue(layer.original.getResult()));
  if (auto bytes = getTensorBytes(getConstantValue(layer.original.getResult()));
      bytes && bytes->mapped)
    dropPages(bytes->bytes);
  auto other = dequantizeConstant(layer.quantized);
  if (!weight || !other || weight->size() != other->size())
    return std::nullopt;
  size_t K = type.getDimSize(0), N = type.getDimSize(1);
  if (getChosenAxis(layer.original) == 1) {
    weight = transpose(*weight, K, N);
    other = transpose(*other, K, N);
    std::swap(K, N);
  }
  if (layer.rows.empty() || layer.rows.size() % K != 0)
    return std::nullopt;
  return relativeProductError(layer.rows.data(), layer.rows.size() / K,
                              weight->data(), other->data(), K, N);
}

std::map<std::string, double> nibble::measureLayerErrors(ModuleOp original,
                                                         ModuleOp quantized,
                                                         const ProbeRows &rows,
                                                         unsigned threads) {
  llvm::StringMap<AssembleOp> assembled;
  quantized.walk([&](AssembleOp op) {
    auto codes = op.getCodes().getDefiningOp<ConstantOp>();
    if (!codes)
      return;
    StringRef name = codes.getName();
    name.consume_back(".codes");
    assembled[name] = op;
  });
  std::map<std::string, Layer> layers;
  original.walk([&](NodeOp node) {
    ConstantOp constant = getChosenWeight(node);
    if (!constant || !isProduct(node))
      return;
    auto type = dyn_cast<RankedTensorType>(constant.getType());
    auto found = assembled.find(constant.getName());
    auto seen = rows.find(getProbeId(node));
    bool isTransposed = node.isOnnx("Gemm") && node.getInt("transA", 0) != 0;
    if (type && type.getRank() == 2 && found != assembled.end() &&
        seen != rows.end() && !isTransposed)
      layers.try_emplace(constant.getName().str(),
                         Layer{constant, found->second, seen->second});
  });
  std::vector<std::pair<std::string, Layer>> list(layers.begin(), layers.end());
  std::vector<std::optional<double>> errors(list.size());
  parallelFor(list.size(), 1, threads, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i)
      errors[i] = measure(list[i].second);
  });
  std::map<std::string, double> result;
  for (auto [layer, error] : llvm::zip(list, errors))
    if (error)
      result[layer.first] = *error;
  return result;
}
