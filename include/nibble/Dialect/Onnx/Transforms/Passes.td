//===- Passes.td - Passes over the onnx dialect ------------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_TD
#define NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def OnnxInferShapes : Pass<"onnx-infer-shapes", "::mlir::ModuleOp"> {
  let summary = "Find the types of an ONNX model's values";
  let description = [{
    Gives every value the most precise type that follows from the types of the
    graph's inputs and constants: element type, rank, sizes, and the names of
    dynamic dimensions, which the rules carry along. Integer tensors that hold
    shapes are followed element by element, so that a `Reshape` to a computed
    shape gets its dimensions too.

    ```mlir
    %0 = onnx.node "Shape"(%x) outputs ["0"]
        : (tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>) -> !onnx.unknown
    %1 = onnx.node "Gather"(%0, %first_two) outputs ["1"] : … -> !onnx.unknown
    %2 = onnx.node "Concat"(%1, %heads) outputs ["2"] {axis = 0 : i64} : …
    %3 = onnx.node "Reshape"(%x, %2) outputs ["3"] : … -> !onnx.unknown
    ```
    ⇒
    ```mlir
    %0 = onnx.node "Shape"(%x) … -> tensor<3xi64>
    %1 = onnx.node "Gather"(%0, %first_two) … -> tensor<2xi64>
    %2 = onnx.node "Concat"(%1, %heads) … -> tensor<4xi64>
    %3 = onnx.node "Reshape"(%x, %2) …
        -> tensor<?x?x9x64xf32, #onnx.dims<"batch", "sequence">>
    ```

    What the model states is kept and only made more precise; a name that it gives
    a dimension stays. Where it contradicts what follows, that is an error. An op
    without a rule, a call of a local function and a node with an attribute that is
    not of its kind leave their results as they are. A value that a loop carries
    keeps only its element type inside the body, because its shape may change.

    One assumption goes beyond ONNX's text: a `Slice` from 0 to a named size takes
    that many elements of a dimension of fixed size, as decoders do with a table
    for the longest sequence.
  }];
  let options = [
    Option<"record", "record", "bool", /*default=*/"false",
           "List the found types in the graph's value_info, so that an exported "
           "model carries them">,
  ];
  let statistics = [
    Statistic<"numRefined", "refined", "Types made more precise">,
    Statistic<"numUnknown", "unknown", "Values still without rank">,
  ];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

def OnnxFoldConstants : Pass<"onnx-fold-constants", "::mlir::ModuleOp"> {
  let summary = "Compute shape arithmetic and other small constants";
  let description = [{
    Replaces nodes whose results are known by constants of the same name: a
    `Constant` node by an `onnx.constant`; integer tensors that hold shapes as far
    as types give them (`Shape`, and `Gather` of one fixed dimension of it); and
    cheap ops on small constants. The results are those of ONNX bit for bit:
    integer division truncates and overflow wraps; what a runtime may round in its
    own way (Exp, Pow of floats, MatMul …) is not folded.

    ```mlir
    %0 = onnx.node "Shape"(%x) outputs ["0"]
        : (tensor<?x576xf32>) -> tensor<2xi64>
    %1 = onnx.node "Gather"(%0, %one) outputs ["hidden"]
        : (tensor<2xi64>, tensor<i64>) -> tensor<i64>
    %2 = onnx.node "Reshape"(%y, %1) outputs ["2"] : …
    ```
    ⇒
    ```mlir
    %hidden = onnx.constant "hidden" : tensor<i64> = dense<576>
    %2 = onnx.node "Reshape"(%y, %hidden) outputs ["2"] : …
    ```

    Constants and nodes that only served folded nodes are removed. A graph's output
    keeps its name. Types are not refined: run `onnx-infer-shapes` first, which
    finds the sizes that this pass folds. Local functions are left alone, since a
    function has no initializers; and so are models of an IR version below 4, where
    an initializer is also an input.
  }];
  let options = [
    Option<"maxElements", "max-elements", "int64_t", /*default=*/"1024",
           "Fold a node only if its result and its operands have at most this "
           "many elements (a Constant node becomes a constant at any size)">,
  ];
  let statistics = [
    Statistic<"numFolded", "folded", "Nodes replaced by constants">,
    Statistic<"numRemoved", "removed", "Constants and nodes nobody needs">,
  ];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

#endif // NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_TD
