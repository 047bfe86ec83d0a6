//===- NibbleDialect.td - The nibble dialect ---------------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_TD
#define NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_TD

include "mlir/IR/OpBase.td"

def Nibble_Dialect : Dialect {
  let name = "nibble";
  let cppNamespace = "::nibble";
  let summary = "Quantized tensors: how they are stored, and what their ops mean";
  let description = [{
    Quantization is a property of a tensor's type. The encoding says how a
    tensor of real numbers is stored,

    ```mlir
    tensor<4096x11008xf32, #nibble.quantized<u4, block = [32, 1], scale = f16, zero = u4>>
    ```

    and the few ops here join a quantized tensor from its parts, take it apart,
    and convert between it and plain floats. docs/Spec.md numbers every
    constraint (C1, C2, ...) and fixes the meaning of each op (S1, S2, ...);
    docs/Rationale.md says why.
  }];
  let useDefaultAttributePrinterParser = 1;
  let extraClassDeclaration = [{
    void registerAttributes();
  }];
}

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_TD
