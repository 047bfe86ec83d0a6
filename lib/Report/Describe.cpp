//===- Describe.cpp - Values in a reader's words --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Describe.h"

#include "llvm/ADT/StringExtras.h"

#include <set>

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

static void collectReaders(Value value, std::set<std::string> &readers) {
  for (Operation *user : value.getUsers()) {
    auto node = dyn_cast<NodeOp>(user);
    if (!node)
      readers.insert("output");
    else if (node.isOnnx("Transpose") && node.getNumResults() == 1)
      collectReaders(node.getResult(0), readers);
    else
      readers.insert(node.getOpType().str());
  }
}

std::string nibble::describeReaders(Value value) {
  std::set<std::string> readers;
  collectReaders(value, readers);
  return llvm::join(readers, ", ");
}

std::string nibble::describeShape(ShapedType type) {
  if (type.getRank() == 0)
    return "scalar";
  std::string text;
  llvm::raw_string_ostream os(text);
  llvm::interleave(type.getShape(), os, " x ");
  return text;
}

std::string nibble::describeEncoding(QuantizedAttr encoding) {
  std::string text;
  llvm::raw_string_ostream os(text);
  StorageAttr storage = encoding.getStorage();
  if (storage.isInteger()) {
    os << storage.getBitWidth() << " bits";
  } else {
    std::string printed;
    llvm::raw_string_ostream(printed) << storage;
    StringRef name(printed);
    name.consume_front("#nibble.storage<");
    os << name.rtrim('>');
  }
  int64_t group = 1;
  bool whole = false, channel = false;
  for (int64_t extent : encoding.getBlock()) {
    whole |= extent == QuantizedAttr::kWholeExtent;
    channel |= extent == 1;
    if (extent > 1)
      group *= extent;
  }
  if (group > 1)
    os << ", groups of " << group;
  else
    os << (whole && channel ? ", per channel" : ", per tensor");
  if (storage.isInteger())
    os << (encoding.hasZero() ? ", asymmetric" : ", symmetric");
  if (encoding.hasNestedScale())
    os << ", nested scales";
  if (encoding.hasOutliers())
    os << ", outliers";
  return text;
}

std::string nibble::describeType(Type type) {
  std::string text;
  llvm::raw_string_ostream os(text);
  auto tensor = dyn_cast<TensorType>(type);
  if (!tensor) {
    os << type;
    return text;
  }
  os << tensor.getElementType();
  auto ranked = dyn_cast<RankedTensorType>(type);
  if (!ranked)
    return text + "[...]";
  os << "[";
  llvm::interleaveComma(getDimensions(ranked), os, [&](const Dimension &dim) {
    if (dim.isStatic())
      os << dim.size;
    else if (dim.symbol)
      os << dim.symbol.getValue();
    else
      os << "?";
  });
  os << "]";
  return text;
}
