// RUN: nibble-opt %s --nibble-round=scale=minmax --split-input-file | FileCheck %s
// RUN: not nibble-opt %s --nibble-round=scale=best 2>&1 | FileCheck %s --check-prefix=OPTION

// OPTION: error: 'best' is no source of scales; use minmax or search

// By hand: the range of each group of two is [0, 15], so the scale is 1.
// CHECK-LABEL: func @columns
func.func @columns(%x: tensor<1x4xf32>) {
  // CHECK: %[[CODES:.*]] = onnx.constant "w.codes" : tensor<4x2xui4> = dense<{{\[\[}}0, 15], [15, 0], [3, 15], [15, 4]]>
  // CHECK: %[[SCALES:.*]] = onnx.constant "w.scales" : tensor<2x2xf32> = dense<1.000000e+00>
  // CHECK: %[[ZEROS:.*]] = onnx.constant "w.zeros" : tensor<2x2xui4> = dense<0>
  // CHECK: %[[W:.*]] = nibble.assemble %[[CODES]] scales(%[[SCALES]]) zeros(%[[ZEROS]])
  // CHECK-SAME: nibble.sqnr
  // CHECK-SAME: tensor<4x2xf32, #nibble.quantized<u4, block = [2, 1], scale = f32, zero = u4>>
  %w = onnx.constant "w" : tensor<4x2xf32> = dense<[[0.0, 15.0], [15.0, 0.0], [3.25, 15.0], [15.0, 4.0]]>
      {nibble.encoding = #nibble.quantized<u4, block = [2, 1], scale = f32, zero = u4>}
  // CHECK: onnx.node "MatMul"(%{{.*}}, %[[W]])
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<1x4xf32>, tensor<4x2xf32>) -> tensor<1x2xf32>
  return
}

// -----

// The same numbers transposed, with groups along the last dimension.
// CHECK-LABEL: func @rows
func.func @rows(%x: tensor<1x4xf32>) {
  // CHECK: onnx.constant "w.codes" : tensor<2x4xui4> = dense<{{\[\[}}0, 15, 3, 15], [15, 0, 15, 4]]>
  // CHECK: onnx.constant "w.scales" : tensor<2x2xf32>
  %w = onnx.constant "w" : tensor<2x4xf32> = dense<[[0.0, 15.0, 3.25, 15.0], [15.0, 0.0, 15.0, 4.0]]>
      {nibble.encoding = #nibble.quantized<u4, block = [1, 2], scale = f32, zero = u4>}
  %y = onnx.node "Gemm"(%x, %w) outputs ["y"] {transB = 1 : i64} : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  return
}
