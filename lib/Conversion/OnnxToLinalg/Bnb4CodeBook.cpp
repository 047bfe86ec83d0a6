//===- Bnb4CodeBook.cpp - The code books of MatMulBnb4 --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A file of its own, because Numerics and ScalarBuilder both have an
// OutOfRange.
//
//===----------------------------------------------------------------------===//

#include "Bnb4CodeBook.h"

#include "nibble/Numerics/Storage.h"

std::vector<float> nibble::getBnb4CodeBook(bool isNF4) {
  return (isNF4 ? StorageFormat::getNF4() : StorageFormat::getFP4()).codeBook;
}
