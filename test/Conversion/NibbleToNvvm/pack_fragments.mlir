// RUN: nibble-opt %s --nibble-pack-fragments --split-input-file --verify-diagnostics | FileCheck %s

// Rows of 60 numbers are padded to 64; signed codes with zero points become unsigned ones.
// CHECK-LABEL: func.func @main(
// CHECK: %[[PACKED:.*]] = arith.constant dense_resource<packed{{.*}}> : tensor<640xi8>
// CHECK: %[[HALF:.*]] = linalg.generic {{.*}} outs(%{{.*}} : tensor<?x60xf16>)
// CHECK: %[[ROWS:.*]] = tensor.insert_slice %[[HALF]] into %{{.*}}[0, 0] [%{{.*}}, 60] [1, 1]
// CHECK-SAME: into tensor<?x64xf16>
// CHECK: nibble.fragment_matmul %[[ROWS]], %[[PACKED]]
// CHECK-SAME: #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, layout = fragment {group = 32 : i64}>
// CHECK: tensor.extract_slice %{{.*}}[0, 0] [%{{.*}}, 5] [1, 1] : tensor<?x8xf16> to tensor<?x5xf16>
// CHECK: linalg.generic
// CHECK: arith.extf
// CHECK: arith.addf
// CHECK: tensor<?x5xf32>
func.func @main(%x: tensor<?x60xf32>, %bias: tensor<5xf32>) -> tensor<?x5xf32> {
  %codes = arith.constant dense<1> : tensor<5x60xi8>
  %c = builtin.unrealized_conversion_cast %codes : tensor<5x60xi8> to tensor<5x60xi4>
  %scales = arith.constant dense<0.5> : tensor<5x2xf32>
  %zeros = arith.constant dense<-2> : tensor<5x2xi8>
  %z = builtin.unrealized_conversion_cast %zeros : tensor<5x2xi8> to tensor<5x2xi4>
  %w = nibble.assemble %c scales(%scales) zeros(%z)
      : tensor<5x60xf32, #nibble.quantized<i4, block = [1, 32], scale = f32, zero = i4>>
  %y = nibble.matmul %x, transposed %w bias(%bias : tensor<5xf32>) compute f32
      : tensor<?x60xf32>,
        tensor<5x60xf32, #nibble.quantized<i4, block = [1, 32], scale = f32, zero = i4>>
  return %y : tensor<?x5xf32>
}

// -----

// CHECK-LABEL: func.func @odd_group(
// CHECK: nibble.matmul
func.func @odd_group(%x: tensor<2x48xf32>) -> tensor<2x8xf32> {
  %codes = arith.constant dense<1> : tensor<48x8xi8>
  %c = builtin.unrealized_conversion_cast %codes : tensor<48x8xi8> to tensor<48x8xi4>
  %scales = arith.constant dense<0.5> : tensor<3x8xf32>
  %w = nibble.assemble %c scales(%scales)
      : tensor<48x8xf32, #nibble.quantized<i4, block = [16, 1], scale = f32>>
  // expected-warning@+1 {{the weight has no kernel for tensor cores: it is dequantized and multiplied in f32}}
  %y = nibble.matmul %x, %w compute f32
      : tensor<2x48xf32>,
        tensor<48x8xf32, #nibble.quantized<i4, block = [16, 1], scale = f32>>
  return %y : tensor<2x8xf32>
}

// -----

// A scale that f16 cannot hold.
// CHECK-LABEL: func.func @small_scale(
// CHECK: nibble.matmul
func.func @small_scale(%x: tensor<2x32xf32>) -> tensor<2x8xf32> {
  %codes = arith.constant dense<1> : tensor<32x8xi8>
  %scales = arith.constant dense<1.0e-7> : tensor<1x8xf32>
  %w = nibble.assemble %codes scales(%scales)
      : tensor<32x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>
  // expected-warning@+1 {{has no kernel}}
  %y = nibble.matmul %x, %w compute f32
      : tensor<2x32xf32>,
        tensor<32x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>
  return %y : tensor<2x8xf32>
}

// -----

// Zero points of half the range are none: codes become signed.
// CHECK-LABEL: func.func @symmetric(
// CHECK: nibble.fragment_matmul
// CHECK-SAME: #nibble.quantized<i4, block = [*, 1], scale = f16, layout = fragment {group = 0 : i64}>
func.func @symmetric(%x: tensor<2x32xf32>) -> tensor<2x8xf32> {
  %codes = arith.constant dense<1> : tensor<32x8xi8>
  %c = builtin.unrealized_conversion_cast %codes : tensor<32x8xi8> to tensor<32x8xui4>
  %scales = arith.constant dense<0.5> : tensor<1x8xf32>
  %zeros = arith.constant dense<8> : tensor<1x8xi8>
  %z = builtin.unrealized_conversion_cast %zeros : tensor<1x8xi8> to tensor<1x8xui4>
  %w = nibble.assemble %c scales(%scales) zeros(%z)
      : tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f32, zero = u4>>
  %y = nibble.matmul %x, %w compute f32
      : tensor<2x32xf32>,
        tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f32, zero = u4>>
  return %y : tensor<2x8xf32>
}
