// RUN: nibble-opt %s --onnx-infer-shapes --split-input-file | FileCheck %s
// RUN: nibble-opt %s --onnx-infer-shapes=record=true --split-input-file | FileCheck %s --check-prefix=RECORD

// Names of dimensions follow elementwise ops, products and reshapes; what the model
// states stays.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  // CHECK-SAME: -> tensor<?x9x?x64xf32, #onnx.dims<"batch", "sequence">>
  // RECORD: value_info ["shape", "0", "1", "2", "3"]
  func.func @main(%x: tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info []>} {
    %w = onnx.constant "w" : tensor<576x576xf32> = dense<1.0>
    %b = onnx.constant "b" : tensor<576xf32> = dense<1.0>
    // CHECK: onnx.node "Constant"{{.*}} -> tensor<4xi64>
    %shape = onnx.node "Constant"() outputs ["shape"] {value_ints = array<i64: 0, -1, 9, 64>} : () -> !onnx.unknown
    // CHECK: onnx.node "MatMul"{{.*}} -> tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>
    %0 = onnx.node "MatMul"(%x, %w) outputs ["0"] : (tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>, tensor<576x576xf32>) -> !onnx.unknown
    // CHECK: onnx.node "Add"{{.*}} -> tensor<?x?x576xf32, #onnx.dims<"batch", "tokens">>
    %1 = onnx.node "Add"(%b, %0) outputs ["1"] : (tensor<576xf32>, !onnx.unknown) -> tensor<?x?x?xf32, #onnx.dims<?, "tokens", ?>>
    // CHECK: onnx.node "Mul"{{.*}} -> tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>
    %2 = onnx.node "Mul"(%0, %x) outputs ["2"] : (!onnx.unknown, tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>) -> tensor<*xf32>
    // CHECK: onnx.node "Reshape"{{.*}} -> tensor<?x?x9x64xf32, #onnx.dims<"batch", "sequence">>
    %3 = onnx.node "Reshape"(%2, %shape) outputs ["3"] : (tensor<*xf32>, !onnx.unknown) -> !onnx.unknown
    %y = onnx.node "Transpose"(%3) outputs ["y"] {perm = array<i64: 0, 2, 1, 3>} : (!onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// -----

// Shape tensors are followed element by element.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main(%x: tensor<?x?xi64, #onnx.dims<"batch", "sequence">>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info []>} {
    %zero = onnx.constant "zero" : tensor<1xi64> = dense<0>
    %one = onnx.constant "one" : tensor<1xi64> = dense<1>
    %start = onnx.constant "start" : tensor<i64> = dense<0>
    %step = onnx.constant "step" : tensor<i64> = dense<1>
    %heads = onnx.constant "heads" : tensor<2xi64> = dense<[9, 64]>
    %table = onnx.constant "table" : tensor<8192x576xf32> = dense<1.0>
    // CHECK: "Shape"{{.*}} -> tensor<2xi64>
    %0 = onnx.node "Shape"(%x) outputs ["0"] : (tensor<?x?xi64, #onnx.dims<"batch", "sequence">>) -> !onnx.unknown
    // CHECK: "Gather"{{.*}} -> tensor<1xi64>
    %1 = onnx.node "Gather"(%0, %one) outputs ["1"] : (!onnx.unknown, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "Slice"{{.*}} -> tensor<?x576xf32, #onnx.dims<"sequence">>
    %2 = onnx.node "Slice"(%table, %zero, %1) outputs ["2"] : (tensor<8192x576xf32>, tensor<1xi64>, !onnx.unknown) -> !onnx.unknown
    %3 = onnx.node "Concat"(%1, %heads) outputs ["3"] {axis = 0 : i64} : (!onnx.unknown, tensor<2xi64>) -> !onnx.unknown
    // CHECK: "Reshape"{{.*}} -> tensor<?x9x64xf32, #onnx.dims<"sequence">>
    %4 = onnx.node "Reshape"(%2, %3) outputs ["4"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    %5 = onnx.node "Squeeze"(%1, %zero) outputs ["5"] : (!onnx.unknown, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "Range"{{.*}} -> tensor<?xi64, #onnx.dims<"sequence">>
    %6 = onnx.node "Range"(%start, %5, %step) outputs ["6"] : (tensor<i64>, !onnx.unknown, tensor<i64>) -> !onnx.unknown
    // CHECK: "ConstantOfShape"{{.*}} -> tensor<?x?xf32, #onnx.dims<"batch", "sequence">>
    %7 = onnx.node "ConstantOfShape"(%0) outputs ["7"] : (!onnx.unknown) -> !onnx.unknown
    // A computed size has no name.
    // CHECK: "Add"{{.*}} -> tensor<1xi64>
    %8 = onnx.node "Add"(%1, %one) outputs ["8"] : (!onnx.unknown, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "ConstantOfShape"{{.*}} -> tensor<?xf32>
    %y = onnx.node "ConstantOfShape"(%8) outputs ["y"] : (!onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// -----

// Rules depend on the opset: axes are an attribute or an input.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<9 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main(%x: tensor<4x1x6xf32>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info []>} {
    // CHECK: "Slice"{{.*}} -> tensor<4x1x2xf32>
    %0 = onnx.node "Slice"(%x) outputs ["0"] {axes = array<i64: 2>, ends = array<i64: -1>, starts = array<i64: 3>} : (tensor<4x1x6xf32>) -> !onnx.unknown
    // CHECK: "Squeeze"{{.*}} -> tensor<4x2xf32>
    %1 = onnx.node "Squeeze"(%0) outputs ["1"] {axes = array<i64: 1>} : (!onnx.unknown) -> !onnx.unknown
    // CHECK: "ReduceSum"{{.*}} -> tensor<2xf32>
    %y = onnx.node "ReduceSum"(%1) outputs ["y"] {axes = array<i64: 0>, keepdims = 0 : i64} : (!onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// -----

// Packed and quantized products, and ONNX Runtime's fused ops.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "com.microsoft">]} {
  // CHECK-LABEL: func.func @main
  func.func @main(%x: tensor<?x7x576xf32, #onnx.dims<"n">>, %w: tensor<1536x18x16xui8>, %s: tensor<27648xf32>, %q: tensor<576x32xi8>, %ids: tensor<?x7xi64, #onnx.dims<"n">>, %rows: tensor<100x64xui8>, %scales: tensor<100x4xf16>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["x", "w", "s", "q", "ids", "rows", "scales"] outputs ["y"] value_info []>} {
    // CHECK: "MatMulNBits"{{.*}} -> tensor<?x7x1536xf32, #onnx.dims<"n">>
    %0 = onnx.node "MatMulNBits" in "com.microsoft"(%x, %w, %s) outputs ["0"] {K = 576 : i64, N = 1536 : i64, bits = 4 : i64, block_size = 32 : i64} : (tensor<?x7x576xf32, #onnx.dims<"n">>, tensor<1536x18x16xui8>, tensor<27648xf32>) -> !onnx.unknown
    // CHECK: "DynamicQuantizeLinear"{{.*}} -> (tensor<?x7x576xui8, #onnx.dims<"n">>, tensor<f32>, tensor<ui8>)
    %1:3 = onnx.node "DynamicQuantizeLinear"(%x) outputs ["1", "2", "3"] : (tensor<?x7x576xf32, #onnx.dims<"n">>) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown)
    // CHECK: "MatMulInteger"{{.*}} -> tensor<?x7x32xi32, #onnx.dims<"n">>
    %4 = onnx.node "MatMulInteger"(%1#0, %q, %1#2) outputs ["4"] : (!onnx.unknown, tensor<576x32xi8>, !onnx.unknown) -> !onnx.unknown
    // CHECK: "GatherBlockQuantized"{{.*}} -> tensor<?x7x128xf16, #onnx.dims<"n">>
    %5 = onnx.node "GatherBlockQuantized" in "com.microsoft"(%rows, %ids, %scales) outputs ["5"] {block_size = 32 : i64, quantize_axis = 1 : i64} : (tensor<100x64xui8>, tensor<?x7xi64, #onnx.dims<"n">>, tensor<100x4xf16>) -> !onnx.unknown
    // CHECK: "GroupQueryAttention"{{.*}} -> (tensor<?x7x576xf32, #onnx.dims<"n">>, tensor<?x3x?x64xf32, #onnx.dims<"n", ?>>, tensor<?x3x?x64xf32, #onnx.dims<"n", ?>>)
    %none = onnx.absent
    %6 = onnx.node "MatMulNBits" in "com.microsoft"(%x, %w, %s) outputs ["6"] {K = 576 : i64, N = 960 : i64} : (tensor<?x7x576xf32, #onnx.dims<"n">>, tensor<1536x18x16xui8>, tensor<27648xf32>) -> !onnx.unknown
    %7:3 = onnx.node "GroupQueryAttention" in "com.microsoft"(%6, %none, %none) outputs ["7", "8", "9"] {kv_num_heads = 3 : i64, num_heads = 9 : i64} : (!onnx.unknown, none, none) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown)
    // CHECK: "Conv"{{.*}} -> !onnx.unknown
    %y = onnx.node "Conv" in "some.where"(%x) outputs ["y"] : (tensor<?x7x576xf32, #onnx.dims<"n">>) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}

// -----

// If joins its branches; a value that a Loop carries may change its shape.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main(%c: tensor<i1>, %n: tensor<i64>, %x: tensor<2x?xf32, #onnx.dims<"k">>) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown) attributes {onnx.graph = #onnx.graph<name "g" inputs ["c", "n", "x"] outputs ["a", "b", "d"] value_info []>} {
    // CHECK: "If"{{.*}} -> tensor<?x?xf32, #onnx.dims<?, "k">>
    %a = onnx.node "If"(%c) outputs ["a"] {then_branch = #onnx.graph<name "t" inputs [] outputs ["t"] value_info []>, else_branch = #onnx.graph<name "e" inputs [] outputs ["e"] value_info []>} : (tensor<i1>) -> !onnx.unknown {
      %t = onnx.node "Relu"(%x) outputs ["t"] : (tensor<2x?xf32, #onnx.dims<"k">>) -> !onnx.unknown
      onnx.return %t : !onnx.unknown
    }, {
      // CHECK: "Concat"{{.*}} -> tensor<4x?xf32, #onnx.dims<"k">>
      %e = onnx.node "Concat"(%x, %x) outputs ["e"] {axis = 0 : i64} : (tensor<2x?xf32, #onnx.dims<"k">>, tensor<2x?xf32, #onnx.dims<"k">>) -> !onnx.unknown
      onnx.return %e : !onnx.unknown
    }
    // CHECK: "Loop"{{.*}} -> (tensor<?x?xf32, #onnx.dims<?, "k">>, tensor<?x2x?xf32, #onnx.dims<?, "k">>)
    // CHECK: ^bb0(%{{.*}}: tensor<i64>, %{{.*}}: tensor<i1>, %{{.*}}: tensor<?x?xf32, #onnx.dims<?, "k">>):
    %b:2 = onnx.node "Loop"(%n, %c, %x) outputs ["b", "d"] {body = #onnx.graph<name "l" inputs ["i", "u", "v"] outputs ["u", "w", "z"] value_info []>} : (tensor<i64>, tensor<i1>, tensor<2x?xf32, #onnx.dims<"k">>) -> (!onnx.unknown, !onnx.unknown) {
    ^bb0(%i: !onnx.unknown, %u: !onnx.unknown, %v: !onnx.unknown):
      %w = onnx.node "Concat"(%v, %x) outputs ["w"] {axis = 0 : i64} : (!onnx.unknown, tensor<2x?xf32, #onnx.dims<"k">>) -> !onnx.unknown
      %z = onnx.node "Neg"(%x) outputs ["z"] : (tensor<2x?xf32, #onnx.dims<"k">>) -> !onnx.unknown
      onnx.return %u, %w, %z : !onnx.unknown, !onnx.unknown, !onnx.unknown
    }
    return %a, %b#0, %b#1 : !onnx.unknown, !onnx.unknown, !onnx.unknown
  }
}

// -----

// An attribute that a local function's caller gives is not known.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @f
  func.func @f(%x: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "f", domain = "d", inputs = ["x"], outputs = ["z"], attributes = ["to"], defaults = [], opsets = [#onnx.opset<21 in "">], valueInfo = []>} {
    // CHECK: "Constant"{{.*}} -> tensor<2xi64>
    %y = onnx.node "Constant"() outputs ["y"] {value_ints = array<i64: 1, 2>} : () -> !onnx.unknown
    // CHECK: "Cast"{{.*}} -> !onnx.unknown
    %z = onnx.node "Cast"(%y) outputs ["z"] {to = #onnx.ref<"to" as INT>} : (!onnx.unknown) -> !onnx.unknown
    return %z : !onnx.unknown
  }
}

// -----

// "?" is what some exporters call every dynamic dimension.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main(%x: tensor<?x?xf32, #onnx.dims<"?", "?">>, %y: tensor<?x?xf32, #onnx.dims<"?", "?">>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["x", "y"] outputs ["z"] value_info []>} {
    // CHECK: "Add"{{.*}} -> tensor<?x?xf32>
    %z = onnx.node "Add"(%x, %y) outputs ["z"] : (tensor<?x?xf32, #onnx.dims<"?", "?">>, tensor<?x?xf32, #onnx.dims<"?", "?">>) -> !onnx.unknown
    return %z : !onnx.unknown
  }
}
