//===- Signal.cpp - Fourier transforms, windows and mel filters -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <cmath>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

using Iterator = utils::IteratorType;

/// The only integer of an input, which has one element, as an index.
static Value extractSize(NodeContext &context, unsigned input) {
  Value tensor = context.getInput(input);
  SmallVector<Value> indices(cast<RankedTensorType>(tensor.getType()).getRank(),
                             context.scalar().index(0));
  return arith::IndexCastOp::create(
      context.rewriter, context.loc, context.rewriter.getIndexType(),
      tensor::ExtractOp::create(context.rewriter, context.loc, tensor,
                                indices));
}

static bool isGiven(NodeContext &context, unsigned input) {
  return input < context.getNumInputs() && !context.isAbsent(input);
}

/// An input with one element that must be constant; std::nullopt where not.
static std::optional<int64_t> getConstantSize(NodeContext &context,
                                              unsigned input) {
  auto values = context.getConstantInts(input);
  if (!values || values->size() != 1)
    return std::nullopt;
  return values->front();
}

static Value toFloat(ScalarBuilder &scalar, Value index) {
  Value integer = arith::IndexCastOp::create(
      scalar.builder, scalar.loc, scalar.builder.getI64Type(), index);
  return arith::SIToFPOp::create(scalar.builder, scalar.loc,
                                 scalar.builder.getF64Type(), integer);
}

static Value number(ScalarBuilder &scalar, double value) {
  return scalar.constant(scalar.builder.getF64Type(), value);
}

//===----------------------------------------------------------------------===//
// Windows
//===----------------------------------------------------------------------===//

/// a[0] + a[1] cos(2πn/N) + a[2] cos(4πn/N) for n = 0 … size - 1, where N is
/// the size, or one less where the window is symmetric.
static LogicalResult convertWindow(NodeContext &context, double a0, double a1,
                                   double a2) {
  RankedTensorType declared = context.getResultType();
  if (!declared || !getStoredType(declared))
    return context.fail("the result is not known to be a tensor of numbers "
                        "(run --onnx-infer-shapes)");
  Type element = declared.getElementType(), f64 = context.rewriter.getF64Type();
  Value size = extractSize(context, 0);
  ScalarBuilder outer = context.scalar();
  context.check(outer.lessEqual(outer.index(0), size), "its size is negative");
  Value period =
      context.node.getInt("periodic", 1)
          ? size
          : outer.max(outer.sub(size, outer.index(1)), outer.index(1));
  return context.replace(buildTensor(
      context.rewriter, context.loc, OpFoldResult(size), getStoredType(element),
      [&](ScalarBuilder &scalar, ValueRange indices) {
        Value turn = scalar.div(
            scalar.mul(number(scalar, 2 * M_PI), toFloat(scalar, indices[0])),
            toFloat(scalar, period));
        auto term = [&](double factor, double times) {
          Value angle = scalar.mul(turn, number(scalar, times));
          Value cosine = math::CosOp::create(scalar.builder, scalar.loc, angle);
          return scalar.mul(number(scalar, factor), cosine);
        };
        Value sum = scalar.add(number(scalar, a0), term(a1, 1));
        if (a2 != 0)
          sum = scalar.add(sum, term(a2, 2));
        return scalar.encode(scalar.convert(sum, f64, getComputedType(element)),
                             element);
      }));
}

//===----------------------------------------------------------------------===//
// Fourier transforms
//===----------------------------------------------------------------------===//

namespace {
/// A discrete Fourier transform by its definition:
///   y[k] = factor · Σ x[n] · exp(∓2πi·k·n / length)
struct Transform {
  /// Of all loops of the result but the last, which is over the real and,
  /// unless only that is asked for, the imaginary part.
  Sizes sizes;
  int64_t parts;
  Value length;
  bool isInverse;
  /// k, which is one of the result's loops.
  function_ref<Value(ScalarBuilder &, ValueRange loops)> getFrequency;
  /// {real, imaginary} of x[n], which may be zero, in f64.
  function_ref<std::pair<Value, Value>(ScalarBuilder &, ValueRange loops,
                                       Value n)>
      fetch;
};
} // namespace

/// cos or sin of 2πn / length for n = 0 … length - 1, in f64.
static Value buildTable(NodeContext &context, Value length, bool isSine) {
  return buildTensor(
      context.rewriter, context.loc, OpFoldResult(length),
      context.rewriter.getF64Type(),
      [&](ScalarBuilder &scalar, ValueRange indices) -> Value {
        Value angle = scalar.div(
            scalar.mul(number(scalar, 2 * M_PI), toFloat(scalar, indices[0])),
            toFloat(scalar, length));
        if (isSine)
          return math::SinOp::create(scalar.builder, scalar.loc, angle);
        return math::CosOp::create(scalar.builder, scalar.loc, angle);
      });
}

/// [sizes…, parts] of `element`.
static Value buildTransform(NodeContext &context, const Transform &transform,
                            Type element) {
  ConversionPatternRewriter &rewriter = context.rewriter;
  MLIRContext *mlir = rewriter.getContext();
  Type f64 = rewriter.getF64Type();
  Value cosines = buildTable(context, transform.length, false);
  Value sines = buildTable(context, transform.length, true);
  Sizes sizes(transform.sizes);
  sizes.push_back(rewriter.getIndexAttr(transform.parts));
  int64_t rank = sizes.size();
  SmallVector<AffineExpr> exprs;
  for (int64_t i = 0; i < rank; ++i)
    exprs.push_back(getAffineDimExpr(i, mlir));
  SmallVector<Iterator> iterators(rank, Iterator::parallel);
  iterators.push_back(Iterator::reduction);
  // The table gives the last loop, over n, its size.
  SmallVector<AffineMap> maps{
      AffineMap::get(rank + 1, 0, {getAffineDimExpr(rank, mlir)}, mlir),
      AffineMap::get(rank + 1, 0, exprs, mlir)};
  Value sums = buildReduction(
      rewriter, context.loc, cosines, maps, iterators, sizes,
      context.scalar().constant(f64, 0),
      [&](ScalarBuilder &scalar, ValueRange args) {
        SmallVector<Value> loops;
        for (int64_t i = 0; i <= rank; ++i)
          loops.push_back(
              linalg::IndexOp::create(scalar.builder, scalar.loc, i));
        Value n = loops[rank], part = loops[rank - 1];
        ArrayRef<Value> outer = ArrayRef(loops).take_front(rank - 1);
        auto [real, imaginary] = transform.fetch(scalar, outer, n);
        Value position = arith::RemUIOp::create(
            scalar.builder, scalar.loc,
            scalar.mul(transform.getFrequency(scalar, outer), n),
            transform.length);
        Value cosine = tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                                 cosines, position);
        Value sine = tensor::ExtractOp::create(scalar.builder, scalar.loc,
                                               sines, position);
        if (!transform.isInverse)
          sine = scalar.neg(sine);
        Value re =
            scalar.sub(scalar.mul(real, cosine), scalar.mul(imaginary, sine));
        Value im =
            scalar.add(scalar.mul(real, sine), scalar.mul(imaginary, cosine));
        Value isReal = scalar.equal(part, scalar.index(0));
        return scalar.add(args[1], scalar.select(isReal, re, im));
      });
  return buildElementwise(
      rewriter, context.loc, sums, rewriter.getMultiDimIdentityMap(rank), sizes,
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange args) {
        Value value = args[0];
        if (transform.isInverse)
          value = scalar.div(value, toFloat(scalar, transform.length));
        return scalar.encode(
            scalar.convert(value, f64, getComputedType(element)), element);
      });
}

/// x[indices] in f64: {real, imaginary}. The last dimension is 1 or 2.
static std::pair<Value, Value> extractComplex(ScalarBuilder &scalar, Value x,
                                              Type element, bool isComplex,
                                              ArrayRef<Value> indices) {
  Type f64 = scalar.builder.getF64Type();
  auto at = [&](int64_t part) {
    SmallVector<Value> source(indices);
    source.push_back(scalar.index(part));
    Value stored =
        tensor::ExtractOp::create(scalar.builder, scalar.loc, x, source);
    return scalar.convert(scalar.decode(stored, element),
                          getComputedType(element), f64);
  };
  return {at(0), isComplex ? at(1) : number(scalar, 0)};
}

namespace {
/// The dimension that a DFT goes over, which may only be known at run time.
struct TransformAxis {
  std::optional<int64_t> known;
  Value atRunTime;

  /// `inside` where `axis` is the one, else `outside`.
  Value choose(ScalarBuilder &scalar, int64_t axis, Value inside,
               Value outside) const {
    if (known)
      return axis == *known ? inside : outside;
    return scalar.select(scalar.equal(atRunTime, scalar.index(axis)), inside,
                         outside);
  }
};
} // namespace

/// The axis of a node whose input has `rank` dimensions, the last of which
/// holds the parts of a number.
static FailureOr<TransformAxis> getTransformAxis(NodeContext &context,
                                                 int64_t rank) {
  TransformAxis axis;
  if (context.version >= 20 && isGiven(context, 2) &&
      !getConstantSize(context, 2)) {
    ScalarBuilder scalar = context.scalar();
    Value given = extractSize(context, 2);
    axis.atRunTime =
        scalar.select(scalar.less(given, scalar.index(0)),
                      scalar.add(given, scalar.index(rank)), given);
    Value inRange = arith::AndIOp::create(
        context.rewriter, context.loc,
        scalar.lessEqual(scalar.index(0), axis.atRunTime),
        scalar.less(axis.atRunTime, scalar.index(rank - 1)));
    context.check(inRange, "its axis is out of range");
    return axis;
  }
  int64_t given = context.node.getInt("axis", 1);
  if (context.version >= 20)
    given = isGiven(context, 2) ? *getConstantSize(context, 2) : -2;
  axis.known = normalizeAxis(given, rank);
  if (!axis.known || *axis.known == rank - 1)
    return context.fail("its axis is out of range");
  return axis;
}

static LogicalResult convertDFT(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType();
  int64_t rank = type.getRank();
  bool isInverse = context.node.getInt("inverse", 0) != 0;
  bool oneSided = context.node.getInt("onesided", 0) != 0;
  if (!isa<FloatType>(element) || rank < 2)
    return context.fail("expects floats [batch, …, 1 or 2]");
  int64_t parts = type.getShape().back();
  if (parts != 1 && parts != 2)
    return context.fail("whether its numbers are complex must be known: the "
                        "last dimension must be 1 or 2");
  auto axis = getTransformAxis(context, rank);
  if (failed(axis))
    return failure();
  Value x = context.getInput(0);
  ScalarBuilder outer = context.scalar();
  Sizes sizes = context.getSizes(x);
  sizes.pop_back();
  Value held = outer.index(0);
  for (auto [i, size] : llvm::enumerate(sizes))
    held = axis->choose(outer, i, context.toValue(size), held);
  // The inverse of a one-sided transform gets the first half of the spectrum.
  bool mirrors = isInverse && oneSided;
  Value length = held;
  if (isGiven(context, 1))
    length = extractSize(context, 1);
  else if (mirrors)
    length = outer.mul(outer.sub(held, outer.index(1)), outer.index(2));
  context.check(outer.less(outer.index(0), length),
                "its length is not positive");
  Value outputs = length;
  if (oneSided && !isInverse)
    outputs = outer.add(outer.div(length, outer.index(2)), outer.index(1));
  for (auto [i, size] : llvm::enumerate(sizes))
    if (!axis->known || axis->known == static_cast<int64_t>(i))
      size = axis->choose(outer, i, outputs, context.toValue(size));

  auto getFrequency = [&](ScalarBuilder &scalar, ValueRange loops) {
    Value frequency = loops.front();
    for (auto [i, loop] : llvm::enumerate(loops))
      frequency = axis->choose(scalar, i, loop, frequency);
    return frequency;
  };
  // Past the end of the signal there are zeros; the second half of a real
  // signal's spectrum is the first half's conjugate.
  auto fetch = [&](ScalarBuilder &scalar, ValueRange loops, Value n) {
    Value position = n, isSecondHalf = scalar.boolean(false);
    if (mirrors) {
      isSecondHalf = scalar.less(scalar.div(length, scalar.index(2)), n);
      position = scalar.select(isSecondHalf, scalar.sub(length, n), n);
    }
    Value inside = scalar.less(position, held);
    position = scalar.select(inside, position, scalar.index(0));
    SmallVector<Value> indices;
    for (auto [i, loop] : llvm::enumerate(loops))
      indices.push_back(axis->choose(scalar, i, position, loop));
    auto [real, imaginary] =
        extractComplex(scalar, x, element, parts == 2, indices);
    imaginary = scalar.select(isSecondHalf, scalar.neg(imaginary), imaginary);
    Value zero = number(scalar, 0);
    return std::make_pair(scalar.select(inside, real, zero),
                          scalar.select(inside, imaginary, zero));
  };
  Transform transform{sizes,     mirrors ? 1 : 2, length,
                      isInverse, getFrequency,    fetch};
  return context.replace(buildTransform(context, transform, element));
}

/// Frames [batch, frame, k, 2] of a signal [batch, length, 1 or 2].
static LogicalResult convertSTFT(NodeContext &context) {
  RankedTensorType type = context.getInputType(0);
  Type element = type.getElementType();
  bool hasWindow = isGiven(context, 2), hasLength = isGiven(context, 3);
  if (!isa<FloatType>(element) || type.getRank() < 2 || type.getRank() > 3)
    return context.fail("expects a signal [batch, length, 1 or 2] of floats");
  if (!hasWindow && !hasLength)
    return context.fail("needs a window or the length of a frame");
  Value signal = context.getInput(0);
  if (type.getRank() == 2) {
    Sizes sizes = context.getSizes(signal);
    sizes.push_back(context.rewriter.getIndexAttr(1));
    signal = buildReshape(context, signal, sizes);
  }
  bool isComplex = type.getRank() == 3 && type.getDimSize(2) == 2;
  ScalarBuilder outer = context.scalar();
  Value window = hasWindow ? context.getInput(2) : Value();
  Value step = extractSize(context, 1);
  Value size =
      hasWindow
          ? context.toValue(getSize(context.rewriter, context.loc, window, 0))
          : extractSize(context, 3);
  Value total =
      context.toValue(getSize(context.rewriter, context.loc, signal, 1));
  if (hasWindow && hasLength)
    context.check(outer.equal(size, extractSize(context, 3)),
                  "the window has not the length of a frame");
  context.check(outer.less(outer.index(0), step), "its step is not positive");
  context.check(outer.less(outer.index(0), size), "its frames are empty");
  context.check(outer.lessEqual(size, total),
                "the signal is shorter than a frame");
  Value frames =
      outer.add(outer.div(outer.sub(total, size), step), outer.index(1));
  Value outputs = size;
  if (context.node.getInt("onesided", 1))
    outputs = outer.add(outer.div(size, outer.index(2)), outer.index(1));
  auto fetch = [&](ScalarBuilder &scalar, ValueRange loops, Value n) {
    Value position = scalar.add(scalar.mul(loops[1], step), n);
    auto [real, imaginary] = extractComplex(scalar, signal, element, isComplex,
                                            {loops[0], position});
    if (!window)
      return std::make_pair(real, imaginary);
    Value stored =
        tensor::ExtractOp::create(scalar.builder, scalar.loc, window, n);
    Value weight =
        scalar.convert(scalar.decode(stored, context.getElementType(2)),
                       getComputedType(context.getElementType(2)),
                       scalar.builder.getF64Type());
    return std::make_pair(scalar.mul(real, weight),
                          scalar.mul(imaginary, weight));
  };
  Sizes sizes{getSize(context.rewriter, context.loc, signal, 0), frames,
              outputs};
  auto getFrequency = [](ScalarBuilder &, ValueRange loops) {
    return loops[2];
  };
  Transform transform{sizes,        /*parts=*/2, size, /*isInverse=*/false,
                      getFrequency, fetch};
  return context.replace(buildTransform(context, transform, element));
}

//===----------------------------------------------------------------------===//
// MelWeightMatrix
//===----------------------------------------------------------------------===//

/// [bins of the spectrum, filters]: triangles whose corners are spaced evenly
/// on the mel scale, 2595 log10(1 + f / 700).
static LogicalResult convertMelWeightMatrix(NodeContext &context) {
  RankedTensorType declared = context.getResultType();
  if (!declared || !getStoredType(declared))
    return context.fail("the result is not known to be a tensor of numbers "
                        "(run --onnx-infer-shapes)");
  Type element = declared.getElementType();
  OpBuilder &builder = context.rewriter;
  Type f64 = builder.getF64Type();
  ScalarBuilder outer = context.scalar();
  Value filters = extractSize(context, 0), length = extractSize(context, 1),
        rate = extractSize(context, 2);
  context.check(outer.less(outer.index(0), rate),
                "its sample rate is not positive");
  auto toMel = [&](unsigned input) -> Value {
    Value tensor = context.getInput(input);
    Value stored =
        tensor::ExtractOp::create(builder, context.loc, tensor, ValueRange());
    Value frequency =
        outer.convert(outer.decode(stored, context.getElementType(input)),
                      getComputedType(context.getElementType(input)), f64);
    Value ratio =
        outer.add(number(outer, 1), outer.div(frequency, number(outer, 700)));
    Value logarithm = math::Log10Op::create(builder, context.loc, ratio);
    return outer.mul(number(outer, 2595), logarithm);
  };
  Value low = toMel(3), high = toMel(4);
  Value spacing = outer.div(outer.sub(high, low),
                            toFloat(outer, outer.add(filters, outer.index(2))));
  Value bins = outer.add(outer.div(length, outer.index(2)), outer.index(1));
  // The bin of the spectrum that corner `index` falls into.
  auto getCorner = [&](ScalarBuilder &scalar, Value index) -> Value {
    Value mel = scalar.add(scalar.mul(toFloat(scalar, index), spacing), low);
    Value power =
        math::PowFOp::create(scalar.builder, scalar.loc, number(scalar, 10),
                             scalar.div(mel, number(scalar, 2595)));
    Value frequency =
        scalar.mul(number(scalar, 700), scalar.sub(power, number(scalar, 1)));
    Value position = scalar.div(
        scalar.mul(toFloat(scalar, scalar.add(length, scalar.index(1))),
                   frequency),
        toFloat(scalar, rate));
    return math::FloorOp::create(scalar.builder, scalar.loc, position);
  };
  return context.replace(buildTensor(
      builder, context.loc, Sizes{bins, filters}, getStoredType(element),
      [&](ScalarBuilder &scalar, ValueRange indices) {
        Value bin = toFloat(scalar, indices[0]), filter = indices[1];
        Value left = getCorner(scalar, filter);
        Value middle = getCorner(scalar, scalar.add(filter, scalar.index(1)));
        Value right = getCorner(scalar, scalar.add(filter, scalar.index(2)));
        Value zero = number(scalar, 0);
        Value isSharp = scalar.equal(left, middle);
        // The falling side has the middle too, where it is not empty.
        Value rising =
            scalar.div(scalar.sub(bin, left), scalar.sub(middle, left));
        Value falling =
            scalar.div(scalar.sub(right, bin), scalar.sub(right, middle));
        rising = scalar.select(isSharp, number(scalar, 1), rising);
        auto both = [&](Value a, Value b) -> Value {
          return arith::AndIOp::create(scalar.builder, scalar.loc, a, b);
        };
        Value onRise =
            both(scalar.lessEqual(left, bin), scalar.lessEqual(bin, middle));
        Value onFall =
            both(scalar.lessEqual(middle, bin), scalar.less(bin, right));
        Value value =
            scalar.select(onFall, falling, scalar.select(onRise, rising, zero));
        return scalar.encode(
            scalar.convert(value, f64, getComputedType(element)), element);
      }));
}

void nibble::addSignalConversions(NodeConversions &conversions) {
  conversions.add("HannWindow", 17, [](NodeContext &context) {
    return convertWindow(context, 0.5, -0.5, 0);
  });
  conversions.add("HammingWindow", 17, [](NodeContext &context) {
    return convertWindow(context, 25.0 / 46, -21.0 / 46, 0);
  });
  conversions.add("BlackmanWindow", 17, [](NodeContext &context) {
    return convertWindow(context, 0.42, -0.5, 0.08);
  });
  conversions.add("DFT", 17, convertDFT);
  conversions.add("STFT", 17, convertSTFT);
  conversions.add("MelWeightMatrix", 17, convertMelWeightMatrix);
}
