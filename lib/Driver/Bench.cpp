//===- Bench.cpp - nibble bench -------------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"
#include "LoadedModel.h"
#include "Machine.h"
#include "Session.h"
#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"
#include "nibble/Dialect/Onnx/Transforms/Passes.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Report/ModelReport.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/raw_ostream.h"

#include <chrono>

using namespace mlir;
using namespace nibble;

namespace {
/// Seconds of a call, in order.
struct Timing {
  std::vector<double> seconds;
  double getMedian() const { return seconds[seconds.size() / 2]; }
  double getP95() const {
    return seconds[std::min(seconds.size() - 1, seconds.size() * 95 / 100)];
  }
};
} // namespace

static llvm::Expected<Timing>
measure(const LoadedModel &model, ArrayRef<NpyArray> inputs, unsigned repeats) {
  using Clock = std::chrono::steady_clock;
  // The first call maps pages and fills caches.
  if (llvm::Error error = model.runOnly(inputs))
    return error;
  Timing timing;
  double total = 0;
  // Without a wish: for two seconds, but five times and at most a thousand.
  auto isEnough = [&](size_t count) {
    return repeats ? count >= repeats
                   : (count >= 5 && total > 2) || count >= 1000;
  };
  while (!isEnough(timing.seconds.size())) {
    Clock::time_point start = Clock::now();
    if (llvm::Error error = model.runOnly(inputs))
      return error;
    std::chrono::duration<double> seconds = Clock::now() - start;
    timing.seconds.push_back(seconds.count());
    total += seconds.count();
  }
  llvm::sort(timing.seconds);
  return timing;
}

//===----------------------------------------------------------------------===//
// What a call computes
//===----------------------------------------------------------------------===//

static int64_t countElements(ArrayRef<int64_t> shape) {
  int64_t count = 1;
  for (int64_t extent : shape)
    count *= extent;
  return count;
}

/// The sizes of a tensor, or std::nullopt where one is unknown.
static std::optional<ArrayRef<int64_t>> getSizes(Value value) {
  auto type = dyn_cast<RankedTensorType>(value.getType());
  if (!type || !type.hasStaticShape())
    return std::nullopt;
  return type.getShape();
}

/// How many products are added up for one element of the result; 0 for nodes
/// that are no products of matrices.
static std::optional<int64_t> getInnerSize(onnx::NodeOp node) {
  bool isConv = node.isOnnx("Conv"), isGemm = node.isOnnx("Gemm");
  if (!isConv && !isGemm && !node.isOnnx("MatMul") &&
      node.getOpType() != "MatMulNBits")
    return 0;
  auto sizes = getSizes(node.getInputs()[isConv ? 1 : 0]);
  if (!sizes || sizes->empty())
    return std::nullopt;
  if (isConv)
    return countElements(sizes->drop_front());
  auto transposed =
      dyn_cast_or_null<IntegerAttr>(node.getAttributeValue("transA"));
  return isGemm && transposed && transposed.getInt() != 0 ? sizes->front()
                                                          : sizes->back();
}

/// Multiplications and additions of the matrix products of a call with these
/// inputs; std::nullopt where a shape depends on values.
static std::optional<double> countOperations(ModuleOp module,
                                             ArrayRef<NpyArray> inputs) {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  if (!main || main.getNumArguments() != inputs.size())
    return std::nullopt;
  SmallVector<Type> types;
  for (auto [argument, input] : llvm::zip(main.getArguments(), inputs)) {
    auto tensor = dyn_cast<RankedTensorType>(argument.getType());
    if (!tensor)
      return std::nullopt;
    argument.setType(
        RankedTensorType::get(input.shape, tensor.getElementType()));
    types.push_back(argument.getType());
  }
  main.setFunctionType(
      FunctionType::get(main.getContext(), types, main.getResultTypes()));
  PassManager passes(module.getContext());
  passes.addPass(onnx::createOnnxInferShapes());
  if (failed(passes.run(module)))
    return std::nullopt;
  double operations = 0;
  bool known = true;
  module.walk([&](onnx::NodeOp node) {
    auto inner = getInnerSize(node);
    if (inner && *inner == 0)
      return;
    auto sizes = getSizes(node.getResult(0));
    if (!inner || !sizes)
      known = false;
    else
      operations += 2.0 * static_cast<double>(*inner) *
                    static_cast<double>(countElements(*sizes));
  });
  return known ? std::optional<double>(operations) : std::nullopt;
}

/// The tokens of a call of a language model: the elements of `input_ids`.
static std::optional<int64_t> countTokens(ArrayRef<NpyArray> inputs) {
  for (const NpyArray &input : inputs)
    if (input.name == "input_ids")
      return countElements(input.shape);
  return std::nullopt;
}

//===----------------------------------------------------------------------===//
// A peer
//===----------------------------------------------------------------------===//

static const char peerScript[] = R"python(
import sys
try:
    import time, numpy as np, onnxruntime as ort
except Exception as error:
    print("not installed for Python"); sys.exit(1)
model, archive, count, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
options = ort.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = threads
try:
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = dict(np.load(archive))
    session.run(None, feeds)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
except Exception as error:
    print("does not run the model: " + str(error).splitlines()[0]); sys.exit(1)
times.sort()
print(times[len(times) // 2], times[min(len(times) - 1, len(times) * 95 // 100)], ort.__version__)
)python";

namespace {
/// Times of ONNX Runtime in seconds, or why there are none.
struct Peer {
  double median = 0, p95 = 0;
  std::string version, whyNot;
};
} // namespace

static Peer notMeasured(const Twine &why) {
  Peer peer;
  peer.whyNot = why.str();
  return peer;
}

/// Runs ONNX Runtime on the same inputs.
static Peer measurePeer(const BenchCommand &command, ArrayRef<NpyArray> inputs,
                        const Timing &own) {
  std::optional<std::string> python = findPython();
  SmallString<128> archive, log;
  if (!python || llvm::sys::fs::createTemporaryFile("nibble", "npz", archive) ||
      llvm::sys::fs::createTemporaryFile("nibble", "log", log))
    return notMeasured("there is no python3");
  llvm::scope_exit remove([&] {
    (void)llvm::sys::fs::remove(archive);
    (void)llvm::sys::fs::remove(log);
  });
  if (llvm::Error error = writeNpz(archive, inputs))
    return notMeasured(llvm::toString(std::move(error)));
  std::string count = std::to_string(own.seconds.size());
  std::string threads = std::to_string(command.threads);
  std::optional<StringRef> redirects[] = {StringRef(""), StringRef(log),
                                          StringRef("")};
  int code = llvm::sys::ExecuteAndWait(
      *python,
      {*python, "-c", peerScript, command.input, archive, count, threads},
      std::nullopt, redirects, /*SecondsToWait=*/600);
  auto buffer = llvm::MemoryBuffer::getFile(log);
  StringRef text = buffer ? (*buffer)->getBuffer().trim() : "";
  auto [median, rest] = text.split(' ');
  auto [p95, version] = rest.split(' ');
  Peer peer;
  if (code != 0 || median.getAsDouble(peer.median) || p95.getAsDouble(peer.p95))
    return notMeasured(text.empty() ? "it failed" : text);
  peer.version = version.str();
  return peer;
}

//===----------------------------------------------------------------------===//
// The machine
//===----------------------------------------------------------------------===//

static void printJSON(llvm::json::Object object) {
  llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
               << "\n";
}

/// Prints what bounds every model on this machine.
static void showMachine(const BenchCommand &command) {
  unsigned threads = command.threads;
  double bandwidth = measureReadBandwidth(threads);
  double multiplyAdd = measureMultiplyAdd(threads);
  double bytes = measureByteProducts(threads);
  if (command.json)
    return printJSON(
        llvm::json::Object{{"threads", threads},
                           {"bytes_read_per_second", bandwidth},
                           {"f32_operations_per_second", multiplyAdd},
                           {"byte_operations_per_second", bytes}});
  llvm::raw_ostream &os = llvm::outs();
  os << llvm::formatv("threads          {0}\n"
                      "memory           {1:f2} GB/s read\n"
                      "f32 multiply-add {2:f1} GOP/s\n",
                      threads, 1e-9 * bandwidth, 1e-9 * multiplyAdd);
  if (bytes > 0)
    os << llvm::formatv("byte products    {0:f1} GOP/s\n", 1e-9 * bytes);
}

//===----------------------------------------------------------------------===//
// What was measured
//===----------------------------------------------------------------------===//

namespace {
struct BenchResult {
  ArrayRef<NpyArray> inputs;
  std::string target;
  Timing timing;
  /// Of a language model, in a call.
  std::optional<int64_t> tokens;
  uint64_t weightBytes = 0;
  /// Of matrix products in a call, where all sizes are known.
  std::optional<double> operations;
  /// What this machine does in a second: bytes read, f32 operations.
  double bandwidth = 0, peak = 0;
  Peer peer;
};
} // namespace

static void printText(const BenchCommand &command, const BenchResult &result) {
  llvm::raw_ostream &os = llvm::outs();
  double median = result.timing.getMedian();
  for (const NpyArray &input : result.inputs)
    os << "input          " << input.name << "  "
       << describeArray(input.kind, input.shape) << "\n";
  os << llvm::formatv("target         {0}, {1} thread(s), {2} calls\n",
                      result.target, command.threads,
                      result.timing.seconds.size());
  os << llvm::formatv("time           {0:f3} ms median, {1:f3} ms p95\n",
                      1e3 * median, 1e3 * result.timing.getP95());
  if (result.tokens)
    os << llvm::formatv("tokens         {0:f1} a second\n",
                        static_cast<double>(*result.tokens) / median);
  double rate = static_cast<double>(result.weightBytes) / median;
  os << llvm::formatv("weights        {0} read at {1:f2} GB/s: {2:P1} of the "
                      "{3:f2} GB/s that this machine reads\n",
                      formatBytes(result.weightBytes), 1e-9 * rate,
                      rate / result.bandwidth, 1e-9 * result.bandwidth);
  if (result.operations) {
    double speed = *result.operations / median;
    os << llvm::formatv("matrix products {0:f3} GOP at {1:f2} GOP/s: {2:P1} of "
                        "the {3:f2} GOP/s of its f32 multiply-add\n",
                        1e-9 * *result.operations, 1e-9 * speed,
                        speed / result.peak, 1e-9 * result.peak);
  }
  if (result.peer.whyNot.empty())
    os << llvm::formatv("ONNX Runtime   {0:f3} ms median, {1:f3} ms p95 "
                        "(version {2}): {3:f2} times ours\n",
                        1e3 * result.peer.median, 1e3 * result.peer.p95,
                        result.peer.version, result.peer.median / median);
  else
    os << "ONNX Runtime   not measured: " << result.peer.whyNot << "\n";
}

static llvm::json::Object makeJSON(const BenchCommand &command,
                                   const BenchResult &result) {
  llvm::json::Object object{{"input", command.input},
                            {"target", result.target},
                            {"threads", command.threads},
                            {"calls", result.timing.seconds.size()},
                            {"median_seconds", result.timing.getMedian()},
                            {"p95_seconds", result.timing.getP95()},
                            {"weight_bytes", result.weightBytes},
                            {"machine_bytes_read_per_second", result.bandwidth},
                            {"machine_f32_operations_per_second", result.peak}};
  if (result.tokens)
    object["tokens"] = *result.tokens;
  if (result.operations)
    object["operations"] = *result.operations;
  llvm::json::Object peer;
  if (result.peer.whyNot.empty())
    peer = llvm::json::Object{{"median_seconds", result.peer.median},
                              {"p95_seconds", result.peer.p95},
                              {"version", result.peer.version}};
  else
    peer["not_measured"] = result.peer.whyNot;
  object["onnxruntime"] = std::move(peer);
  return object;
}

int nibble::bench(const BenchCommand &command) {
  if (command.input.empty()) {
    showMachine(command);
    return ExitSuccess;
  }
  // What the OpenMP runtime reads when the library is loaded.
  ::setenv("OMP_NUM_THREADS", std::to_string(command.threads).c_str(), 1);
  Session session;
  addPipelineDialects(session.getContext());
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  uint64_t weightBytes = describeModel(*module).weightBytes;
  OwningOpRef<ModuleOp> shapes = module->clone();
  CacheOptions cache;
  cache.target = command.target;
  cache.disabled = command.noCache;
  auto prepared = prepareRun(command.input, *module, cache, command.arguments);
  if (!prepared)
    return ExitFailure;
  const auto &[model, inputs] = *prepared;
  auto timing = measure(*model, inputs, command.repeats);
  if (!timing)
    return fail(command.input + ": " + llvm::toString(timing.takeError()));

  BenchResult result;
  result.inputs = inputs;
  result.target = model->getTarget();
  result.timing = std::move(*timing);
  result.tokens = countTokens(inputs);
  result.weightBytes = weightBytes;
  result.operations = countOperations(*shapes, inputs);
  result.bandwidth = measureReadBandwidth(command.threads);
  result.peak = measureMultiplyAdd(command.threads);
  result.peer = measurePeer(command, inputs, result.timing);
  if (command.json)
    printJSON(makeJSON(command, result));
  else
    printText(command, result);
  return ExitSuccess;
}
