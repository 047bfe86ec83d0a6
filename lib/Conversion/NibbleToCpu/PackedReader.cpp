//===- PackedReader.cpp - Codes of a packed weight in registers -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "PackedReader.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/xxhash.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;
/// Bytes of a quad of all columns.
static constexpr int64_t kQuadBytes = 4 * kColumns;
/// Entries of the table of nibble.lookup.
static constexpr int64_t kTableSize = 16;

WeightKernelFormat nibble::getKernelFormat(RankedTensorType weightType) {
  WeightKernelFormat format;
  format.panel = *getPanelFormat(weightType);
  StorageAttr storage = getQuantization(weightType).getStorage();
  if (storage.isCodeBook()) {
    format.codeBook = storage;
    return format;
  }
  // Signed codes are packed with their least one at 0.
  if (!format.panel.hasZeros)
    format.zero = -storage.getMinimumCode();
  return format;
}

/// "nf4", or a number that stands for the entries.
static std::string getCodeBookName(StorageAttr codeBook) {
  if (codeBook.getKind() != CodeKind::CodeBook)
    return codeBook.getKind() == CodeKind::NF4 ? "nf4" : "fp4";
  SmallVector<float> values = getCodeBookValues(codeBook);
  ArrayRef<uint8_t> bytes(reinterpret_cast<const uint8_t *>(values.data()),
                          values.size() * sizeof(float));
  return "book" + llvm::utohexstr(llvm::xxh3_64bits(bytes), /*LowerCase=*/true);
}

std::string WeightKernelFormat::getName() const {
  if (codeBook)
    return (getCodeBookName(codeBook) + "g" + Twine(panel.group) +
            (panel.scaleBytes == 2 ? "_f16" : "_f32"))
        .str();
  return ("w" + Twine(panel.bits) + "g" + Twine(panel.group) +
          (panel.scaleBytes == 2 ? "_f16" : "_f32") +
          (panel.hasZeros ? Twine("_zeros") : "_zero" + Twine(zero)))
      .str();
}

PackedReader::PackedReader(KernelBuilder &kernel, const KernelTarget &target,
                           const WeightKernelFormat &format, Value weight)
    : kernel(kernel), format(format), weight(weight), lanes(target.lanes()),
      hasFloatTable(target.lanes() == kTableSize),
      sumType(kernel.vector(lanes, kernel.i32())),
      floatType(kernel.vector(lanes, kernel.f32())),
      byteType(kernel.vector(4 * lanes, kernel.i8())) {}

Value PackedReader::loadScales(Value groupStart, Value column) {
  const PanelFormat &panel = format.panel;
  Value position = kernel.add(kernel.add(groupStart, panel.codeBytes()),
                              kernel.mul(column, panel.scaleBytes));
  Value bytes = kernel.loadVector(
      weight, position, kernel.vector(lanes * panel.scaleBytes, kernel.i8()));
  if (panel.scaleBytes == 4)
    return kernel.bitcast(bytes, floatType);
  Value halves =
      kernel.bitcast(bytes, kernel.vector(lanes, kernel.builder.getF16Type()));
  return arith::ExtFOp::create(kernel.builder, kernel.loc, floatType, halves);
}

Value PackedReader::loadZeros(Value groupStart, Value column) {
  const PanelFormat &panel = format.panel;
  int64_t scalesEnd = panel.codeBytes() + kColumns * panel.scaleBytes;
  Value position = kernel.add(kernel.add(groupStart, scalesEnd), column);
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

Values PackedReader::unpackStep(Value step, Value column) {
  Value first = kernel.add(step, kernel.mul(column, 4));
  Values rowsOfStep;
  for (size_t row = 0; row < format.panel.stepBytes() / kQuadBytes; ++row)
    rowsOfStep.push_back(kernel.loadVector(
        weight, kernel.add(first, row * kQuadBytes), byteType));
  return unpack(rowsOfStep);
}

Value PackedReader::getReadAhead() {
  OpBuilder &builder = kernel.builder;
  StringRef name = "nibble_runtime_reads_ahead";
  auto module = weight.getParentRegion()->getParentOfType<ModuleOp>();
  if (!module.lookupSymbol(name)) {
    OpBuilder top = OpBuilder::atBlockBegin(module.getBody());
    func::FuncOp::create(top, kernel.loc, name,
                         top.getFunctionType({}, top.getI64Type()))
        .setPrivate();
  }
  Value answer = func::CallOp::create(builder, kernel.loc, name,
                                      TypeRange(builder.getI64Type()))
                     .getResult(0);
  return kernel.mul(arith::IndexCastOp::create(builder, kernel.loc,
                                               kernel.indexType(), answer),
                    kGroupsAhead * format.panel.groupBytes());
}

void PackedReader::prefetchStep(Value step, Value column, Value distance) {
  Value first = kernel.add(kernel.add(step, kernel.mul(column, 4)), distance);
  for (size_t row = 0; row < format.panel.stepBytes() / kQuadBytes; ++row)
    kernel.prefetch(weight, kernel.add(first, row * kQuadBytes),
                    /*locality=*/2);
}

Values PackedReader::unpackIntegers(Value step, Value column) {
  Values quads = unpackStep(step, column);
  if (!format.codeBook)
    return quads;
  OpBuilder &builder = kernel.builder;
  SmallVector<int8_t> table(kTableSize);
  for (auto [entry, value] :
       llvm::zip(table, getIntegerCodeBook(format.codeBook).values))
    entry = static_cast<int8_t>(value ^ -128);
  Value entries = arith::ConstantOp::create(
      builder, kernel.loc,
      DenseElementsAttr::get(kernel.vector(kTableSize, kernel.i8()),
                             ArrayRef<int8_t>(table)));
  for (Value &quad : quads)
    quad = LookupOp::create(builder, kernel.loc, byteType, entries, quad);
  return quads;
}

Value PackedReader::lookUp(Value codes) {
  SmallVector<float> table;
  if (format.codeBook)
    table = getCodeBookValues(format.codeBook);
  else
    for (int64_t code = 0; code < kTableSize; ++code)
      table.push_back(static_cast<float>(code - format.zero));
  table.resize(kTableSize);
  Value entries = arith::ConstantOp::create(
      kernel.builder, kernel.loc,
      DenseElementsAttr::get(kernel.vector(kTableSize, kernel.f32()),
                             ArrayRef<float>(table)));
  return LookupOp::create(kernel.builder, kernel.loc, floatType, entries,
                          codes);
}

Value PackedReader::loadZerosOrCommon(Value groupStart, Value column) {
  return format.panel.hasZeros ? loadZeros(groupStart, column)
                               : kernel.splat(sumType, format.zero);
}

Value PackedReader::convert(Value quad, int64_t place, Value zeros) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  Value code = kernel.bitcast(quad, sumType);
  code = arith::ShRUIOp::create(builder, loc, code,
                                kernel.splat(sumType, 8 * place));
  code = arith::AndIOp::create(builder, loc, code,
                               kernel.splat(sumType, int64_t(255)));
  if (format.codeBook)
    return lookUp(code);
  if (!hasFloatTable || format.panel.bits > 4) {
    code = arith::SubIOp::create(builder, loc, code, zeros);
    return arith::SIToFPOp::create(builder, loc, floatType, code);
  }
  Value number = lookUp(code);
  if (!format.panel.hasZeros)
    return number;
  zeros = arith::SIToFPOp::create(builder, loc, floatType, zeros);
  return arith::SubFOp::create(builder, loc, number, zeros);
}
