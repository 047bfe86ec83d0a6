//===- CalibrationData.cpp - The samples that a model is run on -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/CalibrationData.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Support/MappedFile.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <cmath>
#include <cstring>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(StringRef path, const Twine &what) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(),
                                 "calibration data '" + path + "': " + what);
}

static std::string getKind(RankedTensorType type) {
  DataType data = getDataType(type.getElementType());
  return getNumpyKind(data.code, data.bits);
}

/// "float32[?, 3]": what the model takes.
static std::string describe(RankedTensorType type) {
  std::string text = describeNumpyKind(getKind(type)) + "[";
  llvm::raw_string_ostream os(text);
  llvm::interleave(
      onnx::getDimensions(type), os,
      [&](const onnx::Dimension &dimension) {
        if (dimension.isStatic())
          os << dimension.size;
        else
          os << (dimension.symbol ? dimension.symbol.getValue() : "?");
      },
      ", ");
  return text + "]";
}

/// Index of the first element that is NaN or infinite.
template <typename Float>
static std::optional<size_t> findNotFinite(ArrayRef<char> bytes) {
  for (size_t i = 0; i < bytes.size() / sizeof(Float); ++i) {
    Float value;
    std::memcpy(&value, bytes.data() + i * sizeof(Float), sizeof(Float));
    if (!std::isfinite(value))
      return i;
  }
  return std::nullopt;
}

static Error checkFinite(StringRef path, const NpyArray &array) {
  std::optional<size_t> index;
  if (array.kind == "f4")
    index = findNotFinite<float>(array.bytes);
  else if (array.kind == "f8")
    index = findNotFinite<double>(array.bytes);
  if (!index)
    return Error::success();
  return makeError(path, "array '" + array.name +
                             "' has NaN or infinity at element " +
                             Twine(*index) + "; calibrate with finite numbers");
}

/// The arrays of an archive in the order of the model's inputs.
static Expected<std::vector<NpyArray>> readArrays(StringRef path,
                                                  const ModelInterface &model) {
  auto arrays = readNpz(path);
  if (!arrays)
    return arrays.takeError();
  std::vector<NpyArray> ordered;
  for (const ModelInterface::Value &input : model.inputs) {
    auto it = llvm::find_if(*arrays, [&](const NpyArray &array) {
      return array.name == input.name;
    });
    if (it == arrays->end())
      return makeError(path, "has no array '" + input.name + "', which is " +
                                 describe(input.type) + " in the model");
    std::string kind = getKind(input.type);
    if (it->kind != kind)
      return makeError(path, "array '" + input.name + "' is " +
                                 describeArray(it->kind, it->shape) +
                                 ", and the model takes " +
                                 describe(input.type));
    if (Error error = checkFinite(path, *it))
      return error;
    ordered.push_back(std::move(*it));
    arrays->erase(it);
  }
  if (!arrays->empty())
    return makeError(path, "has an array '" + arrays->front().name +
                               "', and the model has no such input");
  return ordered;
}

/// Compares the shape of one sample with what the model takes.
static Error checkShape(StringRef path, const ModelInterface::Value &input,
                        ArrayRef<int64_t> shape) {
  bool fits = shape.size() == static_cast<size_t>(input.type.getRank());
  for (size_t axis = 0; fits && axis < shape.size(); ++axis)
    fits = input.type.isDynamicDim(axis) ||
           shape[axis] == input.type.getDimSize(axis);
  if (fits)
    return Error::success();
  return makeError(path, "a sample of '" + input.name + "' is " +
                             describeArray(getKind(input.type), shape) +
                             ", and the model takes " + describe(input.type));
}

/// The shape of a sample of an array with a leading sample axis.
static SmallVector<int64_t> getSampleShape(const NpyArray &array,
                                           RankedTensorType type) {
  SmallVector<int64_t> shape(array.shape.begin() + 1, array.shape.end());
  if (array.shape.size() == static_cast<size_t>(type.getRank()))
    shape.insert(shape.begin(), 1);
  return shape;
}

Error CalibrationData::loadFile(StringRef path) {
  auto read = readArrays(path, model);
  if (!read)
    return read.takeError();
  const std::vector<NpyArray> &found = *read;
  for (auto [array, input] : llvm::zip(found, model.inputs)) {
    if (array.shape.empty())
      return makeError(path, "array '" + array.name +
                                 "' has no leading axis of samples");
    if (&array != &found.front() && array.shape[0] != found.front().shape[0])
      return makeError(path, "array '" + array.name + "' has " +
                                 Twine(array.shape[0]) + " samples, and '" +
                                 found.front().name + "' has " +
                                 Twine(found.front().shape[0]));
    if (Error error =
            checkShape(path, input, getSampleShape(array, input.type)))
      return error;
  }
  if (found.empty() || found.front().shape[0] == 0)
    return makeError(path, "has no samples");
  sampleCount = found.front().shape[0];
  arrays = std::make_shared<const std::vector<NpyArray>>(std::move(*read));
  return Error::success();
}

Expected<std::vector<HostTensor>>
CalibrationData::readSample(StringRef path) const {
  auto read = readArrays(path, model);
  if (!read)
    return read.takeError();
  std::vector<HostTensor> tensors;
  for (auto [array, input] : llvm::zip(*read, model.inputs)) {
    if (Error error = checkShape(path, input, array.shape))
      return error;
    tensors.push_back({input.type.getElementType(), std::move(array.shape),
                       std::move(array.bytes)});
  }
  return tensors;
}

Error CalibrationData::loadFolder(StringRef path) {
  std::error_code code;
  for (llvm::sys::fs::directory_iterator it(path, code), end;
       it != end && !code; it.increment(code))
    if (llvm::sys::path::extension(it->path()) == ".npz")
      files.push_back(it->path());
  if (code)
    return makeError(path, code.message());
  if (files.empty())
    return makeError(path, "has no .npz files");
  llvm::sort(files);
  return Error::success();
}

Expected<CalibrationData> CalibrationData::open(StringRef path,
                                                const ModelInterface &model) {
  CalibrationData data;
  data.model = model;
  bool isFolder = llvm::sys::fs::is_directory(path);
  if (Error error = isFolder ? data.loadFolder(path) : data.loadFile(path))
    return error;
  // Before hours of work, not in the middle of them.
  for (const std::string &file : data.files)
    if (auto sample = data.readSample(file); !sample)
      return sample.takeError();
  return data;
}

CalibrationData
CalibrationData::fromSamples(const ModelInterface &model,
                             std::vector<std::vector<HostTensor>> samples) {
  CalibrationData data;
  data.model = model;
  data.sampleCount = samples.size();
  data.made = std::make_shared<const std::vector<std::vector<HostTensor>>>(
      std::move(samples));
  return data;
}

Expected<std::vector<HostTensor>>
CalibrationData::getSample(size_t index) const {
  if (made)
    return (*made)[index];
  if (!files.empty())
    return readSample(files[index]);
  std::vector<HostTensor> tensors;
  for (auto [array, input] : llvm::zip(*arrays, model.inputs)) {
    size_t size = array.bytes.size() / array.shape[0];
    const char *begin = array.bytes.data() + index * size;
    SmallVector<int64_t> shape = getSampleShape(array, input.type);
    tensors.push_back({input.type.getElementType(),
                       {shape.begin(), shape.end()},
                       {begin, begin + size}});
  }
  return tensors;
}

Expected<uint64_t> CalibrationData::hash() const {
  std::vector<uint64_t> parts;
  for (size_t i = 0; i < size(); ++i) {
    auto sample = getSample(i);
    if (!sample)
      return sample.takeError();
    for (const HostTensor &tensor : *sample) {
      parts.insert(parts.end(), tensor.shape.begin(), tensor.shape.end());
      parts.push_back(hashBytes(tensor.bytes, /*mapped=*/false));
    }
  }
  return hashBytes({reinterpret_cast<const char *>(parts.data()),
                    parts.size() * sizeof(uint64_t)},
                   /*mapped=*/false);
}
