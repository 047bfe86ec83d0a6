//===- SchemeTest.cpp -----------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Scheme.h"

#include <gtest/gtest.h>

using namespace nibble;

TEST(Scheme, NamesComeBack) {
  for (const char *name :
       {"w4g128",    "w4g128s",      "w3g64",   "w4c",         "w4cs",
        "w4t",       "w4ts",         "w8c",     "w2g16s",      "w5g32",
        "w6t",       "w7cs",         "nf4g64",  "fp4g64",      "nf4c",
        "fp4t",      "f8E4M3FNg128", "f8E5M2c", "f4E2M1FNg32", "w4g1",
        "w4g1048576"}) {
    auto scheme = parseScheme(name);
    ASSERT_TRUE(scheme) << scheme.error();
    EXPECT_EQ(printScheme(*scheme), name);
  }
}

TEST(Scheme, SaysHowToStore) {
  Scheme scheme = *parseScheme("w4g128");
  EXPECT_EQ(printStorage(scheme.storage), "u4");
  EXPECT_FALSE(scheme.symmetric);
  EXPECT_EQ(scheme.blockShape(), (BlockShape{128, 1}));
  EXPECT_EQ(scheme.scaleFormat, FloatFormat::F32);

  scheme = *parseScheme("w3cs");
  EXPECT_EQ(printStorage(scheme.storage), "i3");
  EXPECT_TRUE(scheme.symmetric);
  EXPECT_EQ(scheme.blockShape(), (BlockShape{0, 1}));

  scheme = *parseScheme("nf4t");
  EXPECT_EQ(scheme.storage, StorageFormat::getNF4());
  EXPECT_TRUE(scheme.symmetric);
  EXPECT_EQ(scheme.blockShape(), (BlockShape{0, 0}));
}

TEST(Scheme, SaysWhatIsWrong) {
  const std::pair<const char *, const char *> cases[] = {
      {"", "it starts with"},
      {"q4g32", "it starts with"},
      {"W4g32", "it starts with"},
      {"w", "number of bits"},
      {"w1g32", "number of bits"},
      {"w9c", "number of bits"},
      {"w04c", "number of bits"},
      {"w-4c", "number of bits"},
      {"w99999999999999999999c", "number of bits"},
      {"w4", "after 'w4' comes 'g'"},
      {"nf4", "after 'nf4' comes 'g'"},
      {"w4x", "after 'w4' comes 'g'"},
      {"w4g", "size of a group"},
      {"w4g0", "size of a group"},
      {"w4g-1", "size of a group"},
      {"w4g1048577", "size of a group"},
      {"w4gs", "size of a group"},
      {"w4g128x", "not 'x'"},
      {"w4css", "not 's'"},
      {"w4c ", "not ' '"},
      {"nf4g64s", "no zero point"},
      {"f8E4M3FNcs", "no zero point"},
      {"f8E4M3g128", "it starts with"},
  };
  for (auto [name, why] : cases) {
    auto scheme = parseScheme(name);
    ASSERT_FALSE(scheme) << name;
    EXPECT_NE(scheme.error().find(why), std::string::npos)
        << name << ": " << scheme.error();
    EXPECT_NE(scheme.error().find(std::string("'") + name + "' is not"),
              std::string::npos);
  }
}
