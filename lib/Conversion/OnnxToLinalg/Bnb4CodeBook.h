//===- Bnb4CodeBook.h - The code books of MatMulBnb4 ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_ONNXTOLINALG_BNB4CODEBOOK_H
#define NIBBLE_LIB_CONVERSION_ONNXTOLINALG_BNB4CODEBOOK_H

#include <vector>

namespace nibble {

/// The sixteen numbers of NF4, or of FP4.
std::vector<float> getBnb4CodeBook(bool isNF4);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_ONNXTOLINALG_BNB4CODEBOOK_H
