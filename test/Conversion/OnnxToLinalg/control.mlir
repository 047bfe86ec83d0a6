// RUN: nibble-opt %s --convert-onnx-to-linalg --reconcile-unrealized-casts --split-input-file --verify-diagnostics | FileCheck %s

// CHECK-LABEL: func.func @branch
// CHECK: %[[C:.*]] = tensor.extract
// CHECK: scf.if %[[C]] -> (tensor<?xf32>)
// CHECK: tensor.cast %{{.*}} : tensor<2xf32> to tensor<?xf32>
// CHECK: } else {
// CHECK: tensor.cast %{{.*}} : tensor<3xf32> to tensor<?xf32>
module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @branch(%c: tensor<i1>, %x: tensor<2xf32>, %y: tensor<3xf32>) -> tensor<?xf32> {
  %z = onnx.node "If"(%c) outputs ["z"] {then_branch = #onnx.graph<inputs [] outputs ["a"] value_info []>, else_branch = #onnx.graph<inputs [] outputs ["b"] value_info []>} : (tensor<i1>) -> tensor<?xf32> {
    %a = onnx.node "Neg"(%x) outputs ["a"] : (tensor<2xf32>) -> tensor<2xf32>
    onnx.return %a : tensor<2xf32>
  }, {
    %b = onnx.node "Neg"(%y) outputs ["b"] : (tensor<3xf32>) -> tensor<3xf32>
    onnx.return %b : tensor<3xf32>
  }
  return %z : tensor<?xf32>
}
}

// -----

// The rows grow as long as there are iterations.
// CHECK-LABEL: func.func @loop
// CHECK: scf.while
// CHECK-SAME: (index, i1, tensor<2xf32>, tensor<?x2xf32>)
// CHECK: scf.condition
// CHECK: } do {
// CHECK: %[[FULL:.*]] = arith.cmpi sle
// CHECK: scf.if %[[FULL]] -> (tensor<?x2xf32>)
// CHECK: tensor.insert_slice
// CHECK: scf.yield
// CHECK: tensor.extract_slice
module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @loop(%m: tensor<i64>, %go: tensor<i1>, %x: tensor<2xf32>) -> (tensor<2xf32>, tensor<?x2xf32>) {
  %last, %rows = onnx.node "Loop"(%m, %go, %x) outputs ["last", "rows"] {body = #onnx.graph<inputs ["i", "c", "v"] outputs ["c", "next", "next"] value_info []>} : (tensor<i64>, tensor<i1>, tensor<2xf32>) -> (tensor<2xf32>, tensor<?x2xf32>) {
  ^bb0(%i: tensor<i64>, %c: tensor<i1>, %v: tensor<2xf32>):
    %next = onnx.node "Neg"(%v) outputs ["next"] : (tensor<2xf32>) -> tensor<2xf32>
    onnx.return %c, %next, %next : tensor<i1>, tensor<2xf32>, tensor<2xf32>
  }
  return %last, %rows : tensor<2xf32>, tensor<?x2xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @ranks(%c: tensor<i1>, %x: tensor<2xf32>, %y: tensor<2x2xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert If 'z': its branches give output 0 different ranks or element types}}
  %z = onnx.node "If"(%c) outputs ["z"] {then_branch = #onnx.graph<inputs [] outputs ["a"] value_info []>, else_branch = #onnx.graph<inputs [] outputs ["b"] value_info []>} : (tensor<i1>) -> tensor<*xf32> {
    %a = onnx.node "Neg"(%x) outputs ["a"] : (tensor<2xf32>) -> tensor<2xf32>
    onnx.return %a : tensor<2xf32>
  }, {
    %b = onnx.node "Neg"(%y) outputs ["b"] : (tensor<2x2xf32>) -> tensor<2x2xf32>
    onnx.return %b : tensor<2x2xf32>
  }
  return %z : tensor<*xf32>
}
}
