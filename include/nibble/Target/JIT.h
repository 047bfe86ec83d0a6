//===- JIT.h - Compile a model and run it in this process -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_JIT_H
#define NIBBLE_TARGET_JIT_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <vector>

namespace mlir {
class ExecutionEngine;
}

namespace nibble {

/// Numbers on the host: row-major, little-endian, each element in its stored
/// type (ScalarBuilder.h): a byte for an element of less than 8 bits.
struct HostTensor {
  mlir::Type elementType;
  std::vector<int64_t> shape;
  std::vector<char> bytes;
};

struct CompileOptions {
  /// Plain loops that follow docs/Spec.md instead of fast code.
  bool reference = true;
  /// Of fast code: see CpuOptions.
  std::string target = "native";
  std::string compute = "i8";
};

/// A model as machine code.
class CompiledModel {
public:
  /// Lowers `module`, whose function `main` is the model, by a pipeline and
  /// compiles it for this machine. The module is changed. An error of the
  /// lowering is reported to the context.
  static mlir::FailureOr<std::unique_ptr<CompiledModel>>
  compile(mlir::ModuleOp module, const CompileOptions &options);
  static mlir::FailureOr<std::unique_ptr<CompiledModel>>
  compile(mlir::ModuleOp module) {
    return compile(module, CompileOptions());
  }
  ~CompiledModel();

  llvm::ArrayRef<mlir::RankedTensorType> getInputTypes() const {
    return inputTypes;
  }
  llvm::ArrayRef<mlir::RankedTensorType> getResultTypes() const {
    return resultTypes;
  }

  /// Runs the model. An error says which input has not the type and shape that
  /// the model expects; dimensions of the same name must agree.
  llvm::Expected<std::vector<HostTensor>>
  run(llvm::ArrayRef<HostTensor> inputs) const;

private:
  CompiledModel();

  /// In the onnx dialect's types.
  std::vector<mlir::RankedTensorType> inputTypes, resultTypes;
  /// Constants that are passed as arguments after the inputs.
  struct Weight {
    mlir::RankedTensorType type;
    llvm::ArrayRef<char> bytes;
    /// Holds `bytes` where the file does not align them.
    std::vector<char> aligned;
  };
  std::vector<Weight> weights;
  std::unique_ptr<mlir::ExecutionEngine> engine;

  mlir::LogicalResult takeWeights(mlir::ModuleOp module);
};

} // namespace nibble

#endif // NIBBLE_TARGET_JIT_H
