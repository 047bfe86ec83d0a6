//===- PanelTile.cpp - One tile of a product with panels ------------------===//
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
struct RegisterTile {
  int64_t rows;
  int64_t vectors;
};

/// scratch[row, 64] += x[first + row, k…] · panel[k…, 64], of which the first
/// `columns` count.
class PanelProduct {
public:
  PanelProduct(KernelBuilder &kernel, const KernelTarget &target,
               Factors factors, Type element, ValueRange arguments)
      : kernel(kernel), target(target), factors(factors), x(arguments[0]),
        panel(arguments[1]), panelStart(arguments[2]), scratch(arguments[3]),
        first(arguments[4]), count(arguments[5]), firstK(arguments[6]),
        countK(arguments[7]), columns(arguments[8]),
        sums(kernel.vector(target.lanes(), getSumElement(kernel, factors))),
        depth(factors == Factors::Bytes ? 4 : 1),
        factor(kernel.vector(depth * target.lanes(),
                             getRowElement(kernel, factors))),
        stored(kernel.vector(depth * target.lanes(), element)) {}

  void build();

private:
  void buildTile(Value row, RegisterTile tile, Value firstColumn);
  void buildRows(Value row, int64_t rows);
  /// What a step takes of a row of x, in every lane.
  Value loadRow(Value row, Value column);
  Value loadWeights(Value position);
  Value multiplyAdd(Value row, Value weights, Value total);

  KernelBuilder &kernel;
  const KernelTarget &target;
  Factors factors;
  Value x, panel, panelStart, scratch, first, count, firstK, countK, columns;
  VectorType sums;
  /// Inputs k of a step, and a vector of them for each column.
  int64_t depth;
  VectorType factor;
  /// As a panel holds them.
  VectorType stored;
};
} // namespace

Type nibble::getRowElement(KernelBuilder &kernel, Factors factors) {
  return factors == Factors::Bytes ? kernel.i8() : kernel.f32();
}

Type nibble::getSumElement(KernelBuilder &kernel, Factors factors) {
  return factors == Factors::Bytes ? kernel.i32() : kernel.f32();
}

Value PanelProduct::loadRow(Value row, Value column) {
  if (factors == Factors::Floats)
    return kernel.broadcast(kernel.load(x, {row, column}), factor);
  Value bytes =
      kernel.loadVector(x, {row, column}, kernel.vector(depth, kernel.i8()));
  Value quad = vector::ExtractOp::create(
      kernel.builder, kernel.loc,
      kernel.bitcast(bytes, kernel.vector(1, kernel.i32())), 0);
  return kernel.bitcast(kernel.broadcast(quad, sums), factor);
}

Value PanelProduct::loadWeights(Value position) {
  Value numbers = kernel.loadVector(panel, position, stored);
  return stored == factor ? numbers
                          : arith::ExtFOp::create(kernel.builder, kernel.loc,
                                                  factor, numbers);
}

Value PanelProduct::multiplyAdd(Value row, Value weights, Value total) {
  if (factors == Factors::Floats)
    return kernel.fma(row, weights, total);
  return Dot4Op::create(kernel.builder, kernel.loc, total, weights, row);
}

void PanelProduct::buildTile(Value row, RegisterTile tile, Value firstColumn) {
  int64_t lanes = target.lanes();
  Value base = kernel.add(kernel.mul(row, kColumns), firstColumn);
  Values places, totals;
  for (int64_t r = 0; r < tile.rows; ++r)
    for (int64_t v = 0; v < tile.vectors; ++v) {
      places.push_back(kernel.add(base, r * kColumns + v * lanes));
      totals.push_back(kernel.loadVector(scratch, places.back(), sums));
    }
  Value sourceRow = kernel.add(first, row);
  totals = kernel.loop(
      kernel.index(0), countK, depth, totals, [&](Value k, ValueRange carried) {
        Values current(carried), weights;
        Value position =
            kernel.add(panelStart, kernel.add(kernel.mul(k, kColumns),
                                              kernel.mul(firstColumn, depth)));
        for (int64_t v = 0; v < tile.vectors; ++v)
          weights.push_back(
              loadWeights(kernel.add(position, depth * v * lanes)));
        Value column = kernel.add(firstK, k);
        for (int64_t r = 0; r < tile.rows; ++r) {
          Value number = loadRow(kernel.add(sourceRow, r), column);
          for (int64_t v = 0; v < tile.vectors; ++v) {
            Value &total = current[r * tile.vectors + v];
            total = multiplyAdd(number, weights[v], total);
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
  auto buildColumns = [&](int64_t together) {
    Value end = kernel.min(columns, kernel.index(kColumns));
    kernel.loop(
        kernel.index(0), end, together * target.lanes(),
        [&](Value column) { buildTile(row, {rows, together}, column); });
  };
  if (vectors < target.vectorsPerTile())
    return buildColumns(vectors);
  // The last tile of a row of tiles may be narrow.
  kernel.ifThen(
      kernel.lessEqual(columns, kernel.index(kColumns / 2)),
      [&] { buildColumns(1); },
      [&] { buildTile(row, {rows, vectors}, kernel.index(0)); });
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
                                             const KernelTarget &target,
                                             Factors factors, Type element) {
  OpBuilder types(module.getContext());
  KernelBuilder type(types, module.getLoc());
  Type index = type.indexType(), row = getRowElement(type, factors);
  if (!element)
    element = row;
  SmallVector<Type> arguments{type.matrix(row, /*contiguousRows=*/true),
                              type.buffer(element),
                              index,
                              type.buffer(getSumElement(type, factors)),
                              index,
                              index,
                              index,
                              index,
                              index};
  std::string name =
      factors == Factors::Bytes ? "nibble_i8_panel" : "nibble_f32_panel";
  if (element != row)
    name += element.isF16() ? "_f16" : "_bf16";
  return getOrCreateFunction(
      module, name, arguments, [&](KernelBuilder &kernel, ValueRange args) {
        PanelProduct(kernel, target, factors, element, args).build();
      });
}

//===----------------------------------------------------------------------===//
// A tile of the result
//===----------------------------------------------------------------------===//

PanelTileBuilder::PanelTileBuilder(KernelBuilder &kernel,
                                   const KernelTarget &target, Value x, Value y,
                                   Value tile, Factors factors)
    : kernel(kernel), x(x), y(y), lanes(target.lanes()),
      sums(kernel.vector(lanes, getSumElement(kernel, factors))),
      firstColumn(kernel.mul(tile, kColumns)),
      scratch(kernel.scratch(kPassRows * kColumns, sums.getElementType())) {
  columns = kernel.sub(memref::DimOp::create(kernel.builder, kernel.loc, y, 1),
                       firstColumn);
}

void PanelTileBuilder::forVector(
    Value column, llvm::function_ref<void(Value)> full,
    llvm::function_ref<void(Value, Value)> partial) {
  Value position = kernel.add(firstColumn, column);
  Value left = kernel.sub(columns, column);
  kernel.ifThen(
      kernel.lessEqual(kernel.index(lanes), left), [&] { full(position); },
      [&] { partial(position, kernel.mask(left, lanes)); });
}

void PanelTileBuilder::startVector(Value column, Value source, Value place,
                                   const TileStart &with) {
  bool fromResult = with.kind == TileStart::Result;
  Value buffer = fromResult ? y : with.bias;
  auto getIndices = [&](Value position) {
    return fromResult ? Values{source, position} : Values{position};
  };
  forVector(
      column,
      [&](Value position) {
        kernel.storeVector(
            kernel.loadVector(buffer, getIndices(position), sums), scratch,
            place);
      },
      [&](Value position, Value mask) {
        kernel.storeVector(
            kernel.loadMasked(buffer, getIndices(position), sums, mask),
            scratch, place);
      });
}

void PanelTileBuilder::beginPass(Value first, const TileStart &with) {
  pass = first;
  Value rows = memref::DimOp::create(kernel.builder, kernel.loc, x, 0);
  passRows = kernel.min(kernel.sub(rows, first), kernel.index(kPassRows));
  kernel.loop(kernel.index(0), passRows, 1, [&](Value row) {
    Value base = kernel.mul(row, kColumns), source = kernel.add(first, row);
    Value same;
    if (with.kind == TileStart::Zero)
      same = kernel.zero(sums);
    else if (with.kind == TileStart::Rows)
      same = kernel.broadcast(
          kernel.load(with.bias, kernel.add(with.first, source)), sums);
    forColumns([&](Value column) {
      Value place = kernel.add(base, column);
      if (same)
        kernel.storeVector(same, scratch, place);
      else
        startVector(column, source, place, with);
    });
  });
}

void PanelTileBuilder::multiply(func::FuncOp product, const Panel &panel,
                                Value firstK, Value countK) {
  func::CallOp::create(kernel.builder, kernel.loc, product,
                       ValueRange{x, panel.buffer, panel.start, scratch, pass,
                                  passRows, firstK, countK, columns});
}

void PanelTileBuilder::finishPass() {
  kernel.loop(kernel.index(0), passRows, 1, [&](Value row) {
    Value base = kernel.mul(row, kColumns), target = kernel.add(pass, row);
    forColumns([&](Value column) {
      Value result = kernel.loadVector(scratch, kernel.add(base, column), sums);
      forVector(
          column,
          [&](Value position) {
            kernel.storeVector(result, y, {target, position});
          },
          [&](Value position, Value mask) {
            kernel.storeMasked(result, y, {target, position}, mask);
          });
    });
  });
}

void PanelTileBuilder::forColumns(llvm::function_ref<void(Value)> body) {
  kernel.loop(kernel.index(0), kernel.index(kColumns), lanes, body);
}

void PanelTileBuilder::buildPass(Value first, func::FuncOp product,
                                 int64_t depth, const TileStart &with,
                                 PanelSource source) {
  beginPass(first, with);
  Value K = memref::DimOp::create(kernel.builder, kernel.loc, x, 1);
  kernel.loop(kernel.index(0), K, depth, [&](Value k) {
    Value countK = kernel.min(kernel.sub(K, k), kernel.index(depth));
    multiply(product, source(k, countK), k, countK);
  });
  finishPass();
}

void PanelTileBuilder::build(func::FuncOp product, int64_t depth,
                             const TileStart &with, PanelSource source) {
  Value rows = memref::DimOp::create(kernel.builder, kernel.loc, x, 0);
  kernel.loop(kernel.index(0), rows, kPassRows, [&](Value first) {
    buildPass(first, product, depth, with, source);
  });
}
