// RUN: nibble-opt %s --nibble-round --split-input-file --verify-diagnostics

func.func @not_finite() {
  // expected-error@+1 {{tensor 'w'}}
  %w = onnx.constant "w" : tensor<2x2xf32> = dense<[[0.0, 0x7FC00000], [1.0, 2.0]]>
      {nibble.encoding = #nibble.quantized<u4, block = [2, 1], scale = f32, zero = u4>}
  return
}

// -----

func.func @nested() {
  // expected-error@+1 {{tensor 'w' has an encoding that --nibble-round cannot produce}}
  %w = onnx.constant "w" : tensor<2x2xf32> = dense<1.0>
      {nibble.encoding = #nibble.quantized<nf4, block = [2, 1],
       scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>}
  return
}

// -----

func.func @unreadable() {
  // expected-error@+1 {{tensor 'w' has no float data that can be read}}
  %w = onnx.constant "w" : tensor<2x2xf32> = #onnx.wire<"\08\02">
      {nibble.encoding = #nibble.quantized<u4, block = [2, 1], scale = f32, zero = u4>}
  return
}
