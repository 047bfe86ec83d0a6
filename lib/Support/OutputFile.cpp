//===- OutputFile.cpp - Files that appear whole or not at all -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/OutputFile.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Signals.h"

using namespace nibble;

static llvm::Error makeError(llvm::StringRef path, std::error_code error) {
  return llvm::createStringError(error, "cannot write '" + path +
                                            "': " + error.message());
}

llvm::Expected<std::unique_ptr<OutputFile>>
OutputFile::create(llvm::StringRef path) {
  // A link, which may be /dev/stdout, must not be replaced by a file.
  llvm::sys::fs::file_status status;
  bool direct =
      path == "-" || (!llvm::sys::fs::status(path, status, /*follow=*/false) &&
                      status.type() != llvm::sys::fs::file_type::regular_file);
  if (direct) {
    std::error_code error;
    auto stream = std::make_unique<llvm::raw_fd_ostream>(
        path, error, llvm::sys::fs::CD_OpenAlways, llvm::sys::fs::FA_Write,
        llvm::sys::fs::OF_None);
    if (error)
      return makeError(path, error);
    return std::unique_ptr<OutputFile>(
        new OutputFile(path.str(), "", std::move(stream)));
  }

  int descriptor;
  llvm::SmallString<128> temporary;
  std::error_code error = llvm::sys::fs::createUniqueFile(
      path + ".%%%%%%.partial", descriptor, temporary, llvm::sys::fs::OF_None,
      llvm::sys::fs::all_read | llvm::sys::fs::owner_write);
  if (error)
    return makeError(path, error);
  llvm::sys::RemoveFileOnSignal(temporary);
  return std::unique_ptr<OutputFile>(
      new OutputFile(path.str(), std::string(temporary),
                     std::make_unique<llvm::raw_fd_ostream>(
                         descriptor, /*shouldClose=*/true)));
}

OutputFile::~OutputFile() {
  if (stream) {
    stream->close();
    stream->clear_error();
  }
  if (!temporary.empty()) {
    (void)llvm::sys::fs::remove(temporary);
    llvm::sys::DontRemoveFileOnSignal(temporary);
  }
}

llvm::Error OutputFile::finish() {
  if (!stream)
    return llvm::Error::success();
  if (path == "-")
    stream->flush();
  else
    stream->close();
  std::error_code error = stream->error();
  stream->clear_error();
  stream.reset();
  return error ? makeError(path, error) : llvm::Error::success();
}

llvm::Error OutputFile::commit() {
  if (llvm::Error error = finish())
    return error;
  if (temporary.empty())
    return llvm::Error::success();
  if (std::error_code error = llvm::sys::fs::rename(temporary, path))
    return makeError(path, error);
  llvm::sys::DontRemoveFileOnSignal(temporary);
  temporary.clear();
  return llvm::Error::success();
}
