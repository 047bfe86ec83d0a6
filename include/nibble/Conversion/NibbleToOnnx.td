//===- NibbleToOnnx.td - Quantized tensors to ONNX's ops ---*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_NIBBLETOONNX_TD
#define NIBBLE_CONVERSION_NIBBLETOONNX_TD

include "mlir/Pass/PassBase.td"

def ConvertNibbleToOnnx : Pass<"convert-nibble-to-onnx", "::mlir::ModuleOp"> {
  let summary = "Write quantized weights as ops that stock runtimes know";
  let description = [{
    Replaces every `nibble.assemble` of constants, and the nodes that read it, by
    ops of ONNX or com.microsoft that hold exactly its codes and scales:

    | format        | reader            | becomes                                   |
    |---------------|-------------------|-------------------------------------------|
    | `matmulnbits` | MatMul, Gemm      | MatMulNBits (containers of 2, 4, 8 bits)  |
    |               | Gather            | GatherBlockQuantized (4, 8 bits)          |
    | `bnb4`        | MatMul, Gemm      | MatMulBnb4 (nf4, fp4)                     |
    | `qdq`         | any node          | DequantizeLinear before the node          |

    `auto` takes the first row that can express a weight and all of its readers. In
    every format a product of 8-bit weights with activations that
    `nibble.quantize_dynamic` gives becomes DynamicQuantizeLinear and MatMulInteger.
    A code of 3 bits takes a container of 4, one of 5 to 7 bits a container of 8;
    the numbers stay what they are. A weight that several nodes read is stored
    once.

    What `--convert-onnx-to-nibble` read from a node, and no pass has changed
    since, becomes that very node again: always with `auto`, with another format
    where the node is of that format or the format cannot hold the weight.
    Activations always go back to the nodes that they were.

    Scales that are quantized again (`--nibble-quantize-scales`) are computed from their
    codes by Cast, Sub, Mul and Reshape before DequantizeLinear; runtimes do that once, when
    they load the model. The other formats have no place for them.

    The opset is raised only where `qdq` needs it, and only if every node of the
    model keeps its meaning; otherwise the pass fails and names the node.

    ```mlir
    %w = nibble.assemble %codes scales(%scales) zeros(%zeros) : tensor<256x64xf32,
      #nibble.quantized<u4, block = [128, 1], scale = f32, zero = u4>>
    %y = onnx.node "MatMul"(%x, %w) outputs ["y"] …
    ```
    becomes
    ```mlir
    %b = onnx.constant "w_Q4" : tensor<64x2x64xui8> = …
    %s = onnx.constant "w_scales" : tensor<64x2xf32> = …
    %z = onnx.constant "w_zero_points" : tensor<64x1xui8> = …
    %y = onnx.node "MatMulNBits" in "com.microsoft"(%x, %b, %s, %z) outputs ["y"]
      {K = 256 : i64, N = 64 : i64, bits = 4 : i64, block_size = 128 : i64, accuracy_level = 1 : i64} …
    ```
  }];
  let options = [
    Option<"format", "format", "std::string", "\"auto\"",
           "auto, matmulnbits, bnb4 or qdq">,
    Option<"accuracyLevel", "accuracy-level", "int64_t", "1",
           "How MatMulNBits computes: 1 in f32, 4 with activations rounded to "
           "int8 (faster, less exact)">
  ];
  let statistics = [
    Statistic<"numMatMulNBits", "matmulnbits", "MatMulNBits nodes">,
    Statistic<"numGathers", "gathers", "GatherBlockQuantized nodes">,
    Statistic<"numBnb4", "bnb4", "MatMulBnb4 nodes">,
    Statistic<"numIntegerProducts", "integer-products", "MatMulInteger nodes">,
    Statistic<"numDequantize", "dequantize", "DequantizeLinear nodes">,
    Statistic<"numRestored", "restored", "Nodes written as they had been read">
  ];
}

#endif // NIBBLE_CONVERSION_NIBBLETOONNX_TD
