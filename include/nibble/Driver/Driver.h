//===- Driver.h - The verbs of the nibble tool ------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_DRIVER_DRIVER_H
#define NIBBLE_DRIVER_DRIVER_H

#include "nibble/Numerics/BlockQuantizer.h"
#include "nibble/Numerics/RangeObserver.h"
#include "nibble/Onnx/Export.h"
#include "nibble/Target/WeightsPlace.h"

#include <string>
#include <vector>

namespace nibble {

/// What a verb returns to the shell.
enum ExitCode {
  ExitSuccess = 0,
  /// An error in the input or the environment; it has been printed.
  ExitFailure = 1,
  /// The command line was not understood.
  ExitUsage = 2,
  /// `quantize` found nothing to quantize; the output was not written.
  ExitNothingQuantized = 3
};

/// How codes may be chosen: auto, gptq, obq, round; smoothquant, awq, llm-int8,
/// spqr, alone or before a + and one of the first three; awq also before spqr.
std::vector<std::string> getMethodNames();

struct QuantizeCommand {
  std::string input, output;
  /// Scheme of MatMul and Gemm weights, and of embeddings ("keep": as they
  /// are).
  std::string scheme = "w4g128";
  std::string embedding = "keep";
  /// Rules of --nibble-assign-schemes, and globs of what stays in float; globs
  /// come first.
  std::vector<std::string> rules, keep;
  /// One of getMethodNames(); empty: with calibration data smoothquant where
  /// activations are quantized, else auto; round without.
  std::string method;
  /// The least magnitude of an outlier of llm-int8.
  float outlierThreshold = 6;
  /// How many percent of a weight's elements spqr keeps in 16 bits.
  double outlierShare = 1;
  /// An .npz file or a folder of them (CalibrationData.h); "random" or "self":
  /// made up (MadeUpData.h); empty: none.
  std::string calibration;
  /// How many samples to take; 0: all.
  size_t samples = 0;
  /// How activations between products are computed: float, u8, whose ranges
  /// come from the calibration data, or dynamic, u8 by the ranges of each call.
  std::string activations = "float";
  /// How those ranges are chosen.
  RangeObserver observer = RangeObserver::MinMax;
  /// Measure each part on what the quantized parts before it compute.
  bool sequential = false;
  /// Of the Hessian, as a fraction of its mean diagonal.
  double damping = 0.01;
  ScaleSearch search = ScaleSearch::LeastSquares;
  /// Quantize the scales again.
  bool doubleQuantization = false;
  std::string format = "auto";
  int64_t accuracyLevel = 1;
  ExternalData externalData = ExternalData::Auto;
  unsigned threads = 0;
  /// Mixed precision: bits a weight, bytes of the file, or the divergence from
  /// the float model in nats; at most one of them is not 0.
  double targetBits = 0;
  uint64_t targetBytes = 0;
  double maxDivergence = 0;
  bool hasBudget() const {
    return targetBits > 0 || targetBytes > 0 || maxDivergence > 0;
  }
  /// Run the float and the quantized model on some of the samples.
  bool evaluate = true;
  /// An HTML page to write; empty: none.
  std::string report;
  /// Go on with the work that an interrupted run has left in OUTPUT.journal.
  bool resume = false;
  bool dryRun = false;
  bool json = false;
  bool quiet = false;
};

/// Quantizes a model. Before the output gets its name it is read again,
/// compared with what was meant and, where ONNX Runtime is installed for
/// Python, loaded and run.
int quantize(const QuantizeCommand &command);

struct InspectCommand {
  std::string input;
  /// Tokens of context that the key-value cache is counted for.
  uint64_t context = 2048;
  /// How many of the largest tensors are listed.
  unsigned largest = 10;
  bool json = false;
};

/// Shows what a model is made of and what it takes to run it.
int inspect(const InspectCommand &command);

struct DiffCommand {
  std::string before, after;
  bool json = false;
};

/// Compares two models, weight by weight; a quantized weight is compared as
/// what it dequantizes to.
int diff(const DiffCommand &command);

struct ConvertCommand {
  std::string input, output;
  std::string format = "auto";
  ExternalData externalData = ExternalData::Auto;
  bool json = false;
};

/// Writes a model in another container (ONNX, MLIR text or bytecode) or with
/// its quantized weights in another format.
int convert(const ConvertCommand &command);

struct TestOnnxCommand {
  /// Folders of cases, or of folders of cases.
  std::vector<std::string> folders;
  /// Processes to use, 0: one a core.
  unsigned jobs = 0;
  /// Seconds that a case may take.
  unsigned timeout = 20;
  /// Run the reference lowering instead of native code.
  bool reference = false;
  bool verbose = false;
  bool json = false;
};

/// Runs cases in the layout of ONNX's backend tests (model.onnx,
/// test_data_set_0/input_0.pb, …/output_0.pb) with their tolerances, and prints
/// how many pass by op. ExitFailure where one does not.
int testOnnx(const TestOnnxCommand &command);
struct CompileCommand {
  std::string input, output;
  /// A row of TargetRows.inl, native, generic or multi, or a row of
  /// NvidiaRows.inl.
  std::string target = "native";
  /// How products with integer codes are computed: i8 quantizes the activations
  /// too (on a GPU: rounds them to f16), f32 does not.
  std::string compute = "i8";
  /// What the functions of the C interface start with; empty: after the output.
  std::string name;
  WeightsPlace weights = WeightsPlace::Auto;
  /// Make caches that grow buffers that are written in place.
  bool updateCaches = false;
  /// A stage to print instead of a library: onnx, linalg, nibble, loops, llvm,
  /// llvm-ir, asm, obj; kernels: the LLVM IR of a GPU's kernels.
  std::string emit;
  bool quiet = false;
  bool json = false;
};

/// Compiles a model to a shared library, archive or object file with a C header
/// and, where they are large, a file of weights.
int compile(const CompileCommand &command);

/// Where the inputs of a run come from.
struct InputArguments {
  /// An archive of NumPy arrays by the names of the inputs.
  std::string inputs;
  /// Make up the others, of these "name=size" dimensions.
  bool random = false;
  uint64_t seed = 0;
  std::vector<std::string> dimensions;
};

struct RunCommand {
  std::string input, outputs;
  InputArguments arguments;
  std::string target = "native";
  /// "cpu", "cuda" or "simulator".
  std::string device = "cpu";
  bool noCache = false;
  bool quiet = false;
  bool json = false;
};

/// Runs a model once. What was compiled stays in $XDG_CACHE_HOME/nibble.
int run(const RunCommand &command);

struct GenerateCommand {
  std::string input;
  /// A tokenizer.json and a text, or the tokens themselves.
  std::string tokenizer, prompt;
  std::vector<int64_t> promptIds;
  /// How many tokens are added at most.
  unsigned tokens = 64;
  /// 0: always the likeliest token; else one by its probability at this
  /// temperature.
  double temperature = 0;
  uint64_t seed = 0;
  std::string target = "native";
  /// 0: one a core.
  unsigned threads = 0;
  bool noCache = false;
  bool json = false;
  bool quiet = false;
};

/// Continues a text by a causal language model and prints it token by token.
int generate(const GenerateCommand &command);

struct VerifyCommand {
  std::string input;
  InputArguments arguments;
  std::string target = "native";
  /// The largest root mean square of the differences over that of the
  /// reference.
  double tolerance = 1e-3;
  bool noCache = false;
  bool json = false;
};

/// Runs a model by native code and by the reference lowering, compares every
/// value and names the first op that differs.
int verify(const VerifyCommand &command);

struct BenchCommand {
  /// Empty: the machine's limits alone.
  std::string input;
  InputArguments arguments;
  std::string target = "native";
  unsigned threads = 1;
  /// Calls to measure; 0: for two seconds.
  unsigned repeats = 0;
  bool noCache = false;
  bool json = false;
};

/// Measures a model beside what the machine can do, and beside ONNX Runtime.
int bench(const BenchCommand &command);

struct KernelsCommand {
  /// The folder to write.
  std::string output;
  /// A row of NvidiaRows.inl.
  std::string target = "nvidia-sm80";
  /// How the weight is stored; its scales are f16.
  std::string scheme = "w4g128s";
  /// Add a bias.
  bool bias = false;
  /// What is done to the result: "none", "relu", "gelu", "silu".
  std::string activation = "none";
  /// "n32x1_m8_k8_s4" (see FragmentTile); empty: the ones that Nibble takes.
  std::vector<std::string> tiles;
  /// "ptx"; "c" for PTX and what launches it as C; or "llvm" for the LLVM IR
  /// that PTX is made of.
  std::string emit = "ptx";
};

/// Writes the matrix products of a weight format, one file a kernel, and
/// kernels.json, which says how to launch them.
int kernels(const KernelsCommand &command);

} // namespace nibble

#endif // NIBBLE_DRIVER_DRIVER_H
