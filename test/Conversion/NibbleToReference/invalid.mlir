// RUN: not nibble-opt %s --lower-nibble-to-reference 2>&1 | FileCheck %s

// Codes in another order than the logical one are not read as if they were.
// CHECK: error: failed to legalize operation 'nibble.dequantize'
!w = tensor<6x7xf32, #nibble.quantized<u4, block = [*, 1], scale = f16, layout = tiles>>
func.func @layout(%w: !w) -> tensor<6x7xf32> {
  %y = nibble.dequantize %w : !w
  return %y : tensor<6x7xf32>
}
