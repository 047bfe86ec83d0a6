// RUN: nibble-opt %s --nibble-separate-destinations | FileCheck %s

// CHECK-LABEL: func.func @twice(
// CHECK-DAG:     %[[A:.*]] = tensor.empty(%{{.*}}) : tensor<?xf32>
// CHECK-DAG:     %[[B:.*]] = tensor.empty(%{{.*}}) : tensor<?xf32>
// CHECK-NOT:     tensor.empty
// CHECK:         linalg.fill ins(%{{.*}}) outs(%[[FIRST:.*]] : tensor<?xf32>)
// CHECK-NOT:     outs(%[[FIRST]]
// CHECK:         linalg.fill
func.func @twice(%n: index, %x: f32, %y: f32) -> (tensor<?xf32>, tensor<?xf32>) {
  %e = tensor.empty(%n) : tensor<?xf32>
  %a = linalg.fill ins(%x : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
  %b = linalg.fill ins(%y : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
  return %a, %b : tensor<?xf32>, tensor<?xf32>
}
