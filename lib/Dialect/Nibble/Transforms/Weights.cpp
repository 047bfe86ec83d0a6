//===- Weights.cpp - Constants that are weights ---------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Dialect/Nibble/Transforms/Weights.h"

#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/IR/ValueNames.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

std::optional<unsigned> nibble::getWeightOperand(NodeOp node) {
  std::optional<unsigned> operand;
  if (node.isOnnx("MatMul") || node.isOnnx("Gemm"))
    operand = 1;
  else if (node.isOnnx("Gather") && node.getInt("axis", 0) == 0)
    operand = 0;
  if (operand && node.getInputs().size() <= *operand)
    return std::nullopt;
  return operand;
}

bool nibble::isProduct(NodeOp node) {
  return getWeightOperand(node) && !node.isOnnx("Gather");
}

ConstantOp nibble::getChosenWeight(NodeOp node) {
  std::optional<unsigned> operand = getWeightOperand(node);
  if (!operand)
    return {};
  MatrixSource source = getMatrixSource(node.getInputs()[*operand]);
  auto constant = source.value.getDefiningOp<ConstantOp>();
  if (!constant || !constant->hasAttr(kEncodingAttrName))
    return {};
  auto type = dyn_cast<RankedTensorType>(constant.getType());
  return type && type.getRank() == 2 ? constant : ConstantOp();
}

std::string nibble::getProbeId(NodeOp node) {
  std::string name = getValueName(node.getInputs()[0]);
  return name.empty() ? node.getDisplayName() + "/input" : name;
}

std::optional<unsigned> nibble::getFilterChannelAxis(NodeOp node) {
  if (node.getInputs().size() < 2)
    return std::nullopt;
  if (node.isOnnx("Conv"))
    return 0;
  // Of several groups those outputs share a scale that have the same place.
  if (node.isOnnx("ConvTranspose"))
    return 1;
  return std::nullopt;
}

SmallVector<MatrixStack> nibble::getMatrixStacks(NodeOp node) {
  SmallVector<MatrixStack> stacks;
  auto getRank = [&](unsigned operand) -> int64_t {
    Value input =
        operand < node.getInputs().size() ? node.getInputs()[operand] : Value();
    auto type = input ? dyn_cast<RankedTensorType>(input.getType())
                      : RankedTensorType();
    return type ? type.getRank() : 0;
  };
  if (int64_t rank = getRank(1); node.isOnnx("MatMul") && rank > 2)
    stacks.push_back({1, static_cast<unsigned>(rank - 2)});
  if (node.isOnnx("LSTM") || node.isOnnx("GRU") || node.isOnnx("RNN"))
    for (unsigned operand : {1, 2})
      if (getRank(operand) == 3)
        stacks.push_back({operand, 2});
  return stacks;
}

MatrixSource nibble::getMatrixSource(Value value) {
  auto node = value.getDefiningOp<NodeOp>();
  if (!node || !node.isOnnx("Transpose") || node.getInputs().size() != 1)
    return {value, false};
  auto type = dyn_cast<RankedTensorType>(node.getInputs()[0].getType());
  std::optional<ArrayRef<int64_t>> order = node.getInts("perm");
  bool swaps = !order || *order == ArrayRef<int64_t>{1, 0};
  if (!type || type.getRank() != 2 || !swaps)
    return {value, false};
  return {node.getInputs()[0], true};
}

unsigned nibble::getReductionAxis(NodeOp node, bool transposed) {
  bool last = node.isOnnx("Gather") ||
              (node.isOnnx("Gemm") && node.getInt("transB", 0) != 0);
  return last != transposed ? 1 : 0;
}

static QuantizedAttr getEncoding(MLIRContext *context, const Scheme &scheme,
                                 ArrayRef<int64_t> block) {
  StorageAttr storage = getStorageAttr(context, scheme.storage);
  Attribute zero;
  if (!scheme.symmetric && scheme.storage.isInteger())
    zero = storage;
  Builder builder(context);
  Type scale =
      scheme.scaleFormat == FloatFormat::F16    ? Type(builder.getF16Type())
      : scheme.scaleFormat == FloatFormat::BF16 ? Type(builder.getBF16Type())
                                                : Type(builder.getF32Type());
  return QuantizedAttr::get(storage, block, TypeAttr::get(scale), zero);
}

QuantizedAttr nibble::getFilterEncoding(MLIRContext *context,
                                        const Scheme &scheme, unsigned rank,
                                        unsigned channelAxis) {
  SmallVector<int64_t> block(rank, QuantizedAttr::kWholeExtent);
  if (scheme.granularity == Granularity::Channel)
    block[channelAxis] = 1;
  return ::getEncoding(context, scheme, block);
}

unsigned nibble::getChosenAxis(ConstantOp constant) {
  auto encoding = constant->getAttrOfType<QuantizedAttr>(kEncodingAttrName);
  return encoding.getBlock()[0] == 1 ? 1 : 0;
}

Scheme nibble::withScalesFor(Scheme scheme, Type element) {
  if (element.isF16())
    scheme.scaleFormat = FloatFormat::F16;
  else if (element.isBF16())
    scheme.scaleFormat = FloatFormat::BF16;
  return scheme;
}

QuantizedAttr nibble::getEncoding(MLIRContext *context, const Scheme &scheme,
                                  unsigned reductionAxis) {
  return getStackEncoding(context, scheme, /*rank=*/2, reductionAxis);
}

QuantizedAttr nibble::getStackEncoding(MLIRContext *context,
                                       const Scheme &scheme, unsigned rank,
                                       unsigned reductionAxis) {
  SmallVector<int64_t> block(rank, 1);
  switch (scheme.granularity) {
  case Granularity::Tensor:
    block.assign(rank, QuantizedAttr::kWholeExtent);
    break;
  case Granularity::Channel:
    block[reductionAxis] = QuantizedAttr::kWholeExtent;
    break;
  case Granularity::Group:
    block[reductionAxis] = static_cast<int64_t>(scheme.groupSize);
    break;
  }
  return ::getEncoding(context, scheme, block);
}

bool nibble::isStackEncoding(QuantizedAttr encoding) {
  ArrayRef<int64_t> block = encoding.getBlock();
  bool hasParts = llvm::any_of(block, [](int64_t extent) {
    return extent != 1 && extent != QuantizedAttr::kWholeExtent;
  });
  // A filter has one dimension of channels.
  return block.size() > 2 && (hasParts || llvm::count(block, 1) > 1);
}

Scheme nibble::getScheme(QuantizedAttr encoding) {
  Scheme scheme;
  scheme.storage = getStorageFormat(encoding.getStorage());
  scheme.symmetric = !encoding.hasZero();
  ArrayRef<int64_t> block = encoding.getBlock();
  if (isStackEncoding(encoding))
    block = block.take_back(2);
  auto isPart = [](int64_t extent) {
    return extent != 1 && extent != QuantizedAttr::kWholeExtent;
  };
  size_t ones = llvm::count(block, 1);
  scheme.granularity = ones == 0 ? Granularity::Tensor : Granularity::Channel;
  // Blocks of [1, 1] are groups of one input.
  if (ones == 2 || llvm::any_of(block, isPart)) {
    scheme.granularity = Granularity::Group;
    scheme.groupSize = ones == 2 ? 1 : *llvm::find_if(block, isPart);
  }
  Type scale = cast<TypeAttr>(encoding.getScale()).getValue();
  scheme.scaleFormat = scale.isF16()    ? FloatFormat::F16
                       : scale.isBF16() ? FloatFormat::BF16
                                        : FloatFormat::F32;
  return scheme;
}

StorageAttr nibble::getStorageAttr(MLIRContext *context,
                                   const StorageFormat &storage) {
  switch (storage.kind) {
  case StorageKind::Signed:
    return StorageAttr::getInteger(context, storage.bits, /*isSigned=*/true);
  case StorageKind::Unsigned:
    return StorageAttr::getInteger(context, storage.bits, /*isSigned=*/false);
  case StorageKind::Float:
    return StorageAttr::get(
        context, storage.floatFormat == FloatFormat::F8E5M2 ? CodeKind::F8E5M2
                 : storage.floatFormat == FloatFormat::F4E2M1FN
                     ? CodeKind::F4E2M1FN
                     : CodeKind::F8E4M3FN);
  case StorageKind::CodeBook:
    if (storage == StorageFormat::getNF4())
      return StorageAttr::get(context, CodeKind::NF4);
    if (storage == StorageFormat::getFP4())
      return StorageAttr::get(context, CodeKind::FP4);
    break;
  }
  return StorageAttr::getCodeBook(context, storage.codeBook);
}

StorageFormat nibble::getStorageFormat(StorageAttr storage) {
  switch (storage.getKind()) {
  case CodeKind::SignedInteger:
    return StorageFormat::getSigned(storage.getBitWidth());
  case CodeKind::UnsignedInteger:
    return StorageFormat::getUnsigned(storage.getBitWidth());
  case CodeKind::F8E4M3FN:
    return StorageFormat::getFloat(FloatFormat::F8E4M3FN);
  case CodeKind::F8E5M2:
    return StorageFormat::getFloat(FloatFormat::F8E5M2);
  case CodeKind::F4E2M1FN:
    return StorageFormat::getFloat(FloatFormat::F4E2M1FN);
  case CodeKind::NF4:
    return StorageFormat::getNF4();
  case CodeKind::FP4:
    return StorageFormat::getFP4();
  case CodeKind::CodeBook:
    break;
  }
  ArrayRef<float> values = storage.getValues().asArrayRef();
  return StorageFormat::getCodeBook({values.begin(), values.end()});
}
