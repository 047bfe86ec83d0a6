// RUN: nibble-opt %s --nibble-quantize-activations=mode=dynamic | FileCheck %s
// RUN: nibble-opt %s --nibble-quantize-activations=mode=dynamic --convert-nibble-to-onnx | FileCheck %s --check-prefix=ONNX

module attributes {onnx.ir_version = 8 : i64, onnx.opsets = [#onnx.opset<17 in "">]} {

// Two products share the codes of their input; one of 4 bits stays as it is. A weight that is
// read transposed is written the other way round.
// CHECK-LABEL: func @main
// CHECK: %[[Q:.*]] = nibble.quantize_dynamic %[[X:.*]] : tensor<?x2xf32, #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
// CHECK: onnx.node "MatMul"(%[[Q]],
// CHECK: onnx.node "Gemm"(%[[Q]],
// CHECK: onnx.node "MatMul"(%[[X]],
// ONNX-LABEL: func @main
// ONNX: %[[Q:.*]], %[[QS:.*]], %[[QZ:.*]] = onnx.node "DynamicQuantizeLinear"(%{{.*}}) {{.*}}outputs ["a_input_codes", "a_input_scale", "a_input_zero_point"]
// ONNX-NOT: DynamicQuantizeLinear
// ONNX: %[[W:.*]] = onnx.constant "w_quantized" : tensor<2x1xi8> = dense<{{\[\[}}1], [-2]]>
// ONNX: %[[S:.*]] = onnx.constant "w_scale" : tensor<f32> = dense<5.000000e-01>
// ONNX: %[[SUMS:.*]] = onnx.node "MatMulInteger"(%[[Q]], %[[W]], %[[QZ]])
// ONNX: %[[FLOATS:.*]] = onnx.node "Cast"(%[[SUMS]]) {{.*}}{to = 1 : i64}
// ONNX: %[[SCALE:.*]] = onnx.node "Mul"(%[[QS]], %[[S]])
// ONNX: onnx.node "Mul"(%[[FLOATS]], %[[SCALE]]) {{.*}}outputs ["a"]
// ONNX: onnx.constant "v_quantized" : tensor<2x3xi8> = dense<{{\[\[}}1, 3, 5], [2, 4, 6]]>
// ONNX: onnx.constant "v_scale" : tensor<3xf32>
// ONNX: onnx.node "Add"(%{{.*}}, %{{.*}}) {{.*}}outputs ["b"]
func.func @main(%x: tensor<?x2xf32>) -> (tensor<?x1xf32>, tensor<?x3xf32>, tensor<?x1xf32>) {
  %wc = onnx.constant "w.codes" : tensor<2x1xi8> = dense<[[1], [-2]]>
  %ws = onnx.constant "w.scales" : tensor<1x1xf32> = dense<0.5>
  %w = nibble.assemble %wc scales(%ws) : tensor<2x1xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>
  %a = onnx.node "MatMul"(%x, %w) outputs ["a"] : (tensor<?x2xf32>, tensor<2x1xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>) -> tensor<?x1xf32>
  %vc = onnx.constant "v.codes" : tensor<3x2xi8> = dense<[[1, 2], [3, 4], [5, 6]]>
  %vs = onnx.constant "v.scales" : tensor<3x1xf32> = dense<[[0.5], [0.25], [2.0]]>
  %v = nibble.assemble %vc scales(%vs) : tensor<3x2xf32, #nibble.quantized<i8, block = [1, *], scale = f32>>
  %bias = onnx.constant "bias" : tensor<3xf32> = dense<1.0>
  %b = onnx.node "Gemm"(%x, %v, %bias) outputs ["b"] {transB = 1 : i64} : (tensor<?x2xf32>, tensor<3x2xf32, #nibble.quantized<i8, block = [1, *], scale = f32>>, tensor<3xf32>) -> tensor<?x3xf32>
  %uc = onnx.constant "u.codes" : tensor<2x1xi4> = dense<[[1], [-2]]>
  %us = onnx.constant "u.scales" : tensor<1x1xf32> = dense<0.5>
  %u = nibble.assemble %uc scales(%us) : tensor<2x1xf32, #nibble.quantized<i4, block = [*, 1], scale = f32>>
  %c = onnx.node "MatMul"(%x, %u) outputs ["c"] : (tensor<?x2xf32>, tensor<2x1xf32, #nibble.quantized<i4, block = [*, 1], scale = f32>>) -> tensor<?x1xf32>
  return %a, %b, %c : tensor<?x1xf32>, tensor<?x3xf32>, tensor<?x1xf32>
}
}
