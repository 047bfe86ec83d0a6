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
#include "PanelTile.h"

using namespace mlir;
using namespace nibble;

static constexpr int64_t kColumns = PanelFormat::kColumns;

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
  kernel.loop(
      kernel.index(0), kernel.index(kColumns), lanes, [&](Value column) {
        Value scale = reader.loadScales(groupStart, column);
        Value zero = format.panel.hasZeros
                         ? reader.loadZeros(groupStart, column)
                         : kernel.splat(integers, format.zero);
        kernel.loop(
            kernel.index(0), kernel.index(format.panel.stepsPerGroup()), 1,
            [&](Value step) {
              Values unpacked = reader.unpackStep(
                  kernel.add(groupStart,
                             kernel.mul(step, format.panel.stepBytes())),
                  column);
              for (int64_t quad = 0; quad < quads; ++quad)
                for (int64_t j = 0; j < 4; ++j) {
                  Value code = kernel.bitcast(unpacked[quad], integers);
                  code = arith::ShRUIOp::create(builder, loc, code,
                                                kernel.splat(integers, 8 * j));
                  code = arith::AndIOp::create(
                      builder, loc, code, kernel.splat(integers, int64_t(255)));
                  Value number;
                  if (format.codeBook) {
                    number = reader.lookUp(code);
                  } else {
                    code = arith::SubIOp::create(builder, loc, code, zero);
                    number =
                        arith::SIToFPOp::create(builder, loc, floats, code);
                  }
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
        PanelTileBuilder builder(kernel, target, x, args[3], tile);
        int64_t group = format.panel.group;
        Value panel = kernel.scratch(group * kColumns, kernel.f32());
        Dequantizer dequantizer(kernel, target, format, weight, panel);
        Value K = memref::DimOp::create(kernel.builder, kernel.loc, x, 1);
        Value firstGroup = kernel.mul(tile, kernel.divideUp(K, group));
        builder.build(
            product, group, getStart(hasBias, args[2]),
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
