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
}

#endif // NIBBLE_DIALECT_NIBBLE_IR_NIBBLEDIALECT_TD
