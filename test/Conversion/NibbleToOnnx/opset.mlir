// RUN: nibble-opt %s --convert-nibble-to-onnx=format=qdq --split-input-file --verify-diagnostics | FileCheck %s

// ReduceMean takes its axes as an input from opset 18 on: the node is rewritten.
// CHECK: module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]}
module attributes {onnx.ir_version = 3 : i64, onnx.opsets = [#onnx.opset<14 in "">]} {
// CHECK-LABEL: func @moves
func.func @moves(%x: tensor<1x32xf32>) {
  %codes = onnx.constant "w.codes" : tensor<32x2xui4> = dense<3>
  %scales = onnx.constant "w.scales" : tensor<2x2xf32> = dense<1.0>
  %w = nibble.assemble %codes scales(%scales) : tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>
  // CHECK: onnx.node "DequantizeLinear"(%{{.*}}, %{{.*}}) name "w_DequantizeLinear" outputs ["w"] {axis = 0 : i64, block_size = 16 : i64}
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<1x32xf32>, tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>) -> tensor<1x2xf32>
  // CHECK: %[[AXES:.*]] = onnx.constant "m_axes" : tensor<1xi64> = dense<-1>
  // CHECK: onnx.node "ReduceMean"(%{{.*}}, %[[AXES]]) outputs ["m"] {keepdims = 1 : i64}
  %m = onnx.node "ReduceMean"(%y) outputs ["m"] {axes = array<i64: -1>, keepdims = 1 : i64} : (tensor<1x2xf32>) -> tensor<1x1xf32>
  // A Split into equal parts must say how many from opset 18 on.
  // CHECK: onnx.node "Split"(%{{.*}}) outputs ["s", "t"] {axis = 1 : i64, num_outputs = 2 : i64}
  %s, %t = onnx.node "Split"(%y) outputs ["s", "t"] {axis = 1 : i64} : (tensor<1x2xf32>) -> (tensor<1x1xf32>, tensor<1x1xf32>)
  return
}
}

// -----

module attributes {onnx.ir_version = 6 : i64, onnx.opsets = [#onnx.opset<11 in "">]} {
func.func @refuses(%x: tensor<1x32x1xf32>) {
  %codes = onnx.constant "w.codes" : tensor<32x2xui4> = dense<3>
  %scales = onnx.constant "w.scales" : tensor<2x2xf32> = dense<1.0>
  %w = nibble.assemble %codes scales(%scales) : tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>
  // Before opset 13 the dimensions from axis 1 on were one.
  // expected-error@+1 {{node 'soft' (Softmax) means something else from opset 13 on}}
  %s = onnx.node "Softmax"(%x) name "soft" outputs ["s"] : (tensor<1x32x1xf32>) -> tensor<1x32x1xf32>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<1x32x1xf32>, tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>) -> tensor<1x32x2xf32>
  return
}
}
