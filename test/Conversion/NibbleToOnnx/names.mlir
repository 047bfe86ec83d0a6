// RUN: nibble-opt %s --convert-nibble-to-onnx | FileCheck %s
// RUN: nibble-opt %s --convert-nibble-to-onnx=format=qdq | FileCheck %s --check-prefix=QDQ

// What a weight brings with it is called otherwise than any value of the model: an
// input, a constant, the results of nodes.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
// CHECK-LABEL: func.func @main
// CHECK-DAG: %[[B:.*]] = onnx.constant {{.*}}"w_Q4_2" : tensor<4x1x8xui8>
// CHECK-DAG: %[[S:.*]] = onnx.constant {{.*}}"w_scales_1" : tensor<4x1xf32>
// CHECK: onnx.node "MatMulNBits" in "com.microsoft"(%{{.*}}, %[[B]], %[[S]]) {{.*}} outputs ["w_Q4"]
// CHECK: outputs ["w_Q4_1"]
// QDQ-LABEL: func.func @main
// QDQ-DAG: onnx.constant {{.*}}"w_quantized" : tensor<16x4xui4>
// QDQ-DAG: onnx.constant {{.*}}"w_scale_1" : tensor<4xf32>
// QDQ: onnx.node "DequantizeLinear"({{.*}}) {{.*}} outputs ["w"]
func.func @main(%x: tensor<2x16xf32>) -> tensor<2x4xf32> attributes {
    onnx.graph = #onnx.graph<inputs ["w_scales"] outputs ["w_Q4_1"] value_info []>} {
  %other = onnx.constant "w_scale" : tensor<4xf32> = dense<1.0>
  %codes = onnx.constant "w.codes" : tensor<16x4xui4> = dense<9>
  %scales = onnx.constant "w.scales" : tensor<1x4xf32> = dense<0.5>
  %w = nibble.assemble %codes scales(%scales) : tensor<16x4xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>
  %y = onnx.node "MatMul"(%x, %w) outputs ["w_Q4"] : (tensor<2x16xf32>, tensor<16x4xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>) -> tensor<2x4xf32>
  %z = onnx.node "Add"(%y, %other) outputs ["w_Q4_1"] : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %z : tensor<2x4xf32>
}
}
