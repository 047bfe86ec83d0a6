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
  /// Bytes between what few rows multiply and what they fetch, if anything:
  /// the processor that runs the code decides.
  mlir::Value getReadAhead();
  /// Fetches the step that is `distance` bytes behind `step`.
  void prefetchStep(mlir::Value step, mlir::Value column, mlir::Value distance);
  /// What is subtracted from the codes of a vector of columns, in i32.
  mlir::Value loadZerosOrCommon(mlir::Value groupStart, mlir::Value column);
  /// The numbers of input `place` of a quad before they are scaled, in f32:
  /// codes minus `zeros`, or entries of the code book.
  mlir::Value convert(mlir::Value quad, int64_t place, mlir::Value zeros);

private:
  /// Numbers for codes of up to 4 bits in i32.
  mlir::Value lookUp(mlir::Value codes);
  Values unpack(llvm::ArrayRef<mlir::Value> step);
  mlir::Value shiftRight(mlir::Value bytes, unsigned bits);

  KernelBuilder &kernel;
  const WeightKernelFormat &format;
  mlir::Value weight;
  int64_t lanes;
  /// One shuffle looks floats up in a table of 16.
  bool hasFloatTable;
  mlir::VectorType sumType, floatType, byteType;
};

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PACKEDREADER_H
