//===- ActivationFile.cpp - What a part computed of each sample -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/ActivationFile.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(llvm::StringRef verb, llvm::StringRef path,
                       const llvm::Twine &why) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(),
                                 "cannot " + verb + " '" + path + "': " + why);
}

static std::string getReason() { return std::strerror(errno); }

ActivationFile::ActivationFile(std::string path, int descriptor, size_t values,
                               size_t samples)
    : path(std::move(path)), descriptor(descriptor), samples(samples),
      entries(values * samples) {}

ActivationFile::~ActivationFile() { ::close(descriptor); }

Expected<std::unique_ptr<ActivationFile>>
ActivationFile::create(llvm::StringRef path, size_t values, size_t samples) {
  std::string name = path.str();
  int descriptor;
  if (name.empty()) {
    llvm::SmallString<128> pattern;
    llvm::sys::path::system_temp_directory(/*erasedOnReboot=*/true, pattern);
    llvm::sys::path::append(pattern, "nibble-XXXXXX");
    name = std::string(pattern);
    descriptor = ::mkostemp(name.data(), O_CLOEXEC);
    if (descriptor >= 0)
      ::unlink(name.c_str());
  } else {
    descriptor =
        ::open(name.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  }
  if (descriptor < 0)
    return makeError("write", name, getReason());
  return std::unique_ptr<ActivationFile>(
      new ActivationFile(name, descriptor, values, samples));
}

Expected<std::unique_ptr<ActivationFile>>
ActivationFile::open(llvm::StringRef path, size_t values, size_t samples) {
  std::string name = path.str();
  int descriptor = ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return makeError("read", name, getReason());
  std::unique_ptr<ActivationFile> file(
      new ActivationFile(name, descriptor, values, samples));
  if (Error error = file->readIndex())
    return error;
  return file;
}

Error ActivationFile::writeBytes(llvm::ArrayRef<char> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    ssize_t done = ::pwrite(descriptor, bytes.data(), bytes.size(),
                            static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return makeError("write", path, getReason());
    bytes = bytes.drop_front(done);
    offset += done;
  }
  return Error::success();
}

Error ActivationFile::readBytes(llvm::MutableArrayRef<char> bytes,
                                uint64_t offset) const {
  while (!bytes.empty()) {
    ssize_t done = ::pread(descriptor, bytes.data(), bytes.size(),
                           static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return makeError("read", path, done == 0 ? "it is cut off" : getReason());
    bytes = bytes.drop_front(done);
    offset += done;
  }
  return Error::success();
}

Error ActivationFile::write(size_t value, size_t sample,
                            const HostTensor &tensor) {
  Entry &entry = entries[value * samples + sample];
  entry.shape = tensor.shape;
  entry.size = tensor.bytes.size();
  {
    std::lock_guard<std::mutex> lock(mutex);
    entry.offset = end;
    end += entry.size;
  }
  return writeBytes(tensor.bytes, entry.offset);
}

Expected<HostTensor> ActivationFile::read(size_t value, size_t sample,
                                          mlir::Type elementType) const {
  const Entry &entry = entries[value * samples + sample];
  HostTensor tensor = {elementType, entry.shape, std::vector<char>(entry.size)};
  if (Error error = readBytes(tensor.bytes, entry.offset))
    return error;
  return tensor;
}

Error ActivationFile::finish() {
  std::vector<uint64_t> index;
  for (const Entry &entry : entries) {
    index.insert(index.end(), {entry.offset, entry.size, entry.shape.size()});
    index.insert(index.end(), entry.shape.begin(), entry.shape.end());
  }
  index.push_back(end);
  return writeBytes({reinterpret_cast<const char *>(index.data()),
                     index.size() * sizeof(uint64_t)},
                    end);
}

Error ActivationFile::readIndex() {
  auto fail = [&] { return makeError("read", path, "it is damaged"); };
  off_t size = ::lseek(descriptor, 0, SEEK_END);
  if (size < 8)
    return fail();
  uint64_t fileSize = size;
  if (Error error =
          readBytes({reinterpret_cast<char *>(&end), 8}, fileSize - 8))
    return error;
  if (end > fileSize - 8 || (fileSize - end) % 8 != 0)
    return fail();
  std::vector<uint64_t> index((fileSize - end) / 8 - 1);
  if (Error error = readBytes({reinterpret_cast<char *>(index.data()),
                               index.size() * sizeof(uint64_t)},
                              end))
    return error;
  llvm::ArrayRef<uint64_t> rest(index);
  for (Entry &entry : entries) {
    if (rest.size() < 3 || rest[2] > rest.size() - 3 || rest[0] > end ||
        rest[1] > end - rest[0])
      return fail();
    entry.offset = rest[0];
    entry.size = rest[1];
    size_t rank = rest[2];
    entry.shape.assign(rest.begin() + 3, rest.begin() + 3 + rank);
    rest = rest.drop_front(3 + rank);
  }
  return rest.empty() ? Error::success() : fail();
}
