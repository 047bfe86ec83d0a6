// RUN: nibble-opt %s --convert-onnx-to-linalg --split-input-file --verify-diagnostics

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%x: tensor<1x4x5x5xf32>, %w: tensor<2x3x3x3xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert Conv 'conv': the input's channels are not those of the weight}}
  %y = onnx.node "Conv"(%x, %w) name "conv" outputs ["y"] : (tensor<1x4x5x5xf32>, tensor<2x3x3x3xf32>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%x: tensor<1x2x5xf32>, %w: tensor<2x2x7xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert Conv 'y': the input with its padding is smaller than the window}}
  %y = onnx.node "Conv"(%x, %w) outputs ["y"] : (tensor<1x2x5xf32>, tensor<2x2x7xf32>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%x: tensor<1x2x5xf32>, %w: tensor<2x2x3xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert Conv 'y': expects a kernel size, stride and dilation for each spatial dimension, and two pads}}
  %y = onnx.node "Conv"(%x, %w) outputs ["y"] {strides = array<i64: 1, 1>} : (tensor<1x2x5xf32>, tensor<2x2x3xf32>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%x: tensor<1x2x5xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert MaxPool 'y': strides and dilations must be positive}}
  %y = onnx.node "MaxPool"(%x) outputs ["y"] {kernel_shape = array<i64: 2>, strides = array<i64: 0>} : (tensor<1x2x5xf32>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%x: tensor<2x3xf32>) -> tensor<*xf32> {
  %none = onnx.absent
  // expected-error @+1 {{cannot convert Resize 'y': has neither scales nor sizes}}
  %y = onnx.node "Resize"(%x, %none, %none) outputs ["y"] : (tensor<2x3xf32>, none, none) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">]} {
func.func @main(%x: tensor<2x3xf32>, %pads: tensor<3xi64>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert Pad 'y': input 1 must have 4 numbers}}
  %y = onnx.node "Pad"(%x, %pads) outputs ["y"] : (tensor<2x3xf32>, tensor<3xi64>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}

// -----

module attributes {onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "com.microsoft">]} {
func.func @main(%x: tensor<1x2x5xf32>, %w: tensor<2x2x3xf32>) -> tensor<*xf32> {
  // expected-error @+1 {{cannot convert com.microsoft.FusedConv 'y': has the unknown activation 'Softsign'}}
  %y = onnx.node "FusedConv" in "com.microsoft"(%x, %w) outputs ["y"] {activation = "Softsign"} : (tensor<1x2x5xf32>, tensor<2x2x3xf32>) -> tensor<*xf32>
  return %y : tensor<*xf32>
}
}
