//===- Bnb4.cpp - com.microsoft's 4-bit code books
//-------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// MatMulBnb4: B is the flattened [N, K] weight, two codes a byte, the first in
// the high nibble; absmax has one entry for each block of that order.
//
//===----------------------------------------------------------------------===//

#include "StoredWeight.h"

#include "nibble/Numerics/Packing.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

std::optional<std::string> nibble::whyNotBnb4(const StoredWeight &weight) {
  if (weight.nestedScales)
    return "has nested scales, which MatMulBnb4 lacks";
  StorageAttr storage = weight.encoding.getStorage();
  if (storage.getKind() != CodeKind::NF4 && storage.getKind() != CodeKind::FP4)
    return "has codes that are not of nf4 or fp4";
  if (weight.type.getRank() != 2 || !weight.type.getElementType().isF32())
    return "is no matrix of f32";
  if (weight.encoding.getFlat() || weight.readers.empty())
    return "has a form that MatMulBnb4 lacks";
  for (const WeightReader &reader : weight.readers) {
    if (reader.kind != WeightReader::MatMul &&
        reader.kind != WeightReader::Gemm)
      return "is read by a node other than MatMul and Gemm";
    NodeOp node = reader.node;
    if (reader.kind == WeightReader::Gemm &&
        (node.getInt("transA", 0) != 0 || node.getFloat("alpha", 1) != 1 ||
         node.getFloat("beta", 1) != 1))
      return "is read by a Gemm with transA, alpha or beta";
    unsigned axis = getReductionAxis(reader);
    int64_t extent = weight.encoding.getBlock()[axis];
    int64_t K = weight.type.getDimSize(axis);
    if (weight.encoding.getBlock()[1 - axis] != 1 || extent < 16 ||
        !llvm::isPowerOf2_64(extent) || K % extent != 0)
      return "has blocks that do not divide its " + std::to_string(K) +
             " inputs into powers of two from 16";
  }
  return std::nullopt;
}

FormatCounts nibble::writeBnb4(const StoredWeight &weight,
                               OnnxBuilder &builder) {
  FormatCounts counts;
  unsigned axis = getReductionAxis(weight.readers.front());
  size_t K = weight.type.getDimSize(axis), N = weight.type.getDimSize(1 - axis);
  int64_t blockSize = weight.encoding.getBlock()[axis];
  auto toRows = [&](auto &values, size_t inner) {
    auto rows = values;
    if (axis == 0)
      for (size_t i = 0; i < inner; ++i)
        for (size_t n = 0; n < N; ++n)
          rows[n * inner + i] = values[i * N + n];
    return rows;
  };
  std::vector<uint8_t> codes = toRows(weight.codes, K);
  std::vector<float> scales = toRows(weight.scales, K / blockSize);
  std::vector<char> packed((codes.size() + 1) / 2);
  packHighNibbleFirst(codes.data(), codes.size(),
                      reinterpret_cast<uint8_t *>(packed.data()));

  Type byte = builder.builder.getIntegerType(8, /*isSigned=*/false);
  bool isNF4 = weight.encoding.getStorage().getKind() == CodeKind::NF4;
  int64_t packedSize = packed.size(), count = scales.size();
  Value B = builder.makeConstant(weight.name + (isNF4 ? "_NF4" : "_FP4"),
                                 {packedSize}, byte, std::move(packed));
  Value absmax = builder.makeScales(weight.name + "_absmax", {count},
                                    builder.builder.getF32Type(), scales);
  for (const WeightReader &reader : weight.readers) {
    NodeOp node = reader.node;
    NodeOp transpose = reader.transpose;
    builder.setInsertionPoint(node);
    NodeOp product = builder.makeNode(
        "MatMulBnb4", "com.microsoft", node.getDisplayName(),
        node.getOutputName(0), {node.getInputs()[0], B, absmax},
        {{"K", K}, {"N", N}, {"block_size", blockSize}, {"quant_type", isNF4}},
        node.getResult(0).getType());
    replaceProduct(reader, product, builder);
    if (transpose && transpose->use_empty())
      transpose.erase();
    ++counts.matMuls;
  }
  return counts;
}
