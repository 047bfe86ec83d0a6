//===- ConstantData.cpp - The numbers of constants ------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/ConstantData.h"

#include "nibble/Numerics/FloatFormats.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/DialectResourceBlobManager.h"
#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace nibble;

ElementsAttr nibble::getConstant(Value value) {
  while (auto cast = value.getDefiningOp<UnrealizedConversionCastOp>()) {
    if (cast.getInputs().size() != 1)
      return {};
    value = cast.getInputs()[0];
  }
  ElementsAttr result;
  matchPattern(value, m_Constant(&result));
  return result;
}

ArrayRef<char> nibble::getBytes(ElementsAttr value,
                                std::vector<char> &storage) {
  if (auto resource = dyn_cast<DenseResourceElementsAttr>(value)) {
    AsmResourceBlob *blob = resource.getRawHandle().getBlob();
    return blob ? blob->getData() : ArrayRef<char>();
  }
  auto dense = dyn_cast<DenseElementsAttr>(value);
  if (!dense)
    return {};
  ArrayRef<char> raw = dense.getRawData();
  if (!dense.isSplat())
    return raw;
  for (int64_t i = 0; i < dense.getNumElements(); ++i)
    storage.insert(storage.end(), raw.begin(), raw.end());
  return storage;
}

std::vector<float> nibble::getFloats(ElementsAttr value) {
  std::vector<char> storage;
  ArrayRef<char> bytes = getBytes(value, storage);
  Type type = value.getElementType();
  FloatFormat format = type.isF32()   ? FloatFormat::F32
                       : type.isF16() ? FloatFormat::F16
                                      : FloatFormat::BF16;
  if (!isa<Float32Type, Float16Type, BFloat16Type>(type) ||
      bytes.size() != value.getNumElements() * codeBytes(format))
    return {};
  std::vector<float> result(value.getNumElements());
  decodeArray(format, bytes.data(), result.size(), result.data());
  return result;
}
