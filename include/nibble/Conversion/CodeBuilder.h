//===- CodeBuilder.h - Words that all kernels are written in ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What kernels for the CPU and for GPUs have in common: addresses and control.
// Numbers of C++ take the type of the value beside them.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_CODEBUILDER_H
#define NIBBLE_CONVERSION_CODEBUILDER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

namespace nibble {

using Values = llvm::SmallVector<mlir::Value>;

class CodeBuilder {
public:
  CodeBuilder(mlir::OpBuilder &builder, mlir::Location loc)
      : builder(builder), loc(loc) {}

  mlir::OpBuilder &builder;
  mlir::Location loc;

  //===--- Types --------------------------------------------------------------

  mlir::Type f32() { return builder.getF32Type(); }
  mlir::Type i8() { return builder.getI8Type(); }
  mlir::Type i32() { return builder.getI32Type(); }
  mlir::VectorType vector(int64_t lanes, mlir::Type element) {
    return mlir::VectorType::get({lanes}, element);
  }

  //===--- Integers that do not overflow --------------------------------------

  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value add(mlir::Value a, int64_t b) {
    return b == 0 ? a : add(a, constantLike(a, b));
  }
  mlir::Value sub(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, int64_t b) {
    return b == 1 ? a : mul(a, constantLike(a, b));
  }
  /// Operands are not negative.
  mlir::Value divide(mlir::Value a, mlir::Value b);
  mlir::Value divide(mlir::Value a, int64_t b) {
    return b == 1 ? a : divide(a, constantLike(a, b));
  }
  mlir::Value divideUp(mlir::Value a, mlir::Value b) {
    return divide(sub(add(a, b), constantLike(a, 1)), b);
  }
  mlir::Value divideUp(mlir::Value a, int64_t b) {
    return divide(add(a, b - 1), b);
  }
  mlir::Value min(mlir::Value a, mlir::Value b);
  mlir::Value max(mlir::Value a, mlir::Value b);
  mlir::Value less(mlir::Value a, mlir::Value b);
  mlir::Value equal(mlir::Value a, mlir::Value b);
  mlir::Value equal(mlir::Value a, int64_t b) {
    return equal(a, constantLike(a, b));
  }
  /// The number `value` as the type of `other`.
  mlir::Value constantLike(mlir::Value other, int64_t value);

  //===--- Control ------------------------------------------------------------

  using LoopBody =
      llvm::function_ref<Values(mlir::Value position, mlir::ValueRange values)>;
  /// A loop that carries `initial`; returns what its last round gave.
  Values loop(mlir::Value lower, mlir::Value upper, mlir::Value step,
              mlir::ValueRange initial, LoopBody body);
  Values loop(mlir::Value lower, mlir::Value upper, int64_t step,
              mlir::ValueRange initial, LoopBody body) {
    return loop(lower, upper, constantLike(lower, step), initial, body);
  }
  void loop(mlir::Value lower, mlir::Value upper, mlir::Value step,
            llvm::function_ref<void(mlir::Value position)> body);
  void loop(mlir::Value lower, mlir::Value upper, int64_t step,
            llvm::function_ref<void(mlir::Value position)> body) {
    loop(lower, upper, constantLike(lower, step), body);
  }
  void ifThen(mlir::Value condition, llvm::function_ref<void()> then,
              llvm::function_ref<void()> otherwise = nullptr);
};

} // namespace nibble

#endif // NIBBLE_CONVERSION_CODEBUILDER_H
