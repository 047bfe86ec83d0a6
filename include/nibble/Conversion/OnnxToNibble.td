//===- OnnxToNibble.td - ONNX's quantized ops to nibble ----*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_ONNXTONIBBLE_TD
#define NIBBLE_CONVERSION_ONNXTONIBBLE_TD

include "mlir/Pass/PassBase.td"

def ConvertOnnxToNibble : Pass<"convert-onnx-to-nibble", "::mlir::ModuleOp"> {
  let summary = "Read already quantized nodes as quantized tensors";
  let description = [{
    Replaces the ops of ONNX and com.microsoft that hold or make quantized
    tensors by their meaning in the nibble dialect, without touching a code or a
    scale:

    | node                               | becomes                              |
    |------------------------------------|--------------------------------------|
    | DequantizeLinear of a constant     | `nibble.assemble`, read as it is     |
    | DequantizeLinear of activations    | `nibble.dequantize`                  |
    | QuantizeLinear                     | `nibble.quantize`, `nibble.codes`    |
    | DynamicQuantizeLinear              | `nibble.quantize_dynamic` and its codes, scales and zeros |
    | MatMulNBits, MatMulBnb4            | `nibble.assemble` [N, K], Transpose, MatMul (and Add of the bias) |
    | GatherBlockQuantized               | `nibble.assemble`, Gather            |
    | QLinearMatMul, QLinearConv         | MatMul or Conv of quantized tensors, `nibble.quantize`, `nibble.codes` |
    | MatMulInteger, ConvInteger of what DynamicQuantizeLinear gives, with the Cast and the Mul that scale their sums | MatMul or Conv of quantized tensors |
    | any other MatMulInteger, ConvInteger | MatMul or Conv of `nibble.integers`  |

    Codes stay in the mapped file wherever their order is the same: always for
    DequantizeLinear, and for MatMulNBits where blocks fill K and there is no `g_idx`,
    which becomes a Gather of the activations that puts groups together. A zero point that a
    node implies is written out. Weights that several nodes read are one assembly.

    Each op keeps the node that it was in the attribute `nibble.onnx`, from which
    `--convert-nibble-to-onnx` writes the same node again, provided that it still
    says the same. A node that the dialect cannot hold (computed scales,
    FNUZ floats, attributes that the caller of a local function gives, …) stays as it
    is and says why in `nibble.kept`.

    ```mlir
    %y = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s, %z) outputs ["y"]
      {K = 256 : i64, N = 64 : i64, bits = 4 : i64, block_size = 128 : i64}
      : (tensor<?x256xf32>, tensor<64x2x64xui8>, tensor<64x2xf32>, tensor<64x1xui8>) -> tensor<?x64xf32>
    ```
    becomes
    ```mlir
    %w = nibble.assemble %codes scales(%s) zeros(%zeros)
      : tensor<64x256xf32, #nibble.quantized<u4, block = [1, 128], scale = f32, zero = u4>>
    %t = onnx.node "Transpose"(%w) outputs ["b.transposed"] {perm = array<i64: 1, 0>} …
    %y = onnx.node "MatMul"(%x, %t) outputs ["y"] {nibble.onnx = {op_type = "MatMulNBits", …}} …
    ```
  }];
  let dependentDialects = ["::nibble::NibbleDialect"];
  let statistics = [
    Statistic<"numWeights", "weights", "Quantized weights">,
    Statistic<"numActivations", "activations",
              "Nodes that quantize or dequantize activations">,
    Statistic<"numKept", "kept", "Quantized nodes left as they are">
  ];
}

#endif // NIBBLE_CONVERSION_ONNXTONIBBLE_TD
