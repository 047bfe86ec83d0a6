// RUN: nibble-opt %s --nibble-lower-kernels=target=x86-64-v4+vnni | FileCheck %s
// RUN: nibble-opt %s --nibble-lower-kernels=target=x86-64-v3 \
// RUN:   | FileCheck %s --check-prefix=AVX2
// RUN: not nibble-opt %s --nibble-lower-kernels=target=z80 2>&1 \
// RUN:   | FileCheck %s --check-prefix=UNKNOWN

// UNKNOWN: error: no target 'z80'; there are native, generic,

// Two layers of one format share a kernel; little work runs on one thread.

// CHECK-LABEL: func @layers
// CHECK: scf.if
// CHECK: scf.parallel
// CHECK: call @nibble_quantize_rows
// CHECK: else
// CHECK: scf.for
// CHECK: scf.parallel
// CHECK: call @nibble_i8_w4g32_f16_zeros
// CHECK: call @nibble_i8_w4g32_f16_zeros
func.func @layers(%x: memref<?x32xf32>, %w: memref<1216xi8>, %v: memref<1216xi8>, %y: memref<?x8xf32>, %z: memref<?x8xf32>) {
  nibble.packed_matmul %x, %w outs(%y) weight tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, layout = panel {group = 32 : i64}>> compute i8 : memref<?x32xf32>, memref<1216xi8>, memref<?x8xf32>
  nibble.packed_matmul %x, %v outs(%z) weight tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, layout = panel {group = 32 : i64}>> compute i8 : memref<?x32xf32>, memref<1216xi8>, memref<?x8xf32>
  return
}

// CHECK-LABEL: func @floats
// CHECK: call @nibble_f32_bias
func.func @floats(%x: memref<?x3xf32>, %w: memref<192xf32>, %b: memref<2xf32>, %y: memref<?x2xf32>) {
  nibble.packed_matmul %x, %w bias(%b : memref<2xf32>) outs(%y) weight tensor<3x2xf32> compute f32 : memref<?x3xf32>, memref<192xf32>, memref<?x2xf32>
  return
}

// A product of two computed matrices, one of them read by columns.

// CHECK-LABEL: func @attention
// CHECK: memref.subview
// CHECK: call @nibble_f32_transposed_sum
func.func @attention(%q: memref<2x?x64xf32>, %k: memref<2x?x64xf32>, %s: memref<2x?x?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(b, m, d, n) -> (b, m, d)>,
      affine_map<(b, m, d, n) -> (b, n, d)>, affine_map<(b, m, d, n) -> (b, m, n)>],
      iterator_types = ["parallel", "parallel", "reduction", "parallel"]}
      ins(%q, %k : memref<2x?x64xf32>, memref<2x?x64xf32>) outs(%s : memref<2x?x?xf32>) {
  ^bb0(%a: f32, %b: f32, %c: f32):
    %p = arith.mulf %a, %b : f32
    %t = arith.addf %c, %p : f32
    linalg.yield %t : f32
  }
  return
}

// A convolution gathers its windows; what its sums start with is the kernel's
// business where it is all that is in the result.

// CHECK-LABEL: func @convolution
// CHECK-NOT: linalg
// CHECK: %[[TAPS:.*]] = memref.alloc(%{{.*}}) : memref<?xindex>
// CHECK: scf.parallel
// CHECK: call @nibble_f32_convolution_stride2_bias(%{{.*}}, %{{.*}}, %{{.*}}, %[[TAPS]]
// CHECK: memref.dealloc %[[TAPS]]
func.func @convolution(%x: memref<?x3x?x?xf32>, %w: memref<16x3x3x3xf32>, %b: memref<16xf32>, %n: index) -> memref<?x16x?x?xf32> {
  %y = memref.alloc(%n, %n, %n) : memref<?x16x?x?xf32>
  linalg.generic {indexing_maps = [affine_map<(n, m, i, j) -> (m)>,
      affine_map<(n, m, i, j) -> (n, m, i, j)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%b : memref<16xf32>) outs(%y : memref<?x16x?x?xf32>) {
  ^bb0(%in: f32, %out: f32):
    linalg.yield %in : f32
  }
  linalg.generic {indexing_maps = [
      affine_map<(n, m, i, c, k, l, j) -> (n, c, i + k * 2, j * 2 + l)>,
      affine_map<(n, m, i, c, k, l, j) -> (m, c, k, l)>,
      affine_map<(n, m, i, c, k, l, j) -> (n, m, i, j)>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction", "reduction", "parallel"]}
      ins(%x, %w : memref<?x3x?x?xf32>, memref<16x3x3x3xf32>)
      outs(%y : memref<?x16x?x?xf32>) {
  ^bb0(%a: f32, %f: f32, %out: f32):
    %p = arith.mulf %a, %f : f32
    %s = arith.addf %out, %p : f32
    linalg.yield %s : f32
  }
  return %y : memref<?x16x?x?xf32>
}

// One output channel for each input needs no panel.

// CHECK-LABEL: func @depthwise
// CHECK: call @nibble_f32_direct_convolution_stride1_sum
func.func @depthwise(%x: memref<1x8x1x9x9xf32>, %w: memref<8x1x1x3x3xf32>, %y: memref<1x8x1x7x7xf32>) {
  linalg.generic {indexing_maps = [
      affine_map<(n, g, m, i, c, k, l, j) -> (n, g, c, i + k, j + l)>,
      affine_map<(n, g, m, i, c, k, l, j) -> (g, m, c, k, l)>,
      affine_map<(n, g, m, i, c, k, l, j) -> (n, g, m, i, j)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "reduction", "reduction", "reduction", "parallel"]}
      ins(%x, %w : memref<1x8x1x9x9xf32>, memref<8x1x1x3x3xf32>)
      outs(%y : memref<1x8x1x7x7xf32>) {
  ^bb0(%a: f32, %f: f32, %out: f32):
    %p = arith.mulf %f, %a : f32
    %s = arith.addf %p, %out : f32
    linalg.yield %s : f32
  }
  return
}

// The bias is written to before the sums start.

// CHECK-LABEL: func @changed_bias
// CHECK: linalg.generic
// CHECK: call @nibble_f32_convolution_stride1_sum
func.func @changed_bias(%x: memref<1x3x9xf32>, %w: memref<4x3x3xf32>, %b: memref<4xf32>, %zero: f32) -> memref<1x4x7xf32> {
  %y = memref.alloc() : memref<1x4x7xf32>
  linalg.generic {indexing_maps = [affine_map<(n, m, i) -> (m)>, affine_map<(n, m, i) -> (n, m, i)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%b : memref<4xf32>) outs(%y : memref<1x4x7xf32>) {
  ^bb0(%in: f32, %out: f32):
    linalg.yield %in : f32
  }
  linalg.fill ins(%zero : f32) outs(%b : memref<4xf32>)
  linalg.generic {indexing_maps = [affine_map<(n, m, c, k, i) -> (n, c, i + k)>,
      affine_map<(n, m, c, k, i) -> (m, c, k)>, affine_map<(n, m, c, k, i) -> (n, m, i)>],
      iterator_types = ["parallel", "parallel", "reduction", "reduction", "parallel"]}
      ins(%x, %w : memref<1x3x9xf32>, memref<4x3x3xf32>) outs(%y : memref<1x4x7xf32>) {
  ^bb0(%a: f32, %f: f32, %out: f32):
    %p = arith.mulf %a, %f : f32
    %s = arith.addf %out, %p : f32
    linalg.yield %s : f32
  }
  return %y : memref<1x4x7xf32>
}

// What is filled with zeros before is written, not added to.

// CHECK-LABEL: func @from_zero
// CHECK-NOT: linalg
// CHECK: call @nibble_f32_matrix(
func.func @from_zero(%a: memref<5x7xf32>, %b: memref<7x9xf32>) -> memref<5x9xf32> {
  %zero = arith.constant 0.0 : f32
  %s = memref.alloc() : memref<5x9xf32>
  linalg.fill ins(%zero : f32) outs(%s : memref<5x9xf32>)
  linalg.generic {indexing_maps = [affine_map<(m, k, n) -> (m, k)>,
      affine_map<(m, k, n) -> (k, n)>, affine_map<(m, k, n) -> (m, n)>],
      iterator_types = ["parallel", "reduction", "parallel"]}
      ins(%a, %b : memref<5x7xf32>, memref<7x9xf32>) outs(%s : memref<5x9xf32>) {
  ^bb0(%x: f32, %y: f32, %c: f32):
    %p = arith.mulf %x, %y : f32
    %t = arith.addf %c, %p : f32
    linalg.yield %t : f32
  }
  return %s : memref<5x9xf32>
}

// Codes of activations are arranged, not quantized.

// CHECK-LABEL: func @codes
// CHECK: call @nibble_arrange_rows
// CHECK: call @nibble_i8_w8g128_f16_zero128
func.func @codes(%x: memref<?x128xi8>, %w: memref<8320xi8>, %y: memref<?x8xf32>) {
  nibble.packed_matmul %x, %w outs(%y) weight tensor<128x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f16, layout = panel {group = 128 : i64}>> compute i8 {activation_scale = 0.5 : f32} : memref<?x128xi8>, memref<8320xi8>, memref<?x8xf32>
  return
}

// A filter of bytes with taps that are no multiple of four is padded.

// CHECK-LABEL: func @bytes
// CHECK: memref.alloc({{.*}}) : memref<?xi8>
// CHECK: call @nibble_i8_convolution_stride2
func.func @bytes(%x: memref<1x3x9xi8>, %w: memref<8x3x3xi8>, %y: memref<1x8x4xi32>) {
  linalg.generic {indexing_maps = [affine_map<(n, m, o, c, k) -> (n, c, o * 2 + k)>,
      affine_map<(n, m, o, c, k) -> (m, c, k)>, affine_map<(n, m, o, c, k) -> (n, m, o)>],
      iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction"]}
      ins(%x, %w : memref<1x3x9xi8>, memref<8x3x3xi8>) outs(%y : memref<1x8x4xi32>) {
  ^bb0(%p: i8, %q: i8, %o: i32):
    %a = arith.extui %p : i8 to i32
    %b = arith.extsi %q : i8 to i32
    %m = arith.muli %a, %b : i32
    %s = arith.addi %o, %m : i32
    linalg.yield %s : i32
  }
  return
}

// CHECK-DAG: func.func private @nibble_quantize_rows
// CHECK-DAG: func.func private @nibble_i8_w4g32_f16_zeros
// CHECK-DAG: nibble.dot4 {{.*}} {max_weight = 15 : i64} : vector<16xi32>, vector<64xi8>
// CHECK-DAG: func.func private @nibble_f32_bias
// CHECK-DAG: math.fma {{.*}} : vector<16xf32>
// AVX2-DAG: nibble.dot4 {{.*}} : vector<8xi32>, vector<32xi8>
// AVX2-DAG: math.fma {{.*}} : vector<8xf32>
