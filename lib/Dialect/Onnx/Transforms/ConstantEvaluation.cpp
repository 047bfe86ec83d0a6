//===- ConstantEvaluation.cpp - Small constants, computed -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ConstantEvaluation.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/StringMap.h"

#include <cmath>
#include <cstring>
#include <limits>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// What an evaluator gets.
struct Evaluation {
  NodeOp node;
  int64_t version;
  ArrayRef<const Tensor *> operands;
  ArrayRef<RankedTensorType> types;

  bool has(size_t index) const {
    return index < operands.size() && operands[index];
  }
  const Tensor &get(size_t index) const { return *operands[index]; }
};

using Result = std::optional<SmallVector<Tensor>>;
/// An evaluator, and how many operands it needs at least.
struct Evaluator {
  Result (*evaluate)(Evaluation &);
  unsigned operands;
};

//===----------------------------------------------------------------------===//
// Elements
//===----------------------------------------------------------------------===//

template <typename T> T load(const Tensor &tensor, int64_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

/// A file may hold any byte.
template <> bool load<bool>(const Tensor &tensor, int64_t index) {
  return tensor.bytes[index] != 0;
}

template <typename T> void store(Tensor &tensor, int64_t index, T value) {
  std::memcpy(tensor.bytes.data() + index * sizeof(T), &value, sizeof(T));
}

size_t getElementSize(RankedTensorType type) {
  return getBitWidth(type.getElementType()) / 8;
}

Tensor makeTensor(RankedTensorType type) {
  return {type,
          std::vector<char>(type.getNumElements() * getElementSize(type))};
}

Result one(Tensor tensor) {
  SmallVector<Tensor> results;
  results.push_back(std::move(tensor));
  return results;
}

std::optional<SmallVector<int64_t>> getIntegers(const Tensor &tensor) {
  SmallVector<int64_t> integers;
  for (int64_t i = 0; i < tensor.type.getNumElements(); ++i)
    if (tensor.type.getElementType().isInteger(64))
      integers.push_back(load<int64_t>(tensor, i));
    else if (tensor.type.getElementType().isInteger(32))
      integers.push_back(load<int32_t>(tensor, i));
    else
      return std::nullopt;
  return integers;
}

/// What sums and products are computed in: unsigned integers wrap around.
template <typename T> auto toWrapping(T value) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<uint64_t>(static_cast<std::make_unsigned_t<T>>(value));
  else
    return value;
}

/// Calls `body` with a value of the C++ type of the elements; a bool is a byte.
template <typename Body> Result dispatch(Type type, Body body) {
  if (type.isF32())
    return body(float());
  if (type.isF64())
    return body(double());
  auto integer = dyn_cast<IntegerType>(type);
  if (!integer)
    return std::nullopt;
  bool isUnsigned = integer.isUnsigned();
  switch (integer.getWidth()) {
  case 1:
    return body(bool());
  case 8:
    return isUnsigned ? body(uint8_t()) : body(int8_t());
  case 16:
    return isUnsigned ? body(uint16_t()) : body(int16_t());
  case 32:
    return isUnsigned ? body(uint32_t()) : body(int32_t());
  case 64:
    return isUnsigned ? body(uint64_t()) : body(int64_t());
  default:
    return std::nullopt;
  }
}

//===----------------------------------------------------------------------===//
// Positions
//===----------------------------------------------------------------------===//

/// Calls `body(flat index, index along each dimension)` for all of a shape.
template <typename Body> void forEach(ArrayRef<int64_t> shape, Body body) {
  SmallVector<int64_t> index(shape.size(), 0);
  int64_t count = 1;
  for (int64_t size : shape)
    count *= size;
  for (int64_t flat = 0; flat < count; ++flat) {
    body(flat, ArrayRef<int64_t>(index));
    for (size_t axis = shape.size(); axis-- > 0;) {
      if (++index[axis] < shape[axis])
        break;
      index[axis] = 0;
    }
  }
}

int64_t flatten(ArrayRef<int64_t> index, ArrayRef<int64_t> shape) {
  int64_t flat = 0;
  for (auto [position, size] : llvm::zip(index, shape))
    flat = flat * size + position;
  return flat;
}

/// Where a broadcast operand of `shape` has the element of the result's
/// `index`.
int64_t flattenBroadcast(ArrayRef<int64_t> index, ArrayRef<int64_t> shape) {
  index = index.take_back(shape.size());
  int64_t flat = 0;
  for (auto [position, size] : llvm::zip(index, shape))
    flat = flat * size + (size == 1 ? 0 : position);
  return flat;
}

/// A tensor of `type` whose element at an index is that of `source` at
/// `position(index)`.
template <typename Position>
Result pick(RankedTensorType type, const Tensor &source, Position position) {
  Tensor result = makeTensor(type);
  size_t size = getElementSize(type);
  int64_t count = source.type.getNumElements();
  bool isInside = true;
  forEach(type.getShape(), [&](int64_t flat, ArrayRef<int64_t> index) {
    int64_t from = position(index);
    // Attributes that fit the shapes never lead outside.
    isInside &= from >= 0 && from < count;
    if (isInside)
      std::memcpy(result.bytes.data() + flat * size,
                  source.bytes.data() + from * size, size);
  });
  return isInside ? one(std::move(result)) : std::nullopt;
}

//===----------------------------------------------------------------------===//
// Moves
//===----------------------------------------------------------------------===//

Result evaluateCopy(Evaluation &e) {
  if (e.types[0].getNumElements() != e.get(0).type.getNumElements() ||
      e.types[0].getElementType() != e.get(0).type.getElementType())
    return std::nullopt;
  return one({e.types[0], e.get(0).bytes});
}

/// True where a tensor of `shape` broadcasts to the shape of `type`.
bool broadcastsTo(ArrayRef<int64_t> shape, RankedTensorType type) {
  if (static_cast<int64_t>(shape.size()) > type.getRank())
    return false;
  for (auto [size, target] :
       llvm::zip(shape, type.getShape().take_back(shape.size())))
    if (size != 1 && size != target)
      return false;
  return true;
}

Result evaluateExpand(Evaluation &e) {
  const Tensor &data = e.get(0);
  if (!broadcastsTo(data.type.getShape(), e.types[0]))
    return std::nullopt;
  return pick(e.types[0], data, [&](ArrayRef<int64_t> index) {
    return flattenBroadcast(index, data.type.getShape());
  });
}

Result evaluateTile(Evaluation &e) {
  const Tensor &data = e.get(0);
  return pick(e.types[0], data, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> position(index);
    for (auto [axis, size] : llvm::enumerate(data.type.getShape()))
      position[axis] %= size;
    return flatten(position, data.type.getShape());
  });
}

Result evaluateTranspose(Evaluation &e) {
  const Tensor &data = e.get(0);
  int64_t rank = data.type.getRank();
  auto permutation = e.node.getInts("perm");
  return pick(e.types[0], data, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> position(rank);
    for (int64_t i = 0; i < rank; ++i)
      position[permutation ? (*permutation)[i] : rank - 1 - i] = index[i];
    return flatten(position, data.type.getShape());
  });
}

Result evaluateGather(Evaluation &e) {
  const Tensor &data = e.get(0);
  ArrayRef<int64_t> shape = data.type.getShape();
  int64_t axis = e.node.getInt("axis", 0);
  axis += axis < 0 ? data.type.getRank() : 0;
  auto indices = getIntegers(e.get(1));
  if (!indices)
    return std::nullopt;
  for (int64_t &index : *indices) {
    index += index < 0 ? shape[axis] : 0;
    if (index < 0 || index >= shape[axis])
      return std::nullopt;
  }
  ArrayRef<int64_t> indexShape = e.get(1).type.getShape();
  return pick(e.types[0], data, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> position(index.take_front(axis));
    position.push_back(
        (*indices)[flatten(index.slice(axis, indexShape.size()), indexShape)]);
    position.append(index.begin() + axis + indexShape.size(), index.end());
    return flatten(position, shape);
  });
}

Result evaluateSlice(Evaluation &e) {
  const Tensor &data = e.get(0);
  ArrayRef<int64_t> shape = data.type.getShape();
  auto integers = [&](unsigned operand,
                      StringRef name) -> std::optional<SmallVector<int64_t>> {
    if (e.version >= 10)
      return e.has(operand) ? getIntegers(e.get(operand)) : std::nullopt;
    if (auto attribute = e.node.getInts(name))
      return SmallVector<int64_t>(*attribute);
    return std::nullopt;
  };
  auto starts = integers(1, "starts"), axes = integers(3, "axes"),
       steps = integers(4, "steps");
  if (!starts || (axes && axes->size() != starts->size()) ||
      (steps && steps->size() != starts->size()))
    return std::nullopt;
  SmallVector<int64_t> first(shape.size(), 0), step(shape.size(), 1);
  for (auto [index, start] : llvm::enumerate(*starts)) {
    int64_t axis = axes ? (*axes)[index] : index;
    axis += axis < 0 ? shape.size() : 0;
    step[axis] = steps ? (*steps)[index] : 1;
    int64_t last = step[axis] > 0 ? shape[axis] : shape[axis] - 1;
    start += start < 0 ? shape[axis] : 0;
    first[axis] = std::min(std::max<int64_t>(start, 0), last);
  }
  return pick(e.types[0], data, [&](ArrayRef<int64_t> index) {
    SmallVector<int64_t> position(index);
    for (auto [axis, value] : llvm::enumerate(position))
      value = first[axis] + value * step[axis];
    return flatten(position, shape);
  });
}

Result evaluateConcat(Evaluation &e) {
  RankedTensorType type = e.types[0];
  int64_t axis = e.node.getInt("axis", 1);
  axis += axis < 0 ? type.getRank() : 0;
  Tensor result = makeTensor(type);
  size_t size = getElementSize(type);
  int64_t begin = 0;
  for (const Tensor *part : e.operands) {
    if (!part || part->type.getRank() != type.getRank())
      return std::nullopt;
    forEach(part->type.getShape(), [&](int64_t flat, ArrayRef<int64_t> index) {
      SmallVector<int64_t> position(index);
      position[axis] += begin;
      std::memcpy(result.bytes.data() +
                      flatten(position, type.getShape()) * size,
                  part->bytes.data() + flat * size, size);
    });
    begin += part->type.getDimSize(axis);
  }
  return one(std::move(result));
}

Result evaluateSplit(Evaluation &e) {
  const Tensor &data = e.get(0);
  int64_t axis = e.node.getInt("axis", 0);
  axis += axis < 0 ? data.type.getRank() : 0;
  SmallVector<Tensor> results;
  int64_t begin = 0;
  for (RankedTensorType type : e.types) {
    auto part = pick(type, data, [&](ArrayRef<int64_t> index) {
      SmallVector<int64_t> position(index);
      position[axis] += begin;
      return flatten(position, data.type.getShape());
    });
    if (!part)
      return std::nullopt;
    results.push_back(std::move(part->front()));
    begin += type.getDimSize(axis);
  }
  return results;
}

Result evaluateConstantOfShape(Evaluation &e) {
  Tensor result = makeTensor(e.types[0]);
  auto value =
      dyn_cast_if_present<TensorAttr>(e.node.getAttributeValue("value"));
  if (!value)
    return one(std::move(result));
  auto bytes = getTensorBytes(value.getValue());
  size_t size = getElementSize(e.types[0]);
  if (!bytes || bytes->bytes.size() != size)
    return std::nullopt;
  for (size_t begin = 0; begin < result.bytes.size(); begin += size)
    std::memcpy(result.bytes.data() + begin, bytes->bytes.data(), size);
  return one(std::move(result));
}

Result evaluateRange(Evaluation &e) {
  if (!e.has(2) || e.get(0).type != e.get(2).type ||
      e.get(0).type.getNumElements() != 1)
    return std::nullopt;
  return dispatch(e.types[0].getElementType(), [&](auto zero) -> Result {
    using T = decltype(zero);
    // Floats are summed up or multiplied, as the runtime likes.
    if constexpr (!std::is_integral_v<T> || std::is_same_v<T, bool>) {
      return std::nullopt;
    } else {
      Tensor result = makeTensor(e.types[0]);
      uint64_t value = toWrapping(load<T>(e.get(0), 0));
      uint64_t delta = toWrapping(load<T>(e.get(2), 0));
      for (int64_t i = 0; i < e.types[0].getNumElements(); ++i, value += delta)
        store<T>(result, i, static_cast<T>(value));
      return one(std::move(result));
    }
  });
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

template <typename T> constexpr bool isNumber = !std::is_same_v<T, bool>;

/// NaNs differ in bits from one machine to another.
template <typename T> bool isExact(T value) {
  if constexpr (std::is_floating_point_v<T>)
    return !std::isnan(value);
  return true;
}

struct Add {
  template <typename T> static std::optional<T> apply(T a, T b) {
    return static_cast<T>(toWrapping(a) + toWrapping(b));
  }
};
struct Subtract {
  template <typename T> static std::optional<T> apply(T a, T b) {
    return static_cast<T>(toWrapping(a) - toWrapping(b));
  }
};
struct Multiply {
  template <typename T> static std::optional<T> apply(T a, T b) {
    return static_cast<T>(toWrapping(a) * toWrapping(b));
  }
};

/// Integer division is undefined by 0, and where the quotient does not fit.
template <typename T> bool isDivisible(T a, T b) {
  if (b == T(0))
    return false;
  return !std::is_signed_v<T> || a != std::numeric_limits<T>::min() ||
         b != static_cast<T>(-1);
}

struct Divide {
  template <typename T> static std::optional<T> apply(T a, T b) {
    if constexpr (std::is_integral_v<T>)
      if (!isDivisible(a, b))
        return std::nullopt;
    return static_cast<T>(a / b);
  }
};
struct Minimum {
  template <typename T> static std::optional<T> apply(T a, T b) {
    // -0 and +0 compare equal.
    if (std::is_floating_point_v<T> && a == b)
      return std::nullopt;
    return std::min(a, b);
  }
};
struct Maximum {
  template <typename T> static std::optional<T> apply(T a, T b) {
    if (std::is_floating_point_v<T> && a == b)
      return std::nullopt;
    return std::max(a, b);
  }
};

/// Elementwise over the broadcast operands 0 and 1, of one type.
template <typename T, typename R, typename Function>
Result applyBinary(Evaluation &e, const Tensor &left, const Tensor &right,
                   Function function) {
  if (!broadcastsTo(left.type.getShape(), e.types[0]) ||
      !broadcastsTo(right.type.getShape(), e.types[0]))
    return std::nullopt;
  Tensor result = makeTensor(e.types[0]);
  bool isFolded = true;
  forEach(e.types[0].getShape(), [&](int64_t flat, ArrayRef<int64_t> index) {
    T a = load<T>(left, flattenBroadcast(index, left.type.getShape()));
    T b = load<T>(right, flattenBroadcast(index, right.type.getShape()));
    std::optional<R> value =
        isExact(a) && isExact(b) ? function(a, b) : std::nullopt;
    isFolded &= value && isExact(*value);
    if (isFolded)
      store<R>(result, flat, *value);
  });
  return isFolded ? one(std::move(result)) : std::nullopt;
}

template <typename Operation> Result evaluateArithmetic(Evaluation &e) {
  if (e.operands.size() != 2 ||
      e.get(0).type.getElementType() != e.get(1).type.getElementType())
    return std::nullopt;
  return dispatch(e.get(0).type.getElementType(), [&](auto zero) -> Result {
    using T = decltype(zero);
    if constexpr (!isNumber<T>)
      return std::nullopt;
    else
      return applyBinary<T, T>(e, e.get(0), e.get(1), [](T a, T b) {
        return Operation::template apply<T>(a, b);
      });
  });
}

Result evaluateMod(Evaluation &e) {
  if (e.operands.size() != 2 ||
      e.get(0).type.getElementType() != e.get(1).type.getElementType())
    return std::nullopt;
  bool isC = e.node.getInt("fmod", 0) != 0;
  return dispatch(e.get(0).type.getElementType(), [&](auto zero) -> Result {
    using T = decltype(zero);
    if constexpr (!std::is_integral_v<T> || !isNumber<T>)
      return std::nullopt;
    else
      return applyBinary<T, T>(
          e, e.get(0), e.get(1), [&](T a, T b) -> std::optional<T> {
            if (!isDivisible(a, b))
              return std::nullopt;
            T remainder = static_cast<T>(a % b);
            // The sign is the divisor's, or as in C the dividend's.
            if (!isC && remainder != 0 && (remainder < 0) != (b < 0))
              remainder = static_cast<T>(remainder + b);
            return remainder;
          });
  });
}

struct Equal {
  template <typename T> static bool apply(T a, T b) { return a == b; }
};
struct Less {
  template <typename T> static bool apply(T a, T b) { return a < b; }
};
struct LessOrEqual {
  template <typename T> static bool apply(T a, T b) { return a <= b; }
};
struct Greater {
  template <typename T> static bool apply(T a, T b) { return a > b; }
};
struct GreaterOrEqual {
  template <typename T> static bool apply(T a, T b) { return a >= b; }
};
struct And {
  static bool apply(bool a, bool b) { return a && b; }
};
struct Or {
  static bool apply(bool a, bool b) { return a || b; }
};
struct Xor {
  static bool apply(bool a, bool b) { return a != b; }
};

template <typename Operation> Result evaluateComparison(Evaluation &e) {
  if (e.operands.size() != 2 || e.version < 7 ||
      e.get(0).type.getElementType() != e.get(1).type.getElementType())
    return std::nullopt;
  return dispatch(e.get(0).type.getElementType(), [&](auto zero) -> Result {
    using T = decltype(zero);
    return applyBinary<T, bool>(e, e.get(0), e.get(1), [](T a, T b) {
      return std::optional<bool>(Operation::apply(a, b));
    });
  });
}

template <typename Operation> Result evaluateLogic(Evaluation &e) {
  if (!e.get(0).type.getElementType().isInteger(1))
    return std::nullopt;
  return evaluateComparison<Operation>(e);
}

Result evaluateWhere(Evaluation &e) {
  const Tensor &condition = e.get(0), &left = e.get(1), &right = e.get(2);
  if (!condition.type.getElementType().isInteger(1) ||
      left.type.getElementType() != right.type.getElementType() ||
      !llvm::all_of(e.operands, [&](const Tensor *operand) {
        return broadcastsTo(operand->type.getShape(), e.types[0]);
      }))
    return std::nullopt;
  Tensor result = makeTensor(e.types[0]);
  size_t size = getElementSize(e.types[0]);
  forEach(e.types[0].getShape(), [&](int64_t flat, ArrayRef<int64_t> index) {
    bool isLeft = load<bool>(
        condition, flattenBroadcast(index, condition.type.getShape()));
    const Tensor &source = isLeft ? left : right;
    std::memcpy(result.bytes.data() + flat * size,
                source.bytes.data() +
                    flattenBroadcast(index, source.type.getShape()) * size,
                size);
  });
  return one(std::move(result));
}

//===----------------------------------------------------------------------===//
// Unary ops
//===----------------------------------------------------------------------===//

template <typename T, typename R, typename Function>
Result applyUnary(Evaluation &e, Function function) {
  const Tensor &data = e.get(0);
  Tensor result = makeTensor(e.types[0]);
  for (int64_t i = 0; i < e.types[0].getNumElements(); ++i) {
    T element = load<T>(data, i);
    std::optional<R> value =
        isExact(element) ? function(element) : std::optional<R>();
    if (!value || !isExact(*value))
      return std::nullopt;
    store<R>(result, i, *value);
  }
  return one(std::move(result));
}

struct Negate {
  template <typename T> static T apply(T a) {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(-static_cast<uint64_t>(a));
    return -a;
  }
};
struct Absolute {
  template <typename T> static T apply(T a) {
    if constexpr (std::is_floating_point_v<T>)
      return std::fabs(a);
    return a < 0 ? Negate::apply(a) : a;
  }
};

template <typename Operation> Result evaluateUnary(Evaluation &e) {
  return dispatch(e.types[0].getElementType(), [&](auto zero) -> Result {
    using T = decltype(zero);
    if constexpr (!isNumber<T>)
      return std::nullopt;
    else
      return applyUnary<T, T>(
          e, [](T a) { return std::optional<T>(Operation::apply(a)); });
  });
}

/// Functions that every machine rounds alike.
template <double (*function)(double), float (*functionF)(float)>
Result evaluateFloatFunction(Evaluation &e) {
  if (e.types[0].getElementType().isF64())
    return applyUnary<double, double>(
        e, [](double a) { return std::optional(function(a)); });
  if (e.types[0].getElementType().isF32())
    return applyUnary<float, float>(
        e, [](float a) { return std::optional(functionF(a)); });
  return std::nullopt;
}

Result evaluateNot(Evaluation &e) {
  if (!e.types[0].getElementType().isInteger(1))
    return std::nullopt;
  return applyUnary<bool, bool>(e, [](bool a) { return std::optional(!a); });
}

/// A conversion as a C cast; std::nullopt where that is undefined.
template <typename From, typename To> std::optional<To> convert(From value) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To> &&
                isNumber<To>) {
    double low = static_cast<double>(std::numeric_limits<To>::min());
    double high = std::ldexp(1.0, std::numeric_limits<To>::digits);
    double truncated = std::trunc(static_cast<double>(value));
    if (truncated < low || truncated >= high)
      return std::nullopt;
  }
  return static_cast<To>(value);
}

Result evaluateCast(Evaluation &e) {
  return dispatch(e.get(0).type.getElementType(), [&](auto from) -> Result {
    using From = decltype(from);
    return dispatch(e.types[0].getElementType(), [&](auto to) -> Result {
      using To = decltype(to);
      return applyUnary<From, To>(e,
                                  [](From a) { return convert<From, To>(a); });
    });
  });
}

const llvm::StringMap<Evaluator> &getEvaluators() {
  static const llvm::StringMap<Evaluator> evaluators = {
      {"Abs", {evaluateUnary<Absolute>, 1}},
      {"Add", {evaluateArithmetic<Add>, 2}},
      {"And", {evaluateLogic<And>, 2}},
      {"Cast", {evaluateCast, 1}},
      {"CastLike", {evaluateCast, 1}},
      {"Ceil", {evaluateFloatFunction<std::ceil, std::ceil>, 1}},
      {"Concat", {evaluateConcat, 1}},
      {"ConstantOfShape", {evaluateConstantOfShape, 1}},
      {"Div", {evaluateArithmetic<Divide>, 2}},
      {"Equal", {evaluateComparison<Equal>, 2}},
      {"Expand", {evaluateExpand, 2}},
      {"Flatten", {evaluateCopy, 1}},
      {"Floor", {evaluateFloatFunction<std::floor, std::floor>, 1}},
      {"Gather", {evaluateGather, 2}},
      {"Greater", {evaluateComparison<Greater>, 2}},
      {"GreaterOrEqual", {evaluateComparison<GreaterOrEqual>, 2}},
      {"Identity", {evaluateCopy, 1}},
      {"Less", {evaluateComparison<Less>, 2}},
      {"LessOrEqual", {evaluateComparison<LessOrEqual>, 2}},
      {"Max", {evaluateArithmetic<Maximum>, 2}},
      {"Min", {evaluateArithmetic<Minimum>, 2}},
      {"Mod", {evaluateMod, 2}},
      {"Mul", {evaluateArithmetic<Multiply>, 2}},
      {"Neg", {evaluateUnary<Negate>, 1}},
      {"Not", {evaluateNot, 1}},
      {"Or", {evaluateLogic<Or>, 2}},
      {"Range", {evaluateRange, 3}},
      {"Reshape", {evaluateCopy, 1}},
      {"Slice", {evaluateSlice, 1}},
      {"Split", {evaluateSplit, 1}},
      {"Sqrt", {evaluateFloatFunction<std::sqrt, std::sqrt>, 1}},
      {"Squeeze", {evaluateCopy, 1}},
      {"Sub", {evaluateArithmetic<Subtract>, 2}},
      {"Tile", {evaluateTile, 2}},
      {"Transpose", {evaluateTranspose, 1}},
      {"Unsqueeze", {evaluateCopy, 1}},
      {"Where", {evaluateWhere, 3}},
      {"Xor", {evaluateLogic<Xor>, 2}},
  };
  return evaluators;
}

} // namespace

std::optional<SmallVector<Tensor>>
onnx::evaluate(NodeOp node, int64_t version, ArrayRef<const Tensor *> operands,
               ArrayRef<RankedTensorType> types) {
  auto it = getEvaluators().find(node.getOpType());
  StringRef domain = node.getDomain().value_or("");
  if (it == getEvaluators().end() || (!domain.empty() && domain != "ai.onnx"))
    return std::nullopt;
  const Evaluator &evaluator = it->second;
  if (operands.size() < evaluator.operands || types.empty() ||
      !llvm::all_of(operands.take_front(evaluator.operands),
                    [](const Tensor *operand) { return operand != nullptr; }))
    return std::nullopt;
  // Elements narrower than a byte would need other addressing; strings have no
  // bytes.
  auto isAddressable = [](RankedTensorType type) {
    unsigned width = getBitWidth(type.getElementType());
    return width != 0 && width % 8 == 0;
  };
  if (!llvm::all_of(types, isAddressable))
    return std::nullopt;
  for (const Tensor *operand : operands)
    if (operand && !isAddressable(operand->type))
      return std::nullopt;
  // Before opset 7 the second operand of a binary op is fitted by attributes.
  if (version < 7 && node.getAttributeValue("broadcast"))
    return std::nullopt;
  Evaluation evaluation{node, version, operands, types};
  return evaluator.evaluate(evaluation);
}
