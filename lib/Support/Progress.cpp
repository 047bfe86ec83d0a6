//===- Progress.cpp - How far a long work is ------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/Progress.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/raw_ostream.h"

using namespace nibble;

Progress::Progress(llvm::StringRef what, int64_t total, bool quiet)
    : what(what), total(total), quiet(quiet),
      terminal(llvm::sys::Process::StandardErrIsDisplayed()),
      start(Clock::now()), shown(start) {}

Progress::~Progress() {
  if (terminal && !quiet)
    llvm::errs() << "\r\033[K";
}

void Progress::begin(llvm::StringRef item, int64_t size) {
  done += current;
  current = size;
  auto interval = terminal ? std::chrono::milliseconds(100)
                           : std::chrono::milliseconds(5000);
  if (quiet || Clock::now() - shown < interval)
    return;
  shown = Clock::now();
  show(item);
}

void Progress::show(llvm::StringRef item) {
  double part = total > 0 ? double(done) / double(total) : 0;
  double seconds = std::chrono::duration<double>(shown - start).count();
  std::string rest =
      part > 0.01
          ? llvm::formatv("{0:f0} s left", seconds / part - seconds).str()
          : "";
  if (!terminal) {
    llvm::errs() << llvm::formatv("{0}: {1:P0}, {2}, {3}\n", what, part, rest,
                                  item);
    return;
  }
  constexpr int width = 30;
  int filled = static_cast<int>(part * width);
  llvm::errs() << "\r\033[K" << what << " [" << std::string(filled, '#')
               << std::string(width - filled, '.') << "] "
               << llvm::formatv("{0:P0}  {1}  {2}", part, rest, item);
}

std::string nibble::formatBytes(uint64_t bytes) {
  const char *units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  unsigned unit = 0;
  for (; value >= 1024 && unit < 4; ++unit)
    value /= 1024;
  return unit == 0 ? llvm::formatv("{0} B", bytes).str()
                   : llvm::formatv("{0:f1} {1}", value, units[unit]).str();
}
