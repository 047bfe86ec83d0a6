//===- LaunchCode.cpp - C code that launches GPU kernels ------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "LaunchCode.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

using namespace nibble;
using llvm::formatv;
using llvm::StringRef;

static const unsigned char launcherHeader[] = {
#include "nibble_gpu.h.inc"
};
static const unsigned char launcherSource[] = {
#include "nibble_gpu.c.inc"
};

template <size_t size>
static std::string toText(const unsigned char (&bytes)[size]) {
  return std::string(reinterpret_cast<const char *>(bytes), size);
}

/// C's string literals of the lines of `text`.
static std::string quoteLines(StringRef text) {
  std::string quoted;
  while (!text.empty()) {
    auto [line, rest] = text.split('\n');
    quoted += "\"";
    for (char c : line) {
      if (c == '"' || c == '\\')
        quoted += '\\';
      quoted += c;
    }
    quoted += "\\n\"\n";
    text = rest;
  }
  return quoted;
}

static std::string describeKernel(const LaunchedKernel &launched,
                                  size_t number) {
  const FragmentTile &tile = launched.kernel.tile;
  return formatv("  {{.name = \"{0}\",\n"
                 "   .ptx = ptx{1},\n"
                 "   .max_rows = {2},\n"
                 "   .outputs = {3},\n"
                 "   .rows = {4},\n"
                 "   .warps_along_k = {5},\n"
                 "   .threads = {6},\n"
                 "   .shared_bytes = {7}},\n",
                 launched.kernel.getName(), number, launched.maxRows,
                 tile.outputs(), tile.rows(), tile.warpsAlongK, tile.threads(),
                 tile.sharedBytes());
}

static std::string describeFormat(const NvidiaRow &row,
                                  const FragmentMatmul &kernel, size_t count) {
  // "sm_90a" is 9.0 alone.
  StringRef version = row.chip;
  version.consume_front("sm_");
  bool isExact = version.consume_back("a");
  return formatv("const nibble_gpu_kernels nibble_kernels = {{\n"
                 "  .chip = \"{0}\",\n"
                 "  .major = {1},\n"
                 "  .minor = {2},\n"
                 "  .is_exact = {3},\n"
                 "  .bits = {4},\n"
                 "  .group = {5},\n"
                 "  .has_zeros = {6},\n"
                 "  .has_bias = {7},\n"
                 "  .overlaps = {8},\n"
                 "  .count = {9},\n"
                 "  .kernels = kernels};\n",
                 row.chip, version.drop_back(), version.back(), int(isExact),
                 kernel.weight.storage.bits, kernel.weight.group,
                 int(kernel.weight.hasZeros()), int(kernel.epilogue.hasBias),
                 int(kernel.overlaps), count);
}

std::vector<TextFile>
nibble::makeLaunchCode(const NvidiaRow &row,
                       llvm::ArrayRef<LaunchedKernel> kernels) {
  std::string title =
      formatv("/* Products of {0} weights for {1}. */\n\n",
              kernels.front().kernel.weight.getName(), row.name);
  std::string header = title +
                       "#include \"nibble_gpu.h\"\n\n"
                       "#ifdef __cplusplus\nextern \"C\" {\n#endif\n"
                       "extern const nibble_gpu_kernels nibble_kernels;\n"
                       "#ifdef __cplusplus\n}\n#endif\n";
  std::string source = title + "#include \"kernels.h\"\n\n", table;
  for (auto [number, kernel] : llvm::enumerate(kernels)) {
    source += formatv("static const char ptx{0}[] =\n{1};\n\n", number,
                      quoteLines(kernel.ptx));
    table += describeKernel(kernel, number);
  }
  source += "static const nibble_gpu_kernel kernels[] = {\n" + table + "};\n\n";
  source += describeFormat(row, kernels.front().kernel, kernels.size());
  return {{"kernels.h", header},
          {"kernels.c", source},
          {"nibble_gpu.h", toText(launcherHeader)},
          {"nibble_gpu.c", toText(launcherSource)}};
}
