//===- RescaleInputs.cpp - x W = (x / s) (s W) ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Dialect/Onnx/Utils/Affine.h"
#include "nibble/Dialect/Onnx/Utils/ChannelDivision.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "llvm/ADT/MapVector.h"
#include "llvm/Support/FormatVariadic.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

std::vector<float> ChannelStatistics::getMaxima() const {
  std::vector<float> maxima(ties.size(), 0);
  for (size_t i = 0; i < ties.size(); ++i)
    maxima[ties[i]] = std::max(
        {maxima[ties[i]], std::abs(range.min[i]), std::abs(range.max[i])});
  for (size_t i = 0; i < ties.size(); ++i)
    maxima[i] = maxima[ties[i]];
  return maxima;
}

std::vector<float> ChannelStatistics::getMagnitudes() const {
  std::vector<double> sums(ties.size(), 0), counts(ties.size(), 0);
  for (size_t i = 0; i < ties.size(); ++i) {
    sums[ties[i]] += range.magnitude[i];
    ++counts[ties[i]];
  }
  std::vector<float> magnitudes;
  magnitudes.reserve(ties.size());
  for (uint32_t tie : ties)
    magnitudes.push_back(static_cast<float>(sums[tie] / counts[tie]));
  return magnitudes;
}

std::vector<float> ChannelStatistics::getSquares() const {
  std::vector<float> squares;
  squares.reserve(range.mean.size());
  for (auto [mean, variance] : llvm::zip(range.mean, range.variance))
    squares.push_back(mean * mean + variance);
  return squares;
}

/// What is left of a range when its channels are divided.
static ActivationRange divideRange(const ActivationRange &range,
                                   ArrayRef<float> factors) {
  ActivationRange divided = range;
  for (auto *numbers : {&divided.min, &divided.max, &divided.mean,
                        &divided.variance, &divided.magnitude})
    for (auto [number, factor] : llvm::zip(*numbers, factors))
      number /= numbers == &divided.variance ? factor * factor : factor;
  return divided;
}

//===----------------------------------------------------------------------===//
// Groups
//===----------------------------------------------------------------------===//

/// The weight of a product whose rows can be multiplied: a constant of f32 that
/// nobody else reads.
static std::optional<InputWeight> getWeight(NodeOp product) {
  if ((!product.isOnnx("MatMul") && !product.isOnnx("Gemm")) ||
      product.getInputs().size() < 2 || product.getInt("transA", 0) != 0)
    return std::nullopt;
  Value matrix = product.getInputs()[1];
  MatrixSource source = getMatrixSource(matrix);
  InputWeight weight{product, product, 1,
                     getReductionAxis(product, source.transposed)};
  if (source.transposed) {
    weight.holder = matrix.getDefiningOp<NodeOp>();
    weight.operand = 0;
  }
  auto input = getFloatTensor(product.getInputs()[0]);
  auto type = getFloatTensor(source.value);
  if (!input || !type || type.getRank() != 2 || !matrix.hasOneUse() ||
      !source.value.hasOneUse() || !weight.getConstant() ||
      !getConstantValue(source.value) || input.getShape().empty() ||
      input.getShape().back() != type.getDimSize(weight.axis))
    return std::nullopt;
  return weight;
}

MatrixView nibble::viewMatrix(InputWeight &weight,
                              const std::vector<float> &numbers) {
  auto type = cast<RankedTensorType>(weight.getConstant().getType());
  size_t inputs = type.getDimSize(weight.axis);
  size_t outputs = type.getDimSize(1 - weight.axis);
  return weight.axis == 0
             ? MatrixView::rowMajor(numbers.data(), inputs, outputs)
             : MatrixView::columnMajor(numbers.data(), inputs, outputs);
}

std::vector<InputGroup> nibble::collectInputGroups(ModuleOp module) {
  llvm::MapVector<Value, InputGroup> groups;
  module.walk([&](NodeOp node) {
    auto weight = getWeight(node);
    if (!weight)
      return;
    InputGroup &group = groups[node.getInputs()[0]];
    group.value = node.getInputs()[0];
    group.weights.push_back(*weight);
  });
  std::vector<InputGroup> list;
  for (auto &[value, group] : groups)
    list.push_back(std::move(group));
  return list;
}

/// A way to divide the value where all who read it are of the group.
static std::optional<ChannelDivision> planDivision(InputGroup &group,
                                                   std::string &why) {
  llvm::DenseSet<Operation *> products;
  for (InputWeight &weight : group.weights)
    products.insert(weight.product);
  for (OpOperand &use : group.value.getUses())
    if (use.getOperandNumber() != 0 || !products.contains(use.getOwner())) {
      why = "'" + getValueName(group.value) + "' has other readers";
      return std::nullopt;
    }
  return ChannelDivision::plan(group.value, why);
}

void nibble::addNote(ConstantOp constant, StringRef note) {
  Builder builder(constant.getContext());
  SmallVector<Attribute> notes;
  if (auto known = constant->getAttrOfType<ArrayAttr>(kNotesAttrName))
    notes.assign(known.begin(), known.end());
  notes.push_back(builder.getStringAttr(note));
  constant->setAttr(kNotesAttrName, builder.getArrayAttr(notes));
}

void nibble::addNote(InputGroup &group, StringRef note) {
  for (InputWeight &weight : group.weights)
    addNote(weight.getConstant(), note);
}

//===----------------------------------------------------------------------===//
// Rescaling
//===----------------------------------------------------------------------===//

namespace {
class InputRescaler {
public:
  InputRescaler(ActivationRanges &ranges, ChooseFactors choose)
      : ranges(ranges), choose(choose) {}
  LogicalResult rescale(InputGroup &group);

  RescaleCounts counts;

private:
  void insertDivision(InputGroup &group, ArrayRef<double> factors);
  void leave(InputGroup &group, const Twine &why);

  ActivationRanges &ranges;
  ChooseFactors choose;
};
} // namespace

void InputRescaler::leave(InputGroup &group, const Twine &why) {
  ++counts.left;
  addNote(group, ("inputs not rescaled: " + why).str());
}

/// A Mul between the value and the products of the group.
void InputRescaler::insertDivision(InputGroup &group,
                                   ArrayRef<double> factors) {
  OpBuilder builder(group.value.getContext());
  builder.setInsertionPointAfterValue(group.value);
  std::vector<float> inverse;
  inverse.reserve(factors.size());
  for (double factor : factors)
    inverse.push_back(static_cast<float>(1 / factor));
  std::string name = getValueName(group.value) + "_rescaled";
  Value constant = makeFloats(builder, name + "_factors",
                              {static_cast<int64_t>(inverse.size())}, inverse);
  NodeOp divided = makeNode(builder, "Mul", name, {group.value, constant},
                            group.value.getType());
  group.value = divided.getResult(0);
  for (InputWeight &weight : group.weights)
    weight.product.getInputsMutable()[0].set(group.value);
}

LogicalResult InputRescaler::rescale(InputGroup &group) {
  auto known = ranges.find(getValueName(group.value));
  size_t channels = getFloatTensor(group.value).getShape().back();
  if (known == ranges.end() || channels == 0 ||
      known->second.min.size() != channels)
    return success();
  ActivationRange range = known->second;
  std::string why;
  auto division = planDivision(group, why);
  std::vector<uint32_t> ties(channels);
  for (size_t i = 0; i < channels; ++i)
    ties[i] = division ? division->getTies()[i] : i;
  auto choice = choose(group, {range, ties});
  if (failed(choice))
    return failure();
  if (!*choice)
    return success();
  auto &[factors, before, after, note] = **choice;
  if (!(before > after)) {
    leave(group, "there is no gain");
    return success();
  }
  if (!division && !(before > kWorthwhile * after)) {
    leave(group, why + ", and a Mul for " +
                     llvm::formatv("{0:f2}", before / after) +
                     " times less noise does not pay");
    return success();
  }
  std::vector<double> numbers(factors.begin(), factors.end());
  if (division) {
    ++counts.folded;
    division->apply(numbers);
  } else {
    ++counts.inserted;
    insertDivision(group, numbers);
  }
  ranges[getValueName(group.value)] = divideRange(range, factors);
  int64_t extent = static_cast<int64_t>(channels);
  for (InputWeight &weight : group.weights) {
    SmallVector<int64_t> shape{1, 1};
    shape[weight.axis] = extent;
    multiplyConstant(weight.holder, weight.operand, shape, numbers);
  }
  addNote(group, note);
  return success();
}

FailureOr<RescaleCounts> nibble::rescaleInputs(ModuleOp module,
                                               ActivationRanges &ranges,
                                               ChooseFactors choose) {
  InputRescaler rescaler(ranges, choose);
  for (InputGroup &group : collectInputGroups(module))
    if (failed(rescaler.rescale(group)))
      return failure();
  requireFreeInitializers(module);
  return rescaler.counts;
}
