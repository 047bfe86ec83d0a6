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

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace nibble {

using Values = llvm::SmallVector<mlir::Value>;

class KernelBuilder {
public:
  KernelBuilder(mlir::OpBuilder &builder, mlir::Location loc)
      : builder(builder), loc(loc) {}

  mlir::OpBuilder &builder;
  mlir::Location loc;

  //===--- Types --------------------------------------------------------------

  mlir::Type f32() { return builder.getF32Type(); }
  mlir::Type i32() { return builder.getI32Type(); }
  mlir::Type i8() { return builder.getI8Type(); }
  mlir::Type indexType() { return builder.getIndexType(); }
  mlir::VectorType vector(int64_t lanes, mlir::Type element) {
    return mlir::VectorType::get({lanes}, element);
  }
  /// `memref<?xT>`.
  mlir::MemRefType buffer(mlir::Type element) {
    return mlir::MemRefType::get({mlir::ShapedType::kDynamic}, element);
  }
  /// `memref<?x?xT, strided<[?, ?], offset: ?>>`, or with unit stride along
  /// the rows.
  mlir::MemRefType matrix(mlir::Type element, bool contiguousRows = false);

  //===--- Addresses ----------------------------------------------------------

  mlir::Value index(int64_t value);
  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value add(mlir::Value a, int64_t b) {
    return b == 0 ? a : add(a, index(b));
  }
  mlir::Value sub(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, int64_t b) {
    return b == 1 ? a : mul(a, index(b));
  }
  mlir::Value divide(mlir::Value a, mlir::Value b);
  mlir::Value divideUp(mlir::Value a, int64_t b);
  mlir::Value min(mlir::Value a, mlir::Value b);
  mlir::Value max(mlir::Value a, mlir::Value b);
  mlir::Value less(mlir::Value a, mlir::Value b);
  mlir::Value lessEqual(mlir::Value a, mlir::Value b);
  mlir::Value equal(mlir::Value a, int64_t b);

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

  /// All lanes are `value`.
  mlir::Value splat(mlir::VectorType type, int64_t value);
  mlir::Value splat(mlir::VectorType type, double value);
  mlir::Value broadcast(mlir::Value scalar, mlir::VectorType type);
  mlir::Value bitcast(mlir::Value value, mlir::VectorType type);
  mlir::Value fma(mlir::Value a, mlir::Value b, mlir::Value c);
  /// The first `count` of `lanes` lanes are true.
  mlir::Value mask(mlir::Value count, int64_t lanes);

  //===--- Control ------------------------------------------------------------

  using LoopBody =
      llvm::function_ref<Values(mlir::Value position, mlir::ValueRange values)>;
  /// A loop that carries `initial`; returns what its last round gave.
  Values loop(mlir::Value lower, mlir::Value upper, int64_t step,
              mlir::ValueRange initial, LoopBody body);
  void loop(mlir::Value lower, mlir::Value upper, mlir::Value step,
            llvm::function_ref<void(mlir::Value position)> body);
  void loop(mlir::Value lower, mlir::Value upper, int64_t step,
            llvm::function_ref<void(mlir::Value position)> body) {
    loop(lower, upper, index(step), body);
  }
  void ifThen(mlir::Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise = nullptr);
};

/// A private function `name` in `module` with `body`, which gets the
/// arguments; the function that is there already if there is one.
mlir::func::FuncOp getOrCreateFunction(
    mlir::ModuleOp module, llvm::StringRef name,
    llvm::ArrayRef<mlir::Type> arguments,
    llvm::function_ref<void(KernelBuilder &, mlir::ValueRange)> body);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOCPU_KERNELBUILDER_H
