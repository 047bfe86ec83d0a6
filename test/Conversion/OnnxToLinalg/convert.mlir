// RUN: nibble-opt %s --convert-onnx-to-linalg --canonicalize | FileCheck %s

!w = tensor<6x7xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>

// CHECK-NOT: onnx.
module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {

// Dimensions of one name are equal: nothing to stretch.
// CHECK-LABEL: func.func @broadcast(
// CHECK-SAME: %[[A:.*]]: tensor<2x?xf32>, %[[B:.*]]: tensor<?xf32>) -> tensor<2x?xf32>
// CHECK: linalg.generic {indexing_maps = [#[[ID:.*]], #[[ROW:.*]], #[[ID]]], iterator_types = ["parallel", "parallel"]} ins(%[[A]], %[[B]] :
// CHECK: arith.addf
// CHECK-NOT: linalg.generic
func.func @broadcast(%a: tensor<2x?xf32, #onnx.dims<"n">>, %b: tensor<?xf32, #onnx.dims<"n">>) -> tensor<2x?xf32, #onnx.dims<"n">> {
  %y = onnx.node "Add"(%a, %b) outputs ["y"] : (tensor<2x?xf32, #onnx.dims<"n">>, tensor<?xf32, #onnx.dims<"n">>) -> tensor<2x?xf32, #onnx.dims<"n">>
  return %y : tensor<2x?xf32, #onnx.dims<"n">>
}

// Nothing says which of the two sizes is 1: that is seen when the code runs.
// CHECK-LABEL: func.func @maybe_stretched(
// CHECK: %[[SIZE:.*]] = arith.select
// CHECK: tensor.empty(%[[SIZE]])
// CHECK-COUNT-2: tensor.extract
// CHECK: arith.addf
func.func @maybe_stretched(%a: tensor<?xf32>, %b: tensor<?xf32>) -> tensor<?xf32> {
  %y = onnx.node "Add"(%a, %b) outputs ["y"] : (tensor<?xf32>, tensor<?xf32>) -> tensor<?xf32>
  return %y : tensor<?xf32>
}

// Sums of halves are f32, in ascending k, and are rounded once.
// CHECK-LABEL: func.func @matmul(
// CHECK: linalg.fill {{.*}} -> tensor<4x3x5x7xf32>
// CHECK: iterator_types = ["parallel", "parallel", "parallel", "reduction", "parallel"]
// CHECK: arith.extf
// CHECK: arith.extf
// CHECK: arith.mulf {{.*}} : f32
// CHECK: arith.addf {{.*}} : f32
// CHECK: arith.truncf {{.*}} : f32 to f16
func.func @matmul(%a: tensor<4x1x5x6xf16>, %b: tensor<3x6x7xf16>) -> tensor<4x3x5x7xf16> {
  %y = onnx.node "MatMul"(%a, %b) outputs ["y"] : (tensor<4x1x5x6xf16>, tensor<3x6x7xf16>) -> tensor<4x3x5x7xf16>
  return %y : tensor<4x3x5x7xf16>
}

// CHECK-LABEL: func.func @codes() -> (tensor<4xi8>, tensor<4xi8>)
// CHECK-DAG: arith.constant dense<[0, 7, 8, 15]> : tensor<4xi8>
// CHECK-DAG: arith.constant dense<[0, 7, -8, -1]> : tensor<4xi8>
func.func @codes() -> (tensor<4xui4>, tensor<4xi4>) {
  %u = onnx.constant "u" : tensor<4xui4> = dense<[0, 7, 8, 15]>
  %i = onnx.constant "i" : tensor<4xi4> = dense<[0, 7, -8, -1]>
  return %u, %i : tensor<4xui4>, tensor<4xi4>
}

// Unsigned integers compare and divide as such.
// CHECK-LABEL: func.func @unsigned(
// CHECK: arith.divui {{.*}} : i8
// CHECK: arith.cmpi ult, {{.*}} : i8
func.func @unsigned(%a: tensor<3xui8>, %b: tensor<3xui8>) -> (tensor<3xui8>, tensor<3xi1>) {
  %y = onnx.node "Div"(%a, %b) outputs ["y"] : (tensor<3xui8>, tensor<3xui8>) -> tensor<3xui8>
  %z = onnx.node "Less"(%a, %b) outputs ["z"] : (tensor<3xui8>, tensor<3xui8>) -> tensor<3xi1>
  return %y, %z : tensor<3xui8>, tensor<3xi1>
}

// A contraction takes a quantized weight as it is, other nodes dequantize it.
// CHECK-LABEL: func.func @quantized(
// CHECK-SAME: %[[X:.*]]: tensor<2x6xf32>, %[[W:.*]]: tensor<6x7xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>, %[[I:.*]]: tensor<3xi64>)
// CHECK: nibble.matmul %[[X]], %[[W]] compute f32
// CHECK: nibble.gather %[[W]][%[[I]]] axis 0
// CHECK: %[[E:.*]] = nibble.dequantize %[[W]]
// CHECK: linalg.generic {{.*}} ins(%[[E]]
// CHECK: arith.maximumf
func.func @quantized(%x: tensor<2x6xf32>, %w: !w, %i: tensor<3xi64>) -> (tensor<2x7xf32>, tensor<3x7xf32>, tensor<6x7xf32>) {
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<2x6xf32>, !w) -> tensor<2x7xf32>
  %g = onnx.node "Gather"(%w, %i) outputs ["g"] : (!w, tensor<3xi64>) -> tensor<3x7xf32>
  %z = onnx.node "Relu"(%w) outputs ["z"] : (!w) -> tensor<6x7xf32>
  return %y, %g, %z : tensor<2x7xf32>, tensor<3x7xf32>, tensor<6x7xf32>
}

// Codes of f8 are bytes, read through a table of what they stand for; the scale
// of a block of two is at half the index.
// CHECK-LABEL: func.func @dequantize(
// CHECK-SAME: tensor<4x3xi8>, {{.*}}: tensor<2x3xf32>
// CHECK-DAG: %[[TABLE:.*]] = arith.constant dense<{{.*}}> : tensor<256xf32>
// CHECK-DAG: %[[TWO:.*]] = arith.constant 2 : index
// CHECK: tensor.extract %[[TABLE]]
// CHECK: arith.divui {{.*}}, %[[TWO]] : index
// CHECK: arith.mulf
func.func @dequantize(%x: tensor<4x3xf8E4M3FN>, %s: tensor<2x3xf32>) -> tensor<4x3xf32> {
  %y = onnx.node "DequantizeLinear"(%x, %s) outputs ["y"] {axis = 0 : i64, block_size = 2 : i64} : (tensor<4x3xf8E4M3FN>, tensor<2x3xf32>) -> tensor<4x3xf32>
  return %y : tensor<4x3xf32>
}

// Half to even; the sum is clamped before the conversion.
// CHECK-LABEL: func.func @quantize(
// CHECK: arith.divf
// CHECK: math.roundeven
// CHECK: arith.addf
// CHECK: arith.maximumf
// CHECK: arith.minimumf
// CHECK: arith.fptoui
func.func @quantize(%x: tensor<4x3xf32>, %s: tensor<f32>, %z: tensor<ui8>) -> tensor<4x3xui8> {
  %y = onnx.node "QuantizeLinear"(%x, %s, %z) outputs ["y"] : (tensor<4x3xf32>, tensor<f32>, tensor<ui8>) -> tensor<4x3xui8>
  return %y : tensor<4x3xui8>
}

// The sizes of a reshape that are known are folded; the other one is computed.
// CHECK-LABEL: func.func @reshape(
// CHECK: %[[COUNT:.*]] = arith.muli
// CHECK: %[[REST:.*]] = arith.divui
// CHECK: tensor.from_elements {{.*}} : tensor<2xindex>
// CHECK: tensor.reshape {{.*}} -> tensor<?x6xf32>
func.func @reshape(%x: tensor<?x4x3xf32>) -> tensor<?x6xf32> {
  %s = onnx.constant "s" : tensor<2xi64> = dense<[-1, 6]>
  %y = onnx.node "Reshape"(%x, %s) outputs ["y"] : (tensor<?x4x3xf32>, tensor<2xi64>) -> tensor<?x6xf32>
  return %y : tensor<?x6xf32>
}

// CHECK-LABEL: func.func @softmax(
// CHECK: iterator_types = ["parallel", "reduction"]
// CHECK: arith.maximumf
// CHECK: arith.subf
// CHECK: iterator_types = ["parallel", "reduction"]
// CHECK: math.exp
// CHECK: arith.divf
func.func @softmax(%x: tensor<2x5xf32>) -> tensor<2x5xf32> {
  %y = onnx.node "Softmax"(%x) outputs ["y"] : (tensor<2x5xf32>) -> tensor<2x5xf32>
  return %y : tensor<2x5xf32>
}

// The sizes of a padded convolution's result are those of its input plus a
// constant, so that a sum of two has no dimensions to stretch.
// CHECK-LABEL: func.func @same_sizes(
// CHECK-NOT: arith.select
// CHECK: arith.maximumf
// CHECK-NOT: tensor.extract
// CHECK: linalg.generic {{.*}} ins(%{{.*}}, %{{.*}} : tensor<1x2x?x?xf32>, tensor<1x2x?x?xf32>)
// CHECK-NEXT: ^bb0
// CHECK-NEXT: arith.addf
func.func @same_sizes(%x: tensor<1x2x?x?xf32>, %w: tensor<2x2x3x3xf32>) -> tensor<1x2x?x?xf32> {
  %c = onnx.node "Conv"(%x, %w) outputs ["c"] {pads = array<i64: 1, 1, 1, 1>} : (tensor<1x2x?x?xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x?x?xf32>
  %r = onnx.node "Relu"(%x) outputs ["r"] : (tensor<1x2x?x?xf32>) -> tensor<1x2x?x?xf32>
  %y = onnx.node "Add"(%c, %r) outputs ["y"] : (tensor<1x2x?x?xf32>, tensor<1x2x?x?xf32>) -> tensor<1x2x?x?xf32>
  return %y : tensor<1x2x?x?xf32>
}
}
