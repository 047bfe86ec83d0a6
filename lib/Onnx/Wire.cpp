//===- Wire.cpp - Protobuf's wire format
//-----------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/Wire.h"
#include "nibble/Support/MappedFile.h"

#include "llvm/ADT/bit.h"
#include "llvm/Support/Endian.h"

using namespace nibble;
using namespace nibble::wire;

float Field::getFloat() const {
  return llvm::bit_cast<float>(static_cast<uint32_t>(value));
}

//===----------------------------------------------------------------------===//
// Reader
//===----------------------------------------------------------------------===//

/// Takes a varint off the front of `bytes`; false if it is cut off or longer
/// than ten bytes.
static bool takeVarint(llvm::StringRef &bytes, uint64_t &value) {
  value = 0;
  for (unsigned i = 0; i < 10 && i < bytes.size(); ++i) {
    uint8_t byte = static_cast<uint8_t>(bytes[i]);
    value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (!(byte & 0x80)) {
      bytes = bytes.drop_front(i + 1);
      return true;
    }
  }
  return false;
}

bool Reader::fail(const char *why) {
  error = why;
  rest = {};
  return false;
}

bool Reader::readVarint(uint64_t &value) {
  return takeVarint(rest, value) ||
         fail("a varint is cut off or longer than ten bytes");
}

bool Reader::next(Field &field) {
  if (rest.empty())
    return false;
  const char *begin = rest.data();
  uint64_t tag;
  if (!readVarint(tag))
    return false;
  if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
    return fail("a field has an impossible number");
  field.number = static_cast<uint32_t>(tag >> 3);
  field.bytes = {};
  field.value = 0;
  switch (tag & 7) {
  case 0:
    field.type = WireType::Varint;
    if (!readVarint(field.value))
      return false;
    break;
  case 1:
    field.type = WireType::Fixed64;
    if (rest.size() < 8)
      return fail("a fixed64 field is cut off");
    field.value = llvm::support::endian::read64le(rest.data());
    rest = rest.drop_front(8);
    break;
  case 2: {
    field.type = WireType::Bytes;
    uint64_t length;
    if (!readVarint(length))
      return false;
    if (length > rest.size())
      return fail("a field is longer than what is left of the file");
    field.bytes = rest.take_front(length);
    rest = rest.drop_front(length);
    break;
  }
  case 5:
    field.type = WireType::Fixed32;
    if (rest.size() < 4)
      return fail("a fixed32 field is cut off");
    field.value = llvm::support::endian::read32le(rest.data());
    rest = rest.drop_front(4);
    break;
  default:
    return fail("a field has an unknown wire type");
  }
  field.whole = llvm::StringRef(begin, rest.data() - begin);
  return true;
}

bool wire::decodeVarints(llvm::StringRef bytes,
                         llvm::SmallVectorImpl<uint64_t> &values) {
  while (!bytes.empty())
    if (!takeVarint(bytes, values.emplace_back()))
      return false;
  return true;
}

std::optional<uint64_t> wire::countVarints(llvm::StringRef bytes) {
  if (!bytes.empty() && (bytes.back() & 0x80))
    return std::nullopt;
  uint64_t count = 0;
  for (char byte : bytes)
    count += !(byte & 0x80);
  return count;
}

//===----------------------------------------------------------------------===//
// Writer
//===----------------------------------------------------------------------===//

void Writer::appendVarint(uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    buffer += static_cast<char>(value | 0x80);
  buffer += static_cast<char>(value);
}

void Writer::writeTag(uint32_t field, WireType type) {
  appendVarint(static_cast<uint64_t>(field) << 3 | static_cast<uint8_t>(type));
}

void Writer::writeVarint(uint32_t field, uint64_t value) {
  writeTag(field, WireType::Varint);
  appendVarint(value);
}

void Writer::writeFixed32(uint32_t field, uint32_t bits) {
  writeTag(field, WireType::Fixed32);
  char bytes[4];
  llvm::support::endian::write32le(bytes, bits);
  buffer.append(bytes, 4);
}

void Writer::writeFloat(uint32_t field, float value) {
  writeFixed32(field, llvm::bit_cast<uint32_t>(value));
}

void Writer::writePackedVarints(uint32_t field,
                                llvm::ArrayRef<uint64_t> values) {
  Writer packed;
  for (uint64_t value : values)
    packed.appendVarint(value);
  writeMessage(field, std::move(packed));
}

void Writer::writeBytes(uint32_t field, llvm::StringRef bytes) {
  writeTag(field, WireType::Bytes);
  appendVarint(bytes.size());
  buffer += bytes;
}

void Writer::writeReference(uint32_t field, llvm::ArrayRef<char> bytes,
                            bool mapped) {
  writeTag(field, WireType::Bytes);
  appendVarint(bytes.size());
  references.push_back({buffer.size(), bytes, mapped});
  referenced += bytes.size();
}

void Writer::writeMessage(uint32_t field, Writer &&message) {
  writeTag(field, WireType::Bytes);
  appendVarint(message.getSize());
  for (Reference &reference : message.references) {
    reference.position += buffer.size();
    references.push_back(reference);
  }
  referenced += message.referenced;
  buffer += message.buffer;
}

void Writer::write(llvm::raw_ostream &os) const {
  size_t written = 0;
  for (const Reference &reference : references) {
    os.write(buffer.data() + written, reference.position - written);
    written = reference.position;
    writeLarge(os, reference.bytes, reference.mapped);
  }
  os.write(buffer.data() + written, buffer.size() - written);
}

std::string Writer::str() const {
  std::string string;
  llvm::raw_string_ostream os(string);
  write(os);
  return string;
}

void wire::writeLarge(llvm::raw_ostream &os, llvm::ArrayRef<char> bytes,
                      bool mapped) {
  // Small enough that a slow disk does not hold up an interrupt for long.
  constexpr size_t piece = size_t(256) << 10;
  while (!bytes.empty()) {
    auto part = bytes.take_front(piece);
    os.write(part.data(), part.size());
    if (mapped && part.size() == piece)
      dropPages(part);
    bytes = bytes.drop_front(part.size());
  }
}
