// RUN: nibble-opt %s --split-input-file --onnx-update-caches | FileCheck %s

// Both caches become buffers; something that asks for the shape of the past gets it from
// what the buffer holds.
// CHECK-LABEL: func.func @main
// CHECK-SAME: %[[X:[^:]*]]: tensor<1x?x8xf32, #onnx.dims<"new">>
// CHECK-SAME: %[[K:[^:]*]]: tensor<1x?x8xf32, #onnx.dims<"capacity">> {onnx.updated}
// CHECK-SAME: %[[V:[^:]*]]: tensor<1x?x8xf32, #onnx.dims<"capacity">> {onnx.updated}
// CHECK-SAME: %[[LENGTH:[^:]*]]: tensor<1xi64>) -> tensor<3xi64>
// CHECK-SAME: #onnx.graph<inputs ["x", "past.k", "past.v", "past_length"] outputs ["shape"]
// CHECK: %[[PREFIX:.*]] = onnx.node "Prefix" in "nibble"(%[[K]], %[[LENGTH]]) {{.*}} {axis = 1 : i64}
// CHECK-SAME: -> tensor<1x?x8xf32, #onnx.dims<"past">>
// CHECK: onnx.node "Shape"(%[[PREFIX]])
// CHECK: onnx.node "Append" in "nibble"(%[[K]], %[[X]], %[[LENGTH]]) {{.*}} {axis = 1 : i64}
// CHECK: onnx.node "Append" in "nibble"(%[[V]], %[[X]], %[[LENGTH]])
// CHECK-NOT: "Concat"
// CHECK: return %{{.*}} : tensor<3xi64>
module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<1x?x8xf32, #onnx.dims<"new">>, %k: tensor<1x?x8xf32, #onnx.dims<"past">>, %v: tensor<1x?x8xf32, #onnx.dims<"past">>)
      -> (tensor<3xi64>, tensor<1x?x8xf32>, tensor<1x?x8xf32>)
      attributes {onnx.graph = #onnx.graph<inputs ["x", "past.k", "past.v"] outputs ["shape", "present.k", "present.v"] value_info []>} {
    %s = onnx.node "Shape"(%k) outputs ["shape"] : (tensor<1x?x8xf32, #onnx.dims<"past">>) -> tensor<3xi64>
    %pk = onnx.node "Concat"(%k, %x) outputs ["present.k"] {axis = 1 : i64} : (tensor<1x?x8xf32, #onnx.dims<"past">>, tensor<1x?x8xf32, #onnx.dims<"new">>) -> tensor<1x?x8xf32>
    %pv = onnx.node "Concat"(%v, %x) outputs ["present.v"] {axis = -2 : i64} : (tensor<1x?x8xf32, #onnx.dims<"past">>, tensor<1x?x8xf32, #onnx.dims<"new">>) -> tensor<1x?x8xf32>
    %n = onnx.node "Neg"(%pk) outputs ["n"] : (tensor<1x?x8xf32>) -> tensor<1x?x8xf32>
    %m = onnx.node "Mul"(%n, %pv) outputs ["m"] : (tensor<1x?x8xf32>, tensor<1x?x8xf32>) -> tensor<1x?x8xf32>
    return %s, %pk, %pv : tensor<3xi64>, tensor<1x?x8xf32>, tensor<1x?x8xf32>
  }
}

// -----

// These stay: what comes first is new, the past is read before it grows, the length has
// another name, the size is fixed, nothing reads what would be in the buffer.
// CHECK-LABEL: func.func @main
// CHECK-SAME: "capacity"
// CHECK-NOT: "capacity"
// CHECK-SAME: outputs ["first", "read", "other", "fixed", "unread"]
// CHECK: onnx.node "Concat"({{.*}} outputs ["first"]
// CHECK: onnx.node "Concat"({{.*}} outputs ["read"]
// CHECK: onnx.node "Append" in "nibble"({{.*}} outputs ["good"]
// CHECK: onnx.node "Concat"({{.*}} outputs ["other"]
// CHECK: onnx.node "Concat"({{.*}} outputs ["fixed"]
// CHECK: onnx.node "Concat"({{.*}} outputs ["unread"]
module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<?xf32, #onnx.dims<"new">>, %a: tensor<?xf32, #onnx.dims<"past">>, %b: tensor<?xf32, #onnx.dims<"past">>, %c: tensor<?xf32, #onnx.dims<"past">>, %d: tensor<?xf32, #onnx.dims<"far">>, %e: tensor<4xf32>, %f: tensor<?xf32, #onnx.dims<"past">>)
      -> (tensor<?xf32>, tensor<?xf32>, tensor<?xf32>, tensor<?xf32>, tensor<?xf32>, tensor<?xf32>)
      attributes {onnx.graph = #onnx.graph<inputs ["x", "a", "b", "c", "d", "e", "f"] outputs ["first", "read", "good", "other", "fixed", "unread"] value_info []>} {
    %0 = onnx.node "Concat"(%x, %a) outputs ["first"] {axis = 0 : i64} : (tensor<?xf32, #onnx.dims<"new">>, tensor<?xf32, #onnx.dims<"past">>) -> tensor<?xf32>
    %old = onnx.node "Neg"(%b) outputs ["old"] : (tensor<?xf32, #onnx.dims<"past">>) -> tensor<?xf32, #onnx.dims<"past">>
    %1 = onnx.node "Concat"(%b, %x) outputs ["read"] {axis = 0 : i64} : (tensor<?xf32, #onnx.dims<"past">>, tensor<?xf32, #onnx.dims<"new">>) -> tensor<?xf32>
    %2 = onnx.node "Concat"(%c, %x) outputs ["good"] {axis = 0 : i64} : (tensor<?xf32, #onnx.dims<"past">>, tensor<?xf32, #onnx.dims<"new">>) -> tensor<?xf32>
    %3 = onnx.node "Concat"(%d, %x) outputs ["other"] {axis = 0 : i64} : (tensor<?xf32, #onnx.dims<"far">>, tensor<?xf32, #onnx.dims<"new">>) -> tensor<?xf32>
    %4 = onnx.node "Concat"(%e, %x) outputs ["fixed"] {axis = 0 : i64} : (tensor<4xf32>, tensor<?xf32, #onnx.dims<"new">>) -> tensor<?xf32>
    %5 = onnx.node "Concat"(%f, %x) outputs ["unread"] {axis = 0 : i64} : (tensor<?xf32, #onnx.dims<"past">>, tensor<?xf32, #onnx.dims<"new">>) -> tensor<?xf32>
    %u0 = onnx.node "Neg"(%0) outputs ["u0"] : (tensor<?xf32>) -> tensor<?xf32>
    %u1 = onnx.node "Neg"(%1) outputs ["u1"] : (tensor<?xf32>) -> tensor<?xf32>
    %u2 = onnx.node "Neg"(%2) outputs ["u2"] : (tensor<?xf32>) -> tensor<?xf32>
    %u3 = onnx.node "Neg"(%3) outputs ["u3"] : (tensor<?xf32>) -> tensor<?xf32>
    %u4 = onnx.node "Neg"(%4) outputs ["u4"] : (tensor<?xf32>) -> tensor<?xf32>
    return %0, %1, %2, %3, %4, %5 : tensor<?xf32>, tensor<?xf32>, tensor<?xf32>, tensor<?xf32>, tensor<?xf32>, tensor<?xf32>
  }
}
