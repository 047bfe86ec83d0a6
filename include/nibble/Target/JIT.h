//===- JIT.h - Compile a model and run it in this process -------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_JIT_H
#define NIBBLE_TARGET_JIT_H

#include "mlir/IR/AsmState.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <vector>

// NOLINTNEXTLINE(readability-identifier-naming): a name of a C interface.
struct nibble_pool;

namespace mlir {
class ExecutionEngine;
}

namespace nibble {

class SimulatedDevice;
struct GpuOptions;

/// Numbers on the host: row-major, little-endian, each element in its stored
/// type (ScalarBuilder.h): a byte for an element of less than 8 bits.
struct HostTensor {
  mlir::Type elementType;
  std::vector<int64_t> shape;
  std::vector<char> bytes;
};

/// What a calibration probe sees, row-major.
struct ObservedTensor {
  llvm::ArrayRef<int64_t> shape;
  llvm::ArrayRef<float> values;
};

/// Is told what the probes of a running model see (docs/Spec.md, S15).
class RunObserver {
public:
  virtual ~RunObserver();
  /// The probe of this number (CompiledModel::getProbes) has seen `tensor`.
  virtual void observe(size_t probe, const ObservedTensor &tensor) = 0;
};

/// Machine code of models that differ in nothing but their weights, such as the
/// layers of a transformer, for CompiledModel::compile to use again.
class CodeCache {
public:
  CodeCache();
  ~CodeCache();

private:
  friend class CompiledModel;
  struct Entry {
    std::shared_ptr<mlir::ExecutionEngine> engine;
    /// Of the checks in the code, in order.
    std::vector<std::string> messages;
  };
  llvm::StringMap<Entry> entries;
};

struct CompileOptions {
  /// Plain loops that follow docs/Spec.md instead of fast code.
  bool reference = true;
  /// Of fast code: see CpuOptions.
  std::string target = "native";
  std::string compute = "i8";
  /// Let the probes of the model (nibble.observe) report what they see.
  bool observe = false;
  CodeCache *cache = nullptr;
  /// A row of NvidiaRows.inl: run on a simulated GPU. Empty: on this machine's
  /// processor.
  std::string device;
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

  /// The ids of the probes, by number.
  llvm::ArrayRef<std::string> getProbes() const { return probes; }

  /// Runs the model. An error says which input has not the type and shape that
  /// the model expects; dimensions of the same name must agree. Several threads
  /// may run one model at once. `observer` may be null.
  llvm::Expected<std::vector<HostTensor>>
  run(llvm::ArrayRef<HostTensor> inputs, RunObserver *observer = nullptr) const;

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
    /// Holds `bytes` where the lowering has made them, so that they go with the
    /// model rather than with the context.
    mlir::AsmResourceBlob owned;
  };
  std::vector<Weight> weights;
  std::vector<std::string> probes;
  std::shared_ptr<mlir::ExecutionEngine> engine;
  /// Buffers that runs leave to those after them.
  std::unique_ptr<nibble_pool, void (*)(nibble_pool *)> pool;
  /// Null where the model runs on this machine's processor.
  std::unique_ptr<SimulatedDevice> device;
  /// Where the code is that of another model: what its checks say, which names
  /// that one's nodes, to what they say here.
  llvm::StringMap<std::string> messages;
  std::string translate(llvm::StringRef message) const;

  mlir::LogicalResult takeWeights(mlir::ModuleOp module,
                                  const llvm::StringSet<> &given,
                                  bool onDevice);
  void takeProbes(mlir::ModuleOp module);
  mlir::LogicalResult lowerForDevice(mlir::ModuleOp module,
                                     const GpuOptions &options);
};

} // namespace nibble

#endif // NIBBLE_TARGET_JIT_H
