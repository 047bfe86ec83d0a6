//===- nibble.cpp - The command line --------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Driver/Driver.h"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <map>
#include <memory>

using namespace nibble;

static std::map<std::string, ExternalData> getExternalDataNames() {
  return {{"never", ExternalData::Never},
          {"auto", ExternalData::Auto},
          {"always", ExternalData::Always}};
}

static std::map<std::string, ScaleSearch> getSearchNames() {
  return {{"minmax", ScaleSearch::MinMax},
          {"search", ScaleSearch::LeastSquares}};
}

static std::map<std::string, RangeObserver> getObserverNames() {
  return {{"minmax", RangeObserver::MinMax},
          {"percentile", RangeObserver::Percentile},
          {"entropy", RangeObserver::Entropy},
          {"mse", RangeObserver::MeanSquares}};
}

/// An option that takes one of a few words.
template <typename T>
static void addChoice(CLI::App *verb, const std::string &name, T &value,
                      const std::map<std::string, T> &names,
                      const std::string &description) {
  std::string words;
  for (auto &[word, meaning] : names)
    words += (words.empty() ? "" : "|") + word;
  verb->add_option_function<std::string>(
          name,
          [&value, names](const std::string &word) { value = names.at(word); },
          description)
      ->type_name(words)
      ->check(CLI::IsMember(names));
}

/// "model.onnx" with ".so" becomes "model.so".
static std::string replaceEnding(std::string input, const char *ending) {
  const std::string suffix = ".onnx";
  if (input.size() > suffix.size() &&
      input.compare(input.size() - suffix.size(), suffix.size(), suffix) == 0)
    input.resize(input.size() - suffix.size());
  return input + ending;
}

static void addQuantize(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<QuantizeCommand>();
  CLI::App *verb =
      app.add_subcommand("quantize", "Store a model's weights in fewer bits");
  verb->add_option("model", command->input, "The ONNX model to quantize")
      ->required();
  verb->add_option("-o,--output", command->output,
                   "The file to write (default: MODEL.quantized.onnx)");
  verb->add_option(
          "--scheme", command->scheme,
          "How MatMul and Gemm weights are stored: w<bits> or nf4, fp4; "
          "g<group size>, c (per channel) or t (per tensor); s "
          "(symmetric). w4g128, w4g32s, w8c, nf4g64 ...; keep: as they "
          "are")
      ->capture_default_str();
  verb->add_option("--embedding", command->embedding,
                   "How tables that Gather reads (and a tied head) are stored: "
                   "a scheme or keep")
      ->capture_default_str();
  verb->add_option(
      "--rule", command->rules,
      "PATTERN=SCHEME for some weights, may be repeated: PATTERN is "
      "a glob over weight and node names, op:OPTYPE, larger:N or smaller:N "
      "elements; the first match decides");
  verb->add_option(
      "--keep", command->keep,
      "Glob of weights or nodes to leave in float, may be repeated");
  verb->add_option(
          "--method", command->method,
          "How codes are chosen: auto (awq+recipe), recipe (scale "
          "search, GPTQ, coordinate descent and scale refits), gptq "
          "(plain), obq (the cheapest weight first; slow, weights of "
          "up to 1024 inputs), round; awq (weights that meet large "
          "inputs scaled up), smoothquant (inputs scaled down), "
          "llm-int8 (inputs with outliers in 16 bits), spqr (single "
          "weights in 16 bits); awq+gptq, spqr+recipe, awq+spqr+recipe "
          "... (default: auto with --calib, else round; smoothquant "
          "with --activations)")
      ->check(CLI::IsMember(getMethodNames()));
  verb->add_option("--outlier-threshold", command->outlierThreshold,
                   "The least magnitude of an outlier of llm-int8")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--outlier-share", command->outlierShare,
                   "About how many percent of each weight spqr keeps in 16 "
                   "bits")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  verb->add_option("--calib", command->calibration,
                   "Calibration data: an .npz file whose arrays are called as "
                   "the model's inputs, with a leading axis of samples, or a "
                   "folder of .npz files, one a sample. Without data: self, "
                   "texts that a language model draws from itself, or random "
                   "numbers");
  verb->add_option("--activations", command->activations,
                   "What convolutions and matrix products with weights of 8 "
                   "bits and no zero point (w8cs) read and give: float; or, "
                   "for integer arithmetic, u8 with ranges from --calib, or "
                   "dynamic with those of each call (products only)")
      ->check(CLI::IsMember({"float", "u8", "dynamic"}))
      ->capture_default_str();
  addChoice(verb, "--observer", command->observer, getObserverNames(),
            "The range of an activation's codes: all that was seen, all but "
            ".005 % at each end, where the distribution changes least, or the "
            "least squared error (default: minmax)");
  verb->add_option("--samples", command->samples,
                   "How many samples to take (default: all)");
  verb->add_flag("--sequential,!--no-sequential", command->sequential,
                 "Measure each part of the model on what the quantized parts "
                 "before it compute");
  verb->add_option("--damping", command->damping,
                   "Of the Hessian, as a fraction of its mean diagonal")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  addChoice(verb, "--scale", command->search, getSearchNames(),
            "Scales from the range of each block, or searched for the least "
            "weighted error (default: search)");
  verb->add_flag("--double-quantization", command->doubleQuantization,
                 "Store the scales in 8 bits too (saves .37 bits a weight in "
                 "groups of 64); for integers, written as DequantizeLinear");
  verb->add_option("--format", command->format,
                   "The ops that hold the weights: auto takes the fastest that "
                   "fits")
      ->check(CLI::IsMember({"auto", "matmulnbits", "qdq", "bnb4"}))
      ->capture_default_str();
  verb->add_option(
          "--accuracy-level", command->accuracyLevel,
          "How MatMulNBits computes: 1 in f32, 4 with int8 activations")
      ->check(CLI::IsMember({0, 1, 2, 3, 4}))
      ->capture_default_str();
  addChoice(verb, "--external-data", command->externalData,
            getExternalDataNames(),
            "Where weights go: auto keeps what the model did, and moves them "
            "out past 2 GiB");
  verb->add_option("--threads", command->threads,
                   "Threads to use, 0: one a core; never changes the result")
      ->capture_default_str();
  auto *bits = verb->add_option(
      "--target-bpw", command->targetBits,
      "Choose a scheme for each matrix, so that together they take at most so "
      "many bits a weight and harm the model least (needs --calib)");
  auto *size = verb->add_option("--target-size", command->targetBytes,
                                "The same for the size of the file: 100MB")
                   ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true));
  auto *divergence = verb->add_option(
      "--max-kl", command->maxDivergence,
      "The same with the fewest bits whose output diverges at most so far from "
      "the float model's, in nats");
  for (CLI::Option *budget : {bits, divergence})
    budget->check(CLI::PositiveNumber);
  bits->excludes(size)->excludes(divergence);
  size->excludes(divergence);
  verb->add_flag("--evaluate,!--no-evaluate", command->evaluate,
                 "Run the float and the quantized model on samples of --calib "
                 "that calibration did not take, and say how outputs differ "
                 "(default: with --calib)");
  verb->add_option("--report", command->report,
                   "Write an HTML page about the result");
  verb->add_flag("--resume", command->resume,
                 "Go on with what an interrupted run with --calib has left in "
                 "OUTPUT.journal; without one, start");
  verb->add_flag("--dry-run", command->dryRun,
                 "Print the plan for each weight and stop");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->add_flag("--quiet", command->quiet, "No progress");
  verb->footer(
      "Examples:\n"
      "  $ nibble quantize m.onnx -o q.onnx --scheme w4g32\n"
      "  $ nibble quantize m.onnx -o q.onnx --scheme w8c --keep '*head*'\n"
      "  $ nibble quantize m.onnx -o q.onnx --dry-run\n"
      "  $ nibble quantize m.onnx -o q.onnx --calib x.npz --report r.html\n"
      "  $ nibble quantize m.onnx -o q.onnx --calib x.npz --target-bpw 4.5\n"
      "  $ nibble quantize m.onnx -o q.onnx --calib self\n"
      "\nExit codes: 0 done, 1 error, 2 usage, 3 nothing to quantize.");
  verb->callback([command, &exitCode] {
    if (command->output.empty())
      command->output = replaceEnding(command->input, ".quantized.onnx");
    exitCode = quantize(*command);
  });
}

static void addInspect(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<InspectCommand>();
  CLI::App *verb = app.add_subcommand(
      "inspect", "Show what a model is made of and what it takes to run it");
  verb->add_option("model", command->input, "The model")->required();
  verb->add_option("--context", command->context,
                   "Tokens of context to count the key-value cache for")
      ->capture_default_str();
  verb->add_option("--largest", command->largest,
                   "How many of the largest tensors to list")
      ->capture_default_str();
  verb->add_flag("--json", command->json, "Print everything as JSON");
  verb->footer("Examples:\n"
               "  $ nibble inspect m.onnx\n"
               "  $ nibble inspect m.onnx --context 8192 --json");
  verb->callback([command, &exitCode] { exitCode = inspect(*command); });
}

static void addDiff(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<DiffCommand>();
  CLI::App *verb =
      app.add_subcommand("diff", "Compare two models, weight by weight");
  verb->add_option("before", command->before, "The one model")->required();
  verb->add_option("after", command->after, "The other model")->required();
  verb->add_flag("--json", command->json, "Print everything as JSON");
  verb->footer("Examples:\n"
               "  $ nibble quantize m.onnx -o q.onnx --scheme w4g32\n"
               "  $ nibble diff m.onnx q.onnx");
  verb->callback([command, &exitCode] { exitCode = diff(*command); });
}

static void addConvert(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<ConvertCommand>();
  CLI::App *verb = app.add_subcommand(
      "convert", "Write a model in another container or quantized format");
  verb->add_option("model", command->input,
                   "The model: .onnx, .mlir or .mlirbc")
      ->required();
  verb->add_option("-o,--output", command->output,
                   "The file to write: .onnx, .mlir or .mlirbc")
      ->required();
  verb->add_option("--format", command->format,
                   "The ops that hold quantized weights")
      ->check(CLI::IsMember({"auto", "matmulnbits", "qdq", "bnb4"}))
      ->capture_default_str();
  addChoice(verb, "--external-data", command->externalData,
            getExternalDataNames(),
            "Where the weights of an ONNX model go (default: auto)");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("Examples:\n"
               "  $ nibble convert m.onnx -o m.mlir\n"
               "  $ nibble convert m.onnx -o big.onnx --external-data always");
  verb->callback([command, &exitCode] { exitCode = convert(*command); });
}

static void addTestOnnx(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<TestOnnxCommand>();
  CLI::App *verb = app.add_subcommand(
      "test-onnx", "Run cases in the layout of ONNX's backend tests");
  verb->add_option("folder", command->folders,
                   "A case (model.onnx, test_data_set_0/input_0.pb, "
                   ".../output_0.pb, perhaps tol.json) or a folder of cases")
      ->required();
  verb->add_option("-j,--jobs", command->jobs,
                   "Processes to use, 0: one a core")
      ->capture_default_str();
  verb->add_option("--timeout", command->timeout,
                   "Seconds that one case may take")
      ->check(CLI::Range(1u, 86400u))
      ->capture_default_str();
  verb->add_flag("--reference", command->reference,
                 "Run the reference lowering instead of native code");
  verb->add_flag("--verbose", command->verbose,
                 "List each case that does not pass, with the reason");
  verb->add_flag("--json", command->json, "Print everything as JSON");
  verb->footer("Examples:\n"
               "  $ nibble test-onnx node/test_relu\n"
               "  $ nibble test-onnx node --jobs 4 --verbose\n"
               "\nExit codes: 0 all pass, 1 some do not, 2 usage.");
  verb->callback([command, &exitCode] { exitCode = testOnnx(*command); });
}

static void addCompile(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<CompileCommand>();
  CLI::App *verb = app.add_subcommand(
      "compile", "Make a model a library that needs no framework");
  verb->add_option("model", command->input,
                   "The model: .onnx, .mlir or .mlirbc")
      ->required();
  verb->add_option("-o,--output", command->output,
                   "The file to write: .so, .a or .o; a header and large "
                   "weights go beside it; .ptx: the kernels of a GPU");
  verb->add_option("--target", command->target,
                   "The instruction set: native, generic, x86-64-v3, ..., "
                   "aarch64+dotprod; multi: several, one is chosen at load; or "
                   "the GPU: nvidia-sm80, ..., nvidia-sm90a")
      ->capture_default_str();
  verb->add_option("--compute", command->compute,
                   "Products with integer weights: i8 quantizes the "
                   "activations to 8 bits too (on a GPU: rounds them to f16), "
                   "f32 does not")
      ->check(CLI::IsMember({"i8", "f32"}))
      ->capture_default_str();
  verb->add_option("--name", command->name,
                   "What the C functions start with (default: after the "
                   "output)");
  addChoice(verb, "--weights", command->weights,
            {{"auto", WeightsPlace::Auto},
             {"embed", WeightsPlace::Embedded},
             {"file", WeightsPlace::File}},
            "In the library, in a file of their own, or by their size "
            "(default: auto, 16 MiB)");
  verb->add_flag("--update-caches", command->updateCaches,
                 "Take caches that grow as buffers with room for more, which a "
                 "run writes to in place, instead of returning a copy");
  verb->add_option("--emit", command->emit,
                   "Print a stage of the compilation instead (to -o or "
                   "standard output)")
      ->check(CLI::IsMember({"onnx", "linalg", "nibble", "loops", "llvm",
                             "llvm-ir", "asm", "obj", "kernels"}));
  verb->add_flag("--quiet", command->quiet, "Print nothing but errors");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("Examples:\n"
               "  $ nibble compile m.onnx -o m.so\n"
               "  $ nibble compile m.onnx -o m.so --target multi\n"
               "  $ nibble compile m.onnx -o m.so --target nvidia-sm80\n"
               "  $ nibble compile m.onnx --emit linalg");
  verb->callback([command, &exitCode] {
    if (command->output.empty())
      command->output =
          command->emit.empty() ? replaceEnding(command->input, ".so") : "-";
    exitCode = compile(*command);
  });
}

static void addInputArguments(CLI::App *verb, InputArguments &arguments) {
  verb->add_option("--inputs", arguments.inputs,
                   "NumPy archive (.npz) with an array for each input");
  verb->add_flag("--random", arguments.random,
                 "Make up the inputs that are not given");
  verb->add_option("--dim", arguments.dimensions,
                   "NAME=SIZE of a dimension of made-up inputs, may be "
                   "repeated (default: 1)");
  verb->add_option("--seed", arguments.seed, "Seed of made-up inputs")
      ->capture_default_str();
}

static void addRun(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<RunCommand>();
  CLI::App *verb = app.add_subcommand("run", "Run a model once");
  verb->add_option("model", command->input, "The model")->required();
  addInputArguments(verb, command->arguments);
  verb->add_option("--outputs", command->outputs,
                   "NumPy archive (.npz) to write");
  verb->add_option("--device", command->device,
                   "What runs it: this machine's processor, its NVIDIA GPU "
                   "(cuda), or a simulated GPU, slow but with memory and "
                   "barriers checked")
      ->check(CLI::IsMember({"cpu", "cuda", "simulator"}))
      ->capture_default_str();
  verb->add_option("--target", command->target,
                   "The instruction set, or the GPU (native: nvidia-sm80)")
      ->capture_default_str();
  verb->add_flag("--no-cache", command->noCache,
                 "Compile again, and keep nothing");
  verb->add_flag("--quiet", command->quiet, "Print nothing but errors");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("What was compiled stays in $XDG_CACHE_HOME/nibble "
               "(~/.cache/nibble).\n\n"
               "Examples:\n"
               "  $ nibble run m.onnx --inputs x.npz --outputs y.npz\n"
               "  $ nibble run m.onnx --random --dim batch=4");
  verb->callback([command, &exitCode] { exitCode = run(*command); });
}

static void addGenerate(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<GenerateCommand>();
  CLI::App *verb =
      app.add_subcommand("generate", "Continue a text by a language model");
  verb->add_option("model", command->input,
                   "A causal language model, best with a cache (inputs past…, "
                   "outputs present…)")
      ->required();
  auto *tokenizer = verb->add_option("--tokenizer", command->tokenizer,
                                     "The model's tokenizer.json; reading it "
                                     "takes Python's package tokenizers");
  auto *prompt =
      verb->add_option("--prompt", command->prompt, "The text to continue");
  auto *ids = verb->add_option("--prompt-ids", command->promptIds,
                               "The tokens to continue, by their numbers: "
                               "1,2,3")
                  ->delimiter(',');
  tokenizer->needs(prompt);
  prompt->needs(tokenizer);
  ids->excludes(prompt)->excludes(tokenizer);
  verb->add_option("--tokens", command->tokens, "Tokens to add at most")
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  verb->add_option("--temperature", command->temperature,
                   "0 takes the likeliest token each time; above, tokens are "
                   "drawn by their probability at this temperature")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--seed", command->seed, "Of what is drawn")
      ->capture_default_str();
  verb->add_option("--target", command->target, "The instruction set")
      ->capture_default_str();
  verb->add_option("--threads", command->threads,
                   "Threads to use, 0: one a core; never changes the result")
      ->capture_default_str();
  verb->add_flag("--no-cache", command->noCache,
                 "Compile again, and keep nothing");
  verb->add_flag("--json", command->json,
                 "Print tokens and times as JSON, and no text");
  verb->add_flag("--quiet", command->quiet, "Print the text only");
  verb->footer("Ends with the first special token of the tokenizer.\n\n"
               "Examples:\n"
               "  $ nibble generate m.onnx --prompt-ids 1,2,3 --tokens 8");
  verb->callback([command, &exitCode] {
    if (command->prompt.empty() && command->promptIds.empty())
      throw CLI::RequiredError("--prompt or --prompt-ids");
    exitCode = generate(*command);
  });
}

static void addVerify(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<VerifyCommand>();
  CLI::App *verb = app.add_subcommand(
      "verify", "Compare native code with the reference, op by op");
  verb->add_option("model", command->input, "The model")->required();
  addInputArguments(verb, command->arguments);
  verb->add_option("--target", command->target, "The instruction set")
      ->capture_default_str();
  verb->add_option("--tolerance", command->tolerance,
                   "The largest error of a value: root mean square, relative "
                   "to the reference")
      ->capture_default_str();
  verb->add_flag("--no-cache", command->noCache,
                 "Compile again, and keep nothing");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer(
      "Examples:\n"
      "  $ nibble verify m.onnx --random --dim batch=4\n"
      "\nExit codes: 0 all values agree, 1 not, or an error, 2 usage.");
  verb->callback([command, &exitCode] { exitCode = verify(*command); });
}

static void addBench(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<BenchCommand>();
  CLI::App *verb = app.add_subcommand(
      "bench", "Measure a model beside the machine's limits and a peer");
  verb->add_option("model", command->input,
                   "The model; without one, the machine's limits alone");
  addInputArguments(verb, command->arguments);
  verb->add_option("--target", command->target, "The instruction set")
      ->capture_default_str();
  verb->add_option("--threads", command->threads, "Threads to use")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--repeat", command->repeats,
                   "Calls to measure (default: for two seconds)");
  verb->add_flag("--no-cache", command->noCache,
                 "Compile again, and keep nothing");
  verb->add_flag("--json", command->json, "Print the result as JSON");
  verb->footer("Examples:\n"
               "  $ nibble bench m.onnx --random --dim sequence=128\n"
               "  $ nibble bench --threads 2");
  verb->callback([command, &exitCode] { exitCode = bench(*command); });
}

static void addKernels(CLI::App &app, int &exitCode) {
  auto command = std::make_shared<KernelsCommand>();
  CLI::App *verb = app.add_subcommand(
      "kernels", "Write the matrix products of a GPU as PTX");
  verb->add_option("-o,--output", command->output, "The folder to write")
      ->required();
  verb->add_option("--target", command->target,
                   "The GPU: nvidia-sm80, ..., nvidia-sm90a")
      ->capture_default_str();
  verb->add_option("--scheme", command->scheme,
                   "How the weight is stored: w4, w8 (with s at the end if "
                   "symmetric), nf4, fp4, f8E4M3FN, f8E5M2 or f4E2M1FN, and c "
                   "or g<32, 64 or a multiple of 128>")
      ->capture_default_str();
  verb->add_flag("--bias", command->bias, "Add a bias");
  verb->add_option("--activation", command->activation,
                   "What is done to the result: none, relu, gelu or silu")
      ->capture_default_str();
  verb->add_option("--tile", command->tiles,
                   "What a block computes, as in a kernel's name, may be "
                   "repeated (default: all tiles that Nibble uses)");
  verb->add_option("--emit", command->emit,
                   "ptx; c: PTX, and what launches it, as C code; llvm: the "
                   "LLVM IR that PTX is made of")
      ->check(CLI::IsMember({"ptx", "c", "llvm"}))
      ->capture_default_str();
  verb->footer("Examples:\n"
               "  $ nibble kernels -o kernels --target nvidia-sm80");
  verb->callback([command, &exitCode] { exitCode = kernels(*command); });
}

static int runCommand(int argc, char **argv) {
  CLI::App app("Nibble, a quantization compiler for ONNX models", "nibble");
  app.require_subcommand(1);
  app.set_version_flag("--version", NIBBLE_VERSION);
  app.footer("Examples:\n"
             "  $ nibble inspect m.onnx\n"
             "  $ nibble quantize m.onnx -o q.onnx --scheme w4g128\n"
             "\nnibble VERB --help shows the options of each verb.");
  int exitCode = ExitSuccess;
  addQuantize(app, exitCode);
  addInspect(app, exitCode);
  addDiff(app, exitCode);
  addConvert(app, exitCode);
  addTestOnnx(app, exitCode);
  addCompile(app, exitCode);
  addRun(app, exitCode);
  addGenerate(app, exitCode);
  addVerify(app, exitCode);
  addBench(app, exitCode);
  addKernels(app, exitCode);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error) == 0 ? ExitSuccess : ExitUsage;
  }
  return exitCode;
}

int main(int argc, char **argv) {
  try {
    return runCommand(argc, argv);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return ExitFailure;
  }
}
