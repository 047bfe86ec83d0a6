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
//===----------------------------------------------------------------------===//

#include "PackedReader.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;
/// Inputs that a pass over the rows takes: a panel stays in the second cache.
static constexpr int64_t kDepth = 256;
/// Rows whose totals are in the scratch, a multiple of a tile's rows.
static constexpr int64_t kPassRows = 96;

//===----------------------------------------------------------------------===//
// Rows times a panel
//===----------------------------------------------------------------------===//

namespace {
struct FloatTile {
  int64_t rows;
  int64_t vectors;
};

/// scratch[row, 64] += x[first + row, k…] · panel[k…, 64]
class PanelProduct {
public:
  PanelProduct(KernelBuilder &kernel, const KernelTarget &target,
               ValueRange arguments)
      : kernel(kernel), target(target), x(arguments[0]), panel(arguments[1]),
        panelStart(arguments[2]), scratch(arguments[3]), first(arguments[4]),
        count(arguments[5]), firstK(arguments[6]), countK(arguments[7]),
        floats(kernel.vector(target.lanes(), kernel.f32())) {}

  void build();

private:
  void buildTile(Value row, FloatTile tile, int64_t firstVector);
  void buildRows(Value row, int64_t rows);

  KernelBuilder &kernel;
  const KernelTarget &target;
  Value x, panel, panelStart, scratch, first, count, firstK, countK;
  VectorType floats;
};
} // namespace

void PanelProduct::buildTile(Value row, FloatTile tile, int64_t firstVector) {
  int64_t lanes = target.lanes(), firstColumn = firstVector * lanes;
  Value base = kernel.add(kernel.mul(row, kColumns), firstColumn);
  Values places, totals;
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t v = 0; v < tile.vectors; ++v) {
      places.push_back(kernel.add(base, r * kColumns + v * lanes));
      totals.push_back(kernel.loadVector(scratch, places.back(), floats));
    }
  Value sourceRow = kernel.add(first, row);
  totals = kernel.loop(
      kernel.index(0), countK, 1, totals, [&](Value k, ValueRange carried) {
        Values current(carried), weights;
        Value position = kernel.add(
            panelStart, kernel.add(kernel.mul(k, kColumns), firstColumn));
        for (int64_t v = 0; v < tile.vectors; ++v)
          weights.push_back(kernel.loadVector(
              panel, kernel.add(position, v * lanes), floats));
        Value column = kernel.add(firstK, k);
        for (int64_t r = 0; r < tile.rows; ++r) {
          Value number = kernel.broadcast(
              kernel.load(x, {kernel.add(sourceRow, r), column}), floats);
          for (int64_t v = 0; v < tile.vectors; ++v) {
            Value &total = current[r * tile.vectors + v];
            total = kernel.fma(number, weights[v], total);
          }
        }
        return current;
      });
  for (auto [place, total] : llvm::zip(places, totals))
    kernel.storeVector(total, scratch, place);
}

void PanelProduct::buildRows(Value row, int64_t rows) {
  // Totals, one row of weights and a broadcast have to fit the registers.
  int64_t wide = target.registers >= 32 ? 4 : 2;
  int64_t vectors =
      std::min(wide * (rows <= 2 ? 2 : 1), target.vectorsPerTile());
  for (int64_t v = 0; v < target.vectorsPerTile(); v += vectors)
    buildTile(row, {rows, vectors}, v);
}

void PanelProduct::build() {
  constexpr int64_t tileRows = 6;
  Value full =
      kernel.mul(kernel.divide(count, kernel.index(tileRows)), tileRows);
  kernel.loop(kernel.index(0), full, tileRows,
              [&](Value row) { buildRows(row, tileRows); });
  Value row = full;
  for (int64_t rows : {4, 2, 1}) {
    Value fits = kernel.lessEqual(kernel.add(row, rows), count);
    kernel.ifThen(fits, [&] { buildRows(row, rows); });
    row = arith::SelectOp::create(kernel.builder, kernel.loc, fits,
                                  kernel.add(row, rows), row);
  }
}

/// (x: matrix, panel: buffer, panelStart: index, scratch: buffer,
///  first row, rows, first k, ks: index)
static func::FuncOp getPanelProductFunction(ModuleOp module,
                                            const KernelTarget &target) {
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type index = type.indexType(), floats = type.buffer(type.f32());
  SmallVector<Type> arguments{type.matrix(type.f32(), /*contiguousRows=*/true),
                              floats,
                              index,
                              floats,
                              index,
                              index,
                              index,
                              index};
  return getOrCreateFunction(module, "nibble_f32_panel", arguments,
                             [&](KernelBuilder &kernel, ValueRange args) {
                               PanelProduct(kernel, target, args).build();
                             });
}

//===----------------------------------------------------------------------===//
// A tile of the result
//===----------------------------------------------------------------------===//

namespace {
/// What a source of panels gives for some k: a buffer and where in it.
struct Panel {
  Value buffer;
  Value start;
};
using PanelSource = llvm::function_ref<Panel(Value firstK, Value countK)>;

/// Writes one tile: the parts that do not depend on the source of the panels.
class FloatTileBuilder {
public:
  FloatTileBuilder(KernelBuilder &kernel, const KernelTarget &target, Value x,
                   Value bias, Value y, Value tile)
      : kernel(kernel), x(x), bias(bias), y(y), lanes(target.lanes()),
        vectors(target.vectorsPerTile()),
        floats(kernel.vector(lanes, kernel.f32())),
        firstColumn(kernel.mul(tile, kColumns)),
        scratch(kernel.scratch(kPassRows * kColumns, kernel.f32())) {
    columns = kernel.sub(
        memref::DimOp::create(kernel.builder, kernel.loc, y, 1), firstColumn);
  }

  /// `accumulates` adds to what is in y.
  void build(func::FuncOp product, int64_t depth, bool accumulates,
             PanelSource source);
  Value getFirstColumn() const { return firstColumn; }
  /// Columns of the result from the first of the tile on.
  Value getColumns() const { return columns; }

private:
  void start(Value first, Value count, bool accumulates);
  void finish(Value first, Value count);
  /// Calls `full` where all lanes of a vector exist, else `partial`.
  void forVector(int64_t vector, llvm::function_ref<void(Value position)> full,
                 llvm::function_ref<void(Value position, Value mask)> partial);

  KernelBuilder &kernel;
  Value x, bias, y;
  int64_t lanes, vectors;
  VectorType floats;
  Value firstColumn, columns, scratch;
};
} // namespace

void FloatTileBuilder::forVector(
    int64_t vector, llvm::function_ref<void(Value)> full,
    llvm::function_ref<void(Value, Value)> partial) {
  Value position = kernel.add(firstColumn, vector * lanes);
  Value left = kernel.sub(columns, kernel.index(vector * lanes));
  kernel.ifThen(
      kernel.lessEqual(kernel.index(lanes), left), [&] { full(position); },
      [&] { partial(position, kernel.mask(left, lanes)); });
}

void FloatTileBuilder::start(Value first, Value count, bool accumulates) {
  auto loadMasked = [&](Value buffer, ValueRange indices, Value mask) -> Value {
    return vector::MaskedLoadOp::create(kernel.builder, kernel.loc, floats,
                                        buffer, indices, mask,
                                        kernel.splat(floats, 0.0));
  };
  kernel.loop(kernel.index(0), count, 1, [&](Value row) {
    Value base = kernel.mul(row, kColumns), source = kernel.add(first, row);
    for (int64_t v = 0; v < vectors; ++v) {
      Value place = kernel.add(base, v * lanes);
      if (!bias && !accumulates) {
        kernel.storeVector(kernel.splat(floats, 0.0), scratch, place);
        continue;
      }
      Value from = accumulates ? y : bias;
      auto getIndices = [&](Value position) {
        return accumulates ? Values{source, position} : Values{position};
      };
      forVector(
          v,
          [&](Value position) {
            kernel.storeVector(
                kernel.loadVector(from, getIndices(position), floats), scratch,
                place);
          },
          [&](Value position, Value mask) {
            kernel.storeVector(loadMasked(from, getIndices(position), mask),
                               scratch, place);
          });
    }
  });
}

void FloatTileBuilder::finish(Value first, Value count) {
  kernel.loop(kernel.index(0), count, 1, [&](Value row) {
    Value base = kernel.mul(row, kColumns), target = kernel.add(first, row);
    for (int64_t v = 0; v < vectors; ++v) {
      Value result =
          kernel.loadVector(scratch, kernel.add(base, v * lanes), floats);
      forVector(
          v,
          [&](Value position) {
            kernel.storeVector(result, y, {target, position});
          },
          [&](Value position, Value mask) {
            vector::MaskedStoreOp::create(kernel.builder, kernel.loc, y,
                                          ValueRange{target, position}, mask,
                                          result);
          });
    }
  });
}

void FloatTileBuilder::build(func::FuncOp product, int64_t depth,
                             bool accumulates, PanelSource source) {
  OpBuilder &builder = kernel.builder;
  Value rows = memref::DimOp::create(builder, kernel.loc, x, 0);
  Value K = memref::DimOp::create(builder, kernel.loc, x, 1);
  Value zero = kernel.index(0);
  kernel.loop(zero, rows, kPassRows, [&](Value first) {
    Value count = kernel.min(kernel.sub(rows, first), kernel.index(kPassRows));
    start(first, count, accumulates);
    kernel.loop(zero, K, depth, [&](Value k) {
      Value countK = kernel.min(kernel.sub(K, k), kernel.index(depth));
      Panel panel = source(k, countK);
      func::CallOp::create(builder, kernel.loc, product,
                           ValueRange{x, panel.buffer, panel.start, scratch,
                                      first, count, k, countK});
    });
    finish(first, count);
  });
}

func::FuncOp nibble::getFloatTileFunction(ModuleOp module,
                                          const KernelTarget &target,
                                          bool hasBias) {
  func::FuncOp product = getPanelProductFunction(module, target);
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type floats = type.buffer(type.f32());
  Type matrix = type.matrix(type.f32(), /*contiguousRows=*/true);
  SmallVector<Type> arguments{matrix, floats, floats, matrix, type.indexType()};
  return getOrCreateFunction(
      module, hasBias ? "nibble_f32_bias" : "nibble_f32", arguments,
      [&](KernelBuilder &kernel, ValueRange args) {
        Value x = args[0], weight = args[1], tile = args[4];
        FloatTileBuilder builder(kernel, target, x, hasBias ? args[2] : Value(),
                                 args[3], tile);
        Value K = memref::DimOp::create(kernel.builder, kernel.loc, x, 1);
        Value firstRow = kernel.mul(tile, K);
        builder.build(product, kDepth, /*accumulates=*/false,
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
        format(format), panel(panel),
        integers(kernel.vector(target.lanes(), kernel.i32())),
        floats(kernel.vector(target.lanes(), kernel.f32())) {}

  void fill(Value groupStart);

private:
  KernelBuilder &kernel;
  PackedReader reader;
  const KernelTarget &target;
  const WeightKernelFormat &format;
  Value panel;
  VectorType integers, floats;
};
} // namespace

void Dequantizer::fill(Value groupStart) {
  OpBuilder &builder = kernel.builder;
  Location loc = kernel.loc;
  int64_t lanes = target.lanes(), quads = format.panel.quadsPerStep();
  for (int64_t v = 0; v < target.vectorsPerTile(); ++v) {
    Value scale = reader.loadScales(groupStart, v);
    Value zero = format.panel.hasZeros ? reader.loadZeros(groupStart, v)
                                       : kernel.splat(integers, format.zero);
    kernel.loop(
        kernel.index(0), kernel.index(format.panel.stepsPerGroup()), 1,
        [&](Value step) {
          Values unpacked = reader.unpackStep(
              kernel.add(groupStart,
                         kernel.mul(step, format.panel.stepBytes())),
              v);
          for (int64_t quad = 0; quad < quads; ++quad)
            for (int64_t j = 0; j < 4; ++j) {
              Value code = kernel.bitcast(unpacked[quad], integers);
              code = arith::ShRUIOp::create(builder, loc, code,
                                            kernel.splat(integers, 8 * j));
              code = arith::AndIOp::create(
                  builder, loc, code, kernel.splat(integers, int64_t(255)));
              code = arith::SubIOp::create(builder, loc, code, zero);
              Value number =
                  arith::SIToFPOp::create(builder, loc, floats, code);
              number = arith::MulFOp::create(builder, loc, number, scale);
              Value k = kernel.add(kernel.mul(step, 4 * quads), 4 * quad + j);
              kernel.storeVector(
                  number, panel,
                  kernel.add(kernel.mul(k, kColumns), v * lanes));
            }
        });
  }
}

func::FuncOp
nibble::getDequantizedTileFunction(ModuleOp module, const KernelTarget &target,
                                   const WeightKernelFormat &format,
                                   bool hasBias) {
  func::FuncOp product = getPanelProductFunction(module, target);
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
        FloatTileBuilder builder(kernel, target, x, hasBias ? args[2] : Value(),
                                 args[3], tile);
        int64_t group = format.panel.group;
        Value panel = kernel.scratch(group * kColumns, kernel.f32());
        Dequantizer dequantizer(kernel, target, format, weight, panel);
        Value K = memref::DimOp::create(kernel.builder, kernel.loc, x, 1);
        Value firstGroup = kernel.mul(tile, kernel.divideUp(K, group));
        builder.build(
            product, group, /*accumulates=*/false,
            [&](Value firstK, Value) -> Panel {
              Value number = kernel.add(
                  firstGroup, kernel.divide(firstK, kernel.index(group)));
              dequantizer.fill(kernel.mul(number, format.panel.groupBytes()));
              return {panel, kernel.index(0)};
            });
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
                                           bool contiguousRows) {
  func::FuncOp product = getPanelProductFunction(module, target);
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type matrix = type.matrix(type.f32(), /*contiguousRows=*/true);
  SmallVector<Type> arguments{matrix, type.matrix(type.f32(), contiguousRows),
                              matrix, type.indexType()};
  return getOrCreateFunction(
      module, contiguousRows ? "nibble_f32_matrix" : "nibble_f32_transposed",
      arguments, [&](KernelBuilder &kernel, ValueRange args) {
        FloatTileBuilder builder(kernel, target, args[0], Value(), args[2],
                                 args[3]);
        Value panel = kernel.scratch(kDepth * kColumns, kernel.f32());
        builder.build(product, kDepth, /*accumulates=*/true,
                      [&](Value firstK, Value countK) -> Panel {
                        (contiguousRows ? copyRows : copyColumns)(
                            kernel, target, args[1], panel, firstK, countK,
                            builder.getFirstColumn(), builder.getColumns());
                        return {panel, kernel.index(0)};
                      });
      });
}
