//===- OnnxToLinalg.cpp - Nodes to linalg, tensor and arith ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "NodeConversion.h"

#include "nibble/Conversion/Passes.h"
#include "nibble/Conversion/StoredBytes.h"
#include "nibble/Dialect/Nibble/IR/NibbleOps.h"
#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Func/Transforms/FuncConversions.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/DialectResourceBlobManager.h"

namespace nibble {
#define GEN_PASS_DEF_CONVERTONNXTOLINALG
#include "nibble/Conversion/Passes.h.inc"
} // namespace nibble

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

static Value buildTypeCast(OpBuilder &builder, Type type, ValueRange inputs,
                           Location loc) {
  return UnrealizedConversionCastOp::create(builder, loc, type, inputs)
      .getResult(0);
}

namespace {
/// Stored types for plain tensors; quantized ones stay as they are.
struct PlainTypeConverter : TypeConverter {
  PlainTypeConverter() {
    addConversion([](Type type) { return type; });
    addConversion([](RankedTensorType type) -> Type {
      if (isQuantized(type))
        return type;
      RankedTensorType stored = getStoredType(type);
      return stored ? stored : type;
    });
    addSourceMaterialization(buildTypeCast);
    addTargetMaterialization(buildTypeCast);
  }
};
} // namespace

//===----------------------------------------------------------------------===//
// Constants
//===----------------------------------------------------------------------===//

/// The value of a constant in its stored type; null where it has none.
static TypedAttr getStoredValue(Attribute value, StringRef name) {
  auto type = dyn_cast<RankedTensorType>(cast<TypedAttr>(value).getType());
  if (!type)
    return {};
  Type element = type.getElementType();
  std::optional<TensorBytes> data = getTensorBytes(value);
  RankedTensorType stored = getStoredType(type);
  if (!data || !stored || data->bytes.size() != getPackedSize(type))
    return {};
  int64_t count = type.getNumElements();
  if (getBitWidth(element) % 8 != 0)
    return makeTensorValue(stored, name,
                           unpackElements(data->bytes, element, count));
  if (element.isInteger(1)) {
    SmallVector<bool> values;
    for (char byte : data->bytes)
      values.push_back(byte != 0);
    return DenseElementsAttr::get(stored, values);
  }
  if (count <= kMaxDenseElements)
    return getDenseElements(stored, data->bytes);
  if (data->bytes.data() == data->storage.data())
    return makeTensorValue(stored, name, std::move(data->storage));
  // The blob refers to bytes that live as long as the context.
  AsmResourceBlob blob(data->bytes, /*dataAlignment=*/1, /*deleter=*/{},
                       /*dataIsMutable=*/false);
  return DenseResourceElementsAttr::get(stored, name, std::move(blob));
}

namespace {
struct ConstantConversion : OpConversionPattern<ConstantOp> {
  using OpConversionPattern::OpConversionPattern;

  LogicalResult
  matchAndRewrite(ConstantOp op, OpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    Attribute value = getConstantValue(op.getResult());
    if (!value)
      return rewriter.notifyMatchFailure(op, "has no dense value");
    TypedAttr stored = getStoredValue(value, op.getName());
    if (!stored)
      return rewriter.notifyMatchFailure(op,
                                         "has elements that are no numbers");
    rewriter.replaceOpWithNewOp<arith::ConstantOp>(op, stored);
    return success();
  }
};

struct NodePattern : OpConversionPattern<NodeOp> {
  NodePattern(const TypeConverter &types, MLIRContext *context,
              const NodeConversions &conversions, std::string &reason)
      : OpConversionPattern(types, context), conversions(conversions),
        reason(reason) {}

  LogicalResult
  matchAndRewrite(NodeOp node, OpAdaptor adaptor,
                  ConversionPatternRewriter &rewriter) const override {
    StringRef domain = node.getDomain().value_or("");
    int64_t version = getOpsetVersion(node, domain);
    const NodeConversion *conversion =
        conversions.find(domain, node.getOpType(), version);
    if (!conversion)
      return rewriter.notifyMatchFailure(node, "has no conversion");
    NodeContext context(node, adaptor.getInputs(), version, rewriter, reason);
    for (unsigned i = 0; i < node.getInputs().size(); ++i) {
      Value input = node.getInput(i);
      auto type = input ? dyn_cast<RankedTensorType>(input.getType())
                        : RankedTensorType();
      if (input && (!type || !getStoredType(type)))
        return context.fail("input " + Twine(i) +
                            " is not known to be a tensor of numbers with a "
                            "rank (run --onnx-infer-shapes)");
    }
    return (*conversion)(context);
  }

  const NodeConversions &conversions;
  /// Why the first node that failed did.
  std::string &reason;
};
} // namespace

/// The node Constant, whose value is one of several attributes.
static LogicalResult convertConstantNode(NodeContext &context) {
  TypedAttr value;
  OpBuilder &builder = context.rewriter;
  for (auto attribute :
       context.node.getNodeAttributes().getAsRange<NodeAttributeAttr>()) {
    Attribute given = attribute.getValue();
    StringRef name = attribute.getName().getValue();
    if (auto tensor = dyn_cast<TensorAttr>(given); tensor && name == "value")
      value = isa<TypedAttr>(tensor.getValue())
                  ? getStoredValue(tensor.getValue(), "constant")
                  : TypedAttr();
    else if (name == "value_float" || name == "value_int")
      value = DenseElementsAttr::get(
          RankedTensorType::get({}, cast<TypedAttr>(given).getType()), given);
    else if (auto floats = dyn_cast<DenseF32ArrayAttr>(given))
      value = DenseElementsAttr::get(
          RankedTensorType::get({floats.size()}, builder.getF32Type()),
          floats.asArrayRef());
    else if (auto integers = dyn_cast<DenseI64ArrayAttr>(given))
      value = builder.getI64TensorAttr(integers.asArrayRef());
  }
  if (!value)
    return context.fail("has no value that is a tensor of numbers");
  return context.replace(
      arith::ConstantOp::create(builder, context.loc, value).getResult());
}

//===----------------------------------------------------------------------===//
// The pass
//===----------------------------------------------------------------------===//

static const NodeConversions &getConversions() {
  static const NodeConversions conversions = [] {
    NodeConversions result;
    result.add("Constant", 1, convertConstantNode);
    addActivationConversions(result);
    addAttentionConversions(result);
    addControlConversions(result);
    addConvolutionConversions(result);
    addDetectionConversions(result);
    addEinsumConversions(result);
    addElementwiseConversions(result);
    addIndexingConversions(result);
    addLossConversions(result);
    addMatMulConversions(result);
    addMicrosoftAttentionConversions(result);
    addMicrosoftMatMulConversions(result);
    addNormalizationConversions(result);
    addPadConversions(result);
    addPoolingConversions(result);
    addQLinearConversions(result);
    addQuantizationConversions(result);
    addRecurrentConversions(result);
    addReductionConversions(result);
    addResizeConversions(result);
    addSamplingConversions(result);
    addShapeConversions(result);
    addSignalConversions(result);
    addSortingConversions(result);
    addSparseProductConversions(result);
    addStateSpaceConversions(result);
    return result;
  }();
  return conversions;
}

/// "MatMul", "com.microsoft.MatMulNBits".
static std::string getQualifiedType(NodeOp node) {
  StringRef domain = node.getDomain().value_or("");
  std::string prefix = domain.empty() ? "" : (domain + ".").str();
  return prefix + node.getOpType().str();
}

std::vector<NodeOp> nibble::findUnsupportedNodes(ModuleOp module) {
  std::vector<NodeOp> unsupported;
  module.walk([&](NodeOp node) {
    StringRef domain = node.getDomain().value_or("");
    if (!getConversions().find(domain, node.getOpType(),
                               getOpsetVersion(node, domain)))
      unsupported.push_back(node);
  });
  return unsupported;
}

/// One error for all nodes without a conversion; success where there is none.
static LogicalResult checkSupported(ModuleOp module) {
  std::vector<NodeOp> unsupported = findUnsupportedNodes(module);
  if (unsupported.empty())
    return success();
  constexpr size_t shown = 8;
  std::string names;
  llvm::raw_string_ostream os(names);
  for (NodeOp node : ArrayRef<NodeOp>(unsupported).take_front(shown))
    os << (names.empty() ? "" : ", ") << getQualifiedType(node) << " ('"
       << node.getDisplayName() << "')";
  if (unsupported.size() > shown)
    os << " and " << unsupported.size() - shown << " more";
  return unsupported.front().emitError()
         << "no conversion to plain IR for " << names;
}

/// Whether a result is part of a larger tensor.
static bool isSlice(OpResult value);

static bool isSlice(Value value) {
  auto result = dyn_cast<OpResult>(value);
  return result && isSlice(result);
}

static bool isSlice(OpResult value) {
  unsigned index = value.getResultNumber();
  Operation *op = value.getOwner();
  if (isa<tensor::ExtractSliceOp>(op))
    return true;
  if (isa<tensor::CastOp, tensor::ExpandShapeOp, tensor::CollapseShapeOp>(op))
    return isSlice(op->getOperand(0));
  if (auto choice = dyn_cast<scf::IfOp>(op))
    return isSlice(choice.thenYield().getOperand(index)) ||
           isSlice(choice.elseYield().getOperand(index));
  if (auto loop = dyn_cast<scf::ForOp>(op))
    return isSlice(loop.getInitArgs()[index]) ||
           isSlice(loop.getYieldedValues()[index]);
  return isa<scf::WhileOp>(op);
}

/// Copies what a function returns of a larger tensor: bufferization takes a
/// buffer with strides that are not known for one without.
static void copyReturnedSlices(func::FuncOp function) {
  function.walk([&](func::ReturnOp end) {
    for (OpOperand &operand : end->getOpOperands()) {
      if (!isa<RankedTensorType>(operand.get().getType()) ||
          !isSlice(operand.get()))
        continue;
      OpBuilder builder(end);
      Location loc = operand.get().getLoc();
      Type type =
          cast<RankedTensorType>(operand.get().getType()).getElementType();
      Value empty = tensor::EmptyOp::create(
          builder, loc, tensor::getMixedSizes(builder, loc, operand.get()),
          type);
      if (empty.getType() != operand.get().getType())
        continue;
      operand.set(linalg::CopyOp::create(builder, loc, operand.get(), empty)
                      .getResult(0));
    }
  });
}

namespace {
struct ConvertOnnxToLinalg
    : nibble::impl::ConvertOnnxToLinalgBase<ConvertOnnxToLinalg> {
  using ConvertOnnxToLinalgBase::ConvertOnnxToLinalgBase;

  void runOnOperation() override {
    ModuleOp module = getOperation();
    eraseUnused(module);
    if (failed(checkSupported(module)) || failed(convert(module)))
      return signalPassFailure();
    eraseUnused(module);
    for (NamedAttribute attribute :
         llvm::to_vector(module->getDiscardableAttrs()))
      if (attribute.getName().strref().starts_with("onnx."))
        module->removeDiscardableAttr(attribute.getName());
    for (auto function : module.getOps<func::FuncOp>()) {
      function->removeAttr(kGraphAttrName);
      copyReturnedSlices(function);
    }
  }

private:
  /// Constants that shape inference or a conversion has read are of no more
  /// use.
  void eraseUnused(ModuleOp module) {
    SmallVector<Operation *> unused;
    module.walk([&](Operation *op) {
      if (isa<ConstantOp, AbsentOp>(op) && op->use_empty())
        unused.push_back(op);
    });
    for (Operation *op : unused)
      op->erase();
  }

  LogicalResult convert(ModuleOp module);
};
} // namespace

LogicalResult ConvertOnnxToLinalg::convert(ModuleOp module) {
  module.walk([&](Operation *op) {
    numNodes += isa<NodeOp>(op);
    numConstants += isa<ConstantOp>(op);
    if (auto constant = dyn_cast<ConstantOp>(op))
      if (auto file = dyn_cast<FileElementsAttr>(constant.getValue()))
        numMappedBytes += file.getLength();
  });

  MLIRContext *context = &getContext();
  PlainTypeConverter types;
  ConversionTarget target(*context);
  target
      .addLegalDialect<arith::ArithDialect, cf::ControlFlowDialect,
                       linalg::LinalgDialect, math::MathDialect,
                       scf::SCFDialect, tensor::TensorDialect, NibbleDialect>();
  target.addLegalOp<UnrealizedConversionCastOp>();
  target.addDynamicallyLegalOp<func::FuncOp>([&](func::FuncOp op) {
    return types.isSignatureLegal(op.getFunctionType()) &&
           types.isLegal(&op.getBody());
  });
  target.addDynamicallyLegalOp<func::ReturnOp, func::CallOp>(
      [&](Operation *op) { return types.isLegal(op); });
  std::string reason;
  RewritePatternSet patterns(context);
  patterns.add<ConstantConversion>(types, context);
  patterns.add<NodePattern>(types, context, getConversions(), reason);
  populateFunctionOpInterfaceTypeConversionPattern<func::FuncOp>(patterns,
                                                                 types);
  populateReturnOpTypeConversionPattern(patterns, types);
  populateCallOpTypeConversionPattern(patterns, types);

  // Nodes are of unknown legality, so that the error for one that stays is
  // ours.
  if (failed(applyPartialConversion(module, target, std::move(patterns))))
    return failure();
  Operation *first = nullptr;
  module.walk([&](Operation *op) {
    if (!isa<NodeOp>(op) && (!isa<ConstantOp>(op) || op->use_empty()))
      return WalkResult::advance();
    first = op;
    return WalkResult::interrupt();
  });
  if (!first)
    return success();
  auto node = dyn_cast<NodeOp>(first);
  if (!node)
    return first->emitError("a constant whose elements are no numbers has no "
                            "place in plain IR");
  return node.emitError() << "cannot convert " << getQualifiedType(node) << " '"
                          << node.getDisplayName() << "': " << reason;
}
