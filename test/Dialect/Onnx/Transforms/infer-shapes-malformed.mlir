// RUN: nibble-opt %s --onnx-infer-shapes | FileCheck %s
// RUN: nibble-opt %s --onnx-infer-shapes --onnx-fold-constants | FileCheck %s --check-prefix=FOLD

// Nodes that break ONNX's rules: nothing is known of their results, and nothing
// crashes.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "com.microsoft">]} {
  // CHECK-LABEL: func.func @main
  // FOLD-LABEL: func.func @main
  func.func @main(%x: tensor<2x3xf32>) attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs [] value_info []>} {
    %big = onnx.constant "big" : tensor<2xi64> = dense<9223372036854775807>
    %most = onnx.constant "most" : tensor<1xi64> = dense<9223372036854775807>
    %least = onnx.constant "least" : tensor<1xi64> = dense<-9223372036854775808>
    %zero = onnx.constant "zero" : tensor<1xi64> = dense<0>
    %four = onnx.constant "four" : tensor<1xi64> = dense<4>
    %minus = onnx.constant "minus" : tensor<2xi64> = dense<[3, -2]>
    %none = onnx.absent
    // An attribute of another kind.
    // CHECK: "Concat"{{.*}} -> !onnx.unknown
    %0 = onnx.node "Concat"(%x, %x) outputs ["0"] {axis = "one"} : (tensor<2x3xf32>, tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Transpose"{{.*}} -> !onnx.unknown
    %1 = onnx.node "Transpose"(%x) outputs ["1"] {perm = array<i64: 0, 5>} : (tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Transpose"{{.*}} -> !onnx.unknown
    %2 = onnx.node "Transpose"(%x) outputs ["2"] {perm = array<i64: 0>} : (tensor<2x3xf32>) -> !onnx.unknown
    // No operands.
    // CHECK: "Add"{{.*}} -> !onnx.unknown
    %3 = onnx.node "Add"() outputs ["3"] : () -> !onnx.unknown
    // CHECK: "MatMul"{{.*}} -> tensor<*xf32>
    %4 = onnx.node "MatMul"(%x) outputs ["4"] : (tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Where"{{.*}} -> !onnx.unknown
    %5 = onnx.node "Where"(%none, %none, %none) outputs ["5"] : (none, none, none) -> !onnx.unknown
    // Shapes that do not broadcast.
    // CHECK: "Add"{{.*}} -> !onnx.unknown
    %6 = onnx.node "Add"(%x, %big) outputs ["6"] : (tensor<2x3xf32>, tensor<2xi64>) -> !onnx.unknown
    // Sizes whose product overflows, or that are negative.
    // CHECK: "ConstantOfShape"{{.*}} -> tensor<9223372036854775807x9223372036854775807xf32>
    %7 = onnx.node "ConstantOfShape"(%big) outputs ["7"] : (tensor<2xi64>) -> !onnx.unknown
    // FOLD: "Size"
    %8 = onnx.node "Size"(%7) outputs ["8"] : (!onnx.unknown) -> !onnx.unknown
    // CHECK: "Reshape"{{.*}} -> !onnx.unknown
    %9 = onnx.node "Reshape"(%x, %minus) outputs ["9"] : (tensor<2x3xf32>, tensor<2xi64>) -> !onnx.unknown
    // A step past the end, and the least integer, which stands for "unknown".
    // CHECK: "Slice"{{.*}} -> tensor<1x3xf32>
    %10 = onnx.node "Slice"(%x, %zero, %four, %zero, %most) outputs ["10"] : (tensor<2x3xf32>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "Slice"{{.*}} -> tensor<?x3xf32>
    %11 = onnx.node "Slice"(%x, %four, %least, %zero, %least) outputs ["11"] : (tensor<2x3xf32>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "Slice"{{.*}} -> !onnx.unknown
    %12 = onnx.node "Slice"(%x, %four, %four, %zero, %zero) outputs ["12"] : (tensor<2x3xf32>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "Split"{{.*}} -> (!onnx.unknown, !onnx.unknown)
    %13:2 = onnx.node "Split"(%x, %four) outputs ["13", "14"] : (tensor<2x3xf32>, tensor<1xi64>) -> (!onnx.unknown, !onnx.unknown)
    // Division by zero is left to the runtime.
    // FOLD: "Div"
    %15 = onnx.node "Div"(%least, %zero) outputs ["15"] : (tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    // FOLD: "Mod"
    %16 = onnx.node "Mod"(%least, %zero) outputs ["16"] : (tensor<1xi64>, tensor<1xi64>) -> !onnx.unknown
    // FOLD: "Gather"
    %17 = onnx.node "Gather"(%big, %four) outputs ["17"] : (tensor<2xi64>, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "If"{{.*}} -> !onnx.unknown
    %18 = onnx.node "If"(%x) outputs ["18"] : (tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Conv"{{.*}} -> !onnx.unknown
    %19 = onnx.node "Conv"(%x, %x) outputs ["19"] {strides = array<i64: 0>} : (tensor<2x3xf32>, tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Cast"{{.*}} -> !onnx.unknown
    %20 = onnx.node "Cast"(%x) outputs ["20"] {to = 99 : i64} : (tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "GatherBlockQuantized"{{.*}} -> !onnx.unknown
    %21 = onnx.node "GatherBlockQuantized" in "com.microsoft"(%x, %zero, %x) outputs ["21"] {bits = 0 : i64} : (tensor<2x3xf32>, tensor<1xi64>, tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Einsum"{{.*}} -> !onnx.unknown
    %22 = onnx.node "Einsum"(%x) outputs ["22"] {equation = "ij->k"} : (tensor<2x3xf32>) -> !onnx.unknown
    // CHECK: "Range"{{.*}} -> tensor<?xi64>
    %23 = onnx.node "Range"(%least, %big, %zero) outputs ["23"] : (tensor<1xi64>, tensor<2xi64>, tensor<1xi64>) -> !onnx.unknown
    // CHECK: "Attention"{{.*}} -> tensor<*xf32>
    %24 = onnx.node "Attention"(%x, %x, %x) outputs ["24"] : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) -> !onnx.unknown
    // Sizes that go past the data; a permutation counted from the back.
    // FOLD: "Split"
    %25:2 = onnx.node "Split"(%minus, %big) outputs ["25", "26"] : (tensor<2xi64>, tensor<2xi64>) -> (!onnx.unknown, !onnx.unknown)
    // FOLD: "Transpose"
    %27 = onnx.node "Transpose"(%minus) outputs ["27"] {perm = array<i64: -1>} : (tensor<2xi64>) -> !onnx.unknown
    // Lists of different lengths.
    // FOLD: "Slice"
    %28 = onnx.node "Slice"(%minus, %big, %big, %zero) outputs ["28"] : (tensor<2xi64>, tensor<2xi64>, tensor<2xi64>, tensor<1xi64>) -> !onnx.unknown
    return
  }
}
