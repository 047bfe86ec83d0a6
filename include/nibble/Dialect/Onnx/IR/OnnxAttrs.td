//===- OnnxAttrs.td - Attributes of the onnx dialect -------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_ONNXATTRS_TD
#define NIBBLE_DIALECT_ONNX_IR_ONNXATTRS_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/BuiltinAttributeInterfaces.td"
include "mlir/IR/EnumAttr.td"
include "mlir/IR/TensorEncoding.td"
include "nibble/Dialect/Onnx/IR/OnnxDialect.td"

class Onnx_Attr<string name, string attrMnemonic, list<Trait> traits = []>
    : AttrDef<Onnx_Dialect, name, traits> {
  let mnemonic = attrMnemonic;
}

// Which field of a TensorProto holds the numbers. The first letters of the
// cases are the names in onnx.proto.
def Onnx_TensorField : I32Enum<"TensorField", "the field that holds a tensor's numbers", [
    I32EnumCase<"raw_data", 0>, I32EnumCase<"float_data", 1>,
    I32EnumCase<"int32_data", 2>, I32EnumCase<"string_data", 3>,
    I32EnumCase<"int64_data", 4>, I32EnumCase<"double_data", 5>,
    I32EnumCase<"uint64_data", 6>, I32EnumCase<"external", 7>]> {
  let cppNamespace = "::nibble::onnx";
}

def Onnx_AttributeKind : I32Enum<"AttributeKind", "AttributeProto.AttributeType", [
    I32EnumCase<"FLOAT", 1>, I32EnumCase<"INT", 2>, I32EnumCase<"STRING", 3>,
    I32EnumCase<"TENSOR", 4>, I32EnumCase<"GRAPH", 5>, I32EnumCase<"FLOATS", 6>,
    I32EnumCase<"INTS", 7>, I32EnumCase<"STRINGS", 8>, I32EnumCase<"TENSORS", 9>,
    I32EnumCase<"GRAPHS", 10>, I32EnumCase<"SPARSE_TENSOR", 11>,
    I32EnumCase<"SPARSE_TENSORS", 12>, I32EnumCase<"TYPE_PROTO", 13>,
    I32EnumCase<"TYPE_PROTOS", 14>]> {
  let cppNamespace = "::nibble::onnx";
}

def Onnx_DimsAttr : Onnx_Attr<"Dims", "dims",
    [DeclareAttrInterfaceMethods<VerifiableTensorEncoding>]> {
  let summary = "Names of a tensor's dynamic dimensions";
  let description = [{
    The encoding of a ranked tensor whose dynamic dimensions have names (ONNX's
    `dim_param`). One entry for each dynamic dimension, in order; `?` stands for
    one without a name.

    ```mlir
    tensor<?x?x576xf32, #onnx.dims<"batch", "sequence">>
    ```
  }];
  let parameters = (ins ArrayRefParameter<"::mlir::StringAttr">:$symbols);
  let hasCustomAssemblyFormat = 1;
}

def Onnx_FileElementsAttr : Onnx_Attr<"FileElements", "file",
    [DeclareAttrInterfaceMethods<TypedAttrInterface>]> {
  let summary = "A tensor whose numbers stay in a mapped file";
  let description = [{
    `length` bytes at `offset` of the file at `path`, in the encoding of the
    `TensorProto` field that they come from: little-endian elements, sub-byte
    ones packed low bits first, or varints (`varint`) for the packed integer
    fields. Nothing is read before `getBytes` is called.

    The text form ends with a hash of the bytes (XXH3, 64 bits), which is checked
    when it is parsed again; bytecode holds the reference without the hash, so
    that neither writing nor reading it touches the weights.

    A relative path is relative to the working directory.

    ```mlir
    #onnx.file<"model.onnx.data"[4096, 1327104], hash "7c1f8a0b3e5d9f21"> : tensor<576x576xf32>
    ```
  }];
  let parameters = (ins
    AttributeSelfTypeParameter<"", "::mlir::ShapedType">:$type,
    "::mlir::StringAttr":$path, "uint64_t":$offset, "uint64_t":$length,
    "bool":$varint);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    /// The bytes in the mapped file. Empty if the file is not mapped or too
    /// short, which the parser and the importer have excluded.
    ::llvm::ArrayRef<char> getBytes() const;
  }];
}

def Onnx_StringsAttr : Onnx_Attr<"Strings", "strings",
    [DeclareAttrInterfaceMethods<TypedAttrInterface>]> {
  let summary = "The elements of a tensor of strings";
  let parameters = (ins AttributeSelfTypeParameter<"", "::mlir::ShapedType">:$type,
                        "::mlir::ArrayAttr":$elements);
  let assemblyFormat = "`<` $elements `>`";
}

def Onnx_WireAttr : Onnx_Attr<"Wire", "wire"> {
  let summary = "Verbatim bytes in protobuf's wire format";
  let description = [{
    What the dialect does not model, kept as it stood in the file.
  }];
  let parameters = (ins "::mlir::StringAttr":$bytes);
  let assemblyFormat = "`<` $bytes `>`";
}

def Onnx_TensorAttr : Onnx_Attr<"Tensor", "tensor"> {
  let summary = "A `TensorProto` that is a node's attribute";
  let description = [{
    `value` holds the numbers (`dense`, `#onnx.file` or `#onnx.strings`) or, for a
    tensor that none of them can express, the whole message (`#onnx.wire`).
    `extras` holds the name, doc string, metadata and unmodelled fields.
  }];
  let parameters = (ins "::mlir::Attribute":$value,
    DefaultValuedParameter<"::nibble::onnx::TensorField",
                           "::nibble::onnx::TensorField::raw_data">:$field,
    OptionalParameter<"::mlir::DictionaryAttr">:$extras);
  let assemblyFormat = "`<` $value (`in` $field^)? (`extras` $extras^)? `>`";
}

def Onnx_SparseTensorAttr : Onnx_Attr<"SparseTensorData", "sparse"> {
  let summary = "A `SparseTensorProto`: values, indices and dense shape";
  let parameters = (ins "::nibble::onnx::TensorAttr":$values,
    "::nibble::onnx::TensorAttr":$indices, ArrayRefParameter<"int64_t">:$dims);
  let hasCustomAssemblyFormat = 1;
}

def Onnx_AttributeReferenceAttr : Onnx_Attr<"AttributeReference", "ref"> {
  let summary = "The value of an attribute of the surrounding local function";
  let parameters = (ins "::mlir::StringAttr":$name,
                        EnumParameter<Onnx_AttributeKind>:$kind);
  // No colon: it would start the type of the string.
  let assemblyFormat = "`<` $name `as` $kind `>`";
}

def Onnx_NodeAttributeAttr : Onnx_Attr<"NodeAttribute", "attribute"> {
  let summary = "An `AttributeProto`: a name and a value";
  let description = [{
    The class of `value` says the kind: `f32` (FLOAT), `i64` (INT), a string
    (STRING), `array<f32: …>` (FLOATS), `array<i64: …>` (INTS), an array of
    strings (STRINGS), `#onnx.tensor` (TENSOR), `#onnx.graph` (GRAPH; the body is
    the node's region of the same order), `#onnx.sparse` (SPARSE_TENSOR), a type
    (TYPE_PROTO), arrays of those, `#onnx.ref`, or `#onnx.wire` for a message
    that is none of these.
  }];
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::Attribute":$value);
  let assemblyFormat = "`<` $name `=` $value `>`";
}

def Onnx_ValueInfoAttr : Onnx_Attr<"ValueInfo", "value_info"> {
  let summary = "A `ValueInfoProto` that says more than a name and a type";
  let parameters = (ins "::mlir::StringAttr":$name, "::mlir::StringAttr":$bytes);
  let assemblyFormat = "`<` $name `,` $bytes `>`";
}

def Onnx_GraphAttr : Onnx_Attr<"Graph", "graph"> {
  let summary = "What a `GraphProto` says besides its nodes and initializers";
  let description = [{
    Describes the graph in a function or in a region of a node. `inputs`,
    `outputs` and `value_info` list names in the order of the file; the types are
    those of the values. An entry that says more than name and type is an
    `#onnx.value_info`. The inputs that are no constants of the graph are, in
    order, the arguments of its block.
  }];
  let parameters = (ins OptionalParameter<"::mlir::StringAttr">:$name,
    "::mlir::ArrayAttr":$inputs, "::mlir::ArrayAttr":$outputs,
    "::mlir::ArrayAttr":$valueInfo,
    OptionalParameter<"::mlir::DictionaryAttr">:$extras);
  let assemblyFormat = [{
    `<` (`name` $name^ ` `)? `inputs` $inputs `outputs` $outputs `value_info` $valueInfo
    (`extras` $extras^)? `>`
  }];
}

def Onnx_OpsetAttr : Onnx_Attr<"Opset", "opset"> {
  let summary = "An `OperatorSetIdProto`: a domain and its version";
  let description = [{
    The domain is absent (not stated) or a string; `""` is ONNX's own.
  }];
  let parameters = (ins OptionalParameter<"::mlir::StringAttr">:$domain, "int64_t":$version);
  let assemblyFormat = "`<` $version (`in` $domain^)? `>`";
}

def Onnx_FunctionAttr : Onnx_Attr<"Function", "function"> {
  let summary = "What a `FunctionProto` says besides its nodes";
  let parameters = (ins OptionalParameter<"::mlir::StringAttr">:$name,
    OptionalParameter<"::mlir::StringAttr">:$domain,
    OptionalParameter<"::mlir::StringAttr">:$overload,
    "::mlir::ArrayAttr":$inputs, "::mlir::ArrayAttr":$outputs,
    "::mlir::ArrayAttr":$attributes, "::mlir::ArrayAttr":$defaults,
    "::mlir::ArrayAttr":$opsets, "::mlir::ArrayAttr":$valueInfo,
    OptionalParameter<"::mlir::DictionaryAttr">:$extras);
  let assemblyFormat = "`<` struct(params) `>`";
}

#endif // NIBBLE_DIALECT_ONNX_IR_ONNXATTRS_TD
