//===- SumIntegers.cpp - Convolutions of codes as sums of integers --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// With x = sx · (q − z) and w = sw[m] · c, a sum of products is
//
//   Σ x · w = sx · sw[m] · (Σ q · c − z · Σ c)
//
// where the sums on the right are exact in i32.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Convolution.h"
#include "StaticCodes.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Matchers.h"

#include <numeric>

namespace nibble {
#define GEN_PASS_DEF_SUMINTEGERS
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;

/// Taps whose products of bytes cannot leave 32 bits.
static constexpr size_t kMostTaps = (size_t(1) << 31) / (255 * 128);
/// Output channels of a group from which on a kernel for bytes pays.
static constexpr int64_t kLeastChannels = 3;

namespace {
/// What stands between an operand of a convolution and its codes.
struct CodesPath {
  tensor::PadOp pad;
  tensor::ExpandShapeOp expand;
  Value quantized;
};

struct SumIntegers : nibble::impl::SumIntegersBase<SumIntegers> {
  void runOnOperation() override;

private:
  void convert(linalg::GenericOp op);
};
} // namespace

static std::optional<CodesPath> findCodes(Value operand) {
  CodesPath path;
  path.expand = operand.getDefiningOp<tensor::ExpandShapeOp>();
  if (path.expand)
    operand = path.expand.getSrc();
  path.pad = operand.getDefiningOp<tensor::PadOp>();
  if (path.pad) {
    Value padding = path.pad.getConstantPaddingValue();
    if (!padding || !matchPattern(padding, m_AnyZeroFloat()))
      return std::nullopt;
    operand = path.pad.getSource();
  }
  auto dequantize = operand.getDefiningOp<DequantizeOp>();
  if (!dequantize)
    return std::nullopt;
  path.quantized = dequantize.getInput();
  return path;
}

/// `tensor` of i8, padded with `padding` and reshaped as `path` says.
static Value follow(OpBuilder &builder, Location loc, CodesPath path,
                    Value tensor, int64_t padding) {
  auto withBytes = [&](Type type) {
    return RankedTensorType::get(cast<RankedTensorType>(type).getShape(),
                                 builder.getI8Type());
  };
  if (path.pad) {
    Value byte = arith::ConstantIntOp::create(builder, loc, builder.getI8Type(),
                                              static_cast<int8_t>(padding));
    tensor = tensor::PadOp::create(builder, loc, withBytes(path.pad.getType()),
                                   tensor, path.pad.getMixedLowPad(),
                                   path.pad.getMixedHighPad(), byte);
  }
  if (path.expand)
    tensor = tensor::ExpandShapeOp::create(
        builder, loc, withBytes(path.expand.getType()), tensor,
        path.expand.getReassociationIndices(),
        path.expand.getMixedOutputShape());
  return tensor;
}

/// The convolution of bytes, summed in i32 from 0.
static Value buildSums(OpBuilder &builder, linalg::GenericOp op, Value x,
                       Value w) {
  Location loc = op.getLoc();
  Type i32 = builder.getI32Type();
  Value initial = op.getDpsInits()[0];
  Value empty = tensor::EmptyOp::create(
      builder, loc, tensor::getMixedSizes(builder, loc, initial), i32);
  Value zero = arith::ConstantIntOp::create(builder, loc, i32, 0);
  Value none = linalg::FillOp::create(builder, loc, zero, empty).getResult(0);
  auto sums = linalg::GenericOp::create(
      builder, loc, TypeRange{none.getType()}, ValueRange{x, w},
      ValueRange{none}, op.getIndexingMapsArray(), op.getIteratorTypesArray(),
      [&](OpBuilder &body, Location at, ValueRange args) {
        Value a = arith::ExtUIOp::create(body, at, i32, args[0]);
        Value b = arith::ExtSIOp::create(body, at, i32, args[1]);
        Value product = arith::MulIOp::create(body, at, a, b);
        Value sum = arith::AddIOp::create(body, at, args[2], product);
        linalg::YieldOp::create(body, at, sum);
      });
  return sums.getResult(0);
}

/// initial + factors[m] · (sums + corrections[m]), where dimensions `channels`
/// of the sums are m.
static Value buildScaled(OpBuilder &builder, Location loc, Value sums,
                         Value initial, Value corrections, Value factors,
                         ArrayRef<unsigned> channels) {
  auto type = cast<RankedTensorType>(initial.getType());
  int64_t rank = type.getRank();
  SmallVector<AffineExpr> places;
  for (unsigned dimension : channels)
    places.push_back(builder.getAffineDimExpr(dimension));
  AffineMap all = builder.getMultiDimIdentityMap(rank);
  AffineMap some = AffineMap::get(rank, 0, places, builder.getContext());
  SmallVector<utils::IteratorType> loops(rank, utils::IteratorType::parallel);
  Value empty = tensor::EmptyOp::create(
      builder, loc, tensor::getMixedSizes(builder, loc, sums),
      builder.getF32Type());
  auto scaled = linalg::GenericOp::create(
      builder, loc, TypeRange{type},
      ValueRange{sums, initial, corrections, factors}, ValueRange{empty},
      ArrayRef<AffineMap>{all, all, some, some, all}, loops,
      [](OpBuilder &body, Location at, ValueRange args) {
        Value sum = arith::AddIOp::create(body, at, args[0], args[2]);
        Value number =
            arith::SIToFPOp::create(body, at, body.getF32Type(), sum);
        number = arith::MulFOp::create(body, at, number, args[3]);
        number = arith::AddFOp::create(body, at, args[1], number);
        linalg::YieldOp::create(body, at, number);
      });
  return scaled.getResult(0);
}

template <typename T>
static Value buildConstant(OpBuilder &builder, Location loc,
                           ArrayRef<int64_t> shape, ArrayRef<T> values,
                           Type element) {
  return arith::ConstantOp::create(
      builder, loc,
      DenseElementsAttr::get(RankedTensorType::get(shape, element), values));
}

void SumIntegers::convert(linalg::GenericOp op) {
  std::optional<Convolution> convolution = matchConvolution(op);
  if (!convolution || convolution->hasBytes || !op.hasPureTensorSemantics())
    return;
  std::optional<CodesPath> data = findCodes(op.getDpsInputs()[0]);
  std::optional<CodesPath> filter = findCodes(op.getDpsInputs()[1]);
  auto weightType = cast<RankedTensorType>(op.getDpsInputs()[1].getType());
  int64_t leading = convolution->leading();
  if (!data || !filter || filter->pad || !weightType.hasStaticShape() ||
      weightType.getDimSize(leading - 2) < kLeastChannels)
    return;
  std::optional<StaticCodes> codes = matchStaticCodes(data->quantized);
  std::optional<SignedWeight> weight =
      matchSignedWeight(filter->quantized, /*axis=*/0);
  if (!codes || !weight)
    return;
  size_t channels = weight->scales.size();
  size_t taps = weight->values.size() / channels;
  if (taps > kMostTaps)
    return;

  OpBuilder builder(op);
  Location loc = op.getLoc();
  Value bytes = buildCodes(builder, loc, *codes, /*asSigned=*/false);
  Value x = follow(builder, loc, *data, bytes, codes->zero);
  Value w = follow(builder, loc, *filter, weight->codes, /*padding=*/0);
  std::vector<int32_t> corrections;
  std::vector<float> factors;
  for (size_t channel = 0; channel < channels; ++channel) {
    auto first = weight->values.begin() + channel * taps;
    int64_t sum = std::accumulate(first, first + taps, int64_t(0));
    corrections.push_back(static_cast<int32_t>(-codes->zero * sum));
    factors.push_back(codes->scale * weight->scales[channel]);
  }
  ArrayRef<int64_t> shape = weightType.getShape().take_front(leading - 1);
  SmallVector<unsigned> places =
      llvm::to_vector(llvm::seq<unsigned>(1, leading));
  Value result = buildScaled(
      builder, loc, buildSums(builder, op, x, w), op.getDpsInits()[0],
      buildConstant<int32_t>(builder, loc, shape, corrections,
                             builder.getI32Type()),
      buildConstant<float>(builder, loc, shape, factors, builder.getF32Type()),
      places);
  op.getResult(0).replaceAllUsesWith(result);
  op.erase();
  ++numConvolutions;
}

void SumIntegers::runOnOperation() {
  SmallVector<linalg::GenericOp> ops;
  getOperation().walk([&](linalg::GenericOp op) { ops.push_back(op); });
  for (linalg::GenericOp op : ops)
    convert(op);
}
