// RUN: nibble-opt %s --split-input-file --nibble-split-sparse-outliers | FileCheck %s

// What the code says at (3, 2), 1, is subtracted from the outlier.
// CHECK-LABEL: func @main
// CHECK-DAG: %[[ZERO:.*]] = onnx.constant "w.outlier_axis" : tensor<i64> = dense<0>
// CHECK-DAG: %[[STORED:.*]] = onnx.constant "w.outlier_inputs" : tensor<4xui16> = dense<[0, 0, 2, 3]>
// CHECK-DAG: %[[COUNTED:.*]] = onnx.constant "w.outlier_counts" : tensor<3xui16> = dense<[0, 2, 1]>
// CHECK-DAG: %[[HALVES:.*]] = onnx.constant "w.outliers" : tensor<4xf16> = dense<[0.000000e+00, 5.000000e+00, -7.000000e+00, 8.000000e+00]>
// CHECK-DAG: %[[INPUTS:.*]] = onnx.node "Cast"(%[[STORED]]) {{.*}} {to = 6 : i64} : (tensor<4xui16>) -> tensor<4xi32>
// CHECK-DAG: %[[COUNTS:.*]] = onnx.node "Cast"(%[[COUNTED]]) {{.*}} {to = 6 : i64} : (tensor<3xui16>) -> tensor<3xi32>
// CHECK-DAG: %[[BEGINS:.*]] = onnx.node "CumSum"(%[[COUNTS]], %[[ZERO]]) {{.*}} {exclusive = 1 : i64}
// CHECK-DAG: %[[ENDS:.*]] = onnx.node "CumSum"(%[[COUNTS]], %[[ZERO]]) {{.*}} {exclusive = 0 : i64}
// CHECK-DAG: %[[VALUES:.*]] = onnx.node "Cast"(%[[HALVES]]) {{.*}} {to = 1 : i64} : (tensor<4xf16>) -> tensor<4xf32>
// CHECK-DAG: %[[W:.*]] = nibble.assemble {{.*}} : tensor<4x3xf32, #nibble.quantized<i4, block = [4, 1], scale = f32>>
// CHECK: %[[TURNED:.*]] = onnx.node "Transpose"(%[[X:.*]]) {{.*}} {perm = array<i64: 1, 0>} : (tensor<?x4xf32, #onnx.dims<"m">>) -> tensor<4x?xf32, #onnx.dims<"m">>
// CHECK: %[[COLUMN:.*]] = onnx.node "Reshape"(%[[VALUES]], %{{.*}}) {{.*}} -> tensor<4x1xf32>
// CHECK: %[[GATHERED:.*]] = onnx.node "Gather"(%[[TURNED]], %[[INPUTS]]) {{.*}} {axis = 0 : i64}
// CHECK: %[[PRODUCTS:.*]] = onnx.node "Mul"(%[[GATHERED]], %[[COLUMN]])
// CHECK: %[[SUMS:.*]] = onnx.node "CumSum"(%[[PRODUCTS]], %[[ZERO]])
// CHECK-DAG: %[[LAST:.*]] = onnx.node "Gather"(%[[SUMS]], %[[ENDS]])
// CHECK-DAG: %[[BEFORE:.*]] = onnx.node "Gather"(%[[SUMS]], %[[BEGINS]])
// CHECK: %[[ADDED:.*]] = onnx.node "Sub"(%[[LAST]], %[[BEFORE]])
// CHECK: %[[BACK:.*]] = onnx.node "Transpose"(%[[ADDED]]) {{.*}} {perm = array<i64: 1, 0>}
// CHECK: %[[DENSE:.*]] = onnx.node "MatMul"(%[[X]], %[[W]]) name "product" outputs ["y_dense"]
// CHECK: %[[Y:.*]] = onnx.node "Add"(%[[DENSE]], %[[BACK]]) name "y_sum" outputs ["y"]
// CHECK: return %[[Y]]
func.func @main(%x: tensor<?x4xf32, #onnx.dims<"m">>) -> tensor<?x3xf32, #onnx.dims<"m">> {
  %codes = onnx.constant "w.codes" : tensor<4x3xi4> = dense<[[1, 0, 3], [4, 5, 6], [-7, 0, 1], [2, 3, 1]]>
  %scales = onnx.constant "w.scales" : tensor<1x3xf32> = dense<1.0>
  %places = onnx.constant "w.places" : tensor<3x2xi32> = dense<[[0, 1], [2, 1], [3, 2]]>
  %values = onnx.constant "w.values" : tensor<3xf16> = dense<[5.0, -7.0, 9.0]>
  %w = nibble.assemble %codes scales(%scales) outliers(%places, %values : tensor<3x2xi32>, tensor<3xf16>)
    : tensor<4x3xf32, #nibble.quantized<i4, block = [4, 1], scale = f32, outliers = sparse<f16>>>
  %y = onnx.node "MatMul"(%x, %w) name "product" outputs ["y"]
    : (tensor<?x4xf32, #onnx.dims<"m">>, tensor<4x3xf32, #nibble.quantized<i4, block = [4, 1], scale = f32, outliers = sparse<f16>>>)
    -> tensor<?x3xf32, #onnx.dims<"m">>
  return %y : tensor<?x3xf32, #onnx.dims<"m">>
}

// -----

#sparse = #nibble.quantized<i4, block = [1, *], scale = f32, outliers = sparse<f32>>

// Outliers that f16 cannot hold are stored in f32. A Transpose and transB lead to the same
// inputs; the two products share the list.
// CHECK-LABEL: func @shared
// CHECK-DAG: onnx.constant "w.outlier_inputs" : tensor<2xui16> = dense<[0, 1]>
// CHECK-DAG: onnx.constant "w.outlier_counts" : tensor<2xui16> = dense<[1, 0]>
// CHECK-DAG: %[[VALUES:.*]] = onnx.constant "w.outliers" : tensor<2xf32> = dense<[0.000000e+00, 1.000000e+06]>
// CHECK-DAG: %[[THREE:.*]] = onnx.node "Reshape"(%[[VALUES]], %{{.*}}) {{.*}} -> tensor<2x1x1xf32>
// CHECK-DAG: %[[TWO:.*]] = onnx.node "Reshape"(%[[VALUES]], %{{.*}}) {{.*}} -> tensor<2x1xf32>
// CHECK-DAG: onnx.node "Mul"(%{{.*}}, %[[THREE]]) {{.*}} -> tensor<2x2x5xf32>
// CHECK-DAG: onnx.node "Mul"(%{{.*}}, %[[TWO]]) {{.*}} -> tensor<2x5xf32>
func.func @shared(%x: tensor<2x5x3xf32>, %z: tensor<5x3xf32>) -> (tensor<2x5x2xf32>, tensor<5x2xf32>) {
  %codes = onnx.constant "w.codes" : tensor<2x3xi4> = dense<0>
  %scales = onnx.constant "w.scales" : tensor<2x1xf32> = dense<1.0>
  %places = onnx.constant "w.places" : tensor<1x2xi32> = dense<[[0, 1]]>
  %values = onnx.constant "w.values" : tensor<1xf32> = dense<[1.0e6]>
  %w = nibble.assemble %codes scales(%scales) outliers(%places, %values : tensor<1x2xi32>, tensor<1xf32>) : tensor<2x3xf32, #sparse>
  %t = onnx.node "Transpose"(%w) outputs ["t"] {perm = array<i64: 1, 0>} : (tensor<2x3xf32, #sparse>) -> tensor<3x2xf32>
  %y = onnx.node "MatMul"(%x, %t) outputs ["y"] : (tensor<2x5x3xf32>, tensor<3x2xf32>) -> tensor<2x5x2xf32>
  %u = onnx.node "Gemm"(%z, %w) outputs ["u"] {transB = 1 : i64} : (tensor<5x3xf32>, tensor<2x3xf32, #sparse>) -> tensor<5x2xf32>
  return %y, %u : tensor<2x5x2xf32>, tensor<5x2xf32>
}

// -----

#sparse = #nibble.quantized<i4, block = [1, *], scale = f32, outliers = sparse<f16>>

// A table that is gathered too, and a product with a factor.
// CHECK-LABEL: func @kept
// CHECK-COUNT-2: outliers = sparse<f16>
// CHECK-NOT: "CumSum"
func.func @kept(%x: tensor<2x3xf32>, %i: tensor<1xi64>) -> (tensor<2x2xf32>, tensor<1x3xf32>, tensor<2x2xf32>) {
  %codes = onnx.constant "w.codes" : tensor<2x3xi4> = dense<0>
  %scales = onnx.constant "w.scales" : tensor<2x1xf32> = dense<1.0>
  %places = onnx.constant "w.places" : tensor<1x2xi32> = dense<[[0, 1]]>
  %values = onnx.constant "w.values" : tensor<1xf16> = dense<[1.0]>
  %w = nibble.assemble %codes scales(%scales) outliers(%places, %values : tensor<1x2xi32>, tensor<1xf16>) : tensor<2x3xf32, #sparse>
  %v = nibble.assemble %codes scales(%scales) outliers(%places, %values : tensor<1x2xi32>, tensor<1xf16>) : tensor<2x3xf32, #sparse>
  %y = onnx.node "Gemm"(%x, %w) outputs ["y"] {transB = 1 : i64} : (tensor<2x3xf32>, tensor<2x3xf32, #sparse>) -> tensor<2x2xf32>
  %r = onnx.node "Gather"(%w, %i) outputs ["r"] : (tensor<2x3xf32, #sparse>, tensor<1xi64>) -> tensor<1x3xf32>
  %u = onnx.node "Gemm"(%x, %v) outputs ["u"] {transB = 1 : i64, alpha = 2.0 : f32} : (tensor<2x3xf32>, tensor<2x3xf32, #sparse>) -> tensor<2x2xf32>
  return %y, %r, %u : tensor<2x2xf32>, tensor<1x3xf32>, tensor<2x2xf32>
}
