//===- SimulatedModel.h - A model on a simulated GPU ------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_SIMULATEDMODEL_H
#define NIBBLE_LIB_DRIVER_SIMULATEDMODEL_H

#include "nibble/Runtime/Types.h"
#include "nibble/Support/Npz.h"
#include "nibble/Target/JIT.h"
#include "nibble/Target/ModelInterface.h"

namespace nibble {

/// The GPU that `--target` means where the device is none of this machine's
/// processors: nvidia-sm80 for `native`.
llvm::Expected<std::string> getDeviceTarget(llvm::StringRef target);

/// A model that runs on a simulated GPU, with inputs as LoadedModel has them.
class SimulatedModel {
public:
  /// Compiles `module`, which is changed, for a row of NvidiaRows.inl. An error
  /// has been printed.
  static mlir::FailureOr<std::unique_ptr<SimulatedModel>>
  compile(mlir::ModuleOp module, const std::string &target);

  llvm::ArrayRef<nibble_value> getInputs() const { return inputs; }

  /// Runs the model on `arrays`, one for each input in order.
  llvm::Expected<std::vector<NpyArray>>
  run(llvm::ArrayRef<NpyArray> arrays) const;

private:
  SimulatedModel() = default;
  void describeInputs();

  ModelInterface interface;
  std::unique_ptr<CompiledModel> model;
  /// In the words of the C interface.
  std::vector<nibble_value> inputs;
  std::vector<std::vector<int64_t>> shapes;
  std::vector<std::vector<const char *>> dimensions;
};

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_SIMULATEDMODEL_H
