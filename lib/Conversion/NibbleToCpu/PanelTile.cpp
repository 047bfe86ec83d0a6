//===- PanelTile.cpp - One tile of a product in f32 -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "PanelTile.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;

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

func::FuncOp nibble::getPanelProductFunction(ModuleOp module,
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

FloatTileBuilder::FloatTileBuilder(KernelBuilder &kernel,
                                   const KernelTarget &target, Value x, Value y,
                                   Value tile)
    : kernel(kernel), x(x), y(y), lanes(target.lanes()),
      vectors(target.vectorsPerTile()),
      floats(kernel.vector(lanes, kernel.f32())),
      firstColumn(kernel.mul(tile, kColumns)),
      scratch(kernel.scratch(kPassRows * kColumns, kernel.f32())) {
  columns = kernel.sub(memref::DimOp::create(kernel.builder, kernel.loc, y, 1),
                       firstColumn);
}

void FloatTileBuilder::forVector(
    int64_t vector, llvm::function_ref<void(Value)> full,
    llvm::function_ref<void(Value, Value)> partial) {
  Value position = kernel.add(firstColumn, vector * lanes);
  Value left = kernel.sub(columns, kernel.index(vector * lanes));
  kernel.ifThen(
      kernel.lessEqual(kernel.index(lanes), left), [&] { full(position); },
      [&] { partial(position, kernel.mask(left, lanes)); });
}

void FloatTileBuilder::startVector(int64_t vector, Value source, Value place,
                                   const TileStart &with) {
  bool fromResult = with.kind == TileStart::Result;
  Value buffer = fromResult ? y : with.bias;
  auto getIndices = [&](Value position) {
    return fromResult ? Values{source, position} : Values{position};
  };
  forVector(
      vector,
      [&](Value position) {
        kernel.storeVector(
            kernel.loadVector(buffer, getIndices(position), floats), scratch,
            place);
      },
      [&](Value position, Value mask) {
        kernel.storeVector(
            kernel.loadMasked(buffer, getIndices(position), floats, mask),
            scratch, place);
      });
}

void FloatTileBuilder::start(Value first, Value count, const TileStart &with) {
  kernel.loop(kernel.index(0), count, 1, [&](Value row) {
    Value base = kernel.mul(row, kColumns), source = kernel.add(first, row);
    Value same;
    if (with.kind == TileStart::Zero)
      same = kernel.splat(floats, 0.0);
    else if (with.kind == TileStart::Rows)
      same = kernel.broadcast(
          kernel.load(with.bias, kernel.add(with.first, source)), floats);
    for (int64_t v = 0; v < vectors; ++v) {
      Value place = kernel.add(base, v * lanes);
      if (same)
        kernel.storeVector(same, scratch, place);
      else
        startVector(v, source, place, with);
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
            kernel.storeMasked(result, y, {target, position}, mask);
          });
    }
  });
}

void FloatTileBuilder::buildPass(Value first, func::FuncOp product,
                                 int64_t depth, const TileStart &with,
                                 PanelSource source) {
  OpBuilder &builder = kernel.builder;
  pass = first;
  Value rows = memref::DimOp::create(builder, kernel.loc, x, 0);
  Value K = memref::DimOp::create(builder, kernel.loc, x, 1);
  Value count = kernel.min(kernel.sub(rows, first), kernel.index(kPassRows));
  start(first, count, with);
  kernel.loop(kernel.index(0), K, depth, [&](Value k) {
    Value countK = kernel.min(kernel.sub(K, k), kernel.index(depth));
    Panel panel = source(k, countK);
    func::CallOp::create(builder, kernel.loc, product,
                         ValueRange{x, panel.buffer, panel.start, scratch,
                                    first, count, k, countK});
  });
  finish(first, count);
}

void FloatTileBuilder::build(func::FuncOp product, int64_t depth,
                             const TileStart &with, PanelSource source) {
  Value rows = memref::DimOp::create(kernel.builder, kernel.loc, x, 0);
  kernel.loop(kernel.index(0), rows, kPassRows, [&](Value first) {
    buildPass(first, product, depth, with, source);
  });
}
