//===- Kernels.h - Matrix products as functions of a module -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A kernel is made for a format of the weight and a target, in the module that
// needs it. What differs between calls (sizes, addresses) is an argument, so
// that the layers of a model share one.
//
// All of a kernel works on one tile, 64 columns of the result; callers run the
// tiles side by side.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELS_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELS_H

#include "KernelBuilder.h"

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

namespace nibble {

/// What kernels need to know of the machine.
struct KernelTarget {
  /// Bytes of a vector register: 16, 32 or 64.
  unsigned vectorBytes = 64;
  /// Vector registers.
  unsigned registers = 32;

  int64_t lanes() const { return vectorBytes / 4; }
  /// Vectors of 32-bit lanes in a tile.
  int64_t vectorsPerTile() const { return PanelFormat::kColumns / lanes(); }
};

/// How the codes of a packed weight become real numbers.
struct WeightKernelFormat {
  PanelFormat panel;
  /// The zero point of every element, as packed, where the panel has none.
  int64_t zero = 0;
  /// The storage, if it is a code book.
  StorageAttr codeBook;

  /// "w4g128_f32_zeros", "nf4g64_f32": what kernels of different formats are
  /// told apart by.
  std::string getName() const;
};

/// Groups between the one that is multiplied and the one that is fetched.
inline constexpr int64_t kGroupsAhead = 2;

/// The format of a weight type with the layout `panel`.
WeightKernelFormat getKernelFormat(mlir::RankedTensorType weightType);

//===----------------------------------------------------------------------===//
// Integer compute
//===----------------------------------------------------------------------===//

/// Rows that are quantized, or share an unpacked panel, at a time.
inline constexpr int64_t kRowsPerPass = 128;

/// Rows of activations are quantized in blocks of 16, and the rest in one block
/// of 16, 8, 4, 2 or 1 rows. Returns the rows that `rows` take with padding.
mlir::Value buildPaddedRows(KernelBuilder &kernel, mlir::Value rows);

/// (x: matrix f32, codes: i32 buffer, scales: f32 buffer, sums: i32 buffer,
///  group, block, first: index)
///
/// Quantizes kRowsPerPass rows from `first` on to i8 in blocks of `block`
/// inputs (Spec S13), a multiple of `group` or all of K. For each group and
/// block of rows: `codes` has the quads of its rows side by side, `scales` and
/// `sums` one number for each row.
mlir::func::FuncOp getQuantizeRowsFunction(mlir::ModuleOp module,
                                           const KernelTarget &target);

/// (x: matrix i8, codes, scales, sums, group, block, first: index, scale: f32)
///
/// The same for rows of codes that all have one scale.
mlir::func::FuncOp getArrangeRowsFunction(mlir::ModuleOp module,
                                          const KernelTarget &target);

/// (weight: i8 buffer, codes, scales, sums, bias: f32 buffer, y: matrix f32,
///  groups, tile: index)
mlir::func::FuncOp getIntegerTileFunction(mlir::ModuleOp module,
                                          const KernelTarget &target,
                                          const WeightKernelFormat &format,
                                          bool hasBias);

//===----------------------------------------------------------------------===//
// Float compute
//===----------------------------------------------------------------------===//

/// (x: matrix f32, weight: buffer of `element`, in panels, bias: f32 buffer,
///  y: matrix f32, tile: index)
///
/// Floats narrower than f32 are widened in registers.
mlir::func::FuncOp getFloatTileFunction(mlir::ModuleOp module,
                                        const KernelTarget &target,
                                        mlir::Type element, bool hasBias);

/// (x: matrix f32, weight: i8 buffer, bias: f32 buffer, y: matrix f32,
///  tile: index)
mlir::func::FuncOp getDequantizedTileFunction(mlir::ModuleOp module,
                                              const KernelTarget &target,
                                              const WeightKernelFormat &format,
                                              bool hasBias);

/// (x: matrix f32, w: matrix f32, y: matrix f32, tile: index)
///
/// Writes y, or adds to it. The rows of w are contiguous, or its columns.
mlir::func::FuncOp getMatrixTileFunction(mlir::ModuleOp module,
                                         const KernelTarget &target,
                                         bool contiguousRows, bool accumulates);

//===----------------------------------------------------------------------===//
// Convolutions
//===----------------------------------------------------------------------===//

/// What a product multiplies.
enum class Factors {
  /// f32 by f32, summed in f32.
  Floats,
  /// Signed by unsigned bytes, summed in i32, four at a time: the inputs k of
  /// the signed factor are padded with zeros to a multiple of four.
  Bytes
};

/// What the sums of a convolution start with: zero, one number of the bias for
/// each channel, or what is in the result.
enum class ConvolutionStart { Zero, Bias, Result };

/// A convolution sees the input as a flat buffer. Element
///
///   start + rows[r] + o · stride + taps[k]
///
/// belongs to tap k (channel and place in the kernel) of column o of row r of
/// the output, where a row runs along the last dimension and has `width`
/// columns.
///
/// (w: matrix f32 [channels, taps], x: f32 buffer, start: index,
///  taps: index buffer, rows: index buffer, width: index,
///  bias: f32 buffer, first number of the bias: index,
///  y: matrix f32 [channels, rows · width], pass, tile: index)
///
/// Computes 64 positions of the output for the channels of one pass. With
/// bytes, w is i8, x holds unsigned bytes, y is i32, and there is no bias.
mlir::func::FuncOp getConvolutionTileFunction(mlir::ModuleOp module,
                                              const KernelTarget &target,
                                              int64_t stride,
                                              ConvolutionStart start,
                                              Factors factors);
/// Channels of a pass.
int64_t getConvolutionPassChannels();

/// The same arguments without pass and tile, and the channel: index. Computes
/// all positions of one channel without a panel.
mlir::func::FuncOp getDirectConvolutionFunction(mlir::ModuleOp module,
                                                const KernelTarget &target,
                                                int64_t stride,
                                                ConvolutionStart start);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELS_H
