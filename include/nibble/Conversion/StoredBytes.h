//===- StoredBytes.h - Packed elements and stored ones ----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_STOREDBYTES_H
#define NIBBLE_CONVERSION_STOREDBYTES_H

#include "mlir/IR/Types.h"
#include "llvm/ADT/ArrayRef.h"

#include <vector>

namespace nibble {

/// The first `count` elements of `packed` (ONNX's raw_data: low bits first) in
/// their stored type (ScalarBuilder.h): one in each byte, extended by its sign,
/// where an element has less than 8 bits, else as they are.
std::vector<char> unpackElements(llvm::ArrayRef<char> packed,
                                 mlir::Type element, size_t count);

/// The inverse of unpackElements.
std::vector<char> packElements(llvm::ArrayRef<char> stored, mlir::Type element);

} // namespace nibble

#endif // NIBBLE_CONVERSION_STOREDBYTES_H
