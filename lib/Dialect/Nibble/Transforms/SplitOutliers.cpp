//===- SplitOutliers.cpp - --nibble-split-outliers ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/SplitOutliers.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/RescaleInputs.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Dialect/Onnx/Utils/Affine.h"
#include "nibble/Dialect/Onnx/Utils/ChannelDivision.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"
#include "nibble/Numerics/FloatFormats.h"
#include "nibble/Numerics/InputScaling.h"

#include <cstring>

namespace nibble {
#define GEN_PASS_DEF_NIBBLESPLITOUTLIERS
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Where more than one in so many inputs is an outlier, there are none.
static constexpr size_t kFewest = 4;

namespace {
/// Splits what one value is multiplied with.
class GroupSplitter {
public:
  GroupSplitter(InputGroup &group, std::vector<uint32_t> outliers)
      : group(group), outliers(std::move(outliers)),
        name(getValueName(group.value)), builder(group.value.getContext()) {}
  void split();

private:
  Value makeRest(size_t channels);
  Value makeGather();
  Value makeOutlierWeight(InputWeight &weight);
  void split(InputWeight &weight, Value rest, Value gathered);

  InputGroup &group;
  std::vector<uint32_t> outliers;
  std::string name;
  OpBuilder builder;
};
} // namespace

/// The value without its outliers: 0 is exact in any code.
Value GroupSplitter::makeRest(size_t channels) {
  std::vector<float> mask(channels, 1);
  for (uint32_t input : outliers)
    mask[input] = 0;
  Value constant = makeFloats(builder, name + "_rest_mask",
                              {static_cast<int64_t>(channels)}, mask);
  return makeNode(builder, "Mul", name + kRestSuffix.str(),
                  {group.value, constant}, group.value.getType())
      .getResult(0);
}

/// The outliers alone.
Value GroupSplitter::makeGather() {
  auto type = getFloatTensor(group.value);
  int64_t count = static_cast<int64_t>(outliers.size());
  auto indexType = RankedTensorType::get({count}, builder.getI64Type());
  std::vector<int64_t> indices(outliers.begin(), outliers.end());
  std::vector<char> bytes(indices.size() * sizeof(int64_t));
  std::memcpy(bytes.data(), indices.data(), bytes.size());
  std::string indexName = name + "_outlier_inputs";
  Value constant = ConstantOp::create(
      builder, NameLoc::get(builder.getStringAttr(indexName)), indexType,
      builder.getStringAttr(indexName),
      makeTensorValue(indexType, indexName, std::move(bytes)),
      TensorField::raw_data, DictionaryAttr());
  SmallVector<Dimension> dimensions = getDimensions(type);
  dimensions.back() = {count, StringAttr()};
  return makeNode(builder, "Gather", name + "_outliers",
                  {group.value, constant},
                  getTensorType(dimensions, type.getElementType()),
                  {{"axis", builder.getI64IntegerAttr(type.getRank() - 1)}})
      .getResult(0);
}

/// Their rows of the weight, [outliers, outputs], stored in f16.
Value GroupSplitter::makeOutlierWeight(InputWeight &weight) {
  ConstantOp constant = weight.getConstant();
  std::vector<float> numbers = *getFloats(getConstantValue(constant));
  MatrixView matrix = viewMatrix(weight, numbers);
  std::vector<float> rows;
  for (uint32_t input : outliers)
    for (size_t n = 0; n < matrix.cols; ++n)
      rows.push_back(roundToFormat(FloatFormat::F16, matrix.at(input, n),
                                   Overflow::Saturate));
  std::vector<char> bytes(rows.size() * sizeof(uint16_t));
  encodeArray(FloatFormat::F16, rows.data(), rows.size(),
              reinterpret_cast<uint16_t *>(bytes.data()));
  SmallVector<int64_t> shape{static_cast<int64_t>(outliers.size()),
                             static_cast<int64_t>(matrix.cols)};
  auto half = RankedTensorType::get(shape, builder.getF16Type());
  std::string halfName = (constant.getName() + ".outliers").str();
  Value stored =
      ConstantOp::create(builder, NameLoc::get(builder.getStringAttr(halfName)),
                         half, builder.getStringAttr(halfName),
                         makeTensorValue(half, halfName, std::move(bytes)),
                         TensorField::raw_data, DictionaryAttr());
  constexpr int64_t kFloat = 1; // TensorProto.DataType
  return makeNode(builder, "Cast", halfName + "_float", {stored},
                  RankedTensorType::get(shape, builder.getF32Type()),
                  {{"to", builder.getI64IntegerAttr(kFloat)}})
      .getResult(0);
}

/// y = rest W' + outliers W'': W' has zeros where W'' has the numbers.
void GroupSplitter::split(InputWeight &weight, Value rest, Value gathered) {
  NodeOp product = weight.product;
  builder.setInsertionPoint(product);
  Value rows = makeOutlierWeight(weight);
  auto type = getFloatTensor(weight.getConstant().getResult());
  SmallVector<int64_t> shape{1, 1};
  shape[weight.axis] = type.getDimSize(weight.axis);
  std::vector<double> kept(shape[weight.axis], 1);
  for (uint32_t input : outliers)
    kept[input] = 0;
  multiplyConstant(weight.holder, weight.operand, shape, kept);
  product.getInputsMutable()[0].set(rest);
  Value result = product.getResult(0);
  std::string output = product.getOutputName(0).str();
  product.setOutputsAttr(builder.getStrArrayAttr({output + "_rest"}));
  builder.setInsertionPointAfter(product);
  NodeOp apart = makeNode(builder, "MatMul", output + "_outliers",
                          {gathered, rows}, result.getType());
  apart->setAttr(kKeptAttrName,
                 builder.getStringAttr("it holds the outliers of '" + name +
                                       "', in 16 bits"));
  NodeOp sum = makeNode(builder, "Add", output, {result, apart.getResult(0)},
                        result.getType());
  // The product keeps its name, which may be that of its output.
  sum.setNameAttr(builder.getStringAttr(output + "_sum"));
  result.replaceAllUsesExcept(sum.getResult(0), sum);
}

void GroupSplitter::split() {
  builder.setInsertionPointAfterValue(group.value);
  Value rest = makeRest(getFloatTensor(group.value).getShape().back());
  Value gathered = makeGather();
  for (InputWeight &weight : group.weights)
    split(weight, rest, gathered);
}

SplitCounts nibble::splitOutliers(ModuleOp module, ActivationRanges &ranges,
                                  float threshold) {
  SplitCounts counts;
  for (InputGroup &group : collectInputGroups(module)) {
    std::string name = getValueName(group.value);
    auto known = ranges.find(name);
    size_t channels = getFloatTensor(group.value).getShape().back();
    if (known == ranges.end() || known->second.min.size() != channels)
      continue;
    ActivationRange range = known->second;
    std::vector<float> maxima(channels);
    for (size_t i = 0; i < channels; ++i)
      maxima[i] = std::max(std::abs(range.min[i]), std::abs(range.max[i]));
    std::vector<uint32_t> outliers = findOutlierInputs(maxima, threshold);
    if (outliers.empty())
      continue;
    std::string found = std::to_string(outliers.size()) + " of " +
                        std::to_string(channels) + " inputs";
    if (outliers.size() * kFewest > channels) {
      ++counts.left;
      addNote(group, "LLM.int8(): " + found +
                         " are too many to be kept apart as outliers");
      continue;
    }
    for (uint32_t input : outliers) {
      range.min[input] = range.max[input] = range.mean[input] = 0;
      for (auto *numbers : {&range.variance, &range.magnitude})
        if (!numbers->empty())
          (*numbers)[input] = 0;
    }
    ranges[name + kRestSuffix.str()] = range;
    counts.inputs += outliers.size();
    ++counts.values;
    GroupSplitter(group, std::move(outliers)).split();
    addNote(group, "LLM.int8(): " + found + " are kept apart in f16");
  }
  requireFreeInitializers(module);
  return counts;
}

namespace {
struct SplitOutliers : nibble::impl::NibbleSplitOutliersBase<SplitOutliers> {
  using NibbleSplitOutliersBase::NibbleSplitOutliersBase;

  void runOnOperation() override {
    auto ranges = readActivationRanges(rangesFile, &getContext());
    if (failed(ranges))
      return signalPassFailure();
    if (!(threshold > 0)) {
      emitError(UnknownLoc::get(&getContext())) << "threshold is above 0";
      return signalPassFailure();
    }
    SplitCounts counts = splitOutliers(getOperation(), *ranges, threshold);
    numValues += counts.values;
    numInputs += counts.inputs;
    numLeft += counts.left;
  }
};
} // namespace
