//===- QuantizeScales.cpp - --nibble-quantize-scales ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Nibble/Transforms/Dequantize.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Numerics/NestedScales.h"

#include <cmath>
#include <cstring>

namespace nibble {
#define GEN_PASS_DEF_NIBBLEQUANTIZESCALES
#include "nibble/Dialect/Nibble/Transforms/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

/// QLoRA's.
static constexpr unsigned kBits = 8;

template <typename T>
static Value makePart(OpBuilder &builder, const std::string &name,
                      RankedTensorType type, const std::vector<T> &numbers) {
  std::vector<char> bytes(numbers.size() * sizeof(T));
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return ConstantOp::create(builder, NameLoc::get(builder.getStringAttr(name)),
                            type, builder.getStringAttr(name),
                            makeTensorValue(type, name, std::move(bytes)),
                            TensorField::raw_data, DictionaryAttr());
}

/// Whether scales are plain numbers of f32 that would take fewer bytes.
static bool isWorthwhile(AssembleOp op, size_t runLength) {
  QuantizedAttr encoding = getQuantization(op.getType());
  auto scale = dyn_cast<TypeAttr>(encoding.getScale());
  if (!scale || !scale.getValue().isF32() || encoding.hasLayout() ||
      !getConstantValue(op.getScales()))
    return false;
  size_t count = cast<ShapedType>(op.getScales().getType()).getNumElements();
  size_t runs = (count + runLength - 1) / runLength;
  return count + runs * 2 * sizeof(float) < count * sizeof(float);
}

/// What is noted of the signal to noise, with the difference from `before`.
static void addNoise(AssembleOp op, ArrayRef<float> before) {
  auto noted = op->getAttrOfType<FloatAttr>(kSqnrAttrName);
  auto after = dequantizeConstant(op);
  if (!noted || !after)
    return;
  double signal = 0, added = 0;
  for (auto [old, now] : llvm::zip(before, *after)) {
    double difference = static_cast<double>(old) - now;
    signal += static_cast<double>(old) * old;
    added += difference * difference;
  }
  double noise = signal * std::pow(10, -noted.getValueAsDouble() / 10) + added;
  double ratio = 10 * std::log10(signal / std::max(noise, 1e-300));
  op->setAttr(kSqnrAttrName, FloatAttr::get(noted.getType(), ratio));
}

static void quantizeScales(AssembleOp op, size_t runLength) {
  QuantizedAttr encoding = getQuantization(op.getType());
  std::vector<float> scales = *getFloats(getConstantValue(op.getScales()));
  std::vector<float> before = dequantizeConstant(op).value_or(scales);
  NestedScales nested = nestScales(scales, kBits, runLength, FloatFormat::F32);

  OpBuilder builder(op);
  auto constant = op.getScales().getDefiningOp<ConstantOp>();
  std::string name = constant ? constant.getName().str() : "scales";
  auto byte = StorageAttr::getInteger(op.getContext(), kBits,
                                      /*isSigned=*/false);
  auto f32 = TypeAttr::get(builder.getF32Type());
  auto inner =
      QuantizedAttr::get(byte, {static_cast<int64_t>(runLength)},
                         /*flat=*/true, f32, f32, OutliersAttr(), LayoutAttr());
  auto plain = cast<RankedTensorType>(op.getScales().getType());
  auto innerType =
      RankedTensorType::get(plain.getShape(), plain.getElementType(), inner);
  Value codes =
      makePart(builder, name + ".codes", getCodesType(innerType), nested.codes);
  Value steps = makePart(builder, name + ".scales", getScalesType(innerType),
                         nested.steps);
  Value zeros =
      makePart(builder, name + ".zeros", getZerosType(innerType), nested.zeros);
  auto innerOp = AssembleOp::create(builder, op.getLoc(), innerType, codes,
                                    steps, zeros, Value(), Value());
  auto outer = QuantizedAttr::get(encoding.getStorage(), encoding.getBlock(),
                                  encoding.getFlat(), inner, encoding.getZero(),
                                  encoding.getOutliers(), LayoutAttr());
  auto type = RankedTensorType::get(op.getType().getShape(),
                                    op.getType().getElementType(), outer);
  auto replaced = AssembleOp::create(
      builder, op.getLoc(), type, op.getCodes(), innerOp.getResult(),
      op.getZeros(), op.getOutlierIndices(), op.getOutlierValues());
  replaced->setDiscardableAttrs(op->getDiscardableAttrDictionary());
  addNoise(replaced, before);
  op.getResult().replaceAllUsesWith(replaced.getResult());
  op.erase();
  if (constant && constant->use_empty())
    constant.erase();
}

namespace {
struct QuantizeScales : nibble::impl::NibbleQuantizeScalesBase<QuantizeScales> {
  using NibbleQuantizeScalesBase::NibbleQuantizeScalesBase;

  void runOnOperation() override {
    if (runLength <= 0) {
      emitError(UnknownLoc::get(&getContext()))
          << "'" << runLength.getValue()
          << "' is no number of scales that share a step";
      return signalPassFailure();
    }
    SmallVector<AssembleOp> ops;
    getOperation().walk([&](AssembleOp op) {
      if (isWorthwhile(op, runLength))
        ops.push_back(op);
    });
    for (AssembleOp op : ops)
      quantizeScales(op, runLength);
    numQuantized += ops.size();
  }
};
} // namespace
