//===- MappedFile.cpp - Read-only mapped files ----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/MappedFile.h"

#include "llvm/Support/Errno.h"
#include "llvm/Support/MathExtras.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/xxhash.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace nibble;

static llvm::Error makeError(llvm::StringRef path, llvm::StringRef what) {
  return llvm::createStringError("cannot read '" + path + "': " + what);
}

llvm::Expected<std::unique_ptr<MappedFile>>
MappedFile::open(llvm::StringRef path) {
  std::string name = path.str();
  int descriptor = ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return makeError(path, llvm::sys::StrError());
  struct stat status;
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    return makeError(path, "it is no regular file");
  }
  size_t size = status.st_size;
  const char *data = nullptr;
  if (size > 0) {
    void *address =
        ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) {
      std::string why = llvm::sys::StrError();
      ::close(descriptor);
      return makeError(path, why);
    }
    data = static_cast<const char *>(address);
  }
  ::close(descriptor);
  return std::unique_ptr<MappedFile>(
      new MappedFile(std::move(name), data, size));
}

MappedFile::~MappedFile() {
  if (data)
    ::munmap(const_cast<char *>(data), size);
}

llvm::Expected<const MappedFile *> FileCache::get(llvm::StringRef path) {
  std::lock_guard<std::mutex> lock(mutex);
  auto it = files.find(path);
  if (it != files.end())
    return it->second.get();
  auto file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  return (files[path] = std::move(*file)).get();
}

void nibble::dropPages(llvm::ArrayRef<char> bytes) {
  static const uintptr_t page = llvm::sys::Process::getPageSizeEstimate();
  // Only whole pages: the neighbours may be in use.
  uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.begin());
  size_t skipped = llvm::alignTo(begin, page) - begin;
  if (bytes.size() <= skipped)
    return;
  size_t length = llvm::alignDown(bytes.size() - skipped, page);
  if (length > 0)
    ::madvise(const_cast<char *>(bytes.data() + skipped), length,
              MADV_DONTNEED);
}

uint64_t nibble::hashBytes(llvm::ArrayRef<char> bytes, bool mapped) {
  // Large data is hashed as the hash of the hashes of its chunks, so that the
  // pages behind can be dropped.
  constexpr size_t chunk = size_t(16) << 20;
  auto hash = [](llvm::ArrayRef<char> part) {
    return llvm::xxh3_64bits(llvm::ArrayRef<uint8_t>(
        reinterpret_cast<const uint8_t *>(part.data()), part.size()));
  };
  if (bytes.size() <= chunk)
    return hash(bytes);
  llvm::SmallVector<uint64_t> hashes;
  for (size_t begin = 0; begin < bytes.size(); begin += chunk) {
    auto part = bytes.slice(begin, std::min(chunk, bytes.size() - begin));
    hashes.push_back(hash(part));
    if (mapped)
      dropPages(part);
  }
  return hash({reinterpret_cast<const char *>(hashes.data()),
               hashes.size() * sizeof(uint64_t)});
}
