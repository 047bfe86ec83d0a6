//===- TensorDataTest.cpp -------------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/MLIRContext.h"

#include <gtest/gtest.h>

using namespace mlir;
using namespace nibble::onnx;

namespace {
class TensorData : public testing::Test {
protected:
  TensorData() : builder(&context) { context.loadDialect<OnnxDialect>(); }

  RankedTensorType type(int64_t count, Type element) {
    return RankedTensorType::get({count}, element);
  }
  Type unsignedType(unsigned width) {
    return IntegerType::get(&context, width, IntegerType::Unsigned);
  }

  MLIRContext context;
  Builder builder;
};
} // namespace

// The packing that onnx.proto gives for raw_data, low bits first.
TEST_F(TensorData, UnpacksSubByteElements) {
  const char nibbles[] = {0x21, 0x0f};
  DenseElementsAttr u4 = getDenseElements(type(3, unsignedType(4)), nibbles);
  ASSERT_TRUE(u4);
  EXPECT_EQ(*getIntegers(u4), (SmallVector<int64_t>{1, 2, 15}));
  DenseElementsAttr i4 =
      getDenseElements(type(3, builder.getIntegerType(4)), nibbles);
  EXPECT_EQ(*getIntegers(i4), (SmallVector<int64_t>{1, 2, -1}));
  const char crumbs[] = {char(0xe4)};
  DenseElementsAttr u2 = getDenseElements(type(4, unsignedType(2)), crumbs);
  EXPECT_EQ(*getIntegers(u2), (SmallVector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(getTensorBytes(u2)->bytes, ArrayRef<char>(crumbs));
}

TEST_F(TensorData, RefusesWhatADenseAttributeWouldLose) {
  const char padded[] = {0x21, char(0xff)}; // the high nibble holds something
  EXPECT_FALSE(getDenseElements(type(3, unsignedType(4)), padded));
  const char two[] = {2};
  EXPECT_FALSE(getDenseElements(type(1, builder.getI1Type()), two));
}

TEST_F(TensorData, ExpandsVarints) {
  std::vector<char> bytes;
  // int32_data of an int8 tensor: -1 is sign-extended to ten bytes.
  std::string minusOne = std::string(9, '\xff') + '\x01';
  EXPECT_TRUE(
      expandVarints(type(2, builder.getI8Type()), minusOne + '\x05', bytes));
  EXPECT_EQ(bytes, (std::vector<char>{-1, 5}));
  // 255 is no int8.
  bytes.clear();
  EXPECT_FALSE(expandVarints(type(1, builder.getI8Type()), "\xff\x01", bytes));
  // One number too few, and one too many.
  EXPECT_FALSE(expandVarints(type(2, builder.getI8Type()), "\x05", bytes));
  EXPECT_FALSE(expandVarints(type(1, builder.getI8Type()), "\x05\x05", bytes));
  // Two nibbles to a number.
  bytes.clear();
  EXPECT_TRUE(expandVarints(type(3, unsignedType(4)), "\x21\x0f", bytes));
  EXPECT_EQ(bytes, (std::vector<char>{0x21, 0x0f}));
}

TEST_F(TensorData, ReadsFloats) {
  float values[] = {1.0f, -2.5f};
  DenseElementsAttr f32 = DenseElementsAttr::get(type(2, builder.getF32Type()),
                                                 ArrayRef<float>(values));
  EXPECT_EQ(*getFloats(f32), (std::vector<float>{1.0f, -2.5f}));
  const char half[] = {0x00, 0x3c, 0x00, char(0xc1)}; // 1, -2.5
  EXPECT_EQ(*getFloats(getDenseElements(type(2, builder.getF16Type()), half)),
            (std::vector<float>{1.0f, -2.5f}));
  EXPECT_EQ(getFloats(DenseElementsAttr::get(type(1, builder.getI64Type()),
                                             ArrayRef<int64_t>{1})),
            std::nullopt);
}

TEST_F(TensorData, PackedSizeKnowsOverflow) {
  EXPECT_EQ(getPackedSize(type(3, unsignedType(4))), 2u);
  EXPECT_EQ(getPackedSize(type(3, builder.getI1Type())), 3u);
  auto huge = RankedTensorType::get({int64_t(1) << 40, int64_t(1) << 40},
                                    builder.getF32Type());
  EXPECT_EQ(getPackedSize(huge), std::nullopt);
}
