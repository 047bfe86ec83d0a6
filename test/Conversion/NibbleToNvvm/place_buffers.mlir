// RUN: nibble-opt %s --split-input-file --nibble-launch-kernels --nibble-place-buffers | FileCheck %s

// The input and the buffers of launches are the device's, the result is the host's.
// CHECK-LABEL: func.func @main(
// CHECK-SAME: %[[X:.*]]: memref<512xf32>, %[[W:.*]]: memref<512xf32>)
// CHECK: %[[BYTES:[0-9]+]] = call @nibble_device_allocate(%c2048) : (index) -> memref<?xi8>
// CHECK: %[[INPUT:.*]] = memref.view %[[BYTES]]
// CHECK: memref.copy %[[X]], %[[INPUT]]
// CHECK: call @nibble_device_allocate(
// CHECK: call @nibble_launch(%[[INPUT]], %[[W]], %[[Y:[a-z_0-9]+]])
// CHECK-NOT: synchronize
// CHECK: %[[HOST:.*]] = memref.alloc() : memref<2xf32>
// CHECK: memref.store %{{.*}}, %[[HOST]]
// CHECK: call @nibble_device_synchronize()
// CHECK-NEXT: memref.load %[[Y]]
// CHECK-NOT: synchronize
// CHECK: memref.load %[[Y]]
// CHECK: memref.dealloc %[[INPUT]]
// CHECK: %[[RESULT:.*]] = memref.alloc() : memref<512xf32>
// CHECK: memref.copy %[[Y]], %[[RESULT]]
// CHECK: memref.dealloc %[[Y]]
// CHECK: return %[[RESULT]]
// CHECK: module @nibble_device attributes {nibble.buffer_bytes = 4096 : i64
func.func @main(%x: memref<512xf32>, %w: memref<512xf32> {nibble.resident})
    -> memref<512xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = memref.alloc() : memref<512xf32>
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>,
                                   affine_map<(i) -> (i)>], iterator_types = ["parallel"]}
      ins(%x, %w : memref<512xf32>, memref<512xf32>) outs(%y : memref<512xf32>) {
    ^bb0(%a: f32, %b: f32, %out: f32):
      %t = arith.addf %a, %b : f32
      linalg.yield %t : f32
  }
  %host = memref.alloc() : memref<2xf32>
  %zero = arith.constant 0.0 : f32
  memref.store %zero, %host[%c0] : memref<2xf32>
  %first = memref.load %y[%c0] : memref<512xf32>
  %second = memref.load %y[%c1] : memref<512xf32>
  memref.store %first, %host[%c0] : memref<2xf32>
  memref.store %second, %host[%c1] : memref<2xf32>
  memref.dealloc %host : memref<2xf32>
  return %y : memref<512xf32>
}

// -----

// A loop launches and reads: it waits in every turn. The plan has no dynamic sizes.
// CHECK-LABEL: func.func @main(
// CHECK: scf.for
// CHECK: call @nibble_launch_0(
// CHECK-NEXT: call @nibble_device_synchronize()
// CHECK-NEXT: memref.load
// CHECK: module @nibble_device
// CHECK-NOT: buffer_bytes
func.func @main(%n: index, %x: memref<?xf32>) -> f32 {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %y = memref.alloc(%n) : memref<?xf32>
  linalg.fill ins(%zero : f32) outs(%y : memref<?xf32>)
  %sum = scf.for %i = %c0 to %n step %c1 iter_args(%s = %zero) -> f32 {
    linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>],
                    iterator_types = ["parallel"]}
        ins(%x : memref<?xf32>) outs(%y : memref<?xf32>) {
      ^bb0(%a: f32, %b: f32):
        %t = arith.addf %a, %b : f32
        linalg.yield %t : f32
    }
    %v = memref.load %y[%i] : memref<?xf32>
    %t = arith.addf %s, %v : f32
    scf.yield %t : f32
  }
  memref.dealloc %y : memref<?xf32>
  return %sum : f32
}

// -----

// Either constant may be what the launch reads.
memref.global "private" constant @a : memref<512xf32> = dense<1.0>
memref.global "private" constant @b : memref<512xf32> = dense<2.0>
// CHECK-LABEL: func.func @main(
// CHECK-COUNT-2: memref.copy
// CHECK: %[[EITHER:[0-9a-z_]+]] = arith.select
// CHECK: call @nibble_launch(%[[EITHER]], %arg1)
func.func @main(%first: i1, %y: memref<512xf32> {nibble.resident}) {
  %a = memref.get_global @a : memref<512xf32>
  %b = memref.get_global @b : memref<512xf32>
  %either = arith.select %first, %a, %b : memref<512xf32>
  linalg.generic {indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> (i)>],
                  iterator_types = ["parallel"]}
      ins(%either : memref<512xf32>) outs(%y : memref<512xf32>) {
    ^bb0(%in: f32, %out: f32):
      linalg.yield %in : f32
  }
  return
}
