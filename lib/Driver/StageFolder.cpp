//===- StageFolder.cpp - Where an output waits for its checks -------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "StageFolder.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Signals.h"

#include <cstdlib>
#include <cstring>
#include <unistd.h>

using namespace nibble;

/// The folder to remove when a signal ends the program.
static char activeFolder[4096];

/// Runs in a signal handler, after the files were removed.
static void removeActiveFolder() {
  if (activeFolder[0])
    ::rmdir(activeFolder);
}

StageFolder::StageFolder(std::string folder, std::string output)
    : folder(std::move(folder)), output(std::move(output)),
      cleanUp(removeActiveFolder) {}

llvm::Expected<std::unique_ptr<StageFolder>>
StageFolder::create(llvm::StringRef output) {
  auto fail = [&](std::error_code error) {
    return llvm::createStringError(error, "cannot write '" + output +
                                              "': " + error.message());
  };
  std::string pattern = (output + ".partial-XXXXXX").str();
  if (!::mkdtemp(pattern.data()))
    return fail(std::error_code(errno, std::generic_category()));
  std::unique_ptr<StageFolder> stage(new StageFolder(pattern, output.str()));
  std::strncpy(activeFolder, pattern.c_str(), sizeof(activeFolder) - 1);
  llvm::sys::RemoveFileOnSignal(stage->getPath());
  llvm::sys::RemoveFileOnSignal(stage->getPath() + ".data");
  return stage;
}

StageFolder::~StageFolder() {
  std::string path = getPath();
  for (const std::string &file : {path, path + ".data"}) {
    (void)llvm::sys::fs::remove(file);
    llvm::sys::DontRemoveFileOnSignal(file);
  }
  (void)llvm::sys::fs::remove(folder);
  activeFolder[0] = 0;
}

std::string StageFolder::getPath() const {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, llvm::sys::path::filename(output));
  return std::string(path);
}

llvm::Error StageFolder::publish() {
  std::string path = getPath();
  // The data first: a model without its data would be a partial output.
  for (const char *suffix : {".data", ""}) {
    if (!llvm::sys::fs::exists(path + suffix))
      continue;
    if (std::error_code error =
            llvm::sys::fs::rename(path + suffix, output + suffix))
      return llvm::createStringError(error, "cannot write '" + output + suffix +
                                                "': " + error.message());
  }
  return llvm::Error::success();
}
