//===- PartRun.h - All samples through one part after another ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_PARTRUN_H
#define NIBBLE_CALIBRATION_PARTRUN_H

#include "nibble/Calibration/ActivationFile.h"
#include "nibble/Calibration/CalibrationData.h"
#include "nibble/Calibration/Journal.h"
#include "nibble/Calibration/Segments.h"

#include <map>

namespace nibble {

/// Takes samples through the parts of a model (Segments.h), one part after the
/// other. In memory are the values of the samples that are under way, one a
/// thread; what later parts read is in files (ActivationFile.h), those of the
/// journal or, without one, files that have no name.
class PartRun {
public:
  /// `threads`: 0 for one a core; never changes a bit of what is computed.
  PartRun(std::vector<Segment> segments, const CalibrationData &data,
          unsigned threads, Journal *journal = nullptr);

  size_t size() const { return segments.size(); }
  /// Whether a part after this one reads what it computes.
  bool isRead(size_t part) const { return lastReaders[part] != part; }
  const Segment &getSegment(size_t part) const { return segments[part]; }

  /// Computes the outputs of a part from its inputs, for one sample.
  using RunSample = llvm::function_ref<llvm::Expected<std::vector<HostTensor>>(
      size_t sample, llvm::ArrayRef<HostTensor> inputs)>;
  /// Runs all samples through a part, several at once. `keepOutputs`: later
  /// parts will read what this run computes. The error is that of the first
  /// sample that failed, and names it.
  llvm::Error run(size_t part, bool keepOutputs, RunSample body);

  /// Forgets what this part was the last one to read, and what it computes for
  /// nobody.
  void dropAfter(size_t part);

  /// The file in the journal with what a part computes.
  static std::string getValuesFile(size_t part);

private:
  /// Where a value that crosses the end of a part is.
  struct Place {
    size_t part, index;
  };

  llvm::Error openInputs(size_t part);
  llvm::Expected<std::vector<HostTensor>> readInputs(size_t part,
                                                     size_t sample) const;
  llvm::Error runSample(size_t part, size_t sample, ActivationFile *outputs,
                        RunSample body) const;

  std::vector<Segment> segments;
  const CalibrationData &data;
  unsigned threads;
  Journal *journal;
  llvm::DenseMap<mlir::Value, Place> places;
  /// By part: the last one that reads what it computes, itself where none does.
  std::vector<size_t> lastReaders;
  /// By part.
  std::map<size_t, std::unique_ptr<ActivationFile>> files;
};

/// The name of a part's file in the journal: its number and `ending`.
std::string getPartFile(size_t part, llvm::StringRef ending);

} // namespace nibble

#endif // NIBBLE_CALIBRATION_PARTRUN_H
