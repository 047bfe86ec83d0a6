//===- PackedReader.cpp - Codes of a packed weight in registers -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "PackedReader.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;
/// Bytes of a quad of all columns.
static constexpr int64_t kQuadBytes = 4 * kColumns;

WeightKernelFormat nibble::getKernelFormat(RankedTensorType weightType) {
  WeightKernelFormat format;
  format.panel = *getPanelFormat(weightType);
  StorageAttr storage = getQuantization(weightType).getStorage();
  // Signed codes are packed with their least one at 0.
  if (!format.panel.hasZeros)
    format.zero = -storage.getMinimumCode();
  return format;
}

std::string WeightKernelFormat::getName() const {
  return ("w" + Twine(panel.bits) + "g" + Twine(panel.group) +
          (panel.scaleBytes == 2 ? "_f16" : "_f32") +
          (panel.hasZeros ? Twine("_zeros") : "_zero" + Twine(zero)))
      .str();
}

PackedReader::PackedReader(KernelBuilder &kernel, const KernelTarget &target,
                           const WeightKernelFormat &format, Value weight)
    : kernel(kernel), format(format), weight(weight), lanes(target.lanes()),
      sumType(kernel.vector(lanes, kernel.i32())),
      floatType(kernel.vector(lanes, kernel.f32())),
      byteType(kernel.vector(4 * lanes, kernel.i8())) {}

Value PackedReader::loadScales(Value groupStart, int64_t vector) {
  const PanelFormat &panel = format.panel;
  Value position = kernel.add(
      groupStart, panel.codeBytes() + vector * lanes * panel.scaleBytes);
  Value bytes = kernel.loadVector(
      weight, position, kernel.vector(lanes * panel.scaleBytes, kernel.i8()));
  if (panel.scaleBytes == 4)
    return kernel.bitcast(bytes, floatType);
  Value halves =
      kernel.bitcast(bytes, kernel.vector(lanes, kernel.builder.getF16Type()));
  return arith::ExtFOp::create(kernel.builder, kernel.loc, floatType, halves);
}

Value PackedReader::loadZeros(Value groupStart, int64_t vector) {
  const PanelFormat &panel = format.panel;
  Value position =
      kernel.add(groupStart, panel.codeBytes() + kColumns * panel.scaleBytes +
                                 vector * lanes);
  Value bytes =
      kernel.loadVector(weight, position, kernel.vector(lanes, kernel.i8()));
  return arith::ExtUIOp::create(kernel.builder, kernel.loc, sumType, bytes);
}

/// There is no shift of bytes: neighbours shift into each other, and the mask
/// that follows removes that.
Value PackedReader::shiftRight(Value bytes, unsigned bits) {
  if (bits == 0)
    return bytes;
  VectorType pairs = kernel.vector(2 * lanes, kernel.builder.getI16Type());
  Value shifted = arith::ShRUIOp::create(
      kernel.builder, kernel.loc, kernel.bitcast(bytes, pairs),
      kernel.splat(pairs, static_cast<int64_t>(bits)));
  return kernel.bitcast(shifted, byteType);
}

Values PackedReader::unpack(ArrayRef<Value> step) {
  unsigned bits = format.panel.bits;
  OpBuilder &builder = kernel.builder;
  if (bits == 8)
    return {step[0]};
  auto take = [&](Value bytes, unsigned shift, int64_t mask) -> Value {
    return arith::AndIOp::create(builder, kernel.loc, shiftRight(bytes, shift),
                                 kernel.splat(byteType, mask));
  };
  Values quads;
  for (unsigned quad = 0; quad < format.panel.quadsPerStep(); ++quad) {
    if (bits != 3) {
      quads.push_back(take(step[0], quad * bits, (1 << bits) - 1));
      continue;
    }
    Value low = take(step[quad / 4], quad % 4 * 2, 3);
    Value high = take(step[2], quad, 1);
    VectorType pairs = kernel.vector(2 * lanes, builder.getI16Type());
    high =
        arith::ShLIOp::create(builder, kernel.loc, kernel.bitcast(high, pairs),
                              kernel.splat(pairs, int64_t(2)));
    quads.push_back(arith::OrIOp::create(builder, kernel.loc, low,
                                         kernel.bitcast(high, byteType)));
  }
  return quads;
}

Values PackedReader::unpackStep(Value step, int64_t vector) {
  Values rowsOfStep;
  for (size_t row = 0; row < format.panel.stepBytes() / kQuadBytes; ++row)
    rowsOfStep.push_back(kernel.loadVector(
        weight, kernel.add(step, row * kQuadBytes + vector * 4 * lanes),
        byteType));
  return unpack(rowsOfStep);
}
