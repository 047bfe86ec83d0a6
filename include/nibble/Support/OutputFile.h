//===- OutputFile.h - Files that appear whole or not at all -----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_OUTPUTFILE_H
#define NIBBLE_SUPPORT_OUTPUTFILE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/raw_ostream.h"

#include <memory>

namespace nibble {

/// A file under construction. It is written under a temporary name beside its
/// final one and gets that name in `commit`; without a commit, on an error or a
/// signal nothing stays behind. Where the path is "-" (standard output) or no
/// regular file (/dev/null, a pipe, a link) it is written to directly.
class OutputFile {
public:
  static llvm::Expected<std::unique_ptr<OutputFile>>
  create(llvm::StringRef path);
  ~OutputFile();

  llvm::raw_fd_ostream &getStream() { return *stream; }

  /// Flushes and closes the temporary file; an error says what went wrong (a
  /// full disk, say). Nothing is visible at the final path yet.
  llvm::Error finish();

  /// Gives the file its final name; calls `finish` if nobody has.
  llvm::Error commit();

private:
  OutputFile(std::string path, std::string temporary,
             std::unique_ptr<llvm::raw_fd_ostream> stream)
      : path(std::move(path)), temporary(std::move(temporary)),
        stream(std::move(stream)) {}

  std::string path;
  /// Empty where the path is written to directly, and after the commit.
  std::string temporary;
  std::unique_ptr<llvm::raw_fd_ostream> stream;
};

} // namespace nibble

#endif // NIBBLE_SUPPORT_OUTPUTFILE_H
