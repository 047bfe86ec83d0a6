//===- NibbleKernelOps.td - What code generation adds ------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEKERNELOPS_TD
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEKERNELOPS_TD

include "mlir/Interfaces/DestinationStyleOpInterface.td"
include "nibble/Dialect/Nibble/IR/NibbleOps.td"

def Nibble_FloatMatrix : AnyTypeOf<
    [2DTensorOf<[F32]>, MemRefRankOf<[F32], [2]>], "matrix of f32",
    "::mlir::ShapedType">;
def Nibble_ActivationMatrix : AnyTypeOf<
    [2DTensorOf<[F32, I8]>, MemRefRankOf<[F32, I8], [2]>],
    "matrix of f32 or of signed bytes", "::mlir::ShapedType">;
def Nibble_FloatVector : AnyTypeOf<
    [1DTensorOf<[F32]>, MemRefRankOf<[F32], [1]>], "vector of f32",
    "::mlir::ShapedType">;
def Nibble_PackedWeight : AnyTypeOf<
    [1DTensorOf<[I8, F32, F16, BF16]>, MemRefRankOf<[I8, F32, F16, BF16], [1]>],
    "vector of bytes or of floats", "::mlir::ShapedType">;

def Nibble_PackedMatmulOp : Nibble_Op<"packed_matmul", [
    DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "Matrix product with a weight in a kernel's layout";
  let description = [{
    What `nibble.matmul` means (Spec S12, S13) once the weight's layout is
    chosen: `weight_type` is the weight's type, a matrix [K, N], and the operand
    holds it as PanelPacking.h says. A quantized weight has the layout `panel`
    (Spec C28); one without an encoding is held in panels of its elements, f32, f16 or bf16. All of `outs` is
    overwritten.

    Activations of i8 are signed codes without a zero point: each stands for
    `activation_scale` times itself.

    ```mlir
    %y = nibble.packed_matmul %x, %panels bias(%b : tensor<64xf32>) outs(%e)
        weight tensor<128x64xf32, #nibble.quantized<u4, block = [128, 1],
            scale = f32, layout = panel {group = 128 : i64}>> compute i8
        : tensor<?x128xf32>, tensor<4352xi8>, tensor<?x64xf32>
    ```
  }];
  let arguments = (ins
    Nibble_ActivationMatrix:$activations,
    Nibble_PackedWeight:$weight,
    Optional<Nibble_FloatVector>:$bias,
    Nibble_FloatMatrix:$init,
    TypeAttrOf<AnyRankedTensor>:$weight_type,
    TypeAttr:$compute_type,
    OptionalAttr<F32Attr>:$activation_scale
  );
  let results = (outs Variadic<2DTensorOf<[F32]>>:$results);
  let assemblyFormat = [{
    $activations `,` $weight (`bias` `(` $bias^ `:` type($bias) `)`)?
    `outs` `(` $init `)` `weight` $weight_type `compute` $compute_type attr-dict
    `:` type($activations) `,` type($weight) `,` type($init)
    (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::RankedTensorType getWeightTensorType() {
      return ::llvm::cast<::mlir::RankedTensorType>(getWeightType());
    }
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return getInitMutable();
    }
  }];
}

def Nibble_HalfMatrix : AnyTypeOf<
    [2DTensorOf<[F16]>, MemRefRankOf<[F16], [2]>], "matrix of f16",
    "::mlir::ShapedType">;
def Nibble_PackedFragments : AnyTypeOf<
    [1DTensorOf<[I8]>, MemRefRankOf<[I8], [1]>], "vector of bytes",
    "::mlir::ShapedType">;

def Nibble_FragmentMatmulOp : Nibble_Op<"fragment_matmul", [
    DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "Matrix product with a weight packed for tensor cores";
  let description = [{
    What `nibble.matmul` means in `f16` (Spec S13) once the weight is packed for the
    tensor cores of a GPU: `weight_type` is the weight's type, a matrix [K, N] with the
    layout `fragment` (Spec C32), and the operand holds its codes and then its
    scales as FragmentPacking.h says. Rows are padded to multiples of 8 numbers, which
    are not read. All of `outs` is overwritten.

    ```mlir
    %y = nibble.fragment_matmul %x, %packed outs(%e)
        weight tensor<128x64xf32, #nibble.quantized<u4, block = [32, 1],
            scale = f16, zero = u4, layout = fragment {group = 32 : i64}>>
        : tensor<?x128xf16>, tensor<6144xi8>, tensor<?x64xf16>
    ```
  }];
  let arguments = (ins
    Nibble_HalfMatrix:$activations,
    Nibble_PackedFragments:$weight,
    Nibble_HalfMatrix:$init,
    TypeAttrOf<AnyRankedTensor>:$weight_type
  );
  let results = (outs Variadic<2DTensorOf<[F16]>>:$results);
  let assemblyFormat = [{
    $activations `,` $weight `outs` `(` $init `)` `weight` $weight_type attr-dict
    `:` type($activations) `,` type($weight) `,` type($init)
    (`->` type($results)^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    ::mlir::RankedTensorType getWeightTensorType() {
      return ::llvm::cast<::mlir::RankedTensorType>(getWeightType());
    }
    ::mlir::MutableOperandRange getDpsInitsMutable() {
      return getInitMutable();
    }
  }];
}

//===----------------------------------------------------------------------===//
// Steps of a kernel that targets do in their own way
//===----------------------------------------------------------------------===//

def Nibble_SumVector : FixedVectorOfRankAndType<[1], [I32]>;
def Nibble_ByteVector : FixedVectorOfRankAndType<[1], [I8]>;

def Nibble_Dot4Op : Nibble_Op<"dot4", [
    Pure, AllTypesMatch<["sums", "result"]>,
    AllTypesMatch<["weights", "activations"]>]> {
  let summary = "Adds products of four unsigned by four signed bytes to each sum";
  let description = [{
    `result[i] = sums[i] + Σ_{j<4} weights[4i + j] · activations[4i + j]`, the
    weights taken as unsigned, the activations as signed bytes, in i32 without
    saturation. Processors have an instruction for it; `--nibble-lower-micro-ops`
    picks it, or spells the op out.

    ```mlir
    %s = nibble.dot4 %sums, %w, %a : vector<16xi32>, vector<64xi8>
    ```
  }];
  let arguments = (ins
    Nibble_SumVector:$sums, Nibble_ByteVector:$weights,
    Nibble_ByteVector:$activations,
    // The largest weight, where it is known to be less than 255.
    DefaultValuedAttr<I64Attr, "255">:$max_weight
  );
  let results = (outs Nibble_SumVector:$result);
  let assemblyFormat = [{
    $sums `,` $weights `,` $activations attr-dict
    `:` type($sums) `,` type($weights)
  }];
  let hasVerifier = 1;
}

def Nibble_LookupOp : Nibble_Op<"lookup", [Pure]> {
  let summary = "Entries of a table of 16";
  let description = [{
    `result[i] = table[indices[i]]`; an index is 0 to 15, and as wide as an entry.
    Processors have shuffles for it; `--nibble-lower-micro-ops` picks one, or
    spells the op out.

    ```mlir
    %w = nibble.lookup %table, %codes
        : vector<16xi8>, vector<64xi8> -> vector<64xi8>
    ```
  }];
  let arguments = (ins
    FixedVectorOfLengthAndType<[16], [I8, F32]>:$table,
    FixedVectorOfRankAndType<[1], [I8, I32]>:$indices
  );
  let results = (outs FixedVectorOfRankAndType<[1], [I8, F32]>:$result);
  let assemblyFormat = [{
    $table `,` $indices attr-dict `:` type($table) `,` type($indices) `->`
    type($result)
  }];
  let hasVerifier = 1;
}

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEKERNELOPS_TD
