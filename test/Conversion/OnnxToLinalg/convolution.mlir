// RUN: nibble-opt %s --convert-onnx-to-linalg --canonicalize | FileCheck %s

// A later pass finds a convolution by its indexing maps.
// CHECK-DAG: #[[X:.*]] = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d3, d2 * 2 + d4, d6 + d5 * 3)>
// CHECK-DAG: #[[W:.*]] = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d1, d3, d4, d5)>
// CHECK-DAG: #[[Y:.*]] = affine_map<(d0, d1, d2, d3, d4, d5, d6) -> (d0, d1, d2, d6)>
// CHECK-DAG: #[[GX:.*]] = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d1, d3, d4 + d5)>
// CHECK-DAG: #[[GW:.*]] = affine_map<(d0, d1, d2, d3, d4, d5) -> (d1, d2, d3, d4)>
// CHECK-DAG: #[[GY:.*]] = affine_map<(d0, d1, d2, d3, d4, d5) -> (d0, d1, d2, d5)>

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {

// The bias is what the sums start with.
// CHECK-LABEL: func.func @dynamic(
// CHECK-SAME: %[[INPUT:.*]]: tensor<?x3x?x?xf32>, %[[WEIGHT:.*]]: tensor<8x3x3x2xf32>, %[[BIAS:.*]]: tensor<8xf32>)
// CHECK: cf.assert {{.*}}, "node 'y': the input with its padding is smaller than the window"
// CHECK: %[[PADDED:.*]] = tensor.pad %[[INPUT]] low[0, 0, 1, 0] high[0, 0, 1, 2]
// CHECK: %[[START:.*]] = linalg.generic {{.*}} ins(%[[BIAS]] :
// CHECK: linalg.generic {indexing_maps = [#[[X]], #[[W]], #[[Y]]], iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction", "reduction", "parallel"]} ins(%[[PADDED]], %[[WEIGHT]] : {{.*}}) outs(%[[START]] :
func.func @dynamic(%x: tensor<?x3x?x?xf32>, %w: tensor<8x3x3x2xf32>, %b: tensor<8xf32>) -> tensor<?x8x?x?xf32> {
  %y = onnx.node "Conv"(%x, %w, %b) outputs ["y"] {strides = array<i64: 2, 1>, dilations = array<i64: 1, 3>, pads = array<i64: 1, 0, 1, 2>} : (tensor<?x3x?x?xf32>, tensor<8x3x3x2xf32>, tensor<8xf32>) -> tensor<?x8x?x?xf32>
  return %y : tensor<?x8x?x?xf32>
}

// Groups are a dimension, and halves are summed in f32.
// CHECK-LABEL: func.func @groups(
// CHECK-DAG: tensor.expand_shape {{.*}} : tensor<1x6x9xf16> into tensor<1x3x2x9xf16>
// CHECK-DAG: tensor.expand_shape {{.*}} : tensor<12x2x4xf16> into tensor<3x4x2x4xf16>
// CHECK: linalg.fill {{.*}} -> tensor<1x3x4x6xf32>
// CHECK: linalg.generic {indexing_maps = [#[[GX]], #[[GW]], #[[GY]]]
// CHECK: tensor.collapse_shape {{.*}} : tensor<1x3x4x6xf32> into tensor<1x12x6xf32>
// CHECK: arith.truncf {{.*}} : f32 to f16
func.func @groups(%x: tensor<1x6x9xf16>, %w: tensor<12x2x4xf16>) -> tensor<1x12x6xf16> {
  %y = onnx.node "Conv"(%x, %w) outputs ["y"] {group = 3 : i64} : (tensor<1x6x9xf16>, tensor<12x2x4xf16>) -> tensor<1x12x6xf16>
  return %y : tensor<1x12x6xf16>
}

// The padding of integers is their zero point, and sums are i32.
// CHECK-LABEL: func.func @integers(
// CHECK: %[[ZERO:.*]] = tensor.extract
// CHECK: tensor.pad
// CHECK: tensor.yield %[[ZERO]] : i8
// CHECK: arith.extui {{.*}} : i8 to i32
// CHECK: arith.extsi {{.*}} : i8 to i32
// CHECK: arith.muli {{.*}} : i32
func.func @integers(%x: tensor<1x2x5xui8>, %w: tensor<3x2x3xi8>, %z: tensor<ui8>) -> tensor<1x3x5xi32> {
  %y = onnx.node "ConvInteger"(%x, %w, %z) outputs ["y"] {pads = array<i64: 1, 1>} : (tensor<1x2x5xui8>, tensor<3x2x3xi8>, tensor<ui8>) -> tensor<1x3x5xi32>
  return %y : tensor<1x3x5xi32>
}

// Windows that do not overlap need no zeros between the elements.
// CHECK-LABEL: func.func @separate(
// CHECK: linalg.fill {{.*}} -> tensor<1x2x4x2x5x3xf32>
// CHECK-NOT: tensor.insert_slice
// CHECK: tensor.collapse_shape {{.*}} into tensor<1x2x8x15xf32>
func.func @separate(%x: tensor<1x6x4x5xf32>, %w: tensor<6x2x2x3xf32>) -> tensor<1x2x8x15xf32> {
  %y = onnx.node "ConvTranspose"(%x, %w) outputs ["y"] {strides = array<i64: 2, 3>} : (tensor<1x6x4x5xf32>, tensor<6x2x2x3xf32>) -> tensor<1x2x8x15xf32>
  return %y : tensor<1x2x8x15xf32>
}
}
