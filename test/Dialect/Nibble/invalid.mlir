// RUN: nibble-opt %s --split-input-file --verify-diagnostics

// Every rule of the verifier, broken. The constraints are docs/Spec.md's.

// Spec C1: storage

// expected-error @+1 {{integer storage is i2 to i8, i16, i32, u2 to u8 or u16, not one of 9 bits (Spec C1)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<i9, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{not one of 1 bits (Spec C1)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u1, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{not one of 32 bits (Spec C1)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u32, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{unknown storage 'f8E8M0FNU': expected i2 to i8, i16, i32, u2 to u8, u16, f8E4M3FN, f8E5M2, f4E2M1FN, nf4, fp4 or codebook<[...]> (Spec C1)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<f8E8M0FNU, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{unknown storage 'i4294967300'}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<i4294967300, block = [*, *], scale = f32>>)

// -----

// Spec C2: code books

// expected-error @+1 {{a code book has 2 to 256 values, not 1 (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[1.0]>, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{a code book has 2 to 256 values, not 0 (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[]>, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{a code book has 2 to 256 values, not 257 (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0, 32.0, 33.0, 34.0, 35.0, 36.0, 37.0, 38.0, 39.0, 40.0, 41.0, 42.0, 43.0, 44.0, 45.0, 46.0, 47.0, 48.0, 49.0, 50.0, 51.0, 52.0, 53.0, 54.0, 55.0, 56.0, 57.0, 58.0, 59.0, 60.0, 61.0, 62.0, 63.0, 64.0, 65.0, 66.0, 67.0, 68.0, 69.0, 70.0, 71.0, 72.0, 73.0, 74.0, 75.0, 76.0, 77.0, 78.0, 79.0, 80.0, 81.0, 82.0, 83.0, 84.0, 85.0, 86.0, 87.0, 88.0, 89.0, 90.0, 91.0, 92.0, 93.0, 94.0, 95.0, 96.0, 97.0, 98.0, 99.0, 100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0, 108.0, 109.0, 110.0, 111.0, 112.0, 113.0, 114.0, 115.0, 116.0, 117.0, 118.0, 119.0, 120.0, 121.0, 122.0, 123.0, 124.0, 125.0, 126.0, 127.0, 128.0, 129.0, 130.0, 131.0, 132.0, 133.0, 134.0, 135.0, 136.0, 137.0, 138.0, 139.0, 140.0, 141.0, 142.0, 143.0, 144.0, 145.0, 146.0, 147.0, 148.0, 149.0, 150.0, 151.0, 152.0, 153.0, 154.0, 155.0, 156.0, 157.0, 158.0, 159.0, 160.0, 161.0, 162.0, 163.0, 164.0, 165.0, 166.0, 167.0, 168.0, 169.0, 170.0, 171.0, 172.0, 173.0, 174.0, 175.0, 176.0, 177.0, 178.0, 179.0, 180.0, 181.0, 182.0, 183.0, 184.0, 185.0, 186.0, 187.0, 188.0, 189.0, 190.0, 191.0, 192.0, 193.0, 194.0, 195.0, 196.0, 197.0, 198.0, 199.0, 200.0, 201.0, 202.0, 203.0, 204.0, 205.0, 206.0, 207.0, 208.0, 209.0, 210.0, 211.0, 212.0, 213.0, 214.0, 215.0, 216.0, 217.0, 218.0, 219.0, 220.0, 221.0, 222.0, 223.0, 224.0, 225.0, 226.0, 227.0, 228.0, 229.0, 230.0, 231.0, 232.0, 233.0, 234.0, 235.0, 236.0, 237.0, 238.0, 239.0, 240.0, 241.0, 242.0, 243.0, 244.0, 245.0, 246.0, 247.0, 248.0, 249.0, 250.0, 251.0, 252.0, 253.0, 254.0, 255.0, 256.0]>, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{the values of a code book must ascend strictly, but value 1 does not exceed the one before (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[0.0, 0.0]>, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{value 1 does not exceed the one before (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[1.0, 0.5]>, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{value 1 of the code book must be finite and not negative zero (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[0.0, 0x7F800000]>, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{value 0 of the code book must be finite and not negative zero (Spec C2)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<codebook<[-0.0, 1.0]>, block = [*, *], scale = f32>>)

// -----

// Spec C3: block extents

// expected-error @+1 {{a block extent is positive or *, not 0 (Spec C3)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [0, 1], scale = f32>>)

// -----

// expected-error @+1 {{a block extent is positive or *, not -1 (Spec C3)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [-1, 1], scale = f32>>)

// -----

// Spec C4: flat blocks

// expected-error @+1 {{a flat block has exactly one extent, a number (Spec C4)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = flat [2, 2], scale = f32>>)

// -----

// expected-error @+1 {{a flat block has exactly one extent, a number (Spec C4)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = flat [*], scale = f32>>)

// -----

// expected-error @+1 {{a flat block has exactly one extent, a number (Spec C4)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = flat [], scale = f32>>)

// -----

// expected-error @+1 {{a flat block numbers the elements, and there are more than 2^63 (Spec C4)}}
func.func private @f(tensor<4294967296x4294967296xf32, #nibble.quantized<u4, block = flat [32], scale = f32>>)

// -----

// Spec C5: scales

// expected-error @+1 {{a scale is f32, f16, bf16, f8E8M0FNU or quantized<...> (Spec C5)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f64>>)

// -----

// expected-error @+1 {{a scale is f32, f16, bf16, f8E8M0FNU or quantized<...> (Spec C5)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = u4>>)

// -----

// expected-error @+1 {{unknown type 'tf32': expected a float type, an integer storage or quantized<...> (Spec C5, C6)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = tf32>>)

// -----

// Spec C6: zero points

// expected-error @+1 {{a zero point is an integer of at most 16 bits, f32, f16, bf16 or quantized<...> (Spec C6)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, zero = f8E8M0FNU>>)

// -----

// expected-error @+1 {{a zero point is an integer of at most 16 bits, f32, f16, bf16 or quantized<...> (Spec C6)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, zero = i32>>)

// -----

// expected-error @+1 {{not one of 9 bits (Spec C1)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, zero = u9>>)

// -----

// Spec C7: which storage has a zero point

// expected-error @+1 {{only integer storage of at most 16 bits has a zero point (Spec C7)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<nf4, block = [*, *], scale = f32, zero = u4>>)

// -----

// expected-error @+1 {{only integer storage of at most 16 bits has a zero point (Spec C7)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<f8E5M2, block = [*, *], scale = f32, zero = f32>>)

// -----

// expected-error @+1 {{only integer storage of at most 16 bits has a zero point (Spec C7)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<i32, block = [*, *], scale = f32, zero = i8>>)

// -----

// Spec C8: nested encodings

// expected-error @+1 {{a nested encoding has no outliers and no layout (Spec C8)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = quantized<u8, block = [*, *], scale = f32, outliers = sparse<f16>>>>)

// -----

// expected-error @+1 {{a nested encoding has no outliers and no layout (Spec C8)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, zero = quantized<u8, block = [*, *], scale = f32, layout = rows>>>)

// -----

// expected-error @+1 {{encodings nest at most 3 deep (Spec C8)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = quantized<u8, block = [*, *], scale = quantized<u8, block = [*, *], scale = quantized<u8, block = [*, *], scale = f32>>>>>)

// -----

// Spec C9: outliers

// expected-error @+1 {{unknown outliers 'rows': expected columns<dimension, type> or sparse<type> (Spec C9)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, outliers = rows<0, f16>>>)

// -----

// expected-error @+1 {{outliers are stored as f32, f16 or bf16, not 'f64' (Spec C9)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, outliers = sparse<f64>>>)

// -----

// expected-error @+1 {{invalid outlier dimension -1 (Spec C9)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, outliers = columns<-1, f16>>>)

// -----

// Spec C10: expressed types

// expected-error @+1 {{a quantized tensor expresses f32, f16 or bf16, not 'i32' (Spec C10)}}
func.func private @f(tensor<4x4xi32, #nibble.quantized<u4, block = [*, *], scale = f32>>)

// -----

// expected-error @+1 {{a quantized tensor expresses f32, f16 or bf16, not 'f64' (Spec C10)}}
func.func private @f(tensor<4x4xf64, #nibble.quantized<u4, block = [*, *], scale = f32>>)

// -----

// Spec C11: rank of the block

// expected-error @+1 {{the block has 1 extents and the tensor 2 dimensions (Spec C11)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [32], scale = f32>>)

// -----

// expected-error @+1 {{the block has 1 extents and the tensor 2 dimensions (Spec C11)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [2, 1], scale = quantized<u8, block = [4], scale = f32>>>)

// -----

// expected-error @+1 {{the block has 2 extents and the tensor 1 dimensions (Spec C11)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = flat [2], scale = f32, zero = quantized<u8, block = [4, 1], scale = f32>>>)

// -----

// Spec C12: the dimension of columns

// expected-error @+1 {{the outliers' dimension 2 is none of the tensor's 2 (Spec C12)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, outliers = columns<2, f16>>>)

// -----

// Spec C13: layouts

// expected-error @+1 {{a layout's name is a word of letters, digits and underscores (Spec C13)}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, layout = a.b>>)

// -----

// The text of an encoding

// expected-error @+1 {{an encoding needs 'block = ...' and 'scale = ...'}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, scale = f32>>)

// -----

// expected-error @+1 {{an encoding needs 'block = ...' and 'scale = ...'}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *]>>)

// -----

// expected-error @+1 {{unknown or repeated 'scale': expected block, scale, zero, outliers or layout, once each}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, scale = f16>>)

// -----

// expected-error @+1 {{unknown or repeated 'group': expected block, scale, zero, outliers or layout, once each}}
func.func private @f(tensor<4x4xf32, #nibble.quantized<u4, block = [*, *], scale = f32, group = f16>>)

// -----

// Spec C14: codes

func.func @f(%c: tensor<64x8xi4>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{expects codes of type 'tensor<64x8xui4>', not 'tensor<64x8xi4>' (Spec C14)}}
  %w = "nibble.assemble"(%c, %s, %z) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<64x8xi4>, tensor<2x8xf16>, tensor<2x8xui4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%c: tensor<64x?xui4>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{expects codes of type 'tensor<64x8xui4>', not 'tensor<64x?xui4>' (Spec C14)}}
  %w = "nibble.assemble"(%c, %s, %z) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<64x?xui4>, tensor<2x8xf16>, tensor<2x8xui4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

// Spec C15: scales

func.func @f(%c: tensor<64x8xui4>, %s: tensor<3x8xf16>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{expects scales of type 'tensor<2x8xf16>', not 'tensor<3x8xf16>' (Spec C15)}}
  %w = "nibble.assemble"(%c, %s, %z) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<64x8xui4>, tensor<3x8xf16>, tensor<2x8xui4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf32>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{expects scales of type 'tensor<2x8xf16>', not 'tensor<2x8xf32>' (Spec C15)}}
  %w = "nibble.assemble"(%c, %s, %z) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<64x8xui4>, tensor<2x8xf32>, tensor<2x8xui4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf32>) {
  // expected-error @+1 {{expects scales of type 'tensor<2x8xf32, #nibble.quantized<u8, block = [*, *], scale = f32>>', not 'tensor<2x8xf32>' (Spec C15)}}
  %w = "nibble.assemble"(%c, %s) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0>}> : (tensor<64x8xui4>, tensor<2x8xf32>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = quantized<u8, block = [*, *], scale = f32>>>
  return
}

// -----

// Spec C16: zero points

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %z: tensor<2x8xi4>) {
  // expected-error @+1 {{expects zero points of type 'tensor<2x8xui4>', not 'tensor<2x8xi4>' (Spec C16)}}
  %w = "nibble.assemble"(%c, %s, %z) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<2x8xi4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{has zero points exactly when its encoding does (Spec C16)}}
  %w = "nibble.assemble"(%c, %s) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0>}> : (tensor<64x8xui4>, tensor<2x8xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{has zero points exactly when its encoding does (Spec C16)}}
  %w = "nibble.assemble"(%c, %s, %z) <{operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<2x8xui4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{zero points are given exactly when the encoding has them (Spec C16)}}
  %w = nibble.assemble %c scales(%s) : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{zero points are given exactly when the encoding has them (Spec C16)}}
  %w = nibble.quantize %x scales(%s) zeros(%z) : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

// Spec C17: outliers

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{has outliers exactly when its encoding does (Spec C17)}}
  %w = "nibble.assemble"(%c, %s) <{operandSegmentSizes = array<i32: 1, 1, 0, 0, 0>}> : (tensor<64x8xui4>, tensor<2x8xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = sparse<f16>>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<5x2xi32>) {
  // expected-error @+1 {{has outliers exactly when its encoding does (Spec C17)}}
  %w = "nibble.assemble"(%c, %s, %i) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 0>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<5x2xi32>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = sparse<f16>>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<5x2xi32>, %v: tensor<5xf16>) {
  // expected-error @+1 {{has outliers exactly when its encoding does (Spec C17)}}
  %w = "nibble.assemble"(%c, %s, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<5x2xi32>, tensor<5xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<5x3xi32>, %v: tensor<5xf16>) {
  // expected-error @+1 {{expects outlier indices of type 'tensor<5x2xi32>', not 'tensor<5x3xi32>' (Spec C17)}}
  %w = "nibble.assemble"(%c, %s, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<5x3xi32>, tensor<5xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = sparse<f16>>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<i32>, %v: tensor<5xf16>) {
  // expected-error @+1 {{expects outlier indices with a dimension (Spec C17)}}
  %w = "nibble.assemble"(%c, %s, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<i32>, tensor<5xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = sparse<f16>>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<5x2xi32>, %v: tensor<4xf16>) {
  // expected-error @+1 {{expects outlier values of type 'tensor<5xf16>', not 'tensor<4xf16>' (Spec C17)}}
  %w = "nibble.assemble"(%c, %s, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<5x2xi32>, tensor<4xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = sparse<f16>>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<5xi64>, %v: tensor<5x8xf16>) {
  // expected-error @+1 {{expects outlier values of type 'tensor<64x5xf16>', not 'tensor<5x8xf16>' (Spec C17)}}
  %w = "nibble.assemble"(%c, %s, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<5xi64>, tensor<5x8xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = columns<1, f16>>>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %i: tensor<5xi8>, %v: tensor<5x8xf16>) {
  // expected-error @+1 {{operand #2 must be ranked tensor of 32-bit signless integer or 64-bit signless integer values, but got 'tensor<5xi8>'}}
  %w = "nibble.assemble"(%c, %s, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<5xi8>, tensor<5x8xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = columns<0, f16>>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = columns<0, f16>>>) {
  // expected-error @+1 {{expects outlier values of type 'tensor<?x8xf16>', not 'tensor<?x9xf16>' (Spec C17)}}
  %i, %v = nibble.outliers %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = columns<0, f16>>> -> tensor<?xi32>, tensor<?x9xf16>
  return
}

// -----

// Spec C18: layouts and parts

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>, %i: tensor<5x2xi32>, %v: tensor<5xf16>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %w = "nibble.assemble"(%c, %s, %z, %i, %v) <{operandSegmentSizes = array<i32: 1, 1, 1, 1, 1>}> : (tensor<64x8xui4>, tensor<2x8xf16>, tensor<2x8xui4>, tensor<5x2xi32>, tensor<5xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %p = nibble.codes %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %p = nibble.scales %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %p = nibble.zeros %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %i, %v = nibble.outliers %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, outliers = sparse<f16>, layout = tiles>> -> tensor<?x2xi32>, tensor<?xf16>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %w = nibble.quantize %x scales(%s) : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, layout = tiles>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %w = nibble.quantize_dynamic %x : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, layout = tiles>>
  return
}

// -----

// Spec C19: absent parts

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>) {
  // expected-error @+1 {{has no zero point (Spec C19)}}
  %z = nibble.zeros %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) {
  // expected-error @+1 {{has no outliers (Spec C19)}}
  %i, %v = nibble.outliers %w : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>> -> tensor<?xi32>, tensor<?xf16>
  return
}

// -----

// Spec C20: inputs of a quantization

func.func @f(%x: tensor<64x9xf32>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{expects an input of type 'tensor<64x8xf32>', not 'tensor<64x9xf32>' (Spec C20)}}
  %w = "nibble.quantize"(%x, %s) : (tensor<64x9xf32>, tensor<2x8xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf16>) {
  // expected-error @+1 {{expects an input of type 'tensor<64x8xf32>', not 'tensor<64x8xf16>' (Spec C20)}}
  %w = "nibble.quantize_dynamic"(%x) : (tensor<64x8xf16>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{cannot choose outliers: split them off and assemble (Spec C20)}}
  %w = nibble.quantize %x scales(%s) : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, outliers = sparse<f16>>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{quantizes to integers of at most 16 bits (Spec C20)}}
  %w = nibble.quantize %x scales(%s) : tensor<64x8xf32, #nibble.quantized<i32, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, %s: tensor<2x8xf16>, %z: tensor<2x8xui4>) {
  // expected-error @+1 {{operand #0 must be tensor of f32, f16 or bf16}}
  %x = "nibble.quantize"(%w, %s, %z) : (tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, tensor<2x8xf16>, tensor<2x8xui4>) -> tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

// Spec C21: parameters that are found

func.func @f(%x: tensor<64x8xf32>) {
  // expected-error @+1 {{finds scales that are floats (Spec C21)}}
  %w = nibble.quantize_dynamic %x : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = quantized<u8, block = [*, *], scale = f32>>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>) {
  // expected-error @+1 {{finds zero points that are codes of the storage (Spec C21)}}
  %w = nibble.quantize_dynamic %x : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = f32>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>) {
  // expected-error @+1 {{finds zero points that are codes of the storage (Spec C21)}}
  %w = nibble.quantize_dynamic %x : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = i4>>
  return
}

// -----

// Spec C22: dequantized types

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) {
  // expected-error @+2 {{failed to infer returned types}}
  // expected-error @+1 {{inferred type(s) 'tensor<64x8xf32>' are incompatible with return type(s) of operation 'tensor<64x8xf16>'}}
  %x = "nibble.dequantize"(%w) : (tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) -> tensor<64x8xf16>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>) {
  // expected-error @+1 {{operand #0 must be quantized tensor, but got 'tensor<64x8xf32>'}}
  %y = "nibble.dequantize"(%x) : (tensor<64x8xf32>) -> tensor<64x8xf32>
  return
}

// -----

// Spec C23: shapes of a product

func.func @f(%x: tensor<4x63xf32>, %w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) {
  // expected-error @+1 {{the activations sum over 63 values and the weight over 64 (Spec C23)}}
  %y = nibble.matmul %x, %w compute f32 : tensor<4x63xf32>, tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%x: tensor<4x64xf32>, %w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) {
  // expected-error @+1 {{the activations sum over 64 values and the weight over 8 (Spec C23)}}
  %y = nibble.matmul %x, transposed %w compute f32 : tensor<4x64xf32>, tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%x: tensor<4x64xf32>, %w: tensor<2x64x8xf32, #nibble.quantized<u4, block = [1, 32, 1], scale = f16>>) {
  // expected-error @+1 {{expected activations with at least one dimension and a quantized weight with two (Spec C23)}}
  %y = nibble.matmul %x, %w compute f32 : tensor<4x64xf32>, tensor<2x64x8xf32, #nibble.quantized<u4, block = [1, 32, 1], scale = f16>>
  return
}

// -----

func.func @f(%x: tensor<f32>, %w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) {
  // expected-error @+1 {{expected activations with at least one dimension and a quantized weight with two (Spec C23)}}
  %y = nibble.matmul %x, %w compute f32 : tensor<f32>, tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%x: tensor<4x64xf32>, %w: tensor<64x8xf32>) {
  // expected-error @+1 {{expected activations with at least one dimension and a quantized weight with two (Spec C23)}}
  %y = nibble.matmul %x, %w compute f32 : tensor<4x64xf32>, tensor<64x8xf32>
  return
}

// -----

// Spec C24: the bias

func.func @f(%x: tensor<4x64xf32>, %w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, %b: tensor<9xf32>) {
  // expected-error @+1 {{expects a bias of type 'tensor<8xf32>', not 'tensor<9xf32>' (Spec C24)}}
  %y = nibble.matmul %x, %w bias(%b : tensor<9xf32>) compute f32 : tensor<4x64xf32>, tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

// Spec C25: compute types

func.func @f(%x: tensor<4x64xf32>, %w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>) {
  // expected-error @+1 {{computes in f32, f16, bf16 or i8, not 'i16' (Spec C25)}}
  %y = nibble.matmul %x, %w compute i16 : tensor<4x64xf32>, tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
  return
}

// -----

func.func @f(%x: tensor<4x64xf32>, %w: tensor<64x8xf32, #nibble.quantized<u4, block = flat [32], scale = f16>>) {
  // expected-error @+1 {{computes in i8 only where the weight's blocks are not flat (Spec C25)}}
  %y = nibble.matmul %x, %w compute i8 : tensor<4x64xf32>, tensor<64x8xf32, #nibble.quantized<u4, block = flat [32], scale = f16>>
  return
}

// -----

// Spec C26: gathering

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, %i: tensor<3xi64>) {
  // expected-error @+1 {{dimension 2 is none of the table's 2 (Spec C26)}}
  %y = nibble.gather %w[%i] axis 2 : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, tensor<3xi64>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, %i: tensor<3xi64>) {
  // expected-error @+1 {{dimension -1 is none of the table's 2 (Spec C26)}}
  %y = nibble.gather %w[%i] axis -1 : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, tensor<3xi64>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32>, %i: tensor<3xi64>) {
  // expected-error @+1 {{expected a quantized table and a tensor of indices (Spec C26)}}
  %y = nibble.gather %w[%i] axis 0 : tensor<64x8xf32>, tensor<3xi64>
  return
}

// -----

func.func @f(%w: tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, %i: tensor<3xi8>) {
  // expected-error @+1 {{operand #1 must be ranked tensor of 32-bit signless integer or 64-bit signless integer values}}
  %y = nibble.gather %w[%i] axis 0 : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>, tensor<3xi8>
  return
}

// -----

// Spec C27: probes

func.func @f(%x: tensor<4xf32>) {
  // expected-error @+1 {{needs an id (Spec C27)}}
  %y = nibble.observe "" %x : tensor<4xf32>
  return
}

// -----

// The text of an op

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{expected a tensor type with a #nibble.quantized encoding, not 'tensor<64x8xf32>'}}
  %w = nibble.assemble %c scales(%s) : tensor<64x8xf32>
  return
}

// -----

func.func @f(%c: tensor<64x8xui4>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{expected 'scales('}}
  %w = nibble.assemble %c : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

func.func @f(%x: tensor<64x8xf32>, %s: tensor<2x8xf16>) {
  // expected-error @+1 {{expected 'scales('}}
  %w = nibble.quantize %x : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
  return
}

// -----

// Spec C28: packed products
func.func @packed_encoding(%x: memref<?x32xf32>, %w: memref<1216xi8>, %y: memref<?x8xf32>) {
  // expected-error @+1 {{has a weight type without a layout 'panel' that fits its encoding (Spec C28)}}
  nibble.packed_matmul %x, %w outs(%y) weight tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>> compute i8 : memref<?x32xf32>, memref<1216xi8>, memref<?x8xf32>
  return
}

// -----

func.func @packed_type(%x: memref<?x32xf32>, %w: memref<2048xf32>, %y: memref<?x8xf32>) {
  // expected-error @+1 {{needs a static weight type [K, N] of f32, or of f16 or bf16 without an encoding (Spec C28)}}
  nibble.packed_matmul %x, %w outs(%y) weight tensor<?x8xf32> compute f32 : memref<?x32xf32>, memref<2048xf32>, memref<?x8xf32>
  return
}

// -----

func.func @packed_bytes(%x: memref<?x32xf32>, %w: memref<1215xi8>, %y: memref<?x8xf32>) {
  // expected-error @+1 {{needs a packed weight of 1216 bytes (Spec C28)}}
  nibble.packed_matmul %x, %w outs(%y) weight tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, layout = panel {group = 32 : i64}>> compute i8 : memref<?x32xf32>, memref<1215xi8>, memref<?x8xf32>
  return
}

// -----

func.func @packed_shapes(%x: memref<?x31xf32>, %w: memref<2048xf32>, %y: memref<?x8xf32>) {
  // expected-error @+1 {{has activations and a result that do not fit the weight (Spec C28)}}
  nibble.packed_matmul %x, %w outs(%y) weight tensor<32x8xf32> compute f32 : memref<?x31xf32>, memref<2048xf32>, memref<?x8xf32>
  return
}

// -----

func.func @packed_bias(%x: memref<?x32xf32>, %w: memref<2048xf32>, %b: memref<9xf32>, %y: memref<?x8xf32>) {
  // expected-error @+1 {{has a bias that does not fit the weight (Spec C28)}}
  nibble.packed_matmul %x, %w bias(%b : memref<9xf32>) outs(%y) weight tensor<32x8xf32> compute f32 : memref<?x32xf32>, memref<2048xf32>, memref<?x8xf32>
  return
}

// -----

// Spec C32: products for tensor cores
func.func @fragment_layout(%x: memref<?x64xf16>, %w: memref<576xi8>, %y: memref<?x16xf16>) {
  // expected-error @+1 {{needs a static weight type [K, N] with a layout 'fragment' that fits its encoding (Spec C32)}}
  nibble.fragment_matmul %x, %w outs(%y) weight tensor<64x16xf32, #nibble.quantized<i4, block = [32, 1], scale = f16>> : memref<?x64xf16>, memref<576xi8>, memref<?x16xf16>
  return
}

// -----

func.func @fragment_group(%x: memref<?x64xf16>, %w: memref<576xi8>, %y: memref<?x16xf16>) {
  // expected-error @+1 {{needs a static weight type [K, N] with a layout 'fragment' that fits its encoding (Spec C32)}}
  nibble.fragment_matmul %x, %w outs(%y) weight tensor<64x16xf32, #nibble.quantized<i4, block = [48, 1], scale = f16, layout = fragment {group = 48 : i64}>> : memref<?x64xf16>, memref<576xi8>, memref<?x16xf16>
  return
}

// -----

func.func @fragment_zero(%x: memref<?x64xf16>, %w: memref<576xi8>, %y: memref<?x16xf16>) {
  // expected-error @+1 {{needs a static weight type [K, N] with a layout 'fragment' that fits its encoding (Spec C32)}}
  nibble.fragment_matmul %x, %w outs(%y) weight tensor<64x16xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, layout = fragment {group = 32 : i64}>> : memref<?x64xf16>, memref<576xi8>, memref<?x16xf16>
  return
}

// -----

func.func @fragment_storage(%x: memref<?x64xf16>, %w: memref<576xi8>, %y: memref<?x16xf16>) {
  // expected-error @+1 {{needs a static weight type [K, N] with a layout 'fragment' that fits its encoding (Spec C32)}}
  nibble.fragment_matmul %x, %w outs(%y) weight tensor<64x16xf32, #nibble.quantized<i3, block = [32, 1], scale = f16, layout = fragment {group = 32 : i64}>> : memref<?x64xf16>, memref<576xi8>, memref<?x16xf16>
  return
}

// -----

func.func @fragment_bytes(%x: memref<?x64xf16>, %w: memref<575xi8>, %y: memref<?x16xf16>) {
  // expected-error @+1 {{needs a packed weight of 576 bytes (Spec C32)}}
  nibble.fragment_matmul %x, %w outs(%y) weight tensor<64x16xf32, #nibble.quantized<i4, block = [32, 1], scale = f16, layout = fragment {group = 32 : i64}>> : memref<?x64xf16>, memref<575xi8>, memref<?x16xf16>
  return
}

// -----

func.func @fragment_padding(%x: memref<?x60xf16>, %w: memref<576xi8>, %y: memref<?x16xf16>) {
  // expected-error @+1 {{has activations and a result that do not fit the weight, padded to multiples of 8 columns (Spec C32)}}
  nibble.fragment_matmul %x, %w outs(%y) weight tensor<60x16xf32, #nibble.quantized<i4, block = [32, 1], scale = f16, layout = fragment {group = 32 : i64}>> : memref<?x60xf16>, memref<576xi8>, memref<?x16xf16>
  return
}

// -----

func.func @packed_codes_without_scale(%x: tensor<?x32xi8>, %w: tensor<1216xi8>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{takes activations of i8 with their scale, a quantized weight and compute i8 (Spec C28)}}
  nibble.packed_matmul %x, %w outs(%o) weight tensor<32x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4, layout = panel {group = 32 : i64}>> compute i8 : tensor<?x32xi8>, tensor<1216xi8>, tensor<?x8xf32> -> tensor<?x8xf32>
  return
}

// -----

func.func @packed_codes_in_floats(%x: tensor<?x32xi8>, %w: tensor<2048xf32>, %o: tensor<?x8xf32>) {
  // expected-error @+1 {{takes activations of i8 with their scale, a quantized weight and compute i8 (Spec C28)}}
  nibble.packed_matmul %x, %w outs(%o) weight tensor<32x8xf32> compute i8 {activation_scale = 0.5 : f32} : tensor<?x32xi8>, tensor<2048xf32>, tensor<?x8xf32> -> tensor<?x8xf32>
  return
}

// -----

// Spec C30: tables
func.func @lookup_width(%t: vector<16xf32>, %i: vector<16xi8>) -> vector<16xf32> {
  // expected-error @+1 {{takes an index as wide as an entry for each entry that it gives (Spec C30)}}
  %r = nibble.lookup %t, %i : vector<16xf32>, vector<16xi8> -> vector<16xf32>
  return %r : vector<16xf32>
}

// -----

func.func @lookup_lanes(%t: vector<16xi8>, %i: vector<16xi8>) -> vector<32xi8> {
  // expected-error @+1 {{takes an index as wide as an entry for each entry that it gives (Spec C30)}}
  %r = nibble.lookup %t, %i : vector<16xi8>, vector<16xi8> -> vector<32xi8>
  return %r : vector<32xi8>
}

// -----

// Spec C29: products of bytes
func.func @dot(%s: vector<8xi32>, %w: vector<64xi8>) -> vector<8xi32> {
  // expected-error @+1 {{takes four bytes for each sum (Spec C29)}}
  %r = nibble.dot4 %s, %w, %w : vector<8xi32>, vector<64xi8>
  return %r : vector<8xi32>
}

// -----

// Spec C31: integers
func.func @integers_of_floats(%w: tensor<64x8xf32, #nibble.quantized<f8E4M3FN, block = [*, 1], scale = f32>>) {
  // expected-error @+1 {{expects codes that are integers of at most 16 bits (Spec C31)}}
  %r = nibble.integers %w : tensor<64x8xf32, #nibble.quantized<f8E4M3FN, block = [*, 1], scale = f32>>
  return
}

// -----

func.func @integers_of_32_bits(%w: tensor<64x8xf32, #nibble.quantized<i32, block = [*, 1], scale = f32>>) {
  // expected-error @+1 {{expects codes that are integers of at most 16 bits (Spec C31)}}
  %r = nibble.integers %w : tensor<64x8xf32, #nibble.quantized<i32, block = [*, 1], scale = f32>>
  return
}

// -----

func.func @integers_with_float_zero(%w: tensor<64x8xf32, #nibble.quantized<u8, block = [*, 1], scale = f32, zero = f32>>) {
  // expected-error @+1 {{expects zero points that are integers (Spec C31)}}
  %r = nibble.integers %w : tensor<64x8xf32, #nibble.quantized<u8, block = [*, 1], scale = f32, zero = f32>>
  return
}

// -----

func.func @integers_with_nested_zero(%w: tensor<64x8xf32, #nibble.quantized<u8, block = [*, 1], scale = f32, zero = quantized<u4, block = [*, *], scale = f32>>>) {
  // expected-error @+1 {{expects zero points that are integers (Spec C31)}}
  %r = nibble.integers %w : tensor<64x8xf32, #nibble.quantized<u8, block = [*, 1], scale = f32, zero = quantized<u4, block = [*, *], scale = f32>>>
  return
}

// -----

func.func @integers_with_outliers(%w: tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = sparse<f16>>>) {
  // expected-error @+1 {{expects a tensor without outliers (Spec C31)}}
  %r = nibble.integers %w : tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, outliers = sparse<f16>>>
  return
}

// -----

func.func @integers_of_a_layout(%w: tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, layout = tiles {rows = 16 : i64}>>) {
  // expected-error @+1 {{the parts of a tensor in layout 'tiles' are not in logical order (Spec C18)}}
  %r = nibble.integers %w : tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, layout = tiles {rows = 16 : i64}>>
  return
}

// -----

func.func @integers_type(%w: tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>) {
  // expected-error @+2 {{failed to infer returned types}}
  // expected-error @+1 {{op inferred type(s) 'tensor<64x8xi32>' are incompatible with return type(s) of operation 'tensor<64x9xi32>'}}
  %r = "nibble.integers"(%w) : (tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>) -> tensor<64x9xi32>
  return
}
