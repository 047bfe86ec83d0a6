//===- SplitSparseOutliers.cpp - --nibble-split-sparse-outliers -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/SplitSparseOutliers.h"

#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Nibble/Transforms/Weights.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"
#include "nibble/Numerics/FloatFormats.h"

#include <cstring>

namespace nibble {
#define GEN_PASS_DEF_NIBBLESPLITSPARSEOUTLIERS
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Readers
//===----------------------------------------------------------------------===//

namespace {
/// The products that read a matrix, and the dimension that all of them sum
/// over.
struct Readers {
  SmallVector<NodeOp> products;
  std::optional<unsigned> reductionAxis;

  bool add(Value weight, bool transposed);
};
} // namespace

static bool isPlainProduct(NodeOp node, unsigned operand) {
  if (!node || operand != 1 || node.getNumResults() != 1 ||
      !(node.isOnnx("MatMul") || node.isOnnx("Gemm")) ||
      node.getInt("transA", 0) != 0 || node.getFloat("alpha", 1) != 1)
    return false;
  auto input = dyn_cast<RankedTensorType>(node.getInputs()[0].getType());
  return input && input.getRank() > 0 && !isQuantized(input) &&
         isa<FloatType>(input.getElementType());
}

/// False where one of the readers is something else.
bool Readers::add(Value weight, bool transposed) {
  for (OpOperand &use : weight.getUses()) {
    auto node = dyn_cast<NodeOp>(use.getOwner());
    if (isPlainProduct(node, use.getOperandNumber())) {
      unsigned axis = getReductionAxis(node, transposed);
      if (reductionAxis.value_or(axis) != axis)
        return false;
      reductionAxis = axis;
      products.push_back(node);
      continue;
    }
    bool isTranspose = node && !transposed && node.getNumResults() == 1 &&
                       getMatrixSource(node.getResult(0)).transposed;
    if (!isTranspose || !add(node.getResult(0), /*transposed=*/true))
      return false;
  }
  return true;
}

bool nibble::isReadByProducts(Value weight) {
  auto type = dyn_cast<RankedTensorType>(weight.getType());
  Readers readers;
  return type && type.getRank() == 2 && readers.add(weight, false) &&
         !readers.products.empty();
}

//===----------------------------------------------------------------------===//
// Lists
//===----------------------------------------------------------------------===//

/// The most numbers that 16 bits tell apart.
static constexpr size_t kShort = 1 << 16;

namespace {
/// Outliers by output: how many each has, and the inputs and values of all of
/// them, behind an element that stands for none.
struct OutlierList {
  std::vector<int32_t> counts;
  std::vector<int32_t> inputs{0};
  std::vector<float> values{0};

  OutlierList(ArrayRef<int64_t> places, ArrayRef<float> numbers,
              RankedTensorType weight, unsigned reductionAxis);
};
} // namespace

OutlierList::OutlierList(ArrayRef<int64_t> places, ArrayRef<float> numbers,
                         RankedTensorType weight, unsigned reductionAxis)
    : counts(weight.getDimSize(1 - reductionAxis)) {
  struct Outlier {
    int64_t output, input;
    float value;
  };
  std::vector<Outlier> outliers;
  for (auto [i, number] : llvm::enumerate(numbers))
    outliers.push_back({places[2 * i + 1 - reductionAxis],
                        places[2 * i + reductionAxis], number});
  llvm::sort(outliers, [](const Outlier &a, const Outlier &b) {
    return std::tie(a.output, a.input) < std::tie(b.output, b.input);
  });
  for (const Outlier &outlier : outliers) {
    ++counts[outlier.output];
    inputs.push_back(static_cast<int32_t>(outlier.input));
    values.push_back(outlier.value);
  }
}

/// The bytes of one of these numbers.
static size_t getIndexBytes(ArrayRef<int32_t> numbers) {
  bool isShort = llvm::all_of(
      numbers, [](int32_t number) { return number < int32_t(kShort); });
  return isShort ? sizeof(uint16_t) : sizeof(int32_t);
}

static size_t getValueBytes(ArrayRef<float> values) {
  bool isHalf = llvm::all_of(values, [](float value) {
    return roundToFormat(FloatFormat::F16, value) == value;
  });
  return isHalf ? sizeof(uint16_t) : sizeof(float);
}

/// The outliers of a weight with constant parts, as they are added to what its
/// codes say; std::nullopt where there are none of that kind.
static std::optional<OutlierList> listOutliers(AssembleOp op, AssembleOp dense,
                                               unsigned reductionAxis) {
  auto type = cast<RankedTensorType>(op.getResult().getType());
  auto places = getIntegers(getConstantValue(op.getOutlierIndices()));
  auto numbers = getFloats(getConstantValue(op.getOutlierValues()));
  // Checks the places too.
  auto codes =
      dequantizeConstant(op) ? dequantizeConstant(dense) : std::nullopt;
  if (!places || !numbers || !codes)
    return std::nullopt;
  // Codes should say 0 at an outlier, but need not.
  for (auto [i, number] : llvm::enumerate(*numbers))
    number -=
        (*codes)[(*places)[2 * i] * type.getDimSize(1) + (*places)[2 * i + 1]];
  return OutlierList(*places, *numbers, type, reductionAxis);
}

uint64_t nibble::countOutlierBytes(AssembleOp op) {
  if (!getQuantization(op.getResult().getType()).hasOutliers())
    return 0;
  // A value and an input of 16 bits for each, and a count for each output.
  auto type = cast<RankedTensorType>(op.getResult().getType());
  auto values = cast<RankedTensorType>(op.getOutlierValues().getType());
  Readers readers;
  if (!values.hasStaticShape() || type.getRank() != 2 ||
      !readers.add(op.getResult(), false) || !readers.reductionAxis)
    return 0;
  return ((values.getNumElements() + 1) * 2 +
          type.getDimSize(1 - *readers.reductionAxis)) *
         sizeof(uint16_t);
}

//===----------------------------------------------------------------------===//
// Splitting
//===----------------------------------------------------------------------===//

namespace {
/// Splits one weight.
class OutlierSplitter {
public:
  OutlierSplitter(AssembleOp op, UniqueNames &names)
      : op(op), type(cast<RankedTensorType>(op.getResult().getType())),
        names(names), builder(op) {}

  /// Leaves the weight as it is, and returns 0, where that cannot be done; else
  /// how many outliers there were.
  unsigned run();

private:
  AssembleOp makeDense();
  Value makeConstant(const Twine &name, ArrayRef<int64_t> shape, Type element,
                     std::vector<char> bytes);
  Value makeIntegers(const Twine &name, ArrayRef<int64_t> shape,
                     ArrayRef<int64_t> numbers);
  Value makeNode(StringRef opType, const Twine &output, ValueRange inputs,
                 Type type,
                 ArrayRef<std::pair<StringRef, Attribute>> attributes = {});
  Value toElements(Value value, Type element, const Twine &output);
  Value makeIndices(StringRef suffix, ArrayRef<int32_t> numbers);
  Value makeSums(StringRef suffix, Value counts, bool exclusive);
  void makeParts(const OutlierList &list);
  Value turn(Value value, bool back, const Twine &output);
  Value sumByOutput(Value turned, const Twine &output);
  void split(NodeOp product);

  AssembleOp op;
  RankedTensorType type;
  UniqueNames &names;
  OpBuilder builder;
  std::string name;
  /// [n + 1] inputs (i32) and values (f32); for each output, the outlier before
  /// its first and its last one (i32); the axis 0.
  Value inputs, values, begins, ends, axis;
};
} // namespace

/// The weight with what its codes say in the place of the outliers.
AssembleOp OutlierSplitter::makeDense() {
  QuantizedAttr encoding = getQuantization(type);
  auto plain = QuantizedAttr::get(
      encoding.getStorage(), encoding.getBlock(), encoding.getFlat(),
      encoding.getScale(), encoding.getZero(), OutliersAttr(), LayoutAttr());
  auto dense = AssembleOp::create(
      builder, op.getLoc(),
      RankedTensorType::get(type.getShape(), type.getElementType(), plain),
      op.getCodes(), op.getScales(), op.getZeros(), Value(), Value());
  dense->setDiscardableAttrs(op->getDiscardableAttrDictionary());
  return dense;
}

Value OutlierSplitter::makeConstant(const Twine &wanted,
                                    ArrayRef<int64_t> shape, Type element,
                                    std::vector<char> bytes) {
  auto constantType = RankedTensorType::get(shape, element);
  std::string unique = names.make(wanted);
  return ConstantOp::create(
      builder, NameLoc::get(builder.getStringAttr(unique)), constantType,
      builder.getStringAttr(unique),
      makeTensorValue(constantType, unique, std::move(bytes)),
      TensorField::raw_data, DictionaryAttr());
}

template <typename T, typename U>
static std::vector<char> toBytes(ArrayRef<U> numbers) {
  std::vector<T> stored(numbers.begin(), numbers.end());
  std::vector<char> bytes(stored.size() * sizeof(T));
  std::memcpy(bytes.data(), stored.data(), bytes.size());
  return bytes;
}

Value OutlierSplitter::makeIntegers(const Twine &wanted,
                                    ArrayRef<int64_t> shape,
                                    ArrayRef<int64_t> numbers) {
  return makeConstant(wanted, shape, builder.getI64Type(),
                      toBytes<int64_t>(numbers));
}

Value OutlierSplitter::makeNode(
    StringRef opType, const Twine &output, ValueRange operands, Type resultType,
    ArrayRef<std::pair<StringRef, Attribute>> attributes) {
  return onnx::makeNode(builder, opType, names.make(output), operands,
                        resultType, attributes)
      .getResult(0);
}

static int64_t getDataType(Type element) {
  // TensorProto.DataType.
  constexpr int64_t kFloat = 1, kInt32 = 6, kFloat16 = 10, kDouble = 11,
                    kBFloat16 = 16;
  return element.isF16()    ? kFloat16
         : element.isBF16() ? kBFloat16
         : element.isF64()  ? kDouble
         : element.isF32()  ? kFloat
                            : kInt32;
}

/// `value` with elements of another type.
Value OutlierSplitter::toElements(Value value, Type element,
                                  const Twine &output) {
  auto from = cast<RankedTensorType>(value.getType());
  if (from.getElementType() == element)
    return value;
  return makeNode("Cast", output, value,
                  getTensorType(getDimensions(from), element),
                  {{"to", builder.getI64IntegerAttr(getDataType(element))}});
}

/// Numbers as i32, stored in 16 bits where these hold them.
Value OutlierSplitter::makeIndices(StringRef suffix,
                                   ArrayRef<int32_t> numbers) {
  int64_t count = numbers.size();
  Type i32 = builder.getI32Type();
  if (getIndexBytes(numbers) == sizeof(int32_t))
    return makeConstant(name + suffix, count, i32, toBytes<int32_t>(numbers));
  Value stored = makeConstant(name + suffix, count,
                              builder.getIntegerType(16, /*isSigned=*/false),
                              toBytes<uint16_t>(numbers));
  return toElements(stored, i32, name + suffix + "_wide");
}

/// Sums over the outputs up to each one.
Value OutlierSplitter::makeSums(StringRef suffix, Value counts,
                                bool exclusive) {
  return makeNode("CumSum", name + suffix, {counts, axis}, counts.getType(),
                  {{"exclusive", builder.getI64IntegerAttr(exclusive)}});
}

void OutlierSplitter::makeParts(const OutlierList &list) {
  int64_t count = list.values.size();
  Type f32 = builder.getF32Type();
  axis = makeIntegers(name + ".outlier_axis", {}, {0});
  inputs = makeIndices(".outlier_inputs", list.inputs);
  Value counts = makeIndices(".outlier_counts", list.counts);
  begins = makeSums(".outlier_begins", counts, /*exclusive=*/true);
  ends = makeSums(".outlier_ends", counts, /*exclusive=*/false);
  if (getValueBytes(list.values) == sizeof(float)) {
    values = makeConstant(name + ".outliers", count, f32,
                          toBytes<float>(ArrayRef(list.values)));
    return;
  }
  std::vector<char> halves(list.values.size() * sizeof(uint16_t));
  encodeArray(FloatFormat::F16, list.values.data(), list.values.size(),
              halves.data());
  values = makeConstant(name + ".outliers", count, builder.getF16Type(),
                        std::move(halves));
  values = toElements(values, f32, name + ".outliers_wide");
}

/// The last dimension becomes the first one, or goes back.
Value OutlierSplitter::turn(Value value, bool back, const Twine &output) {
  auto from = cast<RankedTensorType>(value.getType());
  int64_t rank = from.getRank();
  SmallVector<int64_t> order;
  for (int64_t i = 0; i < rank; ++i)
    order.push_back((i + (back ? 1 : rank - 1)) % rank);
  SmallVector<Dimension> dimensions, turned;
  dimensions = getDimensions(from);
  for (int64_t source : order)
    turned.push_back(dimensions[source]);
  return makeNode("Transpose", output, value,
                  getTensorType(turned, from.getElementType()),
                  {{"perm", builder.getDenseI64ArrayAttr(order)}});
}

/// From [inputs, …] to what the outliers add to [outputs, …]: differences of
/// the sums of all products so far.
Value OutlierSplitter::sumByOutput(Value turned, const Twine &output) {
  auto from = cast<RankedTensorType>(turned.getType());
  Type f32 = from.getElementType();
  auto withFirst = [&](Value indices) {
    SmallVector<Dimension> dimensions = getDimensions(from);
    dimensions[0] = {cast<RankedTensorType>(indices.getType()).getDimSize(0),
                     StringAttr()};
    return getTensorType(dimensions, f32);
  };
  auto gather = [&](Value value, Value indices, StringRef suffix) {
    return makeNode("Gather", output + suffix, {value, indices},
                    withFirst(indices),
                    {{"axis", builder.getI64IntegerAttr(0)}});
  };
  SmallVector<int64_t> shape(from.getRank(), 1);
  shape[0] = cast<RankedTensorType>(values.getType()).getDimSize(0);
  Value column = values;
  if (shape.size() > 1)
    column = makeNode(
        "Reshape", output + "_outlier_column",
        {values, makeIntegers(output + "_outlier_shape",
                              {static_cast<int64_t>(shape.size())}, shape)},
        RankedTensorType::get(shape, f32));
  Value gathered = gather(turned, inputs, "_outlier_inputs");
  Value products = makeNode("Mul", output + "_outlier_products",
                            {gathered, column}, gathered.getType());
  Value sums = makeNode("CumSum", output + "_outlier_sums", {products, axis},
                        products.getType());
  return makeNode("Sub", output + "_outlier_differences",
                  {gather(sums, ends, "_outlier_ends"),
                   gather(sums, begins, "_outlier_begins")},
                  withFirst(ends));
}

/// y = x W' + what the outliers add.
void OutlierSplitter::split(NodeOp product) {
  builder.setInsertionPoint(product);
  Value result = product.getResult(0);
  std::string output = product.getOutputName(0).str();
  Type f32 = builder.getF32Type();
  Value input =
      toElements(product.getInputs()[0], f32, output + "_outlier_float");
  Value sums =
      sumByOutput(turn(input, false, output + "_outlier_turned"), output);
  sums = turn(sums, true, output + "_outliers");
  sums = toElements(sums, type.getElementType(), output + "_outliers_narrow");

  product.setOutputsAttr(
      builder.getStrArrayAttr({names.make(output + "_dense")}));
  builder.setInsertionPointAfter(product);
  NodeOp sum =
      onnx::makeNode(builder, "Add", output, {result, sums}, result.getType());
  // The product keeps its name, which may be that of its output.
  sum.setNameAttr(builder.getStringAttr(names.make(output + "_sum")));
  result.replaceAllUsesExcept(sum.getResult(0), sum);
}

unsigned OutlierSplitter::run() {
  Readers readers;
  if (getQuantization(type).getOutliers().getKind() != OutlierKind::Sparse ||
      type.getRank() != 2 || !readers.add(op.getResult(), false) ||
      readers.products.empty())
    return 0;
  AssembleOp dense = makeDense();
  auto list = listOutliers(op, dense, *readers.reductionAxis);
  if (!list) {
    dense.erase();
    return 0;
  }
  if (auto constant = op.getCodes().getDefiningOp<ConstantOp>()) {
    StringRef stem = constant.getName();
    stem.consume_back(".codes");
    name = stem.str();
  }
  makeParts(*list);
  op.getResult().replaceAllUsesWith(dense.getResult());
  for (NodeOp product : readers.products)
    split(product);
  Value parts[] = {op.getOutlierIndices(), op.getOutlierValues()};
  op.erase();
  for (Value part : parts)
    if (Operation *constant = part.getDefiningOp(); part.use_empty())
      constant->erase();
  return list->values.size() - 1;
}

namespace {
struct SplitSparseOutliers
    : nibble::impl::NibbleSplitSparseOutliersBase<SplitSparseOutliers> {
  void runOnOperation() override {
    SmallVector<AssembleOp> ops;
    getOperation().walk([&](AssembleOp op) {
      if (getQuantization(op.getResult().getType()).hasOutliers())
        ops.push_back(op);
    });
    if (ops.empty())
      return markAllAnalysesPreserved();
    UniqueNames names(getOperation());
    for (AssembleOp op : ops)
      if (unsigned count = OutlierSplitter(op, names).run()) {
        ++numWeights;
        numOutliers += count;
      }
    constexpr int64_t kCumSum = 11;
    bool isOnnx = getOpsetVersion(getOperation()) != 0;
    if (isOnnx && numWeights > 0 && failed(raiseOpset(getOperation(), kCumSum)))
      return signalPassFailure();
    requireFreeInitializers(getOperation());
  }
};
} // namespace
