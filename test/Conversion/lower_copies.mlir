// RUN: nibble-opt %s --nibble-lower-copies | FileCheck %s

// CHECK-LABEL: func.func @main(
// CHECK: linalg.generic {{.*}} ins(%{{.*}} : memref<4xf32, strided<[2]>>) outs(%{{.*}} : memref<4xf32>)
// CHECK-NOT: memref.copy
func.func @main(%a: memref<4xf32, strided<[2]>>, %b: memref<4xf32>) {
  memref.copy %a, %b : memref<4xf32, strided<[2]>> to memref<4xf32>
  return
}
