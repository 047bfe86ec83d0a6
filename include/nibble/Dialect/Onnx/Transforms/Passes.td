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

    An `Identity` of a constant, by which exporters share one initializer between
    layers, gives way to the constant itself. A large weight is computed where its
    result takes no more room (`Reshape`, `Mul` by a number), but not transposed:
    who reads weights looks through a `Transpose`.

    Constants and nodes that only served folded nodes are removed. A graph's output
    keeps its name. Types are not refined: run `onnx-infer-shapes` first, which
    finds the sizes that this pass folds. Local functions are left alone, since a
    function has no initializers; and so are models of an IR version below 4, where
    an initializer is also an input.
  }];
  let options = [
    Option<"maxElements", "max-elements", "int64_t", /*default=*/"1024",
           "Fold a node only if its result and its operands have at most this "
           "many elements, or if the result takes the place of a constant that "
           "nothing else reads (a Constant node becomes a constant at any "
           "size)">,
  ];
  let statistics = [
    Statistic<"numFolded", "folded", "Nodes replaced by constants">,
    Statistic<"numRemoved", "removed", "Constants and nodes nobody needs">,
  ];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

def OnnxInlineFunctions : Pass<"onnx-inline-functions", "::mlir::ModuleOp"> {
  let summary = "Put the bodies of local functions in the place of their calls";
  let description = [{
    Replaces each call of a `FunctionProto` of the model by a copy of its nodes, and
    removes the functions. References to the function's attributes get the value that
    the call gives, or else the function's default; where neither gives one, the
    attribute is left out. Inputs that the call leaves out are left out of the copies.
    Names of nodes and values start with the name of the call.

    ```mlir
    func.func @main(%x: tensor<4xf32>) … {
      %y = onnx.node "Twice" in "local"(%x) name "call" outputs ["y"] {by = 2.0 : f32} : …
    }
    func.func private @Twice(%a: !onnx.unknown) … {  // imports opset 13
      %c = onnx.node "Constant"() outputs ["c"] {value_float = #onnx.ref<"by" as FLOAT>} : …
      %b = onnx.node "Mul"(%a, %c) outputs ["b"] : …
    }
    ```
    ⇒
    ```mlir
    func.func @main(%x: tensor<4xf32>) … {
      %c = onnx.node "Constant"() name "call/c" outputs ["call/c"] {value_float = 2.0 : f32} : …
      %y = onnx.node "Mul"(%x, %c) name "call/b" outputs ["y"] : …
    }
    ```

    A node whose function imports another version of its domain than the model says so
    in an attribute `onnx.opsets`, which only Nibble understands; for models that are
    exported again, `keep-versions` leaves such functions as they are, with a warning.
    A function that calls itself, and a call with a graph as an attribute, are errors.
    With `op-types`, functions stay that neither hold nodes of these types nor call
    functions that do.
  }];
  let options = [
    ListOption<"opTypes", "op-types", "std::string",
               "Only functions that hold nodes of these types">,
    Option<"keepsVersions", "keep-versions", "bool", "false",
           "Leave functions that import another version than the model">
  ];
  let statistics = [Statistic<"numInlined", "inlined", "Calls replaced">];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

def OnnxChooseBranches : Pass<"onnx-choose-branches", "::mlir::ModuleOp"> {
  let summary = "Decide Ifs whose condition is known or whose branches differ in rank";
  let description = [{
    Puts a branch in the place of an `If` whose condition is constant after
    `onnx-infer-shapes` and `onnx-fold-constants`, which it runs as often as a decision
    makes more known.

    Compiled code has a rank for every tensor. Exporters write "remove this dimension
    if its size is 1" as an `If` whose branches differ in rank, and what follows works
    for one of them only. Of such an `If` the branch with the lower rank is taken, and
    a node `Check` of the domain `nibble` ends the run with an error where the
    condition asks for the other one.

    ```mlir
    %c = onnx.node "Equal"(%size, %one) outputs ["c"] : … -> tensor<1xi1>
    %y = onnx.node "If"(%c) name "squeeze" outputs ["y"] {then_branch = …, else_branch = …} : … {
      %s = onnx.node "Squeeze"(%x, %axes) outputs ["s"] : … -> tensor<?x128xf32>
      onnx.return %s : tensor<?x128xf32>
    }, {
      %i = onnx.node "Identity"(%x) outputs ["i"] : … -> tensor<?x128x?xf32>
      onnx.return %i : tensor<?x128x?xf32>
    }
    ```
    ⇒
    ```mlir
    onnx.node "Check" in "nibble"(%c) name "squeeze" outputs [] {expected = 1 : i64} : …
    %s = onnx.node "Squeeze"(%x, %axes) outputs ["s"] : … -> tensor<?x128xf32>
    ```

    The pass is for models that are compiled, not for ones that are exported again.
  }];
  let statistics = [Statistic<"numChosen", "chosen", "Ifs replaced by a branch">];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

def OnnxFuseSparseProducts
    : Pass<"onnx-fuse-sparse-products", "::mlir::ModuleOp"> {
  let summary = "Products with sparse matrices as one node";
  let description = [{
    What `--nibble-split-sparse-outliers` writes in ops of ONNX is a product with a
    sparse matrix of constants. For code that is compiled it becomes one node again, whose
    entries of output n stand behind entry offsets[n], up to offsets[n + 1].

    ```mlir
    %t = onnx.node "Transpose"(%x) {perm = array<i64: 1, 0>} …
    %g = onnx.node "Gather"(%t, %inputs) {axis = 0 : i64} …
    %p = onnx.node "Mul"(%g, %values) …
    %s = onnx.node "CumSum"(%p, %zero) …
    %e = onnx.node "Gather"(%s, %ends) …
    %f = onnx.node "Gather"(%s, %begins) …
    %d = onnx.node "Sub"(%e, %f) …
    %y = onnx.node "Transpose"(%d) {perm = array<i64: 1, 0>} …
    ```
    ⇒
    ```mlir
    %y = onnx.node "SparseMatMul" in "nibble"(%x, %inputs, %values, %offsets) …
    ```

    The inputs and the counts whose sums `%begins` and `%ends` are must be constants, and
    in range; else nothing is done.
  }];
  let statistics = [Statistic<"numFused", "fused", "Products with sparse matrices">];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

def OnnxUpdateCaches : Pass<"onnx-update-caches", "::mlir::ModuleOp"> {
  let summary = "Caches that grow become buffers that are written in place";
  let description = [{
    A decoder with a cache takes the keys and values of all tokens so far and gives
    them back with those of the new tokens behind them, a copy for each token. This
    pass finds every input that is only joined with something (and asked for its
    shape) where the joined tensor is an output too. The input becomes a
    buffer with room for more, `onnx.updated`; the output goes away; and a new input
    `past_length` says how many entries the buffers hold before the run. Code
    writes new entries behind them.

    ```mlir
    func.func @main(%x: …, %past: tensor<1x3x?x64xf32, #onnx.dims<"past">>) … {
      %present = onnx.node "Concat"(%past, %new) outputs ["present"] {axis = 2 : i64} : …
      %scores = onnx.node "MatMul"(%query, %present) … : …
      return %scores, %present : …
    }
    ```
    ⇒
    ```mlir
    func.func @main(%x: …, %cache: tensor<1x3x?x64xf32, #onnx.dims<"capacity">>
                        {onnx.updated}, %length: tensor<1xi64>) … {
      %present = onnx.node "Append" in "nibble"(%cache, %new, %length) outputs ["present"]
        {axis = 2 : i64} : …
      %scores = onnx.node "MatMul"(%query, %present) … : …
      return %scores : …
    }
    ```

    A cache whose growing dimension has another name than that of the first one, or
    that something else reads, stays as it is. The pass is for models that are
    compiled, not for ones that are exported again. Types must be known
    (`onnx-infer-shapes`).
  }];
  let statistics = [Statistic<"numCaches", "caches", "Caches updated in place">];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

def OnnxFoldAffine : Pass<"onnx-fold-affine", "::mlir::ModuleOp"> {
  let summary = "Put products and sums with constants into convolutions";
  let description = [{
    Multiplies the constants of `BatchNormalization`, `Mul`, `Div`, `Add` and `Sub`
    around a `Conv` or `ConvTranspose` into its filter and bias, where they are one
    number or one a channel and nobody else reads what is between. A shift before a
    convolution needs one without padding.

    To bring more of them there it merges chains to one product and one sum, moves a
    factor that is a number behind a product of two values, and writes
    `Clip(x + a, 0, c)` as `HardSigmoid(x; 1/c, a/c) · c`, as in hard-swish.

    The function is the same; the numbers may differ in their last bits. Types must be
    known (`onnx-infer-shapes`); only f32 is folded.

    ```mlir
    %y = onnx.node "Conv"(%x, %w) … : (tensor<1x3x8x8xf32>, tensor<4x3x3x3xf32>) -> …
    %z = onnx.node "Mul"(%y, %c) … : (tensor<1x4x6x6xf32>, tensor<4x1x1xf32>) -> …
    ```
    ⇒
    ```mlir
    %z = onnx.node "Conv"(%x, %wc, %zero) … : …
    ```
  }];
  let statistics = [Statistic<"numFolded", "folded", "Nodes that went away">];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
}

#endif // NIBBLE_DIALECT_ONNX_TRANSFORMS_PASSES_TD
