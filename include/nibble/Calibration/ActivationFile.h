//===- ActivationFile.h - What a part computed of each sample ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_ACTIVATIONFILE_H
#define NIBBLE_CALIBRATION_ACTIVATIONFILE_H

#include "nibble/Target/JIT.h"

#include <mutex>

namespace nibble {

/// The values that a part of a model computes for later parts, of all samples,
/// in a file, so that only those in use are in memory. docs/Journal.md has the
/// format.
class ActivationFile {
public:
  /// A new file for `values` tensors of each of `samples`. An empty path: one
  /// without a name, which goes with the object.
  static llvm::Expected<std::unique_ptr<ActivationFile>>
  create(llvm::StringRef path, size_t values, size_t samples);
  /// A file that was finished for as many values and samples.
  static llvm::Expected<std::unique_ptr<ActivationFile>>
  open(llvm::StringRef path, size_t values, size_t samples);
  ~ActivationFile();

  /// Several threads may write and read at once; each tensor is written once.
  llvm::Error write(size_t value, size_t sample, const HostTensor &tensor);
  llvm::Expected<HostTensor> read(size_t value, size_t sample,
                                  mlir::Type elementType) const;
  /// Writes where each tensor is; nothing is written after that.
  llvm::Error finish();

private:
  struct Entry {
    uint64_t offset = 0, size = 0;
    std::vector<int64_t> shape;
  };

  ActivationFile(std::string path, int descriptor, size_t values,
                 size_t samples);
  llvm::Error writeBytes(llvm::ArrayRef<char> bytes, uint64_t offset);
  llvm::Error readBytes(llvm::MutableArrayRef<char> bytes,
                        uint64_t offset) const;
  llvm::Error readIndex();

  std::string path;
  int descriptor;
  size_t samples;
  /// The samples of the first value, then those of the second …
  std::vector<Entry> entries;
  std::mutex mutex;
  uint64_t end = 0;
};

} // namespace nibble

#endif // NIBBLE_CALIBRATION_ACTIVATIONFILE_H
