// RUN: nibble-opt --split-input-file --convert-onnx-to-linalg %s | FileCheck %s

// Four heads of the query share two of the key: their rows are the rows of one
// contraction, and neither keys nor values are copied.

// CHECK-DAG: #[[LEFT:.*]] = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d2, d3)>
// CHECK-DAG: #[[TRANSPOSED:.*]] = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d4, d3)>
// CHECK-DAG: #[[RIGHT:.*]] = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d3, d4)>
// CHECK-DAG: #[[RESULT:.*]] = affine_map<(d0, d1, d2, d3, d4) -> (d0, d1, d2, d4)>
module attributes {onnx.opsets = [#onnx.opset<23 in "">]} {
// CHECK-LABEL: func.func @grouped
// CHECK-SAME: %[[Q:.*]]: tensor<1x4x3x8xf32>, %[[K:.*]]: tensor<1x2x5x8xf32>, %[[V:.*]]: tensor<1x2x5x6xf32>
func.func @grouped(%q: tensor<1x4x3x8xf32>, %k: tensor<1x2x5x8xf32>, %v: tensor<1x2x5x6xf32>) -> tensor<1x4x3x6xf32> {
  // CHECK: %[[SPLIT:.*]] = tensor.expand_shape %[[Q]] {{.*}} into tensor<1x2x2x3x8xf32>
  // CHECK: %[[ROWS:.*]] = tensor.collapse_shape %[[SPLIT]] {{.*}} into tensor<1x2x6x8xf32>
  // CHECK: linalg.generic {indexing_maps = [#[[LEFT]], #[[TRANSPOSED]], #[[RESULT]]]
  // CHECK-SAME: ["parallel", "parallel", "parallel", "reduction", "parallel"]
  // CHECK-SAME: ins(%[[ROWS]], %[[K]] : tensor<1x2x6x8xf32>, tensor<1x2x5x8xf32>)
  // CHECK: math.exp
  // CHECK: linalg.generic {indexing_maps = [#[[LEFT]], #[[RIGHT]], #[[RESULT]]]
  // CHECK-SAME: ins(%{{.*}}, %[[V]] : tensor<1x2x6x5xf32>, tensor<1x2x5x6xf32>)
  %y = onnx.node "Attention"(%q, %k, %v) outputs ["y"] : (tensor<1x4x3x8xf32>, tensor<1x2x5x8xf32>, tensor<1x2x5x6xf32>) -> tensor<1x4x3x6xf32>
  return %y : tensor<1x4x3x6xf32>
}
}

// -----

// What is cached is one insertion, the new keys are another.

module attributes {onnx.opsets = [#onnx.opset<23 in "">]} {
// CHECK-LABEL: func.func @cached
// CHECK-SAME: %[[Q:.*]]: tensor<1x2x1x8xf32>, %[[K:.*]]: tensor<1x2x1x8xf32>, %[[V:.*]]: tensor<1x2x1x8xf32>, %[[PK:.*]]: tensor<1x2x?x8xf32>, %[[PV:.*]]: tensor<1x2x?x8xf32>
func.func @cached(%q: tensor<1x2x1x8xf32>, %k: tensor<1x2x1x8xf32>, %v: tensor<1x2x1x8xf32>, %pk: tensor<1x2x?x8xf32, #onnx.dims<"past">>, %pv: tensor<1x2x?x8xf32, #onnx.dims<"past">>) -> (tensor<1x2x1x8xf32>, tensor<1x2x?x8xf32>, tensor<1x2x?x8xf32>) {
  %none = onnx.absent
  // One name, one size: there is nothing to check.
  // CHECK-NOT: cf.assert
  // CHECK: %[[OLD:.*]] = tensor.insert_slice %[[PK]] into
  // CHECK: %[[KEYS:.*]] = tensor.insert_slice %[[K]] into %[[OLD]]
  // CHECK: tensor.insert_slice %[[PV]] into
  // CHECK: linalg.generic
  // CHECK-SAME: ins(%[[Q]], %[[KEYS]] :
  %y, %nk, %nv = onnx.node "Attention"(%q, %k, %v, %none, %pk, %pv) outputs ["y", "nk", "nv"] {is_causal = 1 : i64} : (tensor<1x2x1x8xf32>, tensor<1x2x1x8xf32>, tensor<1x2x1x8xf32>, none, tensor<1x2x?x8xf32, #onnx.dims<"past">>, tensor<1x2x?x8xf32, #onnx.dims<"past">>) -> (tensor<1x2x1x8xf32>, tensor<1x2x?x8xf32>, tensor<1x2x?x8xf32>)
  return %y, %nk, %nv : tensor<1x2x1x8xf32>, tensor<1x2x?x8xf32>, tensor<1x2x?x8xf32>
}
}
