//===- ImportTensor.h - TensorProto to attributes ---------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_ONNX_IMPORTTENSOR_H
#define NIBBLE_LIB_ONNX_IMPORTTENSOR_H

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Onnx/Wire.h"

namespace nibble {

/// A `TensorProto`, decoded.
struct ImportedTensor {
  std::string name;
  mlir::RankedTensorType type;
  /// dense, #onnx.file, #onnx.strings or (the whole message) #onnx.wire.
  mlir::Attribute value;
  onnx::TensorField field = onnx::TensorField::raw_data;
  /// Without the name.
  mlir::DictionaryAttr extras;
};

/// Imports the tensors of one model, whose bytes are mapped.
class TensorImporter {
public:
  TensorImporter(mlir::MLIRContext *context, const MappedFile &model);

  /// Decodes a `TensorProto`. An error names the tensor.
  llvm::Expected<ImportedTensor> import(llvm::StringRef message);

  /// Checks that no two external tensors share a part of a file. (Two may share
  /// all of it: that is how tied weights are stored once.)
  llvm::Error checkOverlaps();

private:
  struct Parts;
  struct ExternalRange {
    std::string path;
    uint64_t offset, length;
    std::string tensor;
  };

  llvm::Error decode(llvm::StringRef message, Parts &parts);
  llvm::Error setShape(Parts &parts);
  llvm::Error importExternal(Parts &parts);
  llvm::Error importRaw(Parts &parts);
  llvm::Error importTyped(Parts &parts);
  llvm::Error importStrings(Parts &parts);
  llvm::Expected<std::string> resolveLocation(const Parts &parts,
                                              llvm::StringRef location);
  /// The value for raw bytes that lie in a file: dense if they are few.
  mlir::Attribute makeValue(mlir::RankedTensorType type, const MappedFile &file,
                            llvm::StringRef bytes);

  mlir::MLIRContext *context;
  const MappedFile &model;
  std::vector<ExternalRange> externalRanges;
};

} // namespace nibble

#endif // NIBBLE_LIB_ONNX_IMPORTTENSOR_H
