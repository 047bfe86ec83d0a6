//===- Link.cpp - From an object file to a shared library -----------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/EmittedModel.h"

#include "llvm/ADT/ScopeExit.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/Signals.h"
#include "llvm/Target/TargetMachine.h"

using namespace nibble;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

static Error makeError(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

namespace {
/// A file that goes away, also on a signal.
class TemporaryFile {
public:
  explicit TemporaryFile(std::string path) : path(std::move(path)) {
    llvm::sys::RemoveFileOnSignal(this->path);
  }
  ~TemporaryFile() {
    (void)llvm::sys::fs::remove(path);
    llvm::sys::DontRemoveFileOnSignal(path);
  }
  const std::string path;
};
} // namespace

/// A linker for ELF of any architecture, or one that may link only the host's.
static Expected<std::string> findLinker() {
  for (const char *name : {"ld.lld-22", "ld.lld", "ld"})
    if (auto path = llvm::sys::findProgramByName(name))
      return *path;
  return makeError("a shared library needs a linker, and there is no ld.lld or "
                   "ld on PATH: install lld, or write an object file (-o m.o) "
                   "or an archive (-o m.a)");
}

static Error runLinker(StringRef linker, llvm::ArrayRef<StringRef> arguments,
                       StringRef log) {
  llvm::SmallVector<StringRef> command = {linker};
  command.append(arguments.begin(), arguments.end());
  TemporaryFile output(log.str());
  std::optional<StringRef> redirects[] = {StringRef(), log, log};
  std::string message;
  int code = llvm::sys::ExecuteAndWait(linker, command, std::nullopt, redirects,
                                       0, 0, &message);
  if (code == 0)
    return Error::success();
  if (auto text = llvm::MemoryBuffer::getFile(log))
    message += (*text)->getBuffer().trim();
  return makeError("'" + linker + "' failed: " + message);
}

/// Writes an object file without code.
static Error writeEmptyObject(StringRef path, StringRef triple) {
  auto machine = createTargetMachine(triple);
  if (!machine)
    return machine.takeError();
  llvm::LLVMContext context;
  llvm::Module module("empty", context);
  module.setTargetTriple(llvm::Triple(triple));
  module.setDataLayout((*machine)->createDataLayout());
  std::error_code error;
  llvm::raw_fd_ostream os(path, error);
  if (error)
    return makeError("cannot write '" + path + "': " + error.message());
  llvm::legacy::PassManager passes;
  if ((*machine)->addPassesToEmitFile(passes, os, nullptr,
                                      llvm::CodeGenFileType::ObjectFile))
    return makeError("LLVM cannot write object files for " + triple);
  passes.run(module);
  return Error::success();
}

Error nibble::linkSharedLibrary(StringRef object, StringRef library,
                                StringRef soname, StringRef triple,
                                bool openMP) {
  auto linker = findLinker();
  if (!linker)
    return linker.takeError();
  std::string log = (object + ".log").str();
  // What the library needs at run time is named by libraries that hold nothing
  // but their names: no file of the target's system has to be here, and the
  // result does not depend on its version.
  TemporaryFile empty((object + ".empty.o").str());
  if (Error error = writeEmptyObject(empty.path, triple))
    return error;
  std::vector<std::unique_ptr<TemporaryFile>> needed;
  std::vector<StringRef> names = {"libm.so.6", "libc.so.6"};
  if (openMP)
    names.push_back("libomp.so.5");
  for (StringRef name : names) {
    needed.push_back(
        std::make_unique<TemporaryFile>((object + "." + name).str()));
    if (Error error = runLinker(
            *linker,
            {"-shared", "-soname", name, "-o", needed.back()->path, empty.path},
            log))
      return error;
  }
  llvm::SmallVector<StringRef> arguments = {"-shared",
                                            "-soname",
                                            soname,
                                            "-o",
                                            library,
                                            "-z",
                                            "relro",
                                            "-z",
                                            "noexecstack",
                                            "-z",
                                            "now",
                                            "--hash-style=gnu",
                                            "--gc-sections",
                                            "--build-id=none",
                                            "--no-as-needed",
                                            object};
  for (auto &file : needed)
    arguments.push_back(file->path);
  // LLVM's libraries are in a folder of their own on many systems; one beside
  // the library goes first.
  if (openMP)
    arguments.append({"-rpath", "$ORIGIN:" NIBBLE_OPENMP_DIR});
  return runLinker(*linker, arguments, log);
}
