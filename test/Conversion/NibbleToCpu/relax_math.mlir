// RUN: nibble-opt %s --nibble-relax-math | FileCheck %s

// CHECK-LABEL: func @sums
// CHECK: arith.addf {{.*}} fastmath<reassoc,contract>
func.func @sums(%x: memref<?x8xf32>, %y: memref<?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
      iterator_types = ["parallel", "reduction"]}
      ins(%x : memref<?x8xf32>) outs(%y : memref<?xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.addf %o, %a : f32
    linalg.yield %s : f32
  }
  return
}

// Numbers that are added elementwise keep their meaning.

// CHECK-LABEL: func @elements
// CHECK-NOT: fastmath
func.func @elements(%x: memref<?xf32>, %y: memref<?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>],
      iterator_types = ["parallel"]}
      ins(%x : memref<?xf32>) outs(%y : memref<?xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.addf %o, %a : f32
    linalg.yield %s : f32
  }
  return
}

// CHECK-LABEL: func @functions
// CHECK-NOT: math.exp
// CHECK: math.cos
func.func @functions(%x: f32) -> (f32, f32) {
  %e = math.exp %x : f32
  %c = math.cos %x : f32
  return %e, %c : f32, f32
}
