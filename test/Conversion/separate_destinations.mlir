// RUN: nibble-opt %s --nibble-separate-destinations | FileCheck %s

// CHECK-LABEL: func.func @twice(
// CHECK-NEXT:    %[[A:.*]] = tensor.empty(%{{.*}}) : tensor<?xf32>
// CHECK-NEXT:    linalg.fill ins(%{{.*}}) outs(%[[A]] : tensor<?xf32>)
// CHECK-NEXT:    %[[B:.*]] = tensor.empty(%{{.*}}) : tensor<?xf32>
// CHECK-NEXT:    linalg.fill ins(%{{.*}}) outs(%[[B]] : tensor<?xf32>)
// CHECK-NEXT:    return
func.func @twice(%n: index, %x: f32, %y: f32) -> (tensor<?xf32>, tensor<?xf32>) {
  %e = tensor.empty(%n) : tensor<?xf32>
  %a = linalg.fill ins(%x : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
  %b = linalg.fill ins(%y : f32) outs(%e : tensor<?xf32>) -> tensor<?xf32>
  return %a, %b : tensor<?xf32>, tensor<?xf32>
}
