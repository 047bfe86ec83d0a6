//===- Extras.cpp - What a message says besides its model -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Extras.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Onnx/Schema.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using wire::Field;

/// A StringStringEntryProto as an array of two strings; null if it is none.
static Attribute decodeEntry(MLIRContext *context, StringRef message) {
  std::optional<StringRef> key, value;
  wire::Reader reader(message);
  for (Field field; reader.next(field);) {
    if (field.number == schema::EntryKey && field.isBytes() && !key)
      key = field.bytes;
    else if (field.number == schema::EntryValue && field.isBytes() && !value)
      value = field.bytes;
    else
      return {};
  }
  if (reader.getError() || !key || !value)
    return {};
  return Builder(context).getStrArrayAttr({*key, *value});
}

void ExtrasBuilder::add(const Field &field) {
  if (field.isBytes() && field.number == fields.docString && !docString) {
    docString = StringAttr::get(context, field.bytes);
    return;
  }
  if (field.isBytes() && field.number == fields.name && !name) {
    name = StringAttr::get(context, field.bytes);
    return;
  }
  if (field.isBytes() && field.number == fields.metadata) {
    if (Attribute entry = decodeEntry(context, field.bytes)) {
      metadata.push_back(entry);
      return;
    }
  }
  rest += field.whole;
}

DictionaryAttr ExtrasBuilder::get() const {
  Builder builder(context);
  NamedAttrList attributes;
  if (docString)
    attributes.set("doc_string", docString);
  if (name)
    attributes.set("name", name);
  if (!metadata.empty())
    attributes.set("metadata", builder.getArrayAttr(metadata));
  if (!rest.empty())
    attributes.set("wire",
                   onnx::WireAttr::get(context, builder.getStringAttr(rest)));
  return attributes.empty() ? DictionaryAttr()
                            : attributes.getDictionary(context);
}

void nibble::writeExtras(wire::Writer &writer, DictionaryAttr extras,
                         ExtraFields fields) {
  if (!extras)
    return;
  if (auto name = extras.getAs<StringAttr>("name"); name && fields.name)
    writer.writeBytes(fields.name, name);
  if (auto docString = extras.getAs<StringAttr>("doc_string"))
    writer.writeBytes(fields.docString, docString);
  if (auto metadata = extras.getAs<ArrayAttr>("metadata"))
    for (auto entry : metadata.getAsRange<ArrayAttr>()) {
      if (entry.size() != 2)
        continue;
      wire::Writer message;
      for (auto [index, text] : llvm::enumerate(entry.getAsRange<StringAttr>()))
        message.writeBytes(schema::EntryKey + index, text);
      writer.writeMessage(fields.metadata, std::move(message));
    }
  if (auto rest = extras.getAs<onnx::WireAttr>("wire"))
    writer.writeEncoded(rest.getBytes());
}
