//===- Journal.cpp - Long work that survives its end ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Calibration/Journal.h"

#include "nibble/Support/MappedFile.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

using namespace nibble;
using llvm::Error;
using llvm::Expected;
using llvm::StringRef;

static constexpr StringRef kMagic = "nibble journal 1";

//===----------------------------------------------------------------------===//
// Interrupts
//===----------------------------------------------------------------------===//

/// What an interrupt prints. Written before `hasNotice` is set.
static char noticeText[8192];
static std::atomic<bool> hasNotice{false};

/// Runs in a signal handler.
static void printNotice() {
  if (hasNotice)
    (void)!::write(STDERR_FILENO, noticeText, std::strlen(noticeText));
}

/// An interrupt says where the work is, once there is some.
void Journal::updateNotice() {
  if (hasNotice || done.empty())
    return;
  std::string text = "\ninterrupted; what is done is kept in '" + folder +
                     "': go on with the same command and --resume\n";
  std::strncpy(noticeText, text.c_str(), sizeof(noticeText) - 1);
  hasNotice = true;
}

//===----------------------------------------------------------------------===//
// Opening
//===----------------------------------------------------------------------===//

Journal::Journal(std::string folder, int log)
    : folder(std::move(folder)), log(log), notice(printNotice) {}

Journal::~Journal() {
  hasNotice = false;
  if (done.empty())
    remove();
  ::close(log);
}

static Error makeError(const llvm::Twine &what) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), what);
}

static Error makeSystemError(StringRef path) {
  return makeError("cannot write '" + path + "': " + std::strerror(errno));
}

Expected<std::unique_ptr<Journal>>
Journal::open(StringRef folder, llvm::ArrayRef<JournalFact> facts,
              bool resume) {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, "log");
  bool isNew = !llvm::sys::fs::exists(folder);
  if (!isNew && !llvm::sys::fs::exists(path))
    return makeError("'" + folder +
                     "' is in the way of the journal; move it elsewhere");
  if (std::error_code error = llvm::sys::fs::create_directory(folder))
    return makeError("cannot write '" + folder + "': " + error.message());
  int log = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (log < 0)
    return makeSystemError(path);
  if (::flock(log, LOCK_EX | LOCK_NB) != 0) {
    ::close(log);
    return makeError("another process is at work in '" + folder + "'");
  }
  std::unique_ptr<Journal> journal(new Journal(folder.str(), log));
  if (Error error =
          isNew ? journal->start(facts) : journal->load(facts, resume)) {
    // What is there is not ours to remove.
    journal->isRemoved = !isNew;
    return error;
  }
  journal->updateNotice();
  return journal;
}

Error Journal::start(llvm::ArrayRef<JournalFact> facts) {
  if (::ftruncate(log, 0) != 0)
    return makeSystemError(getPath("log"));
  std::string text = kMagic.str() + "\n";
  for (const JournalFact &fact : facts)
    text += "fact " + fact.name + "\t" + fact.value + "\t" + fact.note + "\n";
  return append(text);
}

/// "done UNIT" and FILE=HASH, separated by tabs.
void Journal::readUnit(StringRef line) {
  llvm::SmallVector<StringRef> fields;
  line.split(fields, '\t');
  for (StringRef field : llvm::ArrayRef(fields).drop_front()) {
    auto [file, hash] = field.rsplit('=');
    hashes[file] = hash.str();
  }
  done.insert(fields.front());
}

Error Journal::load(llvm::ArrayRef<JournalFact> facts, bool resume) {
  auto buffer = llvm::MemoryBuffer::getFile(getPath("log"));
  if (!buffer)
    return makeError("cannot read '" + getPath("log") +
                     "': " + buffer.getError().message());
  StringRef text = (*buffer)->getBuffer();
  // A line without its end was being written.
  text = text.take_front(text.rfind('\n') + 1);
  if (text.empty())
    return start(facts);
  llvm::SmallVector<StringRef> lines;
  text.drop_back().split(lines, '\n');
  if (lines.front() != kMagic)
    return makeError("'" + folder + "' is no journal of this version of " +
                     "Nibble; remove it to start over");
  llvm::StringMap<std::pair<StringRef, StringRef>> known;
  for (StringRef line : llvm::ArrayRef(lines).drop_front()) {
    if (line.consume_front("done ")) {
      readUnit(line);
    } else if (line.consume_front("fact ")) {
      auto [name, rest] = line.split('\t');
      known[name] = rest.split('\t');
    }
  }
  if (done.empty())
    return start(facts);
  for (const JournalFact &fact : facts) {
    auto [value, note] = known.lookup(fact.name);
    if (value != fact.value)
      return makeError("'" + folder + "' is the journal of another run: " +
                       fact.complaint + " (" + (note.empty() ? value : note) +
                       "). Repeat that command, or remove the journal");
  }
  if (!resume)
    return makeError("'" + folder +
                     "' holds the work of a run that was interrupted; add "
                     "--resume to go on with it, or remove it");
  if (::ftruncate(log, static_cast<off_t>(text.size())) != 0)
    return makeSystemError(getPath("log"));
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Units
//===----------------------------------------------------------------------===//

std::string Journal::getPath(StringRef file) const {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, file);
  return std::string(path);
}

Error Journal::append(const std::string &line) {
  StringRef rest(line);
  ::lseek(log, 0, SEEK_END);
  while (!rest.empty()) {
    ssize_t count = ::write(log, rest.data(), rest.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return makeSystemError(getPath("log"));
    rest = rest.drop_front(count);
  }
  return Error::success();
}

static Expected<std::string> hashFile(StringRef path) {
  auto file = MappedFile::open(path);
  if (!file)
    return file.takeError();
  return llvm::utohexstr(hashBytes((*file)->getBytes(), /*mapped=*/true));
}

Error Journal::begin(StringRef unit) {
  return append("begin " + unit.str() + "\n");
}

Error Journal::finish(StringRef unit, llvm::ArrayRef<std::string> files) {
  std::string line = "done " + unit.str();
  for (const std::string &file : files) {
    Expected<std::string> hash = hashFile(getPath(file));
    if (!hash)
      return hash.takeError();
    line += "\t" + file + "=" + *hash;
    hashes[file] = *hash;
  }
  if (Error error = append(line + "\n"))
    return error;
  done.insert(unit);
  updateNotice();
  return Error::success();
}

Error Journal::check(StringRef file) const {
  Expected<std::string> hash = hashFile(getPath(file));
  if (!hash)
    return hash.takeError();
  auto it = hashes.find(file);
  if (it != hashes.end() && it->second == *hash)
    return Error::success();
  return makeError("'" + getPath(file) +
                   "' is damaged; remove the journal to start over");
}

void Journal::drop(StringRef file) {
  (void)llvm::sys::fs::remove(getPath(file));
}

void Journal::remove() {
  if (!isRemoved)
    (void)llvm::sys::fs::remove_directories(folder);
  isRemoved = true;
  hasNotice = false;
}
