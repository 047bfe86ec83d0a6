//===- StageFolder.h - Where an output waits for its checks -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_DRIVER_STAGEFOLDER_H
#define NIBBLE_LIB_DRIVER_STAGEFOLDER_H

#include "nibble/Support/Interrupt.h"

#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>

namespace nibble {

/// A folder beside an output, in which the output is written under its own name
/// and checked before it takes its place. The folder and what is in it go away
/// without a `publish`, also on an interrupt.
class StageFolder {
public:
  static llvm::Expected<std::unique_ptr<StageFolder>>
  create(llvm::StringRef output);
  ~StageFolder();

  /// Where the output is to be written.
  std::string getPath() const;
  /// Moves the output, and its external data, to their place.
  llvm::Error publish();

private:
  StageFolder(std::string folder, std::string output);

  std::string folder, output;
  InterruptAction cleanUp;
};

} // namespace nibble

#endif // NIBBLE_LIB_DRIVER_STAGEFOLDER_H
