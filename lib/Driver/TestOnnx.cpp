//===- TestOnnx.cpp - nibble test-onnx ------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Cases run in worker processes. A worker takes the number of a case from its
// socket, runs it and answers in lines of JSON: first the op, then the outcome.
// What it prints goes to a file that the parent reads, so that a reason is
// known after a crash too. An alarm ends a worker whose case takes too long.
//
//===----------------------------------------------------------------------===//

#include "Session.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"
#include "nibble/Tools/RunModel.h"

#include "nibble/Dialect/Onnx/IR/OnnxDialect.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/ADT/ScopeExit.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"

#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <map>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

static std::string join(StringRef folder, const Twine &name) {
  SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  return path.str().str();
}

//===----------------------------------------------------------------------===//
// Cases
//===----------------------------------------------------------------------===//

static bool isCase(StringRef folder) {
  return llvm::sys::fs::exists(join(folder, "model.onnx"));
}

/// The cases that `folder` is or holds, by name.
static Expected<std::vector<std::string>> findCases(StringRef folder) {
  if (isCase(folder))
    return std::vector<std::string>{folder.str()};
  std::vector<std::string> cases;
  std::error_code error;
  for (llvm::sys::fs::directory_iterator entry(folder, error), end;
       entry != end && !error; entry.increment(error))
    if (isCase(entry->path()))
      cases.push_back(entry->path());
  if (error)
    return makeError("cannot read the folder '" + folder +
                     "': " + error.message());
  if (cases.empty())
    return makeError("'" + folder +
                     "' has no model.onnx, nor has any folder in it");
  llvm::sort(cases);
  return cases;
}

namespace {
/// How much an output may differ: by atol + rtol × |expected|.
struct Tolerance {
  double rtol = 1e-3;
  double atol = 1e-7;
};
} // namespace

/// The tolerance that the case's `tol.json` states, or ONNX's default.
static Expected<Tolerance> readTolerance(StringRef folder) {
  Tolerance tolerance;
  std::string path = join(folder, "tol.json");
  if (!llvm::sys::fs::exists(path))
    return tolerance;
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer)
    return makeError("cannot read '" + path +
                     "': " + buffer.getError().message());
  auto value = llvm::json::parse((*buffer)->getBuffer());
  if (!value)
    return makeError("'" + path + "': " + llvm::toString(value.takeError()));
  const llvm::json::Object *object = value->getAsObject();
  if (!object)
    return makeError("'" + path + "' holds no object");
  tolerance.rtol = object->getNumber("rtol").value_or(tolerance.rtol);
  tolerance.atol = object->getNumber("atol").value_or(tolerance.atol);
  return tolerance;
}

//===----------------------------------------------------------------------===//
// Comparison
//===----------------------------------------------------------------------===//

/// Element `index` of a tensor of numbers. (Integers beyond 2^53 are rounded,
/// as NumPy does before it compares with a tolerance.)
static double getNumber(const HostTensor &tensor, int64_t index) {
  Type type = tensor.elementType;
  unsigned bits = type.getIntOrFloatBitWidth(), size = (bits + 7) / 8;
  uint64_t code = 0;
  std::memcpy(&code, tensor.bytes.data() + index * size, size);
  if (auto floatType = dyn_cast<FloatType>(type)) {
    llvm::APFloat number(floatType.getFloatSemantics(),
                         llvm::APInt(bits, code, /*isSigned=*/false,
                                     /*implicitTrunc=*/true));
    bool losesInfo;
    number.convert(llvm::APFloat::IEEEdouble(),
                   llvm::APFloat::rmNearestTiesToEven, &losesInfo);
    return number.convertToDouble();
  }
  llvm::APInt integer(8 * size, code);
  bool isUnsigned = type.isUnsignedInteger() || bits == 1;
  return isUnsigned ? integer.roundToDouble(false)
                    : integer.roundToDouble(true);
}

static std::string describe(const HostTensor &tensor) {
  std::string text;
  llvm::raw_string_ostream os(text);
  os << tensor.elementType << "[";
  llvm::interleaveComma(tensor.shape, os);
  os << "]";
  return text;
}

/// Empty, or how `actual` differs from `expected`: numpy.testing's
/// assert_allclose with equal types and shapes, as onnx.backend.test.runner
/// compares.
static std::string findDifference(const HostTensor &actual,
                                  const HostTensor &expected,
                                  Tolerance tolerance) {
  if (actual.elementType != expected.elementType ||
      actual.shape != expected.shape)
    return "is " + describe(actual) + ", not " + describe(expected);
  // The runner allows two units in the last place of a bf16.
  if (actual.elementType.isBF16())
    tolerance.rtol = std::max(tolerance.rtol, std::ldexp(1.0, -6));
  int64_t count = 1, different = 0;
  for (int64_t size : actual.shape)
    count *= size;
  std::string first;
  for (int64_t i = 0; i < count; ++i) {
    double a = getNumber(actual, i), e = getNumber(expected, i);
    if (a == e || (std::isnan(a) && std::isnan(e)) ||
        (std::isfinite(e) &&
         std::abs(a - e) <= tolerance.atol + tolerance.rtol * std::abs(e)))
      continue;
    if (different++ == 0)
      llvm::raw_string_ostream(first)
          << "element " << i << " is " << llvm::format("%.9g", a) << ", not "
          << llvm::format("%.9g", e);
  }
  if (different == 0)
    return "";
  return llvm::formatv("differs in {0} of {1} elements: {2}", different, count,
                       first)
      .str();
}

//===----------------------------------------------------------------------===//
// One case
//===----------------------------------------------------------------------===//

/// How a case's model becomes code.
static FailureOr<std::unique_ptr<CompiledModel>>
compileModel(ModuleOp module, const TestOnnxCommand &command) {
  CompileOptions options;
  options.reference = command.reference;
  // As exact as the tolerances of the cases want it.
  options.compute = "f32";
  return CompiledModel::compile(module, options);
}

/// The op type of a model with one node.
static std::string getOpName(ModuleOp module) {
  auto main = module.lookupSymbol<func::FuncOp>("main");
  if (!main || main.isExternal())
    return "(no graph)";
  auto nodes = main.getBody().front().getOps<onnx::NodeOp>();
  if (nodes.empty())
    return "(no node)";
  if (std::next(nodes.begin()) != nodes.end())
    return "(several nodes)";
  onnx::NodeOp node = *nodes.begin();
  StringRef domain = node.getDomain().value_or("");
  return (domain.empty() ? "" : domain.str() + ".") + node.getOpType().str();
}

/// Runs one data set; an error says what is wrong.
static Error runDataSet(const CompiledModel &model, StringRef folder,
                        Tolerance tolerance, MLIRContext *context) {
  std::vector<HostTensor> inputs;
  for (size_t i = 0; i < model.getInputTypes().size(); ++i) {
    auto input =
        readHostTensor(join(folder, "input_" + Twine(i) + ".pb"), context);
    if (!input)
      return input.takeError();
    inputs.push_back(std::move(*input));
  }
  auto outputs = model.run(inputs);
  if (!outputs)
    return outputs.takeError();
  for (auto [i, actual] : llvm::enumerate(*outputs)) {
    auto expected =
        readHostTensor(join(folder, "output_" + Twine(i) + ".pb"), context);
    if (!expected)
      return expected.takeError();
    std::string difference = findDifference(actual, *expected, tolerance);
    if (!difference.empty())
      return makeError("output " + Twine(i) + " " + difference);
  }
  return Error::success();
}

/// Runs the case in `folder`. What is wrong is printed.
static LogicalResult runCase(StringRef folder, const TestOnnxCommand &command,
                             llvm::function_ref<void(StringRef)> onOpName) {
  DialectRegistry registry;
  registerNibbleDialects(registry);
  registerReferenceDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  printDiagnostics(context);
  auto module = loadModel(join(folder, "model.onnx"), &context);
  if (!module)
    return failure();
  onOpName(getOpName(*module));
  auto tolerance = readTolerance(folder);
  if (!tolerance)
    return failure(fail(llvm::toString(tolerance.takeError())));
  auto model = compileModel(*module, command);
  if (failed(model))
    return failure();
  for (unsigned set = 0;; ++set) {
    std::string data = join(folder, "test_data_set_" + Twine(set));
    if (!llvm::sys::fs::is_directory(data))
      return set ? success()
                 : failure(fail("'" + folder + "' has no test_data_set_0"));
    if (Error error = runDataSet(**model, data, *tolerance, &context))
      return failure(fail(llvm::toString(std::move(error))));
  }
}

//===----------------------------------------------------------------------===//
// Workers
//===----------------------------------------------------------------------===//

namespace {
enum class Outcome { Passed, Failed, Crashed, TimedOut };

struct CaseResult {
  std::string op = "(unreadable)";
  Outcome outcome = Outcome::Failed;
  /// One line, empty where the case passed.
  std::string reason;
  double seconds = 0;
};
} // namespace

static StringRef toString(Outcome outcome) {
  switch (outcome) {
  case Outcome::Passed:
    return "passed";
  case Outcome::Failed:
    return "failed";
  case Outcome::Crashed:
    return "crashed";
  case Outcome::TimedOut:
    return "timed out";
  }
  return "";
}

static bool writeAll(int file, StringRef bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR)
      continue;
    if (written <= 0)
      return false;
    bytes = bytes.drop_front(written);
  }
  return true;
}

static bool sendLine(int socket, llvm::json::Object object) {
  std::string line =
      llvm::formatv("{0}\n", llvm::json::Value(std::move(object))).str();
  return writeAll(socket, line);
}

/// The life of a worker: runs the cases whose numbers come from `socket`.
[[noreturn]] static void work(int socket, int log, ArrayRef<std::string> cases,
                              const TestOnnxCommand &command) {
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  // A check that fails in a model prints and aborts.
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  uint32_t number;
  while (::read(socket, &number, sizeof(number)) == sizeof(number)) {
    ::alarm(command.timeout);
    LogicalResult result = runCase(cases[number], command, [&](StringRef op) {
      sendLine(socket, llvm::json::Object{{"op", op}});
    });
    ::alarm(0);
    if (!sendLine(socket, llvm::json::Object{{"passed", succeeded(result)}}))
      break;
  }
  ::_exit(0);
}

namespace {
/// A worker process, seen from the parent.
class Worker {
public:
  Worker(ArrayRef<std::string> cases, const TestOnnxCommand &command)
      : cases(cases), command(command) {}
  ~Worker() { stop(); }
  Worker(const Worker &) = delete;

  bool isIdle() const { return current < 0; }
  int getSocket() const { return socket; }
  size_t getCase() const { return static_cast<size_t>(current); }
  /// Gives the worker a case; starts its process where there is none.
  Error begin(size_t number);
  /// Reads what the worker says. True where its case has come to an end.
  bool receive(CaseResult &result);

private:
  using Clock = std::chrono::steady_clock;

  Error start();
  void stop();
  /// Takes what the worker has printed since the last call.
  std::string takeLog();
  void endProcess(CaseResult &result);

  ArrayRef<std::string> cases;
  const TestOnnxCommand &command;
  pid_t process = -1;
  int socket = -1, log = -1;
  int64_t current = -1;
  off_t logRead = 0;
  std::string received;
  std::string op;
  Clock::time_point begun;
};
} // namespace

Error Worker::start() {
  std::FILE *file = std::tmpfile();
  int ends[2];
  if (!file || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return makeError(Twine("cannot start a worker: ") + std::strerror(errno));
  log = ::dup(fileno(file));
  std::fclose(file);
  logRead = 0;
  received.clear();
  process = ::fork();
  if (process < 0)
    return makeError(Twine("cannot start a worker: ") + std::strerror(errno));
  if (process == 0) {
    ::close(ends[0]);
    work(ends[1], log, cases, command);
  }
  ::close(ends[1]);
  socket = ends[0];
  return Error::success();
}

void Worker::stop() {
  if (process < 0)
    return;
  ::kill(process, SIGKILL);
  int status;
  ::waitpid(process, &status, 0);
  ::close(socket);
  ::close(log);
  process = -1;
}

Error Worker::begin(size_t number) {
  if (process < 0)
    if (Error error = start())
      return error;
  auto word = static_cast<uint32_t>(number);
  char bytes[sizeof(word)];
  std::memcpy(bytes, &word, sizeof(word));
  current = static_cast<int64_t>(number);
  op.clear();
  begun = Clock::now();
  // A worker that is gone is noticed when it does not answer.
  writeAll(socket, StringRef(bytes, sizeof(bytes)));
  return Error::success();
}

std::string Worker::takeLog() {
  std::string text;
  char buffer[4096];
  ssize_t count;
  while ((count = ::pread(log, buffer, sizeof(buffer), logRead)) > 0) {
    text.append(buffer, static_cast<size_t>(count));
    logRead += count;
  }
  return text;
}

/// The line of `text` that says most: the first error, or the last line.
static std::string findReason(StringRef text) {
  SmallVector<StringRef> lines;
  text.split(lines, '\n', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  for (StringRef line : lines)
    if (line.contains("error: "))
      return line.str();
  return lines.empty() ? "" : lines.back().str();
}

/// The process is gone: why?
void Worker::endProcess(CaseResult &result) {
  int status = 0;
  ::waitpid(process, &status, 0);
  std::string printed = findReason(takeLog());
  ::close(socket);
  ::close(log);
  process = -1;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
    result.outcome = Outcome::TimedOut;
    result.reason =
        llvm::formatv("took longer than {0} s", command.timeout).str();
    return;
  }
  result.outcome = Outcome::Crashed;
  result.reason =
      WIFSIGNALED(status)
          ? llvm::formatv("ended by signal {0} ({1})", WTERMSIG(status),
                          strsignal(WTERMSIG(status)))
                .str()
          : llvm::formatv("ended with exit code {0}", WEXITSTATUS(status))
                .str();
  if (!printed.empty())
    result.reason += ": " + printed;
}

bool Worker::receive(CaseResult &result) {
  char buffer[4096];
  ssize_t count = ::read(socket, buffer, sizeof(buffer));
  if (count < 0 && errno == EINTR)
    return false;
  auto finish = [&] {
    result.op = op.empty() ? "(unreadable)" : op;
    result.seconds =
        std::chrono::duration<double>(Clock::now() - begun).count();
    current = -1;
    return true;
  };
  if (count <= 0) {
    endProcess(result);
    return finish();
  }
  received.append(buffer, static_cast<size_t>(count));
  for (size_t end; (end = received.find('\n')) != std::string::npos;) {
    auto line = llvm::json::parse(StringRef(received).take_front(end));
    received.erase(0, end + 1);
    if (!line) {
      llvm::consumeError(line.takeError());
      continue;
    }
    const llvm::json::Object *object = line->getAsObject();
    if (auto name = object->getString("op")) {
      op = name->str();
    } else if (auto passed = object->getBoolean("passed")) {
      std::string printed = takeLog();
      result.outcome = *passed ? Outcome::Passed : Outcome::Failed;
      if (!*passed)
        result.reason = findReason(printed);
      return finish();
    }
  }
  return false;
}

/// Runs all cases. `onResult` gets each as it ends.
static Error
runCases(ArrayRef<std::string> cases, const TestOnnxCommand &command,
         llvm::function_ref<void(size_t, const CaseResult &)> onResult) {
  size_t jobs = command.jobs
                    ? command.jobs
                    : std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::unique_ptr<Worker>> workers;
  for (size_t i = 0; i < std::min(jobs, cases.size()); ++i)
    workers.push_back(std::make_unique<Worker>(cases, command));
  // A worker that has died must not end this process when it is written to.
  auto previous = std::signal(SIGPIPE, SIG_IGN);
  llvm::scope_exit restore([&] { std::signal(SIGPIPE, previous); });
  size_t next = 0, running = 0;
  while (next < cases.size() || running) {
    std::vector<pollfd> waiting;
    for (auto &worker : workers) {
      if (worker->isIdle() && next < cases.size()) {
        if (Error error = worker->begin(next++))
          return error;
        ++running;
      }
      // A negative number is passed over.
      waiting.push_back(
          {worker->isIdle() ? -1 : worker->getSocket(), POLLIN, 0});
    }
    if (::poll(waiting.data(), waiting.size(), -1) < 0)
      continue;
    for (auto [worker, entry] : llvm::zip(workers, waiting)) {
      if (entry.fd < 0 || entry.revents == 0)
        continue;
      CaseResult result;
      size_t number = worker->getCase();
      if (!worker->receive(result))
        continue;
      --running;
      onResult(number, result);
    }
  }
  return Error::success();
}

//===----------------------------------------------------------------------===//
// What the user sees
//===----------------------------------------------------------------------===//

namespace {
struct Count {
  unsigned passed = 0, total = 0;
};
} // namespace

static void printJSON(ArrayRef<std::string> cases, ArrayRef<CaseResult> results,
                      const std::map<std::string, Count> &ops, Count all,
                      double seconds) {
  llvm::json::Object byOp;
  for (auto &[op, count] : ops)
    byOp[op] =
        llvm::json::Object{{"passed", count.passed}, {"total", count.total}};
  llvm::json::Array list;
  for (auto [folder, result] : llvm::zip(cases, results)) {
    llvm::json::Object entry{{"case", llvm::sys::path::filename(folder)},
                             {"folder", folder},
                             {"op", result.op},
                             {"outcome", toString(result.outcome)},
                             {"seconds", result.seconds}};
    if (!result.reason.empty())
      entry["reason"] = llvm::json::fixUTF8(result.reason);
    list.push_back(std::move(entry));
  }
  llvm::json::Object object{{"passed", all.passed},
                            {"total", all.total},
                            {"seconds", seconds},
                            {"ops", std::move(byOp)},
                            {"cases", std::move(list)}};
  llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
               << "\n";
}

static void printTable(ArrayRef<std::string> cases,
                       ArrayRef<CaseResult> results,
                       const std::map<std::string, Count> &ops, Count all,
                       double seconds, bool verbose) {
  llvm::raw_ostream &os = llvm::outs();
  for (auto &[op, count] : ops)
    os << llvm::formatv("  {0,-36} {1,5} / {2}\n", op, count.passed,
                        count.total);
  if (verbose)
    for (auto [folder, result] : llvm::zip(cases, results))
      if (result.outcome != Outcome::Passed)
        os << toString(result.outcome) << ": "
           << llvm::sys::path::filename(folder) << ": " << result.reason
           << "\n";
  os << llvm::formatv("{0} of {1} cases passed in {2:f1} s\n", all.passed,
                      all.total, seconds);
}

int nibble::testOnnx(const TestOnnxCommand &command) {
  std::vector<std::string> cases;
  for (const std::string &folder : command.folders) {
    auto found = findCases(folder);
    if (!found)
      return fail(llvm::toString(found.takeError()));
    llvm::append_range(cases, *found);
  }
  std::vector<CaseResult> results(cases.size());
  std::map<std::string, Count> ops;
  Count all;
  auto begun = std::chrono::steady_clock::now();
  {
    Progress progress("testing", static_cast<int64_t>(cases.size()),
                      command.json);
    auto onResult = [&](size_t number, const CaseResult &result) {
      progress.begin(llvm::sys::path::filename(cases[number]), 1);
      for (Count *count : {&ops[result.op], &all}) {
        ++count->total;
        count->passed += result.outcome == Outcome::Passed;
      }
      results[number] = result;
    };
    if (Error error = runCases(cases, command, onResult))
      return fail(llvm::toString(std::move(error)));
  }
  double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun)
          .count();
  if (command.json)
    printJSON(cases, results, ops, all, seconds);
  else
    printTable(cases, results, ops, all, seconds, command.verbose);
  return all.passed == all.total ? ExitSuccess : ExitFailure;
}
