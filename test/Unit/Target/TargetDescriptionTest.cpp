//===- TargetDescriptionTest.cpp - Tests of the target rows ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/TargetDescription.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/MC/MCSubtargetInfo.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"
#include "gtest/gtest.h"

#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>

using namespace nibble;

TEST(TargetDescription, FindsEveryRowByItsOwnName) {
  std::set<std::string> names;
  for (const TargetRow &row : getTargetRows()) {
    EXPECT_EQ(findTarget(row.name), &row);
    EXPECT_TRUE(names.insert(row.name.str()).second) << row.name.str();
  }
  EXPECT_EQ(findTarget("x86-64-v5"), nullptr);
  EXPECT_EQ(findTarget(""), nullptr);
}

TEST(TargetDescription, ListsTheNames) {
  std::string list = listTargetNames();
  for (const char *name :
       {"native", "generic", "x86-64-v3", "x86-64-v3+avxvnni", "x86-64-v4",
        "x86-64-v4+vnni", "x86-64-v4+vnni+bf16", "aarch64", "aarch64+dotprod",
        "aarch64+i8mm"}) {
    EXPECT_NE(list.find(name), std::string::npos) << name;
    EXPECT_NE(findTarget(name), nullptr) << name;
  }
}

TEST(TargetDescription, LaterRowsOfAnArchitectureDoMore) {
  const TargetRow *v3 = findTarget("x86-64-v3"), *v4 = findTarget("x86-64-v4");
  EXPECT_TRUE(canRunOn(*v3, *v4));
  EXPECT_FALSE(canRunOn(*v4, *v3));
  EXPECT_FALSE(canRunOn(*findTarget("x86-64-v3+avxvnni"), *v4));
  EXPECT_FALSE(canRunOn(*v3, *findTarget("aarch64+i8mm")));
  EXPECT_TRUE(
      canRunOn(*findTarget("aarch64+dotprod"), *findTarget("aarch64+i8mm")));
  // No row can be run by a machine of an earlier row that does less.
  auto rows = getTargetRows();
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      EXPECT_FALSE(canRunOn(rows[i], rows[j]))
          << rows[i].name.str() << " on " << rows[j].name.str();
}

TEST(TargetDescription, NativeIsTheLastRowThatRunsHere) {
  const TargetRow *native = findTarget("native");
  ASSERT_NE(native, nullptr);
  EXPECT_TRUE(canRunHere(*native));
  EXPECT_TRUE(canRunHere(*findTarget("generic")));
  for (const TargetRow &row : getTargetRows())
    if (&row > native) {
      EXPECT_FALSE(canRunHere(row)) << row.name.str();
    }
}

/// The kernel's word for what the processor has.
TEST(TargetDescription, AgreesWithTheKernel) {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line);)
    if (line.rfind("flags", 0) == 0) {
      std::istringstream words(line.substr(line.find(':') + 1));
      flags = {std::istream_iterator<std::string>(words), {}};
    }
  if (flags.empty())
    GTEST_SKIP() << "the kernel names no flags of an x86 processor";
  auto expect = [&](const char *row, const char *flag) {
    EXPECT_EQ(canRunHere(*findTarget(row)), flags.count(flag) == 1) << row;
  };
  expect("x86-64-v3", "avx2");
  expect("x86-64-v3+avxvnni", "avx_vnni");
  expect("x86-64-v4", "avx512vl");
  expect("x86-64-v4+vnni", "avx512_vnni");
  EXPECT_EQ(canRunHere(*findTarget("x86-64-v4+vnni+bf16")),
            flags.count("avx512_bf16") && flags.count("avx512_vnni"));
}

/// LLVM only warns about a feature that it does not know.
TEST(TargetDescription, LLVMKnowsEveryProcessorAndFeature) {
  llvm::InitializeAllTargetInfos();
  llvm::InitializeAllTargets();
  llvm::InitializeAllTargetMCs();
  for (const TargetRow &row : getTargetRows()) {
    llvm::Triple triple(row.triple);
    std::string error;
    const llvm::Target *target =
        llvm::TargetRegistry::lookupTarget(triple, error);
    ASSERT_NE(target, nullptr) << error;
    std::unique_ptr<llvm::MCSubtargetInfo> info(
        target->createMCSubtargetInfo(triple, "", ""));
    EXPECT_TRUE(info->isCPUStringValid(row.cpu)) << row.cpu.str();
    std::set<std::string> known;
    for (const auto &feature : info->getAllProcessorFeatures())
      known.insert(feature.Key);
    llvm::SmallVector<llvm::StringRef> features;
    row.features.split(features, ',', -1, false);
    for (llvm::StringRef feature : features)
      EXPECT_EQ(known.count(feature.drop_front().str()), 1u) << feature.str();
  }
}
