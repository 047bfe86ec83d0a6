//===- NibbleToReference.cpp - The nibble dialect to plain loops ----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// docs/Spec.md, made executable. "S9" and the like in comments are its rules.
//
// A quantized tensor becomes the list of its parts: codes, scales, zero points
// (nested ones in their own parts), outlier indices and values. Everything that
// reads one goes through QuantizedTensor::read, the only place that knows what
// an element stands for.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/LoopBuilder.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Func/Transforms/FuncConversions.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Transforms/DialectConversion.h"
#include "llvm/ADT/APFloat.h"

namespace nibble {
#define GEN_PASS_DEF_LOWERNIBBLETOREFERENCE
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// The parts of a quantized tensor
//===----------------------------------------------------------------------===//

/// Types of the parts in plain IR, in their order.
static LogicalResult getPartTypes(RankedTensorType type,
                                  SmallVectorImpl<Type> &parts) {
  QuantizedAttr encoding = getQuantization(type);
  if (!encoding) {
    RankedTensorType stored = getStoredType(type);
    if (!stored)
      return failure();
    parts.push_back(stored);
    return success();
  }
  parts.push_back(getStoredType(getCodesType(type)));
  if (failed(getPartTypes(getScalesType(type), parts)))
    return failure();
  if (encoding.hasZero() && failed(getPartTypes(getZerosType(type), parts)))
    return failure();
  if (encoding.hasOutliers()) {
    // How many there are is no part of the type, nor that of the indices.
    Type i64 = IntegerType::get(type.getContext(), 64);
    parts.push_back(getOutlierIndicesType(type, ShapedType::kDynamic, i64));
    parts.push_back(
        getStoredType(getOutlierValuesType(type, ShapedType::kDynamic)));
  }
  return success();
}

static unsigned countParts(RankedTensorType type) {
  SmallVector<Type> types;
  (void)getPartTypes(type, types);
  return types.size();
}

namespace {
/// A tensor, quantized or not, in plain IR.
class AnyTensor {
public:
  AnyTensor(RankedTensorType type, ValueRange parts)
      : type(type), parts(parts.begin(), parts.end()) {}

  RankedTensorType type;
  SmallVector<Value> parts;
  /// Whether entries of a code book are those that integer compute takes (S13).
  bool hasIntegerEntries = false;

  QuantizedAttr getEncoding() const { return getQuantization(type); }
  Value getCodes() const { return parts.front(); }
  AnyTensor getScales() const { return take(getScalesType(type), 1); }
  AnyTensor getZeros() const {
    return take(getZerosType(type), 1 + countParts(getScalesType(type)));
  }
  Value getOutlierIndices() const { return parts[parts.size() - 2]; }
  Value getOutlierValues() const { return parts.back(); }

  Sizes getSizes(OpBuilder &builder, Location loc) const {
    return nibble::getSizes(builder, loc, getCodes());
  }

  /// The number at `indices`, in f32 (S3), outliers left aside. A tensor that
  /// is not quantized is read as it is.
  Value read(ScalarBuilder &scalar, ValueRange indices) const;

private:
  AnyTensor take(RankedTensorType partType, unsigned first) const {
    return AnyTensor(partType,
                     ArrayRef(parts).slice(first, countParts(partType)));
  }
};
} // namespace

/// The block of the element at `indices` (S2).
static SmallVector<Value> getBlock(ScalarBuilder &scalar,
                                   QuantizedAttr encoding, Value tensor,
                                   ValueRange indices) {
  auto divide = [&](Value index, int64_t extent) -> Value {
    if (extent == QuantizedAttr::kWholeExtent)
      return scalar.index(0);
    if (extent == 1)
      return index;
    return arith::DivUIOp::create(scalar.builder, scalar.loc, index,
                                  scalar.index(extent));
  };
  if (encoding.getFlat()) {
    Value position = scalar.index(0);
    Sizes sizes = getSizes(scalar.builder, scalar.loc, tensor);
    for (auto [index, size] : llvm::zip(indices, sizes))
      position = scalar.add(
          scalar.mul(position, toValue(scalar.builder, scalar.loc, size)),
          index);
    return {divide(position, encoding.getBlock().front())};
  }
  SmallVector<Value> block;
  for (auto [index, extent] : llvm::zip(indices, encoding.getBlock()))
    block.push_back(divide(index, extent));
  return block;
}

/// The zero point of a block in f32, and whether it is an integer.
static Value readZero(ScalarBuilder &scalar, const AnyTensor &zeros,
                      ValueRange block) {
  Value zero = zeros.read(scalar, block);
  Type element = zeros.type.getElementType();
  if (isa<IntegerType>(element))
    zero = scalar.convert(zero, element, scalar.builder.getF32Type());
  return zero;
}

/// Entries of a code book as integer kernels take them (S13).
static SmallVector<float> getIntegerEntries(StorageAttr storage) {
  IntegerCodeBook book = getIntegerCodeBook(storage);
  SmallVector<float> entries;
  for (int8_t value : book.values)
    entries.push_back(static_cast<float>(value) * book.step);
  return entries;
}

Value AnyTensor::read(ScalarBuilder &scalar, ValueRange indices) const {
  QuantizedAttr encoding = getEncoding();
  Value stored = tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                           getCodes(), indices);
  if (!encoding)
    return scalar.decode(stored, type.getElementType());
  StorageAttr storage = encoding.getStorage();
  Type code = storage.getCodeType();
  Value number;
  if (storage.isCodeBook())
    number = scalar.lookUp(hasIntegerEntries ? getIntegerEntries(storage)
                                             : getCodeBookValues(storage),
                           stored);
  else
    number = scalar.convert(scalar.decode(stored, code), code,
                            scalar.builder.getF32Type());
  SmallVector<Value> block = getBlock(scalar, encoding, getCodes(), indices);
  // Integers of at most 16 bits, so that the difference is exact in f32.
  if (encoding.hasZero())
    number = scalar.sub(number, readZero(scalar, getZeros(), block));
  number = scalar.mul(number, getScales().read(scalar, block));
  // A nested tensor is one of f32; others are rounded to their element.
  return scalar.decode(scalar.encode(number, type.getElementType()),
                       type.getElementType());
}

//===----------------------------------------------------------------------===//
// Dequantizing
//===----------------------------------------------------------------------===//

/// Writes the outliers over the expressed values (S8).
static Value insertOutliers(OpBuilder &builder, Location loc,
                            const AnyTensor &tensor, Value expressed) {
  OutliersAttr outliers = tensor.getEncoding().getOutliers();
  Value indices = tensor.getOutlierIndices();
  Value values = tensor.getOutlierValues();
  Type element = tensor.type.getElementType();
  Sizes sizes = getSizes(builder, loc, values);
  ScalarBuilder outer(builder, loc);
  SmallVector<Value> lower(sizes.size(), outer.index(0)), upper,
      steps(sizes.size(), outer.index(1));
  for (OpFoldResult size : sizes)
    upper.push_back(toValue(builder, loc, size));
  scf::LoopNest nest = scf::buildLoopNest(
      builder, loc, lower, upper, steps, expressed,
      [&](OpBuilder &nested, Location nestedLoc, ValueRange loops,
          ValueRange state) -> SmallVector<Value> {
        ScalarBuilder scalar(nested, nestedLoc);
        auto readIndex = [&](ValueRange place) -> Value {
          Value index =
              tensor::ExtractOp::create(nested, nestedLoc, indices, place);
          return arith::IndexCastOp::create(nested, nestedLoc,
                                            nested.getIndexType(), index);
        };
        Value value =
            tensor::ExtractOp::create(nested, nestedLoc, values, loops);
        value = scalar.encode(scalar.decode(value, outliers.getValueType()),
                              element);
        SmallVector<Value> place;
        if (outliers.getKind() == OutlierKind::Columns) {
          place.assign(loops.begin(), loops.end());
          place[outliers.getAxis()] = readIndex(loops[outliers.getAxis()]);
        } else {
          for (int64_t axis = 0; axis < tensor.type.getRank(); ++axis)
            place.push_back(readIndex({loops[0], scalar.index(axis)}));
        }
        Value next = tensor::InsertOp::create(nested, nestedLoc, value,
                                              state.front(), place);
        return {next};
      });
  return nest.results.front();
}

/// The expressed tensor, in its element type (S3 to S8). One that is not
/// quantized is returned.
static Value buildExpressed(OpBuilder &builder, Location loc,
                            const AnyTensor &tensor) {
  if (!tensor.getEncoding())
    return tensor.getCodes();
  Type element = tensor.type.getElementType();
  Value expressed =
      buildTensor(builder, loc, tensor.getSizes(builder, loc), element,
                  [&](ScalarBuilder &scalar, ValueRange indices) {
                    return scalar.encode(tensor.read(scalar, indices), element);
                  });
  if (tensor.getEncoding().hasOutliers())
    expressed = insertOutliers(builder, loc, tensor, expressed);
  return expressed;
}

/// Codes less their zero points, in i32 (S16).
static Value buildIntegers(OpBuilder &builder, Location loc,
                           const AnyTensor &tensor) {
  QuantizedAttr encoding = tensor.getEncoding();
  Type code = encoding.getStorage().getCodeType();
  Type i32 = builder.getI32Type();
  return buildTensor(
      builder, loc, tensor.getSizes(builder, loc), i32,
      [&](ScalarBuilder &scalar, ValueRange indices) {
        auto read = [&](Value codes, ValueRange place, Type type) {
          Value stored = tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                                   codes, place);
          return scalar.convert(scalar.decode(stored, type), type, i32);
        };
        Value integer = read(tensor.getCodes(), indices, code);
        if (!encoding.hasZero())
          return integer;
        AnyTensor zeros = tensor.getZeros();
        SmallVector<Value> block =
            getBlock(scalar, encoding, tensor.getCodes(), indices);
        return scalar.sub(integer, read(zeros.getCodes(), block,
                                        zeros.type.getElementType()));
      });
}

//===----------------------------------------------------------------------===//
// Quantizing
//===----------------------------------------------------------------------===//

static Value orZero(ScalarBuilder &scalar, Value number) {
  return scalar.select(scalar.isNaN(number),
                       scalar.constant(number.getType(), 0), number);
}

/// The code of the entry that is nearest to `quotient`; of two that are equally
/// near, the lower code (S9). Between neighbours by value, the mean decides.
static Value findEntry(ScalarBuilder &scalar, StorageAttr storage,
                       Value quotient) {
  SmallVector<std::pair<float, unsigned>> entries;
  for (auto [code, value] : llvm::enumerate(getCodeBookValues(storage)))
    entries.push_back({value, static_cast<unsigned>(code)});
  // Equal values stay in the order of their codes.
  llvm::sort(entries);
  // Of equal entries the first code is the lowest.
  entries.erase(
      llvm::unique(entries, [](const auto &a,
                               const auto &b) { return a.first == b.first; }),
      entries.end());
  Type f64 = scalar.builder.getF64Type(), i8 = scalar.builder.getI8Type();
  Value wide = arith::ExtFOp::create(scalar.builder, scalar.loc, f64, quotient);
  Value code = scalar.integer(i8, entries.front().second);
  for (auto [below, above] :
       llvm::zip(entries, ArrayRef(entries).drop_front())) {
    Value mean = scalar.constant(
        f64, (static_cast<double>(below.first) + above.first) / 2);
    Value isAbove = above.second < below.second ? scalar.lessEqual(mean, wide)
                                                : scalar.less(mean, wide);
    code = scalar.select(isAbove, scalar.integer(i8, above.second), code);
  }
  return code;
}

/// The code of an element (S9, S10), in its stored type. `zero` is in f32, null
/// where there is none.
static Value buildCode(ScalarBuilder &scalar, QuantizedAttr encoding,
                       Value number, Value scale, Value zero) {
  StorageAttr storage = encoding.getStorage();
  Type code = storage.getCodeType();
  Value quotient = scalar.div(number, scale);
  if (storage.isCodeBook())
    return findEntry(scalar, storage, orZero(scalar, quotient));
  if (storage.isFloat()) {
    if (storage.getKind() == CodeKind::F4E2M1FN)
      quotient = orZero(scalar, quotient);
    return scalar.encode(quotient, code, OutOfRange::Saturate);
  }
  quotient = orZero(scalar, quotient);
  bool hasIntegerZero = isa_and_present<StorageAttr>(encoding.getZero());
  if (zero && !hasIntegerZero)
    quotient = scalar.add(quotient, zero);
  Value rounded =
      math::RoundEvenOp::create(scalar.builder, scalar.loc, quotient);
  if (hasIntegerZero)
    rounded = scalar.add(rounded, zero);
  // The conversion clamps before it converts.
  return scalar.encode(scalar.convert(rounded, rounded.getType(), code), code);
}

static Value buildCodes(OpBuilder &builder, Location loc, Value input,
                        RankedTensorType type, const AnyTensor &scales,
                        const AnyTensor *zeros) {
  QuantizedAttr encoding = getQuantization(type);
  Type code = getStoredType(encoding.getStorage().getCodeType());
  Type element = type.getElementType();
  return buildTensor(builder, loc, getSizes(builder, loc, input), code,
                     [&](ScalarBuilder &scalar, ValueRange indices) {
                       Value number = scalar.decode(
                           tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                                     input, indices),
                           element);
                       SmallVector<Value> block =
                           getBlock(scalar, encoding, input, indices);
                       Value scale = scales.read(scalar, block);
                       Value zero;
                       if (zeros)
                         zero = readZero(scalar, *zeros, block);
                       return buildCode(scalar, encoding, number, scale, zero);
                     });
}

//===----------------------------------------------------------------------===//
// Scales from the data (S11)
//===----------------------------------------------------------------------===//

/// Least and greatest of a block's values and 0, without NaN.
static std::pair<Value, Value> buildRange(ScalarBuilder &scalar,
                                          QuantizedAttr encoding, Value input,
                                          Type element, ValueRange block) {
  Sizes sizes = getSizes(scalar.builder, scalar.loc, input);
  SmallVector<Value> extents, lower, upper, steps;
  Value count = scalar.index(1);
  for (OpFoldResult size : sizes) {
    extents.push_back(toValue(scalar.builder, scalar.loc, size));
    count = scalar.mul(count, extents.back());
  }
  // A flat block is a run of positions; the others are boxes.
  ArrayRef<Value> limits =
      encoding.getFlat() ? ArrayRef(count) : ArrayRef(extents);
  for (auto [index, extent, limit] :
       llvm::zip(block, encoding.getBlock(), limits)) {
    if (extent == QuantizedAttr::kWholeExtent) {
      lower.push_back(scalar.index(0));
      upper.push_back(limit);
    } else {
      Value width = scalar.index(extent);
      lower.push_back(scalar.mul(index, width));
      upper.push_back(scalar.min(scalar.add(lower.back(), width), limit));
    }
    steps.push_back(scalar.index(1));
  }
  Value zero = scalar.constant(scalar.builder.getF32Type(), 0);
  auto fold = [&](OpBuilder &nested, Location loc, ValueRange loops,
                  ValueRange state) -> SmallVector<Value> {
    ScalarBuilder body(nested, loc);
    SmallVector<Value> indices(loops);
    if (encoding.getFlat()) {
      Value rest = loops.front();
      indices.assign(extents.size(), Value());
      for (size_t axis = extents.size(); axis-- > 0;) {
        indices[axis] =
            arith::RemUIOp::create(nested, loc, rest, extents[axis]);
        rest = arith::DivUIOp::create(nested, loc, rest, extents[axis]);
      }
    }
    Value number = body.decode(
        tensor::ExtractOp::create(nested, loc, input, indices), element);
    // A comparison with NaN is false.
    return {body.select(body.less(number, state[0]), number, state[0]),
            body.select(body.less(state[1], number), number, state[1])};
  };
  if (lower.empty()) {
    SmallVector<Value> range =
        fold(scalar.builder, scalar.loc, {}, {zero, zero});
    return {range[0], range[1]};
  }
  scf::LoopNest nest = scf::buildLoopNest(scalar.builder, scalar.loc, lower,
                                          upper, steps, {zero, zero}, fold);
  return {nest.results[0], nest.results[1]};
}

static const llvm::fltSemantics &getSemantics(Type type) {
  return cast<FloatType>(type).getFloatSemantics();
}

static double toDouble(APFloat value) {
  bool losesInfo;
  value.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven,
                &losesInfo);
  return value.convertToDouble();
}

/// The largest magnitude of a storage, for scales without a zero point.
static double getLargestMagnitude(StorageAttr storage) {
  if (storage.isInteger())
    return static_cast<double>(storage.getMaximumCode());
  if (storage.isFloat())
    return toDouble(APFloat::getLargest(getSemantics(storage.getCodeType())));
  double largest = 0;
  for (float value : getCodeBookValues(storage))
    largest = std::max(largest, std::abs(static_cast<double>(value)));
  return largest;
}

/// The positive scale as it is stored (S6): neither 0 nor infinite.
static Value buildStoredScale(ScalarBuilder &scalar, Value scale, Type type) {
  Type f32 = scalar.builder.getF32Type();
  double smallest = isa<Float8E8M0FNUType>(type)
                        ? std::ldexp(1.0, -127)
                        : toDouble(APFloat::getSmallest(getSemantics(type)));
  double largest = toDouble(APFloat::getLargest(getSemantics(type)));
  // A number that would round to 0 is below the smallest one.
  scale = scalar.min(scale, scalar.constant(f32, largest));
  scale = scalar.max(scale, scalar.constant(f32, smallest));
  return scalar.encode(scale, type);
}

static Value buildScale(ScalarBuilder &scalar, QuantizedAttr encoding,
                        Value low, Value high) {
  StorageAttr storage = encoding.getStorage();
  Type f32 = scalar.builder.getF32Type();
  Value magnitude, divisor;
  if (encoding.hasZero()) {
    magnitude = scalar.sub(high, low);
    divisor =
        scalar.constant(f32, static_cast<double>(storage.getMaximumCode() -
                                                 storage.getMinimumCode()));
  } else {
    magnitude = scalar.max(high, scalar.neg(low));
    divisor = scalar.constant(f32, getLargestMagnitude(storage));
  }
  Value empty = arith::AndIOp::create(scalar.builder, scalar.loc,
                                      scalar.isZero(low), scalar.isZero(high));
  Value scale = scalar.select(empty, scalar.constant(f32, 1),
                              scalar.div(magnitude, divisor));
  return buildStoredScale(scalar, scale,
                          cast<TypeAttr>(encoding.getScale()).getValue());
}

/// z = clamp(roundeven(qmin - lo / s)), as a code.
static Value buildZero(ScalarBuilder &scalar, QuantizedAttr encoding, Value low,
                       Value scale) {
  StorageAttr storage = encoding.getStorage();
  Type code = storage.getCodeType();
  Value least = scalar.constant(scalar.builder.getF32Type(),
                                static_cast<double>(storage.getMinimumCode()));
  Value exact = scalar.sub(least, scalar.div(low, scale));
  Value rounded = math::RoundEvenOp::create(scalar.builder, scalar.loc, exact);
  return scalar.encode(scalar.convert(rounded, rounded.getType(), code), code);
}

/// Sizes of the grid of blocks (S2).
static Sizes getGridSizes(OpBuilder &builder, Location loc,
                          QuantizedAttr encoding, Value input) {
  ScalarBuilder scalar(builder, loc);
  auto divideUp = [&](OpFoldResult size, int64_t extent) -> OpFoldResult {
    if (extent == QuantizedAttr::kWholeExtent)
      return builder.getIndexAttr(1);
    if (auto known = getConstantIntValue(size))
      return builder.getIndexAttr(llvm::divideCeil(*known, extent));
    return arith::CeilDivUIOp::create(builder, loc, toValue(builder, loc, size),
                                      scalar.index(extent))
        .getResult();
  };
  Sizes sizes = getSizes(builder, loc, input), grid;
  if (!encoding.getFlat()) {
    for (auto [size, extent] : llvm::zip(sizes, encoding.getBlock()))
      grid.push_back(divideUp(size, extent));
    return grid;
  }
  auto type = cast<RankedTensorType>(input.getType());
  if (type.hasStaticShape())
    return {divideUp(builder.getIndexAttr(type.getNumElements()),
                     encoding.getBlock().front())};
  Value count = scalar.index(1);
  for (OpFoldResult size : sizes)
    count = scalar.mul(count, toValue(builder, loc, size));
  return {divideUp(count, encoding.getBlock().front())};
}

/// Codes, scales and zero points of `input`.
static SmallVector<Value> buildDynamic(OpBuilder &builder, Location loc,
                                       Value input, RankedTensorType type) {
  QuantizedAttr encoding = getQuantization(type);
  Type element = type.getElementType();
  Sizes grid = getGridSizes(builder, loc, encoding, input);
  RankedTensorType scalesType = getScalesType(type);
  Value scales = buildTensor(
      builder, loc, grid, getStoredType(scalesType.getElementType()),
      [&](ScalarBuilder &scalar, ValueRange block) {
        auto [low, high] = buildRange(scalar, encoding, input, element, block);
        return buildScale(scalar, encoding, low, high);
      });
  AnyTensor scalesTensor(scalesType, scales);
  if (!encoding.hasZero())
    return {buildCodes(builder, loc, input, type, scalesTensor, nullptr),
            scales};
  RankedTensorType zerosType = getZerosType(type);
  Value zeros =
      buildTensor(builder, loc, grid, getStoredType(zerosType.getElementType()),
                  [&](ScalarBuilder &scalar, ValueRange block) {
                    auto [low, high] =
                        buildRange(scalar, encoding, input, element, block);
                    return buildZero(scalar, encoding, low,
                                     scalesTensor.read(scalar, block));
                  });
  AnyTensor zerosTensor(zerosType, zeros);
  return {buildCodes(builder, loc, input, type, scalesTensor, &zerosTensor),
          scales, zeros};
}

//===----------------------------------------------------------------------===//
// Patterns
//===----------------------------------------------------------------------===//

static AnyTensor getTensor(Value original, ValueRange parts) {
  return AnyTensor(cast<RankedTensorType>(original.getType()), parts);
}

/// Outlier indices as i64, whatever integers they were, and parts with the
/// types that the converter gives them.
static Value castPart(OpBuilder &builder, Location loc, Value part, Type type) {
  auto from = cast<RankedTensorType>(part.getType());
  auto to = cast<RankedTensorType>(type);
  if (from.getElementType() != to.getElementType()) {
    Value source = part;
    part = buildTensor(builder, loc, getSizes(builder, loc, source),
                       to.getElementType(),
                       [&](ScalarBuilder &scalar, ValueRange indices) {
                         Value index = tensor::ExtractOp::create(
                             scalar.builder, scalar.loc, source, indices);
                         return scalar.convert(index, from.getElementType(),
                                               to.getElementType());
                       });
  }
  if (part.getType() != to)
    part = tensor::CastOp::create(builder, loc, to, part);
  return part;
}

namespace {
template <typename Op> struct Lowering : OpConversionPattern<Op> {
  using OpConversionPattern<Op>::OpConversionPattern;
  using OneToNOpAdaptor = typename OpConversionPattern<Op>::OneToNOpAdaptor;

  /// Replaces a result by parts with the types of the converter.
  LogicalResult replace(Op op, ArrayRef<Value> parts,
                        ConversionPatternRewriter &rewriter) const {
    SmallVector<Type> types;
    auto type = cast<RankedTensorType>(op->getResult(0).getType());
    if (failed(getPartTypes(type, types)))
      return rewriter.notifyMatchFailure(op, "has elements without a stored "
                                             "type");
    SmallVector<Value> values;
    for (auto [part, partType] : llvm::zip_equal(parts, types))
      values.push_back(castPart(rewriter, op.getLoc(), part, partType));
    rewriter.replaceOpWithMultiple(op, {values});
    return success();
  }
};

struct AssembleLowering : Lowering<AssembleOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(AssembleOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    SmallVector<Value> parts;
    for (ValueRange operand : adaptor.getOperands())
      llvm::append_range(parts, operand);
    return replace(op, parts, rewriter);
  }
};

struct CodesLowering : Lowering<CodesOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(CodesOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    return replace(op, adaptor.getInput().front(), rewriter);
  }
};

struct ScalesLowering : Lowering<ScalesOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(ScalesOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    return replace(
        op, getTensor(op.getInput(), adaptor.getInput()).getScales().parts,
        rewriter);
  }
};

struct ZerosLowering : Lowering<ZerosOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(ZerosOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    return replace(
        op, getTensor(op.getInput(), adaptor.getInput()).getZeros().parts,
        rewriter);
  }
};

struct OutliersLowering : Lowering<OutliersOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(OutliersOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    AnyTensor tensor = getTensor(op.getInput(), adaptor.getInput());
    SmallVector<Value> results;
    for (auto [part, result] :
         llvm::zip_equal(ArrayRef<Value>{tensor.getOutlierIndices(),
                                         tensor.getOutlierValues()},
                         op->getResults()))
      results.push_back(
          castPart(rewriter, op.getLoc(), part,
                   getStoredType(cast<RankedTensorType>(result.getType()))));
    rewriter.replaceOp(op, results);
    return success();
  }
};

struct IntegersLowering : Lowering<IntegersOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(IntegersOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    AnyTensor tensor = getTensor(op.getInput(), adaptor.getInput());
    return replace(op, buildIntegers(rewriter, op.getLoc(), tensor), rewriter);
  }
};

struct DequantizeLowering : Lowering<DequantizeOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(DequantizeOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    if (getQuantization(op.getInput().getType()).hasLayout())
      return rewriter.notifyMatchFailure(op, "expects a tensor without layout");
    AnyTensor tensor = getTensor(op.getInput(), adaptor.getInput());
    return replace(op, buildExpressed(rewriter, op.getLoc(), tensor), rewriter);
  }
};

struct QuantizeLowering : Lowering<QuantizeOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(QuantizeOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    AnyTensor scales = getTensor(op.getScales(), adaptor.getScales());
    std::optional<AnyTensor> zeros;
    if (op.getZeros())
      zeros = getTensor(op.getZeros(), adaptor.getZeros());
    SmallVector<Value> parts{buildCodes(rewriter, op.getLoc(),
                                        adaptor.getInput().front(),
                                        cast<RankedTensorType>(op.getType()),
                                        scales, zeros ? &*zeros : nullptr)};
    llvm::append_range(parts, scales.parts);
    if (zeros)
      llvm::append_range(parts, zeros->parts);
    return replace(op, parts, rewriter);
  }
};

/// The sizes of a quantized tensor are those of its codes.
struct DimLowering : Lowering<tensor::DimOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(tensor::DimOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    if (!isQuantized(op.getSource().getType()))
      return rewriter.notifyMatchFailure(op, "expects a quantized tensor");
    rewriter.replaceOpWithNewOp<tensor::DimOp>(op, adaptor.getSource().front(),
                                               op.getIndex());
    return success();
  }
};

struct QuantizeDynamicLowering : Lowering<QuantizeDynamicOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(QuantizeDynamicOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    return replace(op,
                   buildDynamic(rewriter, op.getLoc(),
                                adaptor.getInput().front(),
                                cast<RankedTensorType>(op.getType())),
                   rewriter);
  }
};

/// The encoding that activations get before a product in i8 (S13): blocks of
/// one row by the weight's extent along K.
QuantizedAttr getActivationEncoding(MatmulOp op) {
  QuantizedAttr weight = getQuantization(op.getWeight().getType());
  int64_t rank =
      cast<RankedTensorType>(op.getActivations().getType()).getRank();
  SmallVector<int64_t> block(rank, 1);
  block.back() = weight.getBlock()[op.getTransposeWeight() ? 1 : 0];
  MLIRContext *context = op.getContext();
  return QuantizedAttr::get(StorageAttr::getInteger(context, 8, true), block,
                            TypeAttr::get(Float32Type::get(context)));
}

struct MatmulLowering : Lowering<MatmulOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(MatmulOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override;
};

struct GatherLowering : Lowering<GatherOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(GatherOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override;
};

/// Without a runtime that observes, the value only passes through (S15).
struct ObserveLowering : Lowering<ObserveOp> {
  using Lowering::Lowering;
  LogicalResult
  matchAndRewrite(ObserveOp op, OneToNOpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    rewriter.replaceOpWithMultiple(op, {adaptor.getInput()});
    return success();
  }
};
} // namespace

LogicalResult
MatmulLowering::matchAndRewrite(MatmulOp op, OneToNOpAdaptor adaptor,
                                ConversionPatternRewriter &rewriter) const {
  if (getQuantization(op.getWeight().getType()).hasLayout())
    return rewriter.notifyMatchFailure(op, "expects a weight without layout");
  Location loc = op.getLoc();
  Type compute = op.getComputeType();
  AnyTensor activations =
      getTensor(op.getActivations(), adaptor.getActivations());
  AnyTensor weight = getTensor(op.getWeight(), adaptor.getWeight());
  if (compute.isInteger() && !activations.getEncoding()) {
    auto type = RankedTensorType::get(activations.type.getShape(),
                                      activations.type.getElementType(),
                                      getActivationEncoding(op));
    activations = AnyTensor(
        type, buildDynamic(rewriter, loc, activations.getCodes(), type));
  }
  if (compute.isInteger())
    weight.hasIntegerEntries = true;
  Value a = buildExpressed(rewriter, loc, activations);
  Value w = buildExpressed(rewriter, loc, weight);

  // The loops (…, k, n): ascending k for each element of the result.
  int64_t rank = activations.type.getRank();
  MLIRContext *context = rewriter.getContext();
  SmallVector<AffineExpr> rows;
  for (int64_t i = 0; i < rank - 1; ++i)
    rows.push_back(getAffineDimExpr(i, context));
  AffineExpr k = getAffineDimExpr(rank - 1, context);
  AffineExpr n = getAffineDimExpr(rank, context);
  SmallVector<AffineExpr> left(rows), result(rows);
  left.push_back(k);
  result.push_back(n);
  SmallVector<AffineExpr> right{k, n};
  if (op.getTransposeWeight())
    std::swap(right[0], right[1]);
  SmallVector<AffineMap> maps{AffineMap::get(rank + 1, 0, left, context),
                              AffineMap::get(rank + 1, 0, right, context),
                              AffineMap::get(rank + 1, 0, result, context)};
  SmallVector<utils::IteratorType> iterators(rank + 1,
                                             utils::IteratorType::parallel);
  iterators[rank - 1] = utils::IteratorType::reduction;
  Sizes sizes = getSizes(rewriter, loc, a);
  sizes.back() = getSize(rewriter, loc, w, op.getTransposeWeight() ? 0 : 1);

  ScalarBuilder outer(rewriter, loc);
  Type f32 = rewriter.getF32Type();
  Type aElement = activations.type.getElementType();
  Type wElement = weight.type.getElementType();
  auto toFactor = [&](ScalarBuilder &scalar, Value stored, Type element) {
    Value number = scalar.decode(stored, element);
    return isa<Float16Type, BFloat16Type>(compute)
               ? scalar.roundTo(number, compute)
               : number;
  };
  Value sums = buildReduction(
      rewriter, loc, {a, w}, maps, iterators, sizes, outer.constant(f32, 0),
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value product = scalar.mul(toFactor(scalar, args[0], aElement),
                                   toFactor(scalar, args[1], wElement));
        return scalar.add(args[2], product);
      });
  Value bias;
  if (op.getBias())
    bias = adaptor.getBias().front();
  Type element = aElement;
  Value rounded =
      buildTensor(rewriter, loc, sizes, element,
                  [&](ScalarBuilder &scalar, ValueRange indices) {
                    Value sum = tensor::ExtractOp::create(
                        scalar.builder, scalar.loc, sums, indices);
                    if (bias) {
                      Value stored = tensor::ExtractOp::create(
                          scalar.builder, scalar.loc, bias, indices.back());
                      sum = scalar.add(sum, scalar.decode(stored, element));
                    }
                    return scalar.encode(sum, element);
                  });
  return replace(op, rounded, rewriter);
}

LogicalResult
GatherLowering::matchAndRewrite(GatherOp op, OneToNOpAdaptor adaptor,
                                ConversionPatternRewriter &rewriter) const {
  if (getQuantization(op.getTable().getType()).hasLayout())
    return rewriter.notifyMatchFailure(op, "expects a table without layout");
  Location loc = op.getLoc();
  AnyTensor table = getTensor(op.getTable(), adaptor.getTable());
  // Outliers are found by their place, so that the whole table is needed.
  if (table.getEncoding().hasOutliers())
    table = AnyTensor(getExpressedType(table.type),
                      buildExpressed(rewriter, loc, table));
  Value indices = adaptor.getIndices().front();
  int64_t axis = op.getAxis();
  int64_t indexRank = cast<RankedTensorType>(indices.getType()).getRank();
  Sizes own = table.getSizes(rewriter, loc), sizes;
  llvm::append_range(sizes, ArrayRef(own).take_front(axis));
  llvm::append_range(sizes, getSizes(rewriter, loc, indices));
  llvm::append_range(sizes, ArrayRef(own).drop_front(axis + 1));
  Type element = table.type.getElementType();
  Value result = buildTensor(
      rewriter, loc, sizes, element,
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value index = tensor::ExtractOp::create(
            scalar.builder, scalar.loc, indices, loops.slice(axis, indexRank));
        Value position = arith::IndexCastOp::create(
            scalar.builder, scalar.loc, scalar.builder.getIndexType(), index);
        Value size = toValue(scalar.builder, scalar.loc, own[axis]);
        position = scalar.select(scalar.less(position, scalar.index(0)),
                                 scalar.add(position, size), position);
        SmallVector<Value> source(loops.take_front(axis));
        source.push_back(position);
        llvm::append_range(source, loops.drop_front(axis + indexRank));
        return scalar.encode(table.read(scalar, source), element);
      });
  return replace(op, result, rewriter);
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

namespace {
/// Quantized tensors in parts, plain ones in their stored type.
struct PartsTypeConverter : TypeConverter {
  PartsTypeConverter() {
    addConversion([](Type type) { return type; });
    addConversion(
        [](RankedTensorType type,
           SmallVectorImpl<Type> &parts) -> std::optional<LogicalResult> {
          if (!isQuantized(type) && !getStoredType(type))
            return std::nullopt;
          return getPartTypes(type, parts);
        });
    auto cast = [](OpBuilder &builder, Type type, ValueRange inputs,
                   Location loc) -> Value {
      return UnrealizedConversionCastOp::create(builder, loc, type, inputs)
          .getResult(0);
    };
    addSourceMaterialization(cast);
    addTargetMaterialization(cast);
  }
};

struct LowerNibbleToReference
    : nibble::impl::LowerNibbleToReferenceBase<LowerNibbleToReference> {
  void runOnOperation() override {
    MLIRContext *context = &getContext();
    getOperation().walk([&](Operation *op) {
      numOps += isa_and_present<NibbleDialect>(op->getDialect());
    });
    PartsTypeConverter types;
    ConversionTarget target(*context);
    target.markUnknownOpDynamicallyLegal([](Operation *) { return true; });
    target.addIllegalDialect<NibbleDialect>();
    // Layouts and kernels are of the roads to fast code.
    target.addLegalOp<PackedMatmulOp, FragmentMatmulOp, Dot4Op, LookupOp>();
    target.addDynamicallyLegalOp<tensor::DimOp>([](tensor::DimOp op) {
      return !isQuantized(op.getSource().getType());
    });
    target.addDynamicallyLegalOp<func::FuncOp>([&](func::FuncOp op) {
      return types.isSignatureLegal(op.getFunctionType()) &&
             types.isLegal(&op.getBody());
    });
    target.addDynamicallyLegalOp<func::ReturnOp, func::CallOp>(
        [&](Operation *op) { return types.isLegal(op); });
    RewritePatternSet patterns(context);
    patterns.add<AssembleLowering, CodesLowering, ScalesLowering, ZerosLowering,
                 OutliersLowering, IntegersLowering, DequantizeLowering,
                 QuantizeLowering, QuantizeDynamicLowering, DimLowering,
                 MatmulLowering, GatherLowering, ObserveLowering>(types,
                                                                  context);
    populateFunctionOpInterfaceTypeConversionPattern<func::FuncOp>(patterns,
                                                                   types);
    populateReturnOpTypeConversionPattern(patterns, types);
    populateCallOpTypeConversionPattern(patterns, types);
    if (failed(applyPartialConversion(getOperation(), target,
                                      std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
