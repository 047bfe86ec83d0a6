// RUN: nibble-opt %s --onnx-inline-functions --split-input-file --verify-diagnostics | FileCheck %s
// RUN: nibble-opt %S/Inputs/functions.mlir --onnx-inline-functions='op-types=MatMul keep-versions' --verify-diagnostics | FileCheck %s --check-prefix=CHOSEN
// RUN: nibble-opt %S/Inputs/functions.mlir --onnx-inline-functions='op-types=MatMul keep-versions' 2>/dev/null | nibble-translate --export-onnx - -o %t.onnx
// RUN: nibble-opt %t.onnx | FileCheck %s --check-prefix=CHOSEN

// Calls in calls and in branches; what the call, or else the function, says of an
// attribute; a version of its own; an input that is left out.
// CHECK-LABEL: func.func @main
// CHECK-SAME: (%[[A:.*]]: tensor<i1>, %[[X:.*]]: tensor<?x2xf32>)
// CHECK: %[[ABSENT:.*]] = onnx.absent
// CHECK: %[[F:.*]] = onnx.node "Constant"() name "call/inner/factor" outputs ["call/inner/factor"] {value_float = 3.000000e+00 : f32}
// CHECK: %[[S:.*]] = onnx.node "Mul"(%[[X]], %[[F]]) name "call/inner/y" outputs ["call/scaled"]
// CHECK: %[[Y:.*]] = onnx.node "Clip"(%[[S]], %[[ABSENT]]) name "call/limit" outputs ["y"]
// CHECK-SAME: onnx.opsets = [#onnx.opset<12 in "">]
// CHECK-SAME: -> tensor<?x2xf32>
// CHECK: onnx.node "If"(%[[A]])
// CHECK: onnx.node "Constant"() name "inside/factor" outputs ["inside/factor"] {value_float = 2.000000e+00 : f32}
// CHECK: %[[INSIDE:.*]] = onnx.node "Mul"(%[[X]], %{{.*}}) name "inside/y" outputs ["inside"]
// CHECK: onnx.return %[[INSIDE]]
// CHECK: return %[[Y]]
// CHECK-NOT: @Scale
// CHECK-NOT: @Limit
module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "local">]} {
  func.func @main(%a: tensor<i1>, %x: tensor<?x2xf32>) -> (tensor<?x2xf32>, !onnx.unknown) attributes {onnx.graph = #onnx.graph<inputs ["a", "x"] outputs ["y", "z"] value_info []>} {
    %y = onnx.node "Limit" in "local"(%x) name "call" outputs ["y"] {by = 3.0 : f32} : (tensor<?x2xf32>) -> tensor<?x2xf32>
    %z = onnx.node "If"(%a) outputs ["z"] {else_branch = #onnx.graph<inputs [] outputs ["outside"] value_info []>, then_branch = #onnx.graph<inputs [] outputs ["inside"] value_info []>} : (tensor<i1>) -> !onnx.unknown {
      %outside = onnx.node "Neg"(%x) outputs ["outside"] : (tensor<?x2xf32>) -> !onnx.unknown
      onnx.return %outside : !onnx.unknown
    }, {
      %inside = onnx.node "Scale" in "local"(%x) outputs ["inside"] : (tensor<?x2xf32>) -> !onnx.unknown
      onnx.return %inside : !onnx.unknown
    }
    return %y, %z : tensor<?x2xf32>, !onnx.unknown
  }
  func.func @Scale(%x: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "Scale", domain = "local", inputs = ["x"], outputs = ["y"], attributes = [], defaults = [#onnx.attribute<"by" = 2.0 : f32>], opsets = [#onnx.opset<21 in "">], valueInfo = []>} {
    %factor = onnx.node "Constant"() outputs ["factor"] {value_float = #onnx.ref<"by" as FLOAT>} : () -> !onnx.unknown
    %y = onnx.node "Mul"(%x, %factor) outputs ["y"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
  func.func @Limit(%x: !onnx.unknown, %low: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "Limit", domain = "local", inputs = ["x", "low"], outputs = ["y"], attributes = ["by"], defaults = [], opsets = [#onnx.opset<12 in "">, #onnx.opset<1 in "local">], valueInfo = []>} {
    %scaled = onnx.node "Scale" in "local"(%x) name "inner" outputs ["scaled"] {by = #onnx.ref<"by" as FLOAT>} : (!onnx.unknown) -> !onnx.unknown
    %y = onnx.node "Clip"(%scaled, %low) name "limit" outputs ["y"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "local">]} {
  func.func @main(%x: tensor<2xf32>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<inputs ["x"] outputs ["y"] value_info []>} {
    %y = onnx.node "Self" in "local"(%x) name "call" outputs ["y"] : (tensor<2xf32>) -> !onnx.unknown
    return %y : !onnx.unknown
  }
  func.func @Self(%x: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "Self", domain = "local", inputs = ["x"], outputs = ["y"], attributes = [], defaults = [], opsets = [#onnx.opset<1 in "local">], valueInfo = []>} {
    // expected-error @+1 {{node 'call/again': the local function 'Self' calls itself}}
    %y = onnx.node "Self" in "local"(%x) name "again" outputs ["y"] : (!onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "local">]} {
  func.func @main(%x: tensor<2xf32>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<inputs ["x"] outputs ["y"] value_info []>} {
    // expected-error @+1 {{node 'call': the call of the local function 'One' has more inputs than the function}}
    %y = onnx.node "One" in "local"(%x, %x) name "call" outputs ["y"] : (tensor<2xf32>, tensor<2xf32>) -> !onnx.unknown
    return %y : !onnx.unknown
  }
  func.func @One(%x: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "One", domain = "local", inputs = ["x"], outputs = ["y"], attributes = [], defaults = [], opsets = [#onnx.opset<21 in "">], valueInfo = []>} {
    %y = onnx.node "Neg"(%x) outputs ["y"] : (!onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// Only functions that multiply become part of the graph, and what they call where it
// multiplies too. Names stay unique, in the graphs inside nodes too, and a result that
// is an input, or another result, gets a name by an Identity.
// CHOSEN-LABEL: func.func @main
// CHOSEN-SAME: (%[[A:.*]]: tensor<i1>, %[[X:.*]]: tensor<2x2xf32>)
// CHOSEN: %[[S:.*]] = onnx.node "Scale" in "local"(%[[X]]) name "call/s" outputs ["call/s"]
// CHOSEN: %[[Y:.*]] = onnx.node "If"(%[[A]]) name "call/y" outputs ["y"]
// CHOSEN-SAME: outputs ["call/e"]
// CHOSEN-SAME: outputs ["call/t"]
// CHOSEN: onnx.node "Neg"(%[[S]]) name "call/e" outputs ["call/e"]
// CHOSEN: onnx.node "MatMul"(%[[S]], %[[S]]) name "call/t" outputs ["call/t"]
// CHOSEN: %[[B:.*]] = onnx.node "Identity"(%[[X]]) {{.*}} outputs ["b"]
// CHOSEN: %[[C:.*]] = onnx.node "Identity"(%[[Y]]) {{.*}} outputs ["c"]
// CHOSEN: %[[OLD:.*]] = onnx.node "Old" in "local"
// CHOSEN: return %[[Y]], %[[B]], %[[C]], %[[OLD]]
// CHOSEN-NOT: name = "Product"
// CHOSEN-DAG: name = "Scale"
// CHOSEN-DAG: name = "Old"
