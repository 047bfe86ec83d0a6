//===- RunModel.cpp - Run a model on tensors from files -------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Tools/RunModel.h"

#include "nibble/Conversion/StoredBytes.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Onnx/TensorFile.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

Expected<HostTensor> nibble::readHostTensor(StringRef path,
                                            MLIRContext *context) {
  auto value = readTensorFile(path, context);
  if (!value)
    return value.takeError();
  auto type = cast<ShapedType>(value->getType());
  std::optional<TensorBytes> data = getTensorBytes(*value);
  if (!data)
    return makeError("'" + path + "' holds no numbers");
  HostTensor tensor;
  tensor.elementType = type.getElementType();
  tensor.shape = type.getShape().vec();
  tensor.bytes =
      unpackElements(data->bytes, tensor.elementType, type.getNumElements());
  return tensor;
}

Error nibble::writeHostTensor(const HostTensor &tensor, StringRef path,
                              StringRef name) {
  return writeTensorFile(path, name, tensor.elementType, tensor.shape,
                         packElements(tensor.bytes, tensor.elementType));
}

static std::string getTensorPath(StringRef folder, StringRef kind,
                                 size_t index) {
  SmallString<128> path(folder);
  llvm::sys::path::append(path, kind + "_" + Twine(index) + ".pb");
  return path.str().str();
}

Error nibble::runModel(const CompiledModel &model, StringRef inputs,
                       StringRef outputs, MLIRContext *context) {
  std::vector<HostTensor> tensors;
  for (size_t i = 0; i < model.getInputTypes().size(); ++i) {
    auto tensor = readHostTensor(getTensorPath(inputs, "input", i), context);
    if (!tensor)
      return tensor.takeError();
    tensors.push_back(std::move(*tensor));
  }
  auto results = model.run(tensors);
  if (!results)
    return makeError("'" + inputs +
                     "': " + llvm::toString(results.takeError()));
  if (std::error_code error = llvm::sys::fs::create_directories(outputs))
    return makeError("cannot make the folder '" + outputs +
                     "': " + error.message());
  for (auto [i, result] : llvm::enumerate(*results))
    if (Error error = writeHostTensor(
            result, getTensorPath(outputs, "output", i), "output"))
      return error;
  return Error::success();
}
