// RUN: nibble-opt %s | nibble-opt | FileCheck %s
// RUN: nibble-opt %s --mlir-print-op-generic | nibble-opt | FileCheck %s
// RUN: nibble-opt %s --emit-bytecode | nibble-opt | FileCheck %s

// CHECK: module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21>, #onnx.opset<1 in "com.microsoft">]}
module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21>, #onnx.opset<1 in "com.microsoft">]} {

// CHECK-LABEL: func @main
// CHECK-SAME: (%{{.*}}: tensor<?x?x64xf32, #onnx.dims<"batch", ?>>)
// CHECK-SAME: onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info [#onnx.value_info<"z", "\0A\01z">] extras {doc_string = "a graph"}>
func.func @main(%x: tensor<?x?x64xf32, #onnx.dims<"batch", ?>>) -> tensor<?x?x10xf32>
    attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"]
                value_info [#onnx.value_info<"z", "\0A\01z">] extras {doc_string = "a graph"}>} {
  // CHECK: %[[ABSENT:.*]] = onnx.absent
  %absent = onnx.absent
  // CHECK: onnx.constant "w" : tensor<64x10xf32> = dense<1.000000e+00>
  %w = onnx.constant "w" : tensor<64x10xf32> = dense<1.0>
  // CHECK: onnx.constant "shape" : tensor<2xi64> = dense<[0, -1]> in int64_data extras {doc_string = "d"}
  %shape = onnx.constant "shape" : tensor<2xi64> = dense<[0, -1]> in int64_data extras {doc_string = "d"}
  // CHECK: onnx.constant "words" : tensor<2x!onnx.string> = #onnx.strings<["a", "b\00c"]> in string_data
  %words = onnx.constant "words" : tensor<2x!onnx.string> = #onnx.strings<["a", "b\00c"]> in string_data
  // CHECK: onnx.constant "odd" : tensor<1xf32> = #onnx.wire<"\08\01">
  %odd = onnx.constant "odd" : tensor<1xf32> = #onnx.wire<"\08\01">
  // CHECK: onnx.constant "sparse" : tensor<3xf32> = #onnx.sparse<#onnx.tensor<dense<1.000000e+00> : tensor<1xf32> extras {name = "sparse"}>, #onnx.tensor<dense<2> : tensor<1xi64>>, [3]>
  %sparse = onnx.constant "sparse" : tensor<3xf32> = #onnx.sparse<#onnx.tensor<dense<1.0> : tensor<1xf32> extras {name = "sparse"}>, #onnx.tensor<dense<2> : tensor<1xi64>>, [3]>
  // CHECK: onnx.node "Gemm"(%{{.*}}, %{{.*}}, %[[ABSENT]]) name "fc" outputs ["y"] {alpha = 5.000000e-01 : f32, transB = 0 : i64, axes = array<i64: 0, 1>, "odd name" = "s"}
  %y = onnx.node "Gemm"(%x, %w, %absent) name "fc" outputs ["y"]
      {alpha = 0.5 : f32, transB = 0 : i64, axes = array<i64: 0, 1>, "odd name" = "s"}
      : (tensor<?x?x64xf32, #onnx.dims<"batch", ?>>, tensor<64x10xf32>, none) -> tensor<?x?x10xf32>
  // CHECK: onnx.node "Foo" in "my.domain" overload "v2"() outputs ["", "s"] {t = #onnx.tensor<dense<7> : tensor<i32> in int32_data>, r = #onnx.ref<"alpha" as FLOAT>, l = ["a", "b"]} extras {metadata = {{\[\[}}"k", "v"]]}
  // CHECK-SAME: () -> (!onnx.unknown, !onnx.sequence<tensor<*xf32>>)
  %none, %s = onnx.node "Foo" in "my.domain" overload "v2"() outputs ["", "s"]
      {t = #onnx.tensor<dense<7> : tensor<i32> in int32_data>, r = #onnx.ref<"alpha" as FLOAT>, l = ["a", "b"]}
      extras {metadata = [["k", "v"]]} : () -> (!onnx.unknown, !onnx.sequence<tensor<*xf32>>)
  // CHECK: onnx.node "If"
  // CHECK-SAME: then_branch = #onnx.graph<inputs [] outputs ["t"] value_info []>
  // CHECK: onnx.node "Identity"
  // CHECK: onnx.return
  %c = onnx.constant "c" : tensor<i1> = dense<true>
  %i = onnx.node "If"(%c) outputs ["i"] {then_branch = #onnx.graph<inputs [] outputs ["t"] value_info []>}
      : (tensor<i1>) -> !onnx.optional<!onnx.map<i64, tensor<f32>>> {
    %t = onnx.node "Identity"(%w) outputs ["t"] : (tensor<64x10xf32>) -> tensor<64x10xf32>
    onnx.return %t : tensor<64x10xf32>
  }
  return %y : tensor<?x?x10xf32>
}
}
