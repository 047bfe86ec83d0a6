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
def Nibble_FloatVector : AnyTypeOf<
    [1DTensorOf<[F32]>, MemRefRankOf<[F32], [1]>], "vector of f32",
    "::mlir::ShapedType">;
def Nibble_PackedWeight : AnyTypeOf<
    [1DTensorOf<[I8, F32]>, MemRefRankOf<[I8, F32], [1]>],
    "vector of bytes or of f32", "::mlir::ShapedType">;

def Nibble_PackedMatmulOp : Nibble_Op<"packed_matmul", [
    DestinationStyleOpInterface,
    DeclareOpInterfaceMethods<MemoryEffectsOpInterface>]> {
  let summary = "Matrix product with a weight in a kernel's layout";
  let description = [{
    What `nibble.matmul` means (Spec S12, S13) once the weight's layout is
    chosen: `weight_type` is the weight's type, a matrix [K, N], and the operand
    holds it as PanelPacking.h says. A quantized weight has the layout `panel`
    (Spec C28); one without an encoding is held in f32 panels. All of `outs` is
    overwritten.

    ```mlir
    %y = nibble.packed_matmul %x, %panels bias(%b : tensor<64xf32>) outs(%e)
        weight tensor<128x64xf32, #nibble.quantized<u4, block = [128, 1],
            scale = f32, layout = panel {group = 128 : i64}>> compute i8
        : tensor<?x128xf32>, tensor<4352xi8>, tensor<?x64xf32>
    ```
  }];
  let arguments = (ins
    Nibble_FloatMatrix:$activations,
    Nibble_PackedWeight:$weight,
    Optional<Nibble_FloatVector>:$bias,
    Nibble_FloatMatrix:$init,
    TypeAttrOf<AnyRankedTensor>:$weight_type,
    TypeAttr:$compute_type
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

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEKERNELOPS_TD
