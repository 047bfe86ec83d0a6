//===- PanelTile.h - One tile of a product with panels ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PANELTILE_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PANELTILE_H

#include "Kernels.h"

namespace nibble {

/// Inputs that a pass over the rows takes: a panel stays in the second cache.
inline constexpr int64_t kDepth = 256;
/// Rows whose totals are in the scratch, a multiple of a tile's rows.
inline constexpr int64_t kPassRows = 96;

/// A panel holds 64 columns of some k: [k, 64], or for bytes [quad, 64, 4], a
/// quad being four consecutive k.
///
/// Element types of rows and panels, and of sums.
mlir::Type getRowElement(KernelBuilder &kernel, Factors factors);
mlir::Type getSumElement(KernelBuilder &kernel, Factors factors);

/// scratch[row, 64] += x[first + row, k…] · panel[k…, 64] as a function; a
/// panel of f16 or bf16, `element`, is widened
/// (x: matrix, panel: buffer, panelStart: index, scratch: buffer,
///  first row, rows, first k, ks, columns that count, if less than 64: index)
mlir::func::FuncOp getPanelProductFunction(mlir::ModuleOp module,
                                           const KernelTarget &target,
                                           Factors factors = Factors::Floats,
                                           mlir::Type element = {});

/// What a source of panels gives for some k: a buffer and where in it.
struct Panel {
  mlir::Value buffer;
  mlir::Value start;
};
using PanelSource =
    llvm::function_ref<Panel(mlir::Value firstK, mlir::Value countK)>;

/// What the sums of a tile start with.
struct TileStart {
  enum Kind {
    Zero,
    /// A number of `bias` for each column of the result.
    Columns,
    /// A number of `bias` for each row, from `first` on.
    Rows,
    /// What is in the result.
    Result
  } kind = Zero;
  mlir::Value bias;
  mlir::Value first;
};

/// Writes one tile: the parts that do not depend on the source of the panels.
class PanelTileBuilder {
public:
  PanelTileBuilder(KernelBuilder &kernel, const KernelTarget &target,
                   mlir::Value x, mlir::Value y, mlir::Value tile,
                   Factors factors = Factors::Floats);

  /// All rows of x, pass after pass.
  void build(mlir::func::FuncOp product, int64_t depth, const TileStart &start,
             PanelSource source);
  /// The rows of one pass.
  void buildPass(mlir::Value first, mlir::func::FuncOp product, int64_t depth,
                 const TileStart &start, PanelSource source);
  /// The same in steps: totals of up to kPassRows rows from `first` on begin,
  /// get the products of some k, and are written.
  void beginPass(mlir::Value first, const TileStart &start);
  void multiply(mlir::func::FuncOp product, const Panel &panel,
                mlir::Value firstK, mlir::Value countK);
  void finishPass();
  mlir::Value getFirstColumn() const { return firstColumn; }
  /// The first row of the pass that is built.
  mlir::Value getPass() const { return pass; }
  /// Columns of the result from the first of the tile on.
  mlir::Value getColumns() const { return columns; }

private:
  void startVector(mlir::Value column, mlir::Value source, mlir::Value place,
                   const TileStart &with);
  /// body(first column) for each vector of the tile.
  void forColumns(llvm::function_ref<void(mlir::Value column)> body);
  /// Calls `full` where all lanes of a vector exist, else `partial`.
  void forVector(
      mlir::Value column, llvm::function_ref<void(mlir::Value position)> full,
      llvm::function_ref<void(mlir::Value position, mlir::Value mask)> partial);

  KernelBuilder &kernel;
  mlir::Value x, y;
  int64_t lanes;
  mlir::VectorType sums;
  mlir::Value firstColumn, columns, scratch;
  /// First row of the pass and its rows.
  mlir::Value pass, passRows;
};

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PANELTILE_H
