// RUN: nibble-opt %s --onnx-infer-shapes --split-input-file --verify-diagnostics

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<2x3xf32>) -> tensor<3x2xf32> attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info []>} {
    // A wrong shape is overruled: no runtime needs it.
    // expected-warning @+1 {{node 'act' (Relu): tensor 'y' is stated to be 'tensor<3x2xf32>', but its inputs and attributes make it 'tensor<2x3xf32>', which is taken}}
    %y = onnx.node "Relu"(%x) name "act" outputs ["y"] : (tensor<2x3xf32>) -> tensor<3x2xf32>
    return %y : tensor<3x2xf32>
  }
}

// -----

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<2x3xf32>) -> tensor<?x?xf16> attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info []>} {
    // expected-error @+1 {{node 'y' (Relu): tensor 'y' is stated to be 'tensor<?x?xf16>', but its inputs and attributes make it 'tensor<2x3xf32>'; correct the model's value_info, or remove it}}
    %y = onnx.node "Relu"(%x) outputs ["y"] : (tensor<2x3xf32>) -> tensor<?x?xf16>
    return %y : tensor<?x?xf16>
  }
}

// -----

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%x: tensor<2x3xf32>) -> tensor<?xf32> attributes {onnx.graph = #onnx.graph<name "g" inputs ["x"] outputs ["y"] value_info []>} {
    // expected-warning @+1 {{tensor 'y' is stated to be 'tensor<?xf32>'}}
    %y = onnx.node "Relu"(%x) outputs ["y"] : (tensor<2x3xf32>) -> tensor<?xf32>
    return %y : tensor<?xf32>
  }
}

// -----

// A state of a Scan keeps its shape.

module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">]} {
  func.func @main(%s: tensor<2xf32>, %x: tensor<5x2xf32>) -> !onnx.unknown attributes {onnx.graph = #onnx.graph<name "g" inputs ["s", "x"] outputs ["t"] value_info []>} {
    // expected-error @+1 {{node 't' (Scan): tensor 'argument 0 of the body' is stated to be 'tensor<3xf32>', but its inputs and attributes make it 'tensor<2xf32>'}}
    %t = onnx.node "Scan"(%s, %x) outputs ["t"] {num_scan_inputs = 1 : i64, body = #onnx.graph<name "b" inputs ["a", "c"] outputs ["d"] value_info []>} : (tensor<2xf32>, tensor<5x2xf32>) -> !onnx.unknown {
    ^bb0(%a: tensor<3xf32>, %c: !onnx.unknown):
      %d = onnx.node "Add"(%a, %c) outputs ["d"] : (tensor<3xf32>, !onnx.unknown) -> !onnx.unknown
      onnx.return %d : !onnx.unknown
    }
    return %t : !onnx.unknown
  }
}
