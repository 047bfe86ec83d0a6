//===- NodeConversion.cpp - One node to plain IR --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"
#include "SizeOrigin.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/ControlFlow/IR/ControlFlowOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// NodeConversions
//===----------------------------------------------------------------------===//

static std::string getKey(StringRef domain, StringRef opType) {
  if (domain == "ai.onnx")
    domain = "";
  return (domain + ":" + opType).str();
}

void NodeConversions::add(StringRef domain, StringRef opType, int64_t since,
                          NodeConversion conversion) {
  byName[getKey(domain, opType)][since] = std::move(conversion);
}

const NodeConversion *NodeConversions::find(StringRef domain, StringRef opType,
                                            int64_t version) const {
  auto entry = byName.find(getKey(domain, opType));
  if (entry == byName.end())
    return nullptr;
  auto next = entry->second.upper_bound(version);
  return next == entry->second.begin() ? nullptr : &std::prev(next)->second;
}

//===----------------------------------------------------------------------===//
// NodeContext
//===----------------------------------------------------------------------===//

RankedTensorType NodeContext::getInputType(unsigned index) {
  Value input = node.getInput(index);
  return input ? cast<RankedTensorType>(input.getType()) : RankedTensorType();
}

Value NodeContext::getInput(unsigned index) {
  Value original = node.getInput(index);
  if (!original)
    return {};
  if (!isQuantized(original.getType()))
    return inputs[index];
  return DequantizeOp::create(rewriter, loc, inputs[index]);
}

RankedTensorType NodeContext::getResultType(unsigned index) {
  if (index >= node.getNumResults())
    return {};
  return dyn_cast<RankedTensorType>(node.getResult(index).getType());
}

std::optional<SmallVector<int64_t>>
NodeContext::getConstantInts(unsigned input) {
  if (Value value = node.getInput(input))
    return getIntegers(getConstantValue(value));
  return std::nullopt;
}

Value NodeContext::extractIndex(Value tensor, int64_t position) {
  ScalarBuilder build = scalar();
  SmallVector<Value> indices;
  if (cast<RankedTensorType>(tensor.getType()).getRank() != 0)
    indices.push_back(build.index(position));
  Value element = tensor::ExtractOp::create(rewriter, loc, tensor, indices);
  return arith::IndexCastOp::create(rewriter, loc, rewriter.getIndexType(),
                                    element);
}

void NodeContext::check(Value condition, const Twine &message) {
  cf::AssertOp::create(
      rewriter, loc, condition,
      ("node '" + node.getDisplayName() + "': " + message).str());
}

void NodeContext::checkSize(OpFoldResult size, int64_t declared,
                            unsigned result) {
  ScalarBuilder build = scalar();
  check(build.equal(toValue(size), build.index(declared)),
        "a dimension of result " + Twine(result) + " is not " +
            Twine(declared));
}

LogicalResult NodeContext::replace(ValueRange results) {
  SmallVector<Value> values;
  for (auto [index, result] : llvm::enumerate(results)) {
    auto declared = getResultType(index);
    auto type = dyn_cast_if_present<RankedTensorType>(result ? result.getType()
                                                             : Type());
    if (declared && type) {
      RankedTensorType stored = getStoredType(declared);
      if (type.getElementType() != stored.getElementType() ||
          type.getRank() != stored.getRank())
        return fail("result " + Twine(index) + " has not the declared type");
      if (failed(verifyCompatibleShape(type, stored)))
        return fail("result " + Twine(index) + " has not the declared shape");
      for (int64_t axis = 0; axis < type.getRank(); ++axis)
        if (type.isDynamicDim(axis) && !stored.isDynamicDim(axis))
          checkSize(getSize(rewriter, loc, result, axis),
                    stored.getDimSize(axis), index);
      if (type != stored)
        result = tensor::CastOp::create(rewriter, loc, stored, result);
    }
    values.push_back(result);
  }
  rewriter.replaceOp(node, values);
  return success();
}

//===----------------------------------------------------------------------===//
// Broadcasting
//===----------------------------------------------------------------------===//

namespace {
/// One dimension of one tensor that takes part in a common dimension.
struct Part {
  size_t tensor;
  int64_t axis;
  Dimension dimension;
};
} // namespace

static bool isOne(const Dimension &dimension) { return dimension.size == 1; }

/// Copies `tensor` with its dimensions that are 1 at run time stretched to
/// `sizes`; an empty entry leaves the dimension alone.
static Value stretch(NodeContext &context, Value tensor,
                     ArrayRef<OpFoldResult> sizes) {
  Sizes own = context.getSizes(tensor);
  Sizes result(own);
  for (auto [size, target] : llvm::zip(result, sizes))
    if (target)
      size = target;
  Type type = cast<RankedTensorType>(tensor.getType()).getElementType();
  return buildTensor(
      context.rewriter, context.loc, result, type,
      [&](ScalarBuilder &scalar, ValueRange indices) -> Value {
        SmallVector<Value> source(indices);
        for (size_t axis = 0; axis < sizes.size(); ++axis) {
          if (!sizes[axis])
            continue;
          Value size = toValue(scalar.builder, scalar.loc, own[axis]);
          source[axis] = scalar.select(scalar.equal(size, scalar.index(1)),
                                       scalar.index(0), indices[axis]);
        }
        return tensor::ExtractOp::create(scalar.builder, scalar.loc, tensor,
                                         source);
      });
}

/// The common size of parts of which none is known to be it.
static OpFoldResult getCommonSize(NodeContext &context, ValueRange tensors,
                                  ArrayRef<Part> parts) {
  ScalarBuilder scalar = context.scalar();
  Value size;
  for (const Part &part : parts) {
    Value next = context.toValue(getSize(context.rewriter, context.loc,
                                         tensors[part.tensor], part.axis));
    size = size ? scalar.select(scalar.equal(size, scalar.index(1)), next, size)
                : next;
  }
  return size;
}

/// Checks that the parts of a common dimension are 1 or its size.
static void checkAgreement(NodeContext &context, ValueRange tensors,
                           ArrayRef<Part> parts, OpFoldResult common) {
  ScalarBuilder scalar = context.scalar();
  for (const Part &part : parts) {
    if (part.dimension.isStatic())
      continue;
    Value size = context.toValue(getSize(context.rewriter, context.loc,
                                         tensors[part.tensor], part.axis));
    Value agrees = scalar.equal(size, context.toValue(common));
    Value isOne = scalar.equal(size, scalar.index(1));
    context.check(
        arith::OrIOp::create(context.rewriter, context.loc, agrees, isOne),
        "the shapes do not broadcast");
  }
}

Broadcast nibble::broadcast(NodeContext &context, ValueRange tensors,
                            ArrayRef<RankedTensorType> types,
                            unsigned trailing) {
  int64_t rank = 0;
  for (RankedTensorType type : types)
    rank = std::max(rank, type.getRank() - trailing);
  Broadcast result;
  result.tensors.assign(tensors.begin(), tensors.end());
  result.maps.resize(tensors.size());
  SmallVector<SmallVector<OpFoldResult>> stretches;
  for (RankedTensorType type : types)
    stretches.emplace_back(type.getRank());

  for (int64_t loop = 0; loop < rank; ++loop) {
    SmallVector<Part> parts, varying;
    for (auto [index, type] : llvm::enumerate(types)) {
      int64_t axis = loop - (rank - (type.getRank() - trailing));
      if (axis < 0)
        continue;
      parts.push_back({index, axis, getDimensions(type)[axis]});
      if (!isOne(parts.back().dimension))
        varying.push_back(parts.back());
    }
    const Part *known = llvm::find_if(
        varying, [](const Part &part) { return part.dimension.isStatic(); });
    bool same = llvm::all_of(varying, [&](const Part &part) {
      return part.dimension.isKnownEqual(varying.front().dimension) ||
             haveSameSize(tensors[part.tensor], part.axis,
                          tensors[varying.front().tensor],
                          varying.front().axis);
    });
    OpFoldResult size = context.rewriter.getIndexAttr(1);
    if (known != varying.end())
      size = context.rewriter.getIndexAttr(known->dimension.size);
    else if (same && !varying.empty())
      size = getSize(context.rewriter, context.loc,
                     tensors[varying.front().tensor], varying.front().axis);
    else if (!varying.empty())
      size = getCommonSize(context, tensors, varying);
    result.sizes.push_back(size);
    if (!same)
      checkAgreement(context, tensors, varying, size);

    for (const Part &part : parts) {
      bool stays = isOne(part.dimension) && !varying.empty();
      result.maps[part.tensor].push_back(
          stays ? context.rewriter.getAffineConstantExpr(0)
                : context.rewriter.getAffineDimExpr(loop));
      if (!same && !isOne(part.dimension) && !part.dimension.isStatic())
        stretches[part.tensor][part.axis] = size;
    }
  }
  for (auto [index, sizes] : llvm::enumerate(stretches))
    if (llvm::any_of(sizes, [](OpFoldResult size) { return !!size; }))
      result.tensors[index] = stretch(context, result.tensors[index], sizes);
  return result;
}

Value nibble::buildBroadcast(NodeContext &context, ValueRange tensors,
                             ArrayRef<RankedTensorType> types, Type element,
                             ScalarFunction body) {
  Broadcast operands = broadcast(context, tensors, types);
  SmallVector<AffineMap> maps;
  for (ArrayRef<AffineExpr> exprs : operands.maps)
    maps.push_back(AffineMap::get(operands.sizes.size(), 0, exprs,
                                  context.rewriter.getContext()));
  return buildElementwise(
      context.rewriter, context.loc, operands.tensors, maps, operands.sizes,
      getStoredType(element), [&](ScalarBuilder &scalar, ValueRange stored) {
        SmallVector<Value> numbers;
        for (auto [value, type] : llvm::zip(stored, types))
          numbers.push_back(scalar.decode(value, type.getElementType()));
        return scalar.encode(body(scalar, numbers), element);
      });
}

Value nibble::buildCast(NodeContext &context, Value tensor, Type from, Type to,
                        OutOfRange overflow) {
  if (from == to)
    return tensor;
  int64_t rank = cast<RankedTensorType>(tensor.getType()).getRank();
  return buildElementwise(
      context.rewriter, context.loc, tensor,
      context.rewriter.getMultiDimIdentityMap(rank), context.getSizes(tensor),
      getStoredType(to),
      [&](ScalarBuilder &scalar, ValueRange stored) -> Value {
        Value number = scalar.decode(stored[0], from);
        // A double is rounded to a half once, not by way of a float.
        if (from.isF64() && to.isF16())
          return arith::TruncFOp::create(scalar.builder, scalar.loc, to,
                                         number);
        // Out of range of a narrow integer, ONNX's node tests keep the low
        // bits.
        Type i32 = scalar.builder.getI32Type();
        if (isa<FloatType>(from) && isa<IntegerType>(to) && !to.isInteger(1) &&
            to.getIntOrFloatBitWidth() < 32)
          return scalar.encode(
              scalar.convert(scalar.convert(number, from, i32), i32, to), to);
        return scalar.encode(scalar.convert(number, from, to), to, overflow);
      });
}

//===----------------------------------------------------------------------===//
// Axes and shapes
//===----------------------------------------------------------------------===//

std::optional<int64_t> nibble::normalizeAxis(int64_t axis, int64_t rank) {
  if (axis < 0)
    axis += rank;
  return axis >= 0 && axis < rank ? std::optional(axis) : std::nullopt;
}

Sizes nibble::dropAxes(NodeContext &context, Value tensor,
                       ArrayRef<int64_t> axes, bool keep) {
  Sizes sizes;
  for (auto [axis, size] : llvm::enumerate(context.getSizes(tensor))) {
    if (!llvm::is_contained(axes, static_cast<int64_t>(axis)))
      sizes.push_back(size);
    else if (keep)
      sizes.push_back(context.rewriter.getIndexAttr(1));
  }
  return sizes;
}

Value nibble::buildEmpty(NodeContext &context, ArrayRef<OpFoldResult> sizes,
                         Type element) {
  return tensor::EmptyOp::create(context.rewriter, context.loc, sizes, element);
}

Value nibble::buildFilled(NodeContext &context, ArrayRef<OpFoldResult> sizes,
                          Value stored) {
  Value empty = buildEmpty(context, sizes, stored.getType());
  return linalg::FillOp::create(context.rewriter, context.loc, stored, empty)
      .getResult(0);
}

Value nibble::buildTranspose(NodeContext &context, Value tensor,
                             ArrayRef<int64_t> order) {
  Sizes own = context.getSizes(tensor), sizes;
  for (int64_t axis : order)
    sizes.push_back(own[axis]);
  Value empty =
      buildEmpty(context, sizes,
                 cast<RankedTensorType>(tensor.getType()).getElementType());
  return linalg::TransposeOp::create(context.rewriter, context.loc, tensor,
                                     empty, order)
      ->getResult(0);
}

/// Whether `sizes`, of as many elements as `tensor`, of its rank and with the
/// same static ones, are those of `tensor`.
static bool areSizesOf(ArrayRef<OpFoldResult> sizes, Value tensor) {
  auto type = cast<RankedTensorType>(tensor.getType());
  // The number of elements leaves a single size no choice.
  if (type.getNumDynamicDims() <= 1 && !llvm::is_contained(type.getShape(), 0))
    return true;
  return llvm::all_of(llvm::enumerate(sizes), [&](auto entry) {
    auto size = dyn_cast<Value>(entry.value());
    if (!size)
      return true;
    auto dim = size.template getDefiningOp<tensor::DimOp>();
    return dim && dim.getSource() == tensor &&
           dim.getConstantIndex() == static_cast<int64_t>(entry.index());
  });
}

Value nibble::buildReshape(NodeContext &context, Value tensor,
                           ArrayRef<OpFoldResult> sizes) {
  auto source = cast<RankedTensorType>(tensor.getType());
  SmallVector<Value> dynamic, values;
  SmallVector<int64_t> shape;
  dispatchIndexOpFoldResults(sizes, dynamic, shape);
  auto type = RankedTensorType::get(shape, source.getElementType());
  if (type == source && areSizesOf(sizes, tensor))
    return tensor;
  for (OpFoldResult size : sizes)
    values.push_back(context.toValue(size));
  auto shapeType = RankedTensorType::get({static_cast<int64_t>(sizes.size())},
                                         context.rewriter.getIndexType());
  Value shapeTensor =
      sizes.empty() ? tensor::EmptyOp::create(context.rewriter, context.loc,
                                              shapeType, ValueRange())
                          .getResult()
                    : tensor::FromElementsOp::create(
                          context.rewriter, context.loc, shapeType, values)
                          .getResult();
  return tensor::ReshapeOp::create(context.rewriter, context.loc, type, tensor,
                                   shapeTensor);
}
