//===- EmittedModel.h - A model as object code ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_TARGET_EMITTEDMODEL_H
#define NIBBLE_TARGET_EMITTEDMODEL_H

#include "nibble/Conversion/DeviceProgram.h"
#include "nibble/Target/ModelInterface.h"
#include "nibble/Target/NVVM/NvidiaRow.h"
#include "nibble/Target/TargetDescription.h"
#include "nibble/Target/WeightsPlace.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

#include <memory>
#include <string>
#include <vector>

namespace llvm {
class Function;
class TargetMachine;
} // namespace llvm

namespace nibble {

struct EmitOptions {
  /// What the functions of the C interface start with.
  std::string name;
  /// The instruction sets to emit code for, all of one architecture; which one
  /// runs is chosen when the model is loaded, a later row before an earlier
  /// one.
  std::vector<const TargetRow *> rows;
  /// The GPU whose kernels the code launches, with one row for the host; null
  /// for code of processors alone.
  const NvidiaRow *device = nullptr;
  WeightsPlace weights = WeightsPlace::Auto;
  /// The name, without folder, that a file of weights will have.
  std::string weightsFile;
  /// How products with integer codes are computed (CpuOptions); on a GPU those
  /// with kernels for tensor cores are computed in f16 unless it is f32.
  std::string compute = "i8";
  /// Write caches in place (--onnx-update-caches).
  bool updateCaches = false;
  /// Lower by the reference pipeline instead of the one for CPUs.
  bool reference = false;
};

/// The constants of a model that its code takes as arguments, one after the
/// other, equal ones once.
class WeightTable {
public:
  /// Returns the offset of `bytes` in the table, which must live as long.
  uint64_t add(llvm::ArrayRef<char> bytes);
  uint64_t getSize() const { return size; }
  /// A hash of places and contents.
  uint64_t getHash() const;
  void write(llvm::raw_ostream &os) const;

private:
  struct Entry {
    llvm::ArrayRef<char> bytes;
    uint64_t offset, hash;
  };
  std::vector<Entry> entries;
  uint64_t size = 0;
};

/// A model in LLVM IR with the runtime that it needs and a C interface.
class EmittedModel {
public:
  /// Lowers `module`, a model in the onnx dialect, which is changed, by the
  /// pipeline for CPUs, once for each row. Errors are reported to the context.
  /// The weights stay in the context of `module`.
  static mlir::FailureOr<std::unique_ptr<EmittedModel>>
  emit(mlir::ModuleOp module, const EmitOptions &options);

  const ModelInterface &getInterface() const { return interface; }
  const WeightTable &getWeights() const { return weights; }
  /// True where the weights are to be written by writeWeights.
  bool hasWeightsFile() const { return weightsInFile; }
  llvm::StringRef getTriple() const { return options.rows.front()->triple; }
  /// The GPU's part: its kernels in PTX, and the most bytes that its buffers
  /// take at a time, if that is known.
  llvm::StringRef getPtx() const { return ptx; }
  /// The LLVM IR that PTX was made of.
  llvm::StringRef getKernels() const { return kernels; }
  std::optional<uint64_t> getBufferBytes() const { return device.bufferBytes; }
  /// True where the code calls the OpenMP runtime.
  bool usesOpenMP() const;

  void writeHeader(llvm::raw_ostream &os) const;
  void writeWeights(llvm::raw_ostream &os) const;
  void writeLLVM(llvm::raw_ostream &os) const;
  llvm::Error writeCode(llvm::raw_pwrite_stream &os, bool assembly);

private:
  explicit EmittedModel(const EmitOptions &options) : options(options) {}

  mlir::LogicalResult addRow(mlir::ModuleOp module, const TargetRow &row);
  llvm::Error addDevice();
  llvm::Error finish();

  EmitOptions options;
  ModelInterface interface;
  WeightTable weights;
  bool weightsInFile = false;
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> code;
  DeviceProgram device;
  std::string ptx, kernels;
  /// Of each row, what the runtime reads.
  struct Row {
    const TargetRow *target;
    llvm::Function *entry;
    struct Weight {
      uint64_t offset;
      std::vector<int64_t> shape;
    };
    std::vector<Weight> weights;
  };
  std::vector<Row> rows;
};

/// Creates a machine that emits code for `triple`.
llvm::Expected<std::unique_ptr<llvm::TargetMachine>>
createTargetMachine(llvm::StringRef triple);

/// The text of a C header for a model with this interface, whose functions
/// start with `name`.
void writeModelHeader(const ModelInterface &interface, llvm::StringRef name,
                      llvm::raw_ostream &os);

/// The runtime of compiled models as bitcode for the architecture of `triple`.
llvm::StringRef getRuntimeBitcode(llvm::StringRef triple);

/// Links the object file `object` to the shared library `library`, which will
/// need libc, libm and, with `openMP`, libomp. Both are paths; files that are
/// needed on the way are made beside `object`.
llvm::Error linkSharedLibrary(llvm::StringRef object, llvm::StringRef library,
                              llvm::StringRef soname, llvm::StringRef triple,
                              bool openMP);

} // namespace nibble

#endif // NIBBLE_TARGET_EMITTEDMODEL_H
