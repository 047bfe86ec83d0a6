// RUN: mlir-opt %s --canonicalize | FileCheck %s --check-prefix=FOLD
// RUN: mlir-opt %s --lower-quant-ops | FileCheck %s --check-prefix=LOWER

// Two reasons why docs/Rationale.md gives for a dialect of our own. Where this
// fails, upstream has changed and the Rationale must too.

// FOLD-LABEL: func.func @quantization_folds_away(
// FOLD-SAME: %[[X:.*]]: tensor<4xf32>
// FOLD-NEXT: return %[[X]]
func.func @quantization_folds_away(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = quant.qcast %x : tensor<4xf32> to tensor<4x!quant.uniform<i8:f32, 1.0>>
  %1 = quant.dcast %0 : tensor<4x!quant.uniform<i8:f32, 1.0>> to tensor<4xf32>
  return %1 : tensor<4xf32>
}

// Truncation, and a clamp only after the conversion.
// LOWER-LABEL: func.func @lowering_truncates(
// LOWER-NOT: roundeven
// LOWER: arith.divf
// LOWER: arith.fptosi
// LOWER: arith.maxsi
// LOWER: arith.minsi
func.func @lowering_truncates(%x: tensor<4xf32>) -> tensor<4x!quant.uniform<i8<-100:100>:f32, 1.0>> {
  %0 = quant.qcast %x : tensor<4xf32> to tensor<4x!quant.uniform<i8<-100:100>:f32, 1.0>>
  return %0 : tensor<4x!quant.uniform<i8<-100:100>:f32, 1.0>>
}
