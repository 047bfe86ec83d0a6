//===- QuantizedNode.h - Quantized tensors in ONNX nodes --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What the ops of ONNX and com.microsoft that hold or make quantized tensors
// say, in the terms of the nibble dialect. Shared by the conversions in both
// directions: one reads nodes with it, the other checks with it that a node
// which it writes back says what the program says.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CONVERSION_QUANTIZEDNODE_H
#define NIBBLE_CONVERSION_QUANTIZEDNODE_H

#include "nibble/Dialect/Nibble/IR/NibbleAttributes.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Numerics/Result.h"

#include "mlir/IR/Builders.h"

#include <array>

namespace nibble {

/// Attribute of the op that an ONNX node became: the node, as a record.
inline constexpr llvm::StringLiteral kRecordAttrName = "nibble.onnx";

//===----------------------------------------------------------------------===//
// Reading nodes
//===----------------------------------------------------------------------===//

enum class NodeKind {
  QuantizeLinear,
  DequantizeLinear,
  DynamicQuantizeLinear,
  MatMulNBits,
  GatherBlockQuantized,
  MatMulBnb4,
  QLinearMatMul,
  QLinearConv,
  MatMulInteger,
  ConvInteger,
};

/// The kind of a node that holds or makes a quantized tensor, else
/// std::nullopt.
std::optional<NodeKind> getNodeKind(onnx::NodeOp node);

/// The quantized tensor of a node.
struct QuantizedNode {
  NodeKind kind = NodeKind::DequantizeLinear;
  /// Its type. A weight of MatMulNBits and MatMulBnb4 is [N, K].
  mlir::RankedTensorType type;
  /// The values of its parts, with the types that nibble.assemble wants. They
  /// refer to the bytes of the node's own constants wherever the order is the
  /// same. `codes` is null where the node's codes are no constant or its
  /// result; `scales` is null where the node finds them; `zeros` where there
  /// are none.
  mlir::TypedAttr codes, scales, zeros;
  /// Which inputs of the node the parts come from; the zero points of a node
  /// that leaves them out come from no input.
  unsigned codesInput = 0, scalesInput = 1;
  std::optional<unsigned> zerosInput;
  /// For MatMulNBits with g_idx: the input that each column of the weight is
  /// multiplied with, where that is not the input of the same place. The codes
  /// stand in this order, in which groups are blocks.
  std::vector<int64_t> order;
  /// For QLinearMatMul and QLinearConv, whose own tensor is the result: the
  /// factors, and the bias if there is one. Its scales come from no input. For
  /// MatMulInteger and ConvInteger, which have no tensor of their own: the
  /// factors, whose scales are 1 and come from no input. Their zero points may
  /// be computed: `zeros` is null then, and `zerosInput` is not.
  std::vector<QuantizedNode> operands;
};

/// Reads a node that getNodeKind knows. The failure says why the nibble dialect
/// cannot hold what it means.
Result<QuantizedNode> readQuantizedNode(onnx::NodeOp node);

/// A product of codes whose sums become numbers, as ONNX Runtime's dynamic
/// quantization writes it:
///
///     Mul(Cast(sums(codes, w, zero point, w's zero point)), Mul(scale, w's
///     scale))
///
/// with codes, scale and zero point of one DynamicQuantizeLinear. It is the
/// product of the numbers that both stand for, within the error that Spec S12
/// allows: the sum is exact, its conversion and both factors round once.
struct IntegerProduct {
  /// The DynamicQuantizeLinear, which other products may read too.
  onnx::NodeOp dynamic;
  /// The nodes that are the product's own.
  onnx::NodeOp sums, cast, scale, result;
  QuantizedNode activations, weight;

  mlir::Value getWeightScale();
  std::array<onnx::NodeOp, 4> getNodes() const {
    return {sums, cast, scale, result};
  }
};

/// Whether the result of `node` is a sum of codes.
bool isIntegerProduct(onnx::NodeOp node);

/// Reads a node of isIntegerProduct alone: the factors of its sums.
Result<QuantizedNode> readIntegerSums(onnx::NodeOp node);

/// Reads the product whose sums a node of isIntegerProduct computes. The
/// failure says why they are not the sums of such a product.
Result<IntegerProduct> readIntegerProduct(onnx::NodeOp sums);

/// `value` as a tensor of another shape or element type with the same bytes:
/// a reference to the same place in a file where it is one. Null where the
/// sizes differ.
mlir::TypedAttr viewTensor(mlir::TypedAttr value, mlir::RankedTensorType type);

/// Whether two constants hold the same bytes as the same type.
bool isSameTensor(mlir::Attribute left, mlir::Attribute right);

/// The type of `value` without names of dimensions, if it is a ranked tensor;
/// that of its data for a constant, and seen through a conversion cast.
mlir::RankedTensorType getPlainType(mlir::Value value);

//===----------------------------------------------------------------------===//
// Records
//===----------------------------------------------------------------------===//

/// All that an onnx.node without regions says, its constant inputs included (by
/// reference), so that it can be written back as it was.
mlir::DictionaryAttr recordNode(onnx::NodeOp node);

/// The same for nodes that became one op, in an order in which they may stand.
/// An input that one of them computes, or `source`, is recorded as such.
mlir::DictionaryAttr recordNodes(llvm::ArrayRef<onnx::NodeOp> nodes,
                                 onnx::NodeOp source);

/// The op type of the node (the first of several) that a record is about, or
/// empty.
llvm::StringRef getRecordedOpType(mlir::DictionaryAttr record);

/// The constants of a model, by name.
class ConstantTable {
public:
  explicit ConstantTable(mlir::Operation *root);

  /// The constant with this name and value that `user` can read, or null.
  mlir::Value lookup(llvm::StringRef name, mlir::Attribute value,
                     mlir::Operation *user) const;
  void add(mlir::Value constant, llvm::StringRef name);
  void remove(mlir::Value constant, llvm::StringRef name);

private:
  llvm::DenseMap<std::pair<mlir::Block *, mlir::StringAttr>,
                 llvm::SmallVector<mlir::Value, 1>>
      values;
};

/// Writes a recorded node before `place`. `inputs` holds a value for each input
/// that is no constant and null for the others; `anchors` may name, for an
/// input, the constant that stands for it now: the recorded constant comes back
/// beside it. Null where the record is damaged.
onnx::NodeOp rebuildNode(mlir::DictionaryAttr record, mlir::Operation *place,
                         llvm::ArrayRef<mlir::Value> inputs,
                         llvm::ArrayRef<mlir::Value> anchors,
                         ConstantTable &constants);

/// Writes the nodes of a record of several before `place`, which read `source`.
/// Empty where the record is damaged.
llvm::SmallVector<onnx::NodeOp> rebuildNodes(mlir::DictionaryAttr record,
                                             mlir::Operation *place,
                                             onnx::NodeOp source,
                                             llvm::ArrayRef<mlir::Value> parts,
                                             ConstantTable &constants);

/// For each recorded input, the one of `parts` that the constant of that name
/// became; the first where there is none.
llvm::SmallVector<mlir::Value> getAnchors(mlir::DictionaryAttr record,
                                          llvm::ArrayRef<mlir::Value> parts);

/// What a value was before the casts of a conversion.
mlir::Value seeThroughCasts(mlir::Value value);

} // namespace nibble

#endif // NIBBLE_CONVERSION_QUANTIZEDNODE_H
