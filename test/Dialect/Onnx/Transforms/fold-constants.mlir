// RUN: nibble-opt %s --onnx-fold-constants --split-input-file | FileCheck %s
// RUN: nibble-opt %s --onnx-fold-constants=max-elements=2 --split-input-file | FileCheck %s --check-prefix=LIMIT

// One fixed dimension of a shape folds although the others are dynamic, and the nodes
// before it go; a graph's output keeps its name.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  // CHECK-SAME: value_info ["kept"]
  // CHECK-NOT: onnx.node "Shape"
  // CHECK-NOT: "index"
  func.func @main(%x: tensor<?x576xf32>) -> (tensor<?x?x64xf32>, !onnx.unknown) attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y", "sizes"] value_info ["shape", "kept"]>} {
    %index = onnx.constant "index" : tensor<1xi64> = dense<1>
    %size = onnx.constant "size" : tensor<1xi64> = dense<64>
    %minus = onnx.constant "minus" : tensor<1xi64> = dense<-1>
    // CHECK: onnx.constant "unused"
    %unused = onnx.constant "unused" : tensor<1xi64> = dense<-1>
    %shape = onnx.node "Shape"(%x) outputs ["shape"] : (tensor<?x576xf32>) -> tensor<2xi64>
    %hidden = onnx.node "Gather"(%shape, %index) outputs ["hidden"] : (tensor<2xi64>, tensor<1xi64>) -> tensor<1xi64>
    %heads = onnx.node "Div"(%hidden, %size) outputs ["heads"] : (tensor<1xi64>, tensor<1xi64>) -> tensor<1xi64>
    // CHECK: %[[SIZES:.*]] = onnx.constant "sizes" : tensor<3xi64> = dense<[-1, 9, 64]>
    %sizes = onnx.node "Concat"(%minus, %heads, %size) outputs ["sizes"] {axis = 0 : i64} : (tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    %kept = onnx.node "Relu"(%x) outputs ["kept"] : (tensor<?x576xf32>) -> tensor<?x576xf32>
    // CHECK: onnx.node "Reshape"(%{{.*}}, %[[SIZES]])
    %y = onnx.node "Reshape"(%kept, %sizes) outputs ["y"] : (tensor<?x576xf32>, !onnx.unknown) -> tensor<?x?x64xf32>
    // CHECK: return %{{.*}}, %[[SIZES]] : tensor<?x?x64xf32>, tensor<3xi64>
    return %y, %sizes : tensor<?x?x64xf32>, !onnx.unknown
  }
}

// -----

// Constant nodes become constants at any size; other nodes up to the limit.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  // LIMIT-LABEL: func.func @main
  func.func @main(%x: tensor<?xf32>) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown) attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["a", "b", "c", "d", "e"] value_info []>} {
    // CHECK: onnx.constant "a" : tensor<3xi32> = dense<[7, -7, 2147483647]> in int32_data extras {doc_string = "d"}
    // LIMIT: onnx.constant "a"
    %a = onnx.node "Constant"() outputs ["a"] {value = #onnx.tensor<dense<[7, -7, 2147483647]> : tensor<3xi32> in int32_data extras {name = "value", doc_string = "d"}>} : () -> !onnx.unknown
    %two = onnx.node "Constant"() outputs ["two"] {value = #onnx.tensor<dense<2> : tensor<i32>>} : () -> !onnx.unknown
    // Division truncates, overflow wraps, Mod has the sign of the divisor.
    // CHECK: onnx.constant "b" : tensor<3xi32> = dense<[3, -3, 1073741823]>
    // LIMIT: onnx.node "Div"
    %b = onnx.node "Div"(%a, %two) outputs ["b"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    // CHECK: onnx.constant "c" : tensor<3xi32> = dense<[14, -14, -2]>
    %c = onnx.node "Mul"(%a, %two) outputs ["c"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    // CHECK: onnx.constant "d" : tensor<3xi32> = dense<1>
    %d = onnx.node "Mod"(%a, %two) outputs ["d"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    // CHECK: onnx.constant "e" : tensor<2xf32> = dense<[5.000000e-01, 2.500000e-01]>
    %e = onnx.node "Constant"() outputs ["e"] {value_floats = array<f32: 0.5, 0.25>} : () -> !onnx.unknown
    return %a, %b, %c, %d, %e : !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown
  }
}

// -----

// What is not folded: functions that runtimes round differently, NaN, a constant that a
// caller may override, and one with a result that nobody knows.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main() -> (!onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown) attributes {onnx.graph = #onnx.graph<name "g" inputs ["given"] outputs ["a", "b", "c", "d"] value_info []>} {
    %f = onnx.constant "f" : tensor<2xf32> = dense<[1.0, 0x7F800000]>
    // CHECK: onnx.constant "given"
    %given = onnx.constant "given" : tensor<1xi64> = dense<3>
    // CHECK: onnx.node "Exp"
    %a = onnx.node "Exp"(%f) outputs ["a"] : (tensor<2xf32>) -> !onnx.unknown
    // CHECK: onnx.node "Sub"
    %b = onnx.node "Sub"(%f, %f) outputs ["b"] : (tensor<2xf32>, tensor<2xf32>) -> !onnx.unknown
    // CHECK: onnx.node "Add"
    %c = onnx.node "Add"(%given, %given) outputs ["c"] : (tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    // CHECK: onnx.node "Cast"
    %d = onnx.node "Cast"(%f) outputs ["d"] {to = 6 : i64} : (tensor<2xf32>) -> !onnx.unknown
    return %a, %b, %c, %d : !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown
  }
}

// -----

// In an old model an initializer would also have to be an input.

module attributes {onnx.ir_version = 3 : i64, onnx.opsets = [#onnx.opset<7 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main() -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs [] outputs ["a"] value_info []>} {
    // CHECK: onnx.node "Constant"
    %a = onnx.node "Constant"() outputs ["a"] {value = #onnx.tensor<dense<2> : tensor<i64>>} : () -> !onnx.unknown
    return %a : !onnx.unknown
  }
}

// -----

// Subgraphs fold too, with the constants around them.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // CHECK-LABEL: func.func @main
  func.func @main(%c: tensor<i1>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["c"] outputs ["a"] value_info []>} {
    // CHECK-NOT: onnx.constant "k"
    %k = onnx.constant "k" : tensor<1xi64> = dense<3>
    %a = onnx.node "If"(%c) outputs ["a"] {then_branch = #onnx.graph<name "t" inputs [] outputs ["t"] value_info []>, else_branch = #onnx.graph<name "e" inputs [] outputs ["e"] value_info []>} : (tensor<i1>) -> !onnx.unknown {
      // CHECK: onnx.constant "t" : tensor<1xi64> = dense<6>
      %t = onnx.node "Add"(%k, %k) outputs ["t"] : (tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
      onnx.return %t : !onnx.unknown
    }, {
      // CHECK: onnx.constant "e" : tensor<1xi64> = dense<9>
      %e = onnx.node "Mul"(%k, %k) outputs ["e"] : (tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
      onnx.return %e : !onnx.unknown
    }
    return %a : !onnx.unknown
  }
}

// -----

// Beyond the limit a node folds where its result takes the place of a constant, but a
// Transpose stays; an Identity of a constant is the constant.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  // LIMIT-LABEL: func.func @weights
  func.func @weights(%x: tensor<?x2xf32>) -> (tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xf32>) attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["a", "b", "c", "d"] value_info []>} {
    %shared = onnx.constant "shared" : tensor<2x2xf32> = dense<[[1.0, 2.0], [3.0, 4.0]]>
    %flat = onnx.constant "flat" : tensor<4xf32> = dense<[5.0, 6.0, 7.0, 8.0]>
    %shape = onnx.constant "shape" : tensor<2xi64> = dense<2>
    %turned = onnx.constant "turned" : tensor<2x2xf32> = dense<1.0>
    // LIMIT: %[[SHARED:.*]] = onnx.constant "shared"
    // LIMIT: %[[TURNED:.*]] = onnx.constant "turned"
    // LIMIT-NOT: "Identity"
    %again = onnx.node "Identity"(%shared) outputs ["again"] : (tensor<2x2xf32>) -> tensor<2x2xf32>
    // LIMIT: %[[MATRIX:.*]] = onnx.constant "matrix" : tensor<2x2xf32> = dense{{.*}}
    %matrix = onnx.node "Reshape"(%flat, %shape) outputs ["matrix"] : (tensor<4xf32>, tensor<2xi64>) -> tensor<2x2xf32>
    // LIMIT: %[[T:.*]] = onnx.node "Transpose"(%[[TURNED]])
    %t = onnx.node "Transpose"(%turned) outputs ["t"] : (tensor<2x2xf32>) -> tensor<2x2xf32>
    // LIMIT: onnx.node "MatMul"(%{{.*}}, %[[SHARED]]) outputs ["a"]
    %a = onnx.node "MatMul"(%x, %shared) outputs ["a"] : (tensor<?x2xf32>, tensor<2x2xf32>) -> tensor<?x2xf32>
    // LIMIT: onnx.node "MatMul"(%{{.*}}, %[[SHARED]]) outputs ["b"]
    %b = onnx.node "MatMul"(%x, %again) outputs ["b"] : (tensor<?x2xf32>, tensor<2x2xf32>) -> tensor<?x2xf32>
    // LIMIT: onnx.node "MatMul"(%{{.*}}, %[[MATRIX]]) outputs ["c"]
    %c = onnx.node "MatMul"(%x, %matrix) outputs ["c"] : (tensor<?x2xf32>, tensor<2x2xf32>) -> tensor<?x2xf32>
    // LIMIT: onnx.node "MatMul"(%{{.*}}, %[[T]]) outputs ["d"]
    %d = onnx.node "MatMul"(%x, %t) outputs ["d"] : (tensor<?x2xf32>, tensor<2x2xf32>) -> tensor<?x2xf32>
    return %a, %b, %c, %d : tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xf32>
  }
}
