//===- NibbleToOnnx.cpp - Quantized tensors to ONNX's ops
//------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Conversion/NibbleToOnnx.h"

#include "Restore.h"
#include "StoredWeight.h"
#include "nibble/Dialect/Nibble/Transforms/Passes.h"
#include "nibble/Dialect/Onnx/Utils/GraphInputs.h"
#include "nibble/Dialect/Onnx/Utils/Opset.h"

#include "llvm/ADT/StringSet.h"

namespace nibble {
#define GEN_PASS_DEF_CONVERTNIBBLETOONNX
#include "nibble/Conversion/NibbleToOnnx.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

enum class Format { MatMulNBits, Bnb4, Qdq };

struct ToOnnx : nibble::impl::ConvertNibbleToOnnxBase<ToOnnx> {
  using ConvertNibbleToOnnxBase::ConvertNibbleToOnnxBase;

  void runOnOperation() override;

private:
  Result<Format> chooseFormat(const StoredWeight &weight);
  LogicalResult convert(AssembleOp op, Restorer &restorer, UniqueNames &names);
  LogicalResult write(const StoredWeight &weight, Format chosen,
                      OnnxBuilder &builder);
  void eraseParts(AssembleOp op);
  void eraseDynamic();

  DynamicNodes dynamicNodes;
};

} // namespace

Result<Format> ToOnnx::chooseFormat(const StoredWeight &weight) {
  std::pair<Format, std::optional<std::string>> choices[] = {
      {Format::MatMulNBits, whyNotMatMulNBits(weight)},
      {Format::Bnb4, whyNotBnb4(weight)},
      {Format::Qdq, whyNotQdq(weight)}};
  StringRef names[] = {"matmulnbits", "bnb4", "qdq"};
  std::string reasons;
  for (auto [name, choice] : llvm::zip(names, choices)) {
    // Only DequantizeLinear holds filters and stacks of matrices.
    bool isWanted = weight.type.getRank() > 2
                        ? name == "qdq"
                        : format == "auto" || format == name;
    if (!isWanted)
      continue;
    if (!choice.second)
      return choice.first;
    reasons += (reasons.empty() ? "" : ", and ") + *choice.second;
  }
  return Failure{reasons};
}

/// Whether these are the scales of a weight, which are written with it.
static bool isPart(AssembleOp op) {
  return llvm::any_of(op->getUsers(), llvm::IsaPred<AssembleOp>);
}

/// Removes the parts of `op` that nobody else reads.
void ToOnnx::eraseParts(AssembleOp op) {
  SmallVector<Value> parts(op->getOperands());
  op.erase();
  for (Value part : parts)
    if (auto nested = part.getDefiningOp<AssembleOp>();
        nested && nested->use_empty())
      eraseParts(nested);
    else if (auto constant = part.getDefiningOp<ConstantOp>())
      if (constant->use_empty()) {
        removeFromInputs(constant);
        constant.erase();
      }
}

LogicalResult ToOnnx::convert(AssembleOp op, Restorer &restorer,
                              UniqueNames &names) {
  Result<StoredWeight> weight = readWeight(op);
  if (weight && isIntegerProduct(*weight)) {
    constexpr int64_t kDynamicQuantizeLinear = 11;
    if (failed(raiseOpset(getOperation(), kDynamicQuantizeLinear)))
      return failure();
    OnnxBuilder builder(op, names);
    numIntegerProducts += writeIntegerProducts(*weight, builder, dynamicNodes);
    eraseParts(op);
    return success();
  }
  Result<Format> chosen =
      weight ? chooseFormat(*weight) : Failure{weight.error()};
  if (chosen) {
    OnnxBuilder builder(op, names);
    if (failed(write(*weight, *chosen, builder)))
      return failure();
    eraseParts(op);
    return success();
  }
  // A weight that the wanted format cannot hold stays in the one that it had.
  std::string name = getWeightName(op);
  unsigned restored = restorer.restore(op);
  if (restored == 0)
    return op.emitError("tensor '") << name << "' cannot be written as "
                                    << format << ": it " << chosen.error();
  numRestored += restored;
  return success();
}

/// Removes what nodes were written for, with the cast before it.
void ToOnnx::eraseDynamic() {
  for (auto &[op, node] : dynamicNodes) {
    if (!op->use_empty())
      continue;
    Value input = op->getOperand(0);
    op->erase();
    if (auto cast = input.getDefiningOp<UnrealizedConversionCastOp>();
        cast && cast.use_empty())
      cast.erase();
  }
  dynamicNodes.clear();
}

LogicalResult ToOnnx::write(const StoredWeight &weight, Format chosen,
                            OnnxBuilder &builder) {
  switch (chosen) {
  case Format::MatMulNBits: {
    FormatCounts counts = writeMatMulNBits(weight, builder, accuracyLevel);
    numMatMulNBits += counts.matMuls;
    numGathers += counts.gathers;
    requireDomain(getOperation(), "com.microsoft", 1);
    break;
  }
  case Format::Bnb4:
    numBnb4 += writeBnb4(weight, builder).matMuls;
    requireDomain(getOperation(), "com.microsoft", 1);
    break;
  case Format::Qdq:
    if (failed(raiseOpset(getOperation(), getQdqOpset(weight))))
      return failure();
    writeQdq(weight, builder);
    ++numDequantize;
    break;
  }
  return success();
}

/// ONNX Runtime refuses a graph with two nodes of one name. New nodes are
/// called like their outputs, as nodes of some exporters are that have made
/// way.
static void separateNodeNames(ModuleOp module) {
  llvm::StringSet<> taken;
  module.walk([&](NodeOp node) {
    if (StringAttr name = node.getNameAttr())
      taken.insert(name.getValue());
  });
  UniqueNames names(std::move(taken));
  llvm::StringSet<> seen;
  module.walk([&](NodeOp node) {
    StringAttr name = node.getNameAttr();
    if (name && !name.empty() && !seen.insert(name.getValue()).second)
      node.setNameAttr(
          StringAttr::get(node.getContext(), names.make(name.getValue())));
  });
}

void ToOnnx::runOnOperation() {
  if (!llvm::is_contained({"auto", "matmulnbits", "bnb4", "qdq"},
                          StringRef(format))) {
    emitError(UnknownLoc::get(&getContext()))
        << "'" << format
        << "' is no format; use auto, matmulnbits, bnb4 or qdq";
    return signalPassFailure();
  }
  Restorer restorer(getOperation());
  numRestored += restorer.restoreAll(format);
  SmallVector<AssembleOp> assembles;
  getOperation().walk([&](AssembleOp op) {
    if (!isPart(op))
      assembles.push_back(op);
  });
  UniqueNames names(getOperation());
  for (AssembleOp op : assembles)
    if (failed(convert(op, restorer, names)))
      return signalPassFailure();
  eraseDynamic();
  restorer.cleanUp();
  if (!assembles.empty()) {
    requireFreeInitializers(getOperation());
    separateNodeNames(getOperation());
  }
  getOperation().walk([](NodeOp node) {
    node->removeAttr(kKeptAttrName);
    node->removeAttr(kRecordAttrName);
  });
}
