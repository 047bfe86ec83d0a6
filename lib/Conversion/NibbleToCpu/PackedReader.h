//===- PackedReader.h - Codes of a packed weight in registers ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PACKEDREADER_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_PACKEDREADER_H

#include "Kernels.h"

namespace nibble {

/// Emits the reads of a packed weight (PanelPacking.h).
class PackedReader {
public:
  PackedReader(KernelBuilder &kernel, const KernelTarget &target,
               const WeightKernelFormat &format, mlir::Value weight);

  /// The scales of a vector of columns, in f32.
  mlir::Value loadScales(mlir::Value groupStart, int64_t vector);
  /// The zero points of a vector of columns, in i32.
  mlir::Value loadZeros(mlir::Value groupStart, int64_t vector);
  /// The quads of a step of rows for a vector of columns, a code a byte.
  Values unpackStep(mlir::Value step, int64_t vector);

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
