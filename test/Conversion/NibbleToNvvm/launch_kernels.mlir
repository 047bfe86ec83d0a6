// RUN: nibble-opt %s --nibble-launch-kernels | FileCheck %s
// RUN: not nibble-opt %s --nibble-launch-kernels=target=nvidia-sm75 2>&1 \
// RUN:   | FileCheck %s --check-prefix=UNKNOWN

// UNKNOWN: unknown target 'nvidia-sm75'; there are nvidia-sm80,

// Equal ops share a kernel; a reduction runs in a thread.
// CHECK-LABEL: func.func @main(
// CHECK: call @nibble_launch(%{{.*}}) : (memref<?xf32>) -> ()
// CHECK-NEXT: call @nibble_launch_0(%arg0, %{{.*}}) : (memref<?x16xf32>, memref<?xf32>) -> ()
// CHECK: call @nibble_launch(%{{.*}}) : (memref<?xf32>) -> ()
func.func @main(%x: memref<?x16xf32>, %y: memref<?xf32>, %z: memref<?xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%y : memref<?xf32>)
  linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
                  iterator_types = ["parallel", "reduction"]}
      ins(%x : memref<?x16xf32>) outs(%y : memref<?xf32>) {
    ^bb0(%a: f32, %s: f32):
      %t = arith.addf %s, %a : f32
      linalg.yield %t : f32
  }
  linalg.fill ins(%zero : f32) outs(%z : memref<?xf32>)
  return
}

// Arithmetic of shapes, checks and what GPUs have no function for stay.
// CHECK-LABEL: func.func @host(
// CHECK-COUNT-3: linalg.generic
// CHECK: return
func.func @host(%shape: memref<2xi64>, %x: memref<?xf64>, %y: memref<?xf32>, %ok: i1) {
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      outs(%shape : memref<2xi64>) {
    ^bb0(%a: i64):
      %t = arith.addi %a, %a : i64
      linalg.yield %t : i64
  }
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      outs(%x : memref<?xf64>) {
    ^bb0(%a: f64):
      %t = math.exp %a : f64
      linalg.yield %t : f64
  }
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      outs(%y : memref<?xf32>) {
    ^bb0(%a: f32):
      cf.assert %ok, "checked"
      linalg.yield %a : f32
  }
  return
}

// A number that is captured, and a buffer that is read at a computed place.
// CHECK-LABEL: func.func @captures(
// CHECK: call @nibble_launch_{{[0-9]+}}(%arg0, %arg2, %arg1)
func.func @captures(%ids: memref<?xi64>, %table: memref<9x4xf16, strided<[?, 1], offset: ?>>,
                    %y: memref<?x4xf16>) {
  linalg.generic {indexing_maps = [affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>],
                  iterator_types = ["parallel", "parallel"]}
      ins(%ids : memref<?xi64>) outs(%y : memref<?x4xf16>) {
    ^bb0(%id: i64, %out: f16):
      %j = linalg.index 1 : index
      %i = arith.index_cast %id : i64 to index
      %t = memref.load %table[%i, %j] : memref<9x4xf16, strided<[?, 1], offset: ?>>
      linalg.yield %t : f16
  }
  return
}

// Lanes of a warp share what runs along rows.
// CHECK-LABEL: func.func @rows(
// CHECK: call @nibble_launch_{{[0-9]+}}(%arg0, %arg1)
func.func @rows(%x: memref<?x64xf32>, %y: memref<?xf32>) {
  linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
                  iterator_types = ["parallel", "reduction"]}
      ins(%x : memref<?x64xf32>) outs(%y : memref<?xf32>) {
    ^bb0(%a: f32, %s: f32):
      %t = arith.maximumf %s, %a : f32
      linalg.yield %t : f32
  }
  return
}

// Rows of a product are known, so it has the kernels for that many.
// CHECK-LABEL: func.func @product(
// CHECK: call @nibble_launch_{{[0-9]+}}(%arg0, %arg1, %arg2)
func.func @product(%x: memref<1x64xf16>, %packed: memref<576xi8>, %y: memref<1x16xf16>) {
  nibble.fragment_matmul %x, %packed outs(%y)
      weight tensor<64x16xf32, #nibble.quantized<i4, block = [32, 1], scale = f16,
          layout = fragment {group = 32 : i64}>>
      : memref<1x64xf16>, memref<576xi8>, memref<1x16xf16>
  return
}

// CHECK: module @nibble_device attributes {
// CHECK-SAME: nibble.kernels = ["map_0", "reduce_1", "map_2", "reduce_3"]
// CHECK-SAME: nibble.products = [{bits = 4 : i64, group = 32 : i64, has_zeros = 0 : i64
// CHECK-SAME: max_rows = 8 : i64, name = "w4g32_n{{.*}}_m8_
// CHECK-NOT: _m64_

// CHECK: llvm.func @reduce_1(%[[X:.*]]: !llvm.ptr<1>, %[[N:.*]]: i64, %[[Y:.*]]: !llvm.ptr<1>, %{{.*}}: i64)
// CHECK-SAME: nvvm.kernel
// CHECK: scf.if
// CHECK: %[[START:.*]] = llvm.load
// CHECK: scf.for {{.*}} iter_args(%{{.*}} = %[[START]]) -> (f32)
// CHECK: arith.addf
// CHECK: llvm.store

// CHECK: llvm.func @reduce_3(
// CHECK: %[[LOWEST:.*]] = arith.constant 0xFF800000 : f32
// CHECK: scf.for {{.*}} iter_args(%{{.*}} = %[[LOWEST]]) -> (f32)
// CHECK-COUNT-5: nvvm.shfl.sync bfly
// CHECK: scf.if
// CHECK: llvm.load
// CHECK: arith.maximumf
// CHECK: llvm.store

// CHECK: func.func private @nibble_launch_0(
// CHECK: llvm.call @nibble_device_launch(
// CHECK: llvm.call @nibble_device_multiply(
