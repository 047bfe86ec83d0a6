//===- OnnxOps.td - Operations of the onnx dialect ---------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_ONNXOPS_TD
#define NIBBLE_DIALECT_ONNX_IR_ONNXOPS_TD

include "mlir/IR/OpAsmInterface.td"
include "mlir/Interfaces/ControlFlowInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "nibble/Dialect/Onnx/IR/OnnxAttrs.td"
include "nibble/Dialect/Onnx/IR/OnnxTypes.td"

class Onnx_Op<string mnemonic, list<Trait> traits = []>
    : Op<Onnx_Dialect, mnemonic, traits>;

def Onnx_ConstantOp : Onnx_Op<"constant", [
    Pure, DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "An initializer";
  let description = [{
    A named constant. Its value is `dense` (small), `#onnx.file` (in the mapped
    file), `dense_resource` (computed by a pass), `#onnx.strings`, `#onnx.sparse`
    or, where none can express it, `#onnx.wire` (the whole `TensorProto`). `field`
    is the `TensorProto` field to write it to.

    A constant that is listed in its graph's `inputs` too may be overridden by
    the caller; Nibble takes the value that the model gives.

    ```mlir
    %w = onnx.constant "q_proj.weight" : tensor<576x576xf32>
        = #onnx.file<"m.onnx.data"[0, 1327104], hash "7c1f8a0b3e5d9f21"> in external
    ```
  }];
  let arguments = (ins StrAttr:$name, AnyAttr:$value,
    DefaultValuedAttr<EnumAttr<Onnx_Dialect, Onnx_TensorField, "field">,
                      "::nibble::onnx::TensorField::raw_data">:$field,
    OptionalAttr<DictionaryAttr>:$extras);
  let results = (outs AnyType:$result);
  let assemblyFormat = [{
    $name custom<TypedValue>($value, type($result)) (`in` `` $field^)?
    (`extras` $extras^)? attr-dict
  }];
  let hasVerifier = 1;
}

def Onnx_AbsentOp : Onnx_Op<"absent", [Pure]> {
  let summary = "The place of an optional input that is left out";
  let description = [{
    Stands for the empty name in a node's inputs.
  }];
  let results = (outs NoneType:$result);
  let assemblyFormat = "attr-dict";
}

def Onnx_NodeOp : Onnx_Op<"node", [
    DeclareOpInterfaceMethods<OpAsmOpInterface, ["getAsmResultNames"]>]> {
  let summary = "A node of an ONNX graph";
  let description = [{
    Calls the op `op_type` of `domain` in the version that the model imports.
    `outputs` are the ONNX names of the results; an empty name is an output that
    nobody asked for. `attributes` keep their order. The regions are the
    subgraphs (`then_branch`, `body`, …), in the order of the GRAPH attributes;
    they may use values of the surrounding graph.

    ```mlir
    %y = onnx.node "Gemm"(%x, %w) name "fc1" outputs ["y"] {transB = 1 : i64}
        : (tensor<?x64xf32>, tensor<10x64xf32>) -> tensor<?x10xf32>
    ```
  }];
  let arguments = (ins StrAttr:$op_type, OptionalAttr<StrAttr>:$domain,
    OptionalAttr<StrAttr>:$overload, OptionalAttr<StrAttr>:$name,
    StrArrayAttr:$outputs,
    DefaultValuedAttr<TypedArrayAttrBase<Onnx_NodeAttributeAttr, "node attributes">, "{}">:$node_attributes,
    OptionalAttr<DictionaryAttr>:$extras, Variadic<AnyType>:$inputs);
  let results = (outs Variadic<AnyType>:$results);
  let regions = (region VariadicRegion<SizedRegion<1>>:$subgraphs);
  let assemblyFormat = [{
    $op_type (`in` $domain^)? (`overload` $overload^)? `(` $inputs `)`
    (`name` $name^)? `outputs` $outputs custom<NodeAttributes>($node_attributes)
    (`extras` $extras^)? attr-dict `:` functional-type($inputs, $results)
    ($subgraphs^)?
  }];
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The value of the attribute called `name`, or null.
    ::mlir::Attribute getAttributeValue(::llvm::StringRef name);
    /// Sets the attribute called `name`, in place or at the end.
    void setAttributeValue(::llvm::StringRef name, ::mlir::Attribute value);
    void removeAttributeValue(::llvm::StringRef name);
    int64_t getInt(::llvm::StringRef name, int64_t defaultValue);
    float getFloat(::llvm::StringRef name, float defaultValue);
    ::llvm::StringRef getString(::llvm::StringRef name, ::llvm::StringRef defaultValue);
    /// The value of an INTS attribute; std::nullopt where it is absent.
    std::optional<::llvm::ArrayRef<int64_t>> getInts(::llvm::StringRef name);

    /// True for `opType` of ONNX's own domain.
    bool isOnnx(::llvm::StringRef opType);
    /// True for `opType` of the domain com.microsoft.
    bool isMicrosoft(::llvm::StringRef opType);
    /// The input at `index`, or null where it is left out.
    ::mlir::Value getInput(unsigned index);
    /// The ONNX name of a result.
    ::llvm::StringRef getOutputName(unsigned index);
    /// How a message calls this node: its name, or its first output's.
    std::string getDisplayName();
  }];
}

def Onnx_ReturnOp : Onnx_Op<"return", [Pure, Terminator, ReturnLike]> {
  let summary = "The outputs of a subgraph";
  let arguments = (ins Variadic<AnyType>:$operands);
  let assemblyFormat = "attr-dict ($operands^ `:` type($operands))?";
}

#endif // NIBBLE_DIALECT_ONNX_IR_ONNXOPS_TD
