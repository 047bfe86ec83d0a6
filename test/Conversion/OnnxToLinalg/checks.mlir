// RUN: nibble-opt --split-input-file --convert-onnx-to-linalg --canonicalize %s | FileCheck %s

// What is not known to hold is checked when the code runs; what the names of
// dimensions say is not.

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
// CHECK-LABEL: func.func @inner
func.func @inner(%a: tensor<?x?xf32, #onnx.dims<"m", "k">>, %b: tensor<?x4xf32, #onnx.dims<"k">>, %c: tensor<?x4xf32, #onnx.dims<"other">>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  // CHECK: cf.assert %{{.*}}, "node 'bad': the columns of the first factor are not the rows of the second"
  // CHECK-NOT: cf.assert
  %y = onnx.node "MatMul"(%a, %b) name "good" outputs ["y"] : (tensor<?x?xf32, #onnx.dims<"m", "k">>, tensor<?x4xf32, #onnx.dims<"k">>) -> tensor<?x4xf32>
  %z = onnx.node "MatMul"(%a, %c) name "bad" outputs ["z"] : (tensor<?x?xf32, #onnx.dims<"m", "k">>, tensor<?x4xf32, #onnx.dims<"other">>) -> tensor<?x4xf32>
  return %y, %z : tensor<?x4xf32>, tensor<?x4xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
// CHECK-LABEL: func.func @gather
func.func @gather(%table: tensor<5x4xf32>, %rows: tensor<?xi64>) -> (tensor<?x4xf32>, tensor<2x4xf32>) {
  // CHECK: cf.assert %{{.*}}, "node 'computed': index is out of range"
  // CHECK-NOT: cf.assert
  %y = onnx.node "Gather"(%table, %rows) name "computed" outputs ["y"] : (tensor<5x4xf32>, tensor<?xi64>) -> tensor<?x4xf32>
  %i = onnx.constant "i" : tensor<2xi64> = dense<[-5, 4]>
  %z = onnx.node "Gather"(%table, %i) name "constant" outputs ["z"] : (tensor<5x4xf32>, tensor<2xi64>) -> tensor<2x4xf32>
  return %y, %z : tensor<?x4xf32>, tensor<2x4xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
// CHECK-LABEL: func.func @shapes
func.func @shapes(%a: tensor<?xf32, #onnx.dims<"a">>, %b: tensor<?xf32, #onnx.dims<"b">>, %shape: tensor<2xi64>) -> (tensor<?xf32>, tensor<?x?xf32>) {
  // CHECK: cf.assert %{{.*}}, "node 'sum': the shapes do not broadcast"
  // CHECK: cf.assert %{{.*}}, "node 'reshape': the new shape has another number of elements"
  %y = onnx.node "Add"(%a, %b) name "sum" outputs ["y"] : (tensor<?xf32, #onnx.dims<"a">>, tensor<?xf32, #onnx.dims<"b">>) -> tensor<?xf32>
  %z = onnx.node "Reshape"(%a, %shape) name "reshape" outputs ["z"] : (tensor<?xf32, #onnx.dims<"a">>, tensor<2xi64>) -> tensor<?x?xf32>
  return %y, %z : tensor<?xf32>, tensor<?x?xf32>
}
}

// -----

// The transpose of a quantized matrix, which is what reading MatMulNBits gives.

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
// CHECK-LABEL: func.func @transposed
// CHECK-SAME: %[[X:.*]]: tensor<?x64xf32>, %[[W:.*]]: tensor<8x64xf32, #nibble.quantized
func.func @transposed(%x: tensor<?x64xf32>, %w: tensor<8x64xf32, #nibble.quantized<u4, block = [1, 32], scale = f32>>) -> tensor<?x8xf32> {
  // CHECK-NEXT: %[[Y:.*]] = nibble.matmul %[[X]], transposed %[[W]]
  // CHECK-NEXT: return %[[Y]]
  %t = onnx.node "Transpose"(%w) outputs ["t"] {perm = array<i64: 1, 0>} : (tensor<8x64xf32, #nibble.quantized<u4, block = [1, 32], scale = f32>>) -> tensor<64x8xf32>
  %y = onnx.node "MatMul"(%x, %t) outputs ["y"] : (tensor<?x64xf32>, tensor<64x8xf32>) -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
}
