//===- ChannelDivision.cpp - Divide a value by changing constants ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/ChannelDivision.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"
#include "nibble/Dialect/Onnx/Utils/Affine.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"

#include <numeric>
#include <utility>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Shapes
//===----------------------------------------------------------------------===//

static size_t countElements(ArrayRef<int64_t> shape) {
  return std::accumulate(shape.begin(), shape.end(), size_t{1},
                         std::multiplies<>());
}

static SmallVector<size_t> getStrides(ArrayRef<int64_t> shape) {
  SmallVector<size_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;)
    strides[i - 1] = strides[i] * shape[i];
  return strides;
}

/// For each element of a tensor of `shape`, in row-major order, the sum of its
/// indices times `strides`.
static std::vector<size_t> listOffsets(ArrayRef<int64_t> shape,
                                       ArrayRef<size_t> strides) {
  std::vector<size_t> offsets{0};
  offsets.reserve(countElements(shape));
  for (auto [extent, stride] : llvm::zip(shape, strides)) {
    std::vector<size_t> inner;
    inner.reserve(offsets.size() * extent);
    for (size_t offset : offsets)
      for (int64_t i = 0; i < extent; ++i)
        inner.push_back(offset + i * stride);
    offsets = std::move(inner);
  }
  return offsets;
}

/// For each element of a tensor of shape `result`, the place of the element of
/// a tensor of `shape` that is broadcast to it; or, where `shape` is larger,
/// that it is reduced to: dimensions are aligned at the end.
static std::vector<size_t> listBroadcast(ArrayRef<int64_t> shape,
                                         ArrayRef<int64_t> result) {
  SmallVector<size_t> strides = getStrides(shape), aligned(result.size(), 0);
  size_t common = std::min(shape.size(), result.size());
  for (size_t i = 1; i <= common; ++i)
    if (shape[shape.size() - i] != 1)
      aligned[result.size() - i] = strides[shape.size() - i];
  return listOffsets(result, aligned);
}

static SmallVector<int64_t> broadcastShapes(ArrayRef<int64_t> a,
                                            ArrayRef<int64_t> b) {
  if (a.size() < b.size())
    std::swap(a, b);
  SmallVector<int64_t> shape(a);
  for (size_t i = 1; i <= b.size(); ++i)
    if (int64_t &extent = shape[shape.size() - i]; extent == 1)
      extent = b[b.size() - i];
  return shape;
}

//===----------------------------------------------------------------------===//
// The plan
//===----------------------------------------------------------------------===//

namespace nibble::onnx {

/// Pushes a division from a value to what it is made from. A step that fails
/// says why.
class DivisionPlanner {
public:
  explicit DivisionPlanner(size_t channels) {
    division.ties.resize(channels);
    std::iota(division.ties.begin(), division.ties.end(), 0);
  }
  bool divide(Value value, const ChannelMap &map);

  ChannelDivision division;
  std::string why;

private:
  bool refuse(const Twine &reason);
  bool divideOperand(NodeOp node, unsigned operand, const ChannelMap &map,
                     bool multiply = false);
  bool divideFactor(NodeOp node, const ChannelMap &map);
  bool divideQuotient(NodeOp node, const ChannelMap &map);
  bool divideSum(NodeOp node, const ChannelMap &map);
  bool divideNormalization(NodeOp node, const ChannelMap &map, unsigned gain,
                           bool hasShift);
  bool divideProduct(NodeOp node, const ChannelMap &map);
  bool divideGemm(NodeOp node, const ChannelMap &map);
  bool divideTransposed(NodeOp node, const ChannelMap &map);
  bool divideReshaped(NodeOp node, const ChannelMap &map);
  bool divideGathered(NodeOp node, const ChannelMap &map);
  std::optional<ChannelMap> fit(const ChannelMap &map, Value value);
  uint32_t findTie(uint32_t channel) const;
  void tie(uint32_t a, uint32_t b);
};

} // namespace nibble::onnx

bool DivisionPlanner::refuse(const Twine &reason) {
  if (why.empty())
    why = reason.str();
  return false;
}

uint32_t DivisionPlanner::findTie(uint32_t channel) const {
  while (division.ties[channel] != channel)
    channel = division.ties[channel];
  return channel;
}

void DivisionPlanner::tie(uint32_t a, uint32_t b) {
  a = findTie(a);
  b = findTie(b);
  division.ties[std::max(a, b)] = std::min(a, b);
}

/// The map of a value that is broadcast to what `map` is of: channels that
/// share an element of it are tied.
std::optional<ChannelMap> DivisionPlanner::fit(const ChannelMap &map,
                                               Value value) {
  ArrayRef<int64_t> extents =
      cast<RankedTensorType>(value.getType()).getShape();
  ChannelMap fitted;
  fitted.shape.assign(extents.size(), 1);
  size_t common = std::min(extents.size(), map.shape.size());
  for (size_t i = 1; i <= common; ++i) {
    int64_t wanted = map.shape[map.shape.size() - i];
    int64_t extent = extents[extents.size() - i];
    if (wanted == 1 || extent == 1)
      continue;
    if (wanted != extent) {
      refuse("the shape of '" + getValueName(value) + "' is not known");
      return std::nullopt;
    }
    fitted.shape[extents.size() - i] = extent;
  }
  constexpr uint32_t none = -1;
  fitted.channels.assign(countElements(fitted.shape), none);
  for (auto [place, channel] :
       llvm::zip(listBroadcast(fitted.shape, map.shape), map.channels)) {
    uint32_t &known = fitted.channels[place];
    if (known == none)
      known = channel;
    else
      tie(known, channel);
  }
  return fitted;
}

/// An operand of an elementwise op. A constant may grow to the shape of `map`.
bool DivisionPlanner::divideOperand(NodeOp node, unsigned operand,
                                    const ChannelMap &map, bool multiply) {
  Value value = node.getInput(operand);
  if (!value)
    return true;
  if (!getFloatTensor(value))
    return refuse("'" + getValueName(value) + "' is no tensor of f32");
  if (getConstantValue(value)) {
    // A copy of more than a number a channel would cost memory.
    if (!value.hasOneUse() && getFloatTensor(value).getNumElements() >
                                  static_cast<int64_t>(division.ties.size()))
      return refuse("'" + getValueName(value) + "' has other readers");
    division.edits.push_back({node, operand, map, multiply});
    return true;
  }
  if (multiply)
    return refuse("'" + getValueName(value) + "' is a computed divisor");
  if (!value.hasOneUse())
    return refuse("'" + getValueName(value) + "' has other readers");
  std::optional<ChannelMap> fitted = fit(map, value);
  return fitted && divide(value, *fitted);
}

/// One factor is enough: the first that leaves all channels free, or else the
/// first that can be divided.
bool DivisionPlanner::divideFactor(NodeOp node, const ChannelMap &map) {
  std::optional<DivisionPlanner> chosen;
  SmallVector<unsigned> operands{1, 0};
  if (getConstantValue(node.getInput(0)))
    std::swap(operands[0], operands[1]);
  for (unsigned operand : operands) {
    DivisionPlanner attempt = *this;
    if (!attempt.divideOperand(node, operand, map)) {
      refuse(attempt.why);
      continue;
    }
    bool isFree = attempt.division.ties == division.ties;
    if (isFree || !chosen)
      chosen = std::move(attempt);
    if (isFree)
      break;
  }
  if (!chosen)
    return false;
  *this = std::move(*chosen);
  return true;
}

bool DivisionPlanner::divideQuotient(NodeOp node, const ChannelMap &map) {
  if (getConstantValue(node.getInput(1)))
    return divideOperand(node, 1, map, /*multiply=*/true);
  return divideOperand(node, 0, map);
}

bool DivisionPlanner::divideSum(NodeOp node, const ChannelMap &map) {
  return divideOperand(node, 0, map) && divideOperand(node, 1, map);
}

/// True where the channels of `map` lie along dimension `axis` only.
static bool isAlong(const ChannelMap &map, size_t axis) {
  for (auto [i, extent] : llvm::enumerate(map.shape))
    if (i != axis && extent != 1)
      return false;
  return true;
}

bool DivisionPlanner::divideNormalization(NodeOp node, const ChannelMap &map,
                                          unsigned gain, bool hasShift) {
  if (!isAlong(map, map.shape.size() - 1))
    return refuse("'" + node.getDisplayName() + "' has another gain");
  ChannelMap last{{map.shape.back()}, map.channels};
  return divideOperand(node, gain, last) &&
         (!hasShift || divideOperand(node, gain + 1, last));
}

/// The second factor, whose last dimension is the result's, and whose
/// dimensions before the last two are broadcast to the result's.
bool DivisionPlanner::divideProduct(NodeOp node, const ChannelMap &map) {
  auto left = getFloatTensor(node.getInput(0));
  auto right = getFloatTensor(node.getInput(1));
  size_t rank = map.shape.size();
  if (!left || !right || left.getRank() < 2 || right.getRank() < 2 ||
      map.shape[rank - 2] != 1)
    return refuse("the rows of '" + node.getDisplayName() + "' differ");
  auto fitted = fit(map, node.getInput(1));
  return fitted && divideOperand(node, 1, *fitted);
}

bool DivisionPlanner::divideGemm(NodeOp node, const ChannelMap &map) {
  if (!isAlong(map, 1))
    return refuse("the rows of '" + node.getDisplayName() + "' differ");
  ChannelMap columns = map;
  if (node.getInt("transB", 0) != 0)
    std::swap(columns.shape[0], columns.shape[1]);
  return divideOperand(node, 1, columns) && divideOperand(node, 2, map);
}

bool DivisionPlanner::divideTransposed(NodeOp node, const ChannelMap &map) {
  size_t rank = map.shape.size();
  SmallVector<int64_t> order;
  if (std::optional<ArrayRef<int64_t>> given = node.getInts("perm"))
    order.assign(given->begin(), given->end());
  else
    for (size_t i = rank; i-- > 0;)
      order.push_back(i);
  if (order.size() != rank || llvm::any_of(order, [&](int64_t axis) {
        return axis < 0 || axis >= static_cast<int64_t>(rank);
      }))
    return refuse("'" + node.getDisplayName() + "' is malformed");
  // Dimension i of the result is dimension order[i] of the operand.
  ChannelMap moved;
  moved.shape.resize(rank);
  SmallVector<size_t> strides = getStrides(map.shape), movedStrides(rank);
  for (size_t i = 0; i < rank; ++i) {
    moved.shape[order[i]] = map.shape[i];
    movedStrides[order[i]] = strides[i];
  }
  for (size_t place : listOffsets(moved.shape, movedStrides))
    moved.channels.push_back(map.channels[place]);
  return divideOperand(node, 0, moved);
}

/// Channels must lie in dimensions at the end that the operand has as well,
/// perhaps split otherwise.
bool DivisionPlanner::divideReshaped(NodeOp node, const ChannelMap &map) {
  auto from = getFloatTensor(node.getInput(0));
  auto to = getFloatTensor(node.getResult(0));
  if (!from || !to)
    return refuse("the shape of '" + node.getDisplayName() + "' is not known");
  size_t first =
      llvm::find_if(map.shape, [](int64_t extent) { return extent != 1; }) -
      map.shape.begin();
  ArrayRef<int64_t> tail = to.getShape().drop_front(first);
  size_t start = from.getRank();
  int64_t count = 1;
  bool isKnown = llvm::none_of(tail, ShapedType::isDynamic);
  int64_t wanted = isKnown ? countElements(tail) : 0;
  while (isKnown && count < wanted && start > 0) {
    isKnown = !from.isDynamicDim(--start);
    count *= isKnown ? from.getDimSize(start) : 1;
  }
  if (!isKnown || count != wanted)
    return refuse("'" + node.getDisplayName() +
                  "' joins channels with other dimensions");
  ChannelMap reshaped;
  reshaped.shape.assign(start, 1);
  reshaped.shape.append(from.getShape().begin() + start, from.getShape().end());
  for (size_t place :
       listBroadcast(ArrayRef(map.shape).drop_front(first), tail))
    reshaped.channels.push_back(map.channels[place]);
  return divideOperand(node, 0, reshaped);
}

/// Slices by constant indices, which repeat or order them. Channels that come
/// from one slice are tied.
bool DivisionPlanner::divideGathered(NodeOp node, const ChannelMap &map) {
  auto data = getFloatTensor(node.getInput(0));
  auto indices = getIntegers(getConstantValue(node.getInput(1)));
  auto indexType = dyn_cast<RankedTensorType>(node.getInput(1).getType());
  int64_t rank = static_cast<int64_t>(map.shape.size());
  int64_t axis = node.getInt("axis", 0);
  axis += axis < 0 ? rank : 0;
  if (!data || !indices || !indexType || indexType.getRank() != 1 ||
      data.getRank() != rank || axis >= rank || data.isDynamicDim(axis))
    return refuse("'" + node.getDisplayName() +
                  "' gathers by numbers that "
                  "are not known");
  if (map.shape[axis] == 1)
    return divideOperand(node, 0, map);
  int64_t extent = data.getDimSize(axis);
  if (map.shape[axis] != static_cast<int64_t>(indices->size()) ||
      llvm::any_of(*indices, [&](int64_t index) {
        return index < -extent || index >= extent;
      }))
    return refuse("'" + node.getDisplayName() + "' is malformed");
  ChannelMap gathered;
  gathered.shape = map.shape;
  gathered.shape[axis] = extent;
  SmallVector<size_t> strides = getStrides(gathered.shape), along(rank, 0);
  size_t stride = std::exchange(strides[axis], 0);
  along[axis] = 1;
  constexpr uint32_t none = -1;
  gathered.channels.assign(countElements(gathered.shape), none);
  for (auto [channel, base, position] :
       llvm::zip(map.channels, listOffsets(map.shape, strides),
                 listOffsets(map.shape, along))) {
    int64_t index = (*indices)[position];
    index += index < 0 ? extent : 0;
    uint32_t &known = gathered.channels[base + index * stride];
    if (known == none)
      known = channel;
    else
      tie(known, channel);
  }
  if (llvm::is_contained(gathered.channels, none))
    return refuse("'" + node.getDisplayName() + "' leaves slices out");
  return divideOperand(node, 0, gathered);
}

bool DivisionPlanner::divide(Value value, const ChannelMap &map) {
  auto node = value.getDefiningOp<NodeOp>();
  if (!node)
    return refuse("'" + getValueName(value) + "' is an input");
  if (value == node.getResult(0)) {
    if (node.isOnnx("Mul"))
      return divideFactor(node, map);
    if (node.isOnnx("Div"))
      return divideQuotient(node, map);
    if (node.isOnnx("Add") || node.isOnnx("Sub"))
      return divideSum(node, map);
    if (node.isOnnx("LayerNormalization"))
      return divideNormalization(node, map, 1, /*hasShift=*/true);
    if (node.isOnnx("RMSNormalization") ||
        node.isOnnx("SimplifiedLayerNormalization"))
      return divideNormalization(node, map, 1, /*hasShift=*/false);
    if (node.isMicrosoft("SkipLayerNormalization"))
      return divideNormalization(node, map, 2, /*hasShift=*/true);
    if (node.isMicrosoft("SkipSimplifiedLayerNormalization"))
      return divideNormalization(node, map, 2, /*hasShift=*/false);
    if (node.isOnnx("MatMul"))
      return divideProduct(node, map);
    if (node.isOnnx("Gemm"))
      return divideGemm(node, map);
    if (node.isOnnx("Transpose"))
      return divideTransposed(node, map);
    if (node.isOnnx("Gather"))
      return divideGathered(node, map);
    if (node.isOnnx("Reshape") || node.isOnnx("Flatten") ||
        node.isOnnx("Squeeze") || node.isOnnx("Unsqueeze"))
      return divideReshaped(node, map);
    // f(x / s) = f(x) / s for positive s; Expand only repeats.
    for (StringRef opType : {"Relu", "LeakyRelu", "Abs", "Identity", "Expand"})
      if (node.isOnnx(opType))
        return divideOperand(node, 0, map);
  }
  return refuse("'" + getValueName(value) + "' is made by " + node.getOpType());
}

std::optional<ChannelDivision> ChannelDivision::plan(Value value,
                                                     std::string &why) {
  auto type = getFloatTensor(value);
  if (!type || type.getRank() < 1 || type.isDynamicDim(type.getRank() - 1)) {
    why = "'" + getValueName(value) +
          "' is no tensor of f32 with a known last dimension";
    return std::nullopt;
  }
  size_t channels = type.getShape().back();
  ChannelMap map;
  map.shape.assign(type.getRank(), 1);
  map.shape.back() = channels;
  map.channels.resize(channels);
  std::iota(map.channels.begin(), map.channels.end(), 0);
  DivisionPlanner planner(channels);
  if (!planner.divide(value, map)) {
    why = planner.why;
    return std::nullopt;
  }
  std::vector<uint32_t> &ties = planner.division.ties;
  for (uint32_t &tie : ties) // Those of smaller channels are final already.
    tie = ties[tie];
  return std::move(planner.division);
}

//===----------------------------------------------------------------------===//
// Its execution
//===----------------------------------------------------------------------===//

void ChannelDivision::apply(ArrayRef<double> factors) const {
  for (const Edit &edit : edits) {
    std::vector<double> numbers;
    numbers.reserve(edit.map.channels.size());
    for (uint32_t channel : edit.map.channels) {
      double factor = factors[ties[channel]];
      numbers.push_back(edit.multiply ? factor : 1 / factor);
    }
    multiplyConstant(edit.node, edit.operand, edit.map.shape, numbers);
  }
}

void onnx::multiplyConstant(NodeOp node, unsigned operand,
                            ArrayRef<int64_t> shape, ArrayRef<double> factors) {
  Value old = node.getInputs()[operand];
  ArrayRef<int64_t> oldShape = getFloatTensor(old).getShape();
  while (shape.size() > oldShape.size() && shape.front() == 1)
    shape = shape.drop_front();
  std::vector<float> numbers = *getFloats(getConstantValue(old));
  SmallVector<int64_t> newShape = broadcastShapes(oldShape, shape);
  std::vector<float> products;
  products.reserve(countElements(newShape));
  for (auto [place, factor] : llvm::zip(listBroadcast(oldShape, newShape),
                                        listBroadcast(shape, newShape)))
    products.push_back(static_cast<float>(numbers[place] * factors[factor]));
  bool isOwn = old.hasOneUse();
  std::string name =
      isOwn
          ? getValueName(old)
          : (node.getOutputName(0) + "_operand" + Twine(operand) + "_rescaled")
                .str();
  OpBuilder builder(node);
  Value constant = makeFloats(builder, name, newShape, products);
  if (isOwn)
    constant.getDefiningOp()->setDiscardableAttrs(
        old.getDefiningOp()->getDiscardableAttrDictionary());
  node.getInputsMutable()[operand].set(constant);
  if (isOwn)
    old.getDefiningOp()->erase();
}
