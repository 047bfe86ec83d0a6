// RUN: nibble-opt %s --nibble-quantize-scales=run=4 | FileCheck %s

// By hand: the range of the first run is [1, 256], so its step is 1 and its zero point -1; the
// codes of the weight stay.
// CHECK-LABEL: func @main
// CHECK: %[[CODES:.*]] = onnx.constant "w.codes"
// CHECK: %[[SC:.*]] = onnx.constant "w.scales.codes" : tensor<2x4xui8> = dense<{{\[\[}}0, 1, 99, 255], [255, 0, 0, 0]]>
// CHECK: %[[STEP:.*]] = onnx.constant "w.scales.scales" : tensor<2xf32> = dense<[1.000000e+00, 2.000000e+00]>
// CHECK: %[[ZERO:.*]] = onnx.constant "w.scales.zeros" : tensor<2xf32> = dense<-1.000000e+00>
// CHECK: %[[S:.*]] = nibble.assemble %[[SC]] scales(%[[STEP]]) zeros(%[[ZERO]]) : tensor<2x4xf32, #nibble.quantized<u8, block = flat [4], scale = f32, zero = f32>>
// CHECK: nibble.assemble %[[CODES]] scales(%[[S]]) : tensor<4x4xf32, #nibble.quantized<i4, block = [2, 1], scale = quantized<u8, block = flat [4], scale = f32, zero = f32>>>
// Two scales take no fewer bytes then.
// CHECK: nibble.assemble %{{.*}} scales(%{{.*}}) : tensor<4x2xf32, #nibble.quantized<i4, block = [*, 1], scale = f32>>
func.func @main() {
  %c = onnx.constant "w.codes" : tensor<4x4xi4> = dense<1>
  %s = onnx.constant "w.scales" : tensor<2x4xf32> = dense<[[1.0, 2.0, 100.0, 256.0], [512.0, 2.0, 2.0, 2.0]]>
  %w = nibble.assemble %c scales(%s) : tensor<4x4xf32, #nibble.quantized<i4, block = [2, 1], scale = f32>>
  %d = onnx.constant "v.codes" : tensor<4x2xi4> = dense<1>
  %t = onnx.constant "v.scales" : tensor<1x2xf32> = dense<[[1.0, 2.0]]>
  %v = nibble.assemble %d scales(%t) : tensor<4x2xf32, #nibble.quantized<i4, block = [*, 1], scale = f32>>
  %x = onnx.node "Neg"(%w) outputs ["x"] : (tensor<4x4xf32, #nibble.quantized<i4, block = [2, 1], scale = f32>>) -> tensor<4x4xf32>
  %y = onnx.node "Neg"(%v) outputs ["y"] : (tensor<4x2xf32, #nibble.quantized<i4, block = [*, 1], scale = f32>>) -> tensor<4x2xf32>
  return
}
