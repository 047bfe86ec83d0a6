//===- StoredWeight.h - A weight on its way out --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOONNX_STOREDWEIGHT_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOONNX_STOREDWEIGHT_H

#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"
#include "nibble/Numerics/Result.h"

#include "mlir/IR/Builders.h"

namespace nibble {

/// A node that reads a quantized weight.
struct WeightReader {
  enum Kind { MatMul, Gemm, Gather, Other };
  Kind kind = Other;
  onnx::NodeOp node;
  unsigned operand = 0;
  /// The Transpose between the weight and the node, or null.
  onnx::NodeOp transpose;
};

/// The constants of a nibble.assemble, unpacked: a byte a code.
struct StoredWeight {
  AssembleOp op;
  std::string name;
  QuantizedAttr encoding;
  mlir::RankedTensorType type;
  std::vector<WeightReader> readers;
  llvm::SmallVector<int64_t> gridShape;
  std::vector<uint8_t> codes;      // in the order of the tensor
  std::vector<float> scales;       // in the order of the grid
  AssembleOp nestedScales;         // what they are made of, or null
  std::vector<uint8_t> zeroPoints; // likewise, or empty
};

/// The dimension of the weight that `reader` sums over (MatMul, Gemm), or that
/// a row of its table runs along (Gather).
unsigned getReductionAxis(const WeightReader &reader);

/// Reads the constants behind `op`; the failure says what no ONNX op holds.
Result<StoredWeight> readWeight(AssembleOp op);

/// The ONNX name of the weight that `op` makes.
std::string getWeightName(AssembleOp op);

/// The width that ONNX stores a code of `bits` in: 2, 4 or 8.
inline unsigned getContainerBits(unsigned bits) {
  return bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
}

/// Makes initializers and nodes beside a weight.
class OnnxBuilder {
public:
  OnnxBuilder(mlir::Operation *before, onnx::UniqueNames &names)
      : builder(before), names(names) {}
  void setInsertionPoint(mlir::Operation *before) {
    builder.setInsertionPoint(before);
  }

  /// An initializer of `bytes`, in the layout of raw_data. It gets another name
  /// where `name` is taken.
  mlir::Value makeConstant(llvm::StringRef name, llvm::ArrayRef<int64_t> shape,
                           mlir::Type elementType, std::vector<char> bytes);
  /// Scales (f32) in `elementType`, which holds each exactly.
  mlir::Value makeScales(llvm::StringRef name, llvm::ArrayRef<int64_t> shape,
                         mlir::Type elementType, llvm::ArrayRef<float> scales);
  /// The scales of a weight, computed from their codes where they are nested.
  mlir::Value makeScales(const StoredWeight &weight,
                         llvm::ArrayRef<int64_t> shape);
  /// A node with one result.
  onnx::NodeOp
  makeNode(llvm::StringRef opType, llvm::StringRef domain, llvm::StringRef name,
           llvm::StringRef output, mlir::ValueRange inputs,
           llvm::ArrayRef<std::pair<llvm::StringRef, int64_t>> attributes,
           mlir::Type resultType);

  mlir::OpBuilder builder;
  onnx::UniqueNames &names;
};

/// Whether this weight and all its readers can be written in a format; if not,
/// why.
std::optional<std::string> whyNotMatMulNBits(const StoredWeight &weight);
std::optional<std::string> whyNotBnb4(const StoredWeight &weight);
std::optional<std::string> whyNotQdq(const StoredWeight &weight);

struct FormatCounts {
  unsigned matMuls = 0, gathers = 0;
};

/// Replace the readers of the weight, before which `builder` stands; its op is
/// left without uses.
FormatCounts writeMatMulNBits(const StoredWeight &weight, OnnxBuilder &builder,
                              int64_t accuracyLevel);
FormatCounts writeBnb4(const StoredWeight &weight, OnnxBuilder &builder);
void writeQdq(const StoredWeight &weight, OnnxBuilder &builder);

/// The nodes that were written for dynamically quantized activations.
using DynamicNodes = llvm::DenseMap<mlir::Operation *, onnx::NodeOp>;

/// Whether all that reads this weight are products with dynamically quantized
/// activations, which MatMulInteger computes.
bool isIntegerProduct(const StoredWeight &weight);

/// Replaces those products. Returns how many.
unsigned writeIntegerProducts(const StoredWeight &weight, OnnxBuilder &builder,
                              DynamicNodes &dynamicNodes);

/// The opset of ONNX that DequantizeLinear needs for this weight.
int64_t getQdqOpset(const StoredWeight &weight);

/// Replaces the reader by `product`, whose last dimension is that of the
/// weight, with a Gemm's C added. Shared by the formats.
void replaceProduct(const WeightReader &reader, onnx::NodeOp product,
                    OnnxBuilder &builder);

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOONNX_STOREDWEIGHT_H
