//===- TypeCodec.cpp - TypeProto to and from types ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/TypeCodec.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Onnx/Schema.h"

#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;
using wire::Field;

//===----------------------------------------------------------------------===//
// Decoding
//===----------------------------------------------------------------------===//

namespace {
/// Decodes one message; `exact` falls as soon as something cannot be expressed.
class TypeDecoder {
public:
  explicit TypeDecoder(MLIRContext *context) : context(context) {}

  Type decode(StringRef message, unsigned depth);
  bool exact = true;

private:
  Type decodeKind(const Field &field, unsigned depth);
  Type decodeTensor(StringRef message);
  Dimension decodeDimension(StringRef message);
  Type decodeWrapped(StringRef message, unsigned depth);
  Type decodeMap(StringRef message, unsigned depth);
  Type decodeOpaque(StringRef message);
  Type decodeElementType(const Field &field);

  MLIRContext *context;
};
} // namespace

Type TypeDecoder::decodeElementType(const Field &field) {
  if (!field.isVarint())
    return {};
  exact &= field.value != 0;
  return schema::getElementType(context, field.value);
}

Dimension TypeDecoder::decodeDimension(StringRef message) {
  Dimension dimension;
  wire::Reader reader(message);
  unsigned fields = 0;
  for (Field field; reader.next(field); ++fields) {
    if (field.number == schema::DimValue && field.isVarint() &&
        field.getInt() >= 0)
      dimension = {field.getInt(), {}};
    else if (field.number == schema::DimParam && field.isBytes() &&
             !field.bytes.empty())
      dimension = {ShapedType::kDynamic, StringAttr::get(context, field.bytes)};
    else
      exact = false;
  }
  exact &= fields <= 1 && !reader.getError();
  return dimension;
}

Type TypeDecoder::decodeTensor(StringRef message) {
  Type elementType;
  bool hasShape = false;
  SmallVector<Dimension> dimensions;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::TensorTypeElemType) {
      elementType = decodeElementType(field);
      if (!elementType)
        return {};
    } else if (field.number == schema::TensorTypeShape && field.isBytes()) {
      exact &= !hasShape;
      hasShape = true;
      wire::Reader shape(field.bytes);
      for (Field dim; shape.next(dim);) {
        if (dim.number == schema::ShapeDim && dim.isBytes())
          dimensions.push_back(decodeDimension(dim.bytes));
        else
          exact = false;
      }
      if (shape.getError())
        return {};
    } else {
      exact = false;
    }
  }
  if (reader.getError())
    return {};
  if (!elementType) {
    exact = false;
    elementType = UnknownType::get(context);
  }
  if (!hasShape)
    return UnrankedTensorType::get(elementType);
  return getTensorType(dimensions, elementType);
}

Type TypeDecoder::decodeWrapped(StringRef message, unsigned depth) {
  Type type;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::ElementType && field.isBytes())
      type = decode(field.bytes, depth + 1);
    else
      exact = false;
  }
  return reader.getError() ? Type() : type;
}

Type TypeDecoder::decodeMap(StringRef message, unsigned depth) {
  Type key, value;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::MapKeyType)
      key = decodeElementType(field);
    else if (field.number == schema::MapValueType && field.isBytes())
      value = decode(field.bytes, depth + 1);
    else
      exact = false;
  }
  if (reader.getError() || !key || !value)
    return {};
  return MapType::get(context, key, value);
}

Type TypeDecoder::decodeOpaque(StringRef message) {
  StringAttr domain = StringAttr::get(context), name = domain;
  unsigned fields = 0;
  wire::Reader reader(message);
  for (Field field; reader.next(field); ++fields) {
    if (field.number == schema::OpaqueDomain && field.isBytes())
      domain = StringAttr::get(context, field.bytes);
    else if (field.number == schema::OpaqueName && field.isBytes())
      name = StringAttr::get(context, field.bytes);
    else
      exact = false;
  }
  exact &= fields == 2;
  return reader.getError() ? Type()
                           : onnx::OpaqueType::get(context, domain, name);
}

Type TypeDecoder::decodeKind(const Field &field, unsigned depth) {
  switch (field.number) {
  case schema::TypeTensor:
    return decodeTensor(field.bytes);
  case schema::TypeSparseTensor: {
    Type tensor = decodeTensor(field.bytes);
    return tensor ? SparseTensorType::get(context, cast<TensorType>(tensor))
                  : Type();
  }
  case schema::TypeSequence: {
    Type element = decodeWrapped(field.bytes, depth);
    return element ? SequenceType::get(context, element) : Type();
  }
  case schema::TypeOptional: {
    Type element = decodeWrapped(field.bytes, depth);
    return element ? OptionalType::get(context, element) : Type();
  }
  case schema::TypeMap:
    return decodeMap(field.bytes, depth);
  case schema::TypeOpaque:
    return decodeOpaque(field.bytes);
  default:
    return {};
  }
}

Type TypeDecoder::decode(StringRef message, unsigned depth) {
  // protobuf's own limit is a hundred messages.
  if (depth > 50)
    return {};
  Type type;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    bool isKind = field.isBytes() && field.number <= schema::TypeOptional &&
                  field.number != 6; // denotation
    if (!isKind) {
      exact = false;
      continue;
    }
    exact &= !type;
    type = decodeKind(field, depth);
    if (!type)
      return {};
  }
  if (reader.getError())
    return {};
  if (!type) {
    exact = false;
    return UnknownType::get(context);
  }
  return type;
}

DecodedType nibble::decodeType(MLIRContext *context, StringRef typeProto) {
  TypeDecoder decoder(context);
  Type type = decoder.decode(typeProto, 0);
  return {type, type && decoder.exact};
}

//===----------------------------------------------------------------------===//
// Encoding
//===----------------------------------------------------------------------===//

static std::optional<wire::Writer> encodeTensor(TensorType type) {
  wire::Writer tensor;
  std::optional<uint32_t> dataType = schema::getDataType(type.getElementType());
  if (!dataType)
    return std::nullopt;
  if (*dataType != 0)
    tensor.writeVarint(schema::TensorTypeElemType, *dataType);
  auto ranked = dyn_cast<RankedTensorType>(type);
  if (!ranked)
    return tensor;
  wire::Writer shape;
  for (const Dimension &dimension : getDimensions(ranked)) {
    wire::Writer dim;
    if (dimension.isStatic())
      dim.writeInt(schema::DimValue, dimension.size);
    else if (dimension.symbol)
      dim.writeBytes(schema::DimParam, dimension.symbol);
    shape.writeMessage(schema::ShapeDim, std::move(dim));
  }
  tensor.writeMessage(schema::TensorTypeShape, std::move(shape));
  return tensor;
}

static std::optional<wire::Writer> encodeWrapped(Type elementType) {
  std::optional<wire::Writer> element = encodeType(elementType);
  if (!element)
    return std::nullopt;
  wire::Writer wrapped;
  wrapped.writeMessage(schema::ElementType, std::move(*element));
  return wrapped;
}

static std::optional<wire::Writer> encodeMap(MapType type) {
  std::optional<uint32_t> key = schema::getDataType(type.getKeyType());
  std::optional<wire::Writer> value = encodeType(type.getValueType());
  if (!key || !value)
    return std::nullopt;
  wire::Writer map;
  map.writeVarint(schema::MapKeyType, *key);
  map.writeMessage(schema::MapValueType, std::move(*value));
  return map;
}

static wire::Writer encodeOpaque(onnx::OpaqueType type) {
  wire::Writer opaque;
  opaque.writeBytes(schema::OpaqueDomain, type.getDomain());
  opaque.writeBytes(schema::OpaqueName, type.getName());
  return opaque;
}

std::optional<wire::Writer> nibble::encodeType(Type type) {
  uint32_t number = 0;
  std::optional<wire::Writer> kind;
  llvm::TypeSwitch<Type>(type)
      .Case([&](TensorType tensor) {
        number = schema::TypeTensor;
        kind = encodeTensor(tensor);
      })
      .Case([&](SparseTensorType sparse) {
        number = schema::TypeSparseTensor;
        kind = encodeTensor(sparse.getTensorType());
      })
      .Case([&](SequenceType sequence) {
        number = schema::TypeSequence;
        kind = encodeWrapped(sequence.getElementType());
      })
      .Case([&](OptionalType optional) {
        number = schema::TypeOptional;
        kind = encodeWrapped(optional.getElementType());
      })
      .Case([&](MapType map) {
        number = schema::TypeMap;
        kind = encodeMap(map);
      })
      .Case([&](onnx::OpaqueType opaque) {
        number = schema::TypeOpaque;
        kind = encodeOpaque(opaque);
      });
  wire::Writer message;
  if (isa<UnknownType>(type))
    return message;
  if (!kind)
    return std::nullopt;
  message.writeMessage(number, std::move(*kind));
  return message;
}
