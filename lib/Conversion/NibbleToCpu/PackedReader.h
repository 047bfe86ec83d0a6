//===- PackedReader.h - Codes of a packed weight in registers ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PACKEDREADER_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PACKEDREADER_H

#include "Kernels.h"

namespace nibble {

/// Emits the reads of a packed weight (PanelPacking.h). `column` is the first
/// of a vector of columns of the tile.
class PackedReader {
public:
  PackedReader(KernelBuilder &kernel, const KernelTarget &target,
               const WeightKernelFormat &format, mlir::Value weight);

  /// The scales of a vector of columns, in f32.
  mlir::Value loadScales(mlir::Value groupStart, mlir::Value column);
  /// The zero points of a vector of columns, in i32.
  mlir::Value loadZeros(mlir::Value groupStart, mlir::Value column);
  /// The quads of a step of rows for a vector of columns, a code a byte.
  Values unpackStep(mlir::Value step, mlir::Value column);
  /// The same with integers in place of the codes of a code book (Spec S13),
  /// as unsigned bytes with a zero point of 128.
  Values unpackIntegers(mlir::Value step, mlir::Value column);
  /// Entries of a code book for codes in i32.
  mlir::Value lookUp(mlir::Value codes);

private:
  Values unpack(llvm::ArrayRef<mlir::Value> step);
  mlir::Value shiftRight(mlir::Value bytes, unsigned bits);

  KernelBuilder &kernel;
  const WeightKernelFormat &format;
  mlir::Value weight;
  int64_t lanes;
  mlir::VectorType sumType, floatType, byteType;
};

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PACKEDREADER_H
