//===- Npz.h - NumPy's archives of arrays -----------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_NPZ_H
#define NIBBLE_SUPPORT_NPZ_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

/// One array of an archive, row-major and little-endian.
struct NpyArray {
  std::string name;
  /// The element as NumPy writes it: "f4", "i8", "b1", "V2", …
  std::string kind;
  std::vector<int64_t> shape;
  std::vector<char> bytes;
};

/// NumPy's word for a type that DLPack gives as code and bits: "f4", "i8";
/// types that it lacks are raw bytes ("V2").
std::string getNumpyKind(uint8_t code, uint8_t bits);

/// "float32" for "f4", for a message.
std::string describeNumpyKind(llvm::StringRef kind);

/// "float32[2, 3]", for a message.
std::string describeArray(llvm::StringRef kind, llvm::ArrayRef<int64_t> shape);

/// Reads what `numpy.savez` or `savez_compressed` wrote. An error names the
/// array that is damaged, or that is none of plain numbers in row-major order.
llvm::Expected<std::vector<NpyArray>> readNpz(llvm::StringRef path);

/// Writes what `numpy.load` reads; the file appears whole or not at all.
llvm::Error writeNpz(llvm::StringRef path, llvm::ArrayRef<NpyArray> arrays);

} // namespace nibble

#endif // NIBBLE_SUPPORT_NPZ_H
