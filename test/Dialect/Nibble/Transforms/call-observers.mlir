// RUN: nibble-opt %s --nibble-call-observers | FileCheck %s

// CHECK: module attributes {nibble.observers = ["x", "indices", "h"]}
// CHECK-DAG: func.func private @nibble_runtime_observe_f32(i64, tensor<*xf32> {bufferization.access = "read"})
// CHECK-DAG: func.func private @nibble_runtime_observe_f16(i64, tensor<*xf16> {bufferization.access = "read"})

// CHECK-LABEL: func @main
// CHECK-SAME: (%[[X:.*]]: tensor<?x4xf32>, %[[I:.*]]: tensor<2xi64>, %[[H:.*]]: tensor<3xf16>)
func.func @main(%x: tensor<?x4xf32>, %i: tensor<2xi64>, %h: tensor<3xf16>)
    -> (tensor<?x4xf32>, tensor<2xi64>, tensor<3xf16>) {
  // CHECK: %[[ANY:.*]] = tensor.cast %[[X]] : tensor<?x4xf32> to tensor<*xf32>
  // CHECK: %[[ZERO:.*]] = arith.constant 0 : i64
  // CHECK: call @nibble_runtime_observe_f32(%[[ZERO]], %[[ANY]])
  %0 = nibble.observe "x" %x : tensor<?x4xf32>
  // Integers have no statistics.
  %1 = nibble.observe "indices" %i : tensor<2xi64>
  // CHECK: %[[TWO:.*]] = arith.constant 2 : i64
  // CHECK: call @nibble_runtime_observe_f16(%[[TWO]],
  %2 = nibble.observe "h" %h : tensor<3xf16>
  // CHECK: return %[[X]], %[[I]], %[[H]]
  return %0, %1, %2 : tensor<?x4xf32>, tensor<2xi64>, tensor<3xf16>
}
