//===- Storage.h - What one stored code stands for --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_STORAGE_H
#define NIBBLE_NUMERICS_STORAGE_H

#include "nibble/Numerics/FloatFormats.h"
#include "nibble/Numerics/Result.h"

#include <string>
#include <string_view>
#include <vector>

namespace nibble {

enum class StorageKind : uint8_t {
  Signed,   ///< two's complement integer of 2 to 8 bits
  Unsigned, ///< integer of 2 to 8 bits
  Float,    ///< f8E4M3FN, f8E5M2 or f4E2M1FN
  CodeBook, ///< a list of up to 256 numbers; the code is the index
};

/// How one number is stored, before scale and zero point. A code takes one byte
/// in memory: a signed one as a two's complement int8, any other zero extended.
struct StorageFormat {
  StorageKind kind = StorageKind::Unsigned;
  unsigned bits = 4;
  /// Only for StorageKind::Float.
  FloatFormat floatFormat = FloatFormat::F8E4M3FN;
  /// Only for StorageKind::CodeBook, by code.
  std::vector<float> codeBook;

  static StorageFormat getSigned(unsigned bits);
  static StorageFormat getUnsigned(unsigned bits);
  static StorageFormat getFloat(FloatFormat format);
  static StorageFormat getNF4();
  static StorageFormat getFP4();
  /// `bits` is the least that can hold every index, and at least 1.
  static StorageFormat getCodeBook(std::vector<float> values);

  bool isInteger() const {
    return kind == StorageKind::Signed || kind == StorageKind::Unsigned;
  }
  bool operator==(const StorageFormat &other) const;
  bool operator!=(const StorageFormat &other) const {
    return !(*this == other);
  }
};

/// Reads "i2" ... "i8", "u2" ... "u8", "f8E4M3FN", "f8E5M2", "f4E2M1FN", "nf4",
/// "fp4", or an inline code book "[-1, 0, 0.5, 1]" of 1 to 256 finite numbers.
Result<StorageFormat> parseStorage(std::string_view text);

/// The text that parseStorage reads; a code book prints by name if it is nf4 or
/// fp4, else as its list, with digits enough to give the same bits.
std::string printStorage(const StorageFormat &storage);

/// The least and the greatest code: an integer's range, else 0 and the number
/// of codes less 1.
int smallestCode(const StorageFormat &storage);
int largestCode(const StorageFormat &storage);

/// The integer, float or code book entry that `code` stands for. The bits above
/// the storage's width are ignored; an index beyond a code book's end is NaN.
float codeValue(const StorageFormat &storage, uint8_t code);

/// The largest magnitude of a finite code value.
float largestMagnitude(const StorageFormat &storage);

/// The code whose value is nearest to `x`.
///  - Integers: `x` is clamped to the range, then rounded half to even.
///  - Floats: half to even, saturating; -0 keeps its sign.
///  - Code books: the nearest entry. Half way between two (the mean taken in
///    double precision), and between equal entries, the lower code wins; so FP4
///    never gives code 8, its "-0".
/// NaN gives the code for 0 of an integer or code book, and NaN or 0 of a float
/// format; the quantizers refuse it before they come here.
uint8_t encodeNearest(const StorageFormat &storage, float x);

/// A code book sorted for look-up: the nearest entry to x has the code
/// `codes[number of thresholds below x]`. The thresholds hold the tie rule of
/// encodeNearest.
struct SortedCodeBook {
  std::vector<float> thresholds; ///< ascending, one fewer than the codes
  std::vector<uint8_t> codes;
  std::vector<float> values; ///< values[i] = value of codes[i]
};
SortedCodeBook sortCodeBook(const StorageFormat &storage);

} // namespace nibble

#endif // NIBBLE_NUMERICS_STORAGE_H
