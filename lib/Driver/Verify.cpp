//===- Verify.cpp - Is the file what was meant? ---------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Verify.h"

#include "Session.h"

#include "nibble/Dialect/Onnx/IR/TensorData.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"

using namespace mlir;
using namespace nibble;
using namespace nibble::onnx;

//===----------------------------------------------------------------------===//
// Comparison
//===----------------------------------------------------------------------===//

static bool isSameData(Attribute a, Attribute b) {
  if (a == b)
    return true;
  std::optional<TensorBytes> left = getTensorBytes(a),
                             right = getTensorBytes(b);
  if (!left || !right || left->bytes != right->bytes)
    return false;
  // Both have been read; they need not stay in memory.
  if (left->mapped)
    dropPages(left->bytes);
  if (right->mapped)
    dropPages(right->bytes);
  return true;
}

static bool isSameAttribute(Attribute a, Attribute b) {
  auto left = dyn_cast<NodeAttributeAttr>(a),
       right = dyn_cast<NodeAttributeAttr>(b);
  if (!left || !right)
    return a == b;
  auto leftTensor = dyn_cast<TensorAttr>(left.getValue());
  auto rightTensor = dyn_cast<TensorAttr>(right.getValue());
  if (!leftTensor || !rightTensor)
    return a == b;
  return left.getName() == right.getName() &&
         isSameData(leftTensor.getValue(), rightTensor.getValue());
}

static bool isSameNode(NodeOp a, NodeOp b) {
  if (a.getOpType() != b.getOpType() ||
      a.getDomain().value_or("") != b.getDomain().value_or("") ||
      a.getOutputs() != b.getOutputs() ||
      a.getInputs().size() != b.getInputs().size() ||
      a.getNodeAttributes().size() != b.getNodeAttributes().size())
    return false;
  for (auto [left, right] :
       llvm::zip(a.getNodeAttributes(), b.getNodeAttributes()))
    if (!isSameAttribute(left, right))
      return false;
  return true;
}

/// The constants and nodes of a graph and of those inside it, each kind in
/// order: a file has the constants of a graph before its nodes.
static void collect(Block &block, SmallVectorImpl<ConstantOp> &constants,
                    SmallVectorImpl<NodeOp> &nodes) {
  llvm::append_range(constants, block.getOps<ConstantOp>());
  for (auto node : block.getOps<NodeOp>()) {
    nodes.push_back(node);
    for (Region &subgraph : node.getSubgraphs())
      collect(subgraph.front(), constants, nodes);
  }
}

static void collect(ModuleOp module, SmallVectorImpl<ConstantOp> &constants,
                    SmallVectorImpl<NodeOp> &nodes) {
  for (auto func : module.getOps<func::FuncOp>())
    if (!func.isExternal())
      collect(func.getBody().front(), constants, nodes);
}

std::optional<std::string> nibble::findDifference(ModuleOp a, ModuleOp b) {
  SmallVector<ConstantOp> constantsA, constantsB;
  SmallVector<NodeOp> nodesA, nodesB;
  collect(a, constantsA, nodesA);
  collect(b, constantsB, nodesB);
  if (constantsA.size() != constantsB.size())
    return "the number of initializers";
  if (nodesA.size() != nodesB.size())
    return "the number of nodes";
  for (auto [left, right] : llvm::zip(constantsA, constantsB))
    if (left.getName() != right.getName() ||
        left.getType() != right.getType() ||
        !isSameData(left.getValue(), right.getValue()))
      return ("initializer '" + left.getName() + "'").str();
  for (auto [left, right] : llvm::zip(nodesA, nodesB))
    if (!isSameNode(left, right))
      return "node '" + left.getDisplayName() + "'";
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// ONNX Runtime
//===----------------------------------------------------------------------===//

// Exit codes of the script: 0 ran, 10 no ONNX Runtime, 11 does not load, 12
// does not run.
static constexpr const char *runScript = R"python(
import sys
try:
    import numpy as np, onnxruntime as ort
except ImportError as error:
    print(error); sys.exit(10)
options = ort.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
try:
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
except Exception as error:
    print(error); sys.exit(11)
kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
         "tensor(bool)": np.bool_}
feeds = {}
for value in session.get_inputs():
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in value.shape]
    kind = kinds.get(value.type) or np.dtype(value.type[7:-1])
    feeds[value.name] = np.ones(shape, kind)
try:
    session.run(None, feeds)
except Exception as error:
    print(error); sys.exit(12)
)python";

namespace {
struct ScriptResult {
  int exitCode;
  std::string output;
};
} // namespace

static std::optional<ScriptResult> runInPython(StringRef path) {
  std::optional<std::string> python = findPython();
  if (!python)
    return std::nullopt;
  SmallString<128> outputPath;
  if (llvm::sys::fs::createTemporaryFile("nibble", "log", outputPath))
    return std::nullopt;
  llvm::scope_exit remove([&] { (void)llvm::sys::fs::remove(outputPath); });
  std::optional<StringRef> redirects[] = {StringRef(""), StringRef(outputPath),
                                          StringRef(outputPath)};
  int exitCode = llvm::sys::ExecuteAndWait(
      *python, {*python, "-c", runScript, path}, std::nullopt, redirects,
      /*SecondsToWait=*/600);
  ScriptResult result{exitCode, ""};
  if (auto buffer = llvm::MemoryBuffer::getFile(outputPath))
    result.output = (*buffer)->getBuffer().trim().str();
  return result;
}

RuntimeCheck nibble::checkInRuntime(StringRef path, StringRef original) {
  std::optional<ScriptResult> result = runInPython(path);
  if (!result || result->exitCode == 10 || result->exitCode == -1)
    return {RuntimeCheck::Skipped, "ONNX Runtime is not installed for Python"};
  if (result->exitCode == 0)
    return {RuntimeCheck::Passed, ""};
  if (result->exitCode == 12) {
    std::optional<ScriptResult> before = runInPython(original);
    if (before && before->exitCode == 12)
      return {RuntimeCheck::LoadedOnly,
              "neither it nor the original runs on made-up inputs"};
  }
  // A runtime that cannot load the original says nothing of the new file.
  if (result->exitCode == 11) {
    std::optional<ScriptResult> before = runInPython(original);
    if (before && before->exitCode == 11)
      return {RuntimeCheck::Skipped,
              "ONNX Runtime does not load the original either"};
  }
  return {RuntimeCheck::Failed, result->output};
}
