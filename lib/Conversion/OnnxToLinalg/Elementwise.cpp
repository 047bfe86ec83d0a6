//===- Elementwise.cpp - Nodes that work on each element ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Formulas are those of https://onnx.ai/onnx/operators.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"

#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// Makes a result's number from the numbers of the inputs.
using NodeFunction = Value (*)(ScalarBuilder &, ValueRange, NodeOp);

static bool isUnsignedElement(Type element) {
  return element.isUnsignedInteger() || element.isInteger(1);
}

/// Converts a node whose result has the elements of input `source`, or is bool
/// where `source` is negative.
static LogicalResult convertElementwise(NodeContext &context, int source,
                                        NodeFunction function) {
  SmallVector<Value> tensors;
  SmallVector<RankedTensorType> types;
  for (unsigned i = 0; i < context.getNumInputs(); ++i) {
    if (context.isAbsent(i))
      return context.fail("input " + Twine(i) + " is left out");
    tensors.push_back(context.getInput(i));
    types.push_back(context.getInputType(i));
  }
  if (tensors.empty())
    return context.fail("has no inputs");
  Type element = source < 0 ? context.rewriter.getI1Type()
                            : context.getElementType(source);
  bool isUnsigned =
      isUnsignedElement(context.getElementType(source < 0 ? 0 : source));
  return context.replace(
      buildBroadcast(context, tensors, types, element,
                     [&](ScalarBuilder &scalar, ValueRange numbers) {
                       scalar.isUnsigned = isUnsigned;
                       return function(scalar, numbers, context.node);
                     }));
}

//===----------------------------------------------------------------------===//
// Shorthands
//===----------------------------------------------------------------------===//

namespace {
/// One float operand, and the operations that the formulas below are made of.
struct Formula {
  Formula(ScalarBuilder &scalar, Value x) : scalar(scalar), x(x) {}
  ScalarBuilder &scalar;
  Value x;

  Value constant(double value) { return scalar.constant(x.getType(), value); }
  template <typename Op> Value apply(Value a) {
    return Op::create(scalar.builder, scalar.loc, a);
  }
  Value exp(Value a) { return apply<math::ExpOp>(a); }
  Value sigmoid(Value a) {
    Value one = constant(1);
    return scalar.div(one, scalar.add(one, exp(scalar.neg(a))));
  }
  /// log(1 + exp(a)), which does not overflow.
  Value softplus(Value a) {
    Value small = apply<math::Log1pOp>(exp(scalar.neg(scalar.abs(a))));
    return scalar.add(scalar.max(a, constant(0)), small);
  }
  Value isNegative() { return scalar.less(x, constant(0)); }
};
} // namespace

template <typename Op>
static Value applyMath(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  return Op::create(scalar.builder, scalar.loc, args[0]);
}

/// Registers a math op, the integer version of which is the identity.
template <typename Op>
static Value applyRounding(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  if (!isa<FloatType>(args[0].getType()))
    return args[0];
  return Op::create(scalar.builder, scalar.loc, args[0]);
}

template <typename Op>
static Value applyBits(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  return Op::create(scalar.builder, scalar.loc, args[0], args[1]);
}

/// Folds any number of inputs from the first to the last.
template <Value (ScalarBuilder::*function)(Value, Value)>
static Value fold(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Value result = args[0];
  for (Value next : args.drop_front())
    result = (scalar.*function)(result, next);
  return result;
}

//===----------------------------------------------------------------------===//
// One input
//===----------------------------------------------------------------------===//

static Value buildSign(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Value x = args[0], zero = scalar.constant(x.getType(), 0);
  Value sign = scalar.select(scalar.less(zero, x),
                             scalar.constant(x.getType(), 1), zero);
  if (scalar.isUnsigned)
    return sign;
  return scalar.select(scalar.less(x, zero), scalar.constant(x.getType(), -1),
                       sign);
}

static Value buildNot(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Value ones = scalar.integer(args[0].getType(), -1);
  return arith::XOrIOp::create(scalar.builder, scalar.loc, args[0], ones);
}

static Value buildIsInf(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Value x = args[0];
  Value found = scalar.boolean(false);
  auto add = [&](bool negative) {
    Value same = scalar.equal(x, scalar.infinity(x.getType(), negative));
    found = arith::OrIOp::create(scalar.builder, scalar.loc, found, same);
  };
  if (node.getInt("detect_positive", 1))
    add(false);
  if (node.getInt("detect_negative", 1))
    add(true);
  return found;
}

static Value buildRelu(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  return scalar.max(args[0], scalar.constant(args[0].getType(), 0));
}

static Value buildLeakyRelu(ScalarBuilder &scalar, ValueRange args,
                            NodeOp node) {
  Formula f(scalar, args[0]);
  Value scaled = scalar.mul(f.constant(node.getFloat("alpha", 0.01f)), f.x);
  return scalar.select(f.isNegative(), scaled, f.x);
}

static Value buildThresholdedRelu(ScalarBuilder &scalar, ValueRange args,
                                  NodeOp node) {
  Formula f(scalar, args[0]);
  return scalar.select(scalar.less(f.constant(node.getFloat("alpha", 1)), f.x),
                       f.x, f.constant(0));
}

static Value buildElu(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Formula f(scalar, args[0]);
  Value low = scalar.mul(f.constant(node.getFloat("alpha", 1)),
                         f.apply<math::ExpM1Op>(f.x));
  return scalar.select(f.isNegative(), low, f.x);
}

static Value buildCelu(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Formula f(scalar, args[0]);
  Value alpha = f.constant(node.getFloat("alpha", 1));
  Value low = scalar.mul(alpha, f.apply<math::ExpM1Op>(scalar.div(f.x, alpha)));
  return scalar.select(f.isNegative(), low, f.x);
}

static Value buildSelu(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Formula f(scalar, args[0]);
  Value alpha = f.constant(node.getFloat("alpha", 1.67326319217681884765625f));
  Value gamma = f.constant(node.getFloat("gamma", 1.05070102214813232421875f));
  Value low = scalar.mul(alpha, f.apply<math::ExpM1Op>(f.x));
  return scalar.mul(gamma, scalar.select(f.isNegative(), low, f.x));
}

static Value buildSigmoid(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Formula f(scalar, args[0]);
  return f.sigmoid(f.x);
}

static Value buildSwish(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Formula f(scalar, args[0]);
  Value alpha = f.constant(node.getFloat("alpha", 1));
  return scalar.mul(f.x, f.sigmoid(scalar.mul(alpha, f.x)));
}

static Value buildHardSigmoidOf(Formula &f, double alpha, double beta) {
  ScalarBuilder &scalar = f.scalar;
  Value line = scalar.add(scalar.mul(f.constant(alpha), f.x), f.constant(beta));
  return scalar.max(f.constant(0), scalar.min(f.constant(1), line));
}

static Value buildHardSigmoid(ScalarBuilder &scalar, ValueRange args,
                              NodeOp node) {
  Formula f(scalar, args[0]);
  return buildHardSigmoidOf(f, node.getFloat("alpha", 0.2f),
                            node.getFloat("beta", 0.5f));
}

static Value buildHardSwish(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Formula f(scalar, args[0]);
  return scalar.mul(f.x, buildHardSigmoidOf(f, 1.0f / 6, 0.5f));
}

static Value buildSoftplus(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Formula f(scalar, args[0]);
  return f.softplus(f.x);
}

static Value buildSoftsign(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Formula f(scalar, args[0]);
  return scalar.div(f.x, scalar.add(f.constant(1), scalar.abs(f.x)));
}

static Value buildMish(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Formula f(scalar, args[0]);
  return scalar.mul(f.x, f.apply<math::TanhOp>(f.softplus(f.x)));
}

static Value buildGelu(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Formula f(scalar, args[0]);
  Value inner;
  if (node.getString("approximate", "none") == "tanh") {
    Value cube = scalar.mul(scalar.mul(f.x, f.x), f.x);
    inner = scalar.add(f.x, scalar.mul(f.constant(0.044715), cube));
    inner = f.apply<math::TanhOp>(
        scalar.mul(f.constant(0.79788456080286535588), inner));
  } else {
    inner = f.apply<math::ErfOp>(
        scalar.mul(f.x, f.constant(0.70710678118654752440)));
  }
  Value half = scalar.mul(f.constant(0.5), f.x);
  return scalar.mul(half, scalar.add(f.constant(1), inner));
}

static Value buildShrink(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Value x = args[0];
  Type type = x.getType();
  Value lambda = scalar.constant(type, node.getFloat("lambd", 0.5f));
  Value bias = scalar.constant(type, node.getFloat("bias", 0));
  Value high = scalar.select(scalar.less(lambda, x), scalar.sub(x, bias),
                             scalar.constant(type, 0));
  return scalar.select(scalar.less(x, scalar.neg(lambda)), scalar.add(x, bias),
                       high);
}

//===----------------------------------------------------------------------===//
// Two inputs and more
//===----------------------------------------------------------------------===//

static Value buildMean(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Value sum = fold<&ScalarBuilder::add>(scalar, args, node);
  return scalar.div(sum, scalar.constant(sum.getType(), args.size()));
}

/// The sign of a result is the divisor's, or the dividend's with `fmod`.
static Value buildMod(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  Value rest = scalar.rem(args[0], args[1]);
  if (node.getInt("fmod", 0) || scalar.isUnsigned)
    return rest;
  Value zero = scalar.constant(rest.getType(), 0);
  Value differs =
      arith::XOrIOp::create(scalar.builder, scalar.loc, scalar.less(rest, zero),
                            scalar.less(args[1], zero));
  Value inexact = buildNot(scalar, scalar.equal(rest, zero), node);
  Value adjusted =
      arith::AndIOp::create(scalar.builder, scalar.loc, differs, inexact);
  return scalar.select(adjusted, scalar.add(rest, args[1]), rest);
}

static Value buildPRelu(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  Value zero = scalar.constant(args[0].getType(), 0);
  return scalar.select(scalar.less(args[0], zero), scalar.mul(args[0], args[1]),
                       args[0]);
}

/// By the width or more, as by a negative number, everything is shifted out; a
/// right shift of a signed integer fills with its sign.
static Value buildShift(ScalarBuilder &scalar, ValueRange args, NodeOp node) {
  unsigned width = args[0].getType().getIntOrFloatBitWidth();
  bool left = node.getString("direction", "") == "LEFT";
  bool fillsWithSign = !left && !scalar.isUnsigned;
  Value limit = scalar.integer(args[1].getType(), width);
  Value tooFar = arith::CmpIOp::create(
      scalar.builder, scalar.loc, arith::CmpIPredicate::uge, args[1], limit);
  Value amount = scalar.select(
      tooFar, scalar.integer(args[1].getType(), fillsWithSign ? width - 1 : 0),
      args[1]);
  if (fillsWithSign)
    return arith::ShRSIOp::create(scalar.builder, scalar.loc, args[0], amount);
  Value shifted;
  if (left)
    shifted =
        arith::ShLIOp::create(scalar.builder, scalar.loc, args[0], amount);
  else
    shifted =
        arith::ShRUIOp::create(scalar.builder, scalar.loc, args[0], amount);
  return scalar.select(tooFar, scalar.integer(args[0].getType(), 0), shifted);
}

static Value buildGreater(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  return scalar.less(args[1], args[0]);
}

static Value buildGreaterEqual(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  return scalar.lessEqual(args[1], args[0]);
}

static Value buildWhere(ScalarBuilder &scalar, ValueRange args, NodeOp) {
  return scalar.select(args[0], args[1], args[2]);
}

static Value buildIdentity(ScalarBuilder &, ValueRange args, NodeOp) {
  return args[0];
}

/// Base and exponent may have different types; the result has the base's.
static LogicalResult convertPow(NodeContext &context) {
  Type base = context.getElementType(0), exponent = context.getElementType(1);
  auto build = [&](ScalarBuilder &scalar, ValueRange args) -> Value {
    Value x = args[0], y = args[1];
    Type type = x.getType();
    if (!isa<FloatType>(type))
      type = scalar.builder.getF64Type();
    else if (auto wide = dyn_cast<FloatType>(y.getType()); wide && wide.isF64())
      type = wide;
    Value power = math::PowFOp::create(scalar.builder, scalar.loc,
                                       scalar.convert(x, base, type),
                                       scalar.convert(y, exponent, type));
    return scalar.convert(power, type, base);
  };
  return context.replace(buildBroadcast(
      context, {context.getInput(0), context.getInput(1)},
      {context.getInputType(0), context.getInputType(1)}, base, build));
}

//===----------------------------------------------------------------------===//
// Clip, Cast
//===----------------------------------------------------------------------===//

/// Until version 10 the limits are attributes.
static LogicalResult convertClipAttributes(NodeContext &context) {
  Type element = context.getElementType(0);
  bool hasLow = static_cast<bool>(context.node.getAttributeValue("min"));
  bool hasHigh = static_cast<bool>(context.node.getAttributeValue("max"));
  return context.replace(buildBroadcast(
      context, context.getInput(0), context.getInputType(0), element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value x = args[0];
        if (hasLow)
          x = scalar.max(
              x, scalar.constant(x.getType(), context.node.getFloat("min", 0)));
        if (hasHigh)
          x = scalar.min(
              x, scalar.constant(x.getType(), context.node.getFloat("max", 0)));
        return x;
      }));
}

/// The lower limit is applied first: the upper one wins where they cross.
static LogicalResult convertClip(NodeContext &context) {
  SmallVector<Value> tensors{context.getInput(0)};
  SmallVector<RankedTensorType> types{context.getInputType(0)};
  bool hasLow = context.getNumInputs() > 1 && !context.isAbsent(1);
  bool hasHigh = context.getNumInputs() > 2 && !context.isAbsent(2);
  for (unsigned i : {1u, 2u})
    if (i == 1 ? hasLow : hasHigh) {
      tensors.push_back(context.getInput(i));
      types.push_back(context.getInputType(i));
      if (types.back().getRank() != 0)
        return context.fail("limits must be scalars");
    }
  Type element = context.getElementType(0);
  return context.replace(
      buildBroadcast(context, tensors, types, element,
                     [&](ScalarBuilder &scalar, ValueRange args) {
                       scalar.isUnsigned = isUnsignedElement(element);
                       Value x = args[0];
                       if (hasLow)
                         x = scalar.max(x, args[1]);
                       if (hasHigh)
                         x = scalar.min(x, args.back());
                       return x;
                     }));
}

/// The exponent of an f32 as an f8E8M0FNU, rounded as `mode` says. What is
/// beyond the largest power is it, or NaN; the sign is lost.
static Value buildExponent(ScalarBuilder &scalar, Value number, StringRef mode,
                           bool saturates) {
  Type i32 = scalar.builder.getI32Type();
  auto bitAnd = [&](Value a, int64_t mask) -> Value {
    return arith::AndIOp::create(scalar.builder, scalar.loc, a,
                                 scalar.integer(i32, mask));
  };
  auto isAbove = [&](Value a, int64_t limit) -> Value {
    return scalar.less(scalar.integer(i32, limit), a);
  };
  constexpr int64_t half = 0x400000, highest = 254, notANumber = 255;
  Value bits =
      arith::BitcastOp::create(scalar.builder, scalar.loc, i32, number);
  Value magnitude = bitAnd(bits, 0x7fffffff), fraction = bitAnd(bits, 0x7fffff);
  Value exponent = arith::ShRUIOp::create(scalar.builder, scalar.loc, magnitude,
                                          scalar.integer(i32, 23));
  // Exponent 0 means 2^-127, which is a denormal f32 with the fraction 1/2.
  Value isTiny = scalar.isZero(exponent);
  Value increment = scalar.integer(i32, 0), one = scalar.integer(i32, 1);
  if (mode != "down") {
    bool isUp = mode != "nearest";
    Value rounds = scalar.select(
        isTiny, isAbove(fraction, isUp ? half : half + half / 2 - 1),
        isAbove(fraction, isUp ? 0 : half - 1));
    increment = scalar.select(rounds, one, increment);
  }
  Value code = scalar.add(exponent, increment);
  Value beyond = scalar.integer(i32, saturates ? highest : notANumber);
  code = scalar.select(isAbove(code, highest), beyond, code);
  code = scalar.select(isAbove(magnitude, 0x7f800000),
                       scalar.integer(i32, notANumber), code);
  return arith::TruncIOp::create(scalar.builder, scalar.loc,
                                 scalar.builder.getI8Type(), code);
}

static LogicalResult convertCastToExponent(NodeContext &context) {
  StringRef mode = context.node.getString("round_mode", "up");
  if (!llvm::is_contained({"up", "down", "nearest"}, mode))
    return context.fail("there is no round_mode '" + mode + "'");
  bool saturates = context.node.getInt("saturate", 1) != 0;
  Type from = context.getElementType(0);
  Value x = context.getInput(0);
  int64_t rank = context.getInputType(0).getRank();
  return context.replace(buildElementwise(
      context.rewriter, context.loc, x,
      context.rewriter.getMultiDimIdentityMap(rank), context.getSizes(x),
      context.rewriter.getI8Type(),
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value number = scalar.convert(scalar.decode(args[0], from), from,
                                      scalar.builder.getF32Type());
        return buildExponent(scalar, number, mode, saturates);
      }));
}

static LogicalResult convertCast(NodeContext &context) {
  RankedTensorType declared = context.getResultType();
  if (!declared || !getStoredType(declared))
    return context.fail("the result is not known to be a tensor of numbers "
                        "(run --onnx-infer-shapes)");
  OutOfRange overflow = context.node.getInt("saturate", 1)
                            ? OutOfRange::Saturate
                            : OutOfRange::Propagate;
  // Only formats of 8 bits and fewer saturate.
  Type to = declared.getElementType();
  if (isa<Float8E8M0FNUType>(to) && to != context.getElementType(0))
    return convertCastToExponent(context);
  if (to.getIntOrFloatBitWidth() > 8)
    overflow = OutOfRange::Propagate;
  return context.replace(buildCast(context, context.getInput(0),
                                   context.getElementType(0), to, overflow));
}

/// The bits of an element, an integer as wide as the element.
static Value getBits(ScalarBuilder &scalar, Value stored, Type element) {
  unsigned width = element.isInteger(1) ? 8 : element.getIntOrFloatBitWidth();
  Type bits = scalar.builder.getIntegerType(width);
  Type type = stored.getType();
  if (isa<FloatType>(type))
    return arith::BitcastOp::create(scalar.builder, scalar.loc, bits, stored);
  if (type.isInteger(1))
    return arith::ExtUIOp::create(scalar.builder, scalar.loc, bits, stored);
  if (type != bits)
    return arith::TruncIOp::create(scalar.builder, scalar.loc, bits, stored);
  return stored;
}

/// The stored element that has these bits.
static Value fromBits(ScalarBuilder &scalar, Value bits, Type element) {
  Type type = getStoredType(element);
  if (isa<FloatType>(type))
    return arith::BitcastOp::create(scalar.builder, scalar.loc, type, bits);
  if (type.isInteger(1))
    return arith::CmpIOp::create(scalar.builder, scalar.loc,
                                 arith::CmpIPredicate::ne, bits,
                                 scalar.integer(bits.getType(), 0));
  if (type == bits.getType())
    return bits;
  if (isa<FloatType>(element) || element.isUnsignedInteger())
    return arith::ExtUIOp::create(scalar.builder, scalar.loc, type, bits);
  return arith::ExtSIOp::create(scalar.builder, scalar.loc, type, bits);
}

static LogicalResult convertBitCast(NodeContext &context) {
  RankedTensorType declared = context.getResultType();
  Type from = context.getElementType(0);
  if (!declared || !getStoredType(declared) ||
      getBitWidth(declared.getElementType()) != getBitWidth(from))
    return context.fail("the result is not known to be a tensor of numbers of "
                        "the input's width (run --onnx-infer-shapes)");
  Value x = context.getInput(0);
  Type to = declared.getElementType();
  return context.replace(buildElementwise(
      context.rewriter, context.loc, x,
      context.rewriter.getMultiDimIdentityMap(declared.getRank()),
      context.getSizes(x), getStoredType(to),
      [&](ScalarBuilder &scalar, ValueRange args) {
        return fromBits(scalar, getBits(scalar, args[0], from), to);
      }));
}

//===----------------------------------------------------------------------===//
// Registration
//===----------------------------------------------------------------------===//

void nibble::addElementwiseConversions(NodeConversions &conversions) {
  // The result has the elements of the first input.
  auto add = [&](StringRef opType, NodeFunction function, int64_t since = 1) {
    conversions.add(opType, since, [function](NodeContext &context) {
      return convertElementwise(context, 0, function);
    });
  };
  auto addPredicate = [&](StringRef opType, NodeFunction function,
                          int64_t since = 1) {
    conversions.add(opType, since, [function](NodeContext &context) {
      return convertElementwise(context, -1, function);
    });
  };

  add("Abs",
      [](ScalarBuilder &s, ValueRange a, NodeOp) { return s.abs(a[0]); });
  add("Neg",
      [](ScalarBuilder &s, ValueRange a, NodeOp) { return s.neg(a[0]); });
  add("Reciprocal", [](ScalarBuilder &s, ValueRange a, NodeOp) {
    return s.div(s.constant(a[0].getType(), 1), a[0]);
  });
  add("Ceil", applyRounding<math::CeilOp>);
  add("Floor", applyRounding<math::FloorOp>);
  add("Round", applyRounding<math::RoundEvenOp>);
  add("Sqrt", applyMath<math::SqrtOp>);
  add("Exp", applyMath<math::ExpOp>);
  add("Log", applyMath<math::LogOp>);
  add("Sin", applyMath<math::SinOp>);
  add("Cos", applyMath<math::CosOp>);
  add("Tan", applyMath<math::TanOp>);
  add("Asin", applyMath<math::AsinOp>);
  add("Acos", applyMath<math::AcosOp>);
  add("Atan", applyMath<math::AtanOp>);
  add("Sinh", applyMath<math::SinhOp>);
  add("Cosh", applyMath<math::CoshOp>);
  add("Tanh", applyMath<math::TanhOp>);
  add("Asinh", applyMath<math::AsinhOp>);
  add("Acosh", applyMath<math::AcoshOp>);
  add("Atanh", applyMath<math::AtanhOp>);
  add("Erf", applyMath<math::ErfOp>);
  add("Sign", buildSign);
  add("Identity", buildIdentity);
  add("Not", buildNot);
  add("BitwiseNot", buildNot);
  add("Relu", buildRelu);
  add("LeakyRelu", buildLeakyRelu);
  add("ThresholdedRelu", buildThresholdedRelu);
  add("Elu", buildElu);
  add("Celu", buildCelu);
  add("Selu", buildSelu);
  add("Sigmoid", buildSigmoid);
  add("Swish", buildSwish);
  add("HardSigmoid", buildHardSigmoid);
  add("HardSwish", buildHardSwish);
  add("Softplus", buildSoftplus);
  add("Softsign", buildSoftsign);
  add("Mish", buildMish);
  add("Gelu", buildGelu);
  add("Shrink", buildShrink);

  // Before version 7 broadcasting was another.
  add("Add", fold<&ScalarBuilder::add>, 7);
  add("Sub", fold<&ScalarBuilder::sub>, 7);
  add("Mul", fold<&ScalarBuilder::mul>, 7);
  add("Div", fold<&ScalarBuilder::div>, 7);
  add("And", applyBits<arith::AndIOp>, 7);
  add("Or", applyBits<arith::OrIOp>, 7);
  add("Xor", applyBits<arith::XOrIOp>, 7);
  add("BitwiseAnd", applyBits<arith::AndIOp>);
  add("BitwiseOr", applyBits<arith::OrIOp>);
  add("BitwiseXor", applyBits<arith::XOrIOp>);
  add("BitShift", buildShift);
  add("Mod", buildMod);
  add("PRelu", buildPRelu, 7);
  add("Sum", fold<&ScalarBuilder::add>, 8);
  add("Mean", buildMean, 8);
  add("Max", fold<&ScalarBuilder::max>, 8);
  add("Min", fold<&ScalarBuilder::min>, 8);
  conversions.add("Pow", 7, convertPow);
  conversions.add("Where", 9, [](NodeContext &context) {
    return convertElementwise(context, 1, buildWhere);
  });

  addPredicate(
      "Equal",
      [](ScalarBuilder &s, ValueRange a, NodeOp) {
        return s.equal(a[0], a[1]);
      },
      7);
  addPredicate(
      "Less",
      [](ScalarBuilder &s, ValueRange a, NodeOp) { return s.less(a[0], a[1]); },
      7);
  addPredicate("LessOrEqual", [](ScalarBuilder &s, ValueRange a, NodeOp) {
    return s.lessEqual(a[0], a[1]);
  });
  addPredicate("Greater", buildGreater, 7);
  addPredicate("GreaterOrEqual", buildGreaterEqual);
  addPredicate("IsNaN", [](ScalarBuilder &s, ValueRange a, NodeOp) {
    return s.isNaN(a[0]);
  });
  addPredicate("IsInf", buildIsInf);

  conversions.add("Clip", 1, convertClipAttributes);
  conversions.add("Clip", 11, convertClip);
  conversions.add("Cast", 1, convertCast);
  conversions.add("CastLike", 15, convertCast);
  conversions.add("BitCast", 26, convertBitCast);
}
