module attributes {onnx.ir_version = 10 : i64, onnx.opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "local">]} {
  func.func @main(%a: tensor<i1>, %x: tensor<2x2xf32>) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown) attributes {onnx.graph = #onnx.graph<name "main" inputs ["a", "x"] outputs ["y", "b", "c", "old"] value_info []>} {
    %y, %b, %c = onnx.node "Product" in "local"(%a, %x) name "call" outputs ["y", "b", "c"] : (tensor<i1>, tensor<2x2xf32>) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown)
    %old = onnx.node "Old" in "local"(%x) outputs ["old"] : (tensor<2x2xf32>) -> !onnx.unknown
    return %y, %b, %c, %old : !onnx.unknown, !onnx.unknown, !onnx.unknown, !onnx.unknown
  }
  func.func @Scale(%x: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "Scale", domain = "local", inputs = ["x"], outputs = ["y"], attributes = [], defaults = [], opsets = [#onnx.opset<21 in "">], valueInfo = []>} {
    %y = onnx.node "Add"(%x, %x) outputs ["y"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
  func.func @Product(%a: !onnx.unknown, %x: !onnx.unknown) -> (!onnx.unknown, !onnx.unknown, !onnx.unknown) attributes {onnx.function = #onnx.function<name = "Product", domain = "local", inputs = ["a", "x"], outputs = ["y", "x", "y"], attributes = [], defaults = [], opsets = [#onnx.opset<21 in "">, #onnx.opset<1 in "local">], valueInfo = []>} {
    %s = onnx.node "Scale" in "local"(%x) outputs ["s"] : (!onnx.unknown) -> !onnx.unknown
    %y = onnx.node "If"(%a) outputs ["y"] {else_branch = #onnx.graph<name "else" inputs [] outputs ["e"] value_info []>, then_branch = #onnx.graph<name "then" inputs [] outputs ["t"] value_info []>} : (!onnx.unknown) -> !onnx.unknown {
      %e = onnx.node "Neg"(%s) outputs ["e"] : (!onnx.unknown) -> !onnx.unknown
      onnx.return %e : !onnx.unknown
    }, {
      %t = onnx.node "MatMul"(%s, %s) outputs ["t"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
      onnx.return %t : !onnx.unknown
    }
    return %y, %x, %y : !onnx.unknown, !onnx.unknown, !onnx.unknown
  }
  // expected-warning @+1 {{the local function 'Old' stays as it is: it imports version 12 of domain '', and the model version 21}}
  func.func @Old(%x: !onnx.unknown) -> !onnx.unknown attributes {onnx.function = #onnx.function<name = "Old", domain = "local", inputs = ["x"], outputs = ["y"], attributes = [], defaults = [], opsets = [#onnx.opset<12 in "">], valueInfo = []>} {
    %y = onnx.node "MatMul"(%x, %x) outputs ["y"] : (!onnx.unknown, !onnx.unknown) -> !onnx.unknown
    return %y : !onnx.unknown
  }
}
