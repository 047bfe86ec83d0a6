// RUN: nibble-opt %s --convert-onnx-to-nibble | FileCheck %s
// RUN: nibble-opt %s --convert-onnx-to-nibble --convert-nibble-to-onnx | FileCheck %s --check-prefix=BACK

module attributes {onnx.ir_version = 8 : i64, onnx.opsets = [#onnx.opset<17 in "">]} {

// Two products of one quantized tensor: with a scale for each column (and one zero
// point for all), and with one scale, written the other way round.
// CHECK-LABEL: func.func @matmul
// CHECK-SAME: %[[X:.*]]: tensor<?x3xf32>
// CHECK-DAG: %[[WS:.*]] = onnx.constant "ws" : tensor<1x2xf32> = dense<{{.*}}1.000000e+00, 2.000000e+00
// CHECK-DAG: %[[WZ:.*]] = onnx.constant "wz" : tensor<1x2xi8> = dense<-3>
// CHECK-DAG: %[[VS:.*]] = onnx.constant "vs" : tensor<1x1xf32> = dense<5.000000e-01>
// CHECK: %[[Q:.*]] = nibble.quantize_dynamic %[[X]]
// CHECK: %[[W:.*]] = nibble.assemble %{{.*}} scales(%[[WS]]) zeros(%[[WZ]])
// CHECK-SAME: : tensor<3x2xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, zero = i8>>
// CHECK: onnx.node "MatMul"(%[[Q]], %[[W]]) name "product" outputs ["y"]
// CHECK: %[[V:.*]] = nibble.assemble %{{.*}} scales(%[[VS]])
// CHECK-SAME: : tensor<3x2xf32, #nibble.quantized<u8, block = [*, *], scale = f32>>
// CHECK: onnx.node "MatMul"(%[[Q]], %[[V]]) outputs ["y2"]
// CHECK-NOT: Squeeze
// CHECK: return
// BACK-LABEL: func.func @matmul
// BACK-DAG: %[[WS:.*]] = onnx.constant "ws" : tensor<2xf32>
// BACK-DAG: %[[WZ:.*]] = onnx.constant "wz" : tensor<i8> = dense<-3>
// BACK-DAG: %[[VS:.*]] = onnx.constant "vs" : tensor<f32>
// BACK-NOT: nibble
// BACK: %[[Q:.*]], %[[QS:.*]], %[[QZ:.*]] = onnx.node "DynamicQuantizeLinear"
// BACK: %[[I:.*]] = onnx.node "MatMulInteger"(%[[Q]], %{{.*}}, %[[QZ]], %[[WZ]]) name "product" outputs ["i"]
// BACK: %[[F:.*]] = onnx.node "Cast"(%[[I]]) outputs ["f"] {to = 1 : i64}
// BACK: %[[S:.*]] = onnx.node "Mul"(%[[QS]], %[[WS]]) outputs ["s"]
// BACK: onnx.node "Mul"(%[[F]], %[[S]]) outputs ["y"]
// BACK: %[[I2:.*]] = onnx.node "MatMulInteger"(%[[Q]], %{{.*}}, %[[QZ]]) outputs ["i2"]
// BACK: %[[F2:.*]] = onnx.node "Cast"(%[[I2]])
// BACK: %[[S2:.*]] = onnx.node "Mul"(%[[VS]], %[[QS]]) outputs ["s2"]
// BACK: onnx.node "Mul"(%[[S2]], %[[F2]]) outputs ["y2"]
// BACK-NOT: nibble
// BACK: return
func.func @matmul(%x: tensor<?x3xf32>) -> (tensor<?x2xf32>, !onnx.unknown) {
  %w = onnx.constant "w" : tensor<3x2xi8> = dense<[[1, -2], [3, 4], [5, -128]]>
  %ws = onnx.constant "ws" : tensor<2xf32> = dense<[1.0, 2.0]>
  %wz = onnx.constant "wz" : tensor<i8> = dense<-3>
  %v = onnx.constant "v" : tensor<3x2xui8> = dense<[[1, 2], [3, 4], [5, 255]]>
  %vs = onnx.constant "vs" : tensor<f32> = dense<0.5>
  %q:3 = onnx.node "DynamicQuantizeLinear"(%x) outputs ["q", "qs", "qz"] : (tensor<?x3xf32>) -> (tensor<?x3xui8>, tensor<f32>, tensor<ui8>)
  %s = onnx.node "Mul"(%q#1, %ws) outputs ["s"] : (tensor<f32>, tensor<2xf32>) -> tensor<2xf32>
  %i = onnx.node "MatMulInteger"(%q#0, %w, %q#2, %wz) name "product" outputs ["i"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>, tensor<i8>) -> tensor<?x2xi32>
  %f = onnx.node "Cast"(%i) outputs ["f"] {to = 1 : i64} : (tensor<?x2xi32>) -> tensor<?x2xf32>
  %y = onnx.node "Mul"(%f, %s) outputs ["y"] : (tensor<?x2xf32>, tensor<2xf32>) -> tensor<?x2xf32>
  %i2 = onnx.node "MatMulInteger"(%q#0, %v, %q#2) outputs ["i2"] : (tensor<?x3xui8>, tensor<3x2xui8>, tensor<ui8>) -> !onnx.unknown
  %f2 = onnx.node "Cast"(%i2) outputs ["f2"] {to = 1 : i64} : (!onnx.unknown) -> !onnx.unknown
  %s2 = onnx.node "Mul"(%vs, %q#1) outputs ["s2"] : (tensor<f32>, tensor<f32>) -> tensor<f32>
  %y2 = onnx.node "Mul"(%s2, %f2) outputs ["y2"] : (tensor<f32>, !onnx.unknown) -> !onnx.unknown
  return %y, %y2 : tensor<?x2xf32>, !onnx.unknown
}

// A scale for each output channel lies along dimension 1 of the result and 0 of the
// filter. What else reads the codes still does.
// CHECK-LABEL: func.func @conv
// CHECK: %[[Q:.*]] = nibble.quantize_dynamic
// CHECK: %[[C:.*]] = nibble.codes %[[Q]]
// CHECK: %[[W:.*]] = nibble.assemble
// CHECK-SAME: : tensor<2x1x2xf32, #nibble.quantized<i8, block = [1, *, *], scale = f32, zero = i8>>
// CHECK: onnx.node "Conv"(%[[Q]], %[[W]]) outputs ["y"] {pads = array<i64: 1, 0>}
// CHECK: return %{{.*}}, %[[C]]
// BACK-LABEL: func.func @conv
// BACK: %[[Q:.*]], %{{.*}}, %[[QZ:.*]] = onnx.node "DynamicQuantizeLinear"
// BACK: onnx.node "ConvInteger"(%[[Q]], %{{.*}}, %[[QZ]], %{{.*}}) outputs ["i"] {pads = array<i64: 1, 0>}
// BACK: return %{{.*}}, %[[Q]]
func.func @conv(%x: tensor<1x1x3xf32>) -> (tensor<1x2x3xf32>, tensor<1x1x3xui8>) {
  %w = onnx.constant "w" : tensor<2x1x2xi8> = dense<[[[1, -2]], [[3, 4]]]>
  %ws = onnx.constant "ws" : tensor<2x1xf32> = dense<[[1.0], [2.0]]>
  %wz = onnx.constant "wz" : tensor<2xi8> = dense<[0, 1]>
  %q:3 = onnx.node "DynamicQuantizeLinear"(%x) outputs ["q", "qs", "qz"] : (tensor<1x1x3xf32>) -> (tensor<1x1x3xui8>, tensor<f32>, tensor<ui8>)
  %i = onnx.node "ConvInteger"(%q#0, %w, %q#2, %wz) outputs ["i"] {pads = array<i64: 1, 0>} : (tensor<1x1x3xui8>, tensor<2x1x2xi8>, tensor<ui8>, tensor<2xi8>) -> tensor<1x2x3xi32>
  %f = onnx.node "Cast"(%i) outputs ["f"] {to = 1 : i64} : (tensor<1x2x3xi32>) -> tensor<1x2x3xf32>
  %s = onnx.node "Mul"(%q#1, %ws) outputs ["s"] : (tensor<f32>, tensor<2x1xf32>) -> tensor<2x1xf32>
  %y = onnx.node "Mul"(%f, %s) outputs ["y"] : (tensor<1x2x3xf32>, tensor<2x1xf32>) -> tensor<1x2x3xf32>
  return %y, %q#0 : tensor<1x2x3xf32>, tensor<1x1x3xui8>
}

// What is no product of two tensors stays, and says why.
// CHECK-LABEL: func.func @kept
func.func @kept(%x: tensor<?x3xf32>, %any: tensor<3x2xi8>, %codes: tensor<?x3xui8>) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown) {
  %w = onnx.constant "w" : tensor<3x2xi8> = dense<1>
  %ws = onnx.constant "ws" : tensor<f32> = dense<0.5>
  %ws3 = onnx.constant "ws3" : tensor<3x1xf32> = dense<0.5>
  %q:3 = onnx.node "DynamicQuantizeLinear"(%x) outputs ["q", "qs", "qz"] : (tensor<?x3xf32>) -> (tensor<?x3xui8>, tensor<f32>, tensor<ui8>)
  // CHECK: outputs ["bare"] {{.*}}{nibble.kept = "its result is a sum of codes without a scale"}
  %bare = onnx.node "MatMulInteger"(%q#0, %w, %q#2) outputs ["bare"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>) -> !onnx.unknown
  // CHECK: outputs ["static"] {{.*}}{nibble.kept = "its activations and their zero point do not come from one DynamicQuantizeLinear"}
  %static = onnx.node "MatMulInteger"(%codes, %w) outputs ["static"] : (tensor<?x3xui8>, tensor<3x2xi8>) -> !onnx.unknown
  // CHECK: outputs ["other"] {{.*}}{nibble.kept = "its activations and their zero point do not come from one DynamicQuantizeLinear"}
  %other = onnx.node "MatMulInteger"(%q#0, %w) outputs ["other"] : (tensor<?x3xui8>, tensor<3x2xi8>) -> !onnx.unknown
  // CHECK: outputs ["a"] {{.*}}{nibble.kept = "its weight or zero point is computed"}
  %a = onnx.node "MatMulInteger"(%q#0, %any, %q#2) outputs ["a"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>) -> !onnx.unknown
  %af = onnx.node "Cast"(%a) outputs ["af"] {to = 1 : i64} : (!onnx.unknown) -> !onnx.unknown
  %as = onnx.node "Mul"(%q#1, %ws) outputs ["as"] : (tensor<f32>, tensor<f32>) -> tensor<f32>
  %ay = onnx.node "Mul"(%af, %as) outputs ["ay"] : (!onnx.unknown, tensor<f32>) -> !onnx.unknown
  // CHECK: outputs ["b"] {{.*}}{nibble.kept = "a scale has neither one value nor one for each channel"}
  %b = onnx.node "MatMulInteger"(%q#0, %w, %q#2) outputs ["b"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>) -> !onnx.unknown
  %bf = onnx.node "Cast"(%b) outputs ["bf"] {to = 1 : i64} : (!onnx.unknown) -> !onnx.unknown
  %bs = onnx.node "Mul"(%q#1, %ws3) outputs ["bs"] : (tensor<f32>, tensor<3x1xf32>) -> tensor<3x1xf32>
  %by = onnx.node "Mul"(%bf, %bs) outputs ["by"] : (!onnx.unknown, tensor<3x1xf32>) -> !onnx.unknown
  // CHECK: outputs ["c"] {{.*}}{nibble.kept = "its sums are not scaled by the product of the scales of its activations and its weight"}
  %c = onnx.node "MatMulInteger"(%q#0, %w, %q#2) outputs ["c"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>) -> !onnx.unknown
  %cf = onnx.node "Cast"(%c) outputs ["cf"] {to = 1 : i64} : (!onnx.unknown) -> !onnx.unknown
  %cy = onnx.node "Mul"(%cf, %ws) outputs ["cy"] : (!onnx.unknown, tensor<f32>) -> !onnx.unknown
  return %bare, %ay, %by, %cy, %other : !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown
}
}
