//===- StorageTest.cpp ----------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/Storage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

using namespace nibble;

static std::vector<std::string> storageNames() {
  std::vector<std::string> names = {"f8E4M3FN",
                                    "f8E5M2",
                                    "f4E2M1FN",
                                    "nf4",
                                    "fp4",
                                    "[-1, 0, 0.5, 1]",
                                    "[2]",
                                    "[0.1, -0.1, 3e-40, -0, 0]",
                                    "[1e38, 3e38, -1e-45, 3e38]",
                                    "[3, 1, 2, 1]"};
  for (char bits = '2'; bits <= '8'; ++bits) {
    names.push_back(std::string("i") + bits);
    names.push_back(std::string("u") + bits);
  }
  return names;
}

TEST(Storage, NamesComeBack) {
  for (const std::string &name : storageNames()) {
    auto storage = parseStorage(name);
    ASSERT_TRUE(storage) << storage.error();
    auto again = parseStorage(printStorage(*storage));
    ASSERT_TRUE(again) << again.error();
    EXPECT_EQ(*again, *storage) << name;
    if (name[0] != '[') {
      EXPECT_EQ(printStorage(*storage), name);
    }
  }
}

TEST(Storage, RefusesWhatItCannotStore) {
  for (const char *text :
       {"", "i1", "i9", "u16", "f16", "f8", "I4", "i4 ", "[]", "[1,]", "[1,,2]",
        "[a]", "[nan]", "[inf]", "[1e99]", "[1", "1]", "nf4s"}) {
    auto storage = parseStorage(text);
    EXPECT_FALSE(storage) << text;
    EXPECT_NE(storage.error().find("not a storage format"), std::string::npos);
  }
  std::string list = "[0";
  for (int i = 1; i < 256; ++i)
    list += ", " + std::to_string(i);
  EXPECT_TRUE(parseStorage(list + "]"));
  EXPECT_FALSE(parseStorage(list + ", 256]"));
}

TEST(Storage, BitsHoldEveryIndex) {
  for (size_t entries = 1; entries <= 256; ++entries) {
    StorageFormat storage =
        StorageFormat::getCodeBook(std::vector<float>(entries, 1.0f));
    unsigned expected =
        entries <= 2 ? 1 : static_cast<unsigned>(std::ceil(std::log2(entries)));
    EXPECT_EQ(storage.bits, expected) << entries;
  }
}

TEST(Storage, IntegerCodesAreTwosComplement) {
  for (unsigned bits = 2; bits <= 8; ++bits) {
    StorageFormat isSigned = StorageFormat::getSigned(bits);
    StorageFormat isUnsigned = StorageFormat::getUnsigned(bits);
    EXPECT_EQ(largestCode(isSigned) - smallestCode(isSigned), (1 << bits) - 1);
    EXPECT_EQ(largestCode(isUnsigned), (1 << bits) - 1);
    for (int code = smallestCode(isSigned); code <= largestCode(isSigned);
         ++code)
      EXPECT_EQ(codeValue(isSigned, static_cast<uint8_t>(code)), code);
    for (int code = 0; code <= largestCode(isUnsigned); ++code)
      EXPECT_EQ(codeValue(isUnsigned, static_cast<uint8_t>(code)), code);
  }
}

TEST(Storage, AnIndexBeyondTheCodeBookIsNaN) {
  EXPECT_TRUE(std::isnan(codeValue(*parseStorage("[1, 2, 3]"), 3)));
}

/// The nearest value by trying every code in double precision; `tie` chooses.
template <typename Tie>
static int nearestCode(const StorageFormat &storage, float x, Tie tie) {
  int best = smallestCode(storage);
  double bestDistance = INFINITY;
  for (int code = best; code <= largestCode(storage); ++code) {
    double value = codeValue(storage, static_cast<uint8_t>(code));
    double distance = std::fabs(value - static_cast<double>(x));
    if (distance < bestDistance || (distance == bestDistance && tie(code))) {
      best = code;
      bestDistance = distance;
    }
  }
  return best;
}

/// Random numbers around the storage's values, and half way between two.
static std::vector<float> inputsFor(const StorageFormat &storage) {
  std::vector<float> values, inputs = {INFINITY, -INFINITY, 3e38f, -3e38f,
                                       1e-45f,   -1e-45f,   0.0f,  -0.0f};
  for (int code = smallestCode(storage); code <= largestCode(storage); ++code)
    if (float v = codeValue(storage, static_cast<uint8_t>(code));
        std::isfinite(v))
      values.push_back(v);
  for (float a : values)
    for (float b : values)
      if (values.size() <= 16 || std::fabs(a - b) <= 1) {
        float middle = static_cast<float>((static_cast<double>(a) + b) / 2);
        inputs.insert(inputs.end(), {middle, std::nextafter(middle, INFINITY),
                                     std::nextafter(middle, -INFINITY)});
      }
  std::mt19937 random(7);
  float reach = std::min(2 * largestMagnitude(storage), 1e30f);
  std::uniform_real_distribution<float> uniform(-reach, reach);
  for (int i = 0; i < 2000; ++i)
    inputs.push_back(uniform(random));
  return inputs;
}

TEST(Storage, EncodesToTheNearest) {
  for (const std::string &name : storageNames()) {
    StorageFormat storage = *parseStorage(name);
    if (storage.kind == StorageKind::Float)
      continue; // FloatFormatsTest
    if (name.find('e') != std::string::npos)
      continue; // 1e38 and 3e-40: distances are not exact in double precision
    for (float x : inputsFor(storage)) {
      int expected;
      // From very far every distance is the same double.
      float bounded = std::min(std::max(x, -1000.0f), 1000.0f);
      if (storage.isInteger()) {
        expected = nearestCode(storage, bounded,
                               [](int code) { return code % 2 == 0; });
      } else {
        expected = nearestCode(storage, bounded, [](int) { return false; });
      }
      ASSERT_EQ(encodeNearest(storage, x), static_cast<uint8_t>(expected))
          << name << " " << x;
    }
  }
}

TEST(Storage, TheSortedCodeBookFindsTheSameCode) {
  for (const std::string &name : storageNames()) {
    StorageFormat storage = *parseStorage(name);
    if (storage.kind != StorageKind::CodeBook)
      continue;
    SortedCodeBook sorted = sortCodeBook(storage);
    ASSERT_EQ(sorted.thresholds.size() + 1, sorted.codes.size());
    for (float x : inputsFor(storage)) {
      size_t index = 0;
      for (float threshold : sorted.thresholds)
        index += x > threshold;
      ASSERT_EQ(sorted.codes[index], encodeNearest(storage, x)) << name << x;
      ASSERT_EQ(sorted.values[index], codeValue(storage, sorted.codes[index]));
    }
  }
}

TEST(Storage, NaNIsZeroAndFP4HasOneZero) {
  EXPECT_EQ(encodeNearest(StorageFormat::getSigned(4), NAN), 0);
  EXPECT_EQ(encodeNearest(StorageFormat::getNF4(), NAN), 7);
  for (float x : {0.0f, -0.0f, -1e-9f, 1e-9f})
    EXPECT_EQ(encodeNearest(StorageFormat::getFP4(), x), 0);
}
