//===- WeightTable.cpp - The constants that code takes as arguments -------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Runtime/Model.h"
#include "nibble/Support/MappedFile.h"
#include "nibble/Target/EmittedModel.h"

#include "llvm/Support/MathExtras.h"

#include <cstring>

using namespace nibble;

/// Of each constant, a cache line and the widest vector.
static constexpr uint64_t kAlignment = 64;

uint64_t WeightTable::add(llvm::ArrayRef<char> bytes) {
  uint64_t hash = 0;
  bool hashed = false;
  for (const Entry &entry : entries) {
    if (entry.bytes.size() != bytes.size())
      continue;
    if (entry.bytes.data() == bytes.data())
      return entry.offset;
    if (!hashed)
      hash = hashBytes(bytes, /*mapped=*/false);
    hashed = true;
    if (entry.hash == hash &&
        std::memcmp(entry.bytes.data(), bytes.data(), bytes.size()) == 0)
      return entry.offset;
  }
  if (!hashed)
    hash = hashBytes(bytes, /*mapped=*/false);
  uint64_t offset = llvm::alignTo(size, kAlignment);
  entries.push_back({bytes, offset, hash});
  size = offset + bytes.size();
  return offset;
}

uint64_t WeightTable::getHash() const {
  std::vector<uint64_t> words;
  for (const Entry &entry : entries)
    words.insert(words.end(), {entry.offset, entry.bytes.size(), entry.hash});
  return hashBytes({reinterpret_cast<const char *>(words.data()),
                    words.size() * sizeof(uint64_t)},
                   /*mapped=*/false);
}

void WeightTable::write(llvm::raw_ostream &os) const {
  uint64_t position = 0;
  // A file is written in pieces that an interrupt need not wait for.
  constexpr size_t piece = size_t(16) << 20;
  for (const Entry &entry : entries) {
    os.write_zeros(entry.offset - position);
    for (size_t begin = 0; begin < entry.bytes.size(); begin += piece) {
      size_t length = std::min(piece, entry.bytes.size() - begin);
      os.write(entry.bytes.data() + begin, length);
    }
    position = entry.offset + entry.bytes.size();
  }
}

void EmittedModel::writeWeights(llvm::raw_ostream &os) const {
  nibble_weights_header header = {};
  std::memcpy(header.magic, NIBBLE_WEIGHTS_MAGIC, sizeof(header.magic));
  header.size = weights.getSize();
  header.hash = weights.getHash();
  os.write(reinterpret_cast<const char *>(&header), sizeof(header));
  weights.write(os);
}
