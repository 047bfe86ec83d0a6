//===- Spatial.cpp - Windows, sizes and operands of loops -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Sizes
//===----------------------------------------------------------------------===//

namespace {
using Build = llvm::function_ref<Value(ScalarBuilder &, Value, Value)>;
using Fold = llvm::function_ref<int64_t(int64_t, int64_t)>;
} // namespace

static OpFoldResult apply(NodeContext &context, OpFoldResult a, OpFoldResult b,
                          Fold fold, Build build) {
  auto left = getConstantIntValue(a), right = getConstantIntValue(b);
  if (left && right)
    return context.rewriter.getIndexAttr(fold(*left, *right));
  ScalarBuilder scalar = context.scalar();
  return build(scalar, context.toValue(a), context.toValue(b));
}

OpFoldResult SizeMath::add(OpFoldResult a, OpFoldResult b) {
  if (getConstantIntValue(b) == 0)
    return a;
  if (getConstantIntValue(a) == 0)
    return b;
  return apply(
      context, a, b, [](int64_t x, int64_t y) { return x + y; },
      [](ScalarBuilder &scalar, Value x, Value y) { return scalar.add(x, y); });
}

OpFoldResult SizeMath::sub(OpFoldResult a, OpFoldResult b) {
  if (getConstantIntValue(b) == 0)
    return a;
  return apply(
      context, a, b, [](int64_t x, int64_t y) { return x - y; },
      [](ScalarBuilder &scalar, Value x, Value y) { return scalar.sub(x, y); });
}

OpFoldResult SizeMath::mul(OpFoldResult a, OpFoldResult b) {
  if (getConstantIntValue(b) == 1)
    return a;
  if (getConstantIntValue(a) == 1)
    return b;
  return apply(
      context, a, b, [](int64_t x, int64_t y) { return x * y; },
      [](ScalarBuilder &scalar, Value x, Value y) { return scalar.mul(x, y); });
}

OpFoldResult SizeMath::floorDiv(OpFoldResult a, OpFoldResult b) {
  if (getConstantIntValue(b) == 1)
    return a;
  return apply(
      context, a, b,
      [](int64_t x, int64_t y) { return llvm::divideFloorSigned(x, y); },
      [](ScalarBuilder &scalar, Value x, Value y) -> Value {
        return arith::FloorDivSIOp::create(scalar.builder, scalar.loc, x, y);
      });
}

OpFoldResult SizeMath::max(OpFoldResult a, OpFoldResult b) {
  return apply(
      context, a, b, [](int64_t x, int64_t y) { return std::max(x, y); },
      [](ScalarBuilder &scalar, Value x, Value y) { return scalar.max(x, y); });
}

OpFoldResult SizeMath::min(OpFoldResult a, OpFoldResult b) {
  return apply(
      context, a, b, [](int64_t x, int64_t y) { return std::min(x, y); },
      [](ScalarBuilder &scalar, Value x, Value y) { return scalar.min(x, y); });
}

OpFoldResult SizeMath::product(ArrayRef<OpFoldResult> sizes) {
  OpFoldResult result = constant(1);
  for (OpFoldResult size : sizes)
    result = mul(result, size);
  return result;
}

LogicalResult SizeMath::requireLessEqual(OpFoldResult a, OpFoldResult b,
                                         const Twine &what) {
  auto left = getConstantIntValue(a), right = getConstantIntValue(b);
  if (left && right)
    return *left <= *right ? success() : context.fail(what);
  context.check(
      context.scalar().lessEqual(context.toValue(a), context.toValue(b)), what);
  return success();
}

LogicalResult SizeMath::requireEqual(OpFoldResult a, OpFoldResult b,
                                     const Twine &what) {
  auto left = getConstantIntValue(a), right = getConstantIntValue(b);
  if (left && right)
    return *left == *right ? success() : context.fail(what);
  if (a != b)
    context.check(
        context.scalar().equal(context.toValue(a), context.toValue(b)), what);
  return success();
}

FailureOr<Sizes> nibble::getIntegerInput(NodeContext &context, unsigned input,
                                         int64_t count) {
  SizeMath math(context);
  Value tensor = context.getInput(input);
  OpFoldResult length = math.product(context.getSizes(tensor));
  if (failed(math.requireEqual(length, math.constant(count),
                               "input " + Twine(input) + " must have " +
                                   Twine(count) + " numbers")))
    return failure();
  Sizes sizes;
  if (auto known = context.getConstantInts(input)) {
    for (int64_t size : *known)
      sizes.push_back(math.constant(size));
    return sizes;
  }
  if (context.getInputType(input).getRank() != 1)
    tensor = buildReshape(context, tensor, length);
  for (int64_t i = 0; i < count; ++i)
    sizes.push_back(context.extractIndex(tensor, i));
  return sizes;
}

/// For each dimension of the smaller shape, those of the larger one.
static SmallVector<ReassociationIndices>
groupDimensions(int64_t rank, int64_t axis, int64_t count) {
  SmallVector<ReassociationIndices> groups;
  for (int64_t i = 0; i < rank; ++i)
    if (i > axis && i < axis + count)
      groups.back().push_back(i);
    else
      groups.push_back({i});
  return groups;
}

Value nibble::splitDimension(NodeContext &context, Value tensor, int64_t axis,
                             ArrayRef<OpFoldResult> sizes) {
  Sizes all = context.getSizes(tensor);
  auto groups =
      groupDimensions(all.size() + sizes.size() - 1, axis, sizes.size());
  all.erase(all.begin() + axis);
  all.insert(all.begin() + axis, sizes.begin(), sizes.end());
  SmallVector<int64_t> shape;
  SmallVector<Value> dynamic;
  dispatchIndexOpFoldResults(all, dynamic, shape);
  auto type = RankedTensorType::get(
      shape, cast<RankedTensorType>(tensor.getType()).getElementType());
  // A dimension that is split into static ones is static.
  auto source = cast<RankedTensorType>(tensor.getType());
  ArrayRef<int64_t> parts = ArrayRef(shape).slice(axis, sizes.size());
  if (source.isDynamicDim(axis) && !ShapedType::isDynamicShape(parts)) {
    SmallVector<int64_t> known(source.getShape());
    known[axis] = ShapedType::getNumElements(parts);
    tensor = tensor::CastOp::create(
        context.rewriter, context.loc,
        RankedTensorType::get(known, source.getElementType()), tensor);
  }
  // MLIR 22.1 cannot lower a dimension that is split into several dynamic ones.
  if (llvm::count_if(parts, ShapedType::isDynamic) > 1)
    return buildReshape(context, tensor, all);
  return tensor::ExpandShapeOp::create(context.rewriter, context.loc, type,
                                       tensor, groups, all);
}

Value nibble::mergeDimensions(NodeContext &context, Value tensor, int64_t axis,
                              int64_t count) {
  auto type = cast<RankedTensorType>(tensor.getType());
  return tensor::CollapseShapeOp::create(
      context.rewriter, context.loc, tensor,
      groupDimensions(type.getRank(), axis, count));
}

Value nibble::buildPadded(NodeContext &context, Value tensor,
                          ArrayRef<OpFoldResult> before,
                          ArrayRef<OpFoldResult> after, Value value) {
  auto isZero = [](OpFoldResult size) {
    return getConstantIntValue(size) == 0;
  };
  if (llvm::all_of(before, isZero) && llvm::all_of(after, isZero))
    return tensor;
  SmallVector<int64_t> shape;
  SmallVector<Value> dynamic;
  SizeMath math(context);
  Sizes sizes;
  for (auto [size, low, high] :
       llvm::zip(context.getSizes(tensor), before, after))
    sizes.push_back(math.add(math.add(size, low), high));
  dispatchIndexOpFoldResults(sizes, dynamic, shape);
  auto type = RankedTensorType::get(
      shape, cast<RankedTensorType>(tensor.getType()).getElementType());
  // The type of a pad follows from static pads alone.
  SmallVector<int64_t> padded;
  for (auto [size, low, high, known] :
       llvm::zip(cast<RankedTensorType>(tensor.getType()).getShape(), before,
                 after, shape)) {
    bool isStatic = !ShapedType::isDynamic(size) && getConstantIntValue(low) &&
                    getConstantIntValue(high);
    padded.push_back(isStatic ? known : ShapedType::kDynamic);
  }
  Value result = tensor::PadOp::create(
      context.rewriter, context.loc,
      RankedTensorType::get(padded, type.getElementType()), tensor, before,
      after, value);
  if (result.getType() != type)
    result =
        tensor::CastOp::create(context.rewriter, context.loc, type, result);
  return result;
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

Operand nibble::makeOperand(NodeContext &context, Value tensor, Type element) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  return makeOperand(context, tensor, element,
                     llvm::to_vector(llvm::seq<int64_t>(0, rank)));
}

Operand nibble::makeOperand(NodeContext &context, Value tensor, Type element,
                            ArrayRef<int64_t> loops) {
  Operand operand{tensor, element, {}};
  for (int64_t loop : loops)
    operand.indices.push_back(context.rewriter.getAffineDimExpr(loop));
  return operand;
}

static SmallVector<AffineMap>
getMaps(NodeContext &context, ArrayRef<Operand> operands, int64_t numLoops) {
  SmallVector<AffineMap> maps;
  for (const Operand &operand : operands)
    maps.push_back(AffineMap::get(numLoops, 0, operand.indices,
                                  context.rewriter.getContext()));
  return maps;
}

static SmallVector<Value> getTensors(ArrayRef<Operand> operands) {
  return llvm::map_to_vector(
      operands, [](const Operand &operand) { return operand.tensor; });
}

Value nibble::buildMapped(NodeContext &context, ArrayRef<Operand> operands,
                          ArrayRef<OpFoldResult> sizes, Type element,
                          ScalarFunction body) {
  return buildElementwise(
      context.rewriter, context.loc, getTensors(operands),
      getMaps(context, operands, sizes.size()), sizes, getStoredType(element),
      [&](ScalarBuilder &scalar, ValueRange stored) {
        SmallVector<Value> numbers;
        for (auto [value, operand] : llvm::zip(stored, operands))
          numbers.push_back(scalar.decode(value, operand.element));
        return scalar.encode(body(scalar, numbers), element);
      });
}

Value nibble::buildFolded(NodeContext &context, ArrayRef<Operand> operands,
                          int64_t numLoops, ArrayRef<int64_t> kept,
                          Value initial, ScalarFunction body) {
  SmallVector<AffineMap> maps = getMaps(context, operands, numLoops);
  SmallVector<AffineExpr> result;
  SmallVector<utils::IteratorType> iterators(numLoops,
                                             utils::IteratorType::reduction);
  for (int64_t loop : kept) {
    result.push_back(context.rewriter.getAffineDimExpr(loop));
    iterators[loop] = utils::IteratorType::parallel;
  }
  maps.push_back(
      AffineMap::get(numLoops, 0, result, context.rewriter.getContext()));
  return linalg::GenericOp::create(
             context.rewriter, context.loc, initial.getType(),
             getTensors(operands), initial, maps, iterators,
             [&](OpBuilder &builder, Location loc, ValueRange arguments) {
               ScalarBuilder scalar(builder, loc);
               SmallVector<Value> numbers;
               for (auto [value, operand] : llvm::zip(arguments, operands))
                 numbers.push_back(scalar.decode(value, operand.element));
               numbers.push_back(arguments.back());
               linalg::YieldOp::create(builder, loc, body(scalar, numbers));
             })
      .getResult(0);
}

SmallVector<int64_t> nibble::getOtherAxes(int64_t rank,
                                          ArrayRef<int64_t> axes) {
  SmallVector<int64_t> others;
  for (int64_t axis = 0; axis < rank; ++axis)
    if (!llvm::is_contained(axes, axis))
      others.push_back(axis);
  return others;
}

Value nibble::indexToNumber(ScalarBuilder &scalar, Value index, Type type) {
  Type i64 = scalar.builder.getI64Type();
  Value integer =
      arith::IndexCastOp::create(scalar.builder, scalar.loc, i64, index);
  return scalar.convert(integer, i64, type);
}

Value nibble::extractNumber(ScalarBuilder &scalar, Value tensor, Type element,
                            ValueRange indices) {
  return scalar.decode(
      tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor, indices),
      element);
}

Value nibble::buildMeanOver(NodeContext &context, ArrayRef<Operand> operands,
                            ArrayRef<OpFoldResult> sizes,
                            ArrayRef<int64_t> axes, Type computed,
                            ScalarFunction body) {
  SmallVector<int64_t> kept = getOtherAxes(sizes.size(), axes);
  Sizes outer, folded;
  for (int64_t axis : kept)
    outer.push_back(sizes[axis]);
  for (int64_t axis : axes)
    folded.push_back(sizes[axis]);
  ScalarBuilder scalar = context.scalar();
  Value sums = buildFolded(
      context, operands, sizes.size(), kept,
      buildFilled(context, outer, scalar.constant(computed, 0)),
      [&](ScalarBuilder &inner, ValueRange args) {
        return inner.add(args.back(), body(inner, args.drop_back()));
      });
  Value count = indexToNumber(
      scalar, context.toValue(SizeMath(context).product(folded)), computed);
  return buildMapped(context, makeOperand(context, sums, computed), outer,
                     computed, [&](ScalarBuilder &inner, ValueRange args) {
                       return inner.div(args[0], count);
                     });
}

Value nibble::moveDimension(NodeContext &context, Value tensor, int64_t from,
                            int64_t to) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  SmallVector<int64_t> order = llvm::to_vector(llvm::seq<int64_t>(0, rank));
  order.erase(order.begin() + from);
  order.insert(order.begin() + to, from);
  return buildTranspose(context, tensor, order);
}

void nibble::checkPositions(NodeContext &context, Value indices, Type element,
                            OpFoldResult limit) {
  int64_t rank = cast<RankedTensorType>(indices.getType()).getRank();
  Type i64 = context.rewriter.getI64Type();
  ScalarBuilder outer = context.scalar();
  Value end = arith::IndexCastOp::create(context.rewriter, context.loc, i64,
                                         context.toValue(limit));
  Value all = buildFolded(
      context, makeOperand(context, indices, element), rank, {},
      buildFilled(context, {}, outer.boolean(true)),
      [&](ScalarBuilder &scalar, ValueRange args) -> Value {
        Value index = scalar.convert(args[0], element, i64);
        Value fits = arith::CmpIOp::create(
            scalar.builder, scalar.loc, arith::CmpIPredicate::ult, index, end);
        return arith::AndIOp::create(scalar.builder, scalar.loc, args[1], fits);
      });
  context.check(tensor::ExtractOp::create(context.rewriter, context.loc, all,
                                          ValueRange()),
                "index is out of range");
}

//===----------------------------------------------------------------------===//
// Linear codes
//===----------------------------------------------------------------------===//

Value LinearCode::center(ScalarBuilder &scalar, Value code) const {
  Type i32 = scalar.builder.getI32Type();
  Value wide = scalar.convert(code, element, i32);
  return zero ? scalar.sub(wide, scalar.convert(zero, element, i32)) : wide;
}

Value LinearCode::dequantize(ScalarBuilder &scalar, Value code) const {
  Type i32 = scalar.builder.getI32Type(), f32 = scalar.builder.getF32Type();
  return scalar.mul(scalar.convert(center(scalar, code), i32, f32), scale);
}

Value LinearCode::quantize(ScalarBuilder &scalar, Value number) const {
  return buildLinearCode(scalar, scalar.div(number, scale), zero, element,
                         element, OutOfRange::Saturate);
}

FailureOr<LinearCode> nibble::getLinearCode(NodeContext &context, Type element,
                                            unsigned scale, unsigned zero) {
  Type f32 = context.rewriter.getF32Type();
  ScalarBuilder scalar = context.scalar();
  if (!isa<IntegerType>(element))
    return context.fail("expects integers as codes");
  auto read = [&](unsigned input, Type expected) -> FailureOr<Value> {
    RankedTensorType type = context.getInputType(input);
    if (!type || !type.hasStaticShape() || type.getNumElements() != 1 ||
        (expected && type.getElementType() != expected))
      return context.fail("input " + Twine(input) +
                          " must be one number of the right type");
    SmallVector<Value> first(type.getRank(), scalar.index(0));
    return extractNumber(scalar, context.getInput(input), type.getElementType(),
                         first);
  };
  FailureOr<Value> factor = read(scale, {});
  if (failed(factor))
    return failure();
  LinearCode code{
      element, scalar.convert(*factor, context.getElementType(scale), f32), {}};
  if (!context.isAbsent(zero)) {
    FailureOr<Value> number = read(zero, element);
    if (failed(number))
      return failure();
    code.zero = *number;
  }
  return code;
}

//===----------------------------------------------------------------------===//
// Windows
//===----------------------------------------------------------------------===//

/// Sizes that a sane model stays below, so that the arithmetic cannot overflow.
static bool isSane(ArrayRef<int64_t> numbers, int64_t low) {
  return llvm::all_of(numbers, [&](int64_t number) {
    return number >= low && number < (int64_t(1) << 30);
  });
}

/// Number of positions and padding where every position counts ("SAME").
static void placeSame(SizeMath &math, Window &window, OpFoldResult reach,
                      bool upper) {
  OpFoldResult one = math.constant(1), zero = math.constant(0);
  OpFoldResult stride = math.constant(window.stride);
  window.count = math.floorDiv(
      math.add(window.size, math.constant(window.stride - 1)), stride);
  OpFoldResult needed =
      math.add(math.mul(math.sub(window.count, one), stride), reach);
  OpFoldResult total = math.max(math.sub(needed, window.size), zero);
  OpFoldResult half = math.floorDiv(total, math.constant(2));
  OpFoldResult rest = math.sub(total, half);
  window.before = upper ? half : rest;
  window.after = window.declaredAfter = upper ? rest : half;
}

static LogicalResult placeExplicit(SizeMath &math, Window &window,
                                   OpFoldResult reach, bool ceilMode) {
  OpFoldResult one = math.constant(1), zero = math.constant(0);
  OpFoldResult stride = math.constant(window.stride);
  OpFoldResult padded =
      math.add(math.add(window.size, window.before), window.declaredAfter);
  if (failed(math.requireLessEqual(
          reach, padded,
          "the input with its padding is smaller than the window")))
    return failure();
  OpFoldResult room = math.sub(padded, reach);
  if (ceilMode)
    room = math.add(room, math.constant(window.stride - 1));
  OpFoldResult last = math.floorDiv(room, stride);
  if (ceilMode) {
    // A window must start inside the input or its padding before.
    OpFoldResult inside = math.sub(math.add(window.size, window.before), one);
    last = math.min(last, math.floorDiv(inside, stride));
  }
  window.count = math.add(last, one);
  window.after = window.declaredAfter;
  if (ceilMode) {
    OpFoldResult needed = math.add(math.mul(last, stride), reach);
    OpFoldResult own = math.add(window.size, window.before);
    window.after = math.max(window.after, math.sub(needed, own));
    window.after = math.max(window.after, zero);
  }
  return success();
}

FailureOr<SmallVector<Window>>
nibble::getWindows(NodeContext &context, ArrayRef<OpFoldResult> sizes,
                   ArrayRef<OpFoldResult> kernel) {
  size_t rank = sizes.size();
  auto getList = [&](StringRef name, size_t count, int64_t value) {
    auto given = context.node.getInts(name);
    return given ? llvm::to_vector(*given) : SmallVector<int64_t>(count, value);
  };
  SmallVector<int64_t> strides = getList("strides", rank, 1);
  SmallVector<int64_t> dilations = getList("dilations", rank, 1);
  SmallVector<int64_t> pads = getList("pads", 2 * rank, 0);
  if (kernel.size() != rank || strides.size() != rank ||
      dilations.size() != rank || pads.size() != 2 * rank)
    return context.fail("expects a kernel size, stride and dilation for each "
                        "spatial dimension, and two pads");
  if (!isSane(strides, 1) || !isSane(dilations, 1))
    return context.fail("strides and dilations must be positive");
  if (!isSane(pads, 0))
    return context.fail("pads must not be negative");
  StringRef autoPad = context.node.getString("auto_pad", "NOTSET");
  bool ceilMode = context.node.getInt("ceil_mode", 0) != 0;

  SizeMath math(context);
  SmallVector<Window> windows;
  for (size_t i = 0; i < rank; ++i) {
    Window window;
    window.size = sizes[i];
    window.kernel = kernel[i];
    window.stride = strides[i];
    window.dilation = dilations[i];
    OpFoldResult one = math.constant(1);
    OpFoldResult reach = math.add(
        math.mul(math.sub(kernel[i], one), math.constant(dilations[i])), one);
    if (autoPad.starts_with("SAME")) {
      placeSame(math, window, reach, autoPad == "SAME_UPPER");
    } else {
      bool valid = autoPad == "VALID";
      window.before = math.constant(valid ? 0 : pads[i]);
      window.declaredAfter = math.constant(valid ? 0 : pads[i + rank]);
      if (failed(placeExplicit(math, window, reach, ceilMode)))
        return failure();
    }
    windows.push_back(window);
  }
  return windows;
}

Value nibble::padForWindows(NodeContext &context, Value tensor,
                            ArrayRef<Window> windows, int64_t firstSpatial,
                            Value value) {
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  OpFoldResult zero = context.rewriter.getIndexAttr(0);
  Sizes before(rank, zero), after(rank, zero);
  for (auto [i, window] : llvm::enumerate(windows)) {
    before[firstSpatial + i] = window.before;
    after[firstSpatial + i] = window.after;
  }
  return buildPadded(context, tensor, before, after, value);
}
