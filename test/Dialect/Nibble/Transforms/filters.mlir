// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8cs" | FileCheck %s --check-prefix=ASSIGN
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8cs" --nibble-round=scale=minmax | FileCheck %s
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8ts" --nibble-round=scale=minmax | FileCheck %s --check-prefix=TENSOR
// RUN: nibble-opt %s --nibble-assign-schemes | FileCheck %s --check-prefix=GROUPS
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8cs" --nibble-round=scale=minmax --convert-nibble-to-onnx | FileCheck %s --check-prefix=QDQ
// RUN: nibble-opt %s --nibble-assign-schemes="rules=op:Conv=w4g32,op:ConvTranspose=w4g32" | FileCheck %s --check-prefix=RULE

// A filter's channels are dimension 0 of a Conv and 1 of a ConvTranspose; each has a
// scale, which gives the largest of its weights the code -128.
// ASSIGN: onnx.constant "w"
// ASSIGN-SAME: nibble.encoding = #nibble.quantized<i8, block = [1, *, *], scale = f32>
// ASSIGN: onnx.constant "v"
// ASSIGN-SAME: nibble.encoding = #nibble.quantized<i8, block = [*, 1, *], scale = f32>
// CHECK: onnx.constant "w.codes" : tensor<2x1x3xi8> = dense<{{\[\[\[}}127, 64, -128]], {{\[\[}}-64, -128, 0]]]>
// CHECK: onnx.constant "w.scales" : tensor<2x1x1xf32> = dense<{{\[\[\[}}1.000000e+00]], {{\[\[}}-2.000000e+00]]]>
// CHECK: onnx.constant "v.codes" : tensor<2x2x2xi8> = dense<{{\[\[\[}}-128, 0], [127, -128]], {{\[\[}}-64, 32], [0, 64]]]>
// CHECK: onnx.constant "v.scales" : tensor<1x2x1xf32> = dense<{{\[\[\[}}-1.000000e+00], [5.000000e-01]]]>
// TENSOR: onnx.constant "w.scales" : tensor<1x1x1xf32> = dense<-2.000000e+00>
// GROUPS: onnx.constant "w"
// GROUPS-SAME: nibble.encoding = #nibble.quantized<i8, block = [1, *, *], scale = f32>
// RULE: onnx.node "Conv"
// RULE-SAME: nibble.kept = "weight 'w' is a filter, which has no groups of inputs; give it a scale for each channel, for example by the rule op:Conv=w8cs"
// QDQ: onnx.constant "w_scale" : tensor<2xf32> = dense<[1.000000e+00, -2.000000e+00]>
// QDQ: onnx.node "DequantizeLinear"(%w_quantized, %w_scale) {{.*}} {axis = 0 : i64}
// QDQ: onnx.node "DequantizeLinear"(%v_quantized, %v_scale) {{.*}} {axis = 1 : i64}
module attributes {onnx.ir_version = 8 : i64, onnx.opsets = [#onnx.opset<13 in "">]} {
  func.func @main(%x: tensor<1x1x8xf32>) -> tensor<1x2x7xf32> {
    %w = onnx.constant "w" : tensor<2x1x3xf32> = dense<[[[127.0, 64.0, -128.0]], [[128.0, 256.0, 0.0]]]>
    %v = onnx.constant "v" : tensor<2x2x2xf32> = dense<[[[128.0, 0.0], [63.5, -64.0]], [[64.0, -32.0], [0.0, 32.0]]]>
    %y = onnx.node "Conv"(%x, %w) name "c" outputs ["y"] : (tensor<1x1x8xf32>, tensor<2x1x3xf32>) -> tensor<1x2x6xf32>
    %z = onnx.node "ConvTranspose"(%y, %v) name "t" outputs ["z"] : (tensor<1x2x6xf32>, tensor<2x2x2xf32>) -> tensor<1x2x7xf32>
    return %z : tensor<1x2x7xf32>
  }
}
