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

// CHECK-LABEL: func.func @filled(
// CHECK:         %[[A:.*]] = linalg.fill
// CHECK:         linalg.generic {{.*}} outs(%[[A]] :
// CHECK:         %[[B:.*]] = linalg.fill
// CHECK:         linalg.generic {{.*}} outs(%[[B]] :
// CHECK-NOT:     linalg.fill
#i = affine_map<(i) -> (i)>
func.func @filled(%x: tensor<4xf32>, %zero: f32) -> (tensor<4xf32>, tensor<4xf32>) {
  %e = tensor.empty() : tensor<4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %a = linalg.generic {indexing_maps = [#i, #i], iterator_types = ["parallel"]}
      ins(%x : tensor<4xf32>) outs(%f : tensor<4xf32>) {
  ^bb0(%p: f32, %o: f32):
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<4xf32>
  %b = linalg.generic {indexing_maps = [#i, #i], iterator_types = ["parallel"]}
      ins(%a : tensor<4xf32>) outs(%f : tensor<4xf32>) {
  ^bb0(%p: f32, %o: f32):
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<4xf32>
  return %a, %b : tensor<4xf32>, tensor<4xf32>
}
