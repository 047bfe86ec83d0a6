//===- LoadedModel.h - A compiled model in this process ---------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_LOADEDMODEL_H
#define NIBBLE_LIB_DRIVER_LOADEDMODEL_H

#include "nibble/Runtime/Types.h"
#include "nibble/Support/Npz.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nibble {

/// The functions of a library that `nibble compile` made, and its one model.
class LoadedModel {
public:
  /// Loads the library at `path`, whose functions start with kPrefix.
  static llvm::Expected<std::unique_ptr<LoadedModel>>
  open(llvm::StringRef path);
  ~LoadedModel();
  static constexpr const char *kPrefix = "model";

  llvm::ArrayRef<nibble_value> getInputs() const { return inputs; }
  llvm::ArrayRef<nibble_value> getOutputs() const { return outputs; }
  std::string getTarget() const;

  /// Runs the model on `arrays`, one for each input in order.
  llvm::Expected<std::vector<NpyArray>>
  run(llvm::ArrayRef<NpyArray> arrays) const;

  /// Runs the model and drops what it gives.
  llvm::Error runOnly(llvm::ArrayRef<NpyArray> arrays) const;

private:
  LoadedModel() = default;
  llvm::Error call(llvm::ArrayRef<NpyArray> arrays,
                   std::vector<nibble_tensor> &results) const;

  void *library = nullptr, *model = nullptr;
  llvm::ArrayRef<nibble_value> inputs, outputs;
  struct {
    nibble_status (*create)(const char *, void **);
    void (*destroy)(void *);
    const char *(*lastError)();
    const char *(*target)(const void *);
    const nibble_value *(*inputs)(size_t *), *(*outputs)(size_t *);
    nibble_status (*run)(const void *, const nibble_tensor *, size_t,
                         nibble_tensor *, size_t);
    void (*release)(nibble_tensor *, size_t);
  } functions = {};
};

struct CacheOptions {
  /// A row of TargetRows.inl, native, generic or multi.
  std::string target = "native";
  /// How products with integer codes are computed (CpuOptions).
  std::string compute = "i8";
  /// Write caches in place (--onnx-update-caches).
  bool updateCaches = false;
  /// Compile by the reference pipeline.
  bool reference = false;
  /// Compile again, and keep nothing.
  bool disabled = false;
  /// What sets this compilation apart from others of the same model.
  std::string variant;
};

/// Compiles `module`, which was read from `path` and is changed, or takes what
/// was compiled before from the cache, $XDG_CACHE_HOME/nibble. Errors have been
/// printed where the result is null.
std::unique_ptr<LoadedModel> loadCompiled(llvm::StringRef path,
                                          mlir::ModuleOp module,
                                          const CacheOptions &options);

struct InputOptions {
  /// An archive with an array for each input; empty: none.
  std::string path;
  /// Make up what the archive lacks.
  bool random = false;
  uint64_t seed = 0;
  /// "name=size" of dimensions, for made-up inputs. Others are 1.
  std::vector<std::string> dimensions;
};

/// The inputs of a model in order, from a file or made up.
llvm::Expected<std::vector<NpyArray>>
makeInputs(llvm::ArrayRef<nibble_value> values, const InputOptions &options);

struct InputArguments;
InputOptions getInputOptions(const InputArguments &arguments);

/// A model and what to run it on.
struct PreparedRun {
  std::unique_ptr<LoadedModel> model;
  std::vector<NpyArray> inputs;
};

/// loadCompiled and makeInputs, as `run` and `bench` are told. Errors have been
/// printed where there is no result.
std::optional<PreparedRun> prepareRun(llvm::StringRef path,
                                      mlir::ModuleOp module,
                                      const CacheOptions &options,
                                      const InputArguments &arguments);

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_LOADEDMODEL_H
