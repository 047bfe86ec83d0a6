// RUN: nibble-opt %s --convert-onnx-to-linalg --split-input-file --verify-diagnostics

// All of them in one error.
module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {
  %x = onnx.node "Relu"(%a) outputs ["x"] : (tensor<2xf32>) -> tensor<2xf32>
  // expected-error @+1 {{no conversion to plain IR for Frobnicate ('first'), com.microsoft.Attend ('second')}}
  %y = onnx.node "Frobnicate"(%x) name "first" outputs ["y"] : (tensor<2xf32>) -> tensor<2xf32>
  %z = onnx.node "Attend" in "com.microsoft"(%y) name "second" outputs ["z"] : (tensor<2xf32>) -> tensor<2xf32>
  return %z : tensor<2xf32>
}
}

// -----

// An op in a version from before its conversion.
module attributes {onnx.opsets = [#onnx.opset<6 in "">]} {
func.func @main(%a: tensor<2xf32>) -> tensor<2xf32> {
  // expected-error @+1 {{no conversion to plain IR for Add ('y')}}
  %y = onnx.node "Add"(%a, %a) outputs ["y"] : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%a: tensor<*xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert Relu 'y': input 0 is not known to be a tensor of numbers with a rank (run --onnx-infer-shapes)}}
  %y = onnx.node "Relu"(%a) outputs ["y"] : (tensor<*xf32>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%a: tensor<2x3xf32>, %axes: tensor<?xi64>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert ReduceSum 'sum': the axes are no constant, and the rank of the result is not known}}
  %y = onnx.node "ReduceSum"(%a, %axes) name "sum" outputs ["y"] {keepdims = 0 : i64} : (tensor<2x3xf32>, tensor<?xi64>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%a: tensor<2x3xf32>) -> tensor<2x3xf32> {
  // expected-error @+1 {{cannot convert Softmax 'y': axis is out of range}}
  %y = onnx.node "Softmax"(%a) outputs ["y"] {axis = 2 : i64} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%a: tensor<2x3xf32>) -> tensor<3x3xf32> {
  // expected-error @+1 {{cannot convert Transpose 'y': result 0 has not the declared shape}}
  %y = onnx.node "Transpose"(%a) outputs ["y"] : (tensor<2x3xf32>) -> tensor<3x3xf32>
  return %y : tensor<3x3xf32>
}
}

// -----

// Before nibble.matmul is made, whose type could not be inferred.
module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%a: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %codes = onnx.constant "codes" : tensor<4x2xi8> = dense<1>
  %scales = onnx.constant "scales" : tensor<1x2xf32> = dense<0.5>
  %w = nibble.assemble %codes scales(%scales) : tensor<4x2xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>
  // expected-error @+1 {{cannot convert MatMul 'y': the columns of the first factor are not the rows of the second}}
  %y = onnx.node "MatMul"(%a, %w) outputs ["y"] : (tensor<2x3xf32>, tensor<4x2xf32, #nibble.quantized<i8, block = [*, 1], scale = f32>>) -> tensor<*xf32>
  return %a : tensor<2x3xf32>
}
}
