//===- MatMul.cpp - Matrix products ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A product is a linalg.generic with the loops (batch…, m, k, n): every element
// of the result is summed in ascending k, in f32 where the elements are
// narrower (the named ops of linalg would sum in f16), and the innermost loop
// has no dependence that would forbid to vectorize it.
//
//===----------------------------------------------------------------------===//

#include "Spatial.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// A tensor of sums as one of `element`.
static Value buildRounded(NodeContext &context, Value sums, Type element) {
  Type computed = getComputedType(element);
  if (computed == element || isa<IntegerType>(element))
    return sums;
  return buildCast(context, sums, computed, element);
}

/// Checks that the dimensions that are summed over agree, unless that is known.
static void checkInner(NodeContext &context, Value lhs,
                       RankedTensorType lhsType, Value rhs,
                       RankedTensorType rhsType) {
  int64_t column = lhsType.getRank() - 1, row = rhsType.getRank() - 2;
  if (getDimensions(lhsType)[column].isKnownEqual(getDimensions(rhsType)[row]))
    return;
  auto getExtent = [&](Value factor, int64_t axis) {
    return context.toValue(
        getSize(context.rewriter, context.loc, factor, axis));
  };
  context.check(
      context.scalar().equal(getExtent(lhs, column), getExtent(rhs, row)),
      "the columns of the first factor are not the rows of the second");
}

Value nibble::buildMatMul(NodeContext &context, Value lhs,
                          RankedTensorType lhsType, Value rhs,
                          RankedTensorType rhsType, Type element) {
  MLIRContext *mlirContext = context.rewriter.getContext();
  checkInner(context, lhs, lhsType, rhs, rhsType);
  Broadcast batch =
      broadcast(context, {lhs, rhs}, {lhsType, rhsType}, /*trailing=*/2);
  unsigned rank = batch.sizes.size();
  auto loop = [&](unsigned position) {
    return getAffineDimExpr(position, mlirContext);
  };
  AffineExpr m = loop(rank), k = loop(rank + 1), n = loop(rank + 2);
  batch.maps[0].append({m, k});
  batch.maps[1].append({k, n});
  SmallVector<AffineExpr> result;
  for (unsigned i = 0; i < rank; ++i)
    result.push_back(loop(i));
  result.append({m, n});
  SmallVector<AffineMap> maps;
  for (ArrayRef<AffineExpr> exprs :
       {ArrayRef<AffineExpr>(batch.maps[0]),
        ArrayRef<AffineExpr>(batch.maps[1]), ArrayRef<AffineExpr>(result)})
    maps.push_back(AffineMap::get(rank + 3, 0, exprs, mlirContext));
  SmallVector<utils::IteratorType> iterators(rank + 3,
                                             utils::IteratorType::parallel);
  iterators[rank + 1] = utils::IteratorType::reduction;

  Sizes sizes(batch.sizes);
  sizes.push_back(getSize(context.rewriter, context.loc, batch.tensors[0],
                          lhsType.getRank() - 2));
  sizes.push_back(getSize(context.rewriter, context.loc, batch.tensors[1],
                          rhsType.getRank() - 1));
  Type computed = getComputedType(element);
  ScalarBuilder scalar = context.scalar();
  Value sums = buildReduction(
      context.rewriter, context.loc, batch.tensors, maps, iterators, sizes,
      scalar.constant(computed, 0), [&](ScalarBuilder &body, ValueRange args) {
        Value a = body.decode(args[0], lhsType.getElementType());
        Value b = body.decode(args[1], rhsType.getElementType());
        return body.add(args[2], body.mul(a, b));
      });
  return buildRounded(context, sums, element);
}

/// The type with a dimension of 1 added in front or at the end.
static RankedTensorType addDimension(RankedTensorType type, bool front) {
  SmallVector<Dimension> dimensions = getDimensions(type);
  dimensions.insert(front ? dimensions.begin() : dimensions.end(),
                    Dimension{1, {}});
  return getTensorType(dimensions, type.getElementType());
}

FailureOr<Value> nibble::buildAnyMatMul(NodeContext &context, Value lhs,
                                        RankedTensorType lhsType, Value rhs,
                                        RankedTensorType rhsType,
                                        Type element) {
  if (lhsType.getRank() == 0 || rhsType.getRank() == 0)
    return context.fail("expects factors with dimensions");
  bool isRow = lhsType.getRank() == 1, isColumn = rhsType.getRank() == 1;
  OpFoldResult one = context.rewriter.getIndexAttr(1);
  if (isRow) {
    Sizes sizes = context.getSizes(lhs);
    sizes.insert(sizes.begin(), one);
    lhs = buildReshape(context, lhs, sizes);
    lhsType = addDimension(lhsType, /*front=*/true);
  }
  if (isColumn) {
    Sizes sizes = context.getSizes(rhs);
    sizes.push_back(one);
    rhs = buildReshape(context, rhs, sizes);
    rhsType = addDimension(rhsType, /*front=*/false);
  }
  Value result = buildMatMul(context, lhs, lhsType, rhs, rhsType, element);
  if (!isRow && !isColumn)
    return result;
  int64_t rank = cast<RankedTensorType>(result.getType()).getRank();
  SmallVector<int64_t> axes;
  if (isRow)
    axes.push_back(rank - 2);
  if (isColumn)
    axes.push_back(rank - 1);
  return buildReshape(context, result,
                      dropAxes(context, result, axes, /*keep=*/false));
}

/// A quantized weight that nibble.matmul takes.
static bool isQuantizedMatrix(NodeContext &context, unsigned input) {
  RankedTensorType type = context.getInputType(input);
  return isQuantized(type) && type.getRank() == 2;
}

/// The quantized matrix of which `value` is the transpose, or null.
static Value getTransposedWeight(Value value) {
  auto node = value.getDefiningOp<NodeOp>();
  if (!node || !node.isOnnx("Transpose"))
    return {};
  Value weight = node.getInput(0);
  auto type = dyn_cast_if_present<RankedTensorType>(weight.getType());
  auto order = node.getInts("perm");
  bool swaps = !order || (order->size() == 2 && (*order)[0] == 1);
  return type && isQuantized(type) && type.getRank() == 2 && swaps ? weight
                                                                   : Value();
}

/// Activations as nibble.matmul takes them: as codes where they are quantized.
static Value getActivations(NodeContext &context) {
  return isQuantized(context.getInputType(0)) ? context.node.getInput(0)
                                              : context.getInput(0);
}

/// activations · weight, or activations · weightᵀ.
static FailureOr<Value> buildQuantizedProduct(NodeContext &context,
                                              Value activations, Value weight,
                                              bool transposed) {
  int64_t last = cast<RankedTensorType>(activations.getType()).getRank() - 1;
  auto getExtent = [&](Value factor, int64_t axis) {
    return getSize(context.rewriter, context.loc, factor, axis);
  };
  SizeMath math(context);
  if (failed(math.requireEqual(
          getExtent(activations, last), getExtent(weight, transposed ? 1 : 0),
          "the columns of the first factor are not the rows of the second")))
    return failure();
  return MatmulOp::create(
             context.rewriter, context.loc, activations, weight,
             /*bias=*/Value(), TypeAttr::get(context.rewriter.getF32Type()),
             transposed ? context.rewriter.getUnitAttr() : UnitAttr())
      .getResult();
}

static LogicalResult convertMatMul(NodeContext &context) {
  RankedTensorType lhs = context.getInputType(0), rhs = context.getInputType(1);
  Value weight = getTransposedWeight(context.node.getInput(1));
  bool transposed = static_cast<bool>(weight);
  if (!transposed && isQuantizedMatrix(context, 1))
    weight = context.node.getInput(1);
  if (weight && lhs.getRank() >= 1 &&
      lhs.getElementType() == rhs.getElementType()) {
    auto product = buildQuantizedProduct(context, getActivations(context),
                                         weight, transposed);
    return failed(product) ? failure() : context.replace(*product);
  }
  auto result = buildAnyMatMul(context, context.getInput(0), lhs,
                               context.getInput(1), rhs, lhs.getElementType());
  if (failed(result))
    return failure();
  return context.replace(*result);
}

//===----------------------------------------------------------------------===//
// Gemm
//===----------------------------------------------------------------------===//

static Value transpose(NodeContext &context, Value matrix,
                       RankedTensorType &type) {
  SmallVector<Dimension> dimensions = getDimensions(type);
  std::swap(dimensions[0], dimensions[1]);
  type = getTensorType(dimensions, type.getElementType());
  return buildTranspose(context, matrix, {1, 0});
}

/// alpha · A · B + beta · C, rounded once.
static LogicalResult convertGemm(NodeContext &context) {
  NodeOp node = context.node;
  RankedTensorType aType = context.getInputType(0);
  RankedTensorType bType = context.getInputType(1);
  if (aType.getRank() != 2 || bType.getRank() != 2)
    return context.fail("expects matrices");
  Type element = aType.getElementType(), computed = getComputedType(element);
  double alpha = node.getFloat("alpha", 1), beta = node.getFloat("beta", 1);
  Value a = context.getInput(0), sums;
  if (node.getInt("transA", 0))
    a = transpose(context, a, aType);
  if (isQuantizedMatrix(context, 1) && element.isF32()) {
    auto product = buildQuantizedProduct(context, a, node.getInput(1),
                                         node.getInt("transB", 0) != 0);
    if (failed(product))
      return failure();
    sums = *product;
  } else {
    Value b = context.getInput(1);
    if (node.getInt("transB", 0))
      b = transpose(context, b, bType);
    sums = buildMatMul(context, a, aType, b, bType, computed);
  }
  SmallVector<Value> tensors{sums};
  SmallVector<RankedTensorType> types{RankedTensorType::get(
      cast<RankedTensorType>(sums.getType()).getShape(), computed)};
  bool hasC = context.getNumInputs() > 2 && !context.isAbsent(2);
  if (hasC) {
    tensors.push_back(context.getInput(2));
    types.push_back(context.getInputType(2));
  }
  return context.replace(buildBroadcast(
      context, tensors, types, element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        auto scaled = [&](Value x, double factor) {
          return factor == 1
                     ? x
                     : scalar.mul(scalar.constant(x.getType(), factor), x);
        };
        Value result = scaled(args[0], alpha);
        return hasC ? scalar.add(result, scaled(args[1], beta)) : result;
      }));
}

//===----------------------------------------------------------------------===//
// MatMulInteger, QLinearMatMul
//===----------------------------------------------------------------------===//

FailureOr<Value> nibble::subtractZeroPoint(NodeContext &context, unsigned input,
                                           unsigned zero, bool rows) {
  Type i32 = context.rewriter.getI32Type();
  RankedTensorType type = context.getInputType(input);
  Type element = type.getElementType();
  SmallVector<Value> tensors{context.getInput(input)};
  SmallVector<RankedTensorType> types{type};
  if (zero < context.getNumInputs() && !context.isAbsent(zero)) {
    Value value = context.getInput(zero);
    RankedTensorType zeroType = context.getInputType(zero);
    if (rows && zeroType.getRank() == 1 && zeroType.getDimSize(0) != 1) {
      Sizes sizes = context.getSizes(value);
      sizes.push_back(context.rewriter.getIndexAttr(1));
      value = buildReshape(context, value, sizes);
      zeroType = addDimension(zeroType, /*front=*/false);
    }
    if (zeroType.getRank() > type.getRank() && zeroType.getRank() != 1)
      return context.fail("zero point " + Twine(zero) +
                          " has too many "
                          "dimensions");
    tensors.push_back(value);
    types.push_back(zeroType);
  }
  return buildBroadcast(context, tensors, types, i32,
                        [&](ScalarBuilder &scalar, ValueRange args) {
                          Value x = scalar.convert(args[0], element, i32);
                          if (args.size() == 1)
                            return x;
                          return scalar.sub(
                              x, scalar.convert(args[1], element, i32));
                        });
}

static LogicalResult convertMatMulInteger(NodeContext &context) {
  FailureOr<Value> a = subtractZeroPoint(context, 0, 2, /*rows=*/true);
  FailureOr<Value> b = subtractZeroPoint(context, 1, 3, /*rows=*/false);
  if (failed(a) || failed(b))
    return failure();
  Type i32 = context.rewriter.getI32Type();
  auto withI32 = [&](RankedTensorType type) {
    return getTensorType(getDimensions(type), i32);
  };
  auto result = buildAnyMatMul(context, *a, withI32(context.getInputType(0)),
                               *b, withI32(context.getInputType(1)), i32);
  if (failed(result))
    return failure();
  return context.replace(*result);
}

/// saturate(round(integer product · (a's scale · b's scale / y's scale)) +
/// zero)
static LogicalResult convertQLinearMatMul(NodeContext &context) {
  FailureOr<Value> a = subtractZeroPoint(context, 0, 2, /*rows=*/true);
  FailureOr<Value> b = subtractZeroPoint(context, 3, 5, /*rows=*/false);
  if (failed(a) || failed(b))
    return failure();
  Type i32 = context.rewriter.getI32Type(), f32 = context.rewriter.getF32Type();
  auto withI32 = [&](unsigned input) {
    return getTensorType(getDimensions(context.getInputType(input)), i32);
  };
  auto sums = buildAnyMatMul(context, *a, withI32(0), *b, withI32(3), i32);
  if (failed(sums))
    return failure();
  SmallVector<Value> tensors{*sums};
  SmallVector<RankedTensorType> types{
      cast<RankedTensorType>((*sums).getType())};
  for (unsigned input : {1u, 4u, 6u, 7u}) {
    tensors.push_back(context.getInput(input));
    types.push_back(context.getInputType(input));
    if (types.back().getRank() > 1 ||
        (input == 1 && types.back().getRank() == 1 &&
         types.back().getDimSize(0) != 1))
      return context.fail("expects one scale, or one for each column of the "
                          "second factor");
  }
  Type element = context.getElementType(7);
  return context.replace(buildBroadcast(
      context, tensors, types, element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        auto toFloat = [&](unsigned index) {
          return scalar.convert(args[index], types[index].getElementType(),
                                f32);
        };
        Value scale =
            scalar.div(scalar.mul(toFloat(1), toFloat(2)), toFloat(3));
        Value quotient = scalar.mul(toFloat(0), scale);
        return buildLinearCode(scalar, quotient, args[4], element, element,
                               OutOfRange::Saturate);
      }));
}

void nibble::addMatMulConversions(NodeConversions &conversions) {
  conversions.add("MatMul", 1, convertMatMul);
  conversions.add("Gemm", 7, convertGemm);
  conversions.add("MatMulInteger", 10, convertMatMulInteger);
  conversions.add("QLinearMatMul", 10, convertQLinearMatMul);
}
