// RUN: echo '{"values": {"x": {"min": [-1, -100], "max": [1, 100], "mean": [0, 0], "variance": [1, 10000], "magnitude": [1, 100]}}}' > %t.json
// RUN: nibble-opt %s --nibble-awq=ranges=%t.json | FileCheck %s

// The small weight meets the large input: scaled up it is rounded more finely. A weight that
// stays in float takes part all the same, and keeps the function.
// CHECK-LABEL: func @main
// CHECK: onnx.constant "w" : tensor<2x1xf32>
// CHECK-SAME: nibble.encoding
// CHECK-SAME: nibble.notes = ["AWQ: inputs divided by their mean magnitude to the power 0.{{[0-9]+}}; the error of rounding is 0.{{[0-9]+}} of what it was"]
// CHECK-NOT: "Mul"
// CHECK: onnx.constant "kept"
// CHECK-SAME: nibble.notes = ["AWQ
func.func @main(%n: tensor<4x2xf32>) -> (tensor<4x1xf32>, tensor<4x1xf32>) {
  %gain = onnx.constant "gain" : tensor<2xf32> = dense<[1.0, 3.0]>
  %w = onnx.constant "w" : tensor<2x1xf32> = dense<[[1.0], [0.0375]]>
      {nibble.encoding = #nibble.quantized<i4, block = [*, 1], scale = f32>}
  %k = onnx.constant "kept" : tensor<2x1xf32> = dense<1.0>
  %x = onnx.node "Div"(%n, %gain) outputs ["x"] : (tensor<4x2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<4x2xf32>, tensor<2x1xf32>) -> tensor<4x1xf32>
  %z = onnx.node "MatMul"(%x, %k) outputs ["z"] : (tensor<4x2xf32>, tensor<2x1xf32>) -> tensor<4x1xf32>
  return %y, %z : tensor<4x1xf32>, tensor<4x1xf32>
}
