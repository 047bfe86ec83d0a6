//===- ModelReport.cpp - What a model is made of --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Report/ModelReport.h"

#include "Describe.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

namespace {

/// Counts weights, those of quantized ops with their scales and zero points.
class WeightCounter {
public:
  explicit WeightCounter(ModelReport &report) : report(report) {}

  void countQuantizedNode(NodeOp node);
  void countConstant(Value value, StringRef name, ShapedType type);

private:
  void add(WeightInfo info);
  uint64_t take(Value value);

  ModelReport &report;
  llvm::DenseSet<Value> counted;
};

} // namespace

static func::FuncOp getMainGraph(ModuleOp module) {
  for (auto func : module.getOps<func::FuncOp>())
    if (func->hasAttr(kGraphAttrName))
      return func;
  return {};
}

void WeightCounter::add(WeightInfo info) {
  report.parameters += info.parameters;
  report.weightBytes += info.bytes;
  report.weights.push_back(std::move(info));
}

/// Bytes of a constant that has not been counted yet; marks it.
uint64_t WeightCounter::take(Value value) {
  auto type = value && getConstantValue(value)
                  ? dyn_cast<ShapedType>(value.getType())
                  : ShapedType();
  if (!type || !counted.insert(value).second)
    return 0;
  return getPackedSize(type).value_or(0);
}

/// The constant that a node reads, also behind Reshape and Slice (a table that
/// shares its codes with a head).
static Value skipViews(Value value) {
  while (auto node = value ? value.getDefiningOp<NodeOp>() : NodeOp()) {
    if ((!node.isOnnx("Reshape") && !node.isOnnx("Slice")) ||
        node.getInputs().empty())
      break;
    value = node.getInputs()[0];
  }
  return value;
}

static std::string describeGroups(int64_t blockSize) {
  return llvm::formatv("groups of {0}", blockSize).str();
}

void WeightCounter::countQuantizedNode(NodeOp node) {
  WeightInfo info;
  unsigned codes = 1, scales = 2, zeros = 3;
  std::string granularity;
  if (node.isMicrosoft("MatMulNBits") || node.isMicrosoft("MatMulBnb4")) {
    int64_t K = node.getInt("K", 0), N = node.getInt("N", 0);
    info.parameters = K * N;
    info.shape = llvm::formatv("{0} x {1}", K, N).str();
    granularity = describeGroups(node.getInt("block_size", 0));
    if (node.isMicrosoft("MatMulBnb4"))
      granularity =
          (node.getInt("quant_type", 1) ? "nf4, " : "fp4, ") + granularity;
    else
      granularity = llvm::formatv("{0} bits, ", node.getInt("bits", 4)).str() +
                    granularity;
  } else if (node.isMicrosoft("GatherBlockQuantized")) {
    codes = 0;
    auto type = dyn_cast<RankedTensorType>(
        node.getInput(0) ? node.getInput(0).getType() : Type());
    if (!type || !type.hasStaticShape())
      return;
    int64_t bits = node.getInt("bits", 4);
    bool packed = type.getElementTypeBitWidth() == 8;
    info.parameters = type.getNumElements() * (packed ? 8 / bits : 1);
    info.shape = describeShape(type);
    granularity = llvm::formatv("{0} bits, ", bits).str() +
                  describeGroups(node.getInt("block_size", 0));
  } else if (node.isOnnx("DequantizeLinear")) {
    codes = 0, scales = 1, zeros = 2;
    auto type = dyn_cast<RankedTensorType>(
        node.getInput(0) ? node.getInput(0).getType() : Type());
    if (!type || !type.hasStaticShape())
      return;
    info.parameters = type.getNumElements();
    info.shape = describeShape(type);
    std::string element;
    llvm::raw_string_ostream(element) << type.getElementType();
    int64_t blockSize = node.getInt("block_size", 0);
    auto scaleType = dyn_cast<RankedTensorType>(
        node.getInput(1) ? node.getInput(1).getType() : Type());
    granularity = element + ", " +
                  (blockSize ? describeGroups(blockSize)
                   : scaleType && scaleType.getRank() > 0 ? "per channel"
                                                          : "per tensor");
  } else {
    return;
  }
  Value source = skipViews(node.getInput(codes));
  auto constant = source ? source.getDefiningOp<ConstantOp>() : ConstantOp();
  if (!constant)
    return;
  // A node that shares another one's codes adds nothing.
  if (counted.contains(source))
    return;
  info.name = constant.getName().str();
  info.readers = node.getOpType().str();
  info.storage = granularity + " (" + node.getOpType().str() + ")";
  info.bytes = take(source) + take(node.getInput(scales));
  if (Value zero = node.getInput(zeros))
    info.bytes += take(zero);
  add(std::move(info));
}

/// Whether these are the inputs of sparse outliers as
/// --nibble-split-sparse-outliers writes them.
static bool isOutlierIndices(Value value, ShapedType type) {
  return type.getElementType().isUnsignedInteger(16) && type.getRank() == 1 &&
         !value.use_empty() &&
         llvm::all_of(value.getUsers(), [](Operation *user) {
           auto node = dyn_cast<NodeOp>(user);
           return node && node.isOnnx("Cast");
         });
}

void WeightCounter::countConstant(Value value, StringRef name,
                                  ShapedType type) {
  if (!getConstantValue(value) || !counted.insert(value).second)
    return;
  WeightInfo info;
  info.name = name.str();
  info.readers = describeReaders(value);
  llvm::raw_string_ostream(info.storage) << type.getElementType();
  info.shape = describeShape(type);
  info.parameters = type.getNumElements();
  info.bytes = getPackedSize(type).value_or(0);
  // Shapes and indices are no weights, but those of outliers take their place.
  if (isa<FloatType>(type.getElementType()))
    add(std::move(info));
  else if (isOutlierIndices(value, type))
    report.weightBytes += info.bytes;
}

/// Bytes a token of the inputs that hold past keys and values: rank 4, with the
/// sequence as a dynamic dimension after the heads.
static std::optional<uint64_t> countCache(const func::FuncOp &func,
                                          const ModelReport &report) {
  func::FuncOp graph = func;
  std::optional<uint64_t> bytes;
  for (auto [input, argument] :
       llvm::zip(report.inputs, graph.getArguments())) {
    StringRef name(input.name);
    auto type = dyn_cast<RankedTensorType>(argument.getType());
    if (!name.contains_insensitive("past") || !type || type.getRank() != 4)
      continue;
    uint64_t perToken = getBitWidth(type.getElementType()) / 8;
    for (auto [index, size] : llvm::enumerate(type.getShape()))
      if (index > 0 && !ShapedType::isDynamic(size))
        perToken *= size;
    bytes = bytes.value_or(0) + perToken;
  }
  return bytes;
}

static void describeGraph(ModuleOp module, ModelReport &report) {
  func::FuncOp func = getMainGraph(module);
  if (!func)
    return;
  auto graph = func->getAttrOfType<GraphAttr>(kGraphAttrName);
  auto getName = [](Attribute entry) {
    auto info = dyn_cast<ValueInfoAttr>(entry);
    return (info ? info.getName() : cast<StringAttr>(entry)).str();
  };
  llvm::StringSet<> constants;
  for (auto constant : func.getBody().front().getOps<ConstantOp>())
    constants.insert(constant.getName());
  unsigned argument = 0;
  for (Attribute entry : graph.getInputs())
    if (std::string name = getName(entry);
        !constants.contains(name) && argument < func.getNumArguments())
      report.inputs.push_back(
          {name, describeType(func.getArgument(argument++).getType())});
  for (auto [entry, type] :
       llvm::zip(graph.getOutputs(), func.getResultTypes()))
    report.outputs.push_back({getName(entry), describeType(type)});
  report.cacheBytesPerToken = countCache(func, report);
}

ModelReport nibble::describeModel(ModuleOp module) {
  ModelReport report;
  if (auto version = module->getAttrOfType<IntegerAttr>(kIRVersionAttrName))
    report.irVersion = version.getInt();
  if (auto opsets = module->getAttrOfType<ArrayAttr>(kOpsetsAttrName))
    for (auto opset : opsets.getAsRange<OpsetAttr>()) {
      StringRef domain = opset.getDomain() ? opset.getDomain().getValue() : "";
      report.opsets.push_back(
          {domain.empty() ? "ai.onnx" : domain.str(), opset.getVersion()});
    }
  describeGraph(module, report);

  WeightCounter counter(report);
  module.walk([&](NodeOp node) {
    StringRef domain = node.getDomain().value_or("");
    bool own = domain.empty() || domain == "ai.onnx";
    ++report.ops[own ? node.getOpType().str()
                     : (domain + "." + node.getOpType()).str()];
    counter.countQuantizedNode(node);
  });
  module.walk([&](Operation *op) {
    if (auto constant = dyn_cast<ConstantOp>(op)) {
      if (auto type = dyn_cast<ShapedType>(constant.getType()))
        counter.countConstant(constant.getResult(), constant.getName(), type);
    } else if (auto node = dyn_cast<NodeOp>(op);
               node && node.isOnnx("Constant")) {
      auto tensor =
          dyn_cast_if_present<TensorAttr>(node.getAttributeValue("value"));
      auto typed =
          tensor ? dyn_cast<TypedAttr>(tensor.getValue()) : TypedAttr();
      if (typed && node.getNumResults() == 1)
        counter.countConstant(node.getResult(0), node.getDisplayName(),
                              cast<ShapedType>(typed.getType()));
    }
  });
  llvm::sort(report.weights, [](const WeightInfo &a, const WeightInfo &b) {
    return std::tie(b.bytes, a.name) < std::tie(a.bytes, b.name);
  });
  return report;
}

llvm::json::Object nibble::toJSON(const ModelReport &report) {
  using llvm::json::Array;
  using llvm::json::Object;
  Array opsets, inputs, outputs, weights;
  Object ops;
  for (auto &[domain, version] : report.opsets)
    opsets.push_back(Object{{"domain", domain}, {"version", version}});
  for (const ValueDescription &value : report.inputs)
    inputs.push_back(Object{{"name", value.name}, {"type", value.type}});
  for (const ValueDescription &value : report.outputs)
    outputs.push_back(Object{{"name", value.name}, {"type", value.type}});
  for (auto &[op, count] : report.ops)
    ops[op] = count;
  for (const WeightInfo &weight : report.weights)
    weights.push_back(Object{{"name", weight.name},
                             {"readers", weight.readers},
                             {"storage", weight.storage},
                             {"shape", weight.shape},
                             {"parameters", weight.parameters},
                             {"bytes", weight.bytes}});
  Object object{{"ir_version", report.irVersion},
                {"opsets", std::move(opsets)},
                {"inputs", std::move(inputs)},
                {"outputs", std::move(outputs)},
                {"ops", std::move(ops)},
                {"weights", std::move(weights)},
                {"parameters", report.parameters},
                {"weight_bytes", report.weightBytes},
                {"bits_per_weight", report.bitsPerWeight()}};
  if (report.cacheBytesPerToken)
    object["cache_bytes_per_token"] = *report.cacheBytesPerToken;
  return object;
}
