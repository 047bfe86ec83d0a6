//===- DataTypes.cpp - Data types of onnx.proto ---------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/DataTypes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinTypes.h"

using namespace mlir;
using namespace nibble;

/// The types in the order of `TensorProto.DataType`.
static SmallVector<Type> makeElementTypes(MLIRContext *context) {
  Builder b(context);
  auto unsignedType = [&](unsigned width) {
    return IntegerType::get(context, width, IntegerType::Unsigned);
  };
  return {onnx::UnknownType::get(context),
          b.getF32Type(),
          unsignedType(8),
          b.getI8Type(),
          unsignedType(16),
          b.getI16Type(),
          b.getI32Type(),
          b.getI64Type(),
          onnx::StringType::get(context),
          b.getI1Type(),
          b.getF16Type(),
          b.getF64Type(),
          unsignedType(32),
          unsignedType(64),
          ComplexType::get(b.getF32Type()),
          ComplexType::get(b.getF64Type()),
          b.getBF16Type(),
          Float8E4M3FNType::get(context),
          Float8E4M3FNUZType::get(context),
          Float8E5M2Type::get(context),
          Float8E5M2FNUZType::get(context),
          unsignedType(4),
          b.getIntegerType(4),
          Float4E2M1FNType::get(context),
          Float8E8M0FNUType::get(context),
          unsignedType(2),
          b.getIntegerType(2),
          Float6E2M3FNType::get(context),
          Float6E3M2FNType::get(context)};
}

Type onnx::getElementType(MLIRContext *context, uint64_t dataType) {
  SmallVector<Type> types = makeElementTypes(context);
  return dataType < types.size() ? types[dataType] : Type();
}

std::optional<uint32_t> onnx::getDataType(Type elementType) {
  SmallVector<Type> types = makeElementTypes(elementType.getContext());
  auto it = llvm::find(types, elementType);
  if (it == types.end())
    return std::nullopt;
  return it - types.begin();
}
