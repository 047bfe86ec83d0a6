// RUN: nibble-opt %s --nibble-sum-integers --split-input-file | FileCheck %s

// Padding with 0 is padding with the zero point, 130, which is -126 as i8; the
// correction is -130 times the sum of a filter, the factor the scales' product.

#x = affine_map<(n, m, o, c, k) -> (n, c, o + k)>
#w = affine_map<(n, m, o, c, k) -> (m, c, k)>
#y = affine_map<(n, m, o, c, k) -> (n, m, o)>
!activations = tensor<1x2x?xf32, #nibble.quantized<u8, block = [*, *, *], scale = f32, zero = u8>>
!weight = tensor<3x2x2xf32, #nibble.quantized<i8, block = [1, *, *], scale = f32>>

// CHECK-LABEL: func @padded
// CHECK: %[[CODES:.*]] = nibble.codes
// CHECK: builtin.unrealized_conversion_cast %[[CODES]] : tensor<1x2x?xui8> to tensor<1x2x?xi8>
// CHECK: %[[ZERO:.*]] = arith.constant -126 : i8
// CHECK: tensor.pad {{.*}} low[0, 0, 1] high[0, 0, 0]
// CHECK: tensor.yield %[[ZERO]] : i8
// CHECK: %[[SUMS:.*]] = linalg.generic
// CHECK: arith.extui
// CHECK: arith.extsi
// CHECK: %[[CORRECTIONS:.*]] = arith.constant dense<[-1300, -130, 0]> : tensor<3xi32>
// CHECK: %[[FACTORS:.*]] = arith.constant dense<[5.000000e-01, 1.000000e+00, 2.000000e+00]> : tensor<3xf32>
// CHECK: linalg.generic {{.*}} ins(%[[SUMS]], %{{.*}}, %[[CORRECTIONS]], %[[FACTORS]]
func.func @padded(%q: tensor<1x2x?xf32>, %start: tensor<1x3x?xf32>) -> tensor<1x3x?xf32> {
  %scale = arith.constant dense<0.5> : tensor<1x1x1xf32>
  %z = arith.constant dense<130> : tensor<1x1x1xi8>
  %zero = builtin.unrealized_conversion_cast %z : tensor<1x1x1xi8> to tensor<1x1x1xui8>
  %codes = nibble.quantize %q scales(%scale) zeros(%zero) : !activations
  %x = nibble.dequantize %codes : !activations
  %c = arith.constant dense<[[[1, 2], [3, 4]], [[1, 1], [-1, 0]], [[0, 0], [5, -5]]]> : tensor<3x2x2xi8>
  %s = arith.constant dense<[[[1.0]], [[2.0]], [[4.0]]]> : tensor<3x1x1xf32>
  %a = nibble.assemble %c scales(%s) : !weight
  %w = nibble.dequantize %a : !weight
  %none = arith.constant 0.0 : f32
  %p = tensor.pad %x low[0, 0, 1] high[0, 0, 0] {
  ^bb0(%i: index, %j: index, %k: index):
    tensor.yield %none : f32
  } : tensor<1x2x?xf32> to tensor<1x2x?xf32>
  %y = linalg.generic {indexing_maps = [#x, #w, #y],
      iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction"]}
      ins(%p, %w : tensor<1x2x?xf32>, tensor<3x2x2xf32>) outs(%start : tensor<1x3x?xf32>) {
  ^bb0(%b: f32, %d: f32, %o: f32):
    %m = arith.mulf %b, %d : f32
    %t = arith.addf %o, %m : f32
    linalg.yield %t : f32
  } -> tensor<1x3x?xf32>
  return %y : tensor<1x3x?xf32>
}

// -----

// Two output channels and a weight with zero points stay as they are.

#x = affine_map<(n, m, o, c, k) -> (n, c, o + k)>
#w = affine_map<(n, m, o, c, k) -> (m, c, k)>
#y = affine_map<(n, m, o, c, k) -> (n, m, o)>
!activations = tensor<1x2x8xf32, #nibble.quantized<i8, block = [*, *, *], scale = f32>>
!few = tensor<2x2x2xf32, #nibble.quantized<i8, block = [1, *, *], scale = f32>>
!moved = tensor<4x2x2xf32, #nibble.quantized<i8, block = [*, *, *], scale = f32, zero = i8>>

// CHECK-LABEL: func @kept
// CHECK-NOT: arith.extui
func.func @kept(%codes: tensor<1x2x8xi8>, %e: tensor<1x2x7xf32>, %f: tensor<1x4x7xf32>) -> (tensor<1x2x7xf32>, tensor<1x4x7xf32>) {
  %scale = arith.constant dense<0.5> : tensor<1x1x1xf32>
  %q = nibble.assemble %codes scales(%scale) : !activations
  %x = nibble.dequantize %q : !activations
  %c = arith.constant dense<1> : tensor<2x2x2xi8>
  %s = arith.constant dense<1.0> : tensor<2x1x1xf32>
  %a = nibble.assemble %c scales(%s) : !few
  %w = nibble.dequantize %a : !few
  %y = linalg.generic {indexing_maps = [#x, #w, #y],
      iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction"]}
      ins(%x, %w : tensor<1x2x8xf32>, tensor<2x2x2xf32>) outs(%e : tensor<1x2x7xf32>) {
  ^bb0(%b: f32, %d: f32, %o: f32):
    %m = arith.mulf %b, %d : f32
    %t = arith.addf %o, %m : f32
    linalg.yield %t : f32
  } -> tensor<1x2x7xf32>
  %d = arith.constant dense<1> : tensor<4x2x2xi8>
  %z = arith.constant dense<3> : tensor<1x1x1xi8>
  %g = nibble.assemble %d scales(%scale) zeros(%z) : !moved
  %v = nibble.dequantize %g : !moved
  %u = linalg.generic {indexing_maps = [#x, #w, #y],
      iterator_types = ["parallel", "parallel", "parallel", "reduction", "reduction"]}
      ins(%x, %v : tensor<1x2x8xf32>, tensor<4x2x2xf32>) outs(%f : tensor<1x4x7xf32>) {
  ^bb0(%b: f32, %r: f32, %o: f32):
    %m = arith.mulf %b, %r : f32
    %t = arith.addf %o, %m : f32
    linalg.yield %t : f32
  } -> tensor<1x4x7xf32>
  return %y, %u : tensor<1x2x7xf32>, tensor<1x4x7xf32>
}
