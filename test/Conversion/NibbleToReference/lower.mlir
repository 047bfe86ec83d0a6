// RUN: nibble-opt %s --lower-nibble-to-reference --reconcile-unrealized-casts --canonicalize | FileCheck %s

// The numbers are tested in test/Integration/reference_quantized.py; here is what
// the IR looks like.

!w = tensor<6x7xf32, #nibble.quantized<u4, block = [4, 1], scale = f16, zero = u4>>
!f = tensor<6x7xf32, #nibble.quantized<i8, block = flat [16], scale = f32>>
!nf4 = tensor<6x7xf16, #nibble.quantized<nf4, block = [*, *], scale = f32>>
!columns = tensor<6x7xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = columns<0, f16>>>

// CHECK-LABEL: func.func @dequantize(
// CHECK-SAME: %[[C:.*]]: tensor<6x7xi8>, %[[S:.*]]: tensor<2x7xf16>, %[[Z:.*]]: tensor<2x7xi8>) -> tensor<6x7xf32>
// CHECK: linalg.generic
// CHECK: %[[CODE:.*]] = tensor.extract %[[C]][%[[K:.*]], %[[N:.*]]]
// CHECK: %[[NUMBER:.*]] = arith.uitofp %[[CODE]] : i8 to f32
// CHECK: %[[BLOCK:.*]] = arith.divui %[[K]], %c4
// CHECK: tensor.extract %[[Z]][%[[BLOCK]], %[[N]]]
// CHECK: %[[DIFFERENCE:.*]] = arith.subf %[[NUMBER]],
// CHECK: tensor.extract %[[S]][%[[BLOCK]], %[[N]]]
// CHECK: arith.mulf %[[DIFFERENCE]], {{.*}} : f32
func.func @dequantize(%c: tensor<6x7xui4>, %s: tensor<2x7xf16>, %z: tensor<2x7xui4>) -> tensor<6x7xf32> {
  %w = nibble.assemble %c scales(%s) zeros(%z) : !w
  %y = nibble.dequantize %w : !w
  return %y : tensor<6x7xf32>
}

// CHECK-LABEL: func.func @integers(
// CHECK-SAME: %[[C:.*]]: tensor<6x7xi8>, %[[S:.*]]: tensor<2x7xf16>, %[[Z:.*]]: tensor<2x7xi8>) -> tensor<6x7xi32>
// CHECK: linalg.generic
// CHECK: %[[CODE:.*]] = tensor.extract %[[C]][%[[K:.*]], %[[N:.*]]]
// CHECK: %[[LEFT:.*]] = arith.extui %[[CODE]] : i8 to i32
// CHECK: %[[BLOCK:.*]] = arith.divui %[[K]], %c4
// CHECK: %[[ZERO:.*]] = tensor.extract %[[Z]][%[[BLOCK]], %[[N]]]
// CHECK: %[[RIGHT:.*]] = arith.extui %[[ZERO]] : i8 to i32
// CHECK: arith.subi %[[LEFT]], %[[RIGHT]] : i32
// CHECK-NOT: %[[S]]
// CHECK: return
func.func @integers(%c: tensor<6x7xui4>, %s: tensor<2x7xf16>, %z: tensor<2x7xui4>) -> tensor<6x7xi32> {
  %w = nibble.assemble %c scales(%s) zeros(%z) : !w
  %y = nibble.integers %w : !w
  return %y : tensor<6x7xi32>
}

// A quantized argument becomes its parts.
// CHECK-LABEL: func.func @parts(
// CHECK-SAME: %[[C:.*]]: tensor<6x7xi8>, %[[S:.*]]: tensor<2x7xf16>, %[[Z:.*]]: tensor<2x7xi8>)
// CHECK: return %[[Z]], %[[C]], %[[S]], %[[Z]]
func.func @parts(%w: !w) -> (tensor<2x7xui4>, !w) {
  %z = nibble.zeros %w : !w
  return %z, %w : tensor<2x7xui4>, !w
}

// A flat block: the element's number in row-major order, by the block's size.
// CHECK-LABEL: func.func @flat(
// CHECK: %[[ROW:.*]] = arith.muli %{{.*}}, %c7
// CHECK: %[[PLACE:.*]] = arith.addi %[[ROW]],
// CHECK: %[[BLOCK:.*]] = arith.divui %[[PLACE]], %c16
// CHECK: tensor.extract %{{.*}}[%[[BLOCK]]] : tensor<3xf32>
func.func @flat(%w: !f) -> tensor<6x7xf32> {
  %y = nibble.dequantize %w : !f
  return %y : tensor<6x7xf32>
}

// CHECK-LABEL: func.func @code_book(
// CHECK: %[[BOOK:.*]] = arith.constant dense<[-1.000000e+00, -0.69{{.*}}, 1.000000e+00]> : tensor<16xf32>
// CHECK: tensor.extract %[[BOOK]]
// CHECK: arith.truncf {{.*}} : f32 to f16
func.func @code_book(%w: !nf4) -> tensor<6x7xf16> {
  %y = nibble.dequantize %w : !nf4
  return %y : tensor<6x7xf16>
}

// CHECK-LABEL: func.func @outliers(
// CHECK-SAME: tensor<6x7xi8>, {{.*}}: tensor<1x7xf32>, %[[ROWS:.*]]: tensor<?xi64>, %[[VALUES:.*]]: tensor<?x7xf16>)
// CHECK: scf.for
// CHECK: scf.for
// CHECK: tensor.extract %[[VALUES]]
// CHECK: %[[ROW:.*]] = tensor.extract %[[ROWS]]
// CHECK: %[[PLACE:.*]] = arith.index_cast %[[ROW]]
// CHECK: tensor.insert {{.*}}[%[[PLACE]],
func.func @outliers(%w: !columns) -> tensor<6x7xf32> {
  %y = nibble.dequantize %w : !columns
  return %y : tensor<6x7xf32>
}

// Ascending k, no fused multiply and add, the bias last.
// CHECK-LABEL: func.func @matmul(
// CHECK: iterator_types = ["parallel", "reduction", "parallel"]
// CHECK: %[[PRODUCT:.*]] = arith.mulf
// CHECK: arith.addf %{{.*}}, %[[PRODUCT]]
// CHECK: arith.addf
func.func @matmul(%x: tensor<2x6xf32>, %w: !w, %b: tensor<7xf32>) -> tensor<2x7xf32> {
  %y = nibble.matmul %x, %w bias(%b : tensor<7xf32>) compute f32 : tensor<2x6xf32>, !w
  return %y : tensor<2x7xf32>
}

// CHECK-LABEL: func.func @observe(
// CHECK-SAME: %[[X:.*]]: tensor<2xf32>
// CHECK-NEXT: return %[[X]]
func.func @observe(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = nibble.observe "x" %x : tensor<2xf32>
  return %y : tensor<2xf32>
}
