//===- WireTest.cpp -------------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Onnx/Wire.h"

#include <gtest/gtest.h>

using namespace nibble::wire;

static std::string bytes(std::initializer_list<int> values) {
  return std::string(values.begin(), values.end());
}

// The examples of https://protobuf.dev/programming-guides/encoding.
TEST(Wire, WritesTheExamplesOfTheSpecification) {
  Writer varint;
  varint.writeVarint(1, 150);
  EXPECT_EQ(varint.str(), bytes({0x08, 0x96, 0x01}));

  Writer string;
  string.writeBytes(2, "testing");
  EXPECT_EQ(string.str(), bytes({0x12, 0x07}) + "testing");

  Writer outer;
  outer.writeMessage(3, std::move(varint));
  EXPECT_EQ(outer.str(), bytes({0x1a, 0x03, 0x08, 0x96, 0x01}));

  Writer packed;
  packed.writePackedVarints(6, {3, 270, 86942});
  EXPECT_EQ(packed.str(),
            bytes({0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05}));

  Writer negative;
  negative.writeInt(1, -2);
  EXPECT_EQ(negative.str(), bytes({0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff,
                                   0xff, 0xff, 0xff, 0x01}));
}

TEST(Wire, ReadsWhatItWrote) {
  Writer writer;
  writer.writeInt(1, -2);
  writer.writeFloat(536870911, 1.5f);
  writer.writeBytes(3, "");
  std::string text = writer.str();
  Reader reader(text);
  Field field;
  ASSERT_TRUE(reader.next(field));
  EXPECT_EQ(field.number, 1u);
  EXPECT_EQ(field.getInt(), -2);
  ASSERT_TRUE(reader.next(field));
  EXPECT_EQ(field.number, 536870911u);
  EXPECT_EQ(field.getFloat(), 1.5f);
  ASSERT_TRUE(reader.next(field));
  EXPECT_TRUE(field.isBytes());
  EXPECT_EQ(field.bytes, "");
  EXPECT_EQ(field.whole, bytes({0x1a, 0x00}));
  EXPECT_FALSE(reader.next(field));
  EXPECT_EQ(reader.getError(), nullptr);
}

TEST(Wire, StopsAtDamage) {
  const std::string damaged[] = {
      bytes({0x08}),                   // a varint field without a varint
      bytes({0x08, 0x80}),             // cut off
      std::string(11, '\xff'),         // a varint of eleven bytes
      bytes({0x12, 0x05, 'a'}),        // longer than the rest
      bytes({0x0d, 0x00, 0x00, 0x00}), // a fixed32 of three bytes
      bytes({0x09, 0x00}),             // a fixed64 of one byte
      bytes({0x0b}),                   // a group, which proto2 files lack
      bytes({0x00, 0x00}),             // field 0
  };
  for (const std::string &text : damaged) {
    Reader reader(text);
    Field field;
    EXPECT_FALSE(reader.next(field));
    EXPECT_NE(reader.getError(), nullptr);
    EXPECT_FALSE(reader.next(field));
  }
}

TEST(Wire, ReferencesKeepTheirPlace) {
  std::string large(100000, 'x');
  llvm::ArrayRef<char> reference(large.data(), large.size());
  Writer inner, outer;
  inner.writeVarint(1, 7);
  inner.writeReference(2, reference, /*mapped=*/false);
  inner.writeVarint(3, 8);
  outer.writeBytes(4, "before");
  outer.writeMessage(5, std::move(inner));
  outer.writeReference(6, reference.take_front(3), /*mapped=*/false);
  std::string text = outer.str();
  EXPECT_EQ(text.size(), outer.getSize());

  Reader reader(text);
  Field field;
  ASSERT_TRUE(reader.next(field));
  ASSERT_TRUE(reader.next(field));
  Reader nested(field.bytes);
  ASSERT_TRUE(nested.next(field));
  EXPECT_EQ(field.value, 7u);
  ASSERT_TRUE(nested.next(field));
  EXPECT_EQ(field.bytes, large);
  ASSERT_TRUE(nested.next(field));
  EXPECT_EQ(field.value, 8u);
  ASSERT_TRUE(reader.next(field));
  EXPECT_EQ(field.bytes, "xxx");
}

TEST(Wire, CountsVarints) {
  EXPECT_EQ(countVarints(""), 0u);
  EXPECT_EQ(countVarints(bytes({0x03, 0x8e, 0x02})), 2u);
  EXPECT_EQ(countVarints(bytes({0x03, 0x8e})), std::nullopt);
}
