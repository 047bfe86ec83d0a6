//===- Inspect.cpp - nibble inspect ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Session.h"
#include "nibble/Conversion/Passes.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Report/ModelReport.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Pass/PassManager.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace nibble;

namespace {
struct Device {
  const char *name;
  uint64_t gibibytes;
};

/// What runs beside the weights: activations, the runtime, the system's share.
constexpr double kOverhead = 1.2;
} // namespace

// Common memory sizes of the machines that people own.
static constexpr Device devices[] = {
    {"phone or single-board computer, 4 GiB", 4},
    {"laptop or graphics card, 8 GiB", 8},
    {"graphics card, 12 GiB", 12},
    {"laptop, 16 GiB", 16},
    {"graphics card, 24 GiB", 24},
    {"workstation, 64 GiB", 64},
};

static uint64_t countMemory(const ModelReport &report, uint64_t context) {
  uint64_t cache = report.cacheBytesPerToken.value_or(0) * context;
  return static_cast<uint64_t>(kOverhead *
                               static_cast<double>(report.weightBytes + cache));
}

static void printHeader(const InspectCommand &command, uint64_t fileSize,
                        const ModelReport &report, llvm::raw_ostream &os) {
  os << command.input << ": " << formatBytes(fileSize) << ", IR version "
     << report.irVersion << ", opsets";
  for (auto &[domain, version] : report.opsets)
    os << " " << domain << " " << version;
  os << "\n";
  for (const ValueDescription &value : report.inputs)
    os << "  input   " << value.name << "  " << value.type << "\n";
  for (const ValueDescription &value : report.outputs)
    os << "  output  " << value.name << "  " << value.type << "\n";
}

static void printOps(const ModelReport &report, llvm::raw_ostream &os) {
  std::vector<std::pair<std::string, unsigned>> ops(report.ops.begin(),
                                                    report.ops.end());
  llvm::sort(ops, [](auto &a, auto &b) {
    return std::tie(b.second, a.first) < std::tie(a.second, b.first);
  });
  os << "\nops: ";
  llvm::interleaveComma(
      ops, os, [&](auto &entry) { os << entry.first << " " << entry.second; });
  os << "\n";
}

static void printWeights(const InspectCommand &command,
                         const ModelReport &report, llvm::raw_ostream &os) {
  struct Sum {
    uint64_t count = 0, parameters = 0, bytes = 0;
  };
  std::map<std::string, Sum> kinds;
  for (const WeightInfo &weight : report.weights) {
    Sum &sum = kinds[weight.storage];
    ++sum.count;
    sum.parameters += weight.parameters;
    sum.bytes += weight.bytes;
  }
  os << llvm::formatv("\nweights: {0} parameters, {1}, {2:f2} bits a weight\n",
                      report.parameters, formatBytes(report.weightBytes),
                      report.bitsPerWeight());
  for (auto &[storage, sum] : kinds)
    os << llvm::formatv("  {0,-44} {1,5} tensors {2,12} parameters {3,10}\n",
                        storage, sum.count, sum.parameters,
                        formatBytes(sum.bytes));
  os << "\nlargest tensors:\n";
  for (const WeightInfo &weight :
       llvm::ArrayRef(report.weights)
           .take_front(
               std::min<size_t>(command.largest, report.weights.size())))
    os << llvm::formatv("  {0,-48} {1,-18} {2,-30} {3,10}\n", weight.name,
                        weight.shape, weight.storage,
                        formatBytes(weight.bytes));
}

static void printMemory(const InspectCommand &command,
                        const ModelReport &report, llvm::raw_ostream &os) {
  uint64_t memory = countMemory(report, command.context);
  os << "\nmemory to run it: " << formatBytes(memory) << " = 1.2 x (weights "
     << formatBytes(report.weightBytes);
  if (report.cacheBytesPerToken)
    os << " + key-value cache "
       << formatBytes(*report.cacheBytesPerToken * command.context) << " for "
       << command.context << " tokens";
  os << ")\n";
  if (!report.cacheBytesPerToken)
    os << "  (the model has no inputs for past keys and values)\n";
  for (const Device &device : devices)
    os << "  "
       << (memory <= device.gibibytes << 30 ? "fits      " : "too large ")
       << device.name << "\n";
}

/// Nodes that Nibble itself cannot run, by op type; std::nullopt where local
/// functions cannot be put in their places.
static std::optional<std::map<std::string, std::vector<std::string>>>
findUnsupported(ModuleOp module) {
  PassManager passes(module.getContext());
  passes.addPass(onnx::createOnnxInlineFunctions());
  if (failed(passes.run(module)))
    return std::nullopt;
  std::map<std::string, std::vector<std::string>> nodes;
  for (onnx::NodeOp node : findUnsupportedNodes(module)) {
    StringRef domain = node.getDomain().value_or("");
    std::string type =
        (domain.empty() ? "" : domain + ".").str() + node.getOpType().str();
    nodes[type].push_back(node.getDisplayName());
  }
  return nodes;
}

static void
printUnsupported(const std::map<std::string, std::vector<std::string>> &nodes,
                 llvm::raw_ostream &os) {
  if (nodes.empty()) {
    os << "\nnative code: every op has a conversion\n";
    return;
  }
  os << "\nnative code: these have no conversion; other runtimes may run "
        "them\n";
  for (const auto &[type, names] : nodes) {
    os << "  " << type << " " << names.size() << ": ";
    llvm::interleaveComma(names, os,
                          [&](StringRef name) { os << "'" << name << "'"; });
    os << "\n";
  }
}

static llvm::json::Object
makeJSON(const std::map<std::string, std::vector<std::string>> &nodes) {
  llvm::json::Object object;
  for (const auto &[type, names] : nodes)
    object[type] = llvm::json::Array(names);
  return object;
}

int nibble::inspect(const InspectCommand &command) {
  Session session;
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  ModelReport report = describeModel(*module);
  uint64_t fileSize = getFileSize(command.input, *module);
  auto unsupported = findUnsupported(*module);
  if (command.json) {
    llvm::json::Object object = toJSON(report);
    object["file"] = command.input;
    object["file_bytes"] = fileSize;
    object["memory_bytes"] = countMemory(report, command.context);
    object["context"] = command.context;
    if (unsupported)
      object["unsupported"] = makeJSON(*unsupported);
    llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
                 << "\n";
    return ExitSuccess;
  }
  printHeader(command, fileSize, report, llvm::outs());
  printOps(report, llvm::outs());
  printWeights(command, report, llvm::outs());
  printMemory(command, report, llvm::outs());
  if (unsupported)
    printUnsupported(*unsupported, llvm::outs());
  return ExitSuccess;
}
