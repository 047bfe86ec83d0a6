//===- Restore.h - Nodes that come back as they were ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CONVERSION_NIBBLETOONNX_RESTORE_H
#define NIBBLE_LIB_CONVERSION_NIBBLETOONNX_RESTORE_H

#include "nibble/Conversion/QuantizedNode.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"

#include "mlir/IR/BuiltinOps.h"

namespace nibble {

/// Writes the nodes again that --convert-onnx-to-nibble recorded, wherever the
/// record still says what the program says.
class Restorer {
public:
  explicit Restorer(mlir::ModuleOp module)
      : module(module), constants(module) {}

  /// Restores all nodes of the kinds that `format` (auto, matmulnbits, bnb4,
  /// qdq) writes, and all that work on codes of activations. Returns how many.
  unsigned restoreAll(llvm::StringRef format);

  /// Restores what reads `op`, or `op` itself. Returns how many nodes; 0 if
  /// that is not all of it.
  unsigned restore(AssembleOp op);

  /// Removes what the restored nodes no longer need.
  void cleanUp();

private:
  struct Parts {
    mlir::Value codes, scales, zeros;
  };

  bool restoreNode(mlir::Operation *op);
  bool restoreQLinear(QuantizeOp op);
  /// The parts of a tensor that was assembled or quantized; no codes if
  /// neither.
  Parts getParts(mlir::Value quantized) const;
  bool restoreAssemble(AssembleOp op);
  bool restoreDequantize(DequantizeOp op);
  bool restoreQuantize(QuantizeOp op);
  bool restoreDynamic(QuantizeDynamicOp op);
  bool restoreReader(onnx::NodeOp node);
  bool restoreIntegerProduct(onnx::NodeOp op);
  bool restoreIntegerSums(onnx::NodeOp op);
  /// Whether `node` says what the parts of an assembly or a quantization say.
  bool saysTheSame(onnx::NodeOp node, mlir::RankedTensorType type,
                   mlir::Value codes, mlir::Value scales, mlir::Value zeros);
  onnx::NodeOp rebuild(mlir::Operation *op, mlir::ArrayRef<mlir::Value> inputs,
                       mlir::Value codes, mlir::Value scales,
                       mlir::Value zeros);
  void discard(onnx::NodeOp node);
  void replaceCodes(mlir::Value quantized, mlir::Value codes);

  mlir::ModuleOp module;
  ConstantTable constants;
  /// The codes that a restored QuantizeLinear computes.
  llvm::DenseMap<mlir::Value, mlir::Value> quantizedCodes;
  /// Ops that may have lost their last reader.
  llvm::SmallVector<mlir::Operation *> candidates;
};

} // namespace nibble

#endif // NIBBLE_LIB_CONVERSION_NIBBLETOONNX_RESTORE_H
