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

// Sums that no scale makes numbers are products of integers.
// CHECK-LABEL: func.func @sums
// CHECK-SAME: (%[[X:.*]]: tensor<?x3xf32>, %[[ANY:.*]]: tensor<3x2xi8>, %[[CODES:.*]]: tensor<2x3xui8>, %[[Z:.*]]: tensor<i8>, %[[ROWS:.*]]: tensor<2xui8>)
// BACK-LABEL: func.func @sums
// BACK-SAME: (%[[X:.*]]: tensor<?x3xf32>, %[[ANY:.*]]: tensor<3x2xi8>, %[[CODES:.*]]: tensor<2x3xui8>, %[[Z:.*]]: tensor<i8>, %[[ROWS:.*]]: tensor<2xui8>)
// BACK-NOT: nibble
// BACK-NOT: Reshape
func.func @sums(%x: tensor<?x3xf32>, %any: tensor<3x2xi8>, %codes: tensor<2x3xui8>, %zero: tensor<i8>, %rows: tensor<2xui8>) -> (!onnx.unknown, !onnx.unknown, tensor<?x2xf32>, !onnx.unknown) {
  %w = onnx.constant "w" : tensor<3x2xi8> = dense<1>
  %wz = onnx.constant "wz" : tensor<2xi8> = dense<[1, 2]>
  %ws = onnx.constant "ws" : tensor<f32> = dense<0.5>
  %q:3 = onnx.node "DynamicQuantizeLinear"(%x) outputs ["q", "qs", "qz"] : (tensor<?x3xf32>) -> (tensor<?x3xui8>, tensor<f32>, tensor<ui8>)
  // CHECK: %[[Q:.*]] = nibble.quantize_dynamic %[[X]]
  // BACK: %[[Q:.*]], %{{.*}}, %[[QZ:.*]] = onnx.node "DynamicQuantizeLinear"

  // What DynamicQuantizeLinear made is a factor as it is.
  // CHECK: %[[A:.*]] = nibble.integers %[[Q]]
  // CHECK: %[[W:.*]] = nibble.assemble
  // CHECK-SAME: : tensor<3x2xf32, #nibble.quantized<i8, block = [*, *], scale = f32>>
  // CHECK: %[[B:.*]] = nibble.integers %[[W]]
  // CHECK: onnx.node "MatMul"(%[[A]], %[[B]]) outputs ["bare"]
  // BACK: onnx.node "MatMulInteger"(%[[Q]], %{{.*}}, %[[QZ]]) outputs ["bare"]
  %bare = onnx.node "MatMulInteger"(%q#0, %w, %q#2) outputs ["bare"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>) -> !onnx.unknown

  // Nothing is constant, and a zero point for each row.
  // CHECK: %[[AZ:.*]] = onnx.node "Reshape"(%[[ROWS]], %{{.*}}) {{.*}} -> tensor<2x1xui8>
  // CHECK: %[[AQ:.*]] = nibble.assemble %[[CODES]] scales(%{{.*}}) zeros(%[[AZ]])
  // CHECK-SAME: : tensor<2x3xf32, #nibble.quantized<u8, block = [1, *], scale = f32, zero = u8>>
  // CHECK: %[[A:.*]] = nibble.integers %[[AQ]]
  // CHECK: %[[BZ:.*]] = onnx.node "Reshape"(%[[Z]], %{{.*}}) {{.*}} -> tensor<1x1xi8>
  // CHECK: %[[BQ:.*]] = nibble.assemble %[[ANY]] scales(%{{.*}}) zeros(%[[BZ]])
  // CHECK: %[[B:.*]] = nibble.integers %[[BQ]]
  // CHECK: onnx.node "MatMul"(%[[A]], %[[B]]) outputs ["computed"]
  // BACK: onnx.node "MatMulInteger"(%[[CODES]], %[[ANY]], %[[ROWS]], %[[Z]]) outputs ["computed"]
  %computed = onnx.node "MatMulInteger"(%codes, %any, %rows, %zero) outputs ["computed"] : (tensor<2x3xui8>, tensor<3x2xi8>, tensor<2xui8>, tensor<i8>) -> !onnx.unknown

  // A scale of another kind is a node of its own.
  // CHECK: %[[W:.*]] = nibble.assemble %{{.*}} scales(%{{.*}}) zeros(%{{.*}})
  // CHECK-SAME: block = [*, 1], scale = f32, zero = i8>>
  // CHECK: %[[B:.*]] = nibble.integers %[[W]]
  // CHECK: %[[C:.*]] = onnx.node "MatMul"(%{{.*}}, %[[B]]) outputs ["c"] {{.*}} -> tensor<?x2xi32>
  // CHECK: onnx.node "Cast"(%[[C]])
  // BACK: onnx.node "MatMulInteger"(%[[Q]], %{{.*}}, %[[QZ]], %{{.*}}) outputs ["c"]
  %c = onnx.node "MatMulInteger"(%q#0, %w, %q#2, %wz) outputs ["c"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<ui8>, tensor<2xi8>) -> tensor<?x2xi32>
  %cf = onnx.node "Cast"(%c) outputs ["cf"] {to = 1 : i64} : (tensor<?x2xi32>) -> tensor<?x2xf32>
  %cy = onnx.node "Mul"(%cf, %ws) outputs ["cy"] : (tensor<?x2xf32>, tensor<f32>) -> tensor<?x2xf32>

  // Another zero point than that of the codes.
  // CHECK: nibble.assemble %{{.*}} scales(%{{.*}}) : tensor<?x3xf32, #nibble.quantized<u8, block = [*, *], scale = f32>>
  // CHECK: outputs ["other"]
  // BACK: %[[NONE:.*]] = onnx.absent
  // BACK: onnx.node "MatMulInteger"(%[[Q]], %{{.*}}, %[[NONE]], %{{.*}}) outputs ["other"]
  %none = onnx.absent
  %other = onnx.node "MatMulInteger"(%q#0, %w, %none, %wz) outputs ["other"] : (tensor<?x3xui8>, tensor<3x2xi8>, none, tensor<2xi8>) -> !onnx.unknown
  return %bare, %computed, %cy, %other : !onnx.unknown, !onnx.unknown, tensor<?x2xf32>, !onnx.unknown
}

// CHECK-LABEL: func.func @convolution
// CHECK: nibble.assemble %{{.*}} scales(%{{.*}}) zeros(%{{.*}}) : tensor<1x2x3xf32, #nibble.quantized<u8, block = [*, *, *], scale = f32, zero = u8>>
// CHECK: nibble.assemble %{{.*}} scales(%{{.*}}) zeros(%{{.*}}) : tensor<2x1x2xf32, #nibble.quantized<i8, block = [1, *, *], scale = f32, zero = i8>>
// CHECK: onnx.node "Conv"(%{{.*}}, %{{.*}}) outputs ["y"] {group = 2 : i64, pads = array<i64: 1, 0>}
// BACK-LABEL: func.func @convolution
// BACK-NOT: nibble
// BACK: onnx.node "ConvInteger"(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) outputs ["y"] {group = 2 : i64, pads = array<i64: 1, 0>}
func.func @convolution(%x: tensor<1x2x3xui8>, %zero: tensor<ui8>) -> tensor<1x2x3xi32> {
  %w = onnx.constant "w" : tensor<2x1x2xi8> = dense<[[[1, -2]], [[3, 4]]]>
  %wz = onnx.constant "wz" : tensor<2xi8> = dense<[0, 1]>
  %y = onnx.node "ConvInteger"(%x, %w, %zero, %wz) outputs ["y"] {group = 2 : i64, pads = array<i64: 1, 0>} : (tensor<1x2x3xui8>, tensor<2x1x2xi8>, tensor<ui8>, tensor<2xi8>) -> tensor<1x2x3xi32>
  return %y : tensor<1x2x3xi32>
}

// What cannot be read stays, and says why.
// CHECK-LABEL: func.func @kept
func.func @kept(%any: !onnx.unknown, %codes: tensor<?x3xui8>, %rows: tensor<?xui8>, %z: tensor<3xi8>) -> !onnx.unknown {
  %w = onnx.constant "w" : tensor<3x2xi8> = dense<1>
  // CHECK: outputs ["a"] {{.*}}{nibble.kept = "the shape of its input 0 is not known"}
  %a = onnx.node "MatMulInteger"(%any, %w) outputs ["a"] : (!onnx.unknown, tensor<3x2xi8>) -> !onnx.unknown
  // CHECK: outputs ["b"] {{.*}}{nibble.kept = "a zero point is neither one number nor one for each row, column or channel, as far as the shapes are known"}
  %b = onnx.node "MatMulInteger"(%codes, %w, %rows) outputs ["b"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<?xui8>) -> !onnx.unknown
  // CHECK: outputs ["c"] {{.*}}{nibble.kept = "a zero point is neither one number nor
  %none = onnx.absent
  %c = onnx.node "MatMulInteger"(%codes, %w, %none, %z) outputs ["c"] : (tensor<?x3xui8>, tensor<3x2xi8>, none, tensor<3xi8>) -> !onnx.unknown
  // CHECK: outputs ["d"] {{.*}}{nibble.kept = "a zero point is not of the type of its codes, or of a shape that is not known"}
  %d = onnx.node "MatMulInteger"(%codes, %w, %z) outputs ["d"] : (tensor<?x3xui8>, tensor<3x2xi8>, tensor<3xi8>) -> !onnx.unknown
  // CHECK: outputs ["e"] {{.*}}{nibble.kept = "it does not have 2 to 4 inputs and 1 output"}
  %e = onnx.node "MatMulInteger"(%codes) outputs ["e"] : (tensor<?x3xui8>) -> !onnx.unknown
  return %a : !onnx.unknown
}
}
