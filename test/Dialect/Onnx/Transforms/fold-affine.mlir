// RUN: nibble-opt %s --onnx-fold-affine | FileCheck %s

// CHECK-LABEL: func @behind
// A normalization, a product, a sum and a quotient go into the filter and the bias:
// gain / sqrt(square + epsilon) is 2, and ((2 x + 3 - 2 · 1) · 5 + 7) / 2 is 5 x + 6.
// CHECK-DAG: onnx.constant "w" : tensor<2x1x1x1xf32> = dense<{{.*}}[5.000000e+00]{{.*}}[1.000000e+01]
// CHECK-DAG: onnx.constant "e_bias" : tensor<2xf32> = dense<6.000000e+00>
// CHECK: %[[E:.*]] = onnx.node "Conv"({{.*}}) {{.*}}outputs ["e"]
// CHECK-NEXT: return %[[E]]
func.func @behind(%x: tensor<1x1x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = onnx.constant "w" : tensor<2x1x1x1xf32> = dense<[[[[1.0]]], [[[2.0]]]]>
  %gain = onnx.constant "gain" : tensor<2xf32> = dense<4.0>
  %base = onnx.constant "base" : tensor<2xf32> = dense<3.0>
  %mean = onnx.constant "mean" : tensor<2xf32> = dense<1.0>
  %square = onnx.constant "square" : tensor<2xf32> = dense<3.0>
  %five = onnx.constant "five" : tensor<f32> = dense<5.0>
  %seven = onnx.constant "seven" : tensor<2x1x1xf32> = dense<7.0>
  %two = onnx.constant "two" : tensor<1xf32> = dense<2.0>
  %a = onnx.node "Conv"(%x, %w) outputs ["a"] : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x4x4xf32>
  %b = onnx.node "BatchNormalization"(%a, %gain, %base, %mean, %square) outputs ["b"] {epsilon = 1.0 : f32} : (tensor<1x2x4x4xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x4x4xf32>
  %c = onnx.node "Mul"(%five, %b) outputs ["c"] : (tensor<f32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %d = onnx.node "Add"(%c, %seven) outputs ["d"] : (tensor<1x2x4x4xf32>, tensor<2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %e = onnx.node "Div"(%d, %two) outputs ["e"] : (tensor<1x2x4x4xf32>, tensor<1xf32>) -> tensor<1x2x4x4xf32>
  return %e : tensor<1x2x4x4xf32>
}

// CHECK-LABEL: func @before
// A factor goes through padding, a shift does not.
// CHECK: onnx.constant "padded.w" : tensor<1x1x3x3xf32> = dense<2.000000e+00>
// CHECK: %[[P:.*]] = onnx.node "Conv"(%{{[^,]*}}, %padded.w{{.*}} outputs ["p"]
// CHECK: onnx.node "Add"(%[[P]]
// CHECK: onnx.node "Conv"{{.*}} outputs ["q"]
func.func @before(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %w = onnx.constant "padded.w" : tensor<1x1x3x3xf32> = dense<1.0>
  %v = onnx.constant "v" : tensor<1x1x3x3xf32> = dense<1.0>
  %two = onnx.constant "two" : tensor<f32> = dense<2.0>
  %a = onnx.node "Mul"(%x, %two) outputs ["a"] : (tensor<1x1x4x4xf32>, tensor<f32>) -> tensor<1x1x4x4xf32>
  %p = onnx.node "Conv"(%a, %w) outputs ["p"] {pads = array<i64: 1, 1, 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x1x3x3xf32>) -> tensor<1x1x4x4xf32>
  %r = onnx.node "Relu"(%p) outputs ["r"] : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  %s = onnx.node "Add"(%p, %r) outputs ["s"] : (tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  %b = onnx.node "Add"(%s, %two) outputs ["b"] : (tensor<1x1x4x4xf32>, tensor<f32>) -> tensor<1x1x4x4xf32>
  %q = onnx.node "Conv"(%b, %v) outputs ["q"] {pads = array<i64: 1, 1, 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x1x3x3xf32>) -> tensor<1x1x4x4xf32>
  return %q : tensor<1x1x4x4xf32>
}

// CHECK-LABEL: func @hard_swish
// CHECK-SAME: (%[[X:.*]]: tensor<1x2x4x4xf32>)
// CHECK: %[[U:.*]] = onnx.node "HardSigmoid"(%[[X]]) {{.*}}{alpha = 0.166666672 : f32, beta = 5.000000e-01 : f32}
// CHECK: %[[P:.*]] = onnx.node "Mul"(%[[U]], %[[X]])
// CHECK-NEXT: %[[Y:.*]] = onnx.node "Relu"(%[[P]]) {{.*}}outputs ["y"]
// CHECK-NEXT: return %[[Y]]
func.func @hard_swish(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %three = onnx.constant "three" : tensor<f32> = dense<3.0>
  %zero = onnx.constant "zero" : tensor<f32> = dense<0.0>
  %six = onnx.constant "six" : tensor<f32> = dense<6.0>
  %a = onnx.node "Add"(%x, %three) outputs ["a"] : (tensor<1x2x4x4xf32>, tensor<f32>) -> tensor<1x2x4x4xf32>
  %b = onnx.node "Clip"(%a, %zero, %six) outputs ["b"] : (tensor<1x2x4x4xf32>, tensor<f32>, tensor<f32>) -> tensor<1x2x4x4xf32>
  %c = onnx.node "Mul"(%b, %x) outputs ["c"] : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %d = onnx.node "Div"(%c, %six) outputs ["d"] : (tensor<1x2x4x4xf32>, tensor<f32>) -> tensor<1x2x4x4xf32>
  %y = onnx.node "Relu"(%d) outputs ["y"] : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// CHECK-LABEL: func @shared
// What others read stays: a filter of two nodes, a value with two readers.
// CHECK: onnx.node "Mul"
// CHECK: onnx.node "Mul"
func.func @shared(%x: tensor<1x1x4x4xf32>) -> (tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>) {
  %w = onnx.constant "w" : tensor<1x1x1x1xf32> = dense<1.0>
  %v = onnx.constant "v" : tensor<1x1x1x1xf32> = dense<1.0>
  %two = onnx.constant "two" : tensor<f32> = dense<2.0>
  %a = onnx.node "Conv"(%x, %w) outputs ["a"] : (tensor<1x1x4x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x4x4xf32>
  %b = onnx.node "Mul"(%a, %two) outputs ["b"] : (tensor<1x1x4x4xf32>, tensor<f32>) -> tensor<1x1x4x4xf32>
  %c = onnx.node "Conv"(%b, %w) outputs ["c"] : (tensor<1x1x4x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x4x4xf32>
  %d = onnx.node "Conv"(%x, %v) outputs ["d"] : (tensor<1x1x4x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x4x4xf32>
  %e = onnx.node "Mul"(%d, %two) outputs ["e"] : (tensor<1x1x4x4xf32>, tensor<f32>) -> tensor<1x1x4x4xf32>
  return %c, %d, %e : tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>
}
