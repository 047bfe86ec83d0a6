//===- FloatKernels.cpp - Products in f32 ---------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// y[m, n] = Σ_k x[m, k] · w[k, n], in f32 with fused multiply and add
//
// Whatever the weight is, a kernel sees it as panels: rows of 64 numbers for
// consecutive k. A packed f32 weight is panels already; everything else fills
// one for some k at a time and for all rows of a pass:
//
//   quantized weight    unpacked and scaled
//   another matrix      copied, transposed where its columns are contiguous
//
// Few rows multiply the numbers of a quantized weight where they are made.
//
//===----------------------------------------------------------------------===//

#include "PackedReader.h"
#include "PanelTile.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;
/// Up to this many rows quantized weights are not worth a panel.
static constexpr int64_t kDirectRows = 16;
/// Rows that share numbers in registers.
static constexpr int64_t kDirectBlock = 8;
/// Registers that this takes.
static constexpr int64_t kDirectRegisters = 32;

//===----------------------------------------------------------------------===//
// Packed weights
//===----------------------------------------------------------------------===//

static TileStart getStart(bool hasBias, Value bias) {
  return hasBias ? TileStart{TileStart::Columns, bias, {}}
                 : TileStart{TileStart::Zero, {}, {}};
}

func::FuncOp nibble::getFloatTileFunction(ModuleOp module,
                                          const KernelTarget &target,
                                          Type element, bool hasBias) {
  func::FuncOp product =
      getPanelProductFunction(module, target, Factors::Floats, element);
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type floats = type.buffer(type.f32());
  Type matrix = type.matrix(type.f32(), /*contiguousRows=*/true);
  SmallVector<Type> arguments{matrix, type.buffer(element), floats, matrix,
                              type.indexType()};
  std::string name = "nibble_f32";
  if (!element.isF32())
    name += element.isF16() ? "_f16" : "_bf16";
  return getOrCreateFunction(
      module, hasBias ? name + "_bias" : name, arguments,
      [&](KernelBuilder &kernel, ValueRange args) {
        Value x = args[0], weight = args[1], tile = args[4];
        PanelTileBuilder builder(kernel, target, x, args[3], tile);
        Value K = memref::DimOp::create(kernel.builder, kernel.loc, x, 1);
        Value firstRow = kernel.mul(tile, K);
        builder.build(product, kDepth, getStart(hasBias, args[2]),
                      [&](Value firstK, Value) -> Panel {
                        return {weight, kernel.mul(kernel.add(firstRow, firstK),
                                                   kColumns)};
                      });
      });
}

//===----------------------------------------------------------------------===//
// Quantized weights
//===----------------------------------------------------------------------===//

namespace {
/// Fills a panel with the numbers of one group.
class Dequantizer {
public:
  Dequantizer(KernelBuilder &kernel, const KernelTarget &target,
              const WeightKernelFormat &format, Value weight, Value panel)
      : kernel(kernel), reader(kernel, target, format, weight), target(target),
        format(format), panel(panel) {}

  void fill(Value groupStart);

private:
  KernelBuilder &kernel;
  PackedReader reader;
  const KernelTarget &target;
  const WeightKernelFormat &format;
  Value panel;
};
} // namespace

void Dequantizer::fill(Value groupStart) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  int64_t lanes = target.lanes(), quads = format.panel.quadsPerStep();
  kernel.loop(
      kernel.index(0), kernel.index(kColumns), lanes, [&](Value column) {
        Value scale = reader.loadScales(groupStart, column);
        Value zeros = reader.loadZerosOrCommon(groupStart, column);
        kernel.loop(
            kernel.index(0), kernel.index(format.panel.stepsPerGroup()), 1,
            [&](Value step) {
              Values unpacked = reader.unpackStep(
                  kernel.add(groupStart,
                             kernel.mul(step, format.panel.stepBytes())),
                  column);
              for (int64_t quad = 0; quad < quads; ++quad)
                for (int64_t j = 0; j < 4; ++j) {
                  Value number = reader.convert(unpacked[quad], j, zeros);
                  number = arith::MulFOp::create(builder, loc, number, scale);
                  Value k =
                      kernel.add(kernel.mul(step, 4 * quads), 4 * quad + j);
                  kernel.storeVector(
                      number, panel,
                      kernel.add(kernel.mul(k, kColumns), column));
                }
            });
      });
}

namespace {
/// scratch[row, 64] += x[first + row, k…] · weight[k…, 64] for all k of one
/// group and few rows: numbers go from codes to products in registers.
class DirectProduct {
public:
  /// The arguments are those of a product with a panel (PanelTile.h), which is
  /// the packed weight here and starts with the group.
  DirectProduct(KernelBuilder &kernel, const KernelTarget &target,
                const WeightKernelFormat &format, ValueRange arguments)
      : kernel(kernel), target(target), format(format),
        reader(kernel, target, format, arguments[1]), x(arguments[0]),
        groupStart(arguments[2]), scratch(arguments[3]), first(arguments[4]),
        count(arguments[5]), firstK(arguments[6]),
        floats(kernel.vector(target.lanes(), kernel.f32())) {}

  void build();

private:
  /// Sums of `rows` rows from `row` on.
  void buildRows(Value row, int64_t rows);
  void buildColumns(Value row, int64_t rows, int64_t vectors,
                    Value firstColumn);
  /// Adds what one step of the packed codes gives.
  Values addStep(Value step, int64_t vectors, Value firstColumn,
                 ArrayRef<Value> zeros, ValueRange sums);
  int64_t inputsPerStep() const { return 4 * format.panel.quadsPerStep(); }

  KernelBuilder &kernel;
  const KernelTarget &target;
  const WeightKernelFormat &format;
  PackedReader reader;
  Value x, groupStart, scratch, first, count, firstK;
  VectorType floats;
  /// Those of x whose sums are built; the last one stands for missing ones.
  Values rowsOfX;
  /// Bytes between what is multiplied and what is fetched.
  Value distance;
};
} // namespace

Values DirectProduct::addStep(Value step, int64_t vectors, Value firstColumn,
                              ArrayRef<Value> zeros, ValueRange sums) {
  Values current(sums);
  Value position =
      kernel.add(groupStart, kernel.mul(step, format.panel.stepBytes()));
  SmallVector<Values> quads;
  for (int64_t v = 0; v < vectors; ++v) {
    Value column = kernel.add(firstColumn, v * target.lanes());
    reader.prefetchStep(position, column, distance);
    quads.push_back(reader.unpackStep(position, column));
  }
  Value firstOfStep = kernel.add(firstK, kernel.mul(step, inputsPerStep()));
  for (int64_t i = 0; i < inputsPerStep(); ++i) {
    Value k = kernel.add(firstOfStep, i);
    Values numbers;
    for (int64_t v = 0; v < vectors; ++v)
      numbers.push_back(reader.convert(quads[v][i / 4], i % 4, zeros[v]));
    for (auto [r, row] : llvm::enumerate(rowsOfX)) {
      Value input = kernel.broadcast(kernel.load(x, {row, k}), floats);
      for (int64_t v = 0; v < vectors; ++v) {
        Value &sum = current[r * vectors + v];
        sum = kernel.fma(input, numbers[v], sum);
      }
    }
  }
  return current;
}

void DirectProduct::buildColumns(Value row, int64_t rows, int64_t vectors,
                                 Value firstColumn) {
  int64_t lanes = target.lanes();
  Values scales, zeros;
  for (int64_t v = 0; v < vectors; ++v) {
    Value column = kernel.add(firstColumn, v * lanes);
    scales.push_back(reader.loadScales(groupStart, column));
    zeros.push_back(reader.loadZerosOrCommon(groupStart, column));
  }
  Values sums =
      kernel.loop(kernel.index(0), kernel.index(format.panel.stepsPerGroup()),
                  1, Values(rows * vectors, kernel.splat(floats, 0.0)),
                  [&](Value step, ValueRange carried) {
                    return addStep(step, vectors, firstColumn, zeros, carried);
                  });
  Value base = kernel.add(kernel.mul(row, kColumns), firstColumn);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < vectors; ++v) {
      Value place = kernel.add(base, r * kColumns + v * lanes);
      Value total = kernel.loadVector(scratch, place, floats);
      total = kernel.fma(sums[r * vectors + v], scales[v], total);
      kernel.storeVector(total, scratch, place);
    }
}

void DirectProduct::buildRows(Value row, int64_t rows) {
  Value last = kernel.sub(kernel.add(first, count), kernel.index(1));
  rowsOfX.clear();
  for (int64_t r = 0; r < rows; ++r)
    rowsOfX.push_back(kernel.min(kernel.add(first, kernel.add(row, r)), last));
  // A vector of columns takes registers for its sums, the codes of a step,
  // scales, zero points and a number; an input and constants are shared.
  int64_t vectors = rows == 1 ? 4 : 2, shared = 4;
  int64_t registers = rows + format.panel.quadsPerStep() + 3;
  while (vectors > 1 && vectors * registers + shared > kDirectRegisters)
    vectors /= 2;
  kernel.loop(kernel.index(0), kernel.index(kColumns), vectors * target.lanes(),
              [&](Value column) { buildColumns(row, rows, vectors, column); });
}

void DirectProduct::build() {
  distance = reader.getReadAhead();
  Value zero = kernel.index(0);
  kernel.ifThen(
      kernel.lessEqual(count, kernel.index(1)), [&] { buildRows(zero, 1); },
      [&] {
        kernel.ifThen(
            kernel.lessEqual(count, kernel.index(4)),
            [&] { buildRows(zero, 4); },
            [&] {
              kernel.loop(zero, count, kDirectBlock,
                          [&](Value row) { buildRows(row, kDirectBlock); });
            });
      });
}

/// (x, weight: i8 buffer, first byte of the group: index, scratch, first row,
///  rows: up to kDirectRows, first k, ks, columns: index); all 64 are computed
static func::FuncOp getDirectProductFunction(ModuleOp module,
                                             const KernelTarget &target,
                                             const WeightKernelFormat &format) {
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type index = type.indexType();
  SmallVector<Type> arguments{type.matrix(type.f32(), /*contiguousRows=*/true),
                              type.buffer(type.i8()),
                              index,
                              type.buffer(type.f32()),
                              index,
                              index,
                              index,
                              index,
                              index};
  return getOrCreateFunction(
      module, "nibble_f32_direct_" + format.getName(), arguments,
      [&](KernelBuilder &kernel, ValueRange args) {
        DirectProduct(kernel, target, format, args).build();
      });
}

func::FuncOp
nibble::getDequantizedTileFunction(ModuleOp module, const KernelTarget &target,
                                   const WeightKernelFormat &format,
                                   bool hasBias) {
  func::FuncOp product = getPanelProductFunction(module, target);
  func::FuncOp direct;
  if (int64_t(target.registers) >= kDirectRegisters)
    direct = getDirectProductFunction(module, target, format);
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type matrix = type.matrix(type.f32(), /*contiguousRows=*/true);
  SmallVector<Type> arguments{matrix, type.buffer(type.i8()),
                              type.buffer(type.f32()), matrix,
                              type.indexType()};
  std::string name =
      "nibble_f32_" + format.getName() + (hasBias ? "_bias" : "");
  return getOrCreateFunction(
      module, name, arguments, [&](KernelBuilder &kernel, ValueRange args) {
        Value x = args[0], weight = args[1], tile = args[4];
        PanelTileBuilder builder(kernel, target, x, args[3], tile);
        int64_t group = format.panel.group;
        Value panel = kernel.scratch(group * kColumns, kernel.f32());
        Dequantizer dequantizer(kernel, target, format, weight, panel);
        Value K = memref::DimOp::create(kernel.builder, kernel.loc, x, 1);
        Value firstGroup = kernel.mul(tile, kernel.divideUp(K, group));
        TileStart start = getStart(hasBias, args[2]);
        auto getGroup = [&](Value firstK) {
          Value number = kernel.add(firstGroup,
                                    kernel.divide(firstK, kernel.index(group)));
          return kernel.mul(number, format.panel.groupBytes());
        };
        auto buildPanels = [&] {
          builder.build(product, group, start,
                        [&](Value firstK, Value) -> Panel {
                          dequantizer.fill(getGroup(firstK));
                          return {panel, kernel.index(0)};
                        });
        };
        if (!direct)
          return buildPanels();
        Value rows = memref::DimOp::create(kernel.builder, kernel.loc, x, 0);
        kernel.ifThen(
            kernel.lessEqual(rows, kernel.index(kDirectRows)),
            [&] {
              builder.beginPass(kernel.index(0), start);
              Value whole =
                  kernel.mul(kernel.divide(K, kernel.index(group)), group);
              kernel.loop(kernel.index(0), whole, group, [&](Value firstK) {
                builder.multiply(direct, {weight, getGroup(firstK)}, firstK,
                                 kernel.index(group));
              });
              kernel.ifThen(kernel.less(whole, K), [&] {
                dequantizer.fill(getGroup(whole));
                builder.multiply(product, {panel, kernel.index(0)}, whole,
                                 kernel.sub(K, whole));
              });
              builder.finishPass();
            },
            buildPanels);
      });
}

//===----------------------------------------------------------------------===//
// Products of two matrices that are computed
//===----------------------------------------------------------------------===//

/// panel[k, n] = w[firstK + k, firstColumn + n], 0 past the last column.
static void copyRows(KernelBuilder &kernel, const KernelTarget &target, Value w,
                     Value panel, Value firstK, Value countK, Value firstColumn,
                     Value columns) {
  int64_t lanes = target.lanes();
  VectorType floats = kernel.vector(lanes, kernel.f32());
  kernel.loop(kernel.index(0), countK, 1, [&](Value k) {
    Value row = kernel.add(firstK, k), base = kernel.mul(k, kColumns);
    for (int64_t v = 0; v < target.vectorsPerTile(); ++v) {
      Value left = kernel.sub(columns, kernel.index(v * lanes));
      Value numbers = vector::MaskedLoadOp::create(
          kernel.builder, kernel.loc, floats, w,
          ValueRange{row, kernel.add(firstColumn, v * lanes)},
          kernel.mask(left, lanes), kernel.splat(floats, 0.0));
      kernel.storeVector(numbers, panel, kernel.add(base, v * lanes));
    }
  });
}

/// The same where the columns of w are contiguous.
static void copyColumns(KernelBuilder &kernel, const KernelTarget &target,
                        Value w, Value panel, Value firstK, Value countK,
                        Value firstColumn, Value columns) {
  Value zero = kernel.index(0);
  Value exist = kernel.min(columns, kernel.index(kColumns));
  kernel.loop(zero, exist, 1, [&](Value n) {
    Value column = kernel.add(firstColumn, n);
    kernel.loop(zero, countK, 1, [&](Value k) {
      kernel.store(kernel.load(w, {kernel.add(firstK, k), column}), panel,
                   kernel.add(kernel.mul(k, kColumns), n));
    });
  });
  // What is past the last column is multiplied too.
  Value none = arith::ConstantOp::create(kernel.builder, kernel.loc,
                                         kernel.builder.getF32FloatAttr(0));
  kernel.loop(exist, kernel.index(kColumns), 1, [&](Value n) {
    kernel.loop(zero, countK, 1, [&](Value k) {
      kernel.store(none, panel, kernel.add(kernel.mul(k, kColumns), n));
    });
  });
}

func::FuncOp nibble::getMatrixTileFunction(ModuleOp module,
                                           const KernelTarget &target,
                                           bool contiguousRows,
                                           bool accumulates) {
  func::FuncOp product = getPanelProductFunction(module, target);
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type matrix = type.matrix(type.f32(), /*contiguousRows=*/true);
  SmallVector<Type> arguments{matrix, type.matrix(type.f32(), contiguousRows),
                              matrix, type.indexType()};
  std::string name =
      contiguousRows ? "nibble_f32_matrix" : "nibble_f32_transposed";
  TileStart start{accumulates ? TileStart::Result : TileStart::Zero, {}, {}};
  return getOrCreateFunction(
      module, accumulates ? name + "_sum" : name, arguments,
      [&](KernelBuilder &kernel, ValueRange args) {
        PanelTileBuilder builder(kernel, target, args[0], args[2], args[3]);
        Value panel = kernel.scratch(kDepth * kColumns, kernel.f32());
        Value K = memref::DimOp::create(kernel.builder, kernel.loc, args[0], 1);
        Value isPart = kernel.less(kernel.index(kDepth), K);
        builder.build(product, kDepth, start,
                      [&](Value firstK, Value countK) -> Panel {
                        // One panel for all of K serves all passes.
                        Value isFirst = kernel.equal(builder.getPass(), 0);
                        Value isNew = arith::OrIOp::create(
                            kernel.builder, kernel.loc, isPart, isFirst);
                        kernel.ifThen(isNew, [&] {
                          (contiguousRows ? copyRows : copyColumns)(
                              kernel, target, args[1], panel, firstK, countK,
                              builder.getFirstColumn(), builder.getColumns());
                        });
                        return {panel, kernel.index(0)};
                      });
      });
}
