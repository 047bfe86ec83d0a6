// RUN: nibble-opt %s --convert-onnx-to-nibble | FileCheck %s
// RUN: nibble-opt %s --convert-onnx-to-nibble --convert-nibble-to-onnx | FileCheck %s --check-prefix=BACK
// RUN: nibble-opt %s --convert-onnx-to-nibble --convert-nibble-to-onnx=format=qdq | FileCheck %s --check-prefix=QDQ

module attributes {onnx.ir_version = 10 : i64,
                   onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "com.microsoft">]} {

// Blocks fill K: the same bytes, read as [N, K]. No zero point means 8.
// CHECK-LABEL: func.func @nbits
// CHECK-DAG: %[[C:.*]] = onnx.constant "b" : tensor<1x32xui4> = dense<{{\[\[}}0, 1,
// CHECK-DAG: %[[Z:.*]] = onnx.constant "b.zeros" : tensor<1x2xui4> = dense<8>
// CHECK: %[[W:.*]] = nibble.assemble %[[C]] scales(%{{.*}}) zeros(%[[Z]])
// CHECK-SAME: : tensor<1x32xf32, #nibble.quantized<u4, block = [1, 16], scale = f32, zero = u4>>
// CHECK: %[[T:.*]] = onnx.node "Transpose"(%[[W]]) outputs ["b.transposed"] {perm = array<i64: 1, 0>}
// CHECK: %[[P:.*]] = onnx.node "MatMul"(%{{.*}}, %[[T]]) name "fc" outputs ["y.product"]
// CHECK: onnx.node "Add"(%[[P]], %{{.*}}) name "fc.bias" outputs ["y"]
// BACK-LABEL: func.func @nbits
// BACK: %[[B:.*]] = onnx.constant "b" : tensor<1x2x8xui8>
// BACK-NEXT: %[[S:.*]] = onnx.constant "s" : tensor<2xf32>
// BACK-NEXT: %[[BIAS:.*]] = onnx.constant "bias" : tensor<1xf32>
// BACK: onnx.node "MatMulNBits" in "com.microsoft"(%{{.*}}, %[[B]], %[[S]], %[[A:.*]], %[[A2:.*]], %[[BIAS]]) name "fc" outputs ["y"]
// BACK-SAME: {K = 32 : i64, N = 1 : i64, accuracy_level = 4 : i64, block_size = 16 : i64}
// BACK-NEXT: return
// QDQ-LABEL: func.func @nbits
// QDQ: onnx.node "DequantizeLinear"({{.*}}) {{.*}}{axis = 1 : i64, block_size = 16 : i64}
// QDQ: onnx.node "Transpose"
// QDQ: onnx.node "MatMul"
// QDQ: onnx.node "Add"
// QDQ-NOT: nibble.onnx
func.func @nbits(%x: tensor<?x32xf32>) -> tensor<?x1xf32> {
  %b = onnx.constant "b" : tensor<1x2x8xui8> = dense<[[[16, 50, 84, 118, 152, 186, 220, 254], [16, 50, 84, 118, 152, 186, 220, 254]]]>
  %s = onnx.constant "s" : tensor<2xf32> = dense<[0.5, -0.25]>
  %bias = onnx.constant "bias" : tensor<1xf32> = dense<1.0>
  %a = onnx.absent
  %y = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s, %a, %a, %bias) name "fc" outputs ["y"]
      {K = 32 : i64, N = 1 : i64, accuracy_level = 4 : i64, block_size = 16 : i64}
      : (tensor<?x32xf32>, tensor<1x2x8xui8>, tensor<2xf32>, none, none, tensor<1xf32>) -> tensor<?x1xf32>
  return %y : tensor<?x1xf32>
}

// Padding beyond K is no code; it comes back nevertheless.
// CHECK-LABEL: func.func @tail
// CHECK: onnx.constant "b" : tensor<1x3xui8> = dense<{{\[\[}}1, 2, 3]]>
// BACK-LABEL: func.func @tail
// BACK: onnx.constant "b" : tensor<1x1x16xui8> = dense<{{\[\[\[}}1, 2, 3, 99, 99,
func.func @tail(%x: tensor<?x3xf32>) -> tensor<?x1xf32> {
  %b = onnx.constant "b" : tensor<1x1x16xui8> = dense<[[[1, 2, 3, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99]]]>
  %s = onnx.constant "s" : tensor<1x1xf32> = dense<0.5>
  %y = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s) outputs ["y"]
      {K = 3 : i64, N = 1 : i64, bits = 8 : i64, block_size = 16 : i64}
      : (tensor<?x3xf32>, tensor<1x1x16xui8>, tensor<1x1xf32>) -> tensor<?x1xf32>
  return %y : tensor<?x1xf32>
}

// Two products of one weight read one assembly; so does a table.
// CHECK-LABEL: func.func @tied
// CHECK: %[[W:.*]] = nibble.assemble
// CHECK-NOT: nibble.assemble
// CHECK: %[[T:.*]] = onnx.node "Transpose"(%[[W]])
// CHECK: onnx.node "Gather"(%[[W]],
// CHECK: onnx.node "MatMul"(%{{.*}}, %[[T]])
// CHECK: onnx.node "MatMul"(%{{.*}}, %[[T]])
// CHECK: return
func.func @tied(%ids: tensor<3xi64>) -> (tensor<3x2xf32>, tensor<3x2xf32>) {
  %b = onnx.constant "b" : tensor<2x16xui8> = dense<7>
  %s = onnx.constant "s" : tensor<2x1xf32> = dense<0.5>
  %e = onnx.node "GatherBlockQuantized" in "com.microsoft"(%b, %ids, %s) outputs ["e"]
      {bits = 8 : i64, block_size = 16 : i64, gather_axis = 0 : i64, quantize_axis = 1 : i64}
      : (tensor<2x16xui8>, tensor<3xi64>, tensor<2x1xf32>) -> tensor<3x16xf32>
  %y = onnx.node "MatMulNBits" in "com.microsoft"(%e, %b, %s) outputs ["y"]
      {K = 16 : i64, N = 2 : i64, bits = 8 : i64, block_size = 16 : i64}
      : (tensor<3x16xf32>, tensor<2x16xui8>, tensor<2x1xf32>) -> tensor<3x2xf32>
  %z = onnx.node "MatMulNBits" in "com.microsoft"(%e, %b, %s) outputs ["z"]
      {K = 16 : i64, N = 2 : i64, bits = 8 : i64, block_size = 16 : i64}
      : (tensor<3x16xf32>, tensor<2x16xui8>, tensor<2x1xf32>) -> tensor<3x2xf32>
  return %y, %z : tensor<3x2xf32>, tensor<3x2xf32>
}

// High nibble first; blocks of the flattened weight where rows are no whole blocks.
// CHECK-LABEL: func.func @bnb4
// CHECK: onnx.constant "b" : tensor<2x3xui4> = dense<{{\[\[}}1, 2, 3], [4, 5, 6]]>
// CHECK: nibble.assemble
// CHECK-SAME: : tensor<2x3xf32, #nibble.quantized<nf4, block = flat [16], scale = f32>>
// BACK-LABEL: func.func @bnb4
// BACK: onnx.constant "b" : tensor<3xui8> = dense<[18, 52, 86]>
// BACK: onnx.node "MatMulBnb4"
func.func @bnb4(%x: tensor<?x3xf32>) -> tensor<?x2xf32> {
  %b = onnx.constant "b" : tensor<3xui8> = dense<[18, 52, 86]>
  %s = onnx.constant "s" : tensor<1xf32> = dense<0.5>
  %y = onnx.node "MatMulBnb4" in "com.microsoft"(%x, %b, %s) outputs ["y"]
      {K = 3 : i64, N = 2 : i64, block_size = 16 : i64, quant_type = 1 : i64}
      : (tensor<?x3xf32>, tensor<3xui8>, tensor<1xf32>) -> tensor<?x2xf32>
  return %y : tensor<?x2xf32>
}
}
