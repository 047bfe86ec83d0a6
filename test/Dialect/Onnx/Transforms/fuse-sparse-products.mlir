// RUN: nibble-opt %s --split-input-file --onnx-fuse-sparse-products | FileCheck %s

// CHECK-LABEL: func @main
// CHECK-DAG: %[[INPUTS:.*]] = onnx.constant "inputs"
// CHECK-DAG: %[[VALUES:.*]] = onnx.constant "values"
// CHECK-DAG: %[[OFFSETS:.*]] = onnx.constant "y_offsets" : tensor<4xi32> = dense<[0, 0, 2, 3]>
// CHECK-NOT: "CumSum"
// CHECK: %[[Y:.*]] = onnx.node "SparseMatMul" in "nibble"(%{{.*}}, %[[INPUTS]], %[[VALUES]], %[[OFFSETS]]) name "y" outputs ["y"]
// CHECK: return %[[Y]]
func.func @main(%x: tensor<?x4xf32>) -> tensor<?x3xf32> {
  %zero = onnx.constant "zero" : tensor<i64> = dense<0>
  %inputs = onnx.constant "inputs" : tensor<4xi32> = dense<[0, 0, 2, 3]>
  %values = onnx.constant "values" : tensor<4x1xf32> = dense<[[0.0], [5.0], [-7.0], [8.0]]>
  %counts = onnx.constant "counts" : tensor<3xi32> = dense<[0, 2, 1]>
  %begins = onnx.node "CumSum"(%counts, %zero) outputs ["begins"] {exclusive = 1 : i64} : (tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
  %ends = onnx.node "CumSum"(%counts, %zero) outputs ["ends"] : (tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
  %t = onnx.node "Transpose"(%x) outputs ["t"] {perm = array<i64: 1, 0>} : (tensor<?x4xf32>) -> tensor<4x?xf32>
  %g = onnx.node "Gather"(%t, %inputs) outputs ["g"] : (tensor<4x?xf32>, tensor<4xi32>) -> tensor<4x?xf32>
  %p = onnx.node "Mul"(%g, %values) outputs ["p"] : (tensor<4x?xf32>, tensor<4x1xf32>) -> tensor<4x?xf32>
  %s = onnx.node "CumSum"(%p, %zero) outputs ["s"] : (tensor<4x?xf32>, tensor<i64>) -> tensor<4x?xf32>
  %e = onnx.node "Gather"(%s, %ends) outputs ["e"] : (tensor<4x?xf32>, tensor<3xi32>) -> tensor<3x?xf32>
  %f = onnx.node "Gather"(%s, %begins) outputs ["f"] : (tensor<4x?xf32>, tensor<3xi32>) -> tensor<3x?xf32>
  %d = onnx.node "Sub"(%e, %f) outputs ["d"] : (tensor<3x?xf32>, tensor<3x?xf32>) -> tensor<3x?xf32>
  %y = onnx.node "Transpose"(%d) outputs ["y"] {perm = array<i64: 1, 0>} : (tensor<3x?xf32>) -> tensor<?x3xf32>
  return %y : tensor<?x3xf32>
}

// -----

// Counts that go beyond the entries, as a node would say when it runs.
// CHECK-LABEL: func @out_of_range
// CHECK-NOT: "SparseMatMul"
func.func @out_of_range(%x: tensor<?x4xf32>) -> tensor<?x3xf32> {
  %zero = onnx.constant "zero" : tensor<i64> = dense<0>
  %inputs = onnx.constant "inputs" : tensor<4xi32> = dense<[0, 0, 2, 3]>
  %values = onnx.constant "values" : tensor<4x1xf32> = dense<[[0.0], [5.0], [-7.0], [8.0]]>
  %counts = onnx.constant "counts" : tensor<3xi32> = dense<[0, 2, 2]>
  %begins = onnx.node "CumSum"(%counts, %zero) outputs ["begins"] {exclusive = 1 : i64} : (tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
  %ends = onnx.node "CumSum"(%counts, %zero) outputs ["ends"] : (tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
  %t = onnx.node "Transpose"(%x) outputs ["t"] {perm = array<i64: 1, 0>} : (tensor<?x4xf32>) -> tensor<4x?xf32>
  %g = onnx.node "Gather"(%t, %inputs) outputs ["g"] : (tensor<4x?xf32>, tensor<4xi32>) -> tensor<4x?xf32>
  %p = onnx.node "Mul"(%g, %values) outputs ["p"] : (tensor<4x?xf32>, tensor<4x1xf32>) -> tensor<4x?xf32>
  %s = onnx.node "CumSum"(%p, %zero) outputs ["s"] : (tensor<4x?xf32>, tensor<i64>) -> tensor<4x?xf32>
  %e = onnx.node "Gather"(%s, %ends) outputs ["e"] : (tensor<4x?xf32>, tensor<3xi32>) -> tensor<3x?xf32>
  %f = onnx.node "Gather"(%s, %begins) outputs ["f"] : (tensor<4x?xf32>, tensor<3xi32>) -> tensor<3x?xf32>
  %d = onnx.node "Sub"(%e, %f) outputs ["d"] : (tensor<3x?xf32>, tensor<3x?xf32>) -> tensor<3x?xf32>
  %y = onnx.node "Transpose"(%d) outputs ["y"] {perm = array<i64: 1, 0>} : (tensor<3x?xf32>) -> tensor<?x3xf32>
  return %y : tensor<?x3xf32>
}

// -----

// The running sums have another reader.
// CHECK-LABEL: func @other_reader
// CHECK-NOT: "SparseMatMul"
func.func @other_reader(%x: tensor<?x4xf32>) -> (tensor<?x3xf32>, tensor<4x?xf32>) {
  %zero = onnx.constant "zero" : tensor<i64> = dense<0>
  %inputs = onnx.constant "inputs" : tensor<4xi32> = dense<[0, 0, 2, 3]>
  %values = onnx.constant "values" : tensor<4x1xf32> = dense<[[0.0], [5.0], [-7.0], [8.0]]>
  %counts = onnx.constant "counts" : tensor<3xi32> = dense<[0, 2, 1]>
  %begins = onnx.node "CumSum"(%counts, %zero) outputs ["begins"] {exclusive = 1 : i64} : (tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
  %ends = onnx.node "CumSum"(%counts, %zero) outputs ["ends"] : (tensor<3xi32>, tensor<i64>) -> tensor<3xi32>
  %t = onnx.node "Transpose"(%x) outputs ["t"] {perm = array<i64: 1, 0>} : (tensor<?x4xf32>) -> tensor<4x?xf32>
  %g = onnx.node "Gather"(%t, %inputs) outputs ["g"] : (tensor<4x?xf32>, tensor<4xi32>) -> tensor<4x?xf32>
  %p = onnx.node "Mul"(%g, %values) outputs ["p"] : (tensor<4x?xf32>, tensor<4x1xf32>) -> tensor<4x?xf32>
  %s = onnx.node "CumSum"(%p, %zero) outputs ["s"] : (tensor<4x?xf32>, tensor<i64>) -> tensor<4x?xf32>
  %e = onnx.node "Gather"(%s, %ends) outputs ["e"] : (tensor<4x?xf32>, tensor<3xi32>) -> tensor<3x?xf32>
  %f = onnx.node "Gather"(%s, %begins) outputs ["f"] : (tensor<4x?xf32>, tensor<3xi32>) -> tensor<3x?xf32>
  %d = onnx.node "Sub"(%e, %f) outputs ["d"] : (tensor<3x?xf32>, tensor<3x?xf32>) -> tensor<3x?xf32>
  %y = onnx.node "Transpose"(%d) outputs ["y"] {perm = array<i64: 1, 0>} : (tensor<3x?xf32>) -> tensor<?x3xf32>
  return %y, %s : tensor<?x3xf32>, tensor<4x?xf32>
}
