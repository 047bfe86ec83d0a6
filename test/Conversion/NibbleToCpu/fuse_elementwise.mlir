// RUN: nibble-opt %s --nibble-fuse-elementwise --split-input-file | FileCheck %s

#id = affine_map<(i, j) -> (i, j)>

// CHECK-LABEL: func @chain
// CHECK-COUNT-1: linalg.generic
// CHECK: arith.addf
// CHECK: arith.maximumf
// CHECK-NOT: linalg.generic
func.func @chain(%x: tensor<?x8xf32>, %y: tensor<?x8xf32>, %e: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %zero = arith.constant 0.0 : f32
  %a = linalg.generic {indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%x, %y : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%p: f32, %q: f32, %o: f32):
    %s = arith.addf %p, %q : f32
    linalg.yield %s : f32
  } -> tensor<?x8xf32>
  %b = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%a : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
  ^bb0(%p: f32, %o: f32):
    %s = arith.maximumf %p, %zero : f32
    linalg.yield %s : f32
  } -> tensor<?x8xf32>
  return %b : tensor<?x8xf32>
}

// -----

// A product stays alone and reads its transposed operand as it is.

// CHECK: #[[COLUMNS:.*]] = affine_map<(d0, d1, d2) -> (d2, d1)>
// CHECK-LABEL: func @product
// CHECK: math.exp
// CHECK-NOT: linalg.transpose
// CHECK: linalg.generic {indexing_maps = [#{{.*}}, #[[COLUMNS]], #{{.*}}]
// CHECK-NEXT: ^bb0
// CHECK-NEXT: arith.mulf
#id = affine_map<(i, j) -> (i, j)>
func.func @product(%x: tensor<4x3xf32>, %w: tensor<2x3xf32>, %c: tensor<4x2xf32>) -> tensor<4x2xf32> {
  %e = tensor.empty() : tensor<4x3xf32>
  %a = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
      ins(%x : tensor<4x3xf32>) outs(%e : tensor<4x3xf32>) {
  ^bb0(%p: f32, %o: f32):
    %s = math.exp %p : f32
    linalg.yield %s : f32
  } -> tensor<4x3xf32>
  %et = tensor.empty() : tensor<3x2xf32>
  %t = linalg.transpose ins(%w : tensor<2x3xf32>) outs(%et : tensor<3x2xf32>) permutation = [1, 0]
  %y = linalg.generic {indexing_maps = [affine_map<(m, k, n) -> (m, k)>,
      affine_map<(m, k, n) -> (k, n)>, affine_map<(m, k, n) -> (m, n)>],
      iterator_types = ["parallel", "reduction", "parallel"]}
      ins(%a, %t : tensor<4x3xf32>, tensor<3x2xf32>) outs(%c : tensor<4x2xf32>) {
  ^bb0(%p: f32, %q: f32, %o: f32):
    %m = arith.mulf %p, %q : f32
    %s = arith.addf %o, %m : f32
    linalg.yield %s : f32
  } -> tensor<4x2xf32>
  return %y : tensor<4x2xf32>
}

// -----

// A function of few numbers is not computed again for every reader.

// CHECK-LABEL: func @repeated
// CHECK: linalg.generic
// CHECK: math.exp
// CHECK: linalg.generic
// CHECK-NOT: math.exp
func.func @repeated(%x: tensor<4xf32>, %e: tensor<4xf32>, %f: tensor<4x9xf32>) -> tensor<4x9xf32> {
  %a = linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      ins(%x : tensor<4xf32>) outs(%e : tensor<4xf32>) {
  ^bb0(%p: f32, %o: f32):
    %s = math.exp %p : f32
    linalg.yield %s : f32
  } -> tensor<4xf32>
  %b = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%a : tensor<4xf32>) outs(%f : tensor<4x9xf32>) {
  ^bb0(%p: f32, %o: f32):
    %s = arith.addf %p, %p : f32
    linalg.yield %s : f32
  } -> tensor<4x9xf32>
  return %b : tensor<4x9xf32>
}

// -----

// A cheap op that reads one tensor of its size is repeated in each reader; one
// that reads two is stored.

// CHECK-LABEL: func @cheap(
// CHECK-SAME: %[[X:.*]]: tensor<4x9xf32>, %[[B:.*]]: tensor<9xf32>
// CHECK: linalg.generic {{.*}} iterator_types = ["parallel", "reduction"]} ins(%[[X]], %[[B]]
// CHECK: arith.subf
// CHECK: arith.maximumf
// CHECK: linalg.generic {{.*}} iterator_types = ["parallel", "parallel"]} ins(%[[X]], %[[B]]
// CHECK: arith.subf
// CHECK: math.exp
// CHECK-NOT: linalg.generic
// CHECK: return
#ij = affine_map<(i, j) -> (i, j)>
func.func @cheap(%x: tensor<4x9xf32>, %b: tensor<9xf32>, %m: tensor<4xf32>, %e: tensor<4x9xf32>) -> (tensor<4xf32>, tensor<4x9xf32>) {
  %s = linalg.generic {indexing_maps = [#ij, affine_map<(i, j) -> (j)>, #ij], iterator_types = ["parallel", "parallel"]}
      ins(%x, %b : tensor<4x9xf32>, tensor<9xf32>) outs(%e : tensor<4x9xf32>) {
  ^bb0(%p: f32, %q: f32, %o: f32):
    %d = arith.subf %p, %q : f32
    linalg.yield %d : f32
  } -> tensor<4x9xf32>
  %max = linalg.generic {indexing_maps = [#ij, affine_map<(i, j) -> (i)>], iterator_types = ["parallel", "reduction"]}
      ins(%s : tensor<4x9xf32>) outs(%m : tensor<4xf32>) {
  ^bb0(%p: f32, %o: f32):
    %l = arith.maximumf %o, %p : f32
    linalg.yield %l : f32
  } -> tensor<4xf32>
  %y = linalg.generic {indexing_maps = [#ij, #ij], iterator_types = ["parallel", "parallel"]}
      ins(%s : tensor<4x9xf32>) outs(%e : tensor<4x9xf32>) {
  ^bb0(%p: f32, %o: f32):
    %l = math.exp %p : f32
    linalg.yield %l : f32
  } -> tensor<4x9xf32>
  return %max, %y : tensor<4xf32>, tensor<4x9xf32>
}

// CHECK-LABEL: func @two_tensors(
// CHECK-COUNT-1: arith.addf
// CHECK-NOT: arith.addf
// CHECK: return
func.func @two_tensors(%x: tensor<4x9xf32>, %b: tensor<4x9xf32>, %e: tensor<4x9xf32>) -> (tensor<4x9xf32>, tensor<4x9xf32>) {
  %s = linalg.generic {indexing_maps = [#ij, #ij, #ij], iterator_types = ["parallel", "parallel"]}
      ins(%x, %b : tensor<4x9xf32>, tensor<4x9xf32>) outs(%e : tensor<4x9xf32>) {
  ^bb0(%p: f32, %q: f32, %o: f32):
    %d = arith.addf %p, %q : f32
    linalg.yield %d : f32
  } -> tensor<4x9xf32>
  %y = linalg.generic {indexing_maps = [#ij, #ij], iterator_types = ["parallel", "parallel"]}
      ins(%s : tensor<4x9xf32>) outs(%e : tensor<4x9xf32>) {
  ^bb0(%p: f32, %o: f32):
    %l = arith.negf %p : f32
    linalg.yield %l : f32
  } -> tensor<4x9xf32>
  %z = linalg.generic {indexing_maps = [#ij, #ij], iterator_types = ["parallel", "parallel"]}
      ins(%s : tensor<4x9xf32>) outs(%e : tensor<4x9xf32>) {
  ^bb0(%p: f32, %o: f32):
    %l = math.exp %p : f32
    linalg.yield %l : f32
  } -> tensor<4x9xf32>
  return %y, %z : tensor<4x9xf32>, tensor<4x9xf32>
}
