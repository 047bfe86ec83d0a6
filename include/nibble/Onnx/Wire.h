//===- Wire.h - Protobuf's wire format ---------------------------*- C++
//-*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A reader over mapped bytes and a writer of ropes. protobuf itself copies
// every weight and stops at 2 GiB; these do neither. Format:
// https://protobuf.dev/programming-guides/encoding
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_ONNX_WIRE_H
#define NIBBLE_ONNX_WIRE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nibble::wire {

enum class WireType : uint8_t {
  Varint = 0,
  Fixed64 = 1,
  Bytes = 2,
  Fixed32 = 5
};

/// One field of a message, with its payload still encoded.
struct Field {
  uint32_t number = 0;
  WireType type = WireType::Varint;
  /// Varint, fixed64 and fixed32 payloads.
  uint64_t value = 0;
  /// Payload of a length-delimited field.
  llvm::StringRef bytes;
  /// The field as it stands in the message, with its tag.
  llvm::StringRef whole;

  int64_t getInt() const { return static_cast<int64_t>(value); }
  float getFloat() const;
  bool isBytes() const { return type == WireType::Bytes; }
  bool isVarint() const { return type == WireType::Varint; }
};

/// Walks the fields of one message. Stops for good at the first malformed one.
class Reader {
public:
  explicit Reader(llvm::StringRef message) : rest(message) {}

  /// Reads the next field. False at the end and on an error.
  bool next(Field &field);

  /// Why reading stopped, or null if it came to the end.
  const char *getError() const { return error; }

private:
  bool fail(const char *why);
  bool readVarint(uint64_t &value);

  llvm::StringRef rest;
  const char *error = nullptr;
};

/// Decodes `bytes`, a sequence of varints; false if it is malformed.
bool decodeVarints(llvm::StringRef bytes,
                   llvm::SmallVectorImpl<uint64_t> &values);

/// Number of varints in `bytes`; std::nullopt if the last one is cut off.
std::optional<uint64_t> countVarints(llvm::StringRef bytes);

/// A message under construction: small fields are copied, large payloads only
/// referred to, so that a model's weights go from map to file unheld.
class Writer {
public:
  void writeVarint(uint32_t field, uint64_t value);
  void writeInt(uint32_t field, int64_t value) {
    writeVarint(field, static_cast<uint64_t>(value));
  }
  void writeFixed32(uint32_t field, uint32_t bits);
  void writeFloat(uint32_t field, float value);
  void writePackedVarints(uint32_t field, llvm::ArrayRef<uint64_t> values);
  void writeBytes(uint32_t field, llvm::StringRef bytes);
  /// Like writeBytes, but refers to `bytes`, which must outlive the writer.
  /// `mapped` says that they lie in a mapped file, whose pages can be dropped.
  void writeReference(uint32_t field, llvm::ArrayRef<char> bytes, bool mapped);
  void writeMessage(uint32_t field, Writer &&message);
  /// Appends fields that are already encoded.
  void writeEncoded(llvm::StringRef fields) { buffer += fields; }

  uint64_t getSize() const { return buffer.size() + referenced; }
  void write(llvm::raw_ostream &os) const;
  std::string str() const;

private:
  struct Reference {
    size_t position; // in `buffer`, before which the bytes go
    llvm::ArrayRef<char> bytes;
    bool mapped;
  };
  void writeTag(uint32_t field, WireType type);
  void appendVarint(uint64_t value);

  std::string buffer;
  std::vector<Reference> references;
  uint64_t referenced = 0;
};

/// Writes `bytes` in pieces and drops the pages behind it if they are mapped.
void writeLarge(llvm::raw_ostream &os, llvm::ArrayRef<char> bytes, bool mapped);

} // namespace nibble::wire

#endif // NIBBLE_ONNX_WIRE_H
