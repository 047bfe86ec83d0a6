// RUN: nibble-opt %s --convert-nibble-to-onnx | FileCheck %s

// A record that no longer says what the program says is not used: here somebody has
// doubled the scale since.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
// CHECK-LABEL: func.func @changed
// CHECK: onnx.constant {{.*}}"codes_scale" : tensor<f32> = dense<1.000000e+00>
// CHECK: onnx.node "DequantizeLinear"
// CHECK-NOT: dense<5.000000e-01>
func.func @changed(%x: tensor<2x2x2xf32>) -> !onnx.unknown {
  %codes = onnx.constant "codes" : tensor<2x2x2xi8> = dense<1>
  %scale = onnx.constant "scale" : tensor<1x1x1xf32> = dense<1.0>
  %w = nibble.assemble %codes scales(%scale) {nibble.onnx = {
      inputs = [{name = "codes", value = dense<1> : tensor<2x2x2xi8>}, {name = "scale", value = dense<0.5> : tensor<f32>}],
      op_type = "DequantizeLinear", outputs = ["w"], types = [tensor<2x2x2xf32>]}}
      : tensor<2x2x2xf32, #nibble.quantized<i8, block = [*, *, *], scale = f32>>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<2x2x2xf32>, tensor<2x2x2xf32, #nibble.quantized<i8, block = [*, *, *], scale = f32>>) -> !onnx.unknown
  return %y : !onnx.unknown
}

// Neither is one that is damaged.
// CHECK-LABEL: func.func @damaged
// CHECK: onnx.node "DequantizeLinear"
// CHECK-NOT: nibble
func.func @damaged(%x: tensor<2x2x2xf32>) -> !onnx.unknown {
  %codes = onnx.constant "codes2" : tensor<2x2x2xi8> = dense<1>
  %scale = onnx.constant "scale2" : tensor<1x1x1xf32> = dense<1.0>
  %w = nibble.assemble %codes scales(%scale) {nibble.onnx = {inputs = 7 : i64, op_type = "DequantizeLinear", outputs = [1], types = []}}
      : tensor<2x2x2xf32, #nibble.quantized<i8, block = [*, *, *], scale = f32>>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] {} {nibble.onnx = {op_type = "MatMulNBits"}}
      : (tensor<2x2x2xf32>, tensor<2x2x2xf32, #nibble.quantized<i8, block = [*, *, *], scale = f32>>) -> !onnx.unknown
  return %y : !onnx.unknown
}
}
