//===- Progress.h - How far a long work is ----------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_PROGRESS_H
#define NIBBLE_SUPPORT_PROGRESS_H

#include "llvm/ADT/StringRef.h"

#include <chrono>
#include <cstdint>

namespace nibble {

/// Shows on standard error how much of `total` (of any unit) is done and how
/// long the rest will take: a bar on a terminal, a line every few seconds
/// elsewhere.
class Progress {
public:
  Progress(llvm::StringRef what, int64_t total, bool quiet = false);
  ~Progress();

  /// `item`, of the given size, begins now; what came before is done.
  void begin(llvm::StringRef item, int64_t size);

private:
  using Clock = std::chrono::steady_clock;
  void show(llvm::StringRef item);

  std::string what;
  int64_t total, done = 0, current = 0;
  bool quiet, terminal;
  Clock::time_point start, shown;
};

/// "512 B", "1.5 KiB", "93.1 MiB", ...
std::string formatBytes(uint64_t bytes);

} // namespace nibble

#endif // NIBBLE_SUPPORT_PROGRESS_H
