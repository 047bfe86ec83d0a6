//===- OnnxDialect.td - The onnx dialect -------------------*- tablegen -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_IR_ONNXDIALECT_TD
#define NIBBLE_DIALECT_ONNX_IR_ONNXDIALECT_TD

include "mlir/IR/OpBase.td"

def Onnx_Dialect : Dialect {
  let name = "onnx";
  let cppNamespace = "::nibble::onnx";
  let summary = "An ONNX model, kept exactly";
  let description = [{
    The dialect holds an ONNX graph without a loss: every node is an
    `onnx.node` that names its op type, every initializer an `onnx.constant`
    whose numbers stay in the mapped file until somebody asks for them.

    A model is a `builtin.module`: its main graph is a `func.func` with an
    `onnx.graph` attribute, its local functions are `func.func`s with an
    `onnx.function` attribute, and what else the `ModelProto` says stands in
    `onnx.*` attributes of the module.

    One rule makes the round trip exact: what the dialect models is decoded
    into attributes that passes can read, and what it does not model (a field of
    a later ONNX version, a rare annotation) is kept verbatim, as the bytes of
    the protobuf wire format, and written back.
  }];
  let useDefaultAttributePrinterParser = 1;
  let useDefaultTypePrinterParser = 1;

  let extraClassDeclaration = [{
    /// The files that this context's weights live in. They stay mapped as long
    /// as the context lives.
    ::nibble::FileCache &getFiles() { return files; }
  private:
    void registerAttributes();
    ::nibble::FileCache files;
  public:
  }];
}

#endif // NIBBLE_DIALECT_ONNX_IR_ONNXDIALECT_TD
