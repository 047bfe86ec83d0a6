//===- nibble-simulate.cpp - Run GPU kernels on this machine --------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// A tool for the tests, and for a look at what a kernel does. It takes the LLVM
// IR that `nibble kernels --emit llvm` writes, and a file that says what to
// launch:
//
//   {"launches": [{
//     "kernel": "w4g128_n32x1_m8_k8_s4",
//     "grid": [4, 1, 1], "block": [256, 1, 1], "shared_bytes": 32768,
//     "arguments": [{"input": "x.bin"}, {"output": "y.bin"}, {"i32": 576}]}]}
//
// Files lie beside it and hold the bytes of a buffer. An output is read first
// and written after the launch. {"output": "y.bin", "offset": 64} points into a
// buffer, of which several arguments may be parts; {"i64": …} is a number too.
//
//===----------------------------------------------------------------------===//

#include "nibble/Support/OutputFile.h"
#include "nibble/Target/NVVM/Simulator.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IRReader/IRReader.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SourceMgr.h"

using namespace nibble;
using llvm::Error;
using llvm::Expected;
namespace cl = llvm::cl;
namespace json = llvm::json;

static cl::OptionCategory category("nibble-simulate options");
static cl::opt<std::string> input(cl::Positional, cl::Required,
                                  cl::cat(category), cl::desc("<kernels.ll>"));
static cl::opt<std::string> launches(cl::Positional, cl::Required,
                                     cl::cat(category),
                                     cl::desc("<launches.json>"));
static cl::opt<bool>
    check("check", cl::cat(category),
          cl::desc("Check every access to memory: bounds, alignment, races"));
static cl::opt<bool> costs(
    "costs", cl::cat(category),
    cl::desc("Print what each instruction asks of memory (with --check)"));
static cl::opt<unsigned> schedules(
    "schedules", cl::init(1), cl::cat(category), cl::value_desc("number"),
    cl::desc("Run each launch so often, with threads, blocks and copies in "
             "other orders, and compare the bits of the results"));
static cl::opt<uint64_t>
    stepLimit("step-limit", cl::init(KernelLaunch().stepLimit),
              cl::cat(category), cl::value_desc("rounds"),
              cl::desc("Rounds of loops after which a block is given up"));

static Error makeError(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

//===----------------------------------------------------------------------===//
// Buffers
//===----------------------------------------------------------------------===//

namespace {
/// A buffer as it was in its file, and where a launch works on it.
struct FileBuffer {
  std::string name, path;
  bool isOutput = false;
  std::unique_ptr<llvm::MemoryBuffer> initial;
  std::unique_ptr<llvm::WritableMemoryBuffer> memory;

  llvm::MutableArrayRef<uint8_t> bytes() {
    return {reinterpret_cast<uint8_t *>(memory->getBufferStart()),
            memory->getBufferSize()};
  }
  llvm::StringRef text() const {
    return {memory->getBufferStart(), memory->getBufferSize()};
  }
  void reset() { llvm::copy(initial->getBuffer(), memory->getBufferStart()); }
};
} // namespace

static Expected<FileBuffer> readBuffer(std::string path, bool isOutput) {
  FileBuffer buffer;
  auto file = llvm::MemoryBuffer::getFile(path, /*IsText=*/false,
                                          /*RequiresNullTerminator=*/false);
  if (!file)
    return makeError("cannot read '" + path +
                     "': " + file.getError().message());
  buffer.path = std::move(path);
  buffer.isOutput = isOutput;
  buffer.initial = std::move(*file);
  // As aligned as what cuMemAlloc gives.
  buffer.memory = llvm::WritableMemoryBuffer::getNewUninitMemBuffer(
      buffer.initial->getBufferSize(), buffer.path, llvm::Align(256));
  if (!buffer.memory)
    return makeError("no memory for '" + buffer.path + "'");
  return buffer;
}

static Error writeBuffer(FileBuffer &buffer) {
  auto file = OutputFile::create(buffer.path);
  if (!file)
    return file.takeError();
  (*file)->getStream() << buffer.text();
  return (*file)->commit();
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

namespace {
struct Argument {
  std::string file;
  bool isOutput = false;
  int64_t offset = 0;
  int64_t number = 0;
};

struct LaunchEntry {
  std::string kernel;
  std::vector<uint32_t> grid, block;
  uint32_t sharedBytes = 0;
  std::vector<Argument> arguments;
};

// Found by the namespace of their arguments.
bool fromJSON(const json::Value &value, Argument &argument, json::Path path) {
  json::ObjectMapper map(value, path);
  if (!map)
    return false;
  const json::Object &object = *value.getAsObject();
  argument.isOutput = object.get("output");
  if (argument.isOutput || object.get("input"))
    return (argument.isOutput ? map.map("output", argument.file)
                              : map.map("input", argument.file)) &&
           map.mapOptional("offset", argument.offset);
  if (object.get("i64"))
    return map.map("i64", argument.number);
  int32_t number = 0;
  bool isNumber = map.map("i32", number);
  argument.number = uint32_t(number);
  return isNumber;
}

bool fromJSON(const json::Value &value, LaunchEntry &entry, json::Path path) {
  json::ObjectMapper map(value, path);
  if (!map || !map.map("kernel", entry.kernel) ||
      !map.map("grid", entry.grid) || !map.map("block", entry.block) ||
      !map.map("shared_bytes", entry.sharedBytes) ||
      !map.map("arguments", entry.arguments))
    return false;
  constexpr size_t dimensions = 3;
  if (entry.grid.size() == dimensions && entry.block.size() == dimensions)
    return true;
  path.report("a grid and a block have three sizes");
  return false;
}
} // namespace

static Expected<std::vector<LaunchEntry>> readLaunches() {
  auto file = llvm::MemoryBuffer::getFile(launches);
  if (!file)
    return makeError("cannot read '" + launches +
                     "': " + file.getError().message());
  auto value = json::parse((*file)->getBuffer());
  if (!value)
    return makeError(launches + ": " + llvm::toString(value.takeError()));
  std::vector<LaunchEntry> entries;
  json::Path::Root root(launches);
  json::ObjectMapper map(*value, root);
  if (!map || !map.map("launches", entries))
    return root.getError();
  return entries;
}

/// Lists what is wrong; returns whether nothing is.
static bool printFindings(const LaunchEntry &entry,
                          const SimulationReport &report) {
  for (const Finding &finding : report.findings)
    llvm::outs() << llvm::formatv(
        "{0}: {1}\n  at {2}\n  {3}; {4} times\n", entry.kernel, finding.what,
        finding.instruction, finding.details, finding.count);
  return report.isClean();
}

/// Lists requests, bytes, and rounds of shared memory or sectors of global
/// memory beside how few would do.
static void printCosts(const SimulationReport &report) {
  for (const AccessCost &cost : report.costs)
    llvm::outs() << llvm::formatv(
        "{0}: {1} requests, {2} bytes, {3} {4}, {5} would do: {6}\n",
        cost.isShared ? "shared" : "global", cost.requests, cost.bytes,
        cost.rounds, cost.isShared ? "rounds" : "sectors", cost.leastRounds,
        cost.instruction);
}

static FileBuffer *findBuffer(std::vector<FileBuffer> &buffers,
                              llvm::StringRef name) {
  for (FileBuffer &buffer : buffers)
    if (buffer.name == name)
      return &buffer;
  return nullptr;
}

static KernelLaunch makeLaunch(const LaunchEntry &entry,
                               std::vector<FileBuffer> &buffers) {
  KernelLaunch launch;
  launch.kernel = entry.kernel;
  launch.grid = {entry.grid[0], entry.grid[1], entry.grid[2]};
  launch.block = {entry.block[0], entry.block[1], entry.block[2]};
  launch.sharedBytes = entry.sharedBytes;
  launch.stepLimit = stepLimit;
  for (const Argument &argument : entry.arguments) {
    if (argument.file.empty()) {
      launch.arguments.push_back(argument.number);
      continue;
    }
    FileBuffer &buffer = *findBuffer(buffers, argument.file);
    launch.arguments.push_back(
        reinterpret_cast<uint64_t>(buffer.bytes().data()) + argument.offset);
  }
  for (FileBuffer &buffer : buffers)
    launch.buffers.push_back({buffer.name, buffer.bytes()});
  return launch;
}

/// Of all outputs, one after the other.
static std::string concatenate(std::vector<FileBuffer> &buffers) {
  std::string bytes;
  for (FileBuffer &buffer : buffers)
    if (buffer.isOutput)
      bytes += buffer.text();
  return bytes;
}

/// Runs a launch under each schedule; returns whether nothing was wrong.
static Expected<bool> run(SimulatedProgram &program, const LaunchEntry &entry) {
  std::vector<FileBuffer> buffers;
  llvm::StringRef folder = llvm::sys::path::parent_path(launches);
  for (const Argument &argument : entry.arguments) {
    if (argument.file.empty())
      continue;
    if (FileBuffer *known = findBuffer(buffers, argument.file)) {
      known->isOutput |= argument.isOutput;
      continue;
    }
    llvm::SmallString<128> path(folder);
    llvm::sys::path::append(path, argument.file);
    auto buffer = readBuffer(path.str().str(), argument.isOutput);
    if (!buffer)
      return buffer.takeError();
    buffer->name = argument.file;
    buffers.push_back(std::move(*buffer));
  }
  KernelLaunch launch = makeLaunch(entry, buffers);
  std::string first;
  for (unsigned seed = 0; seed < schedules; ++seed) {
    for (FileBuffer &buffer : buffers)
      buffer.reset();
    launch.schedule = {seed, /*lateCopies=*/seed % 2 == 0};
    auto report = program.launch(launch);
    if (!report)
      return report.takeError();
    if (costs)
      printCosts(*report);
    if (!printFindings(entry, *report))
      return false;
    std::string results = concatenate(buffers);
    if (seed == 0) {
      first = std::move(results);
    } else if (results != first) {
      llvm::outs() << llvm::formatv(
          "{0}: other results under schedule {1} than under 0\n", entry.kernel,
          seed);
      return false;
    }
  }
  for (FileBuffer &buffer : buffers)
    if (buffer.isOutput)
      if (Error error = writeBuffer(buffer))
        return error;
  return true;
}

static Expected<bool> runAll() {
  auto context = std::make_unique<llvm::LLVMContext>();
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseIRFile(input, diagnostic, *context);
  if (!module)
    return makeError(llvm::formatv("{0}:{1}: {2}", input,
                                   diagnostic.getLineNo(),
                                   diagnostic.getMessage()));
  auto program =
      SimulatedProgram::load(std::move(module), std::move(context), check);
  if (!program)
    return makeError(input + ": " + llvm::toString(program.takeError()));
  auto entries = readLaunches();
  if (!entries)
    return entries.takeError();
  bool isRight = true;
  for (const LaunchEntry &entry : *entries) {
    auto result = run(**program, entry);
    if (!result)
      return result;
    isRight &= *result;
  }
  return isRight;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv,
      "Runs GPU kernels on this machine\n\n"
      "  nibble kernels -o kernels --emit llvm\n"
      "  nibble-simulate kernels/w4g128_n32x1_m8_k8_s4.ll launches.json "
      "--check\n");
  auto isRight = runAll();
  if (isRight)
    return !*isRight;
  llvm::errs() << "error: " << llvm::toString(isRight.takeError()) << "\n";
  return 1;
}
