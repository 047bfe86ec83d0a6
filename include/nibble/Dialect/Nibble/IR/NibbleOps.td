//===- NibbleOps.td - Quantized tensors and their parts ----*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEOPS_TD
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEOPS_TD

include "mlir/IR/OpBase.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "nibble/Dialect/Nibble/IR/NibbleDialect.td"

def Nibble_QuantizedTensor : Type<
    CPred<"::nibble::isQuantized($_self)">, "quantized tensor",
    "::mlir::RankedTensorType">;

/// An expressed tensor: real numbers stored as they are (Spec C10).
def Nibble_FloatTensor : Type<
    And<[RankedTensorOf<[F32, F16, BF16]>.predicate,
         Neg<CPred<"::nibble::isQuantized($_self)">>]>,
    "tensor of f32, f16 or bf16", "::mlir::RankedTensorType">;

def Nibble_ActivationTensor : AnyTypeOf<
    [Nibble_FloatTensor, Nibble_QuantizedTensor], "",
    "::mlir::RankedTensorType">;

def Nibble_IndexTensor : RankedTensorOf<[I32, I64]>;

class Nibble_Op<string mnemonic, list<Trait> traits = []>
    : Op<Nibble_Dialect, mnemonic, traits>;

//===----------------------------------------------------------------------===//
// A quantized tensor and its parts
//===----------------------------------------------------------------------===//

def Nibble_AssembleOp : Nibble_Op<"assemble", [Pure, AttrSizedOperandSegments]> {
  let summary = "Joins codes, scales, zero points and outliers into one tensor";
  let description = [{
    The result's encoding says which parts there are, and their types follow
    from it (Spec C14 to C18), so only the types of the outliers are written.
    The meaning of the parts is Spec S3 to S8.

    ```mlir
    %w = nibble.assemble %codes scales(%scales) zeros(%zeros)
        : tensor<4096x64xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
    %v = nibble.assemble %codes scales(%scales)
        outliers(%rows, %values : tensor<5xi32>, tensor<5x64xf16>)
        : tensor<4096x64xf32, #nibble.quantized<i8, block = [*, 1], scale = f32,
                                                outliers = columns<0, f16>>>
    ```

    An assembly of all the parts of one tensor folds to that tensor.
  }];
  let arguments = (ins
    AnyRankedTensor:$codes,
    AnyRankedTensor:$scales,
    Optional<AnyRankedTensor>:$zeros,
    Optional<Nibble_IndexTensor>:$outlier_indices,
    Optional<AnyRankedTensor>:$outlier_values
  );
  let results = (outs Nibble_QuantizedTensor:$result);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
  let hasFolder = 1;
}

class Nibble_ProjectionOp<string mnemonic, string part>
    : Nibble_Op<mnemonic, [Pure, InferTypeOpAdaptor]> {
  let arguments = (ins Nibble_QuantizedTensor:$input);
  let results = (outs AnyRankedTensor:$result);
  let assemblyFormat = "$input attr-dict `:` type($input)";
  let summary = "The " # part # " of a quantized tensor";
  let hasVerifier = 1;
  let hasFolder = 1;
}

def Nibble_CodesOp : Nibble_ProjectionOp<"codes", "codes"> {
  let description = [{
    One code for each element, in logical order (Spec S1, C14). Folds against
    `nibble.assemble`.

    ```mlir
    // tensor<64x8xui4>
    %codes = nibble.codes %w
        : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
    ```
  }];
}

def Nibble_ScalesOp : Nibble_ProjectionOp<"scales", "scales"> {
  let description = [{
    One scale for each block (Spec S2, C15); itself a quantized tensor where the
    scale is nested. Folds against `nibble.assemble`.

    ```mlir
    // tensor<2x8xf16>
    %scales = nibble.scales %w
        : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16>>
    ```
  }];
}

def Nibble_ZerosOp : Nibble_ProjectionOp<"zeros", "zero points"> {
  let description = [{
    One zero point for each block (Spec S2, C16); the encoding must have one
    (Spec C19). Folds against `nibble.assemble`.

    ```mlir
    // tensor<2x8xui4>
    %zeros = nibble.zeros %w
        : tensor<64x8xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
    ```
  }];
}

def Nibble_OutliersOp : Nibble_Op<"outliers", [Pure]> {
  let summary = "The indices and values of a quantized tensor's outliers";
  let description = [{
    The encoding must have outliers (Spec C19). Their number is no part of the
    tensor's type, so the types of both results are written (Spec C17). Folds
    against `nibble.assemble` where the types agree.

    ```mlir
    %rows, %values = nibble.outliers %w
        : tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32,
                                             outliers = columns<0, f16>>>
        -> tensor<?xi32>, tensor<?x8xf16>
    ```
  }];
  let arguments = (ins Nibble_QuantizedTensor:$input);
  let results = (outs Nibble_IndexTensor:$indices, AnyRankedTensor:$values);
  let assemblyFormat = [{
    $input attr-dict `:` type($input) `->` type($indices) `,` type($values)
  }];
  let hasVerifier = 1;
  let hasFolder = 1;
}

def Nibble_IntegersOp : Nibble_Op<"integers", [Pure, InferTypeOpAdaptor]> {
  let summary = "The integers that are multiplied by the scales";
  let description = [{
    Each code less the zero point of its block, exact, as i32 (Spec S16). The
    storage is one of integers, the zero point too or absent, and there are no
    outliers (Spec C31). Scales play no part: products of such tensors are the
    sums that ONNX's MatMulInteger and ConvInteger give, modulo 2^32.

    ```mlir
    // tensor<64x8xi32>
    %i = nibble.integers %w
        : tensor<64x8xf32, #nibble.quantized<i8, block = [*, 1], scale = f32, zero = i8>>
    ```
  }];
  let arguments = (ins Nibble_QuantizedTensor:$input);
  let results = (outs RankedTensorOf<[I32]>:$result);
  let assemblyFormat = "$input attr-dict `:` type($input)";
  let hasVerifier = 1;
}

//===----------------------------------------------------------------------===//
// Between quantized and expressed tensors
//===----------------------------------------------------------------------===//

def Nibble_QuantizeOp : Nibble_Op<"quantize", [Pure]> {
  let summary = "Quantizes with given scales and zero points";
  let description = [{
    Divides by the block's scale, rounds half to even, adds the zero point and
    saturates (Spec S9, S10). The input's type is the result's without the
    encoding (Spec C20); the types of the parameters are as for
    `nibble.assemble` (Spec C15, C16).

    ```mlir
    %q = nibble.quantize %x scales(%scales) zeros(%zeros)
        : tensor<?x64xf32, #nibble.quantized<u8, block = [*, *], scale = f32, zero = u8>>
    ```

    `nibble.dequantize` of the result is not the input: the error of the
    quantization is the program's meaning, and nothing folds it away.
  }];
  let arguments = (ins
    Nibble_FloatTensor:$input,
    AnyRankedTensor:$scales,
    Optional<AnyRankedTensor>:$zeros
  );
  let results = (outs Nibble_QuantizedTensor:$result);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
}

def Nibble_QuantizeDynamicOp : Nibble_Op<"quantize_dynamic", [Pure]> {
  let summary = "Quantizes with scales and zero points found from the data";
  let description = [{
    Every block gets the scale (and zero point) of its own smallest and largest
    value (Spec S11), and is then quantized as by `nibble.quantize`. The input's
    type is the result's without the encoding (Spec C20); scales are floats and
    zero points codes of the storage (Spec C21).

    ```mlir
    %q = nibble.quantize_dynamic %x
        : tensor<?x64xf32, #nibble.quantized<i8, block = [1, *], scale = f32>>
    ```
  }];
  let arguments = (ins Nibble_FloatTensor:$input);
  let results = (outs Nibble_QuantizedTensor:$result);
  let hasCustomAssemblyFormat = 1;
  let hasVerifier = 1;
}

def Nibble_DequantizeOp : Nibble_Op<"dequantize", [Pure, InferTypeOpAdaptor]> {
  let summary = "The real numbers that a quantized tensor stands for";
  let description = [{
    Spec S3 to S8, for every storage. The result's type is the input's without
    the encoding (Spec C22).

    ```mlir
    // tensor<64x8xf32>
    %x = nibble.dequantize %w
        : tensor<64x8xf32, #nibble.quantized<nf4, block = [64, 1], scale = f32>>
    ```
  }];
  let arguments = (ins Nibble_QuantizedTensor:$input);
  let results = (outs Nibble_FloatTensor:$result);
  let assemblyFormat = "$input attr-dict `:` type($input)";
}

//===----------------------------------------------------------------------===//
// Computing with quantized tensors
//===----------------------------------------------------------------------===//

def Nibble_MatmulOp : Nibble_Op<"matmul", [Pure, InferTypeOpAdaptor]> {
  let summary = "Matrix product with a quantized weight";
  let description = [{
    `result[..., n] = sum over k of activations[..., k] * weight[k, n] + bias[n]`
    over the expressed values (Spec S12); `transposed` reads `weight[n, k]`
    instead, so that one tensor serves as an embedding and as a head. Shapes
    and bias are Spec C23, C24. The compute type says how exact the product is
    (Spec S13, C25):

    - `f32`: factors and sums in f32;
    - `f16`, `bf16`: factors rounded to that type, sums in f32;
    - `i8`: as f32, after the activations were quantized to i8 with one scale
      for each row and block of k.

    ```mlir
    %y = nibble.matmul %x, %w bias(%b : tensor<64xf32>) compute f32
        : tensor<?x4096xf32>,
          tensor<4096x64xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
    %z = nibble.matmul %x, transposed %v compute f16
        : tensor<1x?x4096xf32>,
          tensor<64x4096xf32, #nibble.quantized<i8, block = [1, *], scale = f32>>
    ```
  }];
  let arguments = (ins
    Nibble_ActivationTensor:$activations,
    Nibble_QuantizedTensor:$weight,
    Optional<Nibble_FloatTensor>:$bias,
    TypeAttr:$compute_type,
    UnitAttr:$transpose_weight
  );
  let results = (outs Nibble_FloatTensor:$result);
  let assemblyFormat = [{
    $activations `,` (`transposed` $transpose_weight^)? $weight
    (`bias` `(` $bias^ `:` type($bias) `)`)? `compute` $compute_type
    attr-dict `:` type($activations) `,` type($weight)
  }];
  let hasVerifier = 1;
}

def Nibble_GatherOp : Nibble_Op<"gather", [Pure, InferTypeOpAdaptor]> {
  let summary = "Slices of a quantized table, dequantized";
  let description = [{
    Replaces the table's dimension `axis` by the dimensions of the indices and
    dequantizes only the slices that were asked for (Spec S14, C26).

    ```mlir
    // tensor<1x?x64xf32>
    %x = nibble.gather %table[%ids] axis 0
        : tensor<49152x64xf32, #nibble.quantized<i8, block = [1, *], scale = f32>>,
          tensor<1x?xi64>
    ```
  }];
  let arguments = (ins
    Nibble_QuantizedTensor:$table,
    Nibble_IndexTensor:$indices,
    I64Attr:$axis
  );
  let results = (outs Nibble_FloatTensor:$result);
  let assemblyFormat = [{
    $table `[` $indices `]` `axis` $axis attr-dict
    `:` type($table) `,` type($indices)
  }];
}

def Nibble_ObserveOp : Nibble_Op<"observe",
    [AllTypesMatch<["input", "result"]>, MemoryEffects<[MemWrite]>]> {
  let summary = "A calibration probe: passes its operand through and records it";
  let description = [{
    The value is reported to whoever runs the model under the probe's id
    (Spec S15, C27). The write effect keeps it alive and in order although its
    result may be unused.

    ```mlir
    %y = nibble.observe "layers.0.q_proj/input" %x : tensor<?x576xf32>
    ```
  }];
  let arguments = (ins StrAttr:$id, AnyTensor:$input);
  let results = (outs AnyTensor:$result);
  let assemblyFormat = "$id $input attr-dict `:` type($input)";
  let hasVerifier = 1;
}

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEOPS_TD
