//===- MappedFile.h - Read-only mapped files --------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_SUPPORT_MAPPEDFILE_H
#define NIBBLE_SUPPORT_MAPPEDFILE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <memory>
#include <mutex>

namespace nibble {

/// A file mapped for reading. Pages come into memory only when they are read.
class MappedFile {
public:
  /// Maps the whole regular file at `path`. An error says why it cannot be.
  static llvm::Expected<std::unique_ptr<MappedFile>> open(llvm::StringRef path);
  ~MappedFile();

  llvm::ArrayRef<char> getBytes() const { return {data, size}; }
  llvm::StringRef getPath() const { return path; }

private:
  MappedFile(std::string path, const char *data, size_t size)
      : path(std::move(path)), data(data), size(size) {}

  std::string path;
  const char *data;
  size_t size;
};

/// The mapped files of one context, by path. Thread-safe.
class FileCache {
public:
  /// The file at `path`, mapped at the first call.
  llvm::Expected<const MappedFile *> get(llvm::StringRef path);

private:
  std::mutex mutex;
  llvm::StringMap<std::unique_ptr<MappedFile>> files;
};

/// Tells the kernel that the pages of `bytes`, a part of a mapped file, are no
/// longer needed, so that a pass over a large file stays small in memory.
void dropPages(llvm::ArrayRef<char> bytes);

/// XXH3 (64 bits) of `bytes`, dropping the pages of large mapped data behind it
/// when `mapped` is set.
uint64_t hashBytes(llvm::ArrayRef<char> bytes, bool mapped);

} // namespace nibble

#endif // NIBBLE_SUPPORT_MAPPEDFILE_H
