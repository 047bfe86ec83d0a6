//===- KernelBuilder.h - The words that kernels are written in --*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Kernels work on flat buffers with addresses in elements. The builder's words
// keep their code short enough to be read as the loop nest that it makes.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELBUILDER_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELBUILDER_H

#include "nibble/Conversion/CodeBuilder.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace nibble {

class KernelBuilder : public CodeBuilder {
public:
  using CodeBuilder::CodeBuilder;

  //===--- Types --------------------------------------------------------------

  mlir::Type indexType() { return builder.getIndexType(); }
  /// `memref<?xT>`.
  mlir::MemRefType buffer(mlir::Type element) {
    return mlir::MemRefType::get({mlir::ShapedType::kDynamic}, element);
  }
  /// `memref<?x?xT, strided<[?, ?], offset: ?>>`, or with unit stride along
  /// the rows.
  mlir::MemRefType matrix(mlir::Type element, bool contiguousRows = false);

  //===--- Addresses ----------------------------------------------------------

  mlir::Value index(int64_t value);
  mlir::Value lessEqual(mlir::Value a, mlir::Value b);

  //===--- Memory -------------------------------------------------------------

  mlir::Value scratch(int64_t size, mlir::Type element);
  mlir::Value load(mlir::Value buffer, mlir::ValueRange indices);
  void store(mlir::Value value, mlir::Value buffer, mlir::ValueRange indices);
  mlir::Value loadVector(mlir::Value buffer, mlir::ValueRange indices,
                         mlir::VectorType type);
  void storeVector(mlir::Value value, mlir::Value buffer,
                   mlir::ValueRange indices);
  /// The lanes that `mask` leaves out are 0, or stay.
  mlir::Value loadMasked(mlir::Value buffer, mlir::ValueRange indices,
                         mlir::VectorType type, mlir::Value mask);
  void storeMasked(mlir::Value value, mlir::Value buffer,
                   mlir::ValueRange indices, mlir::Value mask);
  void prefetch(mlir::Value buffer, mlir::Value position, unsigned locality);

  //===--- Numbers ------------------------------------------------------------

  mlir::Value zero(mlir::Type type);
  /// All lanes are `value`.
  mlir::Value splat(mlir::VectorType type, int64_t value);
  mlir::Value splat(mlir::VectorType type, double value);
  mlir::Value broadcast(mlir::Value scalar, mlir::VectorType type);
  mlir::Value bitcast(mlir::Value value, mlir::VectorType type);
  mlir::Value fma(mlir::Value a, mlir::Value b, mlir::Value c);
  /// The first `count` of `lanes` lanes are true.
  mlir::Value mask(mlir::Value count, int64_t lanes);
};

/// A private function `name` in `module` with `body`, which gets the
/// arguments; the function that is there already if there is one.
mlir::func::FuncOp getOrCreateFunction(
    mlir::ModuleOp module, llvm::StringRef name,
    llvm::ArrayRef<mlir::Type> arguments,
    llvm::function_ref<void(KernelBuilder &, mlir::ValueRange)> body);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELBUILDER_H
