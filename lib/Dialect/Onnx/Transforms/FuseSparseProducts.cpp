//===- FuseSparseProducts.cpp - --onnx-fuse-sparse-products ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Onnx/IR/TensorData.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/NodeBuilder.h"
#include "nibble/Dialect/Onnx/Utils/UniqueNames.h"

#include <cstring>

namespace nibble::onnx {
#define GEN_PASS_DEF_ONNXFUSESPARSEPRODUCTS
#include "nibble/Dialect/Onnx/Transforms/Passes.h.inc"
} // namespace nibble::onnx

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {
/// A product with a sparse matrix in ops of ONNX
/// (--nibble-split-sparse-outliers).
struct SparseProduct {
  /// [..., K], [n, 1, ...] and [n].
  Value input, values, inputs;
  /// For each output, and behind the last one, the entry before its first one.
  std::vector<int32_t> offsets;
};
} // namespace

/// The node of this type that makes `value`, which `uses` others read.
static NodeOp matchNode(Value value, StringRef opType, unsigned uses = 1) {
  auto node = value.getDefiningOp<NodeOp>();
  bool matches = node && node.isOnnx(opType) && node.getNumResults() == 1 &&
                 llvm::range_size(value.getUses()) == uses;
  return matches ? node : NodeOp();
}

/// Whether `node` brings the first dimension to the end, or back.
static bool turns(NodeOp node, bool toEnd) {
  auto order = node.getInts("perm");
  if (!order)
    return false;
  int64_t rank = order->size();
  for (auto [i, source] : llvm::enumerate(*order))
    if (source != (int64_t(i) + (toEnd ? 1 : rank - 1)) % rank)
      return false;
  return true;
}

static NodeOp matchGather(Value value) {
  NodeOp node = matchNode(value, "Gather");
  if (!node || node.getInt("axis", 0) != 0)
    return {};
  auto type = dyn_cast<RankedTensorType>(node.getInputs()[1].getType());
  return type && type.getRank() == 1 ? node : NodeOp();
}

/// CumSum along the first dimension.
static NodeOp matchSums(Value value, bool exclusive, unsigned uses) {
  NodeOp node = matchNode(value, "CumSum", uses);
  if (!node || node.getInt("reverse", 0) != 0 ||
      (node.getInt("exclusive", 0) != 0) != exclusive)
    return {};
  auto axis = getIntegers(getConstantValue(node.getInputs()[1]));
  return axis && axis->size() == 1 && axis->front() == 0 ? node : NodeOp();
}

/// The sums of constant counts up to each output, with a 0 in front.
static std::optional<std::vector<int32_t>> matchOffsets(Value begins,
                                                        Value ends) {
  auto count = [](Value value) {
    return static_cast<unsigned>(llvm::range_size(value.getUses()));
  };
  NodeOp first = matchSums(begins, /*exclusive=*/true, count(begins));
  NodeOp last = matchSums(ends, /*exclusive=*/false, count(ends));
  if (!first || !last || first.getInputs()[0] != last.getInputs()[0])
    return std::nullopt;
  auto counts = getIntegers(getConstantValue(first.getInputs()[0]));
  if (!counts)
    return std::nullopt;
  std::vector<int32_t> offsets{0};
  for (int64_t number : *counts) {
    if (number < 0 || number > INT32_MAX - offsets.back())
      return std::nullopt;
    offsets.push_back(offsets.back() + static_cast<int32_t>(number));
  }
  return offsets;
}

/// Whether all of `value` are known, and less than `limit`.
static bool areBelow(Value value, int64_t limit) {
  auto integers = getIntegers(getConstantValue(value));
  return integers && llvm::all_of(*integers, [&](int64_t integer) {
           return integer >= 0 && integer < limit;
         });
}

/// A column of numbers for what is [n, …].
static bool isColumn(Value value, int64_t rank) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  return type && type.getRank() == rank && type.hasStaticShape() &&
         llvm::all_of(type.getShape().drop_front(),
                      [](int64_t size) { return size == 1; });
}

static std::optional<SparseProduct> match(NodeOp back) {
  if (!back.isOnnx("Transpose") || !turns(back, /*toEnd=*/true))
    return std::nullopt;
  NodeOp difference = matchNode(back.getInputs()[0], "Sub");
  NodeOp last = difference ? matchGather(difference.getInputs()[0]) : NodeOp();
  NodeOp before =
      difference ? matchGather(difference.getInputs()[1]) : NodeOp();
  if (!last || !before || last.getInputs()[0] != before.getInputs()[0])
    return std::nullopt;
  NodeOp sums = matchSums(last.getInputs()[0], /*exclusive=*/false, 2);
  NodeOp products = sums ? matchNode(sums.getInputs()[0], "Mul") : NodeOp();
  NodeOp gathered = products ? matchGather(products.getInputs()[0]) : NodeOp();
  NodeOp turned =
      gathered ? matchNode(gathered.getInputs()[0], "Transpose") : NodeOp();
  if (!turned || !turns(turned, /*toEnd=*/false))
    return std::nullopt;
  SparseProduct product{turned.getInputs()[0],
                        products.getInputs()[1],
                        gathered.getInputs()[1],
                        {}};
  auto type = dyn_cast<RankedTensorType>(product.input.getType());
  auto offsets = matchOffsets(before.getInputs()[1], last.getInputs()[1]);
  if (!type || !type.getElementType().isF32() || !offsets ||
      type.isDynamicDim(type.getRank() - 1) ||
      !isColumn(product.values, type.getRank()) ||
      !areBelow(product.inputs, type.getShape().back()))
    return std::nullopt;
  // The first entry stands before that of the first output.
  int64_t count = cast<ShapedType>(product.inputs.getType()).getNumElements();
  auto values = cast<RankedTensorType>(product.values.getType());
  if (values.getDimSize(0) != count || offsets->back() >= count)
    return std::nullopt;
  product.offsets = std::move(*offsets);
  return product;
}

/// Removes what nobody reads any more.
static void eraseDead(Value value) {
  auto node = value.getDefiningOp<NodeOp>();
  if (!node || !node->use_empty())
    return;
  SmallVector<Value> inputs(node.getInputs());
  node.erase();
  llvm::for_each(inputs, eraseDead);
}

static void fuse(NodeOp back, const SparseProduct &product,
                 UniqueNames &names) {
  OpBuilder builder(back);
  std::string name = names.make(back.getOutputName(0) + "_offsets");
  auto type = RankedTensorType::get(
      {static_cast<int64_t>(product.offsets.size())}, builder.getI32Type());
  std::vector<char> bytes(product.offsets.size() * sizeof(int32_t));
  std::memcpy(bytes.data(), product.offsets.data(), bytes.size());
  Value offsets = ConstantOp::create(
      builder, back.getLoc(), type, builder.getStringAttr(name),
      makeTensorValue(type, name, std::move(bytes)), TensorField::raw_data,
      DictionaryAttr());
  NodeOp fused =
      makeNode(builder, "SparseMatMul", back.getOutputName(0),
               {product.input, product.inputs, product.values, offsets},
               back.getResult(0).getType());
  fused.setDomainAttr(builder.getStringAttr("nibble"));
  back.getResult(0).replaceAllUsesWith(fused.getResult(0));
  eraseDead(back.getResult(0));
}

namespace {
struct FuseSparseProducts
    : onnx::impl::OnnxFuseSparseProductsBase<FuseSparseProducts> {
  void runOnOperation() override {
    SmallVector<std::pair<NodeOp, SparseProduct>> found;
    getOperation().walk([&](NodeOp node) {
      if (auto product = match(node))
        found.push_back({node, std::move(*product)});
    });
    UniqueNames names(getOperation());
    for (auto &[node, product] : found)
      fuse(node, product, names);
    numFused += found.size();
  }
};
} // namespace
