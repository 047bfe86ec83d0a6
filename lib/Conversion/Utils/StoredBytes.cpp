//===- StoredBytes.cpp - Packed elements and stored ones ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/StoredBytes.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

using namespace mlir;
using namespace nibble;

std::vector<char> nibble::unpackElements(ArrayRef<char> packed, Type element,
                                         size_t count) {
  unsigned width = onnx::getBitWidth(element);
  if (width % 8 == 0)
    return std::vector<char>(packed.begin(), packed.end());
  std::vector<char> stored(count);
  for (size_t i = 0; i < count; ++i) {
    unsigned code = 0;
    for (unsigned bit = 0; bit < width; ++bit) {
      size_t position = i * width + bit;
      code |= ((packed[position / 8] >> (position % 8)) & 1u) << bit;
    }
    if (element.isSignlessInteger() && (code >> (width - 1)))
      code |= ~0u << width;
    stored[i] = static_cast<char>(code);
  }
  return stored;
}

std::vector<char> nibble::packElements(ArrayRef<char> stored, Type element) {
  unsigned width = onnx::getBitWidth(element);
  if (width % 8 == 0)
    return std::vector<char>(stored.begin(), stored.end());
  std::vector<char> packed((stored.size() * width + 7) / 8);
  for (size_t i = 0; i < stored.size(); ++i)
    for (unsigned bit = 0; bit < width; ++bit) {
      size_t position = i * width + bit;
      packed[position / 8] |= ((stored[i] >> bit) & 1) << (position % 8);
    }
  return packed;
}
