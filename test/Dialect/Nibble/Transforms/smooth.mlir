// RUN: echo '{"values": {"x": {"min": [-1, -16], "max": [1, 8], "mean": [0, 0]}, "input": {"min": [-1, -16], "max": [1, 8], "mean": [0, 0]}}}' > %t.json
// RUN: nibble-opt %s --nibble-smooth=ranges=%t.json --split-input-file | FileCheck %s

// By hand: largest inputs of 1 and 16 and weights of 1 and 1 give sqrt(1) and sqrt(16), over
// their geometric mean: 1/2 and 2. The gain takes the division.
// CHECK-LABEL: func @gain
// CHECK: %[[GAIN:.*]] = onnx.constant "gain" : tensor<2xf32> = dense<[2.000000e+00, 1.500000e+00]>
// CHECK: %[[X:.*]] = onnx.node "Mul"(%{{.*}}, %[[GAIN]]) outputs ["x"]
// CHECK: %[[W:.*]] = onnx.constant "w" : tensor<2x1xf32> = dense<{{\[\[}}5.000000e-01], [2.000000e+00]]>
// CHECK-SAME: nibble.notes = ["SmoothQuant: rounding the inputs makes 1.56 times less noise"]
// CHECK: onnx.node "MatMul"(%[[X]], %[[W]]) outputs ["y"] {} {nibble.input_range = [-8.000000e+00 : f32, 4.000000e+00 : f32]}
// CHECK: %[[V:.*]] = onnx.constant "v" : tensor<1x2xf32> = dense<{{\[\[}}2.500000e-01, 2.000000e+00]]>
// CHECK: onnx.node "Gemm"(%[[X]], %[[V]])
func.func @gain(%n: tensor<4x2xf32>) -> (tensor<4x1xf32>, tensor<4x1xf32>) {
  %gain = onnx.constant "gain" : tensor<2xf32> = dense<[1.0, 3.0]>
  %w = onnx.constant "w" : tensor<2x1xf32> = dense<1.0>
  %v = onnx.constant "v" : tensor<1x2xf32> = dense<[[0.5, 1.0]]>
  %x = onnx.node "Mul"(%n, %gain) outputs ["x"] : (tensor<4x2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<4x2xf32>, tensor<2x1xf32>) -> tensor<4x1xf32>
  %z = onnx.node "Gemm"(%x, %v) outputs ["z"] {transB = 1 : i64} : (tensor<4x2xf32>, tensor<1x2xf32>) -> tensor<4x1xf32>
  return %y, %z : tensor<4x1xf32>, tensor<4x1xf32>
}

// -----

// Nothing before the input of a graph takes a division, and a Mul would not pay.
// CHECK-LABEL: func @input
// CHECK: onnx.constant "w" : tensor<2x1xf32> = dense<1.000000e+00>
// CHECK-SAME: nibble.notes = ["inputs not rescaled: 'input' is an input, and a Mul for 1.88 times less noise does not pay"]
// CHECK: onnx.node "MatMul"(%arg0,
func.func @input(%x: tensor<4x2xf32>) -> tensor<4x1xf32>
    attributes {onnx.graph = #onnx.graph<inputs ["input"] outputs ["y"] value_info []>} {
  %w = onnx.constant "w" : tensor<2x1xf32> = dense<1.0>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<4x2xf32>, tensor<2x1xf32>) -> tensor<4x1xf32>
  return %y : tensor<4x1xf32>
}
