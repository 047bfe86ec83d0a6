// RUN: nibble-opt %s --nibble-insert-observers | FileCheck %s
// RUN: nibble-opt %s --nibble-insert-observers=statistics=range,magnitudes | FileCheck %s --check-prefix=KINDS
// RUN: not nibble-opt %s --nibble-insert-observers=statistics=mode 2>&1 | FileCheck %s --check-prefix=OPTION

// OPTION: error: 'mode' is no statistic; use moments, magnitudes or range
// KINDS: nibble.observe "x" {{.*}}nibble.statistics = ["range", "magnitudes"]

// Two products of one input share a probe; a weight that stays, a table and
// other readers have none.
// CHECK-LABEL: func @main
// CHECK-SAME: (%[[X:.*]]: tensor<?x4xf32>
func.func @main(%x: tensor<?x4xf32>, %i: tensor<2xi64>)
    -> (tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x4xf32>)
    attributes {onnx.graph = #onnx.graph<inputs ["x", "i"] outputs ["a", "b", "c", "d", "e"] value_info []>} {
  // CHECK: %[[SEEN:.*]] = nibble.observe "x" %[[X]] {nibble.statistics = ["moments"]}
  // CHECK-NOT: nibble.observe
  %w = onnx.constant "w" : tensor<4x2xf32> = dense<1.0>
      {nibble.encoding = #nibble.quantized<u4, block = [4, 1], scale = f32, zero = u4>}
  %v = onnx.constant "v" : tensor<2x4xf32> = dense<1.0>
      {nibble.encoding = #nibble.quantized<u4, block = [1, 4], scale = f32, zero = u4>}
  %f = onnx.constant "f" : tensor<4x2xf32> = dense<1.0>
  // CHECK: onnx.node "MatMul"(%[[SEEN]],
  %a = onnx.node "MatMul"(%x, %w) outputs ["a"] {} : (tensor<?x4xf32>, tensor<4x2xf32>) -> tensor<?x2xf32>
  // CHECK: onnx.node "Gemm"(%[[SEEN]],
  %b = onnx.node "Gemm"(%x, %v) outputs ["b"] {transB = 1 : i64} : (tensor<?x4xf32>, tensor<2x4xf32>) -> tensor<?x2xf32>
  // CHECK: onnx.node "MatMul"(%[[X]],
  %c = onnx.node "MatMul"(%x, %f) outputs ["c"] {} : (tensor<?x4xf32>, tensor<4x2xf32>) -> tensor<?x2xf32>
  %d = onnx.node "Gather"(%w, %i) outputs ["d"] {} : (tensor<4x2xf32>, tensor<2xi64>) -> tensor<2x2xf32>
  // CHECK: onnx.node "Relu"(%[[X]])
  %e = onnx.node "Relu"(%x) outputs ["e"] {} : (tensor<?x4xf32>) -> tensor<?x4xf32>
  return %a, %b, %c, %d, %e : tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xf32>, tensor<2x2xf32>, tensor<?x4xf32>
}
