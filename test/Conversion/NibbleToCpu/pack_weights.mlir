// RUN: nibble-opt %s --nibble-pack-weights --split-input-file | FileCheck %s
// RUN: nibble-opt %s --nibble-pack-weights=compute=i8 --split-input-file \
// RUN:   | FileCheck %s --check-prefix=INTEGER

// A tile is 64 columns, so that 8 columns take 64; a scale that f16 holds is
// kept in f16: 32 · 64 / 2 codes, 64 · 2 bytes of scales, 64 zero points.

// CHECK-LABEL: func @grouped
// CHECK: %[[PACKED:.*]] = arith.constant dense_resource<packed{{.*}}> : tensor<1216xi8>
// CHECK: nibble.packed_matmul %{{.*}}, %[[PACKED]] outs(%{{.*}}) weight
// CHECK-SAME: tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, layout = panel {group = 32 : i64}>> compute f32
// CHECK-NOT: nibble.matmul
// INTEGER-LABEL: func @grouped
// INTEGER: nibble.packed_matmul {{.*}} compute i8
func.func @grouped(%x: tensor<?x32xf32>) -> tensor<?x8xf32> {
  %codes = arith.constant dense<3> : tensor<32x8xi8>
  %c = builtin.unrealized_conversion_cast %codes : tensor<32x8xi8> to tensor<32x8xui4>
  %scales = arith.constant dense<0.5> : tensor<1x8xf32>
  %zeros = arith.constant dense<1> : tensor<1x8xi8>
  %z = builtin.unrealized_conversion_cast %zeros : tensor<1x8xi8> to tensor<1x8xui4>
  %w = nibble.assemble %c scales(%scales) zeros(%z) : tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f32, zero = u4>>
  %y = nibble.matmul %x, %w compute f32 : tensor<?x32xf32>, tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f32, zero = u4>>
  return %y : tensor<?x8xf32>
}

// -----

// A matrix of floats that is read transposed is packed as it is read.

// CHECK-LABEL: func @transposed
// CHECK: arith.constant dense_resource<packed{{.*}}> : tensor<192xf32>
// CHECK: nibble.packed_matmul {{.*}} weight tensor<3x2xf32> compute f32
// CHECK-NOT: linalg.generic
func.func @transposed(%x: tensor<4x3xf32>) -> tensor<4x2xf32> {
  %w = arith.constant dense<[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]> : tensor<2x3xf32>
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<3x2xf32>
  %t = linalg.transpose ins(%w : tensor<2x3xf32>) outs(%e : tensor<3x2xf32>) permutation = [1, 0]
  %o = tensor.empty() : tensor<4x2xf32>
  %f = linalg.fill ins(%zero : f32) outs(%o : tensor<4x2xf32>) -> tensor<4x2xf32>
  %y = linalg.generic {indexing_maps = [affine_map<(m, k, n) -> (m, k)>,
      affine_map<(m, k, n) -> (k, n)>, affine_map<(m, k, n) -> (m, n)>],
      iterator_types = ["parallel", "reduction", "parallel"]}
      ins(%x, %t : tensor<4x3xf32>, tensor<3x2xf32>) outs(%f : tensor<4x2xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %p = arith.mulf %a, %b : f32
    %s = arith.addf %c, %p : f32
    linalg.yield %s : f32
  } -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}

// -----

// What is added to is not overwritten: such a product stays.

// CHECK-LABEL: func @accumulates
// CHECK-NOT: packed_matmul
func.func @accumulates(%x: tensor<4x3xf32>, %c: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %w = arith.constant dense<1.5> : tensor<3x2xf32>
  %y = linalg.generic {indexing_maps = [affine_map<(m, k, n) -> (m, k)>,
      affine_map<(m, k, n) -> (k, n)>, affine_map<(m, k, n) -> (m, n)>],
      iterator_types = ["parallel", "reduction", "parallel"]}
      ins(%x, %w : tensor<4x3xf32>, tensor<3x2xf32>) outs(%c : tensor<4x2xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    %s = arith.addf %o, %p : f32
    linalg.yield %s : f32
  } -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}

// -----

// Code books have no integer kernel.

// CHECK-LABEL: func @code_book
// CHECK: nibble.matmul
func.func @code_book(%x: tensor<?x64xf32>, %codes: tensor<64x8xui4>, %scales: tensor<1x8xf32>) -> tensor<?x8xf32> {
  %w = nibble.assemble %codes scales(%scales) : tensor<64x8xf32, #nibble.quantized<nf4, block = [64, 1], scale = f32>>
  %y = nibble.matmul %x, %w compute f32 : tensor<?x64xf32>, tensor<64x8xf32, #nibble.quantized<nf4, block = [64, 1], scale = f32>>
  return %y : tensor<?x8xf32>
}

// -----

// Activations with a constant scale are multiplied as signed codes; the zero
// point, 128 as unsigned and 3 more, goes into the bias: -3 · 0.5 · 2 · Σ w.

!codes = tensor<4x4xf32, #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
!bytes = tensor<4x2xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>

// CHECK-LABEL: func @codes
// CHECK: %[[MOVED:.*]] = linalg.generic
// CHECK: arith.xori
// CHECK: %[[BIAS:.*]] = arith.constant dense<[-1.200000e+01, 3.000000e+00]> : tensor<2xf32>
// CHECK: nibble.packed_matmul %[[MOVED]], %{{.*}} bias(%[[BIAS]] : tensor<2xf32>)
// CHECK-SAME: compute i8 {activation_scale = 5.000000e-01 : f32} : tensor<4x4xi8>
func.func @codes(%x: tensor<4x4xf32>) -> tensor<4x2xf32> {
  %scale = arith.constant dense<0.5> : tensor<1x1xf32>
  %b = arith.constant dense<131> : tensor<1x1xi8>
  %zero = builtin.unrealized_conversion_cast %b : tensor<1x1xi8> to tensor<1x1xui8>
  %q = nibble.quantize %x scales(%scale) zeros(%zero) : !codes
  %d = nibble.dequantize %q : !codes
  %c = arith.constant dense<[[1, 0], [1, 0], [1, 0], [1, -1]]> : tensor<4x2xi8>
  %s = arith.constant dense<2.0> : tensor<1x2xf32>
  %w = nibble.assemble %c scales(%s) : !bytes
  %y = nibble.matmul %d, %w compute f32 : tensor<4x4xf32>, !bytes
  return %y : tensor<4x2xf32>
}
