//===- CalibrationData.h - The samples that a model is run on ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_CALIBRATIONDATA_H
#define NIBBLE_CALIBRATION_CALIBRATIONDATA_H

#include "nibble/Support/Npz.h"
#include "nibble/Target/JIT.h"
#include "nibble/Target/ModelInterface.h"

namespace nibble {

/// Samples of a model's inputs: an `.npz` file whose arrays are called as the
/// inputs and have a leading sample axis, or a folder of `.npz` files, one
/// sample each, in the order of their names; or samples that were made up.
///
/// A sample of the file has the rank of the input: where the array has that
/// rank itself, its samples get a leading dimension of 1 (a batch).
class CalibrationData {
public:
  /// Opens the data at `path` and checks all of it against the model: an array
  /// for each input with its type, rank and static sizes, and no NaN or
  /// infinity.
  static llvm::Expected<CalibrationData> open(llvm::StringRef path,
                                              const ModelInterface &model);

  /// Samples that were made up, each with the inputs of the model in order.
  static CalibrationData
  fromSamples(const ModelInterface &model,
              std::vector<std::vector<HostTensor>> samples);

  size_t size() const { return files.empty() ? sampleCount : files.size(); }

  /// The first `count` samples, which are not copied.
  CalibrationData takeFirst(size_t count) const {
    CalibrationData part = *this;
    part.sampleCount = std::min(sampleCount, count);
    part.files.resize(std::min(files.size(), count));
    return part;
  }

  /// The inputs of the model, in order. Files are read when they are asked for.
  llvm::Expected<std::vector<HostTensor>> getSample(size_t index) const;

  /// A hash of all samples.
  llvm::Expected<uint64_t> hash() const;

private:
  llvm::Error loadFile(llvm::StringRef path);
  llvm::Error loadFolder(llvm::StringRef path);
  llvm::Expected<std::vector<HostTensor>>
  readSample(llvm::StringRef path) const;

  ModelInterface model;
  /// Of a file: one array an input.
  std::shared_ptr<const std::vector<NpyArray>> arrays;
  size_t sampleCount = 0;
  /// Made up.
  std::shared_ptr<const std::vector<std::vector<HostTensor>>> made;
  /// Of a folder.
  std::vector<std::string> files;
};

} // namespace nibble

#endif // NIBBLE_CALIBRATION_CALIBRATIONDATA_H
