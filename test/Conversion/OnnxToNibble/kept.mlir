// RUN: nibble-opt %s --convert-onnx-to-nibble | FileCheck %s
// RUN: nibble-opt %s --convert-onnx-to-nibble --convert-nibble-to-onnx | FileCheck %s --check-prefix=BACK

// What the dialect cannot hold stays as it is and says why.
// BACK-NOT: nibble.

module attributes {onnx.ir_version = 10 : i64,
                   onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "com.microsoft">]} {

// CHECK-LABEL: func.func @linear
func.func @linear(%x: tensor<?x4xf32>, %computed: tensor<f32>, %any: !onnx.unknown)
    -> (!onnx.unknown, !onnx.unknown) {
  %s = onnx.constant "s" : tensor<f32> = dense<0.5>
  %s3 = onnx.constant "s3" : tensor<3xf32> = dense<0.5>
  %half = onnx.constant "half" : tensor<f16> = dense<0.5>
  %double = onnx.constant "double" : tensor<f64> = dense<0.5>
  %i8 = onnx.constant "i8" : tensor<2x4xi8> = dense<1>
  %fnuz = onnx.constant "fnuz" : tensor<2x4xf8E4M3FNUZ> = dense<1.0>
  %i32 = onnx.constant "i32" : tensor<2x4xi32> = dense<1>
  %one32 = onnx.constant "one32" : tensor<i32> = dense<1>
  %u8 = onnx.constant "u8" : tensor<ui8> = dense<1>
  // CHECK: "DequantizeLinear"{{.*}} outputs ["a"] {{.*}}{nibble.kept = "the scale or the zero point is computed"}
  %a = onnx.node "DequantizeLinear"(%i8, %computed) outputs ["a"] : (tensor<2x4xi8>, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["b"] {{.*}}{nibble.kept = "the codes have a type without a storage (Spec C1)"}
  %b = onnx.node "DequantizeLinear"(%fnuz, %s) outputs ["b"] : (tensor<2x4xf8E4M3FNUZ>, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["c"] {{.*}}{nibble.kept = "output_dtype is not the type of the scale"}
  %c = onnx.node "DequantizeLinear"(%i8, %s) outputs ["c"] {output_dtype = 10 : i64} : (tensor<2x4xi8>, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["d"] {{.*}}{nibble.kept = "the scale does not have one value for each of axis 1"}
  %d = onnx.node "DequantizeLinear"(%i8, %s3) outputs ["d"] : (tensor<2x4xi8>, tensor<3xf32>) -> !onnx.unknown
  // CHECK: outputs ["e"] {{.*}}{nibble.kept = "axis or block_size does not fit the shape"}
  %e = onnx.node "DequantizeLinear"(%i8, %s3) outputs ["e"] {axis = 7 : i64} : (tensor<2x4xi8>, tensor<3xf32>) -> !onnx.unknown
  // CHECK: outputs ["f"] {{.*}}{nibble.kept = "the scale does not have one value for each block"}
  %f = onnx.node "DequantizeLinear"(%i8, %s3) outputs ["f"] {block_size = 2 : i64} : (tensor<2x4xi8>, tensor<3xf32>) -> !onnx.unknown
  // CHECK: outputs ["g"] {{.*}}{nibble.kept = "the zero point of such codes is not 0"}
  %g = onnx.node "DequantizeLinear"(%i32, %s, %one32) outputs ["g"] : (tensor<2x4xi32>, tensor<f32>, tensor<i32>) -> !onnx.unknown
  // CHECK: outputs ["h"] {{.*}}{nibble.kept = "the zero point does not have the codes' type and the scale's shape"}
  %h = onnx.node "DequantizeLinear"(%i8, %s, %u8) outputs ["h"] : (tensor<2x4xi8>, tensor<f32>, tensor<ui8>) -> !onnx.unknown
  // CHECK: outputs ["i"] {{.*}}{nibble.kept = "the scale is not of f32, f16, bf16 or f8E8M0"}
  %i = onnx.node "DequantizeLinear"(%i8, %double) outputs ["i"] : (tensor<2x4xi8>, tensor<f64>) -> !onnx.unknown
  // CHECK: outputs ["j"] {{.*}}{nibble.kept = "the shape of its input is not known"}
  %j = onnx.node "DequantizeLinear"(%any, %s) outputs ["j"] : (!onnx.unknown, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["k"] {{.*}}{nibble.kept = "DequantizeLinear does not have 2 to 3 inputs and 1 outputs"}
  %k = onnx.node "DequantizeLinear"(%i8) outputs ["k"] : (tensor<2x4xi8>) -> !onnx.unknown
  // CHECK: outputs ["l"] {{.*}}{nibble.kept = "attribute 'extra' has no meaning here"}
  %l = onnx.node "DequantizeLinear"(%i8, %s) outputs ["l"] {extra = 1 : i64} : (tensor<2x4xi8>, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["m"] {{.*}}{nibble.kept = "the input does not have the type of the scale"}
  %m = onnx.node "QuantizeLinear"(%x, %half) outputs ["m"] : (tensor<?x4xf32>, tensor<f16>) -> !onnx.unknown
  // CHECK: outputs ["n"] {{.*}}{nibble.kept = "saturate is 0"}
  %n = onnx.node "QuantizeLinear"(%x, %s) outputs ["n"] {saturate = 0 : i64} : (tensor<?x4xf32>, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["o"] {{.*}}{nibble.kept = "output_dtype names a type without a storage"}
  %o = onnx.node "QuantizeLinear"(%x, %s) outputs ["o"] {output_dtype = 18 : i64} : (tensor<?x4xf32>, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["p"] {{.*}}{nibble.kept = "precision is given"}
  %p = onnx.node "QuantizeLinear"(%x, %s) outputs ["p"] {precision = 1 : i64} : (tensor<?x4xf32>, tensor<f32>) -> !onnx.unknown
  return %a, %b : !onnx.unknown, !onnx.unknown
}

// CHECK-LABEL: func.func @blockwise
func.func @blockwise(%x: tensor<?x32xf32>, %ids: tensor<3xi64>, %any: tensor<1x1x16xui8>) -> tensor<?x1xf32> {
  %b = onnx.constant "b" : tensor<1x1x16xui8> = dense<1>
  %s = onnx.constant "s" : tensor<1x1xf32> = dense<0.5>
  %s2 = onnx.constant "s2" : tensor<1x2xf32> = dense<0.5>
  %i = onnx.constant "i" : tensor<32xi32> = dense<1>
  %none = onnx.absent
  // CHECK: outputs ["a"] {{.*}}{nibble.kept = "K, N, bits or block_size is out of range"}
  %a = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s) outputs ["a"] {K = 32 : i64, N = 1 : i64, block_size = 24 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, tensor<1x1xf32>) -> tensor<?x1xf32>
  // CHECK: outputs ["c"] {{.*}}{nibble.kept = "its weight or scales do not have the shape that K, N and block_size say"}
  %c = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s2) outputs ["c"] {K = 32 : i64, N = 1 : i64, block_size = 32 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, tensor<1x2xf32>) -> tensor<?x1xf32>
  // CHECK: outputs ["d"] {{.*}}{nibble.kept = "its weight, scales or zero points are computed"}
  %d = onnx.node "MatMulNBits" in "com.microsoft"(%x, %any, %s) outputs ["d"] {K = 32 : i64, N = 1 : i64, block_size = 32 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, tensor<1x1xf32>) -> tensor<?x1xf32>
  // CHECK: outputs ["e"] {{.*}}{nibble.kept = "its g_idx makes groups of other sizes than block_size"}
  %e = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s, %none, %i) outputs ["e"] {K = 32 : i64, N = 1 : i64, block_size = 32 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, tensor<1x1xf32>, none, tensor<32xi32>) -> tensor<?x1xf32>
  // CHECK: outputs ["f"] {{.*}}{nibble.kept = "its weight is packed for one machine (weight_prepacked)"}
  %f = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s) outputs ["f"] {K = 32 : i64, N = 1 : i64, block_size = 32 : i64, weight_prepacked = 1 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, tensor<1x1xf32>) -> tensor<?x1xf32>
  // CHECK: outputs ["g"] {{.*}}{nibble.kept = "input 2 is left out"}
  %g = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %none) outputs ["g"] {K = 32 : i64, N = 1 : i64, block_size = 32 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, none) -> tensor<?x1xf32>
  // CHECK: outputs ["h"] {{.*}}{nibble.kept = "its packed table is quantized along another dimension than the last"}
  %h = onnx.node "GatherBlockQuantized" in "com.microsoft"(%b, %ids, %s) outputs ["h"] {quantize_axis = 1 : i64}
      : (tensor<1x1x16xui8>, tensor<3xi64>, tensor<1x1xf32>) -> !onnx.unknown
  // CHECK: outputs ["j"] {{.*}}{nibble.kept = "K, N, block_size or quant_type is out of range"}
  %j = onnx.node "MatMulBnb4" in "com.microsoft"(%x, %b, %s) outputs ["j"] {K = 32 : i64, N = 1 : i64, block_size = 32 : i64, quant_type = 2 : i64}
      : (tensor<?x32xf32>, tensor<1x1x16xui8>, tensor<1x1xf32>) -> tensor<?x1xf32>
  return %a : tensor<?x1xf32>
}

// What a caller gives is not known in the function.
// CHECK-LABEL: func.func @local
// CHECK: outputs ["y"] {{.*}}nibble.kept = "its attribute 'axis' is given by the callers of its function"
func.func @local(%x: !onnx.unknown) -> !onnx.unknown attributes {
    onnx.function = #onnx.function<name = "local", domain = "d", inputs = ["x"], outputs = ["y"], attributes = ["axis"], defaults = [], opsets = [#onnx.opset<21 in "">], valueInfo = []>} {
  %c = onnx.node "Constant"() outputs ["c"] {value = #onnx.tensor<dense<1> : tensor<2x2xi8>>} : () -> tensor<2x2xi8>
  %s = onnx.node "Constant"() outputs ["s"] {value = #onnx.tensor<dense<0.5> : tensor<2xf32>>} : () -> tensor<2xf32>
  %y = onnx.node "DequantizeLinear"(%c, %s) outputs ["y"] {axis = #onnx.ref<"axis" as INT>} : (tensor<2x2xi8>, tensor<2xf32>) -> !onnx.unknown
  return %y : !onnx.unknown
}
}
