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

module attributes {onnx.ir_version = 5 : i64, onnx.opsets = [#onnx.opset<10 in "">]} {
func.func @refuses(%x: tensor<1x32x1xf32>, %scales_of_x: tensor<3xf32>) {
  %codes = onnx.constant "w.codes" : tensor<32x2xui4> = dense<3>
  %scales = onnx.constant "w.scales" : tensor<2x2xf32> = dense<1.0>
  %w = nibble.assemble %codes scales(%scales) : tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>
  // Runtimes differ in how the first Resize makes less of a tensor.
  // expected-error@+1 {{node 'small' (Resize) means something else from opset 11 on}}
  %s = onnx.node "Resize"(%x, %scales_of_x) name "small" outputs ["s"] : (tensor<1x32x1xf32>, tensor<3xf32>) -> tensor<?x?x?xf32>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<1x32x1xf32>, tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>) -> tensor<1x32x2xf32>
  return
}
}

// -----

// CHECK: onnx.opsets = [#onnx.opset<21 in "">]
module attributes {onnx.ir_version = 3 : i64, onnx.opsets = [#onnx.opset<8 in "">]} {
// CHECK-LABEL: func @old_forms
func.func @old_forms(%x: tensor<1x32x1xf32>, %image: tensor<1x2x4x4xf32>) {
  %codes = onnx.constant "w.codes" : tensor<32x2xui4> = dense<3>
  %scales = onnx.constant "w.scales" : tensor<2x2xf32> = dense<1.0>
  %w = nibble.assemble %codes scales(%scales) : tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>
  // Before opset 13 the dimensions from axis 1 on were one.
  // CHECK: %[[SHAPE:.*]] = onnx.node "Shape"(%[[X:.*]]) name "s_shape" outputs ["s_shape"]
  // CHECK: %[[FLAT:.*]] = onnx.node "Flatten"(%[[X]]) name "s_flat_input" outputs ["s_flat_input"] {axis = 1 : i64}
  // CHECK: %[[SOFT:.*]] = onnx.node "Softmax"(%[[FLAT]]) name "soft" outputs ["s_flat"] {axis = 1 : i64}
  // CHECK: onnx.node "Reshape"(%[[SOFT]], %[[SHAPE]]) name "s" outputs ["s"]
  %s = onnx.node "Softmax"(%x) name "soft" outputs ["s"] : (tensor<1x32x1xf32>) -> tensor<1x32x1xf32>
  // CHECK: %[[ABSENT:.*]] = onnx.absent
  // CHECK: %[[MAX:.*]] = onnx.constant "c_max" : tensor<f32> = dense<6.000000e+00>
  // CHECK: onnx.node "Clip"(%{{.*}}, %[[ABSENT]], %[[MAX]]) outputs ["c"] :
  %c = onnx.node "Clip"(%image) outputs ["c"] {max = 6.0 : f32} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  // CHECK: %[[SCALES:.*]] = onnx.constant "u_scales" : tensor<4xf32> = dense<[1.000000e+00, 1.000000e+00, 2.000000e+00, 2.000000e+00]>
  // CHECK: %[[REGION:.*]] = onnx.constant "u_roi" : tensor<0xf32>
  // CHECK: onnx.node "Resize"(%{{.*}}, %[[REGION]], %[[SCALES]]) outputs ["u"] {mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"}
  %u = onnx.node "Upsample"(%c) outputs ["u"] {mode = "nearest", scales = array<f32: 1.0, 1.0, 2.0, 2.0>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x8x8xf32>
  // CHECK: %[[PADS:.*]] = onnx.constant "p_pads" : tensor<8xi64>
  // CHECK: onnx.node "Pad"(%{{.*}}, %[[PADS]], %{{.*}}) outputs ["p"] {mode = "reflect"}
  %p = onnx.node "Pad"(%u) outputs ["p"] {mode = "reflect", pads = array<i64: 0, 0, 1, 1, 0, 0, 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x10x10xf32>
  // CHECK: %[[K:.*]] = onnx.constant "t_k" : tensor<1xi64> = dense<3>
  // CHECK: onnx.node "TopK"(%{{.*}}, %[[K]]) outputs ["t", "i"] :
  %t, %i = onnx.node "TopK"(%p) outputs ["t", "i"] {k = 3 : i64} : (tensor<1x2x10x10xf32>) -> (tensor<1x2x10x3xf32>, tensor<1x2x10x3xi64>)
  // CHECK: onnx.node "Dropout"(%{{.*}}) outputs ["d"] :
  %d = onnx.node "Dropout"(%x) outputs ["d"] {ratio = 0.5 : f32} : (tensor<1x32x1xf32>) -> tensor<1x32x1xf32>
  %y = onnx.node "MatMul"(%d, %w) outputs ["y"] : (tensor<1x32x1xf32>, tensor<32x2xf32, #nibble.quantized<u4, block = [16, 1], scale = f32>>) -> tensor<1x32x2xf32>
  return
}
}
