//===- ScalarBuilder.cpp - Numbers and how they are stored ----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/ScalarBuilder.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "llvm/ADT/APFloat.h"

using namespace mlir;
using namespace nibble;

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

static bool isSmallFloat(Type type) {
  auto floatType = dyn_cast<FloatType>(type);
  return floatType && floatType.getWidth() <= 8;
}

static bool isWideFloat(Type type) {
  return isa<Float64Type, Float32Type, Float16Type, BFloat16Type>(type);
}

Type nibble::getStoredType(Type element) {
  MLIRContext *context = element.getContext();
  if (isSmallFloat(element))
    return IntegerType::get(context, 8);
  if (isWideFloat(element) || element.isInteger(1))
    return element;
  if (auto integer = dyn_cast<IntegerType>(element);
      integer && integer.getWidth() <= 64)
    return IntegerType::get(context, std::max(8u, integer.getWidth()));
  return {};
}

Type nibble::getComputedType(Type element) {
  if (isa<FloatType>(element) && !element.isF64())
    return Float32Type::get(element.getContext());
  return getStoredType(element);
}

RankedTensorType nibble::getStoredType(RankedTensorType type) {
  Type element = getStoredType(type.getElementType());
  return element ? RankedTensorType::get(type.getShape(), element)
                 : RankedTensorType();
}

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

Value ScalarBuilder::constant(Type type, double value) {
  TypedAttr attr;
  if (auto floatType = dyn_cast<FloatType>(type))
    attr = builder.getFloatAttr(floatType, value);
  else
    attr = builder.getIntegerAttr(type, static_cast<int64_t>(value));
  return arith::ConstantOp::create(builder, loc, attr);
}

Value ScalarBuilder::integer(Type type, int64_t value) {
  return arith::ConstantOp::create(builder, loc,
                                   builder.getIntegerAttr(type, value));
}

Value ScalarBuilder::index(int64_t value) {
  return arith::ConstantIndexOp::create(builder, loc, value);
}

Value ScalarBuilder::boolean(bool value) {
  return arith::ConstantOp::create(builder, loc, builder.getBoolAttr(value));
}

Value ScalarBuilder::infinity(Type type, bool negative) {
  auto floatType = cast<FloatType>(type);
  return arith::ConstantOp::create(
      builder, loc,
      builder.getFloatAttr(
          floatType, APFloat::getInf(floatType.getFloatSemantics(), negative)));
}

static APInt getIntegerLimit(unsigned width, bool isUnsigned, bool highest) {
  if (isUnsigned)
    return highest ? APInt::getMaxValue(width) : APInt::getMinValue(width);
  return highest ? APInt::getSignedMaxValue(width)
                 : APInt::getSignedMinValue(width);
}

static Value buildLimit(ScalarBuilder &scalar, Type element, bool highest) {
  Type type = getComputedType(element);
  if (isa<FloatType>(type))
    return scalar.infinity(type, !highest);
  auto integer = cast<IntegerType>(element);
  APInt limit =
      getIntegerLimit(integer.getWidth(),
                      integer.isUnsigned() || element.isInteger(1), highest);
  unsigned width = type.getIntOrFloatBitWidth();
  limit = integer.isUnsigned() ? limit.zext(width) : limit.sext(width);
  return arith::ConstantOp::create(scalar.builder, scalar.loc,
                                   scalar.builder.getIntegerAttr(type, limit));
}

Value ScalarBuilder::lowest(Type element) {
  return buildLimit(*this, element, /*highest=*/false);
}

Value ScalarBuilder::highest(Type element) {
  return buildLimit(*this, element, /*highest=*/true);
}

//===----------------------------------------------------------------------===//
// Arithmetic
//===----------------------------------------------------------------------===//

static bool isFloat(Value value) { return isa<FloatType>(value.getType()); }

Value ScalarBuilder::add(Value a, Value b) {
  if (isFloat(a))
    return arith::AddFOp::create(builder, loc, a, b);
  return arith::AddIOp::create(builder, loc, a, b);
}

Value ScalarBuilder::sub(Value a, Value b) {
  if (isFloat(a))
    return arith::SubFOp::create(builder, loc, a, b);
  return arith::SubIOp::create(builder, loc, a, b);
}

Value ScalarBuilder::mul(Value a, Value b) {
  if (isFloat(a))
    return arith::MulFOp::create(builder, loc, a, b);
  return arith::MulIOp::create(builder, loc, a, b);
}

Value ScalarBuilder::div(Value a, Value b) {
  if (isFloat(a))
    return arith::DivFOp::create(builder, loc, a, b);
  // Division by 0, and of the least integer by -1, traps.
  Value zero = isZero(b), one = integer(b.getType(), 1);
  Value divisor = select(zero, one, b), quotient;
  if (isUnsigned) {
    quotient = arith::DivUIOp::create(builder, loc, a, divisor);
  } else {
    Value minusOne = equal(divisor, integer(b.getType(), -1));
    quotient =
        arith::DivSIOp::create(builder, loc, a, select(minusOne, one, divisor));
    quotient = select(minusOne, neg(a), quotient);
  }
  return select(zero, integer(a.getType(), 0), quotient);
}

Value ScalarBuilder::rem(Value a, Value b) {
  if (isFloat(a))
    return arith::RemFOp::create(builder, loc, a, b);
  return sub(a, mul(div(a, b), b));
}

Value ScalarBuilder::neg(Value a) {
  if (isFloat(a))
    return arith::NegFOp::create(builder, loc, a);
  return sub(integer(a.getType(), 0), a);
}

Value ScalarBuilder::abs(Value a) {
  if (isFloat(a))
    return math::AbsFOp::create(builder, loc, a);
  return isUnsigned ? a : select(less(a, integer(a.getType(), 0)), neg(a), a);
}

Value ScalarBuilder::max(Value a, Value b) {
  if (isFloat(a))
    return arith::MaximumFOp::create(builder, loc, a, b);
  return select(less(a, b), b, a);
}

Value ScalarBuilder::min(Value a, Value b) {
  if (isFloat(a))
    return arith::MinimumFOp::create(builder, loc, a, b);
  return select(less(b, a), b, a);
}

Value ScalarBuilder::select(Value condition, Value a, Value b) {
  return arith::SelectOp::create(builder, loc, condition, a, b);
}

Value ScalarBuilder::equal(Value a, Value b) {
  if (isFloat(a))
    return arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::OEQ, a, b);
  return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::eq, a, b);
}

Value ScalarBuilder::less(Value a, Value b) {
  if (isFloat(a))
    return arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::OLT, a, b);
  bool zeroExtended = isUnsigned || a.getType().isInteger(1);
  return arith::CmpIOp::create(builder, loc,
                               zeroExtended ? arith::CmpIPredicate::ult
                                            : arith::CmpIPredicate::slt,
                               a, b);
}

Value ScalarBuilder::lessEqual(Value a, Value b) {
  if (isFloat(a))
    return arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::OLE, a, b);
  bool zeroExtended = isUnsigned || a.getType().isInteger(1);
  return arith::CmpIOp::create(builder, loc,
                               zeroExtended ? arith::CmpIPredicate::ule
                                            : arith::CmpIPredicate::sle,
                               a, b);
}

Value ScalarBuilder::isNaN(Value a) {
  return arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::UNO, a, a);
}

Value ScalarBuilder::isZero(Value a) {
  return equal(a, constant(a.getType(), 0));
}

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

Value ScalarBuilder::lookUp(ArrayRef<float> table, Value position) {
  // A power of two, so that a mask keeps every access inside.
  size_t size = llvm::PowerOf2Ceil(table.size());
  SmallVector<float> entries(table);
  entries.resize(size, std::numeric_limits<float>::quiet_NaN());
  auto type =
      RankedTensorType::get({static_cast<int64_t>(size)}, builder.getF32Type());
  Value constant = arith::ConstantOp::create(
      builder, loc, DenseElementsAttr::get(type, ArrayRef<float>(entries)));
  Value wide = arith::IndexCastUIOp::create(builder, loc,
                                            builder.getIndexType(), position);
  Value inside = arith::AndIOp::create(builder, loc, wide, index(size - 1));
  return tensor::ExtractOp::create(builder, loc, constant, inside);
}

/// Every value of a float format of at most 8 bits.
static SmallVector<float> getSmallFloats(FloatType type) {
  unsigned width = type.getWidth();
  SmallVector<float> values;
  for (unsigned code = 0; code < 1u << width; ++code) {
    APFloat value(type.getFloatSemantics(), APInt(width, code));
    if (value.isNaN()) {
      values.push_back(std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    bool losesInfo;
    value.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven,
                  &losesInfo);
    values.push_back(value.convertToFloat());
  }
  return values;
}

Value ScalarBuilder::decode(Value stored, Type element) {
  if (isSmallFloat(element))
    return lookUp(getSmallFloats(cast<FloatType>(element)), stored);
  if (isa<Float16Type, BFloat16Type>(element))
    return arith::ExtFOp::create(builder, loc, builder.getF32Type(), stored);
  return stored;
}

//===----------------------------------------------------------------------===//
// Encoding
//===----------------------------------------------------------------------===//

static uint64_t getBits(const APFloat &value) {
  return value.bitcastToAPInt().getZExtValue();
}

static APFloat toSingle(APFloat value) {
  bool losesInfo;
  value.convert(APFloat::IEEEsingle(), APFloat::rmNearestTiesToEven,
                &losesInfo);
  return value;
}

// Numbers in the format's normal range round in the integers: half an ulp less
// one, plus the last bit kept, carries into the exponent as it should. Smaller
// ones are added to a power of two whose ulp is the format's smallest number,
// so that the addition rounds.
Value ScalarBuilder::encodeSmallFloat(Value number, FloatType type,
                                      OutOfRange overflow) {
  const llvm::fltSemantics &format = type.getFloatSemantics();
  Type i32 = builder.getI32Type();
  auto shiftRight = [&](Value a, int64_t bits) -> Value {
    return arith::ShRUIOp::create(builder, loc, a, integer(i32, bits));
  };
  auto bitAnd = [&](Value a, int64_t mask) -> Value {
    return arith::AndIOp::create(builder, loc, a, integer(i32, mask));
  };
  auto isAbove = [&](Value a, int64_t limit) -> Value {
    return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::ugt, a,
                                 integer(i32, limit));
  };
  int64_t dropped = 23 - (APFloat::semanticsPrecision(format) - 1);
  int64_t leastNormal =
      getBits(toSingle(APFloat::getSmallestNormalized(format)));
  APFloat smallest = toSingle(APFloat::getSmallest(format));
  APFloat magic = llvm::scalbn(smallest, 23, APFloat::rmNearestTiesToEven);
  // In the format's own bits, where its least normal number has exponent 1.
  int64_t rebias =
      leastNormal -
      (int64_t(getBits(APFloat::getSmallestNormalized(format))) << dropped);

  Value bits = arith::BitcastOp::create(builder, loc, i32, number);
  Value magnitude = bitAnd(bits, 0x7fffffff);
  Value odd = bitAnd(shiftRight(magnitude, dropped), 1);
  Value rounded = add(magnitude, integer(i32, (1 << (dropped - 1)) - 1));
  Value normal =
      shiftRight(sub(add(rounded, odd), integer(i32, rebias)), dropped);
  Value magicValue = arith::ConstantOp::create(
      builder, loc, builder.getFloatAttr(builder.getF32Type(), magic));
  Value absolute =
      arith::BitcastOp::create(builder, loc, builder.getF32Type(), magnitude);
  Value sum = add(absolute, magicValue);
  Value tiny = sub(arith::BitcastOp::create(builder, loc, i32, sum),
                   integer(i32, getBits(magic)));
  Value isNormal =
      arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::uge, magnitude,
                            integer(i32, leastNormal));
  Value code = select(isNormal, normal, tiny);

  int64_t largest = getBits(APFloat::getLargest(format));
  int64_t notANumber =
      APFloat::semanticsHasNaN(format) ? getBits(APFloat::getNaN(format)) : 0;
  int64_t beyond = largest;
  if (overflow == OutOfRange::Propagate && APFloat::semanticsHasInf(format))
    beyond = getBits(APFloat::getInf(format));
  else if (overflow == OutOfRange::Propagate &&
           APFloat::semanticsHasNaN(format))
    beyond = notANumber;
  Value tooLarge = arith::OrIOp::create(builder, loc, isAbove(code, largest),
                                        isAbove(magnitude, 0x7f7fffff));
  code = select(tooLarge, integer(i32, beyond), code);

  unsigned width = type.getWidth();
  Value sign = bitAnd(shiftRight(bits, 32 - width), int64_t(1) << (width - 1));
  // Formats whose only NaN is "minus zero" have no negative zero.
  if (APFloat::getZero(format, /*Negative=*/true).isPosZero() ||
      getBits(APFloat::getZero(format, true)) == 0) {
    Value isNothing = equal(code, integer(i32, 0));
    Value isNaNCode = equal(code, integer(i32, notANumber));
    sign = select(arith::OrIOp::create(builder, loc, isNothing, isNaNCode),
                  integer(i32, 0), sign);
  }
  code = arith::OrIOp::create(builder, loc, code, sign);
  Value isNotANumber = isAbove(magnitude, 0x7f800000);
  code = select(isNotANumber, integer(i32, notANumber), code);
  return arith::TruncIOp::create(builder, loc, builder.getI8Type(), code);
}

Value ScalarBuilder::encodeExponentUp(Value number) {
  Type i32 = builder.getI32Type();
  Value bits = arith::BitcastOp::create(builder, loc, i32, number);
  // One more wherever the mantissa is not 0; denormals become 2^-127 or 2^-126.
  Value raised = add(bits, integer(i32, 0x7fffff));
  Value exponent =
      arith::ShRUIOp::create(builder, loc, raised, integer(i32, 23));
  Value isTiny = arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::ule,
                                       bits, integer(i32, 0x400000));
  exponent = select(isTiny, integer(i32, 0), exponent);
  Value tooLarge = arith::CmpIOp::create(
      builder, loc, arith::CmpIPredicate::ugt, exponent, integer(i32, 254));
  exponent = select(tooLarge, integer(i32, 254), exponent);
  return arith::TruncIOp::create(builder, loc, builder.getI8Type(), exponent);
}

Value ScalarBuilder::encodeBF16(Value number) {
  Type i32 = builder.getI32Type(), i16 = builder.getI16Type();
  Value bits = arith::BitcastOp::create(builder, loc, i32, number);
  Value half = integer(i32, 16);
  Value high = arith::ShRUIOp::create(builder, loc, bits, half);
  Value odd = arith::AndIOp::create(builder, loc, high, integer(i32, 1));
  Value rounded = add(add(bits, integer(i32, 0x7fff)), odd);
  rounded = arith::ShRUIOp::create(builder, loc, rounded, half);
  Value quiet = arith::OrIOp::create(builder, loc, high, integer(i32, 0x40));
  Value code = select(isNaN(number), quiet, rounded);
  code = arith::TruncIOp::create(builder, loc, i16, code);
  return arith::BitcastOp::create(builder, loc, builder.getBF16Type(), code);
}

/// Keeps the low bits of an integer that is stored in a wider one.
Value ScalarBuilder::wrap(Value number, IntegerType element) {
  unsigned stored = number.getType().getIntOrFloatBitWidth();
  if (element.getWidth() == stored)
    return number;
  if (element.isUnsigned())
    return arith::AndIOp::create(
        builder, loc, number,
        integer(number.getType(), (int64_t(1) << element.getWidth()) - 1));
  Value bits = integer(number.getType(), stored - element.getWidth());
  Value top = arith::ShLIOp::create(builder, loc, number, bits);
  return arith::ShRSIOp::create(builder, loc, top, bits);
}

Value ScalarBuilder::encode(Value number, Type element, OutOfRange overflow) {
  if (auto integer = dyn_cast<IntegerType>(element))
    return wrap(number, integer);
  if (element.isF64() || number.getType() == element)
    return number;
  if (element.isF16()) {
    Value rounded = arith::TruncFOp::create(builder, loc, element, number);
    if (overflow == OutOfRange::Propagate)
      return rounded;
    Value limit = constant(number.getType(), 65504);
    return arith::TruncFOp::create(builder, loc, element,
                                   min(max(number, neg(limit)), limit));
  }
  if (element.isBF16())
    return encodeBF16(number);
  if (isa<Float8E8M0FNUType>(element))
    return encodeExponentUp(number);
  return encodeSmallFloat(number, cast<FloatType>(element), overflow);
}

Value ScalarBuilder::roundTo(Value number, Type element) {
  return decode(encode(number, element), element);
}

//===----------------------------------------------------------------------===//
// Conversions
//===----------------------------------------------------------------------===//

Value ScalarBuilder::toInteger(Value number, IntegerType element) {
  auto floatType = cast<FloatType>(number.getType());
  auto getLimit = [&](bool highest) -> Value {
    APInt limit =
        getIntegerLimit(element.getWidth(), element.isUnsigned(), highest);
    APFloat value(floatType.getFloatSemantics());
    value.convertFromAPInt(limit, !element.isUnsigned(), APFloat::rmTowardZero);
    return arith::ConstantOp::create(builder, loc,
                                     builder.getFloatAttr(floatType, value));
  };
  Value finite = select(isNaN(number), constant(floatType, 0), number);
  Value clamped = min(max(finite, getLimit(false)), getLimit(true));
  Type type = getStoredType(element);
  Value result;
  if (element.isUnsigned())
    result = arith::FPToUIOp::create(builder, loc, type, clamped);
  else
    result = arith::FPToSIOp::create(builder, loc, type, clamped);
  // 2^63 - 1 is no float: the clamp stops below it.
  Value above = less(getLimit(true), finite);
  return select(above, highest(element), result);
}

Value ScalarBuilder::convert(Value number, Type from, Type to) {
  Type type = getComputedType(to);
  if (to.isInteger(1)) {
    if (from.isInteger(1))
      return number;
    Value zero = constant(number.getType(), 0);
    if (isFloat(number))
      return arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::UNE,
                                   number, zero);
    return arith::CmpIOp::create(builder, loc, arith::CmpIPredicate::ne, number,
                                 zero);
  }
  if (isFloat(number)) {
    if (auto element = dyn_cast<IntegerType>(to))
      return toInteger(number, element);
    if (number.getType() == type)
      return number;
    if (type.isF64())
      return arith::ExtFOp::create(builder, loc, type, number);
    return arith::TruncFOp::create(builder, loc, type, number);
  }
  bool zeroExtends = from.isUnsignedInteger() || from.isInteger(1);
  if (isa<FloatType>(type)) {
    if (zeroExtends)
      return arith::UIToFPOp::create(builder, loc, type, number);
    return arith::SIToFPOp::create(builder, loc, type, number);
  }
  unsigned source = number.getType().getIntOrFloatBitWidth();
  unsigned target = type.getIntOrFloatBitWidth();
  if (source < target)
    number =
        zeroExtends
            ? arith::ExtUIOp::create(builder, loc, type, number).getResult()
            : arith::ExtSIOp::create(builder, loc, type, number).getResult();
  else if (source > target)
    number = arith::TruncIOp::create(builder, loc, type, number);
  return wrap(number, cast<IntegerType>(to));
}
