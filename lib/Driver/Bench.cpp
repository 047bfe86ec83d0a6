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

/// Prints the times of ONNX Runtime on the same inputs, or why there are none.
static void showPeer(const BenchCommand &command, ArrayRef<NpyArray> inputs,
                     const Timing &own, llvm::raw_ostream &os) {
  os << "ONNX Runtime   ";
  std::optional<std::string> python = findPython();
  SmallString<128> archive, log;
  if (!python || llvm::sys::fs::createTemporaryFile("nibble", "npz", archive) ||
      llvm::sys::fs::createTemporaryFile("nibble", "log", log)) {
    os << "not measured: there is no python3\n";
    return;
  }
  llvm::scope_exit remove([&] {
    (void)llvm::sys::fs::remove(archive);
    (void)llvm::sys::fs::remove(log);
  });
  if (llvm::Error error = writeNpz(archive, inputs)) {
    os << "not measured: " << llvm::toString(std::move(error)) << "\n";
    return;
  }
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
  double middle, high;
  if (code != 0 || median.getAsDouble(middle) || p95.getAsDouble(high)) {
    os << "not measured: " << (text.empty() ? "it failed" : text) << "\n";
    return;
  }
  os << llvm::formatv("{0:f3} ms median, {1:f3} ms p95 (version {2}): "
                      "{3:f2} times ours\n",
                      1e3 * middle, 1e3 * high, version,
                      middle / own.getMedian());
}

//===----------------------------------------------------------------------===//
// The machine
//===----------------------------------------------------------------------===//

/// Prints what bounds every model on this machine.
static void showMachine(unsigned threads, llvm::raw_ostream &os) {
  os << llvm::formatv("threads          {0}\n"
                      "memory           {1:f2} GB/s read\n"
                      "f32 multiply-add {2:f1} GOP/s\n",
                      threads, 1e-9 * measureReadBandwidth(threads),
                      1e-9 * measureMultiplyAdd(threads));
  if (double bytes = measureByteProducts(threads); bytes > 0)
    os << llvm::formatv("byte products    {0:f1} GOP/s\n", 1e-9 * bytes);
}

int nibble::bench(const BenchCommand &command) {
  if (command.input.empty()) {
    showMachine(command.threads, llvm::outs());
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

  llvm::raw_ostream &os = llvm::outs();
  double median = timing->getMedian();
  for (const NpyArray &input : inputs)
    os << "input          " << input.name << "  "
       << describeArray(input.kind, input.shape) << "\n";
  os << llvm::formatv("target         {0}, {1} thread(s), {2} calls\n",
                      model->getTarget(), command.threads,
                      timing->seconds.size());
  os << llvm::formatv("time           {0:f3} ms median, {1:f3} ms p95\n",
                      1e3 * median, 1e3 * timing->getP95());
  if (auto tokens = countTokens(inputs))
    os << llvm::formatv("tokens         {0:f1} a second\n",
                        static_cast<double>(*tokens) / median);
  double bandwidth = measureReadBandwidth(command.threads);
  double rate = static_cast<double>(weightBytes) / median;
  os << llvm::formatv("weights        {0} read at {1:f2} GB/s: {2:P1} of the "
                      "{3:f2} GB/s that this machine reads\n",
                      formatBytes(weightBytes), 1e-9 * rate, rate / bandwidth,
                      1e-9 * bandwidth);
  if (auto operations = countOperations(*shapes, inputs)) {
    double peak = measureMultiplyAdd(command.threads);
    double speed = *operations / median;
    os << llvm::formatv("matrix products {0:f3} GOP at {1:f2} GOP/s: {2:P1} of "
                        "the {3:f2} GOP/s of its f32 multiply-add\n",
                        1e-9 * *operations, 1e-9 * speed, speed / peak,
                        1e-9 * peak);
  }
  showPeer(command, inputs, *timing, os);
  return ExitSuccess;
}
