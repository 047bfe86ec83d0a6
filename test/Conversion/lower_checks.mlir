// RUN: nibble-opt %s --nibble-lower-checks | FileCheck %s
// RUN: nibble-opt %s --nibble-lower-checks --convert-scf-to-cf --finalize-memref-to-llvm=use-generic-functions \
// RUN:   --convert-func-to-llvm --convert-cf-to-llvm --convert-arith-to-llvm --reconcile-unrealized-casts \
// RUN:   | mlir-translate --mlir-to-llvmir | FileCheck %s --check-prefix=LLVM

// Equal messages are one global.
// CHECK-DAG: llvm.mlir.global private constant @[[X:nibble_message_[0-9]]]("node 'x': index is out of range\00")
// CHECK-DAG: llvm.mlir.global private constant @{{.*}}("node 'y': shapes differ\00")
// CHECK-NOT: llvm.mlir.global
// CHECK-DAG: llvm.func @nibble_runtime_fail(i32, !llvm.ptr) attributes {passthrough = ["noreturn", "cold"]}

// LLVM-LABEL: define void @checks(i1 %0, i1 %1)
// LLVM:       %[[FAILED:.*]] = xor i1 %0, true
// LLVM:       br i1 %[[FAILED]]
// LLVM:       call void @nibble_runtime_fail(i32 3, ptr @

// CHECK-LABEL: func.func @checks(
// CHECK-SAME:    %[[A:.*]]: i1, %{{.*}}: i1
func.func @checks(%a: i1, %b: i1) {
  // CHECK:      %[[FAILED:.*]] = arith.xori %[[A]], %{{.*}} : i1
  // CHECK:      scf.if %[[FAILED]] {
  // CHECK-DAG:    %[[CODE:.*]] = arith.constant 3 : i32
  // CHECK-DAG:    %[[TEXT:.*]] = llvm.mlir.addressof @[[X]] : !llvm.ptr
  // CHECK:        llvm.call @nibble_runtime_fail(%[[CODE]], %[[TEXT]])
  // CHECK:      }
  cf.assert %a, "node 'x': index is out of range"
  // CHECK: scf.if
  cf.assert %b, "node 'y': shapes differ"
  // CHECK: scf.if
  cf.assert %b, "node 'x': index is out of range"
  return
}

// CHECK-LABEL: func.func @sizes(
// CHECK-SAME:    %[[M:.*]]: index, %[[N:.*]]: index
func.func @sizes(%m: index, %n: index) {
  // 4 bytes times 3.
  // CHECK: %[[KNOWN:.*]] = arith.constant 12 : i64
  // CHECK: %[[M64:.*]] = arith.index_cast %[[M]] : index to i64
  // CHECK: %[[ROWS:.*]] = llvm.call @nibble_runtime_multiply(%[[KNOWN]], %[[M64]])
  // CHECK: %[[N64:.*]] = arith.index_cast %[[N]] : index to i64
  // CHECK: llvm.call @nibble_runtime_multiply(%[[ROWS]], %[[N64]])
  // CHECK: memref.alloc(%[[M]], %[[N]])
  %a = memref.alloc(%m, %n) : memref<?x3x?xf32>
  // CHECK-NOT: multiply
  // CHECK: memref.alloc() : memref<8xf32>
  %b = memref.alloc() : memref<8xf32>
  memref.dealloc %a : memref<?x3x?xf32>
  memref.dealloc %b : memref<8xf32>
  return
}

// A thread of a parallel loop cannot end the run.
// CHECK-LABEL: func.func @parallel(
func.func @parallel(%n: index) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  // CHECK-NOT: multiply
  scf.parallel (%i) = (%c0) to (%n) step (%c1) {
    %a = memref.alloc(%n) : memref<?xi8>
    memref.dealloc %a : memref<?xi8>
  }
  return
}

// CHECK-LABEL: func.func @loop(
func.func @loop(%start: i32, %continue: i1) -> i32 {
  // CHECK: scf.while
  // CHECK: do {
  // CHECK: llvm.call @nibble_runtime_check_interrupt()
  %r = scf.while (%x = %start) : (i32) -> i32 {
    scf.condition(%continue) %x : i32
  } do {
  ^bb0(%x: i32):
    scf.yield %x : i32
  }
  return %r : i32
}
