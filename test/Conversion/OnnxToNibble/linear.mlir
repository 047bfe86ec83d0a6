// RUN: nibble-opt %s --convert-onnx-to-nibble | FileCheck %s
// RUN: nibble-opt %s --convert-onnx-to-nibble --convert-nibble-to-onnx | FileCheck %s --check-prefix=BACK

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {

// A weight per output channel: its readers see the quantized tensor.
// CHECK-LABEL: func.func @per_axis
// CHECK-DAG: %[[C:.*]] = onnx.constant "codes" : tensor<2x3xi8> = dense<{{.*}}>
// CHECK-DAG: %[[S:.*]] = onnx.constant "scale" : tensor<1x3xf32> = dense<{{.*}}>
// CHECK-DAG: %[[Z:.*]] = onnx.constant "zero" : tensor<1x3xi8> = dense<{{.*}}>
// CHECK: %[[W:.*]] = nibble.assemble %[[C]] scales(%[[S]]) zeros(%[[Z]])
// CHECK-SAME: nibble.onnx = {inputs = [{name = "codes",
// CHECK-SAME: : tensor<2x3xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, zero = i8>>
// CHECK-NOT: DequantizeLinear"(
// CHECK: onnx.node "MatMul"(%{{.*}}, %[[W]])
// BACK-LABEL: func.func @per_axis
// BACK-DAG: onnx.constant "scale" : tensor<3xf32> = dense<[1.000000e+00, 2.000000e+00, 3.000000e+00]> in float_data
// BACK-DAG: onnx.constant "zero" : tensor<3xi8> = dense<[0, 1, -1]>
// BACK: onnx.node "DequantizeLinear"({{.*}}) name "dq" outputs ["w"] {axis = 1 : i64}
// BACK-SAME: -> !onnx.unknown
func.func @per_axis(%x: tensor<?x2xf32>) -> !onnx.unknown attributes {
    onnx.graph = #onnx.graph<inputs ["x"] outputs ["y"] value_info []>} {
  %codes = onnx.constant "codes" : tensor<2x3xi8> = dense<[[1, -2, 3], [4, 5, -128]]>
  %scale = onnx.constant "scale" : tensor<3xf32> = dense<[1.0, 2.0, 3.0]> in float_data
  %zero = onnx.constant "zero" : tensor<3xi8> = dense<[0, 1, -1]>
  %w = onnx.node "DequantizeLinear"(%codes, %scale, %zero) name "dq" outputs ["w"] {axis = 1 : i64}
      : (tensor<2x3xi8>, tensor<3xf32>, tensor<3xi8>) -> !onnx.unknown
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<?x2xf32>, !onnx.unknown) -> !onnx.unknown
  return %y : !onnx.unknown
}

// Blocks along dimension 0, with a tail.
// CHECK-LABEL: func.func @blocked
// CHECK: nibble.assemble
// CHECK-SAME: : tensor<5x2xf16, #nibble.quantized<u4, block = [4, 1], scale = f16>>
func.func @blocked(%x: tensor<?x5xf16>) -> tensor<?x2xf16> {
  %codes = onnx.constant "codes" : tensor<5x2xui4> = dense<7>
  %scale = onnx.constant "scale" : tensor<2x2xf16> = dense<0.5>
  %w = onnx.node "DequantizeLinear"(%codes, %scale) outputs ["w"] {axis = 0 : i64, block_size = 4 : i64}
      : (tensor<5x2xui4>, tensor<2x2xf16>) -> tensor<5x2xf16>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<?x5xf16>, tensor<5x2xf16>) -> tensor<?x2xf16>
  return %y : tensor<?x2xf16>
}

// A zero point that the encoding has no place for must be 0; the node keeps it.
// CHECK-LABEL: func.func @bias
// CHECK: nibble.assemble
// CHECK-SAME: : tensor<2xf32, #nibble.quantized<i32, block = [*], scale = f32>>
// BACK-LABEL: func.func @bias
// BACK: %[[Z:.*]] = onnx.constant "zero" : tensor<i32> = dense<0>
// BACK: onnx.node "DequantizeLinear"(%{{.*}}, %{{.*}}, %[[Z]])
func.func @bias(%x: tensor<?x2xf32>) -> tensor<?x2xf32> {
  %codes = onnx.constant "codes" : tensor<2xi32> = dense<[100000, -7]>
  %scale = onnx.constant "scale" : tensor<f32> = dense<0.5>
  %zero = onnx.constant "zero" : tensor<i32> = dense<0>
  %b = onnx.node "DequantizeLinear"(%codes, %scale, %zero) outputs ["b"]
      : (tensor<2xi32>, tensor<f32>, tensor<i32>) -> tensor<2xf32>
  %y = onnx.node "Add"(%x, %b) outputs ["y"] : (tensor<?x2xf32>, tensor<2xf32>) -> tensor<?x2xf32>
  return %y : tensor<?x2xf32>
}

// A pair around activations, whose types the file states only in part.
// CHECK-LABEL: func.func @activations
// CHECK-SAME: %[[X:.*]]: tensor<?x2xf32, #onnx.dims<"batch">>
// CHECK: %[[P:.*]] = builtin.unrealized_conversion_cast %[[X]]
// CHECK: %[[Q:.*]] = nibble.quantize %[[P]] scales(%{{.*}}) zeros(%{{.*}})
// CHECK-SAME: : tensor<?x2xf32, #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
// CHECK: nibble.dequantize %[[Q]]
// BACK-LABEL: func.func @activations
// BACK-SAME: %[[X:.*]]: tensor<?x2xf32, #onnx.dims<"batch">>
// BACK-COUNT-2: onnx.constant
// BACK-NOT: builtin
// BACK: %[[Q:.*]] = onnx.node "QuantizeLinear"(%[[X]], %[[S:.*]], %[[Z:.*]]) outputs ["q"]
// BACK-NEXT: onnx.node "DequantizeLinear"(%[[Q]], %[[S]], %[[Z]]) outputs ["y"]
func.func @activations(%x: tensor<?x2xf32, #onnx.dims<"batch">>) -> !onnx.unknown {
  %scale = onnx.constant "scale" : tensor<f32> = dense<0.5>
  %zero = onnx.constant "zero" : tensor<ui8> = dense<128>
  %q = onnx.node "QuantizeLinear"(%x, %scale, %zero) outputs ["q"]
      : (tensor<?x2xf32, #onnx.dims<"batch">>, tensor<f32>, tensor<ui8>) -> !onnx.unknown
  %y = onnx.node "DequantizeLinear"(%q, %scale, %zero) outputs ["y"]
      : (!onnx.unknown, tensor<f32>, tensor<ui8>) -> !onnx.unknown
  return %y : !onnx.unknown
}

// CHECK-LABEL: func.func @dynamic
// CHECK: %[[Q:.*]] = nibble.quantize_dynamic
// CHECK: nibble.codes %[[Q]]
// CHECK: %[[S:.*]] = nibble.scales %[[Q]]
// CHECK: onnx.node "Squeeze"(%[[S]]) outputs ["scale"]
// BACK-LABEL: func.func @dynamic
// BACK: onnx.node "DynamicQuantizeLinear"(%{{.*}}) outputs ["q", "scale", "zero"]
// BACK-NOT: Squeeze
func.func @dynamic(%x: tensor<?x2xf32>) -> (tensor<?x2xui8>, tensor<f32>) {
  %q:3 = onnx.node "DynamicQuantizeLinear"(%x) outputs ["q", "scale", "zero"]
      : (tensor<?x2xf32>) -> (tensor<?x2xui8>, tensor<f32>, tensor<ui8>)
  return %q#0, %q#1 : tensor<?x2xui8>, tensor<f32>
}

// What a caller reads has the type that the graph states.
// CHECK-LABEL: func.func @output
// CHECK: %[[W:.*]] = nibble.assemble
// CHECK: nibble.dequantize %[[W]]
func.func @output() -> tensor<2xf32> {
  %codes = onnx.constant "codes" : tensor<2xi8> = dense<7>
  %scale = onnx.constant "scale" : tensor<f32> = dense<0.5>
  %y = onnx.node "DequantizeLinear"(%codes, %scale) outputs ["y"] : (tensor<2xi8>, tensor<f32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// A product of what the codes stand for; its shape need not be known.
// CHECK-LABEL: func.func @qlinear
// CHECK: %[[A:.*]] = nibble.assemble %{{.*}} : tensor<3x2xf32, #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
// CHECK: %[[B:.*]] = nibble.assemble %{{.*}} : tensor<2x4xf32, #nibble.quantized<i8, block = [*, *], scale = f32, zero = i8>>
// CHECK: %[[P:.*]] = onnx.node "MatMul"(%[[A]], %[[B]]) outputs ["y.expressed"]
// CHECK: %[[Q:.*]] = nibble.quantize %[[P]]
// CHECK: nibble.codes %[[Q]]
// BACK-LABEL: func.func @qlinear
// BACK: onnx.node "QLinearMatMul"(%arg0, %[[S:.*]], %[[Z:.*]], %{{.*}}, %[[S]], %{{.*}}, %[[S]], %[[Z]]) outputs ["y"]
// BACK-NEXT: return
func.func @qlinear(%a: tensor<3x2xui8>) -> !onnx.unknown {
  %b = onnx.constant "b" : tensor<2x4xi8> = dense<7>
  %s = onnx.constant "s" : tensor<f32> = dense<0.5>
  %z = onnx.constant "z" : tensor<ui8> = dense<128>
  %bz = onnx.constant "bz" : tensor<i8> = dense<0>
  %y = onnx.node "QLinearMatMul"(%a, %s, %z, %b, %s, %bz, %s, %z) outputs ["y"]
      : (tensor<3x2xui8>, tensor<f32>, tensor<ui8>, tensor<2x4xi8>, tensor<f32>, tensor<i8>, tensor<f32>, tensor<ui8>) -> !onnx.unknown
  return %y : !onnx.unknown
}
}
