//===- Passes.td - Passes that decide how weights are stored -*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_TRANSFORMS_PASSES_TD
#define NIBBLE_DIALECT_NIBBLE_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def NibbleAssignSchemes : Pass<"nibble-assign-schemes", "::mlir::ModuleOp"> {
  let summary = "Decide which weight gets which storage";
  let description = [{
    Finds the constant weights of MatMul, Gemm and Gather (also behind a
    Transpose), LSTM, GRU and RNN, Conv and ConvTranspose, and notes on each one how
    it will be stored, in the attribute `nibble.encoding`. Nothing is rounded yet. A
    weight is noted once, however many nodes read it. One that is listed among the
    inputs of the graph, as before IR version 4, is taken out there.

    The first rule that matches decides. A rule is `pattern=scheme`, where
    `pattern` is `op:` and an op type, `larger:` or `smaller:` and a number of
    elements, or a glob over the names of the weight and of the nodes that read it,
    and `scheme` is a name such as `w4g128` (see nibble/Numerics/Scheme.h), or
    `keep`. Without a match a weight that Gather
    reads stays as it is, and others get the default scheme. A filter has a scale for
    each output channel or one in all: where the default scheme has groups it gets
    `w8cs`, and a rule with groups leaves it as it is. Weights of three or more
    dimensions (experts, recurrent layers) are stacks of matrices with scales of
    their own; code books leave them as they are.

    A node that is left alone says why in `nibble.kept`.

    Example: `--nibble-assign-schemes="rules=*lm_head*=w8g128"`

    ```mlir
    %w = onnx.constant "fc1.weight" : tensor<256x64xf32> = #onnx.file<…>
    %y = onnx.node "MatMul"(%x, %w) …
    ```
    becomes
    ```mlir
    %w = onnx.constant "fc1.weight" : tensor<256x64xf32> = #onnx.file<…>
      {nibble.encoding = #nibble.quantized<u4, block = [128, 1], scale = f32, zero = u4>}
    %y = onnx.node "MatMul"(%x, %w) …
    ```
  }];
  let dependentDialects = ["::nibble::NibbleDialect"];
  let options = [
    Option<"scheme", "scheme", "std::string", "\"w4g128\"",
           "Scheme of the weights that no rule names">,
    ListOption<"rules", "rules", "std::string",
               "Rules `pattern=scheme`, the first match decides">
  ];
  let statistics = [
    Statistic<"numAssigned", "assigned", "Weights that will be quantized">,
    Statistic<"numKept", "kept", "Weights that stay as they are">
  ];
}

def NibbleInsertObservers : Pass<"nibble-insert-observers", "::mlir::ModuleOp"> {
  let summary = "Put calibration probes before the nodes that get quantized";
  let description = [{
    Lets each node whose weight has a `nibble.encoding` read its input through a
    `nibble.observe`, whose id is the name of that input. Nodes that read the
    same value share one probe. `nibble.statistics` on the probe says what is to
    be measured: `moments` (second moments, the Hessian of GPTQ), `magnitudes`
    (of each channel) or `range`.

    ```mlir
    %y = onnx.node "MatMul"(%x, %w) outputs ["y"] …
    ```
    becomes
    ```mlir
    %0 = nibble.observe "x" %x {nibble.statistics = ["moments"]} : tensor<?x64xf32>
    %y = onnx.node "MatMul"(%0, %w) outputs ["y"] …
    ```
  }];
  let dependentDialects = ["::nibble::NibbleDialect"];
  let options = [
    ListOption<"kinds", "statistics", "std::string",
               "What to measure: moments, magnitudes, range (default: moments)">
  ];
  let statistics = [
    Statistic<"numObservers", "observers", "Probes that were inserted">
  ];
}

def NibbleCallObservers : Pass<"nibble-call-observers", "::mlir::ModuleOp"> {
  let summary = "Turn calibration probes into calls of the runtime";
  let description = [{
    A `nibble.observe` of floats becomes a call of `nibble_runtime_observe_f32`
    (f16, bf16, f64), which gets the number of the probe and the tensor
    (docs/Spec.md, S15). The ids by number are in `nibble.observers` of the
    module. Without this pass probes only pass their operand through.

    ```mlir
    %0 = nibble.observe "x" %x : tensor<?x64xf32>
    ```
    becomes
    ```mlir
    %1 = tensor.cast %x : tensor<?x64xf32> to tensor<*xf32>
    call @nibble_runtime_observe_f32(%c0, %1) : (i64, tensor<*xf32>) -> ()
    ```
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::tensor::TensorDialect"
  ];
}

def NibbleRound : Pass<"nibble-round", "::mlir::ModuleOp"> {
  let summary = "Round weights to the nearest codes";
  let description = [{
    Replaces each constant that has a `nibble.encoding` by its codes, scales and
    zero points. The scales come from the range of each block (`minmax`) or from
    a search for the least squared error (`search`); see
    nibble/Numerics/BlockQuantizer.h. The signal-to-noise ratio of each weight, in
    decibels, is noted in `nibble.sqnr`.

    ```mlir
    %w = onnx.constant "w" : tensor<256x64xf32> = #onnx.file<…>
      {nibble.encoding = #nibble.quantized<u4, block = [128, 1], scale = f32, zero = u4>}
    ```
    becomes
    ```mlir
    %codes = onnx.constant "w.codes" : tensor<256x64xui4> = dense_resource<…>
    %scales = onnx.constant "w.scales" : tensor<2x64xf32> = dense_resource<…>
    %zeros = onnx.constant "w.zeros" : tensor<2x64xui4> = dense_resource<…>
    %w = nibble.assemble %codes scales(%scales) zeros(%zeros) {nibble.sqnr = 21.7 : f64}
      : tensor<256x64xf32, #nibble.quantized<u4, block = [128, 1], scale = f32, zero = u4>>
    ```
  }];
  let dependentDialects = ["::nibble::NibbleDialect"];
  let options = [
    Option<"scale", "scale", "std::string", "\"search\"",
           "Where scales come from: `minmax` or `search`">,
    Option<"threads", "threads", "unsigned", "0",
           "Threads to use, 0 for one a core; never changes the result">
  ];
  let statistics = [
    Statistic<"numRounded", "rounded", "Weights that were rounded">
  ];
}

def NibbleSplitSparseOutliers
    : Pass<"nibble-split-sparse-outliers", "::mlir::ModuleOp"> {
  let summary = "Products with sparse outliers as a dense and a sparse part";
  let description = [{
    No op of ONNX and no kernel holds a weight of codes with single elements kept apart
    (SpQR, https://arxiv.org/abs/2306.03078). Where MatMul and Gemm read one, what the
    codes say and what the outliers add become terms of a sum. Outliers are listed by
    output: their inputs and values, in 16 bits each, and how many each output has. What an
    output gets from them is the difference of two running sums over all products of an
    outlier and its input. All of it is plain ONNX, so that any format holds the dense
    part. Where something else reads the weight, it stays as it is.

    ```mlir
    %w = nibble.assemble %codes scales(%scales) outliers(%places, %values : …) :
      tensor<64x32xf32, #nibble.quantized<i4, block = [16, 1], scale = f32,
                                          outliers = sparse<f16>>>
    %y = onnx.node "MatMul"(%x, %w) outputs ["y"] …
    ```
    becomes (without the Casts of what is stored)
    ```mlir
    %w = nibble.assemble %codes scales(%scales) : …
    %begins = onnx.node "CumSum"(%counts, %zero) {exclusive = 1 : i64} … : … -> tensor<32xi32>
    %ends = onnx.node "CumSum"(%counts, %zero) …
    %a = onnx.node "MatMul"(%x, %w) outputs ["y_dense"] …
    %t = onnx.node "Transpose"(%x) …
    %g = onnx.node "Gather"(%t, %inputs) {axis = 0 : i64} … : … -> tensor<21x?xf32>
    %p = onnx.node "Mul"(%g, %values) …
    %s = onnx.node "CumSum"(%p, %zero) …
    %e = onnx.node "Gather"(%s, %ends) …
    %f = onnx.node "Gather"(%s, %begins) …
    %d = onnx.node "Sub"(%e, %f) …
    %b = onnx.node "Transpose"(%d) …
    %y = onnx.node "Add"(%a, %b) outputs ["y"] …
    ```
  }];
  let dependentDialects = ["::nibble::onnx::OnnxDialect", "::nibble::NibbleDialect"];
  let statistics = [
    Statistic<"numWeights", "weights", "Weights that were split">,
    Statistic<"numOutliers", "outliers", "Their outliers">
  ];
}

def NibbleQuantizeScales : Pass<"nibble-quantize-scales", "::mlir::ModuleOp"> {
  let summary = "Quantize the scales of weights again";
  let description = [{
    Double quantization (QLoRA, https://arxiv.org/abs/2305.14314, section 3): the scales
    of a quantized weight become codes of 8 bits, `run` of which share a step and a zero
    point of f32. A scale for each 64 weights then takes 8.25 bits instead of 32, which
    saves .37 bits a weight. Codes stay what they are; `nibble.sqnr` counts what the
    scales lose. Weights with too few scales to gain stay as they are.

    ```mlir
    %w = nibble.assemble %codes scales(%scales) : tensor<256x64xf32,
      #nibble.quantized<i4, block = [64, 1], scale = f32>>
    ```
    becomes
    ```mlir
    %s = nibble.assemble %scale_codes scales(%steps) zeros(%zeros) : tensor<4x64xf32,
      #nibble.quantized<u8, block = flat [256], scale = f32, zero = f32>>
    %w = nibble.assemble %codes scales(%s) : tensor<256x64xf32, #nibble.quantized<i4,
      block = [64, 1], scale = quantized<u8, block = flat [256], scale = f32, zero = f32>>>
    ```
  }];
  let dependentDialects = ["::nibble::onnx::OnnxDialect", "::nibble::NibbleDialect"];
  let options = [
    Option<"runLength", "run", "int64_t", "256",
           "How many scales share a step">
  ];
  let statistics = [
    Statistic<"numQuantized", "quantized", "Weights whose scales were quantized">
  ];
}

def NibbleSmooth : Pass<"nibble-smooth", "::mlir::ModuleOp"> {
  let summary = "Move range from the inputs of products to their weights";
  let description = [{
    SmoothQuant (https://arxiv.org/abs/2211.10438, section 4): each channel of what
    MatMul and Gemm with constant weights read is divided by
    s = max|x|^strength / max|w|^(1 - strength), and their weights are multiplied by
    it, so that 8 bits are enough for the inputs. All products that read a value share
    its factors. The function stays the same.

    The division costs nothing where a constant before the products takes it: the gain
    of a normalisation, a factor, the columns of an earlier product, seen through sums,
    Relu, Transpose, Reshape, Expand, Gather and the product with a computed matrix (so
    through attention; heads that share values share factors). Where there is none, a Mul
    is inserted if that at least halves the power of the noise of rounding the input to
    256 codes. Otherwise `nibble.notes` on the weights says why nothing was done.

    `ranges` is what calibration saw (nibble/Dialect/Nibble/Transforms/ActivationRanges.h);
    what is left of it is noted on the products for `--nibble-quantize-activations`.

    ```mlir
    %x = onnx.node "Mul"(%normal, %gain) …
    %y = onnx.node "MatMul"(%x, %w) …
    ```
    becomes
    ```mlir
    %x = onnx.node "Mul"(%normal, %gain_over_s) …
    %y = onnx.node "MatMul"(%x, %s_times_w) … {nibble.input_range = [-1.5, 1.25]}
    ```
  }];
  let dependentDialects = ["::nibble::onnx::OnnxDialect", "::nibble::NibbleDialect"];
  let options = [
    Option<"rangesFile", "ranges", "std::string", "",
           "A file of ranges (JSON)">,
    Option<"strength", "strength", "double", "0.5",
           "How much of the inputs' range moves, 0 to 1 (the paper's alpha)">
  ];
  let statistics = [
    Statistic<"numFolded", "folded", "Inputs that constants before them divide">,
    Statistic<"numInserted", "inserted", "Inputs that an inserted Mul divides">,
    Statistic<"numLeft", "left", "Inputs that stay as they are">
  ];
}

def NibbleAwq : Pass<"nibble-awq", "::mlir::ModuleOp"> {
  let summary = "Scale up the weights that meet large inputs";
  let description = [{
    AWQ (https://arxiv.org/abs/2306.00978, section 3.2): the inputs of products whose
    weights have a `nibble.encoding` are divided by s = mean|x|^a, and the weights
    multiplied by it, so that weights which matter are rounded more finely. Of 20
    exponents a that one is taken with the least squared error of the outputs, for all
    weights that read the input together. Where the division goes, and what is done where
    there is no place for it, is as in `--nibble-smooth`. `ranges` must tell magnitude and
    variance.

    Example: `--nibble-assign-schemes=scheme=w4g128 --nibble-awq=ranges=r.json
    --nibble-round`

    ```mlir
    %x = onnx.node "Mul"(%normal, %gain) …
    %y = onnx.node "MatMul"(%x, %w) …
    ```
    becomes
    ```mlir
    %x = onnx.node "Mul"(%normal, %gain_over_s) …
    %y = onnx.node "MatMul"(%x, %s_times_w) …
    ```
  }];
  let dependentDialects = ["::nibble::onnx::OnnxDialect", "::nibble::NibbleDialect"];
  let options = [
    Option<"rangesFile", "ranges", "std::string", "",
           "A file of ranges (JSON)">,
    Option<"threads", "threads", "unsigned", "0",
           "Threads to use, 0 for one a core; never changes the result">
  ];
  let statistics = [
    Statistic<"numFolded", "folded", "Inputs that constants before them divide">,
    Statistic<"numInserted", "inserted", "Inputs that an inserted Mul divides">,
    Statistic<"numLeft", "left", "Inputs that stay as they are">
  ];
}

def NibbleSplitOutliers : Pass<"nibble-split-outliers", "::mlir::ModuleOp"> {
  let summary = "Keep the inputs with outliers in 16 bits";
  let description = [{
    LLM.int8() (https://arxiv.org/abs/2208.07339, section 3.2): of what MatMul and Gemm
    with constant weights read, the channels whose largest |x| on the calibration data
    (`ranges`) is at least `threshold` become a product of their own, whose rows of the
    weight are stored in f16. The other product sees zeros there, in its input and in its
    weight, so that its 8-bit codes are for small numbers only; any pass may quantize it.
    All of it is plain ONNX. Where more than a quarter of the channels are that large,
    nothing is done, and `nibble.notes` on the weights says so.

    ```mlir
    %y = onnx.node "MatMul"(%x, %w) outputs ["y"] …
    ```
    becomes
    ```mlir
    %rest = onnx.node "Mul"(%x, %mask) …
    %some = onnx.node "Gather"(%x, %outlier_inputs) …
    %a = onnx.node "MatMul"(%rest, %w_with_rows_of_zeros) …
    %v = onnx.node "Cast"(%rows_in_f16) …
    %b = onnx.node "MatMul"(%some, %v) …
    %y = onnx.node "Add"(%a, %b) outputs ["y"] …
    ```
  }];
  let dependentDialects = ["::nibble::onnx::OnnxDialect", "::nibble::NibbleDialect"];
  let options = [
    Option<"rangesFile", "ranges", "std::string", "",
           "A file of ranges (JSON)">,
    Option<"threshold", "threshold", "float", "6.0",
           "The least magnitude of an outlier">
  ];
  let statistics = [
    Statistic<"numValues", "values", "Values that were split">,
    Statistic<"numInputs", "inputs", "Their channels that are kept apart">,
    Statistic<"numLeft", "left", "Values with too many outliers">
  ];
}

def NibbleEqualizeActivations
    : Pass<"nibble-equalize-activations", "::mlir::ModuleOp"> {
  let summary = "Make the channels of activations share 256 codes fairly";
  let description = [{
    Prepares `Conv` with constant weights for 8-bit activations, from what calibration
    saw (`ranges`, see nibble/Dialect/Nibble/Transforms/ActivationRanges.h). The
    function stays the same:

    - the channels of a convolution's input are divided by s = sqrt(max|x| / max|w|),
      and the weights multiplied by it (SmoothQuant); where it has a filter for each
      channel, by max|x|;
    - the filters and biases of a convolution are divided by the step of each output
      channel, so that its codes use their whole range, and a product and a sum behind
      it give the old numbers.

    Each is done where it at least halves the power of the noise of rounding. The
    ranges that are left, and the means, are noted on the nodes for
    `--nibble-quantize-activations`, those of `MatMul` too unless `--nibble-smooth` did.
    Convolutions over single positions stay in
    float, since their weights cost more than their activations, and so do outputs
    whose signal is less than 32 dB above the noise of their codes, if the ranges
    tell the variance.

    Example: `--onnx-infer-shapes --onnx-fold-constants --onnx-fold-affine
    --nibble-smooth=ranges=r.json --nibble-equalize-activations=ranges=r.json
    --nibble-assign-schemes=scheme=w8cs
    --nibble-round=scale=minmax --nibble-quantize-activations
    --convert-nibble-to-onnx=format=qdq`
  }];
  let dependentDialects = ["::nibble::onnx::OnnxDialect"];
  let options = [
    Option<"rangesFile", "ranges", "std::string", "",
           "A file of ranges (JSON)">
  ];
  let statistics = [
    Statistic<"numInputs", "inputs", "Inputs whose channels were divided">,
    Statistic<"numOutputs", "outputs", "Outputs whose channels were levelled">
  ];
}

def NibbleQuantizeActivations
    : Pass<"nibble-quantize-activations", "::mlir::ModuleOp"> {
  let summary = "Quantize what goes into and comes out of quantized products";
  let description = [{
    Puts `QuantizeLinear` and `DequantizeLinear` (u8 with a zero point, one scale a
    tensor) around `Conv` and `MatMul` whose weights are 8-bit codes without zero
    points and whose ranges `--nibble-equalize-activations` noted, so that a runtime
    computes them in integers: both sides of a `Conv`, the input of a `MatMul`. A bias
    is corrected for the error that rounding the weights makes on average.

    With `mode=dynamic` no ranges are needed: what `MatMul` and `Gemm` read is quantized
    by the range that it has in each call (`nibble.quantize_dynamic`, u8 with a zero
    point, one scale a tensor); convolutions stay in float.

    ```mlir
    %y = onnx.node "MatMul"(%x, %w) …
    ```
    becomes
    ```mlir
    %0 = nibble.quantize_dynamic %x : tensor<?x64xf32,
      #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
    %y = onnx.node "MatMul"(%0, %w) …
    ```
  }];
  let options = [
    Option<"mode", "mode", "std::string", "\"static\"",
           "static: by the ranges of calibration; dynamic: by those of each call">
  ];
  let dependentDialects = ["::nibble::onnx::OnnxDialect", "::nibble::NibbleDialect"];
  let statistics = [
    Statistic<"numInputs", "inputs", "Inputs that were quantized">,
    Statistic<"numOutputs", "outputs", "Outputs that were quantized">
  ];
}

#endif // NIBBLE_DIALECT_NIBBLE_TRANSFORMS_PASSES_TD
