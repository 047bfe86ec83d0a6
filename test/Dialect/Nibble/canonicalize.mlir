// RUN: nibble-opt %s --canonicalize --cse --split-input-file | FileCheck %s

!q = tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>

// CHECK-LABEL: func.func @projections_of_an_assembly(
// CHECK-SAME: %[[C:.*]]: tensor<64x8xui4>, %[[S:.*]]: tensor<2x8xf16>, %[[Z:.*]]: tensor<2x8xui4>)
func.func @projections_of_an_assembly(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>)
    -> (tensor<64x8xui4>, tensor<2x8xf16>, tensor<2x8xui4>) {
  %w = nibble.assemble %c scales(%s) zeros(%z) : !q
  %0 = nibble.codes %w : !q
  %1 = nibble.scales %w : !q
  %2 = nibble.zeros %w : !q
  // CHECK-NEXT: return %[[C]], %[[S]], %[[Z]]
  return %0, %1, %2 : tensor<64x8xui4>, tensor<2x8xf16>, tensor<2x8xui4>
}

// CHECK-LABEL: func.func @assembly_of_projections(
// CHECK-SAME: %[[W:.*]]: tensor<64x8xf32, #nibble
func.func @assembly_of_projections(%w: !q) -> !q {
  %0 = nibble.codes %w : !q
  %1 = nibble.scales %w : !q
  %2 = nibble.zeros %w : !q
  %3 = nibble.assemble %0 scales(%1) zeros(%2) : !q
  // CHECK-NEXT: return %[[W]]
  return %3 : !q
}

// CHECK-LABEL: func.func @parts_of_two_tensors(
func.func @parts_of_two_tensors(%v: !q, %w: !q) -> (!q, !q) {
  %0 = nibble.codes %v : !q
  %1 = nibble.scales %w : !q
  %2 = nibble.zeros %v : !q
  // CHECK: %[[A:.*]] = nibble.assemble
  %3 = nibble.assemble %0 scales(%1) zeros(%2) : !q
  %4 = nibble.scales %v : !q
  %5 = nibble.zeros %w : !q
  // CHECK: %[[B:.*]] = nibble.assemble
  %6 = nibble.assemble %0 scales(%4) zeros(%5) : !q
  // CHECK: return %[[A]], %[[B]]
  return %3, %6 : !q, !q
}

// The same parts under another encoding are another tensor.
// CHECK-LABEL: func.func @another_encoding(
func.func @another_encoding(%w: tensor<64x8xf32, #nibble.quantized<nf4, block = [32, 1], scale = f16>>)
    -> tensor<64x8xf32, #nibble.quantized<fp4, block = [32, 1], scale = f16>> {
  %0 = nibble.codes %w : tensor<64x8xf32, #nibble.quantized<nf4, block = [32, 1], scale = f16>>
  %1 = nibble.scales %w : tensor<64x8xf32, #nibble.quantized<nf4, block = [32, 1], scale = f16>>
  // CHECK: nibble.assemble
  %2 = nibble.assemble %0 scales(%1) : tensor<64x8xf32, #nibble.quantized<fp4, block = [32, 1], scale = f16>>
  return %2 : tensor<64x8xf32, #nibble.quantized<fp4, block = [32, 1], scale = f16>>
}

// -----

!q = tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = columns<0, f16>>>

// CHECK-LABEL: func.func @outliers_of_an_assembly(
// CHECK-SAME: %[[I:[a-z0-9]*]]: tensor<5xi32>, %[[V:[a-z0-9]*]]: tensor<5x8xf16>)
func.func @outliers_of_an_assembly(%c: tensor<64x8xi8>, %s: tensor<1x8xf32>, %i: tensor<5xi32>, %v: tensor<5x8xf16>)
    -> (tensor<5xi32>, tensor<5x8xf16>) {
  %w = nibble.assemble %c scales(%s) outliers(%i, %v : tensor<5xi32>, tensor<5x8xf16>) : !q
  %0, %1 = nibble.outliers %w : !q -> tensor<5xi32>, tensor<5x8xf16>
  // CHECK-NEXT: return %[[I]], %[[V]]
  return %0, %1 : tensor<5xi32>, tensor<5x8xf16>
}

// CHECK-LABEL: func.func @outliers_of_another_type(
func.func @outliers_of_another_type(%c: tensor<64x8xi8>, %s: tensor<1x8xf32>, %i: tensor<5xi32>, %v: tensor<5x8xf16>)
    -> (tensor<?xi32>, tensor<?x8xf16>) {
  %w = nibble.assemble %c scales(%s) outliers(%i, %v : tensor<5xi32>, tensor<5x8xf16>) : !q
  // CHECK: %[[A:.*]], %[[B:.*]] = nibble.outliers
  %0, %1 = nibble.outliers %w : !q -> tensor<?xi32>, tensor<?x8xf16>
  // CHECK: return %[[A]], %[[B]]
  return %0, %1 : tensor<?xi32>, tensor<?x8xf16>
}

// CHECK-LABEL: func.func @assembly_with_outliers(
// CHECK-SAME: %[[W:[a-z0-9]*]]: tensor<64x8xf32, #nibble
func.func @assembly_with_outliers(%w: !q, %other: !q) -> (!q, !q) {
  %0 = nibble.codes %w : !q
  %1 = nibble.scales %w : !q
  %2, %3 = nibble.outliers %w : !q -> tensor<?xi32>, tensor<?x8xf16>
  %4 = nibble.assemble %0 scales(%1) outliers(%2, %3 : tensor<?xi32>, tensor<?x8xf16>) : !q
  // CHECK: %[[I:.*]], %[[V:.*]] = nibble.outliers
  %5, %6 = nibble.outliers %other : !q -> tensor<?xi32>, tensor<?x8xf16>
  // CHECK: %[[A:.*]] = nibble.assemble
  %7 = nibble.assemble %0 scales(%1) outliers(%5, %6 : tensor<?xi32>, tensor<?x8xf16>) : !q
  // CHECK: return %[[W]], %[[A]]
  return %4, %7 : !q, !q
}

// -----

!q = tensor<64xf32, #nibble.quantized<i8, block = [*], scale = f32>>

// The loss of a quantization is the program's meaning: nothing folds it away.
// CHECK-LABEL: func.func @quantization_stays(
func.func @quantization_stays(%x: tensor<64xf32>, %s: tensor<1xf32>) -> (tensor<64xf32>, tensor<64xf32>) {
  // CHECK: %[[Q:.*]] = nibble.quantize %
  // CHECK: %[[X:.*]] = nibble.dequantize %[[Q]]
  %q = nibble.quantize %x scales(%s) : !q
  %0 = nibble.dequantize %q : !q
  // CHECK: %[[D:.*]] = nibble.quantize_dynamic %
  // CHECK: %[[Y:.*]] = nibble.dequantize %[[D]]
  %d = nibble.quantize_dynamic %x : !q
  %1 = nibble.dequantize %d : !q
  // CHECK: return %[[X]], %[[Y]]
  return %0, %1 : tensor<64xf32>, tensor<64xf32>
}

// CHECK-LABEL: func.func @unused_ops_go_and_probes_stay(
func.func @unused_ops_go_and_probes_stay(%x: tensor<64xf32>) {
  // CHECK-NEXT: nibble.observe "x"
  // CHECK-NEXT: nibble.observe "x"
  // CHECK-NEXT: return
  %d = nibble.quantize_dynamic %x : !q
  %0 = nibble.observe "x" %x : tensor<64xf32>
  %1 = nibble.observe "x" %x : tensor<64xf32>
  return
}
