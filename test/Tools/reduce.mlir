// RUN: nibble-reduce %s -reduction-tree='traversal-mode=0 test=%S/Inputs/has_softmax.sh' | FileCheck %s

// What the script does not ask for goes.
// CHECK-NOT: @unrelated
// CHECK-LABEL: func.func @main
// CHECK-NEXT: onnx.node "Softmax"
module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @unrelated(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  return %x : tensor<2x3xf32>
}
func.func @main(%x: tensor<2x3xf32>) {
  %a = onnx.node "Relu"(%x) outputs ["a"] : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %b = onnx.node "Softmax"(%x) outputs ["b"] {axis = 2 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %c = onnx.node "Relu"(%b) outputs ["c"] : (tensor<2x3xf32>) -> tensor<2x3xf32>
  return
}
}
