// RUN: echo '{"values": {"x": {"min": [-1, -2, -6, 0], "max": [1, 2, 1, 5], "mean": [0, 0, 0, 0]}}}' > %t.json
// RUN: nibble-opt %s --nibble-split-outliers=ranges=%t.json | FileCheck %s
// RUN: nibble-opt %s --nibble-split-outliers="ranges=%t.json threshold=1.5" | FileCheck %s --check-prefix=MANY

// Input 2 reaches 6 and leaves; 1.1 is 1.0996 in half precision.
// CHECK-LABEL: func @main
// CHECK-DAG: %[[MASK:.*]] = onnx.constant "x_rest_mask" : tensor<4xf32> = dense<[1.000000e+00, 1.000000e+00, 0.000000e+00, 1.000000e+00]>
// CHECK-DAG: %[[WHICH:.*]] = onnx.constant "x_outlier_inputs" : tensor<1xi64> = dense<2>
// CHECK-DAG: %[[HALF:.*]] = onnx.constant "w.outliers" : tensor<1x2xf16> = dense<{{\[\[}}1.099610e+00, 6.000000e+00]]>
// CHECK-DAG: %[[W:.*]] = onnx.constant "w" : tensor<4x2xf32> = dense<{{\[\[}}1.000000e+00, 2.000000e+00], [3.000000e+00, 4.000000e+00], [0.000000e+00, 0.000000e+00], [7.000000e+00, 8.000000e+00]]> {nibble.notes = ["LLM.int8(): 1 of 4 inputs are kept apart in f16"]}
// CHECK-DAG: %[[REST:.*]] = onnx.node "Mul"(%[[X:.*]], %[[MASK]]) {{.*}}outputs ["x_rest"]
// CHECK-DAG: %[[SOME:.*]] = onnx.node "Gather"(%[[X]], %[[WHICH]]) {{.*}}outputs ["x_outliers"] {axis = 1 : i64}
// CHECK-DAG: %[[FLOAT:.*]] = onnx.node "Cast"(%[[HALF]])
// CHECK: %[[DENSE:.*]] = onnx.node "MatMul"(%[[REST]], %[[W]]) outputs ["y_rest"]
// CHECK: %[[APART:.*]] = onnx.node "MatMul"(%[[SOME]], %[[FLOAT]])
// CHECK: %[[Y:.*]] = onnx.node "Add"(%[[DENSE]], %[[APART]]) {{.*}}outputs ["y"]
// CHECK: return %[[Y]]
// MANY: LLM.int8(): 3 of 4 inputs are too many to be kept apart as outliers
// MANY-NOT: "Gather"
func.func @main(%n: tensor<?x4xf32>) -> tensor<?x2xf32> {
  %w = onnx.constant "w" : tensor<4x2xf32> = dense<[[1.0, 2.0], [3.0, 4.0], [1.1, 6.0], [7.0, 8.0]]>
  %x = onnx.node "Neg"(%n) outputs ["x"] : (tensor<?x4xf32>) -> tensor<?x4xf32>
  %y = onnx.node "MatMul"(%x, %w) outputs ["y"] : (tensor<?x4xf32>, tensor<4x2xf32>) -> tensor<?x2xf32>
  return %y : tensor<?x2xf32>
}
