//===- MicrosoftMatMul.cpp - ONNX Runtime's ops on quantized matrices -----===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What `--convert-onnx-to-nibble` leaves as a node: matrices whose codes,
// scales or zero points are computed, and forms that the dialect cannot hold.
// They are dequantized as
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
// says, and multiplied in float.
//
//===----------------------------------------------------------------------===//

#include "Indexing.h"
#include "nibble/Numerics/Storage.h"

#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static bool isGiven(NodeContext &context, unsigned input) {
  return input < context.getNumInputs() && !context.isAbsent(input);
}

static Value divide(ScalarBuilder &scalar, Value a, int64_t b) {
  return arith::DivUIOp::create(scalar.builder, scalar.loc, a, scalar.index(b));
}

static Value getRest(ScalarBuilder &scalar, Value a, int64_t b) {
  return arith::RemUIOp::create(scalar.builder, scalar.loc, a, scalar.index(b));
}

/// A tensor as a vector of `count` elements, which is checked.
static Value flatten(NodeContext &context, unsigned input, int64_t count) {
  Value tensor = context.getInput(input);
  OpFoldResult size = getProduct(context, context.getSizes(tensor));
  auto known = getConstantIntValue(size);
  ScalarBuilder scalar = context.scalar();
  if (!known || *known < count)
    context.check(scalar.lessEqual(scalar.index(count), context.toValue(size)),
                  "input " + Twine(input) +
                      " has fewer elements than its block size "
                      "asks for");
  return buildReshape(context, tensor, size);
}

/// Code `position` of those that are packed in the bytes from `start` on, the
/// first in the lowest bits, as an i8 without a sign.
static Value readPacked(ScalarBuilder &scalar, Value bytes, Value start,
                        Value position, int64_t bits) {
  int64_t perByte = 8 / bits;
  Value byte = extract(scalar, bytes,
                       scalar.add(start, divide(scalar, position, perByte)));
  if (perByte == 1)
    return byte;
  Value place = getRest(scalar, position, perByte);
  Type i8 = scalar.builder.getI8Type();
  Value shift = arith::IndexCastOp::create(
      scalar.builder, scalar.loc, i8, scalar.mul(place, scalar.index(bits)));
  Value shifted =
      arith::ShRUIOp::create(scalar.builder, scalar.loc, byte, shift);
  return arith::AndIOp::create(scalar.builder, scalar.loc, shifted,
                               scalar.integer(i8, (1 << bits) - 1));
}

/// A byte as an f32, without a sign.
static Value toFloat(ScalarBuilder &scalar, Value byte) {
  return arith::UIToFPOp::create(scalar.builder, scalar.loc,
                                 scalar.builder.getF32Type(), byte);
}

/// x · transposed `weight` [N, K] of f32 (plus the bias, where there is one),
/// in the elements of input 0.
static LogicalResult multiply(NodeContext &context, Value weight, int64_t rows,
                              int64_t columns, bool isTransposed,
                              unsigned biasInput) {
  Type f32 = context.rewriter.getF32Type();
  Type element = context.getElementType(0);
  auto weightType = RankedTensorType::get({rows, columns}, f32);
  if (isTransposed) {
    weight = buildTensor(context.rewriter, context.loc,
                         {context.rewriter.getIndexAttr(columns),
                          context.rewriter.getIndexAttr(rows)},
                         f32, [&](ScalarBuilder &scalar, ValueRange loops) {
                           return extract(scalar, weight, {loops[1], loops[0]});
                         });
    weightType = RankedTensorType::get({columns, rows}, f32);
  }
  bool hasBias = isGiven(context, biasInput);
  auto product =
      buildAnyMatMul(context, context.getInput(0), context.getInputType(0),
                     weight, weightType, hasBias ? f32 : element);
  if (failed(product))
    return failure();
  if (!hasBias)
    return context.replace(*product);
  auto productType = RankedTensorType::get(
      cast<RankedTensorType>((*product).getType()).getShape(), f32);
  return context.replace(
      buildBroadcast(context, {*product, context.getInput(biasInput)},
                     {productType, context.getInputType(biasInput)}, element,
                     [](ScalarBuilder &scalar, ValueRange args) {
                       return scalar.add(args[0], args[1]);
                     }));
}

//===----------------------------------------------------------------------===//
// MatMulNBits
//===----------------------------------------------------------------------===//

static LogicalResult convertMatMulNBits(NodeContext &context) {
  NodeOp node = context.node;
  int64_t K = node.getInt("K", 0), N = node.getInt("N", 0);
  int64_t bits = node.getInt("bits", 4), size = node.getInt("block_size", 0);
  if (K < 1 || N < 1 || size < 1 || (bits != 2 && bits != 4 && bits != 8) ||
      size * bits % 8 != 0)
    return context.fail("K, N, bits or block_size is out of range");
  if (node.getInt("weight_prepacked", 0) != 0)
    return context.fail("the weight is packed for one machine; export the "
                        "model with weight_prepacked = 0");
  int64_t blocks = llvm::divideCeil(K, size), blockBytes = size * bits / 8;
  Value bytes = flatten(context, 1, N * blocks * blockBytes);
  Value scales = flatten(context, 2, N * blocks);
  Type scaleType = context.getElementType(2);
  bool hasZeros = isGiven(context, 3), isPacked = false;
  int64_t zeroBytes = llvm::divideCeil(blocks * bits, 8);
  Type zeroType;
  Value zeros, groups;
  if (hasZeros) {
    zeroType = context.getElementType(3);
    isPacked = isa<IntegerType>(zeroType);
    zeros = flatten(context, 3, N * (isPacked ? zeroBytes : blocks));
  }
  if (isGiven(context, 4)) {
    groups = flatten(context, 4, K);
    checkIndices(context, 4, context.rewriter.getIndexAttr(blocks));
  }
  Type f32 = context.rewriter.getF32Type();
  OpBuilder &builder = context.rewriter;
  Value weight = buildTensor(
      builder, context.loc,
      Sizes{builder.getIndexAttr(N), builder.getIndexAttr(K)}, f32,
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value row = loops[0], column = loops[1];
        Value start = scalar.mul(row, scalar.index(blocks * blockBytes));
        Value code =
            toFloat(scalar, readPacked(scalar, bytes, start, column, bits));
        Value block = divide(scalar, column, size);
        if (groups)
          block = resolveIndex(scalar, extract(scalar, groups, column),
                               scalar.index(blocks));
        Value here = scalar.add(scalar.mul(row, scalar.index(blocks)), block);
        Value zero;
        if (!hasZeros)
          zero = scalar.constant(f32, 1 << (bits - 1));
        else if (isPacked)
          zero = toFloat(scalar,
                         readPacked(scalar, zeros,
                                    scalar.mul(row, scalar.index(zeroBytes)),
                                    block, bits));
        else
          zero = scalar.decode(extract(scalar, zeros, here), zeroType);
        Value scale = scalar.decode(extract(scalar, scales, here), scaleType);
        return scalar.mul(scalar.sub(code, zero), scale);
      });
  return multiply(context, weight, N, K, /*isTransposed=*/true, 5);
}

//===----------------------------------------------------------------------===//
// MatMulBnb4
//===----------------------------------------------------------------------===//

static LogicalResult convertMatMulBnb4(NodeContext &context) {
  NodeOp node = context.node;
  int64_t K = node.getInt("K", 0), N = node.getInt("N", 0);
  int64_t size = node.getInt("block_size", 0);
  int64_t kind = node.getInt("quant_type", -1);
  if (K < 1 || N < 1 || size < 1 || (kind != 0 && kind != 1))
    return context.fail("K, N, block_size or quant_type is out of range");
  std::vector<float> codeBook =
      (kind == 1 ? StorageFormat::getNF4() : StorageFormat::getFP4()).codeBook;
  Value bytes = flatten(context, 1, llvm::divideCeil(K * N, 2));
  Value scales = flatten(context, 2, llvm::divideCeil(K * N, size));
  Type scaleType = context.getElementType(2);
  OpBuilder &builder = context.rewriter;
  Value weight = buildTensor(
      builder, context.loc,
      Sizes{builder.getIndexAttr(N), builder.getIndexAttr(K)},
      builder.getF32Type(), [&](ScalarBuilder &scalar, ValueRange loops) {
        Value position =
            scalar.add(scalar.mul(loops[0], scalar.index(K)), loops[1]);
        // The first of two codes is in the upper half of a byte.
        Value isSecond =
            scalar.equal(getRest(scalar, position, 2), scalar.index(1));
        Value byte = extract(scalar, bytes, divide(scalar, position, 2));
        Type i8 = scalar.builder.getI8Type();
        Value upper = arith::ShRUIOp::create(scalar.builder, scalar.loc, byte,
                                             scalar.integer(i8, 4));
        Value code = arith::AndIOp::create(scalar.builder, scalar.loc,
                                           scalar.select(isSecond, byte, upper),
                                           scalar.integer(i8, 15));
        Value scale = scalar.decode(
            extract(scalar, scales, divide(scalar, position, size)), scaleType);
        return scalar.mul(scalar.lookUp(codeBook, code), scale);
      });
  return multiply(context, weight, N, K, node.getInt("transB", 1) != 0, ~0u);
}

//===----------------------------------------------------------------------===//
// GatherBlockQuantized
//===----------------------------------------------------------------------===//

static LogicalResult convertGatherBlockQuantized(NodeContext &context) {
  NodeOp node = context.node;
  RankedTensorType type = context.getInputType(0);
  int64_t rank = type.getRank(), indexRank = context.getInputType(1).getRank();
  auto gather = normalizeAxis(node.getInt("gather_axis", 0), rank);
  auto axis = normalizeAxis(node.getInt("quantize_axis", 1), rank);
  int64_t bits = node.getInt("bits", 4), size = node.getInt("block_size", 128);
  if (!gather || !axis || size < 1 || (bits != 2 && bits != 4 && bits != 8) ||
      context.getInputType(2).getRank() != rank)
    return context.fail("bits, block_size or an axis is out of range");
  Type code = type.getElementType();
  if (!isa<IntegerType>(code))
    return context.fail("tables of floats are not supported");
  bool isPacked = code.isUnsignedInteger(8);
  // Only the last dimension is packed.
  int64_t perByte = isPacked ? 8 / bits : 1;
  Value table = context.getInput(0), indices = context.getInput(1),
        scales = context.getInput(2), zeros;
  if (isGiven(context, 3))
    zeros = context.getInput(3);
  Type scaleType = context.getElementType(2);
  RankedTensorType declared = context.getResultType();
  Type element = declared ? declared.getElementType() : scaleType;
  Sizes own = context.getSizes(table), sizes;
  own.back() =
      getProduct(context, {own.back(), context.rewriter.getIndexAttr(perByte)});
  llvm::append_range(sizes, ArrayRef(own).take_front(*gather));
  llvm::append_range(sizes, context.getSizes(indices));
  llvm::append_range(sizes, ArrayRef(own).drop_front(*gather + 1));
  ScalarBuilder outer = context.scalar();
  for (int64_t i = 0; i < rank; ++i) {
    Value extent = context.toValue(own[i]);
    if (i == *axis)
      extent = outer.div(outer.add(extent, outer.index(size - 1)),
                         outer.index(size));
    context.check(outer.equal(context.toValue(getSize(context.rewriter,
                                                      context.loc, scales, i)),
                              extent),
                  "the scales have not one value for each block");
  }
  checkIndices(context, 1, own[*gather]);
  Type f32 = context.rewriter.getF32Type(), i32 = context.rewriter.getI32Type();
  auto read = [&](ScalarBuilder &scalar, Value from, ValueRange position) {
    SmallVector<Value> where(position);
    if (!isPacked || perByte == 1)
      return scalar.convert(extract(scalar, from, where), code, i32);
    Value last = where.back();
    where.back() = divide(scalar, last, perByte);
    Type i8 = scalar.builder.getI8Type();
    Value shift = arith::IndexCastOp::create(
        scalar.builder, scalar.loc, i8,
        scalar.mul(getRest(scalar, last, perByte), scalar.index(bits)));
    Value shifted = arith::ShRUIOp::create(scalar.builder, scalar.loc,
                                           extract(scalar, from, where), shift);
    Value low = arith::AndIOp::create(scalar.builder, scalar.loc, shifted,
                                      scalar.integer(i8, (1 << bits) - 1));
    return scalar.convert(low, code, i32);
  };
  return context.replace(buildTensor(
      context.rewriter, context.loc, sizes, getStoredType(element),
      [&](ScalarBuilder &scalar, ValueRange loops) {
        Value index = extract(scalar, indices, loops.slice(*gather, indexRank));
        SmallVector<Value> source(loops.take_front(*gather));
        source.push_back(resolveIndex(
            scalar, index, toValue(scalar.builder, scalar.loc, own[*gather])));
        llvm::append_range(source, loops.drop_front(*gather + indexRank));
        SmallVector<Value> block(source);
        block[*axis] = divide(scalar, source[*axis], size);
        Value number = read(scalar, table, source);
        // Bytes without a zero point are offset by half of their range.
        Value zero = zeros
                         ? read(scalar, zeros, block)
                         : scalar.integer(i32, isPacked ? 1 << (bits - 1) : 0);
        Value difference = scalar.convert(scalar.sub(number, zero), i32, f32);
        Value scale = scalar.decode(extract(scalar, scales, block), scaleType);
        return scalar.encode(scalar.mul(difference, scale), element);
      }));
}

//===----------------------------------------------------------------------===//
// Products of integers
//===----------------------------------------------------------------------===//

static RankedTensorType withElement(RankedTensorType type, Type element) {
  return getTensorType(getDimensions(type), element);
}

/// sums · scale of a · scale of b + bias.
static LogicalResult scaleProduct(NodeContext &context, Value sums,
                                  Value aScale, RankedTensorType aScaleType,
                                  unsigned bScaleInput, unsigned biasInput) {
  Type element = context.getElementType(bScaleInput);
  Type i32 = context.rewriter.getI32Type(), f32 = context.rewriter.getF32Type();
  SmallVector<Value> tensors{sums, aScale, context.getInput(bScaleInput)};
  SmallVector<RankedTensorType> types{cast<RankedTensorType>(sums.getType()),
                                      aScaleType,
                                      context.getInputType(bScaleInput)};
  bool hasBias = isGiven(context, biasInput);
  if (hasBias) {
    tensors.push_back(context.getInput(biasInput));
    types.push_back(context.getInputType(biasInput));
  }
  for (RankedTensorType type : ArrayRef(types).drop_front())
    if (type.getRank() > 1)
      return context.fail("expects one scale, or one for each column");
  return context.replace(buildBroadcast(
      context, tensors, types, element,
      [&](ScalarBuilder &scalar, ValueRange args) {
        Value scale = scalar.mul(args[1], args[2]);
        Value result = scalar.mul(scalar.convert(args[0], i32, f32), scale);
        return hasBias ? scalar.add(result, args[3]) : result;
      }));
}

static LogicalResult convertMatMulIntegerToFloat(NodeContext &context) {
  Type i32 = context.rewriter.getI32Type();
  FailureOr<Value> a = subtractZeroPoint(context, 0, 4, /*rows=*/true);
  FailureOr<Value> b = subtractZeroPoint(context, 1, 5, /*rows=*/false);
  if (failed(a) || failed(b))
    return failure();
  auto sums =
      buildAnyMatMul(context, *a, withElement(context.getInputType(0), i32), *b,
                     withElement(context.getInputType(1), i32), i32);
  if (failed(sums))
    return failure();
  return scaleProduct(context, *sums, context.getInput(2),
                      context.getInputType(2), 3, 6);
}

/// The first factor is quantized as DynamicQuantizeLinear does.
static LogicalResult convertDynamicQuantizeMatMul(NodeContext &context) {
  Type i32 = context.rewriter.getI32Type();
  DynamicCodes codes =
      buildDynamicCodes(context, context.getInput(0), context.getInputType(0));
  Type u8 = codes.codeType;
  auto scalarType = RankedTensorType::get({}, u8);
  Value a =
      buildBroadcast(context, {codes.codes, codes.zero},
                     {withElement(context.getInputType(0), u8), scalarType},
                     i32, [&](ScalarBuilder &scalar, ValueRange args) {
                       return scalar.sub(scalar.convert(args[0], u8, i32),
                                         scalar.convert(args[1], u8, i32));
                     });
  FailureOr<Value> b = subtractZeroPoint(context, 1, 3, /*rows=*/false);
  if (failed(b))
    return failure();
  auto sums =
      buildAnyMatMul(context, a, withElement(context.getInputType(0), i32), *b,
                     withElement(context.getInputType(1), i32), i32);
  if (failed(sums))
    return failure();
  auto scaleType = RankedTensorType::get({}, context.rewriter.getF32Type());
  return scaleProduct(context, *sums, codes.scale, scaleType, 2, 4);
}

void nibble::addMicrosoftMatMulConversions(NodeConversions &conversions) {
  auto add = [&](StringRef opType, LogicalResult (*conversion)(NodeContext &)) {
    conversions.add("com.microsoft", opType, 1, conversion);
  };
  add("MatMulNBits", convertMatMulNBits);
  add("MatMulBnb4", convertMatMulBnb4);
  add("GatherBlockQuantized", convertGatherBlockQuantized);
  add("MatMulIntegerToFloat", convertMatMulIntegerToFloat);
  add("DynamicQuantizeMatMul", convertDynamicQuantizeMatMul);
}
