//===- ScalarBuilder.h - Numbers and how they are stored --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Plain IR has no f8 arithmetic, no four-bit memory and no unsigned integers.
// So every element has two plain types:
//
//   element          stored as                        computed with as
//   f64, f32         itself                           itself
//   f16, bf16        itself                           f32
//   f8…, f6…, f4…    i8: the code                     f32
//   iN, N in 2…7     i8, sign-extended                i8
//   uiN, N in 2…7    i8, zero-extended                i8
//   i8 … i64         itself                           itself
//   ui8 … ui64       the signless type of that width  the same
//   i1               itself                           itself
//
// The decoding is exact. Rounding is to nearest, half to even, and written out
// in integer operations where the host may lack the instruction.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_SCALARBUILDER_H
#define NIBBLE_CONVERSION_SCALARBUILDER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"

namespace nibble {

/// The type that holds an element of this type in memory; null for a type
/// without numbers (strings) and for complex numbers.
mlir::Type getStoredType(mlir::Type element);

/// The type that arithmetic on elements of this type is done in.
mlir::Type getComputedType(mlir::Type element);

/// `tensor<2x?xui4, #onnx.dims<"n">>` ⇒ `tensor<2x?xi8>`. Null where the
/// elements have no stored type.
mlir::RankedTensorType getStoredType(mlir::RankedTensorType type);

/// What happens to a number beyond the largest finite one of its format.
enum class OutOfRange {
  /// It becomes the largest finite number of that sign, infinity too.
  Saturate,
  /// It becomes infinity, or NaN where the format has no infinity.
  Propagate
};

/// Builds scalar code. Integers are signless in the IR; `isUnsigned` says how
/// comparisons, divisions, shifts and conversions take them.
class ScalarBuilder {
public:
  ScalarBuilder(mlir::OpBuilder &builder, mlir::Location loc,
                bool isUnsigned = false)
      : builder(builder), loc(loc), isUnsigned(isUnsigned) {}

  //===--- Between stored and computed --------------------------------------===

  /// The number that `stored`, an element of type `element`, stands for.
  mlir::Value decode(mlir::Value stored, mlir::Type element);

  /// `number`, of the computed type, as it is stored in an `element`. An
  /// integer wider than the element keeps its low bits.
  mlir::Value encode(mlir::Value number, mlir::Type element,
                     OutOfRange overflow = OutOfRange::Propagate);

  /// A number computed as `from` as one computed as `to`. Floats become
  /// integers by truncation, saturating, NaN as 0; everything but 0 becomes
  /// true.
  mlir::Value convert(mlir::Value number, mlir::Type from, mlir::Type to);

  /// The f32 `number` rounded to f16 or bf16 and taken back.
  mlir::Value roundTo(mlir::Value number, mlir::Type element);

  /// The exponent of f8E8M0FNU (a code) for a positive f32: the least power of
  /// two that is not below it, saturating.
  mlir::Value encodeExponentUp(mlir::Value number);

  /// Entry `index` of a constant table of f32; an index past the end gives NaN.
  mlir::Value lookUp(llvm::ArrayRef<float> table, mlir::Value index);

  //===--- Constants ----------------------------------------------------------

  mlir::Value constant(mlir::Type type, double value);
  mlir::Value integer(mlir::Type type, int64_t value);
  mlir::Value index(int64_t value);
  mlir::Value boolean(bool value);
  mlir::Value infinity(mlir::Type type, bool negative);
  /// Smallest and largest number of a computed type (infinities for floats).
  mlir::Value lowest(mlir::Type element);
  mlir::Value highest(mlir::Type element);

  //===--- Arithmetic on floats or integers ---------------------------------===

  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value sub(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, mlir::Value b);
  /// Integers divide towards zero; by 0 gives 0.
  mlir::Value div(mlir::Value a, mlir::Value b);
  /// The remainder of `div`, with the sign of `a`.
  mlir::Value rem(mlir::Value a, mlir::Value b);
  mlir::Value neg(mlir::Value a);
  mlir::Value abs(mlir::Value a);
  /// NaN where one of the two is.
  mlir::Value max(mlir::Value a, mlir::Value b);
  mlir::Value min(mlir::Value a, mlir::Value b);
  mlir::Value select(mlir::Value condition, mlir::Value a, mlir::Value b);

  mlir::Value equal(mlir::Value a, mlir::Value b);
  mlir::Value less(mlir::Value a, mlir::Value b);
  mlir::Value lessEqual(mlir::Value a, mlir::Value b);
  mlir::Value isNaN(mlir::Value a);
  mlir::Value isZero(mlir::Value a);

  mlir::OpBuilder &builder;
  mlir::Location loc;
  bool isUnsigned;

private:
  mlir::Value encodeSmallFloat(mlir::Value number, mlir::FloatType type,
                               OutOfRange overflow);
  mlir::Value encodeBF16(mlir::Value number);
  mlir::Value wrap(mlir::Value number, mlir::IntegerType element);
  mlir::Value toInteger(mlir::Value number, mlir::IntegerType element);
};

} // namespace nibble

#endif // NIBBLE_CONVERSION_SCALARBUILDER_H
