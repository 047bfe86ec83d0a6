// RUN: nibble-opt %s --allow-unregistered-dialect --split-input-file --verify-diagnostics

// expected-error@+1 {{onnx.dims has 2 entries for a tensor with 1 dynamic dimensions}}
func.func private @f(tensor<?x4xf32, #onnx.dims<"batch", "sequence">>)

// -----

// expected-error@+1 {{cannot read 'no/such/file': No such file or directory; relative paths of weights start at the working directory}}
"test.op"() {value = #onnx.file<"no/such/file"[0, 4]> : tensor<1xf32>} : () -> ()

// -----

// expected-error@+1 {{needs a tensor type of static shape}}
"test.op"() {value = #onnx.file<"/dev/null"[0, 4]> : tensor<?xf32>} : () -> ()

// -----

func.func @f() {
  // expected-error@+1 {{'w' needs a dense, dense_resource, onnx.file, onnx.strings, onnx.sparse or onnx.wire value}}
  %w = "onnx.constant"() {name = "w", value = 1 : i64} : () -> tensor<1xi64>
  return
}

// -----

func.func @f() {
  // expected-error@+1 {{'w' has a value of type 'tensor<2xf32>', not 'tensor<1xf32>'}}
  %w = "onnx.constant"() {name = "w", value = dense<1.0> : tensor<2xf32>} : () -> tensor<1xf32>
  return
}

// -----

func.func @f(%x: tensor<f32>) {
  // expected-error@+1 {{names 2 outputs but has 1 results}}
  %y = onnx.node "Identity"(%x) outputs ["a", "b"] : (tensor<f32>) -> tensor<f32>
  return
}

// -----

func.func @f(%x: tensor<f32>) {
  // expected-error@+1 {{has two attributes called 'axis'}}
  %y = onnx.node "Foo"(%x) outputs ["a"] {axis = 0 : i64, axis = 1 : i64} : (tensor<f32>) -> tensor<f32>
  return
}

// -----

func.func @f(%x: tensor<i1>) {
  // expected-error@+1 {{has 1 graph attributes but 0 regions}}
  %y = onnx.node "If"(%x) outputs ["a"] {then_branch = #onnx.graph<inputs [] outputs [] value_info []>} : (tensor<i1>) -> tensor<f32>
  return
}

// -----

func.func @f(%x: tensor<i1>) {
  // expected-error@+1 {{a subgraph must end with onnx.return}}
  %y = onnx.node "If"(%x) outputs ["a"] {then_branch = #onnx.graph<inputs [] outputs [] value_info []>} : (tensor<i1>) -> tensor<f32> {
    llvm.unreachable
  }
  return
}
