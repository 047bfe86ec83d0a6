// RUN: nibble-opt %s | nibble-opt | FileCheck %s
// RUN: nibble-opt %s --mlir-print-op-generic | nibble-opt | FileCheck %s

// CHECK-LABEL: func @steps
// CHECK: nibble.dot4 %{{.*}}, %{{.*}}, %{{.*}} {max_weight = 15 : i64} : vector<16xi32>, vector<64xi8>
// CHECK: nibble.lookup %{{.*}}, %{{.*}} : vector<16xi8>, vector<64xi8> -> vector<64xi8>
func.func @steps(%s: vector<16xi32>, %w: vector<64xi8>, %t: vector<16xi8>) -> (vector<16xi32>, vector<64xi8>) {
  %r = nibble.dot4 %s, %w, %w {max_weight = 15 : i64} : vector<16xi32>, vector<64xi8>
  %l = nibble.lookup %t, %w : vector<16xi8>, vector<64xi8> -> vector<64xi8>
  return %r, %l : vector<16xi32>, vector<64xi8>
}

// CHECK-LABEL: func @products
// CHECK: nibble.packed_matmul %{{.*}}, %{{.*}} bias(%{{.*}} : tensor<8xf32>) outs(%{{.*}}) weight tensor<128x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f16, layout = panel {group = 128 : i64}>> compute i8 {activation_scale = 5.000000e-01 : f32} : tensor<?x128xi8>, tensor<8320xi8>, tensor<?x8xf32> -> tensor<?x8xf32>
// CHECK: nibble.packed_matmul %{{.*}}, %{{.*}} outs(%{{.*}}) weight tensor<32x8xbf16> compute f32 : tensor<?x32xf32>, tensor<2048xbf16>, tensor<?x8xf32> -> tensor<?x8xf32>
func.func @products(%q: tensor<?x128xi8>, %w: tensor<8320xi8>, %b: tensor<8xf32>, %o: tensor<?x8xf32>, %x: tensor<?x32xf32>, %v: tensor<2048xbf16>) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %y = nibble.packed_matmul %q, %w bias(%b : tensor<8xf32>) outs(%o) weight tensor<128x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f16, layout = panel {group = 128 : i64}>> compute i8 {activation_scale = 0.5 : f32} : tensor<?x128xi8>, tensor<8320xi8>, tensor<?x8xf32> -> tensor<?x8xf32>
  %z = nibble.packed_matmul %x, %v outs(%o) weight tensor<32x8xbf16> compute f32 : tensor<?x32xf32>, tensor<2048xbf16>, tensor<?x8xf32> -> tensor<?x8xf32>
  return %y, %z : tensor<?x8xf32>, tensor<?x8xf32>
}

// CHECK-LABEL: func @fragments
// CHECK: nibble.fragment_matmul %{{.*}}, %{{.*}} outs(%{{.*}}) weight tensor<60x16xf32, #nibble.quantized<i4, block = [32, 1], scale = f16, layout = fragment {group = 32 : i64}>> : tensor<?x64xf16>, tensor<576xi8>, tensor<?x16xf16> -> tensor<?x16xf16>
func.func @fragments(%x: tensor<?x64xf16>, %w: tensor<576xi8>, %o: tensor<?x16xf16>) -> tensor<?x16xf16> {
  %y = nibble.fragment_matmul %x, %w outs(%o) weight tensor<60x16xf32, #nibble.quantized<i4, block = [32, 1], scale = f16, layout = fragment {group = 32 : i64}>> : tensor<?x64xf16>, tensor<576xi8>, tensor<?x16xf16> -> tensor<?x16xf16>
  return %y : tensor<?x16xf16>
}
