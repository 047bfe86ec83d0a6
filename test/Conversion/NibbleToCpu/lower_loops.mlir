// RUN: nibble-opt %s --nibble-lower-loops | FileCheck %s

// Dimensions that lie behind each other are one loop, which is cut into rounds
// for threads; two ops that do the same share the function.

// CHECK-LABEL: func.func @elementwise(
// CHECK-SAME: %[[A:.*]]: memref<?x4x8xf32>, %[[B:.*]]: memref<?x4x8xf32>)
// CHECK: call @nibble_loop(%[[A]], %[[B]])
// CHECK: call @nibble_loop(%[[B]], %[[A]])
// CHECK-NEXT: return
#id = affine_map<(i, j, k) -> (i, j, k)>
func.func @elementwise(%a: memref<?x4x8xf32>, %b: memref<?x4x8xf32>) {
  linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%a : memref<?x4x8xf32>) outs(%b : memref<?x4x8xf32>) {
  ^bb0(%x: f32, %out: f32):
    %y = arith.negf %x : f32
    linalg.yield %y : f32
  }
  linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%b : memref<?x4x8xf32>) outs(%a : memref<?x4x8xf32>) {
  ^bb0(%x: f32, %out: f32):
    %y = arith.negf %x : f32
    linalg.yield %y : f32
  }
  return
}

// What a reduction has so far is carried, also where a loop of the result lies
// between its loops.

// CHECK-LABEL: func.func @reduction(
func.func @reduction(%a: memref<?x?x?xf32>, %s: memref<?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(r, i, q) -> (r, i, q)>, affine_map<(r, i, q) -> (i)>],
      iterator_types = ["reduction", "parallel", "reduction"]}
      ins(%a : memref<?x?x?xf32>) outs(%s : memref<?xf32>) {
  ^bb0(%x: f32, %sum: f32):
    %t = arith.addf %sum, %x : f32
    linalg.yield %t : f32
  }
  return
}

// The sum is not carried where the innermost loop runs along the result: there
// a row of sums is added to at a time.

// CHECK-LABEL: func.func @columns(
func.func @columns(%a: memref<?x?xf32>, %s: memref<?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(r, i) -> (r, i)>, affine_map<(r, i) -> (i)>],
      iterator_types = ["reduction", "parallel"]}
      ins(%a : memref<?x?xf32>) outs(%s : memref<?xf32>) {
  ^bb0(%x: f32, %sum: f32):
    %t = arith.addf %sum, %x : f32
    linalg.yield %t : f32
  }
  return
}

// A row of scales belongs to each row: the places of the outer loops count
// along.

// CHECK-LABEL: func.func @scaled(
func.func @scaled(%a: memref<?x3x8xf32>, %s: memref<3xf32>) {
  linalg.generic {indexing_maps = [affine_map<(i, j, k) -> (j)>, #id],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%s : memref<3xf32>) outs(%a : memref<?x3x8xf32>) {
  ^bb0(%scale: f32, %x: f32):
    %y = arith.mulf %x, %scale : f32
    linalg.yield %y : f32
  }
  return
}

// A check may fail on the thread that began the run only.

// CHECK-LABEL: func.func @checked(
// CHECK: linalg.generic
func.func @checked(%a: memref<?xi1>) {
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      outs(%a : memref<?xi1>) {
  ^bb0(%x: i1):
    cf.assert %x, "no"
    linalg.yield %x : i1
  }
  return
}

// CHECK-LABEL: func.func private @nibble_loop(
// CHECK: memref.collapse_shape %{{.*}} {{\[}}[0, 1, 2]] : memref<?x4x8xf32> into memref<?xf32>
// CHECK: scf.if
// CHECK: scf.parallel
// CHECK: call @nibble_loop_rounds
// CHECK: else
// CHECK: call @nibble_loop_rounds
// CHECK-LABEL: func.func private @nibble_loop_rounds(
// CHECK-SAME: %[[FIRST:.*]]: index, %[[END:.*]]: index,
// CHECK: scf.for %[[ROUND:.*]] = %[[FIRST]] to %[[END]]
// CHECK: %[[START:.*]] = arith.muli %[[ROUND]], %c4096
// CHECK: scf.for %{{.*}} = %[[START]] to
// CHECK: arith.negf

// CHECK-LABEL: func.func private @nibble_loop_0_rounds(
// CHECK: scf.for %[[I:.*]] =
// CHECK: %[[SUM:.*]] = memref.load %{{.*}}[%[[I]]] : memref<?xf32>
// CHECK: %[[OUTER:.*]] = scf.for {{.*}} iter_args(%[[A:.*]] = %[[SUM]]) -> (f32)
// CHECK: scf.for {{.*}} iter_args(%[[B:.*]] = %[[A]]) -> (f32)
// CHECK-NOT: memref.store
// CHECK: arith.addf %[[B]]
// CHECK: memref.store %[[OUTER]], %{{.*}}[%[[I]]]

// CHECK-LABEL: func.func private @nibble_loop_1_rounds(
// CHECK: scf.for
// CHECK: scf.for
// CHECK: scf.for %[[I:.*]] =
// CHECK: arith.addf
// CHECK: memref.store %{{.*}}, %{{.*}}[%[[I]]]

// CHECK-LABEL: func.func private @nibble_loop_2_rounds(
// CHECK: arith.remui
// CHECK: scf.for {{.*}} iter_args(%[[I:.*]] = %{{.*}}, %[[J:.*]] = %{{.*}}) -> (index, index)
// CHECK: scf.for %[[K:.*]] =
// CHECK: memref.store %{{.*}}, %{{.*}}[%[[I]], %[[J]], %[[K]]]
// CHECK: %[[NEXT:.*]] = arith.addi %[[J]]
// CHECK: arith.cmpi eq, %[[NEXT]]
