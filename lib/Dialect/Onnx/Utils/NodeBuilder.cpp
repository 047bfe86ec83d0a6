//===- NodeBuilder.cpp - New constants and nodes of a graph ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include <cstring>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

Value onnx::makeFloats(OpBuilder &builder, StringRef name,
                       ArrayRef<int64_t> shape, ArrayRef<float> numbers) {
  auto type = RankedTensorType::get(shape, builder.getF32Type());
  std::vector<char> bytes(numbers.size() * sizeof(float));
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return ConstantOp::create(builder, NameLoc::get(builder.getStringAttr(name)),
                            type, builder.getStringAttr(name),
                            makeTensorValue(type, name, std::move(bytes)),
                            TensorField::raw_data, DictionaryAttr());
}

NodeOp onnx::makeNode(OpBuilder &builder, StringRef opType, StringRef output,
                      ValueRange inputs, Type resultType,
                      ArrayRef<std::pair<StringRef, Attribute>> attributes) {
  SmallVector<Attribute> entries;
  for (auto [key, value] : attributes)
    entries.push_back(NodeAttributeAttr::get(
        builder.getContext(), builder.getStringAttr(key), value));
  return NodeOp::create(
      builder, NameLoc::get(builder.getStringAttr(output)), resultType,
      builder.getStringAttr(opType), /*domain=*/StringAttr(),
      /*overload=*/StringAttr(), builder.getStringAttr(output),
      builder.getStrArrayAttr({output}), builder.getArrayAttr(entries),
      /*extras=*/DictionaryAttr(), inputs, /*subgraphsCount=*/0);
}
