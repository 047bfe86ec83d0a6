//===- Journal.h - Long work that survives its end --------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_CALIBRATION_JOURNAL_H
#define NIBBLE_CALIBRATION_JOURNAL_H

#include "nibble/Support/Interrupt.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <string>
#include <vector>

namespace nibble {

/// Something that a result depends on.
struct JournalFact {
  /// "data": begins a line of the log.
  std::string name;
  /// What is compared: a hash, or a few options as text.
  std::string value;
  /// For a person: the name of a file.
  std::string note;
  /// Says what is wrong where a journal has another value: "its calibration
  /// data are others".
  std::string complaint;
};

/// A folder that keeps what a long work has done: a file `log`, which names the
/// units of work that are done and the hashes of their files, and those files.
/// A unit counts once its line is in the log, so that at most the one that was
/// under way is lost when the process ends, whatever ends it. docs/Journal.md
/// has the format.
class Journal {
public:
  /// Opens or makes `folder`. One with finished units is refused without
  /// `resume`, and always where a fact differs, by name.
  static llvm::Expected<std::unique_ptr<Journal>>
  open(llvm::StringRef folder, llvm::ArrayRef<JournalFact> facts, bool resume);
  /// Leaves the folder where units are done, else removes it.
  ~Journal();

  size_t countDone() const { return done.size(); }
  bool isDone(llvm::StringRef unit) const { return done.contains(unit); }
  std::string getPath(llvm::StringRef file) const;
  llvm::StringRef getFolder() const { return folder; }

  llvm::Error begin(llvm::StringRef unit);
  /// `files` of the folder have been written.
  llvm::Error finish(llvm::StringRef unit, llvm::ArrayRef<std::string> files);
  /// Compares a file of a finished unit with its hash.
  llvm::Error check(llvm::StringRef file) const;
  /// A file that no unit to come reads.
  void drop(llvm::StringRef file);
  /// The work is complete: removes the folder.
  void remove();

private:
  Journal(std::string folder, int log);
  llvm::Error load(llvm::ArrayRef<JournalFact> facts, bool resume);
  llvm::Error start(llvm::ArrayRef<JournalFact> facts);
  void readUnit(llvm::StringRef line);
  llvm::Error append(const std::string &line);
  void updateNotice();

  std::string folder;
  /// Descriptor of the log, locked.
  int log;
  llvm::StringSet<> done;
  llvm::StringMap<std::string> hashes;
  bool isRemoved = false;
  InterruptAction notice;
};

} // namespace nibble

#endif // NIBBLE_CALIBRATION_JOURNAL_H
