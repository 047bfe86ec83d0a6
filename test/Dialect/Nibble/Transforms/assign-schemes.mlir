// RUN: nibble-opt %s --nibble-assign-schemes | FileCheck %s
// RUN: nibble-opt %s --nibble-assign-schemes="scheme=w4g32s rules=*gemm*=keep,op:Gather=w8g16" | FileCheck %s --check-prefix=RULES
// RUN: nibble-opt %s --nibble-assign-schemes="rules=smaller:100000=keep" | FileCheck %s --check-prefix=SMALL
// RUN: nibble-opt %s --nibble-assign-schemes="rules=smaller:2049=keep,larger:4095=w8c" | FileCheck %s --check-prefix=SIZE
// RUN: not nibble-opt %s --nibble-assign-schemes="rules=larger:many=w8c" 2>&1 | FileCheck %s --check-prefix=NUMBER
// RUN: not nibble-opt %s --nibble-assign-schemes="scheme=w9q" 2>&1 | FileCheck %s --check-prefix=SCHEME
// RUN: not nibble-opt %s --nibble-assign-schemes="rules=w8c" 2>&1 | FileCheck %s --check-prefix=RULE
// RUN: not nibble-opt %s --nibble-assign-schemes="rules=[a=w8c" 2>&1 | FileCheck %s --check-prefix=GLOB
// RUN: nibble-opt %s --nibble-assign-schemes | FileCheck %s --check-prefix=INPUTS

// SCHEME: error: {{.*}}w9q
// RULE: error: 'w8c' is no rule; write PATTERN=SCHEME
// GLOB: error: '[a' is no glob
// NUMBER: error: 'larger:many=w8c' is no rule: behind larger: and smaller: stands a number of elements

// 2048 elements are fewer than 2049; the table has 4096, more than 4095.
// SIZE: onnx.constant "matmul.w"
// SIZE-NOT: nibble.encoding
// SIZE: onnx.constant "table"
// SIZE-SAME: nibble.encoding = #nibble.quantized<u8, block = [1, *], scale = f32, zero = u8>
// SIZE: onnx.node "MatMul"({{.*}} name "matmul"
// SIZE-SAME: nibble.kept = "weight 'matmul.w' is kept by a rule"

// CHECK-LABEL: func @main
func.func @main(%x: tensor<2x256xf32>, %i: tensor<3xi64>) {
  // MatMul's groups run along the first dimension, those of Gemm with transB along the last.
  // CHECK: onnx.constant "matmul.w"
  // CHECK-SAME: nibble.encoding = #nibble.quantized<u4, block = [128, 1], scale = f32, zero = u4>
  // RULES: onnx.constant "matmul.w"
  // RULES-SAME: nibble.encoding = #nibble.quantized<i4, block = [32, 1], scale = f32>
  // SMALL-NOT: nibble.encoding
  %w = onnx.constant "matmul.w" : tensor<256x8xf32> = dense<1.0>
  // CHECK: onnx.constant "gemm.w"
  // CHECK-SAME: block = [1, 128]
  // RULES: onnx.constant "gemm.w"
  // RULES-NOT: nibble.encoding
  %g = onnx.constant "gemm.w" : tensor<8x256xf32> = dense<1.0>
  // A table, and the head that shares it, wait for a rule.
  // CHECK: onnx.constant "table"
  // CHECK-NOT: nibble.encoding
  // RULES: onnx.constant "table"
  // RULES-SAME: nibble.encoding = #nibble.quantized<u8, block = [1, 16], scale = f32, zero = u8>
  %t = onnx.constant "table" : tensor<16x256xf32> = dense<1.0>
  // CHECK: onnx.constant "both"
  %b = onnx.constant "both" : tensor<256x256xf32> = dense<1.0>
  // CHECK: onnx.constant "half"
  // CHECK-SAME: scale = f16
  %h = onnx.constant "half" : tensor<256x8xf16> = dense<1.0>
  %y = onnx.node "MatMul"(%x, %w) name "matmul" outputs ["y"] : (tensor<2x256xf32>, tensor<256x8xf32>) -> tensor<2x8xf32>
  %z = onnx.node "Gemm"(%x, %g) name "gemm" outputs ["z"] {transB = 1 : i64} : (tensor<2x256xf32>, tensor<8x256xf32>) -> tensor<2x8xf32>
  // RULES: onnx.node "Gemm"
  // RULES-SAME: nibble.kept = "weight 'gemm.w' is kept by a rule"
  %e = onnx.node "Gather"(%t, %i) outputs ["e"] : (tensor<16x256xf32>, tensor<3xi64>) -> tensor<3x256xf32>
  // CHECK: onnx.node "Gather"
  // CHECK-SAME: nibble.kept = "weight 'table' is an embedding, which only a rule quantizes"
  %tt = onnx.node "Transpose"(%t) outputs ["tt"] {perm = array<i64: 1, 0>} : (tensor<16x256xf32>) -> tensor<256x16xf32>
  %head = onnx.node "MatMul"(%x, %tt) name "head" outputs ["head"] : (tensor<2x256xf32>, tensor<256x16xf32>) -> tensor<2x16xf32>
  %b1 = onnx.node "MatMul"(%x, %b) name "one way" outputs ["b1"] : (tensor<2x256xf32>, tensor<256x256xf32>) -> tensor<2x256xf32>
  // CHECK: onnx.node "MatMul"{{.*}} name "one way"
  // CHECK-SAME: nibble.kept = "weight 'both' is read along both of its dimensions; one scheme cannot serve both"
  %b2 = onnx.node "Gemm"(%x, %b) name "other way" outputs ["b2"] {transB = 1 : i64} : (tensor<2x256xf32>, tensor<256x256xf32>) -> tensor<2x256xf32>
  // CHECK: onnx.node "MatMul"{{.*}} name "computed"
  // CHECK-SAME: nibble.kept = "its weight is computed"
  %c = onnx.node "MatMul"(%b1, %x) name "computed" outputs ["c"] : (tensor<2x256xf32>, tensor<2x256xf32>) -> tensor<2x2xf32>
  %hh = onnx.node "MatMul"(%x, %h) name "half" outputs ["hh"] : (tensor<2x256xf32>, tensor<256x8xf16>) -> tensor<2x8xf16>
  return
}

// What the model gives away stays as it is.
// CHECK-LABEL: func.func @output
func.func @output(%x: tensor<2x256xf32>) -> (tensor<2x8xf32>, tensor<256x8xf32>) {
  // CHECK: onnx.constant "given"
  // CHECK-NOT: nibble.encoding
  %w = onnx.constant "given" : tensor<256x8xf32> = dense<1.0>
  // CHECK: onnx.node "MatMul"
  // CHECK-SAME: nibble.kept = "weight 'given' is an output of the graph"
  %y = onnx.node "MatMul"(%x, %w) name "product" outputs ["y"] : (tensor<2x256xf32>, tensor<256x8xf32>) -> tensor<2x8xf32>
  return %y, %w : tensor<2x8xf32>, tensor<256x8xf32>
}

// A quantized weight is no input of the graph any more, other constants still are.
// INPUTS: onnx.graph<inputs ["x", "b"] outputs ["y"]
func.func @inputs(%x: tensor<2x256xf32>) -> tensor<2x8xf32> attributes {onnx.graph = #onnx.graph<inputs ["w", "x", "b"] outputs ["y"] value_info []>} {
  %w = onnx.constant "w" : tensor<256x8xf32> = dense<1.0>
  %b = onnx.constant "b" : tensor<8xf32> = dense<1.0>
  %p = onnx.node "MatMul"(%x, %w) outputs ["p"] : (tensor<2x256xf32>, tensor<256x8xf32>) -> tensor<2x8xf32>
  %y = onnx.node "Add"(%p, %b) outputs ["y"] : (tensor<2x8xf32>, tensor<8xf32>) -> tensor<2x8xf32>
  return %y : tensor<2x8xf32>
}
