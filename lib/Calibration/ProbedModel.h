//===- ProbedModel.h - A model that shows its activations -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_CALIBRATION_PROBEDMODEL_H
#define NIBBLE_LIB_CALIBRATION_PROBEDMODEL_H

#include "nibble/Target/JIT.h"

#include <map>

namespace nibble {

/// Numbers of a value of a running model.
struct SeenActivation {
  llvm::StringRef name;
  llvm::ArrayRef<int64_t> shape;
  llvm::ArrayRef<float> values;
  /// The dimension of the channels is the last one, as of what matrix products
  /// read, not the second, as of what convolutions read and give.
  bool channelsAreLast;
};

/// A compiled copy of a model with probes behind what Conv, MatMul and Gemm
/// read and what Conv gives, each value once.
class ProbedModel {
public:
  /// Errors are reported to the context.
  static mlir::FailureOr<ProbedModel> compile(mlir::ModuleOp module);

  using Callback = llvm::function_ref<void(const SeenActivation &)>;
  /// Runs the model and calls `see` for each activation. Several threads may
  /// run it at once.
  llvm::Error run(llvm::ArrayRef<HostTensor> inputs, Callback see) const;

private:
  std::unique_ptr<CompiledModel> model;
  /// Ids of the inputs of the model, which are seen as they are given.
  std::map<unsigned, std::string> inputIds;
};

} // namespace nibble

#endif // NIBBLE_LIB_CALIBRATION_PROBEDMODEL_H
