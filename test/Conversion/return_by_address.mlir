// RUN: nibble-opt %s --nibble-return-by-address | FileCheck %s
// RUN: nibble-opt %s --nibble-return-by-address --convert-func-to-llvm --finalize-memref-to-llvm \
// RUN:   --reconcile-unrealized-casts | mlir-translate --mlir-to-llvmir | FileCheck %s --check-prefix=LLVM

// Descriptors stand one after the other: 3 words and 2 for each dimension.
// CHECK-LABEL: func.func @main(
// CHECK-SAME:    %[[R:.*]]: !llvm.ptr, %[[A:.*]]: memref<?x4xf32>, %[[B:.*]]: memref<f32>) {
// CHECK:         %[[FIRST:.*]] = builtin.unrealized_conversion_cast %[[A]]
// CHECK:         %[[P:.*]] = llvm.getelementptr %[[R]][0] : (!llvm.ptr) -> !llvm.ptr, i64
// CHECK:         llvm.store %[[FIRST]], %[[P]] {alignment = 8 : i64}
// CHECK:         %[[SECOND:.*]] = builtin.unrealized_conversion_cast %[[B]]
// CHECK:         %[[Q:.*]] = llvm.getelementptr %[[R]][7] : (!llvm.ptr) -> !llvm.ptr, i64
// CHECK:         llvm.store %[[SECOND]], %[[Q]]
// CHECK:         return{{$}}

// LLVM: define void @main(ptr
func.func @main(%a: memref<?x4xf32>, %b: memref<f32>) -> (memref<?x4xf32>, memref<f32>) {
  return %a, %b : memref<?x4xf32>, memref<f32>
}
