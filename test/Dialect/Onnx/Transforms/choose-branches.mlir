// RUN: nibble-opt %s --onnx-choose-branches | FileCheck %s

// The size of the last dimension is not known: the branch of lower rank is taken, and
// checked. Then the rank is, which decides the second If.
// CHECK-LABEL: func.func @main
// CHECK-SAME: (%[[X:.*]]: tensor<?x4x?xf32>)
// CHECK: %[[EQUAL:.*]] = onnx.node "Equal"
// CHECK: onnx.node "Check" in "nibble"(%[[EQUAL]]) name "squeeze" outputs [] {expected = 1 : i64}
// CHECK: %[[S:.*]] = onnx.node "Squeeze"(%[[X]], %{{.*}}) outputs ["s"]
// CHECK-SAME: -> tensor<?x4xf32>
// CHECK-NOT: "If"
// CHECK: %[[N:.*]] = onnx.node "Neg"(%[[S]]) outputs ["n"]
// CHECK-SAME: -> tensor<?x4xf32>
// CHECK: return %[[N]] : tensor<?x4xf32>
module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<?x4x?xf32>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<inputs ["x"] outputs ["z"] value_info []>} {
    %last = onnx.constant "last" : tensor<1xi64> = dense<-1>
    %one = onnx.constant "one" : tensor<1xi64> = dense<1>
    %two = onnx.constant "two" : tensor<i64> = dense<2>
    %shape = onnx.node "Shape"(%x) outputs ["shape"] : (tensor<?x4x?xf32>) -> !onnx.unknown
    %size = onnx.node "Gather"(%shape, %last) outputs ["size"] : (!onnx.unknown, tensor<1xi64>) -> !onnx.unknown
    %c = onnx.node "Equal"(%size, %one) outputs ["c"] : (!onnx.unknown, tensor<1xi64>) -> !onnx.unknown
    %y = onnx.node "If"(%c) name "squeeze" outputs ["y"] {then_branch = #onnx.graph<inputs [] outputs ["s"] value_info []>, else_branch = #onnx.graph<inputs [] outputs ["i"] value_info []>} : (!onnx.unknown) -> !onnx.unknown {
      %s = onnx.node "Squeeze"(%x, %last) outputs ["s"] : (tensor<?x4x?xf32>, tensor<1xi64>) -> !onnx.unknown
      onnx.return %s : !onnx.unknown
    }, {
      %i = onnx.node "Identity"(%x) outputs ["i"] : (tensor<?x4x?xf32>) -> !onnx.unknown
      onnx.return %i : !onnx.unknown
    }
    %its = onnx.node "Shape"(%y) outputs ["its"] : (!onnx.unknown) -> !onnx.unknown
    %rank = onnx.node "Size"(%its) outputs ["rank"] : (!onnx.unknown) -> !onnx.unknown
    %d = onnx.node "Equal"(%rank, %two) outputs ["d"] : (!onnx.unknown, tensor<i64>) -> !onnx.unknown
    %z = onnx.node "If"(%d) outputs ["z"] {else_branch = #onnx.graph<inputs [] outputs ["e"] value_info []>, then_branch = #onnx.graph<inputs [] outputs ["n"] value_info []>} : (!onnx.unknown) -> !onnx.unknown {
      %e = onnx.node "Squeeze"(%y, %last) outputs ["e"] : (!onnx.unknown, tensor<1xi64>) -> !onnx.unknown
      onnx.return %e : !onnx.unknown
    }, {
      %n = onnx.node "Neg"(%y) outputs ["n"] : (!onnx.unknown) -> !onnx.unknown
      onnx.return %n : !onnx.unknown
    }
    return %z : !onnx.unknown
  }
}
