//===- TensorFile.cpp - Single tensors from and to files ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/TensorFile.h"

#include "ImportTensor.h"
#include "nibble/Dialect/Onnx/IR/DataTypes.h"
#include "nibble/Onnx/Schema.h"
#include "nibble/Support/OutputFile.h"

using namespace mlir;
using namespace nibble;

llvm::Expected<TypedAttr> nibble::readTensorFile(StringRef path,
                                                 MLIRContext *context) {
  auto *dialect = context->getOrLoadDialect<onnx::OnnxDialect>();
  auto file = dialect->getFiles().get(path);
  if (!file)
    return file.takeError();
  ArrayRef<char> bytes = (*file)->getBytes();
  TensorImporter importer(context, **file);
  auto tensor = importer.import(StringRef(bytes.data(), bytes.size()));
  if (!tensor)
    return tensor.takeError();
  auto value = dyn_cast<TypedAttr>(tensor->value);
  if (!value)
    return llvm::createStringError(llvm::inconvertibleErrorCode(),
                                   "'" + path + "' holds no plain tensor");
  return value;
}

llvm::Error nibble::writeTensorFile(StringRef path, StringRef name,
                                    Type elementType, ArrayRef<int64_t> shape,
                                    ArrayRef<char> bytes) {
  std::optional<uint64_t> dataType = onnx::getDataType(elementType);
  if (!dataType)
    return llvm::createStringError(
        llvm::inconvertibleErrorCode(),
        "'" + path + "': ONNX has no tensors of these elements");
  wire::Writer writer;
  for (int64_t size : shape)
    writer.writeInt(schema::TensorDims, size);
  writer.writeVarint(schema::TensorDataType, *dataType);
  writer.writeBytes(schema::TensorName, name);
  writer.writeReference(schema::TensorRawData, bytes, /*mapped=*/false);
  auto file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  writer.write((*file)->getStream());
  return (*file)->commit();
}
