//===- UniqueNames.h - Names that a model does not have yet -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DIALECT_ONNX_UTILS_UNIQUENAMES_H
#define NIBBLE_DIALECT_ONNX_UTILS_UNIQUENAMES_H

#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/StringSet.h"

#include <string>

namespace nibble::onnx {

/// The names of a model's values, so that those which a pass adds differ: ONNX
/// wants every value of a graph and of the graphs inside it to have its own.
class UniqueNames {
public:
  explicit UniqueNames(mlir::ModuleOp module);
  /// Names of something else, such as nodes.
  explicit UniqueNames(llvm::StringSet<> taken) : taken(std::move(taken)) {}

  /// `wanted` if nothing is called so yet, else with the first number behind
  /// it that makes it new: w_scales, w_scales_1, w_scales_2, …
  std::string make(const llvm::Twine &wanted);

private:
  llvm::StringSet<> taken;
};

} // namespace nibble::onnx

#endif // NIBBLE_DIALECT_ONNX_UTILS_UNIQUENAMES_H
