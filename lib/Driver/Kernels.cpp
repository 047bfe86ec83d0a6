//===- Kernels.cpp - nibble kernels ---------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LaunchCode.h"

#include "nibble/Conversion/TensorCoreKernels.h"
#include "nibble/Driver/Driver.h"
#include "nibble/Numerics/Scheme.h"
#include "nibble/Support/OutputFile.h"
#include "nibble/Target/NVVM/DeviceModule.h"

#include "mlir/IR/MLIRContext.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/Path.h"

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

/// The format of `scheme` for tensor cores.
static Expected<FragmentWeight> getWeight(const std::string &name) {
  Result<Scheme> scheme = parseScheme(name);
  if (!scheme)
    return makeError(scheme.error());
  return getFragmentWeight(*scheme);
}

/// "n32x1_m8_k8_s4", as the kernels' names have it.
static Expected<FragmentTile> parseTile(llvm::StringRef text) {
  FragmentTile tile;
  llvm::StringRef rest = text;
  auto take = [&](llvm::StringRef word, int64_t &value) {
    return rest.consume_front(word) && !rest.consumeInteger(10, value);
  };
  int64_t outputs = 0, rows = 0;
  if (!take("n", outputs) || !take("x", tile.warpsAlongN) ||
      !take("_m", rows) || !take("_k", tile.warpsAlongK) ||
      !take("_s", tile.stages))
    return makeError("'" + text +
                     "' is no tile: one is written like n32x1_m8_k8_s4");
  tile.asWarpgroups = rest.consume_front("_wg");
  if (!rest.empty())
    return makeError("'" + rest + "' has no meaning behind a tile");
  tile.outputTiles = outputs / 16;
  tile.rowTiles = rows / 8;
  if (outputs % 16 != 0 || rows % 8 != 0)
    return makeError("tile '" + text +
                     "': outputs are a multiple of 16, rows of 8");
  if (Error error = verifyFragmentTile(tile))
    return makeError("tile '" + text +
                     "': " + llvm::toString(std::move(error)));
  return tile;
}

static Error writeFile(llvm::StringRef folder, llvm::StringRef name,
                       llvm::StringRef text) {
  llvm::SmallString<128> path(folder);
  llvm::sys::path::append(path, name);
  auto file = OutputFile::create(path);
  if (!file)
    return file.takeError();
  (*file)->getStream() << text;
  return (*file)->commit();
}

/// The module as PTX, or as the LLVM IR that PTX is made of.
static Expected<std::string> emit(std::unique_ptr<llvm::Module> module,
                                  const NvidiaRow &row, bool asLlvm) {
  if (!asLlvm)
    return emitPtx(std::move(module), row);
  std::string text;
  llvm::raw_string_ostream stream(text);
  module->print(stream, /*AAW=*/nullptr);
  return text;
}

/// The kernel's code, as PTX or LLVM IR.
static Expected<std::string> makeCode(MLIRContext &context,
                                      const FragmentMatmul &kernel,
                                      const NvidiaRow &row, bool asLlvm) {
  const FragmentTile &tile = kernel.tile;
  if (tile.asWarpgroups && !row.hasWarpgroups)
    return makeError(llvm::formatv("{0} needs nvidia-sm90a, not {1}",
                                   kernel.getName(), row.name));
  if (tile.sharedBytes() > row.sharedBytes)
    return makeError(llvm::formatv("{0} takes {1} bytes of shared memory; a "
                                   "block on {2} has {3}",
                                   kernel.getName(), tile.sharedBytes(),
                                   row.name, row.sharedBytes));
  OwningOpRef<ModuleOp> module = ModuleOp::create(UnknownLoc::get(&context));
  buildFragmentMatmul(*module, kernel);
  llvm::LLVMContext llvmContext;
  auto device = makeDeviceModule(*module, row, llvmContext);
  if (!device)
    return device.takeError();
  return emit(std::move(*device), row, asLlvm);
}

/// A kernel's entry in the list of kernels.
static llvm::json::Object describe(const LaunchedKernel &launched,
                                   llvm::StringRef file) {
  const FragmentMatmul &kernel = launched.kernel;
  const FragmentTile &tile = kernel.tile;
  return llvm::json::Object{
      {"name", kernel.getName()},
      {"file", file.str()},
      {"storage", printStorage(kernel.weight.storage)},
      {"group", kernel.weight.group},
      {"has_zeros", kernel.weight.hasZeros()},
      {"has_bias", kernel.epilogue.hasBias},
      {"activation", getActivationName(kernel.epilogue.activation)},
      {"overlaps", kernel.overlaps},
      {"max_rows", launched.maxRows},
      {"outputs", tile.outputs()},
      {"rows", tile.rows()},
      {"warps_along_k", tile.warpsAlongK},
      {"threads", tile.threads()},
      {"shared_bytes", tile.sharedBytes()}};
}

/// The tiles that the command asks for, each for as many rows as it has and the
/// tallest for any; else those that are worth launching.
static Expected<std::vector<SizedTile>> getTiles(const KernelsCommand &command,
                                                 const NvidiaRow &row,
                                                 const FragmentWeight &weight) {
  if (command.tiles.empty())
    return getFragmentTiles(weight, row.hasWarpgroups);
  std::vector<SizedTile> tiles;
  int64_t tallest = 0;
  for (const std::string &text : command.tiles) {
    auto tile = parseTile(text);
    if (!tile)
      return tile.takeError();
    tiles.push_back({tile->rows(), *tile});
    tallest = std::max(tallest, tile->rows());
  }
  for (SizedTile &sized : tiles)
    if (sized.maxRows == tallest)
      sized.maxRows = SizedTile::kAnyRows;
  return tiles;
}

static Error writeKernels(const KernelsCommand &command) {
  const NvidiaRow *row = findNvidiaRow(command.target);
  if (!row)
    return makeError("unknown target '" + command.target + "'; there are " +
                     listNvidiaRows());
  auto weight = getWeight(command.scheme);
  if (!weight)
    return weight.takeError();
  auto activation = parseActivation(command.activation);
  if (!activation)
    return makeError("unknown activation '" + command.activation +
                     "'; there are none, relu, gelu and silu");
  auto tiles = getTiles(command, *row, *weight);
  if (!tiles)
    return tiles.takeError();
  if (std::error_code error = llvm::sys::fs::create_directories(command.output))
    return makeError("cannot make the folder '" + command.output +
                     "': " + error.message());

  DialectRegistry registry;
  registerDeviceDialects(registry);
  MLIRContext context(registry, MLIRContext::Threading::DISABLED);
  context.loadAllAvailableDialects();
  llvm::json::Array entries;
  std::vector<LaunchedKernel> kernels;
  for (const SizedTile &sized : *tiles) {
    LaunchedKernel launched;
    launched.maxRows = sized.maxRows;
    FragmentMatmul &kernel = launched.kernel;
    kernel.weight = *weight;
    kernel.tile = sized.tile;
    kernel.epilogue = {command.bias, *activation};
    kernel.overlaps = row->canOverlap;
    auto code = makeCode(context, kernel, *row, command.emit == "llvm");
    if (!code)
      return code.takeError();
    std::string file = "kernels.c";
    if (command.emit == "c") {
      launched.ptx = std::move(*code);
    } else {
      file = kernel.getName() + (command.emit == "llvm" ? ".ll" : ".ptx");
      if (Error error = writeFile(command.output, file, *code))
        return error;
    }
    entries.push_back(describe(launched, file));
    kernels.push_back(std::move(launched));
  }
  if (command.emit == "c")
    for (const TextFile &file : makeLaunchCode(*row, kernels))
      if (Error error = writeFile(command.output, file.name, file.text))
        return error;
  llvm::json::Object list{{"target", row->name},
                          {"chip", row->chip},
                          {"scheme", command.scheme},
                          {"kernels", std::move(entries)}};
  return writeFile(
      command.output, "kernels.json",
      llvm::formatv("{0:2}\n", llvm::json::Value(std::move(list))).str());
}

int nibble::kernels(const KernelsCommand &command) {
  if (Error error = writeKernels(command)) {
    llvm::errs() << "error: " << llvm::toString(std::move(error)) << "\n";
    return ExitFailure;
  }
  return ExitSuccess;
}
