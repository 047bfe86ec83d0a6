//===- ImportTensor.cpp - TensorProto to attributes -----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "ImportTensor.h"

#include "Extras.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Onnx/Schema.h"

#include "mlir/IR/Builders.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;
using wire::Field;

/// The pieces of one message while it is decoded.
struct TensorImporter::Parts {
  explicit Parts(MLIRContext *context) : extras(context, kTensorExtras) {}

  ImportedTensor result;
  SmallVector<int64_t> dims;
  uint64_t dataType = 0;
  /// The typed field that holds data, and its payload: one chunk where it lies
  /// in the file, or a copy where it came in several.
  std::optional<TensorField> typedField;
  StringRef chunk;
  std::string copied;
  std::optional<StringRef> raw;
  SmallVector<Attribute> strings;
  SmallVector<std::pair<StringRef, StringRef>> externalData;
  bool isExternal = false;
  /// Something that only the whole message can express.
  bool isOdd = false;
  ExtrasBuilder extras;

  llvm::Error error(const llvm::Twine &what) const {
    return llvm::createStringError("tensor '" + llvm::Twine(result.name) +
                                   "' " + what);
  }
  StringRef payload() const { return copied.empty() ? chunk : copied; }
  bool addTyped(TensorField field, const Field &wire);
};

TensorImporter::TensorImporter(MLIRContext *context, const MappedFile &model)
    : context(context), model(model) {}

static std::optional<TensorField> getTypedField(uint32_t number) {
  switch (number) {
  case schema::TensorFloatData:
    return TensorField::float_data;
  case schema::TensorInt32Data:
    return TensorField::int32_data;
  case schema::TensorInt64Data:
    return TensorField::int64_data;
  case schema::TensorDoubleData:
    return TensorField::double_data;
  case schema::TensorUint64Data:
    return TensorField::uint64_data;
  default:
    return std::nullopt;
  }
}

/// Repeated numbers may come packed in one chunk or in several, or one by one.
bool TensorImporter::Parts::addTyped(TensorField field, const Field &wire) {
  if (typedField && *typedField != field)
    return false;
  bool first = !typedField;
  typedField = field;
  if (first && wire.isBytes()) {
    chunk = wire.bytes;
    return true;
  }
  if (!first && copied.empty())
    copied = chunk.str();
  if (wire.isBytes()) {
    copied += wire.bytes;
    return true;
  }
  // An unpacked element: its payload is the field without its one-byte tag.
  copied += wire.whole.drop_front(1);
  return true;
}

static bool decodeKeyValue(StringRef message, StringRef &key,
                           StringRef &value) {
  wire::Reader reader(message);
  for (Field field; reader.next(field);)
    (field.number == schema::EntryKey ? key : value) = field.bytes;
  return !reader.getError();
}

llvm::Error TensorImporter::decode(StringRef message, Parts &parts) {
  // The name first, so that every message can name the tensor.
  wire::Reader names(message);
  for (Field field; names.next(field);)
    if (field.number == schema::TensorName && field.isBytes())
      parts.result.name = field.bytes.str();
  if (names.getError())
    return parts.error(names.getError());

  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (std::optional<TensorField> typed = getTypedField(field.number)) {
      if (!parts.addTyped(*typed, field))
        return parts.error("has data in two fields");
      continue;
    }
    if (field.number == schema::TensorDims && field.isVarint()) {
      parts.dims.push_back(field.getInt());
    } else if (field.number == schema::TensorDims && field.isBytes()) {
      SmallVector<uint64_t> dims;
      if (!wire::decodeVarints(field.bytes, dims))
        return parts.error("has malformed dims");
      parts.dims.append(dims.begin(), dims.end());
    } else if (field.number == schema::TensorDataType && field.isVarint()) {
      parts.dataType = field.value;
    } else if (field.number == schema::TensorName && field.isBytes()) {
      continue;
    } else if (field.number == schema::TensorRawData && field.isBytes()) {
      parts.raw = field.bytes;
    } else if (field.number == schema::TensorStringData && field.isBytes()) {
      parts.strings.push_back(StringAttr::get(context, field.bytes));
    } else if (field.number == schema::TensorExternalData && field.isBytes()) {
      auto &[key, value] = parts.externalData.emplace_back();
      if (!decodeKeyValue(field.bytes, key, value))
        return parts.error("has malformed external_data");
    } else if (field.number == schema::TensorDataLocation && field.value == 1) {
      parts.isExternal = true;
    } else {
      parts.isOdd |= field.number == 3; // segment
      parts.extras.add(field);
    }
  }
  return llvm::Error::success();
}

llvm::Error TensorImporter::setShape(Parts &parts) {
  Type elementType = schema::getElementType(context, parts.dataType);
  if (!elementType || isa<UnknownType>(elementType))
    return parts.error("has the unknown data type " +
                       llvm::Twine(parts.dataType));
  int64_t elements = 1;
  for (int64_t dim : parts.dims) {
    if (dim < 0)
      return parts.error("has the negative dimension " + llvm::Twine(dim));
    if (__builtin_mul_overflow(elements, dim, &elements))
      return parts.error("has dimensions whose product overflows 64 bits");
  }
  // A zero among the dimensions must not hide an overflow of the others.
  uint64_t product = 1;
  for (int64_t dim : parts.dims)
    if (dim != 0 &&
        __builtin_mul_overflow(product, static_cast<uint64_t>(dim), &product))
      return parts.error("has dimensions whose product overflows 64 bits");
  parts.result.type = RankedTensorType::get(parts.dims, elementType);
  if (!isa<StringType>(elementType) && !getPackedSize(parts.result.type))
    return parts.error("has dimensions whose product overflows 64 bits");
  return llvm::Error::success();
}

Attribute TensorImporter::makeValue(RankedTensorType type,
                                    const MappedFile &file, StringRef bytes) {
  if (type.getNumElements() <= kMaxDenseElements)
    if (DenseElementsAttr dense =
            getDenseElements(type, ArrayRef<char>(bytes.data(), bytes.size())))
      return dense;
  uint64_t offset = bytes.data() - file.getBytes().data();
  return FileElementsAttr::get(context, type,
                               StringAttr::get(context, file.getPath()), offset,
                               bytes.size(), /*varint=*/false);
}

//===----------------------------------------------------------------------===//
// Where the numbers are
//===----------------------------------------------------------------------===//

llvm::Error TensorImporter::importRaw(Parts &parts) {
  if (isa<StringType>(parts.result.type.getElementType()))
    return parts.error("is a tensor of strings with raw_data");
  uint64_t expected = *getPackedSize(parts.result.type);
  if (parts.raw->size() != expected)
    return parts.error(llvm::formatv(
        "has {0} bytes of raw_data, but its shape and type take {1}",
        parts.raw->size(), expected));
  parts.result.field = TensorField::raw_data;
  parts.result.value = makeValue(parts.result.type, model, *parts.raw);
  return llvm::Error::success();
}

/// Whether the numbers of `type` go into `field` (onnx.proto, TensorProto).
static bool fieldHolds(TensorField field, Type type) {
  Type part =
      isa<ComplexType>(type) ? cast<ComplexType>(type).getElementType() : type;
  switch (field) {
  case TensorField::float_data:
    return part.isF32();
  case TensorField::double_data:
    return part.isF64();
  case TensorField::int64_data:
    return type.isSignlessInteger(64);
  case TensorField::uint64_data:
    return type.isUnsignedInteger(32) || type.isUnsignedInteger(64);
  case TensorField::int32_data:
    return !isa<ComplexType>(type) && !part.isF32() && !part.isF64() &&
           getBitWidth(type) <= 32 && getBitWidth(type) > 0;
  default:
    return false;
  }
}

llvm::Error TensorImporter::importTyped(Parts &parts) {
  ImportedTensor &result = parts.result;
  TensorField field = *parts.typedField;
  result.field = field;
  if (!fieldHolds(field, result.type.getElementType()))
    return parts.error("keeps its data in " + stringifyTensorField(field) +
                       ", which is not for its data type");
  StringRef payload = parts.payload();
  bool fixed =
      field == TensorField::float_data || field == TensorField::double_data;
  if (fixed) {
    uint64_t expected = *getPackedSize(result.type);
    if (payload.size() != expected)
      return parts.error(
          llvm::formatv("has {0} bytes of {1}, but its shape and type take {2}",
                        payload.size(), stringifyTensorField(field), expected));
    if (parts.copied.empty()) {
      result.value = makeValue(result.type, model, payload);
      return llvm::Error::success();
    }
    result.value = getDenseElements(
        result.type, ArrayRef<char>(payload.data(), payload.size()));
    return llvm::Error::success();
  }

  uint64_t expected = getVarintCount(result.type);
  std::optional<uint64_t> count = wire::countVarints(payload);
  if (!count || *count != expected)
    return parts.error(llvm::formatv(
        "has {0} numbers in {1}, but its shape takes {2}", count.value_or(0),
        stringifyTensorField(field), expected));
  if (result.type.getNumElements() > kMaxDenseElements &&
      parts.copied.empty()) {
    result.value = FileElementsAttr::get(
        context, result.type, StringAttr::get(context, model.getPath()),
        payload.data() - model.getBytes().data(), payload.size(),
        /*varint=*/true);
    return llvm::Error::success();
  }
  std::vector<char> bytes;
  if (expandVarints(result.type, payload, bytes))
    result.value = getDenseElements(result.type, bytes);
  parts.isOdd |= !result.value;
  return llvm::Error::success();
}

llvm::Error TensorImporter::importStrings(Parts &parts) {
  ImportedTensor &result = parts.result;
  if (static_cast<int64_t>(parts.strings.size()) !=
      result.type.getNumElements())
    return parts.error(llvm::formatv("has {0} strings, but its shape takes {1}",
                                     parts.strings.size(),
                                     result.type.getNumElements()));
  result.field = TensorField::string_data;
  result.value = StringsAttr::get(context, result.type,
                                  ArrayAttr::get(context, parts.strings));
  return llvm::Error::success();
}

//===----------------------------------------------------------------------===//
// External data
//===----------------------------------------------------------------------===//

llvm::Expected<std::string>
TensorImporter::resolveLocation(const Parts &parts, StringRef location) {
  namespace path = llvm::sys::path;
  if (location.empty())
    return parts.error("is external, but names no file");
  bool escapes = path::is_absolute(location) ||
                 llvm::is_contained(llvm::make_range(path::begin(location),
                                                     path::end(location)),
                                    StringRef(".."));
  SmallString<128> file(path::parent_path(model.getPath()));
  path::append(file, location);
  if (!escapes) {
    // A link may lead out of the folder too.
    StringRef folder = path::parent_path(model.getPath());
    SmallString<128> realFolder, realFile;
    if (!llvm::sys::fs::real_path(folder.empty() ? StringRef(".") : folder,
                                  realFolder) &&
        !llvm::sys::fs::real_path(file, realFile)) {
      if (!realFolder.ends_with("/"))
        realFolder += '/';
      escapes = !realFile.starts_with(realFolder);
    }
  }
  if (escapes)
    return parts.error("keeps its data in '" + location +
                       "', outside the model's folder; copy the file there");
  return std::string(file);
}

llvm::Error TensorImporter::importExternal(Parts &parts) {
  ImportedTensor &result = parts.result;
  if (isa<StringType>(result.type.getElementType()))
    return parts.error("is an external tensor of strings, which ONNX forbids");
  StringRef location;
  uint64_t expected = *getPackedSize(result.type);
  uint64_t offset = 0, length = expected;
  for (auto [key, value] : parts.externalData) {
    if (key == "location")
      location = value;
    else if (key == "offset" && value.getAsInteger(10, offset))
      return parts.error("has the external offset '" + value +
                         "', which is no number");
    else if (key == "length" && value.getAsInteger(10, length))
      return parts.error("has the external length '" + value +
                         "', which is no number");
  }
  auto path = resolveLocation(parts, location);
  if (!path)
    return path.takeError();
  auto *dialect = context->getOrLoadDialect<OnnxDialect>();
  auto file = dialect->getFiles().get(*path);
  if (!file)
    return parts.error("keeps its data in a file: " +
                       llvm::toString(file.takeError()));
  uint64_t size = (*file)->getBytes().size();
  if (length != expected)
    return parts.error(llvm::formatv(
        "has {0} bytes of external data, but its shape and type take {1}",
        length, expected));
  if (offset > size || length > size - offset)
    return parts.error(llvm::formatv(
        "needs {0} bytes at {1} of '{2}', which has {3}; is the file whole?",
        length, offset, *path, size));
  unsigned alignment =
      std::max(1u, getBitWidth(result.type.getElementType()) / 8);
  if (offset % alignment != 0)
    return parts.error(llvm::formatv(
        "starts at byte {0} of '{1}', which is no multiple of its {2}-byte "
        "elements; save the model again with aligned external data",
        offset, *path, alignment));
  if (length > 0)
    externalRanges.push_back({*path, offset, length, result.name});
  result.field = TensorField::external;
  result.value = FileElementsAttr::get(context, result.type,
                                       StringAttr::get(context, *path), offset,
                                       length, /*varint=*/false);
  return llvm::Error::success();
}

llvm::Error TensorImporter::checkOverlaps() {
  llvm::sort(externalRanges, [](const auto &a, const auto &b) {
    return std::tie(a.path, a.offset, a.length) <
           std::tie(b.path, b.offset, b.length);
  });
  for (size_t i = 1; i < externalRanges.size(); ++i) {
    const ExternalRange &a = externalRanges[i - 1], &b = externalRanges[i];
    bool same = a.offset == b.offset && a.length == b.length;
    if (a.path == b.path && !same && b.offset < a.offset + a.length)
      return llvm::createStringError(llvm::formatv(
          "tensors '{0}' and '{1}' overlap in '{2}': bytes {3} to {4} and {5} "
          "to {6}; save the model again",
          a.tensor, b.tensor, a.path, a.offset, a.offset + a.length, b.offset,
          b.offset + b.length));
  }
  return llvm::Error::success();
}

//===----------------------------------------------------------------------===//
// Import
//===----------------------------------------------------------------------===//

llvm::Expected<ImportedTensor> TensorImporter::import(StringRef message) {
  Parts parts(context);
  if (llvm::Error error = decode(message, parts))
    return error;
  if (llvm::Error error = setShape(parts))
    return error;
  ImportedTensor &result = parts.result;
  auto finish = [&](llvm::Error error) -> llvm::Expected<ImportedTensor> {
    if (error)
      return error;
    if (parts.isOdd) {
      result.value = WireAttr::get(context, StringAttr::get(context, message));
      result.extras = {};
    } else {
      result.extras = parts.extras.get();
    }
    return std::move(result);
  };
  if (parts.isExternal)
    return finish(importExternal(parts));
  if (!parts.externalData.empty())
    return parts.error("has external_data but is not marked as external");
  if (parts.raw) {
    if (parts.typedField || !parts.strings.empty())
      return parts.error("has data in two fields");
    return finish(importRaw(parts));
  }
  if (!parts.strings.empty() || isa<StringType>(result.type.getElementType()))
    return finish(importStrings(parts));
  if (parts.typedField)
    return finish(importTyped(parts));
  if (result.type.getNumElements() != 0)
    return parts.error("has no data");
  // No element, no field: any typed field writes nothing.
  result.field = TensorField::float_data;
  result.value = getDenseElements(result.type, {});
  return finish(llvm::Error::success());
}
