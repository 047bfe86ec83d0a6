// RUN: nibble-opt %s --nibble-outline-loops | FileCheck %s

// Two loops that do the same to different buffers share one function.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[M:.*]]: memref<?xf32>, %[[K:.*]]: memref<?xf32>, %[[X:.*]]: f32)
// CHECK: %[[N:.*]] = memref.dim
// CHECK: call @main_loop(%[[N]], %[[X]], %[[M]])
// CHECK: call @main_loop(%[[N]], %[[X]], %[[K]])
// CHECK: call @main_loop_0(%[[N]], %[[M]])
// CHECK: call @main_loop_1(%{{.*}}, %[[X]], %[[M]], %[[N]])
// CHECK-NOT: scf.
// CHECK: func.func private @main_loop({{.*}} attributes {passthrough = ["noinline"]}
// CHECK-DAG: %[[C0:.*]] = arith.constant 0 : index
// CHECK-DAG: %[[C1:.*]] = arith.constant 1 : index
// CHECK: scf.for %{{.*}} = %[[C0]] to %{{.*}} step %[[C1]]
// CHECK: func.func private @main_loop_0(
// CHECK: arith.constant 1.0
// A choice between loops of which one is parallel moves as a whole.
// CHECK: func.func private @main_loop_1(
// CHECK: scf.if
// CHECK: scf.parallel
// CHECK: scf.for
// CHECK-NOT: func.func
func.func @main(%m: memref<?xf32>, %k: memref<?xf32>, %x: f32) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %one = arith.constant 1.0 : f32
  %n = memref.dim %m, %c0 : memref<?xf32>
  scf.for %i = %c0 to %n step %c1 {
    memref.store %x, %m[%i] : memref<?xf32>
  }
  scf.for %i = %c0 to %n step %c1 {
    memref.store %x, %k[%i] : memref<?xf32>
  }
  scf.for %i = %c0 to %n step %c1 {
    memref.store %one, %m[%i] : memref<?xf32>
  }
  %large = arith.cmpi sgt, %n, %c1 : index
  scf.if %large {
    scf.parallel (%i) = (%c0) to (%n) step (%c1) {
      memref.store %x, %m[%i] : memref<?xf32>
      scf.reduce
    }
  } else {
    scf.for %i = %c0 to %n step %c1 {
      memref.store %x, %m[%i] : memref<?xf32>
    }
  }
  return
}
