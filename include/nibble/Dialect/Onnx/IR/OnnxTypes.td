//===- OnnxTypes.td - Types of the onnx dialect ------------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_ONNXTYPES_TD
#define NIBBLE_DIALECT_ONNX_IR_ONNXTYPES_TD

include "mlir/IR/AttrTypeBase.td"
include "nibble/Dialect/Onnx/IR/OnnxDialect.td"

class Onnx_Type<string name, string typeMnemonic> : TypeDef<Onnx_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def Onnx_UnknownType : Onnx_Type<"Unknown", "unknown"> {
  let summary = "A value whose type the model does not state";
  let description = [{
    The type of a value without a `ValueInfoProto`, and the element type of a
    tensor whose `elem_type` is UNDEFINED. Shape inference replaces it.
  }];
}

def Onnx_StringType : Onnx_Type<"String", "string"> {
  let summary = "Element type of a tensor of strings";
}

def Onnx_SequenceType : Onnx_Type<"Sequence", "sequence"> {
  let summary = "`TypeProto.Sequence`: a list of values of one type";
  let parameters = (ins "::mlir::Type":$elementType);
  let assemblyFormat = "`<` $elementType `>`";
}

def Onnx_OptionalType : Onnx_Type<"Optional", "optional"> {
  let summary = "`TypeProto.Optional`: a value or nothing";
  let parameters = (ins "::mlir::Type":$elementType);
  let assemblyFormat = "`<` $elementType `>`";
}

def Onnx_MapType : Onnx_Type<"Map", "map"> {
  let summary = "`TypeProto.Map`: integer or string keys, values of one type";
  let parameters = (ins "::mlir::Type":$keyType, "::mlir::Type":$valueType);
  let assemblyFormat = "`<` $keyType `,` $valueType `>`";
}

def Onnx_SparseTensorType : Onnx_Type<"SparseTensor", "sparse_tensor"> {
  let summary = "`TypeProto.SparseTensor`: a tensor given by coordinates";
  let parameters = (ins "::mlir::TensorType":$tensorType);
  let assemblyFormat = "`<` $tensorType `>`";
}

def Onnx_OpaqueType : Onnx_Type<"Opaque", "opaque"> {
  let summary = "`TypeProto.Opaque`: a type that only its domain knows";
  let parameters = (ins "::mlir::StringAttr":$domain, "::mlir::StringAttr":$name);
  let assemblyFormat = "`<` $domain `,` $name `>`";
}

#endif // NIBBLE_DIALECT_ONNX_IR_ONNXTYPES_TD
