//===- MatMulNBits.cpp - com.microsoft's blockwise integer weights --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// MatMulNBits: B is uint8 [N, blocks, block_size * bits / 8], low bits first
// along K; scales [N, blocks]; zero points packed likewise, [N, bytes]; without
// them the zero point is 2^(bits-1). GatherBlockQuantized reads the same rows
// of a table as [rows, bytes] (ONNX Runtime, contrib ops).
//
//===----------------------------------------------------------------------===//

#include "StoredWeight.h"

#include "nibble/Numerics/Packing.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// A weight as MatMulNBits sees it: N outputs of K inputs each.
struct Rows {
  unsigned reductionAxis;
  size_t K, N, blockSize;
  unsigned bits;

  MatMulNBitsShape shape() const { return {K, N, blockSize, bits}; }
};

constexpr size_t kMinBlockSize = 16; // ONNX Runtime's

} // namespace

/// The dimension that the blocks run along, if all readers sum over it.
static std::optional<unsigned> getSharedAxis(const StoredWeight &weight) {
  std::optional<unsigned> shared;
  for (const WeightReader &reader : weight.readers) {
    unsigned axis = getReductionAxis(reader);
    if (shared && *shared != axis)
      return std::nullopt;
    shared = axis;
  }
  return shared;
}

/// Bytes of a weight cut into blocks of `blockSize`.
static size_t countBytes(const Rows &rows, size_t blockSize, bool hasZeros) {
  MatMulNBitsShape shape{rows.K, rows.N, blockSize, rows.bits};
  return shape.weightBytes() + shape.blocks() * rows.N * sizeof(float) +
         (hasZeros ? shape.zeroPointBytes() : 0);
}

/// A block size of the runtime whose blocks never straddle two of ours, that
/// makes the smallest file; 0 if there is none.
static size_t chooseBlockSize(const Rows &rows, int64_t extent, bool hasZeros) {
  size_t best = 0;
  size_t last = llvm::PowerOf2Ceil(std::max(rows.K, kMinBlockSize));
  for (size_t size = kMinBlockSize; size <= last; size *= 2) {
    if (extent != QuantizedAttr::kWholeExtent && extent % size != 0 &&
        size_t(extent) < rows.K)
      continue;
    if (best == 0 ||
        countBytes(rows, size, hasZeros) < countBytes(rows, best, hasZeros))
      best = size;
  }
  return best;
}

static std::optional<Rows> getRows(const StoredWeight &weight) {
  std::optional<unsigned> axis = getSharedAxis(weight);
  if (!axis)
    return std::nullopt;
  ArrayRef<int64_t> block = weight.encoding.getBlock();
  int64_t other = block[1 - *axis];
  if (other != 1 && other != QuantizedAttr::kWholeExtent)
    return std::nullopt;
  Rows rows;
  rows.reductionAxis = *axis;
  rows.K = weight.type.getDimSize(*axis);
  rows.N = weight.type.getDimSize(1 - *axis);
  rows.bits = getContainerBits(weight.encoding.getStorage().getBitWidth());
  int64_t extent = block[*axis];
  // A group of the runtime's own sizes stays as it is.
  bool usual = extent >= int64_t(kMinBlockSize) && llvm::isPowerOf2_64(extent);
  rows.blockSize =
      usual ? extent
            : chooseBlockSize(rows, extent, !weight.zeroPoints.empty());
  return rows;
}

static std::optional<std::string> whyNotReader(const WeightReader &reader,
                                               const Rows &rows) {
  NodeOp node = reader.node;
  switch (reader.kind) {
  case WeightReader::MatMul:
    if (auto type = dyn_cast<RankedTensorType>(node.getInputs()[0].getType());
        type && type.getRank() < 2)
      return "is multiplied with a vector";
    return std::nullopt;
  case WeightReader::Gemm:
    if (node.getInt("transA", 0) != 0 || node.getFloat("alpha", 1) != 1 ||
        (node.getInput(2) && node.getFloat("beta", 1) != 1))
      return "is read by a Gemm with transA, alpha or beta";
    return std::nullopt;
  case WeightReader::Gather:
    if (rows.bits == 2 || (rows.K * rows.bits) % 8 != 0)
      return "is gathered in rows that are no whole bytes or of 2 bits";
    return std::nullopt;
  case WeightReader::Other:
    return ("is read by node '" +
            (node ? node.getDisplayName() : std::string("return")) + "'");
  }
  return std::nullopt;
}

std::optional<std::string>
nibble::whyNotMatMulNBits(const StoredWeight &weight) {
  if (weight.nestedScales)
    return "has nested scales, which MatMulNBits lacks";
  if (!weight.encoding.getStorage().isInteger() || weight.encoding.getFlat())
    return "has codes that are no integers";
  if (weight.type.getRank() != 2)
    return "is no matrix";
  if (weight.readers.empty())
    return "is read by no node";
  std::optional<Rows> rows = getRows(weight);
  if (!rows)
    return "has blocks across the outputs of a node that reads it";
  if (rows->blockSize == 0)
    return "has blocks that are no multiple of 16";
  for (const WeightReader &reader : weight.readers)
    if (auto why = whyNotReader(reader, *rows))
      return why;
  return std::nullopt;
}

/// The grid's entries, repeated for blocks of the runtime: [blocks, N].
template <typename T>
static std::vector<T> expandGrid(const StoredWeight &weight, const Rows &rows,
                                 ArrayRef<T> grid) {
  size_t blocks = rows.shape().blocks();
  std::vector<T> expanded(blocks * rows.N);
  int64_t extent = weight.encoding.getBlock()[rows.reductionAxis];
  size_t perBlock = extent == QuantizedAttr::kWholeExtent ? rows.K : extent;
  for (size_t block = 0; block < blocks; ++block)
    for (size_t n = 0; n < rows.N; ++n) {
      int64_t along = block * rows.blockSize / perBlock;
      int64_t across = weight.gridShape[1 - rows.reductionAxis] == 1 ? 0 : n;
      int64_t index = rows.reductionAxis == 0
                          ? along * weight.gridShape[1] + across
                          : across * weight.gridShape[1] + along;
      expanded[block * rows.N + n] = grid[index];
    }
  return expanded;
}

namespace {
struct Initializers {
  Value codes, scales, zeroPoints;
};
} // namespace

static Initializers makeInitializers(const StoredWeight &weight,
                                     const Rows &rows, bool asTable,
                                     OnnxBuilder &builder) {
  MatMulNBitsShape shape = rows.shape();
  Type byte = builder.builder.getIntegerType(8, /*isSigned=*/false);
  StorageAttr storage = weight.encoding.getStorage();
  uint8_t offset = storage.isSigned() ? 1u << (rows.bits - 1) : 0;
  ptrdiff_t rowStride = rows.reductionAxis == 0 ? rows.N : 1;
  ptrdiff_t colStride = rows.reductionAxis == 0 ? 1 : rows.K;

  std::vector<char> packed;
  SmallVector<int64_t> codesShape;
  if (asTable) {
    // Rows of a table are not padded to whole blocks.
    size_t rowBytes = rows.K * rows.bits / 8;
    packed.resize(rows.N * rowBytes);
    std::vector<uint8_t> row(rows.K);
    for (size_t n = 0; n < rows.N; ++n) {
      for (size_t k = 0; k < rows.K; ++k)
        row[k] = weight.codes[k * rowStride + n * colStride] + offset;
      packLowBitsFirst(row.data(), row.size(), rows.bits,
                       reinterpret_cast<uint8_t *>(packed.data()) +
                           n * rowBytes);
    }
    codesShape = {int64_t(rows.N), int64_t(rowBytes)};
  } else {
    packed.resize(shape.weightBytes());
    packMatMulNBits(shape, weight.codes.data(), rowStride, colStride, offset,
                    reinterpret_cast<uint8_t *>(packed.data()));
    codesShape = {int64_t(rows.N), int64_t(shape.blocks()),
                  int64_t(shape.blockBytes())};
  }

  Initializers result;
  result.codes =
      builder.makeConstant(weight.name + "_Q" + std::to_string(rows.bits),
                           codesShape, byte, std::move(packed));
  // [blocks, N] to [N, blocks].
  std::vector<float> grid =
      expandGrid<float>(weight, rows, ArrayRef<float>(weight.scales));
  size_t blocks = shape.blocks();
  std::vector<float> scales(grid.size());
  for (size_t block = 0; block < blocks; ++block)
    for (size_t n = 0; n < rows.N; ++n)
      scales[n * blocks + block] = grid[block * rows.N + n];
  result.scales = builder.makeScales(weight.name + "_scales",
                                     {int64_t(rows.N), int64_t(blocks)},
                                     weight.type.getElementType(), scales);
  if (weight.zeroPoints.empty())
    return result;
  std::vector<uint8_t> zeros =
      expandGrid<uint8_t>(weight, rows, ArrayRef<uint8_t>(weight.zeroPoints));
  std::vector<char> packedZeros(shape.zeroPointBytes());
  packMatMulNBitsZeroPoints(shape, zeros.data(), rows.N, 1, offset,
                            reinterpret_cast<uint8_t *>(packedZeros.data()));
  int64_t rowBytes = packedZeros.size() / rows.N;
  result.zeroPoints = builder.makeConstant(weight.name + "_zero_points",
                                           {int64_t(rows.N), rowBytes}, byte,
                                           std::move(packedZeros));
  return result;
}

/// The bias of a Gemm, if MatMulNBits can add it: a vector of N.
static Value getBias(const WeightReader &reader, const Rows &rows) {
  NodeOp node = reader.node;
  if (reader.kind != WeightReader::Gemm)
    return {};
  Value bias = node.getInput(2);
  auto type = bias ? dyn_cast<RankedTensorType>(bias.getType()) : nullptr;
  bool fits =
      type && type.getRank() == 1 && type.getDimSize(0) == int64_t(rows.N);
  return fits ? bias : Value();
}

static void writeProduct(const WeightReader &reader, const Rows &rows,
                         const Initializers &parts, int64_t accuracyLevel,
                         OnnxBuilder &builder) {
  NodeOp node = reader.node;
  builder.setInsertionPoint(node);
  SmallVector<Value> inputs = {node.getInputs()[0], parts.codes, parts.scales};
  Value bias = getBias(reader, rows);
  auto absent = [&] {
    return AbsentOp::create(builder.builder, node.getLoc(),
                            builder.builder.getNoneType())
        .getResult();
  };
  if (parts.zeroPoints)
    inputs.push_back(parts.zeroPoints);
  if (bias) {
    if (!parts.zeroPoints)
      inputs.push_back(absent());
    inputs.push_back(absent()); // g_idx
    inputs.push_back(bias);
  }
  NodeOp product =
      builder.makeNode("MatMulNBits", "com.microsoft", node.getDisplayName(),
                       node.getOutputName(0), inputs,
                       {{"K", rows.K},
                        {"N", rows.N},
                        {"bits", rows.bits},
                        {"block_size", rows.blockSize},
                        {"accuracy_level", accuracyLevel}},
                       node.getResult(0).getType());
  replaceProduct(reader, product, builder);
}

static void writeGather(const WeightReader &reader, const Rows &rows,
                        const Initializers &parts, Value table,
                        OnnxBuilder &builder) {
  NodeOp node = reader.node;
  builder.setInsertionPoint(node);
  SmallVector<Value> inputs = {table, node.getInputs()[1], parts.scales};
  if (parts.zeroPoints)
    inputs.push_back(parts.zeroPoints);
  NodeOp gather =
      builder.makeNode("GatherBlockQuantized", "com.microsoft",
                       node.getDisplayName(), node.getOutputName(0), inputs,
                       {{"bits", rows.bits},
                        {"block_size", rows.blockSize},
                        {"gather_axis", 0},
                        {"quantize_axis", 1}},
                       node.getResult(0).getType());
  node.getResult(0).replaceAllUsesWith(gather.getResult(0));
  node.erase();
}

/// Codes that MatMulNBits reads as [N, blocks, bytes], as the rows of a table:
/// one initializer serves both.
static Value makeTableView(const StoredWeight &weight, const Rows &rows,
                           Value codes, OnnxBuilder &builder) {
  builder.setInsertionPoint(weight.op);
  MatMulNBitsShape shape = rows.shape();
  Type i64 = builder.builder.getI64Type();
  auto vector = [&](StringRef suffix, ArrayRef<int64_t> values) {
    std::vector<char> bytes(values.size() * sizeof(int64_t));
    memcpy(bytes.data(), values.data(), bytes.size());
    return builder.makeConstant((weight.name + suffix).str(),
                                {int64_t(values.size())}, i64,
                                std::move(bytes));
  };
  Type byte = cast<RankedTensorType>(codes.getType()).getElementType();
  int64_t paddedBytes = shape.blocks() * shape.blockBytes();
  int64_t rowBytes = rows.K * rows.bits / 8;
  Value target = vector("_table_shape", {int64_t(rows.N), paddedBytes});
  std::string name = builder.names.make(weight.name + "_table");
  bool padded = paddedBytes != rowBytes;
  std::string reshaped = padded ? builder.names.make(name + "_padded") : name;
  Value table =
      builder
          .makeNode("Reshape", "", reshaped, reshaped, {codes, target}, {},
                    RankedTensorType::get({int64_t(rows.N), paddedBytes}, byte))
          .getResult(0);
  if (!padded)
    return table;
  Value begin = vector("_table_begin", {0}),
        end = vector("_table_end", {rowBytes}),
        axis = vector("_table_axis", {1});
  return builder
      .makeNode("Slice", "", name, name, {table, begin, end, axis}, {},
                RankedTensorType::get({int64_t(rows.N), rowBytes}, byte))
      .getResult(0);
}

FormatCounts nibble::writeMatMulNBits(const StoredWeight &weight,
                                      OnnxBuilder &builder,
                                      int64_t accuracyLevel) {
  Rows rows = *getRows(weight);
  FormatCounts counts;
  bool onlyGathers = llvm::all_of(weight.readers, [](const WeightReader &r) {
    return r.kind == WeightReader::Gather;
  });
  Initializers parts = makeInitializers(weight, rows, onlyGathers, builder);
  Value table = onlyGathers ? parts.codes : Value();
  for (const WeightReader &reader : weight.readers) {
    if (reader.kind == WeightReader::Gather) {
      if (!table)
        table = makeTableView(weight, rows, parts.codes, builder);
      writeGather(reader, rows, parts, table, builder);
      ++counts.gathers;
      continue;
    }
    NodeOp transpose = reader.transpose;
    writeProduct(reader, rows, parts, accuracyLevel, builder);
    if (transpose && transpose->use_empty())
      transpose.erase();
    ++counts.matMuls;
  }
  return counts;
}
