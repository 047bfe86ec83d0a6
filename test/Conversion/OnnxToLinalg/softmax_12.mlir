// RUN: nibble-opt %s --convert-onnx-to-linalg | FileCheck %s

// Until version 12 Softmax is over all dimensions from its axis on.
// CHECK-LABEL: func.func @main(
// CHECK: iterator_types = ["parallel", "reduction", "reduction"]
module attributes {onnx.opsets = [#onnx.opset<12 in "">]} {
func.func @main(%x: tensor<2x5x3xf32>) -> tensor<2x5x3xf32> {
  %y = onnx.node "Softmax"(%x) outputs ["y"] : (tensor<2x5x3xf32>) -> tensor<2x5x3xf32>
  return %y : tensor<2x5x3xf32>
}
}
