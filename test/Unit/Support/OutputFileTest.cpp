//===- OutputFileTest.cpp -------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/OutputFile.h"

#include "nibble/Support/MappedFile.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

#include <gtest/gtest.h>

using namespace nibble;

namespace {
class OutputFileTest : public testing::Test {
protected:
  OutputFileTest() {
    (void)llvm::sys::fs::createUniqueDirectory("nibble-test", folder);
    path = (folder + "/out").str();
  }
  ~OutputFileTest() override {
    (void)llvm::sys::fs::remove_directories(folder);
  }
  unsigned countFiles() {
    unsigned count = 0;
    std::error_code error;
    for (llvm::sys::fs::directory_iterator it(folder, error), end; it != end;
         it.increment(error))
      ++count;
    return count;
  }
  std::string read() {
    auto buffer = llvm::MemoryBuffer::getFile(path);
    return buffer ? (*buffer)->getBuffer().str() : "";
  }

  llvm::SmallString<128> folder;
  std::string path;
};
} // namespace

TEST_F(OutputFileTest, AppearsWithTheCommit) {
  auto file = OutputFile::create(path);
  ASSERT_TRUE(static_cast<bool>(file));
  (*file)->getStream() << "whole";
  EXPECT_FALSE(llvm::sys::fs::exists(path));
  EXPECT_FALSE(static_cast<bool>((*file)->commit()));
  EXPECT_EQ(read(), "whole");
  EXPECT_EQ(countFiles(), 1u);
}

TEST_F(OutputFileTest, LeavesNothingWithoutACommit) {
  {
    auto file = OutputFile::create(path);
    ASSERT_TRUE(static_cast<bool>(file));
    (*file)->getStream() << "half";
  }
  EXPECT_EQ(countFiles(), 0u);
}

TEST_F(OutputFileTest, KeepsTheOldFileUntilTheCommit) {
  auto first = OutputFile::create(path);
  (*first)->getStream() << "old";
  ASSERT_FALSE(static_cast<bool>((*first)->commit()));
  auto second = OutputFile::create(path);
  (*second)->getStream() << "new";
  EXPECT_EQ(read(), "old");
  ASSERT_FALSE(static_cast<bool>((*second)->commit()));
  EXPECT_EQ(read(), "new");
}

TEST_F(OutputFileTest, SaysWhyItCannotBeWritten) {
  auto file = OutputFile::create((folder + "/no/such/folder").str());
  ASSERT_FALSE(static_cast<bool>(file));
  std::string message = llvm::toString(file.takeError());
  EXPECT_NE(message.find("/no/such/folder"), std::string::npos) << message;

  auto full = OutputFile::create("/dev/full");
  ASSERT_TRUE(static_cast<bool>(full));
  (*full)->getStream() << std::string(1 << 20, 'x');
  message = llvm::toString((*full)->commit());
  EXPECT_NE(message.find("No space left"), std::string::npos) << message;
}

TEST_F(OutputFileTest, MapsWhatWasWritten) {
  auto file = OutputFile::create(path);
  (*file)->getStream() << "mapped";
  ASSERT_FALSE(static_cast<bool>((*file)->commit()));
  FileCache cache;
  auto mapped = cache.get(path);
  ASSERT_TRUE(static_cast<bool>(mapped));
  llvm::ArrayRef<char> bytes = (*mapped)->getBytes();
  EXPECT_EQ(llvm::StringRef(bytes.data(), bytes.size()), "mapped");
  EXPECT_EQ(*cache.get(path), *mapped);
  auto missing = cache.get(path + ".missing");
  EXPECT_FALSE(static_cast<bool>(missing));
  llvm::consumeError(missing.takeError());
}
