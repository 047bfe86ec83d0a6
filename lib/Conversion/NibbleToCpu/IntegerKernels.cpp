//===- IntegerKernels.cpp - Products of codes and quantized activations ---===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// y[m, n] = Σ_g sx[m, g] · sw[g, n] · Σ_{k in g} (w[k, n] - z[g, n]) · x[m, k]
//
// The inner sum is exact in i32; it starts from -z · Σ x, so that codes are
// multiplied as they are. Three regimes walk the tile:
//
//   few rows       sums of all groups stay in registers, the weights stream by
//   some rows      codes are unpacked as they are multiplied, for each block of
//                  rows again
//   many rows      a group is unpacked once into a panel in the first cache,
//                  which all blocks of rows read
//
//===----------------------------------------------------------------------===//

#include "PackedReader.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;
/// Bytes of a quad of all columns.
static constexpr int64_t kQuadBytes = 4 * kColumns;
/// Rows whose sums are kept at a time.
static constexpr int64_t kRowBlock = 16;
/// From this many rows on, unpacking into a panel pays.
static constexpr int64_t kPanelRows = 64;
static constexpr int64_t kCacheLine = 64;
static constexpr int64_t kScratchRows = kRowsPerPass + kRowBlock;

//===----------------------------------------------------------------------===//
// Quantizing rows
//===----------------------------------------------------------------------===//

/// Calls `body(first row, rows of the block, rows that exist)` for the blocks
/// of `rows` rows; the number of rows of a block is a constant there.
static void forEachRowBlock(
    KernelBuilder &kernel, Value rows,
    llvm::function_ref<void(Value first, int64_t size, Value count)> body) {
  Value blocks = kernel.divide(rows, kernel.index(kRowBlock));
  Value full = kernel.mul(blocks, kRowBlock);
  kernel.loop(kernel.index(0), full, kRowBlock, [&](Value first) {
    body(first, kRowBlock, kernel.index(kRowBlock));
  });
  Value rest = kernel.sub(rows, full);
  // The least power of two that holds the rest.
  for (int64_t size = kRowBlock, smaller; size >= 1; size = smaller) {
    smaller = size / 2;
    Value fits = kernel.lessEqual(rest, kernel.index(size));
    Value needed = kernel.less(kernel.index(smaller), rest);
    kernel.ifThen(
        arith::AndIOp::create(kernel.builder, kernel.loc, fits, needed),
        [&] { body(full, size, rest); });
  }
}

Value nibble::buildPaddedRows(KernelBuilder &kernel, Value rows) {
  OpBuilder &builder = kernel.builder;
  Value full =
      kernel.mul(kernel.divide(rows, kernel.index(kRowBlock)), kRowBlock);
  Value rest = kernel.sub(rows, full), padded = kernel.index(kRowBlock);
  for (int64_t size = kRowBlock / 2; size >= 1; size /= 2)
    padded = arith::SelectOp::create(builder, kernel.loc,
                                     kernel.lessEqual(rest, kernel.index(size)),
                                     kernel.index(size), padded);
  padded = arith::SelectOp::create(builder, kernel.loc, kernel.equal(rest, 0),
                                   rest, padded);
  return kernel.add(full, padded);
}

namespace {
/// Quantizes one row; or takes its codes as they are, where there is a scale.
class RowQuantizer {
public:
  RowQuantizer(KernelBuilder &kernel, int64_t lanes, Value x, Value known)
      : kernel(kernel), lanes(lanes), x(x), known(known),
        floats(kernel.vector(lanes, kernel.f32())),
        integers(kernel.vector(lanes, kernel.i32())) {}

  /// s = max(|x|) / 127 over [first, last), or 1 (Spec S11).
  Value buildScale(Value row, Value first, Value last);
  /// Writes the codes of [first, last), padded with 0 up to `padded`, at
  /// `codes[start + quad * stride]`. Returns their sum.
  Value buildCodes(Value row, Value first, Value last, Value padded,
                   Value scale, Value codes, Value start, int64_t stride);

private:
  /// `lanes` elements from `position` on; 0 past `end`.
  Value load(Value row, Value position, Value end) {
    Type element = cast<MemRefType>(x.getType()).getElementType();
    return kernel.loadMasked(x, {row, position}, kernel.vector(lanes, element),
                             kernel.mask(kernel.sub(end, position), lanes));
  }
  /// Codes of floats, in i32.
  Value quantize(Value numbers, Value divisor);

  KernelBuilder &kernel;
  int64_t lanes;
  Value x, known;
  VectorType floats, integers;
};
} // namespace

Value RowQuantizer::buildScale(Value row, Value first, Value last) {
  if (known)
    return known;
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  Values largest = kernel.loop(
      first, last, lanes, kernel.splat(floats, 0.0),
      [&](Value position, ValueRange values) -> Values {
        Value magnitude =
            math::AbsFOp::create(builder, loc, load(row, position, last));
        return {arith::MaxNumFOp::create(builder, loc, magnitude, values[0])};
      });
  Value magnitude = vector::ReductionOp::create(
      builder, loc, vector::CombiningKind::MAXNUMF, largest[0]);
  Type f32 = kernel.f32();
  auto constant = [&](float value) -> Value {
    return arith::ConstantOp::create(builder, loc,
                                     builder.getFloatAttr(f32, value));
  };
  Value scale =
      arith::DivFOp::create(builder, loc, magnitude, constant(127.0f));
  scale = arith::MinNumFOp::create(builder, loc, scale,
                                   constant(std::numeric_limits<float>::max()));
  scale = arith::MaxNumFOp::create(
      builder, loc, scale, constant(std::numeric_limits<float>::denorm_min()));
  Value isZero = arith::CmpFOp::create(builder, loc, arith::CmpFPredicate::OEQ,
                                       magnitude, constant(0.0f));
  return arith::SelectOp::create(builder, loc, isZero, constant(1.0f), scale);
}

Value RowQuantizer::quantize(Value numbers, Value divisor) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  Value quotient = arith::DivFOp::create(builder, loc, numbers, divisor);
  Value rounded = math::RoundEvenOp::create(builder, loc, quotient);
  rounded = arith::MaxNumFOp::create(builder, loc, rounded,
                                     kernel.splat(floats, -128.0));
  rounded = arith::MinNumFOp::create(builder, loc, rounded,
                                     kernel.splat(floats, 127.0));
  Value isNumber = arith::CmpFOp::create(
      builder, loc, arith::CmpFPredicate::ORD, quotient, quotient);
  rounded = arith::SelectOp::create(builder, loc, isNumber, rounded,
                                    kernel.zero(floats));
  return arith::FPToSIOp::create(builder, loc, integers, rounded);
}

Value RowQuantizer::buildCodes(Value row, Value first, Value last, Value padded,
                               Value scale, Value codes, Value start,
                               int64_t stride) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  Value divisor = kernel.broadcast(scale, floats);
  Values sums = kernel.loop(
      first, padded, lanes, kernel.splat(integers, int64_t(0)),
      [&](Value position, ValueRange values) -> Values {
        Value loaded = load(row, position, last), code, bytes;
        if (known) {
          bytes = loaded;
          code = arith::ExtSIOp::create(builder, loc, integers, bytes);
        } else {
          code = quantize(loaded, divisor);
          bytes = arith::TruncIOp::create(
              builder, loc, kernel.vector(lanes, kernel.i8()), code);
        }
        Value quads =
            kernel.bitcast(bytes, kernel.vector(lanes / 4, kernel.i32()));
        Value quad =
            kernel.divide(kernel.sub(position, first), kernel.index(4));
        for (int64_t i = 0; i < lanes / 4; ++i)
          kernel.store(
              vector::ExtractOp::create(builder, loc, quads, i), codes,
              kernel.add(start, kernel.mul(kernel.add(quad, i), stride)));
        return {arith::AddIOp::create(builder, loc, values[0], code)};
      });
  return vector::ReductionOp::create(builder, loc, vector::CombiningKind::ADD,
                                     sums[0]);
}

static func::FuncOp getRowsFunction(ModuleOp module, const KernelTarget &target,
                                    bool hasCodes) {
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  SmallVector<Type> arguments{type.matrix(hasCodes ? type.i8() : type.f32(),
                                          /*contiguousRows=*/true),
                              type.buffer(type.i32()),
                              type.buffer(type.f32()),
                              type.buffer(type.i32()),
                              type.indexType(),
                              type.indexType(),
                              type.indexType()};
  if (hasCodes)
    arguments.push_back(type.f32());
  auto build = [&](KernelBuilder &kernel, ValueRange args) {
    Value x = args[0], codes = args[1], scales = args[2], sums = args[3];
    Value group = args[4], block = args[5], start = args[6];
    OpBuilder &builder = kernel.builder;
    Location loc = kernel.loc;
    Value allRows = memref::DimOp::create(builder, loc, x, 0);
    Value K = memref::DimOp::create(builder, loc, x, 1);
    Value padded = buildPaddedRows(kernel, allRows);
    Value rows =
        kernel.min(kernel.sub(allRows, start), kernel.index(kRowsPerPass));
    Value quads = kernel.divide(group, kernel.index(4));
    // A multiple of 16 inputs even where a vector has fewer lanes.
    RowQuantizer quantizer(kernel, std::min<int64_t>(target.lanes(), 16), x,
                           hasCodes ? args[7] : Value());
    Value zero = kernel.index(0);
    forEachRowBlock(kernel, rows, [&](Value offset, int64_t size, Value count) {
      Value first = kernel.add(start, offset);
      kernel.loop(zero, kernel.index(size), 1, [&](Value row) {
        Value exists = kernel.less(row, count);
        Value source = arith::SelectOp::create(builder, loc, exists,
                                               kernel.add(first, row), zero);
        // A row of padding has no inputs, and so zeros.
        Value end = arith::SelectOp::create(builder, loc, exists, K, zero);
        kernel.loop(zero, K, block, [&](Value blockStart) {
          Value blockEnd = kernel.min(kernel.add(blockStart, block), K);
          Value last = kernel.min(blockEnd, end);
          Value scale = quantizer.buildScale(source, blockStart, last);
          kernel.loop(blockStart, blockEnd, group, [&](Value k) {
            Value number = kernel.divide(k, group);
            Value grid = kernel.add(kernel.mul(number, padded), first);
            Value firstQuad = kernel.add(kernel.mul(grid, quads), row);
            Value groupEnd = kernel.add(k, group);
            Value sum =
                quantizer.buildCodes(source, k, kernel.min(groupEnd, last),
                                     groupEnd, scale, codes, firstQuad, size);
            Value place = kernel.add(grid, row);
            kernel.store(scale, scales, place);
            kernel.store(sum, sums, place);
          });
        });
      });
    });
  };
  return getOrCreateFunction(
      module, hasCodes ? "nibble_arrange_rows" : "nibble_quantize_rows",
      arguments, build);
}

func::FuncOp nibble::getQuantizeRowsFunction(ModuleOp module,
                                             const KernelTarget &target) {
  return getRowsFunction(module, target, /*hasCodes=*/false);
}

func::FuncOp nibble::getArrangeRowsFunction(ModuleOp module,
                                            const KernelTarget &target) {
  return getRowsFunction(module, target, /*hasCodes=*/true);
}

//===----------------------------------------------------------------------===//
// The tile
//===----------------------------------------------------------------------===//

namespace {
/// Registers that a step of a tile uses.
struct TileShape {
  int64_t rows;
  int64_t vectors;
};

/// Cache lines of the weight that are fetched beside the products, some with
/// each step: fetched at once they would keep loads from being issued.
struct ReadAhead {
  /// Byte of the weight; nothing is fetched without one.
  Value first;
  int64_t linesPerStep = 0;
};

/// Writes the function of one format.
class TileBuilder {
public:
  TileBuilder(KernelBuilder &kernel, const KernelTarget &target,
              const WeightKernelFormat &format, ValueRange arguments,
              bool hasBias);
  void build();

private:
  //===--- What is in memory --------------------------------------------------
  /// First byte of a group of the tile.
  Value getGroupStart(Value group) {
    return kernel.mul(kernel.add(kernel.mul(tile, groups), group),
                      format.panel.groupBytes());
  }
  /// Place of a row of a group in `scales` and `sums`.
  Value getGrid(Value group, Value row) {
    return kernel.add(kernel.mul(group, paddedRows), row);
  }
  /// The four activations of a row, in every lane.
  Value loadQuad(Value position) {
    Value quad = kernel.load(codes, position);
    return kernel.bitcast(kernel.broadcast(quad, sumType), byteType);
  }
  /// Scales of a vector of columns, for integers in place of codes.
  Value loadScales(Value groupStart, Value column);
  void prefetch(const ReadAhead &ahead, Value step);

  //===--- Steps --------------------------------------------------------------
  Value dot(Value sums, Value weights, Value activations);
  /// Starting sums of rows × vectors: -z · Σ x.
  Values startSums(Value groupStart, Value grid, TileShape shape,
                   Value firstColumn);
  /// Sums over a group from packed codes; `rowStride` rows are side by side.
  Values sumPacked(Value groupStart, Value firstQuad, int64_t rowStride,
                   TileShape shape, Value firstColumn, Values sums,
                   const ReadAhead &ahead, bool twoChains = false);
  /// The same from the panel.
  Values sumPanel(Value firstQuad, int64_t rowStride, TileShape shape,
                  Value firstColumn, ArrayRef<Value> start,
                  const ReadAhead &ahead);
  /// accumulators[first + …] += scales · sums, in the scratch.
  void accumulate(Value groupStart, Value grid, TileShape shape,
                  Value firstColumn, ArrayRef<Value> groupSums, Value firstRow);

  //===--- Regimes ------------------------------------------------------------
  TileShape getShape(int64_t blockRows);
  bool fitsRegisters(int64_t rows);
  void buildFewRows(int64_t rows);
  void buildSomeRows();
  void buildManyRows();
  void unpackGroup(Value groupStart);
  /// One block of rows of one group, from the panel or from packed codes.
  void buildBlock(Value groupStart, Value group, Value row, int64_t blockRows,
                  Value scratchRow, bool unpacked);
  void clear(Value count);
  /// body(first column) for each `step` vectors of the tile.
  void forColumns(int64_t step, llvm::function_ref<void(Value column)> body);
  /// Writes rows [first, first + count) of the result.
  void writeRows(Value first, Value count);
  void writeVector(Value value, Value row, Value column);

  KernelBuilder &kernel;
  const KernelTarget &target;
  const WeightKernelFormat &format;
  PackedReader reader;
  Value weight, codes, scales, sums, bias, y, groups, tile;
  Value rows, paddedRows, firstColumn, columns;
  /// Totals of up to kScratchRows rows, [rows, 64].
  Value scratch;
  /// Codes of one group, [quads, 64, 4].
  Value panel;
  bool hasBias;
  int64_t lanes, vectors;
  VectorType sumType, floatType, byteType;
};
} // namespace

TileBuilder::TileBuilder(KernelBuilder &kernel, const KernelTarget &target,
                         const WeightKernelFormat &format, ValueRange arguments,
                         bool hasBias)
    : kernel(kernel), target(target), format(format),
      reader(kernel, target, format, arguments[0]), weight(arguments[0]),
      codes(arguments[1]), scales(arguments[2]), sums(arguments[3]),
      bias(arguments[4]), y(arguments[5]), groups(arguments[6]),
      tile(arguments[7]), hasBias(hasBias), lanes(target.lanes()),
      vectors(target.vectorsPerTile()),
      sumType(kernel.vector(lanes, kernel.i32())),
      floatType(kernel.vector(lanes, kernel.f32())),
      byteType(kernel.vector(4 * lanes, kernel.i8())) {
  rows = memref::DimOp::create(kernel.builder, kernel.loc, y, 0);
  paddedRows = buildPaddedRows(kernel, rows);
  firstColumn = kernel.mul(tile, kColumns);
  columns = kernel.sub(memref::DimOp::create(kernel.builder, kernel.loc, y, 1),
                       firstColumn);
  scratch = kernel.scratch(kScratchRows * kColumns, kernel.f32());
  panel = kernel.scratch(format.panel.group * kColumns, kernel.i8());
}

Value TileBuilder::loadScales(Value groupStart, Value column) {
  Value scales = reader.loadScales(groupStart, column);
  if (!format.codeBook)
    return scales;
  double step = getIntegerCodeBook(format.codeBook).step;
  return arith::MulFOp::create(kernel.builder, kernel.loc, scales,
                               kernel.splat(floatType, step));
}

void TileBuilder::prefetch(const ReadAhead &ahead, Value step) {
  if (!ahead.first)
    return;
  Value line = kernel.mul(step, ahead.linesPerStep * kCacheLine);
  for (int64_t i = 0; i < ahead.linesPerStep; ++i)
    kernel.prefetch(weight,
                    kernel.add(kernel.add(ahead.first, line), i * kCacheLine),
                    /*locality=*/2);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

Value TileBuilder::dot(Value start, Value weights, Value activations) {
  int64_t largest = format.codeBook ? 255 : (1 << format.panel.bits) - 1;
  return Dot4Op::create(kernel.builder, kernel.loc, start, weights, activations,
                        largest);
}

Values TileBuilder::startSums(Value groupStart, Value grid, TileShape shape,
                              Value firstColumn) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  Values result, zeros;
  if (format.panel.hasZeros)
    for (int64_t v = 0; v < shape.vectors; ++v)
      zeros.push_back(
          reader.loadZeros(groupStart, kernel.add(firstColumn, v * lanes)));
  Value none = kernel.splat(sumType, int64_t(0));
  // Integers in place of codes have one of their own (unpackIntegers).
  int64_t commonZero = format.codeBook ? 128 : format.zero;
  for (int64_t row = 0; row < shape.rows; ++row) {
    if (!format.panel.hasZeros && commonZero == 0) {
      result.append(shape.vectors, none);
      continue;
    }
    Value sum = kernel.load(sums, kernel.add(grid, row));
    if (!format.panel.hasZeros) {
      Value factor =
          arith::ConstantIntOp::create(builder, loc, kernel.i32(), -commonZero);
      Value start = kernel.broadcast(
          arith::MulIOp::create(builder, loc, sum, factor), sumType);
      result.append(shape.vectors, start);
      continue;
    }
    Value zero = arith::ConstantIntOp::create(builder, loc, kernel.i32(), 0);
    Value negated = kernel.broadcast(
        arith::SubIOp::create(builder, loc, zero, sum), sumType);
    for (Value z : zeros)
      result.push_back(arith::MulIOp::create(builder, loc, negated, z));
  }
  return result;
}

Values TileBuilder::sumPacked(Value groupStart, Value firstQuad,
                              int64_t rowStride, TileShape shape,
                              Value firstColumn, Values start,
                              const ReadAhead &ahead, bool twoChains) {
  int64_t quads = format.panel.quadsPerStep();
  int64_t count = shape.rows * shape.vectors;
  // A second set of sums hides the latency of the instruction where there are
  // few.
  if (twoChains && quads > 1)
    start.append(count, kernel.splat(sumType, int64_t(0)));
  else
    twoChains = false;
  Values result = kernel.loop(
      kernel.index(0), kernel.index(format.panel.stepsPerGroup()), 1, start,
      [&](Value step, ValueRange carried) {
        Values current(carried);
        prefetch(ahead, step);
        Value position =
            kernel.add(groupStart, kernel.mul(step, format.panel.stepBytes()));
        Value quadOfStep =
            kernel.add(firstQuad, kernel.mul(step, quads * rowStride));
        SmallVector<Values> unpacked;
        for (int64_t v = 0; v < shape.vectors; ++v)
          unpacked.push_back(reader.unpackIntegers(
              position, kernel.add(firstColumn, v * lanes)));
        for (int64_t quad = 0; quad < quads; ++quad)
          for (int64_t row = 0; row < shape.rows; ++row) {
            Value x = loadQuad(kernel.add(quadOfStep, quad * rowStride + row));
            for (int64_t v = 0; v < shape.vectors; ++v) {
              int64_t i = row * shape.vectors + v;
              if (twoChains && quad % 2)
                i += count;
              current[i] = dot(current[i], unpacked[v][quad], x);
            }
          }
        return current;
      });
  if (twoChains)
    for (int64_t i = 0; i < count; ++i)
      result[i] = arith::AddIOp::create(kernel.builder, kernel.loc, result[i],
                                        result[count + i]);
  result.resize(count);
  return result;
}

Values TileBuilder::sumPanel(Value firstQuad, int64_t rowStride,
                             TileShape shape, Value firstColumn,
                             ArrayRef<Value> start, const ReadAhead &ahead) {
  return kernel.loop(
      kernel.index(0), kernel.index(format.panel.group / 4), 1, start,
      [&](Value quad, ValueRange carried) {
        Values current(carried);
        prefetch(ahead, quad);
        Value position = kernel.add(kernel.mul(quad, kQuadBytes),
                                    kernel.mul(firstColumn, 4));
        Values weights;
        for (int64_t v = 0; v < shape.vectors; ++v)
          weights.push_back(kernel.loadVector(
              panel, kernel.add(position, v * 4 * lanes), byteType));
        Value first = kernel.add(firstQuad, kernel.mul(quad, rowStride));
        for (int64_t row = 0; row < shape.rows; ++row) {
          Value x = loadQuad(kernel.add(first, row));
          for (int64_t v = 0; v < shape.vectors; ++v) {
            Value &sum = current[row * shape.vectors + v];
            sum = dot(sum, weights[v], x);
          }
        }
        return current;
      });
}

void TileBuilder::accumulate(Value groupStart, Value grid, TileShape shape,
                             Value firstColumn, ArrayRef<Value> groupSums,
                             Value firstRow) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  Values columnScales;
  for (int64_t v = 0; v < shape.vectors; ++v)
    columnScales.push_back(
        loadScales(groupStart, kernel.add(firstColumn, v * lanes)));
  Value base = kernel.add(kernel.mul(firstRow, kColumns), firstColumn);
  for (int64_t row = 0; row < shape.rows; ++row) {
    Value rowScale =
        kernel.broadcast(kernel.load(scales, kernel.add(grid, row)), floatType);
    for (int64_t v = 0; v < shape.vectors; ++v) {
      Value position = kernel.add(base, row * kColumns + v * lanes);
      Value factor =
          arith::MulFOp::create(builder, loc, columnScales[v], rowScale);
      Value sum = arith::SIToFPOp::create(builder, loc, floatType,
                                          groupSums[row * shape.vectors + v]);
      Value old = kernel.loadVector(scratch, position, floatType);
      kernel.storeVector(kernel.fma(sum, factor, old), scratch, position);
    }
  }
}

//===----------------------------------------------------------------------===//
// Regimes
//===----------------------------------------------------------------------===//

/// Sums, one weight for each vector and a broadcast have to fit the registers.
TileShape TileBuilder::getShape(int64_t blockRows) {
  bool many = target.registers >= 32;
  // Two vectors share a broadcast: more rows would load more than can be
  // multiplied.
  if (many && blockRows >= 8)
    return {8, 2};
  int64_t rowsOfTile = std::min<int64_t>(blockRows, 4);
  int64_t most = (many ? 16 : 8) / rowsOfTile;
  return {rowsOfTile, std::min({most, vectors, int64_t(4)})};
}

bool TileBuilder::fitsRegisters(int64_t blockRows) {
  return target.registers >= 32 && vectors == 4 && blockRows <= 4;
}

void TileBuilder::buildFewRows(int64_t blockRows) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  TileShape shape{blockRows, vectors};
  Value distance = reader.getReadAhead();
  Values start(blockRows * vectors, kernel.splat(floatType, 0.0));
  Values result = kernel.loop(
      kernel.index(0), groups, 1, start, [&](Value group, ValueRange carried) {
        Value groupStart = getGroupStart(group);
        Value grid = getGrid(group, kernel.index(0));
        Value firstQuad = kernel.mul(grid, format.panel.group / 4);
        Value zero = kernel.index(0);
        ReadAhead ahead{kernel.add(groupStart, distance),
                        static_cast<int64_t>(format.panel.stepBytes()) /
                            kCacheLine};
        Values groupSums =
            sumPacked(groupStart, firstQuad, blockRows, shape, zero,
                      startSums(groupStart, grid, shape, zero), ahead,
                      /*twoChains=*/blockRows == 1);
        Values current(carried);
        for (int64_t v = 0; v < vectors; ++v) {
          Value columnScale = loadScales(groupStart, kernel.index(v * lanes));
          for (int64_t row = 0; row < blockRows; ++row) {
            Value rowScale = kernel.broadcast(
                kernel.load(scales, kernel.add(grid, row)), floatType);
            Value factor =
                arith::MulFOp::create(builder, loc, columnScale, rowScale);
            Value &total = current[row * vectors + v];
            Value sum = arith::SIToFPOp::create(builder, loc, floatType,
                                                groupSums[row * vectors + v]);
            total = kernel.fma(sum, factor, total);
          }
        }
        return current;
      });
  for (int64_t row = 0; row < blockRows; ++row)
    kernel.ifThen(kernel.less(kernel.index(row), rows), [&] {
      for (int64_t v = 0; v < vectors; ++v)
        writeVector(result[row * vectors + v], kernel.index(row),
                    kernel.index(v * lanes));
    });
}

void TileBuilder::writeVector(Value value, Value row, Value column) {
  Value position = kernel.add(firstColumn, column);
  Value left = kernel.sub(columns, column);
  auto addBias = [&](Value numbers, Value biasNumbers) -> Value {
    return arith::AddFOp::create(kernel.builder, kernel.loc, numbers,
                                 biasNumbers);
  };
  kernel.ifThen(
      kernel.lessEqual(kernel.index(lanes), left),
      [&] {
        Value result = value;
        if (hasBias)
          result = addBias(value, kernel.loadVector(bias, position, floatType));
        kernel.storeVector(result, y, {row, position});
      },
      [&] {
        Value mask = kernel.mask(left, lanes);
        Value result = value;
        if (hasBias)
          result =
              addBias(value, vector::MaskedLoadOp::create(
                                 kernel.builder, kernel.loc, floatType, bias,
                                 position, mask, kernel.splat(floatType, 0.0)));
        vector::MaskedStoreOp::create(kernel.builder, kernel.loc, y,
                                      ValueRange{row, position}, mask, result);
      });
}

void TileBuilder::clear(Value count) {
  Value none = kernel.splat(floatType, 0.0);
  kernel.loop(kernel.index(0), kernel.mul(count, kColumns), lanes,
              [&](Value i) { kernel.storeVector(none, scratch, i); });
}

void TileBuilder::writeRows(Value first, Value count) {
  kernel.loop(kernel.index(0), count, 1, [&](Value row) {
    Value base = kernel.mul(row, kColumns);
    forColumns(1, [&](Value column) {
      writeVector(
          kernel.loadVector(scratch, kernel.add(base, column), floatType),
          kernel.add(first, row), column);
    });
  });
}

void TileBuilder::forColumns(int64_t step,
                             llvm::function_ref<void(Value column)> body) {
  if (step == vectors)
    return body(kernel.index(0));
  kernel.loop(kernel.index(0), kernel.index(kColumns), step * lanes, body);
}

void TileBuilder::buildBlock(Value groupStart, Value group, Value row,
                             int64_t blockRows, Value scratchRow,
                             bool unpacked) {
  TileShape shape = getShape(blockRows);
  Value grid = getGrid(group, row);
  Value firstQuad = kernel.mul(grid, format.panel.group / 4);
  // Each part of the block fetches a part of a group.
  int64_t lines = llvm::divideCeil(format.panel.groupBytes(), kCacheLine);
  int64_t partsOfColumns = blockRows / shape.rows;
  int64_t linesPerPart =
      llvm::divideCeil(lines * shape.vectors, vectors * partsOfColumns);
  int64_t steps =
      unpacked ? format.panel.group / 4 : format.panel.stepsPerGroup();
  Value next = kernel.add(groupStart, kGroupsAhead * format.panel.groupBytes());
  auto buildShape = [&](Value column, Value r) {
    Value part = kernel.add(
        kernel.mul(kernel.divide(column, kernel.index(shape.vectors * lanes)),
                   partsOfColumns),
        kernel.divide(r, kernel.index(shape.rows)));
    ReadAhead ahead{
        kernel.add(next, kernel.mul(part, linesPerPart * kCacheLine)),
        static_cast<int64_t>(llvm::divideCeil(linesPerPart, steps))};
    Value place = kernel.add(grid, r);
    Values start = startSums(groupStart, place, shape, column);
    Value quad = kernel.add(firstQuad, r);
    Values groupSums =
        unpacked ? sumPanel(quad, blockRows, shape, column, start, ahead)
                 : sumPacked(groupStart, quad, blockRows, shape, column, start,
                             ahead);
    accumulate(groupStart, place, shape, column, groupSums,
               kernel.add(scratchRow, r));
  };
  forColumns(shape.vectors, [&](Value column) {
    if (shape.rows == blockRows)
      return buildShape(column, kernel.index(0));
    kernel.loop(kernel.index(0), kernel.index(blockRows), shape.rows,
                [&](Value r) { buildShape(column, r); });
  });
}

void TileBuilder::buildSomeRows() {
  clear(paddedRows);
  kernel.loop(kernel.index(0), groups, 1, [&](Value group) {
    Value groupStart = getGroupStart(group);
    forEachRowBlock(kernel, rows, [&](Value row, int64_t size, Value) {
      buildBlock(groupStart, group, row, size, row, /*unpacked=*/false);
    });
  });
  writeRows(kernel.index(0), rows);
}

void TileBuilder::unpackGroup(Value groupStart) {
  int64_t quads = format.panel.quadsPerStep();
  kernel.loop(kernel.index(0), kernel.index(format.panel.stepsPerGroup()), 1,
              [&](Value step) {
                Value position = kernel.add(
                    groupStart, kernel.mul(step, format.panel.stepBytes()));
                Value target = kernel.mul(step, quads * kQuadBytes);
                forColumns(1, [&](Value column) {
                  Value first = kernel.add(target, kernel.mul(column, 4));
                  for (auto [quad, bytes] :
                       llvm::enumerate(reader.unpackIntegers(position, column)))
                    kernel.storeVector(bytes, panel,
                                       kernel.add(first, quad * kQuadBytes));
                });
              });
}

void TileBuilder::buildManyRows() {
  kernel.loop(kernel.index(0), rows, kRowsPerPass, [&](Value first) {
    Value count =
        kernel.min(kernel.sub(rows, first), kernel.index(kRowsPerPass));
    clear(kernel.index(kScratchRows));
    kernel.loop(kernel.index(0), groups, 1, [&](Value group) {
      Value groupStart = getGroupStart(group);
      unpackGroup(groupStart);
      forEachRowBlock(kernel, count, [&](Value row, int64_t size, Value) {
        buildBlock(groupStart, group, kernel.add(first, row), size, row,
                   /*unpacked=*/true);
      });
    });
    writeRows(first, count);
  });
}

void TileBuilder::build() {
  auto atMost = [&](int64_t count) {
    return kernel.lessEqual(rows, kernel.index(count));
  };
  auto manyOrSome = [&] {
    kernel.ifThen(
        kernel.less(rows, kernel.index(kPanelRows)), [&] { buildSomeRows(); },
        [&] { buildManyRows(); });
  };
  if (!fitsRegisters(4)) {
    manyOrSome();
    return;
  }
  kernel.ifThen(
      atMost(1), [&] { buildFewRows(1); },
      [&] {
        kernel.ifThen(
            atMost(2), [&] { buildFewRows(2); },
            [&] {
              kernel.ifThen(atMost(4), [&] { buildFewRows(4); }, manyOrSome);
            });
      });
}

func::FuncOp nibble::getIntegerTileFunction(ModuleOp module,
                                            const KernelTarget &target,
                                            const WeightKernelFormat &format,
                                            bool hasBias) {
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type floats = type.buffer(type.f32()), integers = type.buffer(type.i32());
  SmallVector<Type> arguments{type.buffer(type.i8()),
                              integers,
                              floats,
                              integers,
                              floats,
                              type.matrix(type.f32(), /*contiguousRows=*/true),
                              type.indexType(),
                              type.indexType()};
  std::string name = "nibble_i8_" + format.getName() + (hasBias ? "_bias" : "");
  return getOrCreateFunction(
      module, name, arguments, [&](KernelBuilder &kernel, ValueRange args) {
        TileBuilder(kernel, target, format, args, hasBias).build();
      });
}
