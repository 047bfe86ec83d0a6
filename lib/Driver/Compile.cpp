//===- Compile.cpp - nibble compile ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Compile.h"

#include "Session.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Pipelines/Cpu.h"
#include "nibble/Pipelines/Gpu.h"
#include "nibble/Pipelines/Reference.h"
#include "nibble/Support/OutputFile.h"
#include "nibble/Support/Progress.h"
#include "nibble/Tools/ModelFile.h"
#include "nibble/Tools/Registration.h"

#include "mlir/Bytecode/BytecodeWriter.h"
#include "mlir/IR/AsmState.h"
#include "mlir/Pass/Pass.h"
#include "mlir/Pass/PassInstrumentation.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Object/ArchiveWriter.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Signals.h"

#include <chrono>

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

void nibble::addPipelineDialects(MLIRContext &context) {
  DialectRegistry registry;
  registerReferenceDialects(registry);
  context.appendDialectRegistry(registry);
}

Expected<CompileTarget> nibble::parseTarget(StringRef name) {
  CompileTarget target;
  const TargetRow *baseline = findTarget("generic");
  target.device = findNvidiaRow(name);
  if (name != "multi" && !target.device) {
    const TargetRow *row = findTarget(name);
    if (!row)
      return makeError("--target " + name + ": no such target; there are " +
                       listTargetNames() + " and multi, and for GPUs " +
                       listNvidiaRows());
    target.rows.push_back(row);
    return target;
  }
  if (!baseline)
    return makeError("--target " + name +
                     ": this machine's architecture has no row");
  for (const TargetRow &row : getTargetRows())
    if (target.device ? &row == baseline : row.triple == baseline->triple)
      target.rows.push_back(&row);
  return target;
}

//===----------------------------------------------------------------------===//
// Files
//===----------------------------------------------------------------------===//

static Error writeArchive(StringRef object, StringRef member,
                          llvm::raw_ostream &os) {
  std::vector<llvm::NewArchiveMember> members;
  members.emplace_back(llvm::MemoryBufferRef(object, member));
  return llvm::writeArchiveToStream(os, members,
                                    llvm::SymtabWritingMode::NormalSymtab,
                                    llvm::object::Archive::K_GNU,
                                    /*Deterministic=*/true, /*Thin=*/false);
}

namespace {
/// Files that get their names together.
class OutputFiles {
public:
  Error write(StringRef path,
              llvm::function_ref<Error(llvm::raw_fd_ostream &)> write) {
    auto file = OutputFile::create(path);
    if (!file)
      return file.takeError();
    if (Error error = write((*file)->getStream()))
      return error;
    if (Error error = (*file)->finish())
      return error;
    files.push_back(std::move(*file));
    return Error::success();
  }
  Error commit() {
    for (auto &file : files)
      if (Error error = file->commit())
        return error;
    return Error::success();
  }

private:
  std::vector<std::unique_ptr<OutputFile>> files;
};
} // namespace

/// Links `object`, the contents of an object file, into `os`.
static Error linkInto(StringRef object, const EmittedModel &model,
                      StringRef output, StringRef triple,
                      llvm::raw_ostream &os) {
  SmallString<128> path;
  int descriptor;
  if (std::error_code error = llvm::sys::fs::createUniqueFile(
          output + ".%%%%%%.o.partial", descriptor, path))
    return makeError("cannot write '" + output + "': " + error.message());
  std::string objectPath = path.str().str(), library = objectPath + ".so";
  for (const std::string &file : {objectPath, library})
    llvm::sys::RemoveFileOnSignal(file);
  {
    llvm::raw_fd_ostream file(descriptor, /*shouldClose=*/true);
    file << object;
  }
  Error error =
      linkSharedLibrary(objectPath, library, llvm::sys::path::filename(output),
                        triple, model.usesOpenMP());
  if (!error) {
    if (auto text = llvm::MemoryBuffer::getFile(library))
      os << (*text)->getBuffer();
    else
      error = makeError("cannot read '" + library +
                        "': " + text.getError().message());
  }
  for (const std::string &file : {objectPath, library}) {
    (void)llvm::sys::fs::remove(file);
    llvm::sys::DontRemoveFileOnSignal(file);
  }
  return error;
}

/// Adds the library and the weights to `files`.
static Error addLibrary(EmittedModel &model, StringRef output,
                        StringRef weights, StringRef triple,
                        OutputFiles &files) {
  llvm::SmallVector<char, 0> object;
  llvm::raw_svector_ostream buffer(object);
  if (Error error = model.writeCode(buffer, /*assembly=*/false))
    return error;
  if (model.hasWeightsFile())
    if (Error error = files.write(weights, [&](llvm::raw_fd_ostream &os) {
          model.writeWeights(os);
          return Error::success();
        }))
      return error;
  return files.write(output, [&](llvm::raw_fd_ostream &os) -> Error {
    StringRef bytes(object.data(), object.size());
    if (output.ends_with(".so"))
      return linkInto(bytes, model, output, triple, os);
    if (output.ends_with(".a"))
      return writeArchive(bytes, (llvm::sys::path::stem(output) + ".o").str(),
                          os);
    os << bytes;
    return Error::success();
  });
}

Error nibble::writeLibrary(EmittedModel &model, StringRef output,
                           StringRef weights) {
  OutputFiles files;
  if (Error error =
          addLibrary(model, output, weights, model.getTriple(), files))
    return error;
  return files.commit();
}

//===----------------------------------------------------------------------===//
// Stages
//===----------------------------------------------------------------------===//

namespace {
/// Takes the IR at a stage of the pipeline out of it.
class StagePrinter : public PassInstrumentation {
public:
  StagePrinter(StringRef stage, OwningOpRef<ModuleOp> &result)
      : stage(stage), result(result) {}

  void runBeforePass(Pass *pass, Operation *op) override {
    StringRef name = pass->getArgument();
    if ((stage == "nibble" && name.starts_with("lower-nibble-to-")) ||
        (stage == "loops" && name == "convert-scf-to-cf"))
      take(op);
  }
  void runAfterPass(Pass *pass, Operation *op) override {
    if (stage == "linalg" && pass->getArgument() == "convert-onnx-to-linalg")
      take(op);
  }

private:
  void take(Operation *op) {
    auto module = dyn_cast<ModuleOp>(op);
    if (module && !result)
      result = module.clone();
  }

  StringRef stage;
  OwningOpRef<ModuleOp> &result;
};
} // namespace

/// Weights are named, not printed.
static void printStage(ModuleOp module, llvm::raw_ostream &os) {
  OpPrintingFlags flags;
  flags.elideLargeElementsAttrs(64).elideLargeResourceString(64);
  AsmState state(module, flags);
  std::string text;
  llvm::raw_string_ostream stream(text);
  module.print(stream, state);
  // Where all resources are left out, an empty dictionary of them is printed.
  StringRef rest(text);
  if (rest.consume_back("{-#\n\n#-}\n"))
    rest = rest.drop_back();
  os << rest << "\n";
}

static LogicalResult runToStage(ModuleOp module, const CompileCommand &command,
                                const TargetRow &row,
                                OwningOpRef<ModuleOp> &result) {
  CpuOptions options;
  options.target = row.name.str();
  options.compute = command.compute;
  StringRef stage = command.emit;
  PassManager passes(module.getContext());
  passes.addInstrumentation(std::make_unique<StagePrinter>(stage, result));
  if (command.updateCaches)
    buildShapesPipeline(passes, /*updateCaches=*/true);
  buildCpuTensorPipeline(passes, options);
  if (stage == "loops" || stage == "llvm")
    buildCpuLoopPipeline(passes, options);
  return passes.run(module);
}

/// The same for a GPU; the last stage has the host's code, which launches, and
/// the kernels.
static LogicalResult runToStage(ModuleOp module, const CompileCommand &command,
                                const NvidiaRow &device,
                                OwningOpRef<ModuleOp> &result) {
  GpuOptions options;
  options.target = device.name.str();
  options.tensorCores = command.compute != "f32";
  PassManager passes(module.getContext());
  passes.addInstrumentation(
      std::make_unique<StagePrinter>(command.emit, result));
  buildGpuTensorPipeline(passes, options);
  if (command.emit == "loops")
    buildGpuLaunchPipeline(passes, options);
  if (failed(passes.run(module)))
    return failure();
  if (!result)
    result = module.clone();
  return success();
}

static int printIR(const CompileCommand &command, ModuleOp module,
                   const CompileTarget &target) {
  OwningOpRef<ModuleOp> stage;
  if (command.emit != "onnx" &&
      failed(target.device
                 ? runToStage(module, command, *target.device, stage)
                 : runToStage(module, command, *target.rows.back(), stage)))
    return ExitFailure;
  OutputFiles files;
  Error error =
      files.write(command.output, [&](llvm::raw_fd_ostream &os) -> Error {
        ModuleOp printed = stage ? *stage : module;
        if (!StringRef(command.output).ends_with(".mlirbc"))
          printStage(printed, os);
        else if (failed(writeBytecodeToFile(printed, os)))
          return makeError("cannot write '" + command.output + "' as bytecode");
        return Error::success();
      });
  if (!error)
    error = files.commit();
  return error ? fail(llvm::toString(std::move(error))) : ExitSuccess;
}

//===----------------------------------------------------------------------===//
// The verb
//===----------------------------------------------------------------------===//

/// "models/m-1.so" becomes "m_1".
static std::string getPrefix(StringRef output) {
  std::string name;
  for (char c : llvm::sys::path::stem(output))
    name += llvm::isAlnum(c) ? c : '_';
  if (name.empty() || llvm::isDigit(name.front()))
    name = "model_" + name;
  return name;
}

static bool isIdentifier(StringRef name) {
  return !name.empty() && !llvm::isDigit(name.front()) &&
         llvm::all_of(name,
                      [](char c) { return llvm::isAlnum(c) || c == '_'; });
}

static Error writeText(EmittedModel &model, const CompileCommand &command) {
  OutputFiles files;
  if (Error error =
          files.write(command.output, [&](llvm::raw_fd_ostream &os) -> Error {
            if (command.emit == "llvm-ir") {
              model.writeLLVM(os);
              return Error::success();
            }
            if (command.emit == "kernels") {
              os << model.getKernels();
              return Error::success();
            }
            // The writer of code seeks, which a pipe does not.
            llvm::SmallVector<char, 0> text;
            llvm::raw_svector_ostream buffer(text);
            if (Error error = model.writeCode(buffer, command.emit == "asm"))
              return error;
            os.write(text.data(), text.size());
            return Error::success();
          }))
    return error;
  return files.commit();
}

static SmallString<128> replaceEnding(StringRef path, StringRef ending) {
  SmallString<128> result(path);
  llvm::sys::path::replace_extension(result, ending);
  return result;
}

static Error checkDevice(const CompileCommand &command,
                         const NvidiaRow &device) {
  if (command.emit == "llvm")
    return makeError("--emit llvm: for " + device.name +
                     " there are loops, llvm-ir (of the host) and kernels");
  return Error::success();
}

static Error checkCommand(const CompileCommand &command,
                          const CompileTarget &target, StringRef prefix) {
  StringRef output = command.output;
  if (!target.device && command.emit == "kernels")
    return makeError("--emit kernels: for GPUs only; --target takes " +
                     listNvidiaRows());
  if (target.device)
    if (Error error = checkDevice(command, *target.device))
      return error;
  if (target.device && output.ends_with(".ptx"))
    return Error::success();
  if (!isIdentifier(prefix))
    return makeError("--name " + prefix + ": not the start of a C name");
  if (command.emit.empty() && !output.ends_with(".so") &&
      !output.ends_with(".o") && !output.ends_with(".a"))
    return makeError("cannot tell what to write from '" + output +
                     "': end it with .so, .o or .a, or ask for a stage by "
                     "--emit");
  return Error::success();
}

static Error writeAll(EmittedModel &model, const CompileCommand &command,
                      StringRef weights) {
  OutputFiles files;
  if (Error error =
          addLibrary(model, command.output, weights, model.getTriple(), files))
    return error;
  if (Error error = files.write(replaceEnding(command.output, ".h"),
                                [&](llvm::raw_fd_ostream &os) {
                                  model.writeHeader(os);
                                  return Error::success();
                                }))
    return error;
  return files.commit();
}

/// True where only the kernels are written.
static bool writesPtx(const CompileCommand &command) {
  return command.emit.empty() && StringRef(command.output).ends_with(".ptx");
}

static Error writePtx(EmittedModel &model, StringRef output) {
  OutputFiles files;
  if (Error error = files.write(output, [&](llvm::raw_fd_ostream &os) {
        os << model.getPtx();
        return Error::success();
      }))
    return error;
  return files.commit();
}

/// "1.5 MiB of weights, 64.0 KiB of buffers".
static std::string describeMemory(const EmittedModel &model) {
  std::string text =
      formatBytes(model.getWeights().getSize()) + " of weights, ";
  std::optional<uint64_t> buffers = model.getBufferBytes();
  return text + (buffers ? formatBytes(*buffers) + " of buffers"
                         : "and buffers by the sizes of the inputs");
}

static uint64_t getSize(StringRef path) {
  uint64_t size = 0;
  (void)llvm::sys::fs::file_size(path, size);
  return size;
}

/// The rows that code was emitted for, by name.
static std::vector<StringRef> getNames(const CompileTarget &target) {
  if (target.device)
    return {target.device->name};
  std::vector<StringRef> names;
  names.reserve(target.rows.size());
  for (const TargetRow *row : target.rows)
    names.push_back(row->name);
  return names;
}

static void printJSON(const CompileCommand &command,
                      const CompileTarget &target, const EmittedModel &model,
                      StringRef prefix, double seconds) {
  llvm::json::Object object{{"output", command.output},
                            {"output_bytes", getSize(command.output)},
                            {"seconds", seconds},
                            {"targets", llvm::json::Array(getNames(target))}};
  if (!writesPtx(command)) {
    object["header"] = std::string(replaceEnding(command.output, ".h"));
    object["prefix"] = prefix;
    if (model.hasWeightsFile()) {
      std::string weights(replaceEnding(command.output, ".weights"));
      object["weights_bytes"] = getSize(weights);
      object["weights"] = std::move(weights);
    }
  }
  if (target.device) {
    std::optional<uint64_t> buffers = model.getBufferBytes();
    object["device_memory"] = llvm::json::Object{
        {"weights_bytes", model.getWeights().getSize()},
        {"buffer_bytes",
         buffers ? llvm::json::Value(*buffers) : llvm::json::Value(nullptr)}};
  }
  llvm::outs() << llvm::formatv("{0:2}", llvm::json::Value(std::move(object)))
               << "\n";
}

static void printSummary(const CompileCommand &command,
                         const CompileTarget &target, const EmittedModel &model,
                         StringRef prefix, double seconds) {
  llvm::outs() << command.output << ": " << formatBytes(getSize(command.output))
               << ", for ";
  llvm::interleaveComma(getNames(target), llvm::outs());
  llvm::outs() << "\n";
  if (target.device)
    llvm::outs() << "memory of the GPU: " << describeMemory(model) << "\n";
  if (!writesPtx(command)) {
    if (model.hasWeightsFile()) {
      SmallString<128> weights = replaceEnding(command.output, ".weights");
      llvm::outs() << weights << ": " << formatBytes(getSize(weights))
                   << " of weights; keep it beside the library\n";
    }
    llvm::outs() << replaceEnding(command.output, ".h") << ": the C interface, "
                 << prefix << "_create, " << prefix << "_run, ...\n";
  }
  llvm::outs() << llvm::formatv("compiled in {0:f1} s\n", seconds);
}

int nibble::compile(const CompileCommand &command) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point start = Clock::now();
  std::string prefix =
      !command.name.empty()
          ? command.name
          : getPrefix(command.output == "-" ? command.input : command.output);
  auto target = parseTarget(command.target);
  if (!target)
    return fail(llvm::toString(target.takeError()));
  if (Error error = checkCommand(command, *target, prefix))
    return fail(llvm::toString(std::move(error)));
  Session session;
  addPipelineDialects(session.getContext());
  OwningOpRef<ModuleOp> module =
      loadModel(command.input, &session.getContext());
  if (!module)
    return ExitFailure;
  if (llvm::is_contained({"onnx", "linalg", "nibble", "loops", "llvm"},
                         command.emit))
    return printIR(command, *module, *target);

  SmallString<128> weights = replaceEnding(command.output, ".weights");
  EmitOptions options;
  options.name = prefix;
  options.rows = target->rows;
  options.device = target->device;
  options.compute = command.compute;
  options.weights = command.weights;
  options.updateCaches = command.updateCaches;
  options.weightsFile = llvm::sys::path::filename(weights).str();
  auto model = EmittedModel::emit(*module, options);
  if (failed(model))
    return ExitFailure;
  Error error = writesPtx(command)     ? writePtx(**model, command.output)
                : command.emit.empty() ? writeAll(**model, command, weights)
                                       : writeText(**model, command);
  if (error)
    return fail(llvm::toString(std::move(error)));
  std::chrono::duration<double> seconds = Clock::now() - start;
  if (!command.emit.empty())
    return ExitSuccess;
  if (command.json)
    printJSON(command, *target, **model, prefix, seconds.count());
  else if (!command.quiet)
    printSummary(command, *target, **model, prefix, seconds.count());
  return ExitSuccess;
}
