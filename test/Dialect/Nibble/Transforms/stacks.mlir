// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8g2s" | FileCheck %s --check-prefix=ASSIGN
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8g2s" --nibble-round=scale=minmax | FileCheck %s
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8g2s" --nibble-round=scale=minmax --convert-nibble-to-onnx | FileCheck %s --check-prefix=QDQ
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w8cs" --nibble-round=scale=minmax --convert-nibble-to-onnx=format=matmulnbits | FileCheck %s --check-prefix=CHANNEL
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=nf4g64" | FileCheck %s --check-prefix=BOOK

// Experts are summed over their rows, weights of an LSTM over their columns; each matrix
// has scales of its own.
// ASSIGN: onnx.constant "experts"
// ASSIGN-SAME: nibble.encoding = #nibble.quantized<i8, block = [1, 2, 1], scale = f32>
// ASSIGN: onnx.constant "w"
// ASSIGN-SAME: nibble.encoding = #nibble.quantized<i8, block = [1, 1, 2], scale = f32>
// CHECK: onnx.constant "experts.codes" : tensor<2x2x2xi8> = dense<{{\[\[\[}}-128, 64], [64, -128]], {{\[\[}}-128, 0], [0, -128]]]>
// CHECK: onnx.constant "experts.scales" : tensor<2x1x2xf32> = dense<{{\[\[\[}}-1.000000e+00, -2.000000e+00]], {{\[\[}}5.000000e-01, 1.000000e+00]]]>
// QDQ: onnx.constant "experts_scale" : tensor<2x1x2xf32>
// QDQ: onnx.node "DequantizeLinear"(%experts_quantized, %experts_scale) {{.*}} {axis = 1 : i64, block_size = 2 : i64}
// QDQ: onnx.constant "w_scale" : tensor<4xf32>
// QDQ: onnx.node "DequantizeLinear"(%w_quantized, %w_scale) {{.*}} {axis = 1 : i64}

// A scale for each output of several matrices is a block along the rest.
// CHANNEL: onnx.node "DequantizeLinear"(%experts_quantized, %experts_scale) {{.*}} {axis = 1 : i64, block_size = 2 : i64}
// CHANNEL: onnx.constant "w_scale" : tensor<4xf32>
// CHANNEL: onnx.node "DequantizeLinear"(%w_quantized, %w_scale) {{.*}} {axis = 1 : i64}

// BOOK: onnx.node "MatMul"
// BOOK-SAME: nibble.kept = "weight 'experts' is a stack of matrices, for which ONNX has integers only"
module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<3x2xf32>, %s: tensor<5x1x2xf32>) -> (tensor<2x3x2xf32>, tensor<5x1x1x1xf32>) {
    %experts = onnx.constant "experts" : tensor<2x2x2xf32> = dense<[[[128.0, -128.0], [-64.0, 256.0]], [[-64.0, 0.0], [0.0, -128.0]]]>
    %w = onnx.constant "w" : tensor<1x4x2xf32> = dense<[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]]>
    %r = onnx.constant "r" : tensor<1x4x1xf32> = dense<1.0>
    %y = onnx.node "MatMul"(%x, %experts) outputs ["y"] : (tensor<3x2xf32>, tensor<2x2x2xf32>) -> tensor<2x3x2xf32>
    %h = onnx.node "LSTM"(%s, %w, %r) outputs ["h"] {hidden_size = 1 : i64} : (tensor<5x1x2xf32>, tensor<1x4x2xf32>, tensor<1x4x1xf32>) -> tensor<5x1x1x1xf32>
    return %y, %h : tensor<2x3x2xf32>, tensor<5x1x1x1xf32>
  }
}
