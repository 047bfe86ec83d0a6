// RUN: nibble-opt %s --nibble-lower-micro-ops=target=x86-64-v4+vnni | FileCheck %s --check-prefixes=CHECK,VNNI
// RUN: nibble-opt %s --nibble-lower-micro-ops=target=x86-64-v3 | FileCheck %s --check-prefixes=CHECK,AVX2
// RUN: nibble-opt %s --nibble-lower-micro-ops=target=aarch64+dotprod | FileCheck %s --check-prefixes=CHECK,DOT
// RUN: nibble-opt %s --nibble-lower-micro-ops=target=aarch64+i8mm | FileCheck %s --check-prefixes=CHECK,MATRIX
// RUN: nibble-opt %s --nibble-lower-micro-ops=target=x86-64 | FileCheck %s --check-prefixes=CHECK,PLAIN

// CHECK-LABEL: func @wide
// VNNI: llvm.call_intrinsic "llvm.x86.avx512.vpdpbusd.512"
func.func @wide(%s: vector<16xi32>, %w: vector<64xi8>, %a: vector<64xi8>) -> vector<16xi32> {
  %r = nibble.dot4 %s, %w, %a {max_weight = 15 : i64} : vector<16xi32>, vector<64xi8>
  return %r : vector<16xi32>
}

// Two products of 4-bit codes fit 16 bits, those of bytes do not.

// CHECK-LABEL: func @narrow
// AVX2: "llvm.x86.avx2.pmadd.ub.sw"
// AVX2: "llvm.x86.avx2.pmadd.wd"
// CHECK-LABEL: func @bytes
// AVX2-NOT: pmadd.ub.sw
// AVX2-COUNT-2: "llvm.x86.avx2.pmadd.wd"
func.func @narrow(%s: vector<8xi32>, %w: vector<32xi8>, %a: vector<32xi8>) -> vector<8xi32> {
  %r = nibble.dot4 %s, %w, %a {max_weight = 15 : i64} : vector<8xi32>, vector<32xi8>
  return %r : vector<8xi32>
}
func.func @bytes(%s: vector<8xi32>, %w: vector<32xi8>, %a: vector<32xi8>) -> vector<8xi32> {
  %r = nibble.dot4 %s, %w, %a : vector<8xi32>, vector<32xi8>
  return %r : vector<8xi32>
}

// CHECK-LABEL: func @arm
// DOT-COUNT-1: "llvm.aarch64.neon.sdot.v4i32.v16i8"
// MATRIX: "llvm.aarch64.neon.usdot.v4i32.v16i8"
// PLAIN-COUNT-4: arith.muli
// CHECK-NOT: nibble.dot4
func.func @arm(%s: vector<4xi32>, %w: vector<16xi8>, %a: vector<16xi8>) -> vector<4xi32> {
  %r = nibble.dot4 %s, %w, %a {max_weight = 15 : i64} : vector<4xi32>, vector<16xi8>
  return %r : vector<4xi32>
}

// CHECK-LABEL: func @fused
// VNNI: math.fma
// PLAIN: arith.mulf
// PLAIN: arith.addf
func.func @fused(%a: vector<4xf32>, %b: vector<4xf32>, %c: vector<4xf32>) -> vector<4xf32> {
  %r = math.fma %a, %b, %c : vector<4xf32>
  return %r : vector<4xf32>
}

// A table of 16 is a shuffle where there is one, else a chain of comparisons.

// CHECK-LABEL: func @table_wide
// VNNI: vector.shuffle %{{.*}} : vector<16xi8>, vector<16xi8>
// VNNI: "llvm.x86.avx512.pshuf.b.512"
// VNNI: "llvm.x86.avx512.permvar.sf.512"
func.func @table_wide(%t: vector<16xi8>, %i: vector<64xi8>, %f: vector<16xf32>, %j: vector<16xi32>) -> (vector<64xi8>, vector<16xf32>) {
  %r = nibble.lookup %t, %i : vector<16xi8>, vector<64xi8> -> vector<64xi8>
  %s = nibble.lookup %f, %j : vector<16xf32>, vector<16xi32> -> vector<16xf32>
  return %r, %s : vector<64xi8>, vector<16xf32>
}

// CHECK-LABEL: func @table
// AVX2: "llvm.x86.avx2.pshuf.b"
// AVX2-COUNT-2: "llvm.x86.avx2.permps"
// AVX2: arith.cmpi sgt
func.func @table(%t: vector<16xi8>, %i: vector<32xi8>, %f: vector<16xf32>, %j: vector<8xi32>) -> (vector<32xi8>, vector<8xf32>) {
  %r = nibble.lookup %t, %i : vector<16xi8>, vector<32xi8> -> vector<32xi8>
  %s = nibble.lookup %f, %j : vector<16xf32>, vector<8xi32> -> vector<8xf32>
  return %r, %s : vector<32xi8>, vector<8xf32>
}

// CHECK-LABEL: func @table_narrow
// DOT: "llvm.aarch64.neon.tbl1.v16i8"
// PLAIN-COUNT-15: arith.select
// CHECK-NOT: nibble.lookup
func.func @table_narrow(%t: vector<16xi8>, %i: vector<16xi8>) -> vector<16xi8> {
  %r = nibble.lookup %t, %i : vector<16xi8>, vector<16xi8> -> vector<16xi8>
  return %r : vector<16xi8>
}

// Without an instruction, conversions of f16 would be calls.

// CHECK-LABEL: func @halves
// PLAIN-NOT: arith.extf
// PLAIN-NOT: arith.truncf
// AVX2: arith.extf
// AVX2: arith.truncf
// DOT: arith.extf
// PLAIN: return
func.func @halves(%x: vector<8xf16>, %y: f32) -> (vector<8xf32>, f16) {
  %a = arith.extf %x : vector<8xf16> to vector<8xf32>
  %b = arith.truncf %y : f32 to f16
  return %a, %b : vector<8xf32>, f16
}
